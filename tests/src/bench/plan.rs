//! What is measured against what.

use std::io;

use anyhow::{Context, Result};
use guard_tests::users::{AGENT, FREE, Identity};

use crate::places::Places;
use crate::rivals::{fanotify, landlock, supervisor};

/// Without an agent.
pub(crate) const NOTHING: &str = "none";
/// Empty programs on the hooks of Guard.
pub(crate) const FLOOR: &str = "floor";
/// Guard, for a task that no policy names.
pub(crate) const UNLABELLED: &str = "unlabelled";

/// Guard, for a task under a policy with so many literals.
pub(crate) fn labelled(literals: usize) -> String {
    format!("labelled-{literals}")
}

/// Landlock with so many rules.
pub(crate) fn under_landlock(rules: usize) -> String {
    format!("landlock-{rules}")
}

/// A listener that allows everything.
pub(crate) const FANOTIFY: &str = "fanotify";
/// A supervisor that allows everything.
pub(crate) const SUPERVISOR: &str = "seccomp";

/// Numbers of Landlock's rules.
pub(crate) const RULES: [usize; 3] = [1, 10, 1000];

/// What holds a process while it is measured, besides what holds everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restraint {
    Nothing,
    Landlock(usize),
    Fanotify,
    Supervisor,
}

/// One configuration.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    pub(crate) key: String,
    pub(crate) title: String,
    pub(crate) who: Identity,
    pub(crate) restraint: Restraint,
}

fn configuration(key: impl Into<String>, title: impl Into<String>) -> Configuration {
    Configuration { key: key.into(), title: title.into(), who: FREE, restraint: Restraint::Nothing }
}

impl Configuration {
    pub(crate) fn nothing() -> Self {
        configuration(NOTHING, "no agent")
    }

    pub(crate) fn floor() -> Self {
        configuration(FLOOR, "empty programs")
    }

    pub(crate) fn unlabelled() -> Self {
        configuration(UNLABELLED, "unlabelled")
    }

    pub(crate) fn labelled(literals: usize) -> Self {
        Self { who: AGENT, ..configuration(labelled(literals), format!("{literals} literals")) }
    }

    /// What a user could run instead, as far as this kernel has it; and what it has not.
    pub(crate) fn rivals() -> (Vec<Self>, Vec<String>) {
        let (mut rivals, mut absent) = (Vec::new(), Vec::new());
        match guard_tests::landlock::version() {
            Ok(_) => rivals.extend(RULES.map(|rules| Self {
                restraint: Restraint::Landlock(rules),
                ..configuration(under_landlock(rules), format!("Landlock {rules}"))
            })),
            Err(error) => absent.push(format!("Landlock: {error}")),
        }
        rivals.push(Self { restraint: Restraint::Fanotify, ..configuration(FANOTIFY, "fanotify") });
        rivals.push(Self { restraint: Restraint::Supervisor, ..configuration(SUPERVISOR, "seccomp") });
        (rivals, absent)
    }

    /// What has to be there beside the process, for as long as the result lives.
    pub(crate) fn around(&self, places: &Places) -> Result<Option<fanotify::Listener>> {
        match self.restraint {
            Restraint::Fanotify => {
                fanotify::Listener::start(places.root()).context("start a fanotify listener").map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Puts the running process under it, for as long as the result lives.
    pub(crate) fn enter(&self, places: &Places) -> io::Result<Option<supervisor::Supervisor>> {
        match self.restraint {
            Restraint::Nothing | Restraint::Fanotify => Ok(None),
            Restraint::Landlock(rules) => landlock::restrict(places, rules).map(|()| None),
            Restraint::Supervisor => supervisor::Supervisor::start().map(Some),
        }
    }
}
