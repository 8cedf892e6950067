//! Names: how they are matched, however long, deep or hostile they are, and what moving things does.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use crate::bundle::{Bundle, forbid, one_of, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::file::{read, write};
use crate::layout::{self, path};
use crate::users::{AGENT, FREE};

pub(crate) const PART: Part = Part {
    name: "path",
    bundle,
    prepare,
    tests: tests!(
        others: [
            a_name_is_matched_in_whole_whatever_its_length,
            a_hostile_name_is_judged_and_reported_byte_by_byte,
            a_file_is_judged_at_every_depth,
            a_path_longer_than_path_max_is_judged,
            a_name_is_forbidden_at_every_depth,
            a_pattern_of_the_last_component_is_forbidden,
            a_name_in_another_case_is_another_name,
            a_literal_counts_before_the_file_exists,
            a_replaced_file_is_judged_by_its_name,
            a_replaced_directory_is_judged_by_its_name,
            a_renamed_ancestor_changes_the_verdict_at_once,
            the_owner_of_a_file_decides,
            the_set_id_bit_of_a_program_decides,
        ],
    ),
};

/// Lengths around the edges of how names are stored, and the longest possible one.
const LENGTHS: [usize; 7] = [1, 23, 24, 25, 48, 49, 255];

fn long_name(length: usize) -> String {
    "n".repeat(length)
}

fn prepare() -> Result<()> {
    layout::create()?;
    let names = path("names");
    for length in LENGTHS {
        let name = long_name(length);
        layout::file(&names.join("files").join(&name), b"content\n")?;
        layout::file(&names.join("directories").join(&name).join("file"), b"content\n")?;
        // Neighbours that differ in the last byte, or go on where the name ends.
        layout::file(&names.join("files").join(format!("{}m", &name[..length - 1])), b"content\n")?;
        if length < 255 {
            layout::file(&names.join("directories").join(format!("{name}o")).join("file"), b"content\n")?;
        }
    }
    for file in ["a/.ssh/key", "a/b/c/.ssh/d/e/key", "a/.sshx/key", "a/x.ssh/key", "a/.SSH/key"] {
        layout::file(&path("open").join(file), b"content\n")?;
    }
    for file in [".env", ".env.local", "x.env", "server.pem", "a.pem.txt", "key1.bak", "key1.txt", "xkey.bak"]
    {
        layout::file(&path("open/patterns").join(file), b"content\n")?;
    }
    Ok(())
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let names = path("names");
    let files: Vec<PathBuf> =
        LENGTHS.iter().map(|length| names.join("files").join(long_name(*length))).collect();
    let directories: Vec<PathBuf> =
        LENGTHS.iter().map(|length| names.join("directories").join(long_name(*length))).collect();
    let patterns =
        "resource.name like \".env*\" || resource.name like \"*.pem\" || resource.name like \"key*.bak\"";
    let policy = permit("long-files", "agent", &["file.*"], &one_of(&files))
        + &permit("long-directories", "agent", &["file.*"], &within(&directories))
        + &forbid("ssh", "agent", &["file.*"], "resource in Guard::Name::\".ssh\"")
        + &forbid("patterns", "agent", &["file.read"], patterns)
        + &permit("literal", "agent", &["file.*"], &one_of(&[path("later/literal"), path("app/config")]))
        + &permit("tree", "agent", &["file.*"], &within(&[path("moving/good")]))
        + &permit(
            "owned",
            "agent",
            &["file.read"],
            &format!("({}) && resource is Guard::File && resource.owner == 2001", within(&[path("owned")])),
        )
        + &permit(
            "set-id",
            "agent",
            &["file.read", "exec"],
            &format!("({}) && !(resource is Guard::File && resource.set_id)", within(&[path("set-id")])),
        );
    Ok(bundle.policy("path", policy))
}

fn a_name_is_matched_in_whole_whatever_its_length(case: &Case<'_>) -> Result<()> {
    let names = path("names");
    for length in LENGTHS {
        let name = long_name(length);
        let context = || format!("{length} bytes");
        let neighbour = format!("{}m", &name[..length - 1]);
        let file = names.join("files").join(&name);
        case.allowed(AGENT, || read(&file)).with_context(context)?;
        let other = names.join("files").join(&neighbour);
        case.refused(refusal(AGENT, "file.read").at(&neighbour), || read(&other)).with_context(context)?;
        let file = names.join("directories").join(&name).join("file");
        case.allowed(AGENT, || read(&file)).with_context(context)?;
        if length < 255 {
            let other = names.join("directories").join(format!("{name}o")).join("file");
            case.refused(refusal(AGENT, "file.read"), || read(&other)).with_context(context)?;
        }
    }
    Ok(())
}

