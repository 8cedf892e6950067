//! Which processes something covers that is no subject, as the process table has them.
//!
//! The kernel decides by itself whom a quarantine covers; this says beforehand whom it would, and finds the trees of
//! processes, which nothing but their making holds together.

use super::containers;
use super::labelling;
use crate::kernel::Keys;
use crate::ledger::Key;
use guard_common::quarantine::{BY_HOST, BY_PROGRAM, BY_USER};
use nix::sys::stat::{major, minor};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// `PF_KTHREAD` (include/linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) parent: i32,
    /// When it began, in clock ticks since boot.
    pub(super) start_ticks: u64,
    /// The session of its terminal (setsid(2)), and whether it has one.
    pub(super) session: i32,
    pub(super) has_terminal: bool,
    is_kernels: bool,
    /// Real, effective and saved user id.
    pub(super) users: [u32; 3],
    /// Path of its cgroup below the mount.
    pub(super) cgroup: PathBuf,
    /// The file of its program.
    pub(super) program: Option<File>,
    pub(super) path: Option<PathBuf>,
}

/// A file, as the kernel numbers it: device and inode.
pub(super) type File = (u32, u64);

/// All that a quarantine can cover: neither the first process, nor the agent, nor threads of the kernel.
pub(super) fn everybody() -> BTreeMap<i32, Process> {
    let own = std::process::id().cast_signed();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let numbers = numbers.filter(|pid| *pid != 1 && *pid != own);
    numbers.filter_map(|pid| Some((pid, process(pid)?))).filter(|(_, one)| !one.is_kernels).collect()
}

fn process(pid: i32) -> Option<Process> {
    let at = Path::new("/proc").join(pid.to_string());
    let mut one = parse_stat(&fs::read(at.join("stat")).ok()?)?;
    one.users = parse_users(&fs::read_to_string(at.join("status")).ok()?)?;
    one.cgroup = cgroup(pid).unwrap_or_default();
    one.program = file(&at.join("exe"));
    one.path = fs::read_link(at.join("exe")).ok();
    Some(one)
}

/// The cgroup that a process is in (cgroups(7)): the line of the one hierarchy.
pub(super) fn cgroup(pid: i32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    Some(PathBuf::from(text.lines().find_map(|line| line.strip_prefix("0::"))?))
}

/// A file as the kernel numbers it, with symbolic links followed.
pub(super) fn file(path: &Path) -> Option<File> {
    let metadata = fs::metadata(path).ok()?;
    let (major, minor) = (major(metadata.dev()), minor(metadata.dev()));
    // `MKDEV` (include/linux/kdev_t.h).
    Some((u32::try_from(major << 20 | minor).ok()?, metadata.ino()))
}

/// What of `/proc/PID/stat` (proc_pid_stat(5)) counts here. The name in it may hold anything, so counting begins
/// behind its last parenthesis.
fn parse_stat(stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&str> =
        std::str::from_utf8(stat.get(end + 1..)?).ok()?.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<i64>().ok();
    Some(Process {
        parent: i32::try_from(number(1)?).ok()?,
        session: i32::try_from(number(3)?).ok()?,
        has_terminal: number(4)? != 0,
        is_kernels: number(6)?.unsigned_abs() & KERNEL_THREAD != 0,
        start_ticks: number(19)?.unsigned_abs(),
        ..Process::default()
    })
}

/// The ids in `/proc/PID/status`. The name stands before them, escaped.
fn parse_users(status: &str) -> Option<[u32; 3]> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let mut ids = line.split_ascii_whitespace().map(|id| id.parse().ok());
    Some([ids.next()??, ids.next()??, ids.next()??])
}

/// Those of `all` that something covers.
pub(super) fn of(key: &Key, all: &BTreeMap<i32, Process>) -> BTreeSet<i32> {
    let those = |is: &dyn Fn(&Process) -> bool| -> BTreeSet<i32> {
        all.iter().filter(|(_, one)| is(one)).map(|(pid, _)| *pid).collect()
    };
    match key {
        Key::Process { pid, start_ticks, .. } => {
            if all.get(pid).is_some_and(|root| root.start_ticks == *start_ticks) {
                tree(*pid, all)
            } else {
                BTreeSet::new()
            }
        }
        Key::Host => those(&|_| true),
        Key::User(uid) => those(&|one| one.users.contains(uid)),
        Key::Program(path) => {
            let wanted = file(path);
            those(&|one| wanted.is_some() && one.program == wanted)
        }
        Key::Cgroup(path) => those(&|one| one.cgroup.starts_with(path)),
        Key::Unit(name) => those(&|one| has_part(&one.cgroup, &|part| part == name)),
        Key::Container(id) => those(&|one| has_part(&one.cgroup, &|part| containers::is_named(part, id))),
    }
}

