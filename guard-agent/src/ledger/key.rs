//! What a quarantine is bound to that is no subject.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// What whoever has it is covered by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// A process with all that it has made and makes.
    Process {
        /// Its number.
        pid: i32,
        /// When it began, in clock ticks since boot.
        start_ticks: u64,
        /// In which boot.
        boot_id: String,
    },
    /// The cgroup at this path below the cgroup2 mount, and all below it.
    Cgroup(String),
    /// The systemd unit with this name.
    Unit(String),
    /// The container with this id.
    Container(String),
    /// Whatever runs as this user.
    User(u32),
    /// Whatever runs this program.
    Program(PathBuf),
    /// All of the host.
    Host,
}

impl Key {
    /// Whether it can cover somebody in this boot.
    pub(crate) fn is_of(&self, boot: &str) -> bool {
        match self {
            Self::Process { boot_id, .. } => boot_id == boot,
            _ => true,
        }
    }

    /// Whether it has to be confirmed: it covers what its author may not know.
    pub fn is_wide(&self) -> bool {
        matches!(self, Self::User(_) | Self::Host)
    }

    /// What it is bound to, and what would not be covered any more, in words.
    pub fn bound_to(&self) -> (String, String) {
        let (to, not) = match self {
            Self::Process { .. } => (
                "the process: whatever it and its children make from now on is covered, also if the agent is killed",
                "after a reboot nothing, nor what somebody else starts instead",
            ),
            Self::Cgroup(_) => (
                "the cgroup's path: whatever runs there or below is covered, through restarts and reboots",
                "what is moved elsewhere before it runs, or started under another path",
            ),
            Self::Unit(_) => (
                "the unit's name: whatever it starts is covered, through restarts of the unit, of the agent and reboots",
                "the same program started by another unit or by hand",
            ),
            Self::Container(_) => (
                "the container's id: it is covered through its restarts and reboots",
                "a new container of the same image or name",
            ),
            Self::User(_) => (
                "the user's number: whatever runs as it is covered, through logins and reboots",
                "what has become another user before",
            ),
            Self::Program(_) => (
                "the program's file: whoever executes it is covered, through restarts and reboots",
                "a copy of the file, and until the agent has looked again one that replaces it",
            ),
            Self::Host => (
                "the host: whatever runs is covered, through restarts and reboots",
                "the login sessions of sshd, and what [rescue] names",
            ),
        };
        (to.to_owned(), not.to_owned())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, .. } => write!(f, "process {pid}"),
            Self::Cgroup(path) => write!(f, "cgroup {path}"),
            Self::Unit(name) => write!(f, "unit {name}"),
            Self::Container(id) => write!(f, "container {}", id.get(..12).unwrap_or(id)),
            Self::User(uid) => write!(f, "user {uid}"),
            Self::Program(path) => write!(f, "program {}", path.display()),
            Self::Host => f.write_str("host"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_as_it_is_said() {
        for (key, text) in [
            (Key::Unit("web.service".into()), r#"{"unit":"web.service"}"#),
            (Key::User(1000), r#"{"user":1000}"#),
            (Key::Host, r#""host""#),
        ] {
            assert_eq!(serde_json::to_string(&key).unwrap(), text);
            assert_eq!(serde_json::from_str::<Key>(text).unwrap(), key);
        }
    }

    #[test]
    fn a_process_is_of_one_boot() {
        let key = Key::Process { pid: 7, start_ticks: 1, boot_id: "a".into() };
        assert!(key.is_of("a") && !key.is_of("b") && Key::Host.is_of("b"));
        assert_eq!(key.to_string(), "process 7");
    }
}