fn a_hostile_name_is_judged_and_reported_byte_by_byte(case: &Case<'_>) -> Result<()> {
    let hostile: [(&[u8], &str); 5] = [
        (b"new\nline", "new\\x0aline"),
        (b"\x1b[2J", "\\x1b[2J"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"\xc3", "\\xc3"),
        (b"trailing ", "trailing "),
    ];
    for (name, reported) in hostile {
        for directory in ["shut", "open"] {
            layout::file(&path(directory).join(OsStr::from_bytes(name)), b"content\n")?;
        }
        let refused = refusal(AGENT, "file.read").at(format!("shut/{reported}"));
        case.refused(refused, || read(path("shut").join(OsStr::from_bytes(name)))).context(reported)?;
        case.allowed(AGENT, || read(path("open").join(OsStr::from_bytes(name)))).context(reported)?;
    }
    Ok(())
}

/// Makes `depth` directories in one another below `base`, each named `name`, with a file in the
/// innermost one, and returns that one opened. Relative steps, so the whole may exceed PATH_MAX.
fn dig(base: &Path, name: &str, depth: usize) -> Result<OwnedFd> {
    layout::directory(base)?;
    let mut directory: OwnedFd = File::open(base).context("open the base")?.into();
    let everybody = Mode::from_bits_truncate(0o777);
    for _ in 0..depth {
        match mkdirat(&directory, name, everybody) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(errno) => return Err(errno).context("make a directory"),
        }
        directory = openat(&directory, name, OFlag::O_DIRECTORY, Mode::empty()).context("enter it")?;
    }
    let flags = OFlag::O_CREAT | OFlag::O_RDWR;
    let file = openat(&directory, "file", flags, Mode::from_bits_truncate(0o666)).context("make a file")?;
    nix::unistd::write(&file, b"content\n").context("write the file")?;
    Ok(directory)
}

fn read_at(directory: &OwnedFd) -> io::Result<()> {
    Ok(openat(directory.as_fd(), "file", OFlag::O_RDONLY, Mode::empty()).map(drop)?)
}

fn a_file_is_judged_at_every_depth(case: &Case<'_>) -> Result<()> {
    for depth in [21, 60, 61, 64, 65, 256, 1024] {
        let context = || format!("{depth} directories deep");
        for (tree, kind) in [("shut", "overlay"), ("/scratch/tmpfs/gt/shut", "tmpfs")] {
            let shut = dig(&path(tree).join("deep"), "d", depth).with_context(context)?;
            let refused = refusal(AGENT, "file.read");
            case.refused(refused, || read_at(&shut)).with_context(context).context(kind)?;
        }
        let open = dig(&path("open/deep"), "d", depth).with_context(context)?;
        case.allowed(AGENT, || read_at(&open)).with_context(context)?;
    }
    Ok(())
}

fn a_path_longer_than_path_max_is_judged(case: &Case<'_>) -> Result<()> {
    let name = "e".repeat(200);
    let shut = dig(&path("shut/long"), &name, 30)?;
    case.refused(refusal(AGENT, "file.read"), || read_at(&shut))?;
    let open = dig(&path("open/long"), &name, 30)?;
    case.allowed(AGENT, || read_at(&open))
}

fn a_name_is_forbidden_at_every_depth(case: &Case<'_>) -> Result<()> {
    for file in ["a/.ssh/key", "a/b/c/.ssh/d/e/key"] {
        case.refused(refusal(AGENT, "file.read").at(file), || read(path("open").join(file)))?;
        case.refused(refusal(AGENT, "file.write").at(file), || write(path("open").join(file)))?;
    }
    for file in ["a/.sshx/key", "a/x.ssh/key"] {
        case.allowed(AGENT, || read(path("open").join(file))).context(file)?;
    }
    for (depth, name) in [(21, "deep"), (65, "deeper"), (256, "deepest")] {
        let directory = dig(&path("open/named").join(name).join(".ssh"), "d", depth)?;
        case.refused(refusal(AGENT, "file.read"), || read_at(&directory))
            .with_context(|| format!("{depth} below"))?;
    }
    Ok(())
}

fn a_pattern_of_the_last_component_is_forbidden(case: &Case<'_>) -> Result<()> {
    for file in [".env", ".env.local", "server.pem", "key1.bak"] {
        case.refused(refusal(AGENT, "file.read").at(file), || read(path("open/patterns").join(file)))?;
    }
    for file in ["x.env", "a.pem.txt", "key1.txt", "xkey.bak"] {
        case.allowed(AGENT, || read(path("open/patterns").join(file))).context(file)?;
    }
    Ok(())
}

fn a_name_in_another_case_is_another_name(case: &Case<'_>) -> Result<()> {
    case.allowed(AGENT, || read(path("open/a/.SSH/key")))
}

