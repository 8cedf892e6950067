//! Which running processes get a label: requests for the kernel's iterator over tasks.

use crate::host::SERVICE_MANAGER;
use crate::policy::{ExecSelector, ExecSuccessor};
use guard_common::label::{LabelRequest, NO_SUBJECT};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One process, as far as selection needs it.
struct Process {
    parent: i32,
    start_ticks: u64,
    executable: Option<PathBuf>,
}

/// Requests for every process that an executable selector covers, with all its descendants, and
/// exemptions for the service manager's own. `known` are processes whose label is known otherwise, with
/// their start; it comes first, and their descendants have it as well. PID 1 and the agent are never
/// among them.
pub(super) fn requests(
    selectors: &[ExecSelector],
    known: &[(i32, LabelRequest)],
) -> Vec<(i32, LabelRequest)> {
    let processes = processes();
    let same = |pid: &i32, request: &LabelRequest| {
        processes.get(pid).is_some_and(|process| process.start_ticks == request.start_ticks)
    };
    let mut labels: HashMap<i32, LabelRequest> =
        known.iter().filter(|(pid, request)| same(pid, request)).copied().collect();
    for (pid, process) in &processes {
        let Some(executable) = &process.executable else { continue };
        // While one of these prepares a unit's process inside the unit's cgroup, that process must not
        // be labelled yet.
        if SERVICE_MANAGER.iter().any(|path| executable == Path::new(path)) {
            labels.insert(*pid, LabelRequest::attach(process.start_ticks, NO_SUBJECT));
        } else if let Some(selector) = selectors.iter().find(|selector| covers(selector, executable)) {
            let request = LabelRequest::attach(process.start_ticks, selector.subject);
            labels.entry(*pid).or_insert(request);
        }
    }
    // A child of a selected process is what it would be had the label been there at its fork.
    let mut inherited = Vec::new();
    for (pid, process) in &processes {
        if labels.contains_key(pid) {
            continue;
        }
        if let Some(label) = ancestors_label(&processes, &labels, *pid) {
            inherited.push((*pid, LabelRequest { start_ticks: process.start_ticks, ..label }));
        }
    }
    labels.extend(inherited);
    let own = std::process::id() as i32;
    labels.into_iter().filter(|(pid, _)| *pid != 1 && *pid != own).collect()
}

/// Requests that make processes the successors that they would be by what they run: those that run a file
/// with which one begins and carry the label of its parent, and their descendants with that label. `label`
/// is what a process carries. Nobody knows how a process came to run a file, so this is for successors
/// that may do no more.
pub(super) fn entered(
    successors: &[ExecSuccessor],
    label: &dyn Fn(i32) -> Option<(u32, u64)>,
) -> Vec<(i32, LabelRequest)> {
    let processes = processes();
    let mut begun: HashMap<i32, &ExecSuccessor> = HashMap::new();
    for (pid, process) in &processes {
        let runs = |begins: &&ExecSuccessor| process.executable.as_ref() == Some(&begins.path);
        let carried = label(*pid);
        let carries = |begins: &&ExecSuccessor| carried.is_some_and(|(subject, _)| subject == begins.parent);
        if let Some(begins) = successors.iter().filter(runs).find(carries) {
            begun.insert(*pid, begins);
        }
    }
    if begun.is_empty() {
        return Vec::new();
    }
    let nearest = |pid: i32| {
        let mut at = pid;
        for _ in 0..processes.len() {
            if let Some(begins) = begun.get(&at) {
                return Some(*begins);
            }
            at = processes.get(&at)?.parent;
        }
        None
    };
    let request = |(pid, process): (&i32, &Process)| {
        let begins = nearest(*pid)?;
        let (_, session) = label(*pid).filter(|(subject, _)| *subject == begins.parent)?;
        let request = LabelRequest::attach(process.start_ticks, begins.successor).with_session(session);
        Some((*pid, LabelRequest { replaces: begins.parent, ..request }))
    };
    processes.iter().filter_map(request).collect()
}

fn covers(selector: &ExecSelector, executable: &Path) -> bool {
    if selector.below { executable.starts_with(&selector.path) } else { executable == selector.path }
}

/// The label of the nearest selected ancestor.
fn ancestors_label(
    processes: &HashMap<i32, Process>,
    labels: &HashMap<i32, LabelRequest>,
    pid: i32,
) -> Option<LabelRequest> {
    let mut parent = processes.get(&pid)?.parent;
    // A pid can be reused while the table is read, so a cycle is possible and bounded.
    for _ in 0..processes.len() {
        if let Some(label) = labels.get(&parent) {
            return (label.subject != NO_SUBJECT).then_some(*label);
        }
        parent = processes.get(&parent)?.parent;
    }
    None
}

fn processes() -> HashMap<i32, Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            let (parent, start_ticks) = stat(pid)?;
            let executable = std::fs::read_link(format!("/proc/{pid}/exe")).ok().map(without_deleted);
            Some((pid, Process { parent, start_ticks, executable }))
        })
        .collect()
}

/// The path a program was started by, also if its file was replaced since, as an upgrade does: the
/// kernel then adds a mark to the link's text (proc(5)).
fn without_deleted(path: PathBuf) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    match bytes.strip_suffix(b" (deleted)") {
        Some(rest) => PathBuf::from(OsStr::from_bytes(rest)),
        None => path,
    }
}

/// Parent and start time of a process.
pub(super) fn stat(pid: i32) -> Option<(i32, u64)> {
    let (parent, _, start_ticks) = parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)?;
    Some((parent, start_ticks))
}

/// The device number of a process's terminal, 0 without one, and its start time.
pub(super) fn terminal(pid: i32) -> Option<(u32, u64)> {
    let (_, terminal, start_ticks) = parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)?;
    Some((terminal, start_ticks))
}

/// Fields 4, 7 and 22 of `/proc/PID/stat` (proc(5)). The name in field 2 may hold anything, so counting
/// begins behind its last parenthesis.
fn parse_stat(stat: &[u8]) -> Option<(i32, u32, u64)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let terminal: i32 = fields.get(4)?.parse().ok()?;
    Some((fields.get(1)?.parse().ok()?, terminal.cast_unsigned(), fields.get(19)?.parse().ok()?))
}

/// Ids of the existing cgroups that `selected` names, with everything below them. A cgroup's id is
/// the inode number of its directory.
pub(super) fn cgroups(selected: &dyn Fn(&Path) -> Option<u32>) -> Vec<(u64, u32)> {
    let root = Path::new("/sys/fs/cgroup");
    let mut found = Vec::new();
    let mut waiting: Vec<(PathBuf, Option<u32>)> = vec![(root.to_owned(), None)];
    while let Some((directory, inherited)) = waiting.pop() {
        let relative = Path::new("/").join(directory.strip_prefix(root).unwrap_or(&directory));
        let subject = inherited.or_else(|| selected(&relative));
        if let (Some(subject), Ok(metadata)) = (subject, directory.metadata()) {
            found.push((metadata.ino(), subject));
        }
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push((entry.path(), subject));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_cannot_hide_its_start_time_behind_its_name() {
        let line = b"7 (a) R 1 2 3) S 42 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        assert_eq!(parse_stat(line), Some((42, 0, 12345)));
        assert_eq!(parse_stat(b"7 (a"), None);
    }

    #[test]
    fn the_agent_itself_is_never_asked_for() {
        let own = std::env::current_exe().unwrap();
        let selector = ExecSelector { path: own, below: false, subject: 16 };
        let own = std::process::id() as i32;
        assert!(requests(&[selector], &[]).iter().all(|(pid, _)| *pid != own && *pid != 1));
    }
}
