//! Reading what the host says about a service.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::program::Program;
use super::unit::Unit;

/// Where unit files are, the first counts (`systemd.unit(5)`).
const UNITS: [&str; 9] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// Bytes of a program that are read to find out its kind. Large programs are mapped by nobody who
/// only wants their headers, but the names of libraries are at their end.
const PROGRAM_MAX: u64 = 512 << 20;
/// Bytes of a unit's text that are read.
const TEXT_MAX: u64 = 1 << 20;

/// The text of a unit with its drop-ins: from the service manager, or from its files where none
/// runs. `None` if there is no such unit.
pub fn unit_text(name: &str) -> Option<String> {
    from_manager(name).or_else(|| from_files(name, Path::new("/")))
}

/// The unit called `name`, with the socket units that start it.
pub fn unit(name: &str) -> Option<Unit> {
    let text = unit_text(name)?;
    let stem = name.strip_suffix(".service").unwrap_or(name);
    let sockets: Vec<String> = unit_text(&format!("{stem}.socket")).into_iter().collect();
    Some(Unit::read(name, &text, &sockets, &|path| path.exists()))
}

/// The kind of the program at `path`, links followed.
pub fn program(path: &Path) -> Program {
    let bytes = || {
        let file = fs::File::open(path).ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.len() > PROGRAM_MAX {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(PROGRAM_MAX).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    bytes().map_or(Program::Unknown, |bytes| Program::of(&bytes))
}

fn from_manager(name: &str) -> Option<String> {
    // `systemctl cat` would look for files itself without a service manager, in fewer places.
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let output = Command::new("systemctl").args(["cat", "--no-pager", "--", name]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success() && !text.trim().is_empty()).then_some(text)
}

/// The unit's file and its drop-ins below `root`, in the order in which they count.
fn from_files(name: &str, root: &Path) -> Option<String> {
    // `app@one.service` is made from `app@.service`, and has the drop-ins of both.
    let (stem, suffix) = name.rsplit_once('.')?;
    let template = stem.split_once('@').map(|(prefix, _)| format!("{prefix}@.{suffix}"));
    let names: Vec<String> = std::iter::once(name.to_owned()).chain(template).collect();
    let directories = UNITS.map(|directory| root.join(directory.trim_start_matches('/')));
    let file =
        names.iter().find_map(|name| directories.iter().find_map(|directory| read(&directory.join(name))))?;
    let mut drop_ins: Vec<PathBuf> = Vec::new();
    for name in names.iter().map(|name| format!("{name}.d")).chain([format!("{suffix}.d")]) {
        for directory in &directories {
            let entries = fs::read_dir(directory.join(&name)).into_iter().flatten().flatten();
            let found = entries.map(|entry| entry.path());
            for path in found.filter(|path| path.extension().is_some_and(|extension| extension == "conf")) {
                // A drop-in hides those of the same name in later directories.
                if drop_ins.iter().all(|known| known.file_name() != path.file_name()) {
                    drop_ins.push(path);
                }
            }
        }
    }
    drop_ins.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    let texts = drop_ins.iter().filter_map(|path| read(path));
    Some(std::iter::once(file).chain(texts).collect::<Vec<_>>().join("\n"))
}

fn read(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(TEXT_MAX).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_of_the_instance_and_the_template_are_found() {
        let root = std::env::temp_dir().join(format!("guard-units-{}", std::process::id()));
        let file = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file("usr/lib/systemd/system/app@.service", "[Service]\nExecStart=/bin/app %i\nUser=app\n");
        file("usr/lib/systemd/system/app@.service.d/10-a.conf", "[Service]\nUser=hidden\n");
        file("etc/systemd/system/app@.service.d/10-a.conf", "[Service]\nUser=ten\n");
        file("etc/systemd/system/app@one.service.d/20-b.conf", "[Service]\nReadWritePaths=/data\n");
        let text = from_files("app@one.service", &root).unwrap();
        let unit = Unit::read("app@one.service", &text, &[], &|_| true);
        assert_eq!(unit.user.as_deref(), Some("ten"));
        assert_eq!(unit.arguments, ["one"]);
        assert_eq!(unit.directories[0].path, Path::new("/data"));
        assert!(from_files("other.service", &root).is_none());
        fs::remove_dir_all(&root).unwrap();
    }
}
