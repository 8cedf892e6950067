//! What quarantines never cover, besides the first process, the agent and the session of whoever orders them.

use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Units through which people get in to help: without them nobody could log in to release anything.
const UNITS: [&str; 7] = [
    "ssh.service",
    "sshd.service",
    "ssh.socket",
    "systemd-logind.service",
    "dbus.service",
    "dbus-broker.service",
    "guard-agent.service",
];
/// Programs of sshd: the one that listens, and those that it has for each connection.
const SSHD: [&str; 3] = ["sshd", "sshd-session", "sshd-auth"];

/// `[rescue]` in the agent's configuration.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Rescue {
    /// Units that go on, with all that they start.
    pub units: Vec<String>,
    /// Programs that go on where root runs them when a quarantine is ordered, with all that they start.
    pub programs: Vec<PathBuf>,
}

impl Rescue {
    /// What cannot be meant.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        for unit in &self.units {
            if !unit.contains('.') || unit.contains('/') || unit.len() > 126 {
                return Err(format!(
                    "[rescue] units: {unit:?} is not the name of a unit, such as \"edr.service\""
                ));
            }
        }
        for path in &self.programs {
            if !path.is_absolute() {
                return Err(format!("[rescue] programs: {} is not an absolute path", path.display()));
            }
        }
        Ok(())
    }

    /// The units that go on.
    pub fn units(&self) -> impl Iterator<Item = &str> {
        UNITS.into_iter().chain(self.units.iter().map(String::as_str))
    }

    /// Whether a program goes on that root runs.
    pub fn names(&self, program: &Path) -> bool {
        let is_sshd =
            program.file_name().and_then(|name| name.to_str()).is_some_and(|name| SSHD.contains(&name));
        is_sshd || self.programs.iter().any(|path| path == program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sshd_and_what_is_named_go_on() {
        let rescue = Rescue { units: vec!["edr.service".into()], programs: vec!["/opt/edr/agent".into()] };
        assert_eq!(rescue.check(), Ok(()));
        for path in ["/usr/sbin/sshd", "/usr/lib/openssh/sshd-session", "/opt/edr/agent"] {
            assert!(rescue.names(Path::new(path)), "{path}");
        }
        assert!(!rescue.names(Path::new("/usr/bin/agent")));
        assert!(
            rescue.units().any(|unit| unit == "edr.service")
                && rescue.units().any(|unit| unit == "ssh.service")
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let units = Rescue { units: vec!["edr".into()], ..Rescue::default() };
        let programs = Rescue { programs: vec!["edr".into()], ..Rescue::default() };
        assert!(units.check().is_err() && programs.check().is_err());
    }
}
