//! Sessions whose variables are literals of their own.

use std::collections::BTreeMap;
use std::path::Path;

use guard_common::path::MAX_COMPONENTS;

use super::places::{Mounts, resolve};
use super::trie::names;
use crate::host::Host;

/// A session with variables: it is decided by a row of its own, in which `${session.NAME}` has a value.
///
/// It is part of a generation like a subject, with the same policies. Its literals lie in the same
/// tries and classes; only its own rules mention them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Number of its row among the subjects.
    pub row: u32,
    /// The session.
    pub session: u64,
    /// The subject whose policies apply.
    pub subject: String,
    /// Values of its variables, by name.
    pub variables: BTreeMap<String, String>,
}

impl Seat {
    /// Whether what its variables name can be literals on this host as it is now.
    pub fn fits(&self, host: &Host) -> bool {
        let mounts = Mounts::new(&host.mounts);
        self.variables.values().all(|path| {
            resolve(host, Path::new(path)).is_ok_and(|resolved| {
                mounts.locate(&resolved.path).is_some() && names(&resolved.path).count() <= MAX_COMPONENTS
            })
        })
    }
}
