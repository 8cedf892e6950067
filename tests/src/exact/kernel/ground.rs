//! Ground of a process's own: a tmpfs that it mounted, its directory in /proc, its cgroup. What lies there
//! is of a built-in class, and its names count.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use guard_agent::policy::Spot;
use guard_common::class::{OWN_CGROUP, OWN_PROC, OWN_TMPFS};
use guard_tests::elf;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{Backlog, listen};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{Pid, getgid, getuid};

use crate::words::component;

/// Where the tmpfs is mounted.
pub(super) const TMPFS: &str = "/srv/own-tmpfs";
/// The process's directory in /proc.
const PROC: &str = "/proc/self";
/// Where cgroups are.
const CGROUPS: &str = "/sys/fs/cgroup";
/// What is asked for of the directory in /proc.
const IN_PROC: [&str; 9] =
    ["", "status", "stat", "comm", "limits", "uid_map", "task", "net/dev", "map_files"];
/// What is asked for of the cgroup.
const IN_CGROUP: [&str; 3] = ["cgroup.procs", "cgroup.controllers", "cgroup.stat"];

/// Names on this ground that random components have not.
pub(super) const NAMES: [&str; 4] = ["status", "task", "uid_map", "cgroup.procs"];
/// Patterns of such names.
pub(super) const PATTERNS: [&str; 3] = ["stat*", "*_map", "cgroup.*"];

/// One thing on the ground.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    /// Its path, as the process itself says it.
    pub(super) path: PathBuf,
    /// What it is.
    pub(super) kind: Kind,
}

/// What can be done with a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Program,
    Socket,
}

/// Makes the tmpfs of the running process, in namespaces of its own. Everything on it is the same for the
/// same seed. Returns the sockets, which are not reached any more when they are dropped.
pub(super) fn make(seed: u64) -> io::Result<Vec<UnixListener>> {
    let (user, group) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    let root = Path::new(TMPFS);
    mount(Some("tmpfs"), root, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    let mut rng = Rng::with_seed(seed);
    let (mut directories, mut sockets) = (vec![root.to_owned()], Vec::new());
    for number in 0..40 {
        let path = directories[rng.usize(0..directories.len())].join(component(&mut rng));
        if path.exists() {
            continue;
        }
        match number {
            0..10 => {
                fs::create_dir(&path)?;
                directories.push(path);
            }
            10..16 => {
                File::create(&path)?.write_all(&elf::exits_with(0))?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
            16..20 if path.as_os_str().len() < 100 => {
                let listener = UnixListener::bind(&path)?;
                // Nobody accepts: that would be a decision of its own between those that are compared.
                listen(&listener, Backlog::MAXCONN)?;
                sockets.push(listener);
            }
            20 => mknod(&path, SFlag::S_IFIFO, Mode::from_bits_truncate(0o666), 0)?,
            _ => File::create(&path)?.write_all(b"content\n")?,
        }
    }
    // Their use is a decision of its own, which the calls that are compared say nothing of.
    guard_tests::raw::set_capabilities(0)?;
    Ok(sockets)
}

/// What is on the ground of a process.
pub(super) fn things(pid: Pid) -> Vec<Thing> {
    let mut left: Vec<PathBuf> = vec![PathBuf::from(TMPFS)];
    left.extend(IN_PROC.map(|name| Path::new(PROC).join(name)));
    left.extend(IN_CGROUP.iter().filter_map(|name| Some(cgroup(pid)?.join(name))));
    let mut found = Vec::new();
    while let Some(path) = left.pop() {
        let seen = seen_from_outside(&path, pid).unwrap_or_else(|| path.clone());
        let Ok(data) = fs::symlink_metadata(&seen) else { continue };
        let kind = match data.permissions().mode() {
            mode if mode & 0o170_000 == 0o140_000 => Kind::Socket,
            _ if data.is_dir() => Kind::Directory,
            mode if mode & 0o111 != 0 => Kind::Program,
            _ => Kind::File,
        };
        if path.starts_with(TMPFS) && kind == Kind::Directory {
            let entries = fs::read_dir(&seen).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| path.join(entry.file_name())));
        }
        found.push(Thing { path, kind });
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// The directory of the cgroup that a process is in.
fn cgroup(pid: Pid) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    Some(Path::new(CGROUPS).join(path))
}

/// Where this process finds what another one has at a path of its ground; nothing if both find the same.
pub(super) fn seen_from_outside(path: &Path, pid: Pid) -> Option<PathBuf> {
    if let Ok(inside) = path.strip_prefix(PROC) {
        return Some(Path::new("/proc").join(pid.to_string()).join(inside));
    }
    let below = path.strip_prefix("/").ok().filter(|_| path.starts_with(TMPFS))?;
    Some(PathBuf::from(format!("/proc/{pid}/root")).join(below))
}

/// What policy sees at a path, if it is on the ground of the process.
pub(super) fn spot(path: &Path, pid: Pid) -> Option<Spot> {
    let root = Path::new("/");
    if let Ok(inside) = path.strip_prefix(TMPFS) {
        return Some(Spot::Inside { class: OWN_TMPFS, path: root.join(inside) });
    }
    if let Ok(inside) = path.strip_prefix(PROC) {
        return Some(Spot::Inside { class: OWN_PROC, path: root.join(pid.to_string()).join(inside) });
    }
    let inside = path.strip_prefix(CGROUPS).ok().filter(|_| path.parent() == cgroup(pid).as_deref())?;
    Some(Spot::Inside { class: OWN_CGROUP, path: root.join(inside) })
}
