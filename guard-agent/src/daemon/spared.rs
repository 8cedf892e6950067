//! Whom no quarantine covers: the session of whoever orders it, sshd, and what `[rescue]` names. Exceptions are
//! processes that run already, and what they start; a program as such is none, since anybody can execute it.

use super::reach::{self, Process};
use crate::ledger::Key;
use crate::rescue::Rescue;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// `AUDIT_SID_UNSET` (include/uapi/linux/audit.h): nobody logged in.
const NO_LOGIN: u32 = u32::MAX;

/// Those of `all` that a quarantine that is bound to `key` does not cover, ordered by process `caller`.
///
/// Whoever names one process means that one: only what the caller stands on is kept from it then, and not what else
/// was started in its session.
pub(super) fn spared(
    key: &Key,
    all: &BTreeMap<i32, Process>,
    caller: Option<i32>,
    rescue: &Rescue,
) -> BTreeSet<i32> {
    let mut found: BTreeSet<i32> =
        caller.map(|pid| reach::ancestry(pid, all)).unwrap_or_default().into_iter().collect();
    if !matches!(key, Key::Process { .. })
        && let Some(pid) = caller
    {
        found.extend(session(pid, all, &login));
    }
    let goes_on =
        |one: &Process| one.users[0] == 0 && one.path.as_deref().is_some_and(|path| rescue.names(path));
    found.extend(all.iter().filter(|(_, one)| goes_on(one)).map(|(pid, _)| *pid));
    let covered = reach::of(key, all);
    found.retain(|pid| covered.contains(pid));
    found
}

/// Who is in the session of a process: the login's, as pam_loginuid(8) and the kernel's audit know it, and the
/// terminal's.
fn session(pid: i32, all: &BTreeMap<i32, Process>, login: &dyn Fn(i32) -> Option<u32>) -> Vec<i32> {
    let Some(own) = all.get(&pid) else { return Vec::new() };
    let own_login = login(pid);
    let is_in = |other: i32, one: &Process| {
        own.has_terminal && one.has_terminal && one.session == own.session
            || own_login.is_some() && login(other) == own_login
    };
    all.iter().filter(|(other, one)| is_in(**other, one)).map(|(other, _)| *other).collect()
}

/// The number of the login that a process belongs to.
fn login(pid: i32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/sessionid")).ok()?;
    text.trim().parse().ok().filter(|number| *number != NO_LOGIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn one(parent: i32, uid: u32, session: i32, path: &str) -> Process {
        Process {
            parent,
            start_ticks: 5,
            session,
            has_terminal: session != 0,
            users: [uid; 3],
            path: Some(PathBuf::from(path)),
            ..Process::default()
        }
    }

    #[test]
    fn the_callers_session_sshd_and_what_is_named_go_on() {
        let all = BTreeMap::from([
            (10, one(1, 0, 0, "/usr/sbin/sshd")),
            (11, one(10, 1000, 0, "/usr/sbin/sshd")),
            (12, one(11, 1000, 12, "/bin/bash")),
            (13, one(12, 1000, 12, "/usr/bin/vi")),
            (14, one(12, 0, 12, "/usr/bin/guardctl")),
            (20, one(1, 0, 0, "/opt/edr/agent")),
            (21, one(1, 1000, 0, "/opt/edr/agent")),
            (30, one(1, 1000, 30, "/bin/sh")),
        ]);
        let rescue = Rescue { programs: vec!["/opt/edr/agent".into()], ..Rescue::default() };
        let of = |key: &Key, caller| spared(key, &all, caller, &rescue).into_iter().collect::<Vec<_>>();
        assert_eq!(of(&Key::Host, Some(14)), [10, 11, 12, 13, 14, 20]);
        assert_eq!(of(&Key::User(1000), Some(14)), [11, 12, 13]);
        assert_eq!(of(&Key::Host, None), [10, 20]);
        let process = Key::Process { pid: 12, start_ticks: 5, boot_id: String::new() };
        assert_eq!(of(&process, Some(14)), [12, 14], "the editor is named with its shell");
        assert_eq!(session(13, &all, &|pid| (pid >= 20).then_some(1)), [12, 13, 14]);
        assert_eq!(session(30, &all, &|pid| (pid >= 20).then_some(1)), [20, 21, 30]);
    }
}