fn a_literal_counts_before_the_file_exists(case: &Case<'_>) -> Result<()> {
    let directory = path("later");
    layout::empty_directory(&directory)?;
    case.allowed(AGENT, || {
        let file = directory.join("literal");
        fs::write(&file, "content\n")?;
        read(&file)?;
        fs::remove_file(&file)
    })?;
    layout::file(&directory.join("other"), b"content\n")?;
    case.refused(refusal(AGENT, "file.read").at("later/other"), || read(directory.join("other")))
}

fn a_replaced_file_is_judged_by_its_name(case: &Case<'_>) -> Result<()> {
    let directory = path("later");
    for _ in 0..3 {
        layout::file(&directory.join("literal.new"), b"content\n")?;
        case.refused(refusal(AGENT, "file.read").at("literal.new"), || read(directory.join("literal.new")))?;
        fs::rename(directory.join("literal.new"), directory.join("literal")).context("replace the file")?;
        case.allowed(AGENT, || read(directory.join("literal")))?;
    }
    fs::rename(directory.join("literal"), directory.join("literal.old")).context("move it away")?;
    case.refused(refusal(AGENT, "file.read").at("literal.old"), || read(directory.join("literal.old")))
}

fn a_replaced_directory_is_judged_by_its_name(case: &Case<'_>) -> Result<()> {
    let app = path("app");
    for _ in 0..3 {
        let (new, old) = (path("app.new"), path("app.old"));
        for directory in [&new, &old] {
            layout::empty_directory(directory)?;
        }
        fs::remove_dir(&old).context("remove app.old")?;
        layout::file(&new.join("config"), b"content\n")?;
        layout::file(&app.join("config"), b"content\n")?;
        case.refused(refusal(AGENT, "file.read").at("app.new/config"), || read(new.join("config")))?;
        fs::rename(&app, &old).context("mv app app.old")?;
        fs::rename(&new, &app).context("mv app.new app")?;
        case.allowed(AGENT, || read(app.join("config")))?;
        case.refused(refusal(AGENT, "file.read").at("app.old/config"), || read(old.join("config")))?;
    }
    Ok(())
}

fn a_renamed_ancestor_changes_the_verdict_at_once(case: &Case<'_>) -> Result<()> {
    let (good, bad) = (path("moving/good"), path("moving/bad"));
    for directory in [&good, &bad] {
        layout::empty_directory(directory)?;
    }
    fs::remove_dir(&bad).context("remove moving/bad")?;
    layout::file(&good.join("a/b/file"), b"content\n")?;
    for _ in 0..3 {
        case.allowed(AGENT, || read(good.join("a/b/file")))?;
        fs::rename(&good, &bad).context("rename the ancestor")?;
        case.refused(refusal(AGENT, "file.read").at("bad/a/b/file"), || read(bad.join("a/b/file")))?;
        fs::rename(&bad, &good).context("rename it back")?;
    }
    // A directory held open is judged by where it lies when something in it is opened.
    let held = File::open(good.join("a/b")).context("open the directory")?;
    let held: OwnedFd = held.into();
    case.allowed(AGENT, || read_at(&held))?;
    fs::rename(&good, &bad).context("rename the ancestor")?;
    case.refused(refusal(AGENT, "file.read").at("bad/a/b/file"), || read_at(&held))?;
    fs::rename(&bad, &good).context("rename it back")
}

fn the_owner_of_a_file_decides(case: &Case<'_>) -> Result<()> {
    let (own, other) = (path("owned/own"), path("owned/other"));
    for (file, who) in [(&own, AGENT), (&other, FREE)] {
        layout::file(file, b"content\n")?;
        std::os::unix::fs::chown(file, Some(who.uid), None).context("chown")?;
    }
    case.allowed(AGENT, || read(&own))?;
    case.refused(refusal(AGENT, "file.read").at("owned/other"), || read(&other))?;
    std::os::unix::fs::chown(&own, Some(FREE.uid), None).context("chown")?;
    case.refused(refusal(AGENT, "file.read").at("owned/own"), || read(&own))
}

fn the_set_id_bit_of_a_program_decides(case: &Case<'_>) -> Result<()> {
    let program = path("set-id/program");
    layout::program(&program, &crate::elf::exits_with(0))?;
    let run = || crate::step::result(std::process::Command::new(&program).status()?);
    case.allowed(AGENT, run)?;
    for bits in [0o4755, 0o2755, 0o6755] {
        layout::mode(&program, bits)?;
        case.refused(refusal(AGENT, "exec").at("set-id/program"), run)?;
    }
    layout::mode(&program, 0o755)?;
    case.allowed(AGENT, run)
}
