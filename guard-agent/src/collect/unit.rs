//! The state of systemd units, as `systemctl show` prints it.
//!
//! The agent asks by running `systemctl`, which talks to the service manager over a socket of its own when root runs
//! it: that works without a message bus, with every version of systemd, and takes no D-Bus library into a daemon that
//! runs as root.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Where systemd's client is.
const PROGRAMS: [&str; 2] = ["/usr/bin/systemctl", "/bin/systemctl"];
/// The states that a loaded unit can be in (`ActiveState`, org.freedesktop.systemd1(5)).
const STATES: [&str; 8] =
    ["active", "reloading", "inactive", "failed", "activating", "deactivating", "maintenance", "refreshing"];

/// systemd's client; nothing on a host without systemd.
pub(crate) fn program() -> Option<PathBuf> {
    PROGRAMS.iter().map(PathBuf::from).find(|path| path.exists())
}

/// What it is asked, for the states of these units.
pub(crate) fn arguments(units: &BTreeSet<String>) -> Vec<String> {
    let fixed = ["--no-pager", "--property=LoadState,ActiveState", "show", "--"];
    fixed.into_iter().map(str::to_owned).chain(units.iter().cloned()).collect()
}

/// The states in its answer: a group of lines for each unit, in the order of the question. A unit that systemd has not
/// loaded has none. Nothing if the answer is not about these units.
pub(crate) fn states(units: &BTreeSet<String>, answer: &str) -> Option<BTreeMap<String, String>> {
    let groups: Vec<&str> = answer.trim().split("\n\n").collect();
    if groups.len() != units.len() {
        return None;
    }
    let mut states = BTreeMap::new();
    for (unit, group) in units.iter().zip(groups) {
        let property = |name: &str| {
            group.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::trim)
        };
        let (loaded, active) = (property("LoadState")?, property("ActiveState")?);
        if loaded == "loaded" && STATES.contains(&active) {
            states.insert(unit.clone(), active.to_owned());
        }
    }
    Some(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_unit_has_its_state_and_one_that_is_not_loaded_has_none() {
        let asked = units(&["a.service", "b.service", "c.service"]);
        // As systemd 257 prints it.
        let answer = "LoadState=loaded\nActiveState=active\n\nLoadState=not-found\nActiveState=inactive\n\n\
                      ActiveState=failed\nLoadState=loaded\n";
        let states = states(&asked, answer).unwrap();
        assert_eq!(states.get("a.service").map(String::as_str), Some("active"));
        assert_eq!(states.get("b.service"), None);
        assert_eq!(states.get("c.service").map(String::as_str), Some("failed"));
    }

    #[test]
    fn an_answer_that_is_not_understood_is_none() {
        let asked = units(&["a.service", "b.service"]);
        for garbage in [
            "",
            "LoadState=loaded\nActiveState=active\n",
            "LoadState=loaded\nActiveState=active\n\nLoadState=loaded\n",
            "System has not been booted with systemd as init system (PID 1). Can't operate.\n",
        ] {
            assert_eq!(states(&asked, garbage), None, "{garbage}");
        }
        let odd = "LoadState=loaded\nActiveState=excellent\n\nLoadState=masked\nActiveState=active\n";
        assert_eq!(states(&asked, odd), Some(BTreeMap::new()));
    }
}