/// A process with all that it has made and that is not an orphan.
fn tree(root: i32, all: &BTreeMap<i32, Process>) -> BTreeSet<i32> {
    let mut found = BTreeSet::from([root]);
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|(pid, one)| found.contains(&one.parent) && !found.contains(*pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

fn has_part(path: &Path, is: &dyn Fn(&str) -> bool) -> bool {
    path.iter().any(|part| part.to_str().is_some_and(is))
}

/// The processes above one, itself first.
pub(super) fn ancestry(pid: i32, all: &BTreeMap<i32, Process>) -> Vec<i32> {
    let mut found = vec![pid];
    let mut at = pid;
    // A number can be given again while the table is read, so a cycle is possible.
    while let Some(parent) = all.get(&at).map(|one| one.parent).filter(|parent| !found.contains(parent)) {
        found.push(parent);
        at = parent;
    }
    found
}

/// Binds the bits of a quarantine to what the kernel can find it by. A tree of processes has nothing of that.
pub(super) fn bind(keys: &mut Keys, key: &Key, bits: u32) {
    match key {
        Key::Process { .. } => {}
        Key::Host => keys.bind(BY_HOST, 0, 0, bits),
        Key::User(uid) => keys.bind(BY_USER, 0, (*uid).into(), bits),
        Key::Program(path) => {
            if let Some((device, inode)) = file(path) {
                keys.bind(BY_PROGRAM, device, inode, bits);
            }
        }
        Key::Cgroup(path) => {
            keys.bind_name(path, bits);
            bind_cgroups(keys, &|at| at == Path::new(path), bits);
        }
        Key::Unit(name) => bind_unit(keys, name, bits),
        Key::Container(id) => {
            for name in containers::names(id) {
                keys.bind_name(&name, bits);
            }
            let is = |at: &Path| {
                at.file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| containers::is_named(name, id))
            };
            bind_cgroups(keys, &is, bits);
        }
    }
}

/// The same for a unit.
pub(super) fn bind_unit(keys: &mut Keys, name: &str, bits: u32) {
    keys.bind_name(name, bits);
    bind_cgroups(keys, &|at| at.file_name().is_some_and(|last| last == name), bits);
}

fn bind_cgroups(keys: &mut Keys, is: &dyn Fn(&Path) -> bool, bits: u32) {
    for (id, bits) in labelling::cgroups(&|path| is(path).then_some(bits)) {
        keys.bind_cgroup(id, bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> BTreeMap<i32, Process> {
        let one = |parent, uid, cgroup: &str| Process {
            parent,
            start_ticks: 5,
            users: [uid, 0, 0],
            cgroup: PathBuf::from(cgroup),
            ..Process::default()
        };
        BTreeMap::from([
            (10, one(1, 0, "/system.slice/web.service")),
            (11, one(10, 33, "/system.slice/web.service/sub")),
            (12, one(11, 33, "/user.slice")),
            (20, one(1, 1000, "/system.slice/webs.service")),
        ])
    }

    #[test]
    fn each_key_covers_what_it_says() {
        let all = table();
        let process = |pid, start_ticks| Key::Process { pid, start_ticks, boot_id: String::new() };
        for (key, pids) in [
            (process(10, 5), &[10, 11, 12][..]),
            (process(10, 6), &[]),
            (Key::User(33), &[11, 12]),
            (Key::Unit("web.service".into()), &[10, 11]),
            (Key::Cgroup("/system.slice/web.service/sub".into()), &[11]),
            (Key::Host, &[10, 11, 12, 20]),
            (Key::Program("/nonexistent".into()), &[]),
        ] {
            assert_eq!(of(&key, &all).into_iter().collect::<Vec<_>>(), pids, "{key}");
        }
        assert_eq!(ancestry(12, &all), [12, 11, 10, 1]);
    }

    #[test]
    fn a_process_is_read_from_the_table() {
        let one =
            parse_stat(b"7 (a) R 1 2) S 42 7 8 34816 -1 2097152 1 0 0 0 0 0 0 0 20 0 1 0 12345 0").unwrap();
        assert_eq!((one.parent, one.session, one.start_ticks), (42, 8, 12345));
        assert!(one.has_terminal && one.is_kernels);
        assert_eq!(parse_users("Name:\tx\nUid:\t1000\t0\t5\t0\n"), Some([1000, 0, 5]));
        let own = process(std::process::id().cast_signed()).unwrap();
        assert_eq!(own.program, file(&std::env::current_exe().unwrap()));
    }
}
