//! What people have decided and what is known about subjects: leases, requests for them, quarantines and facts, in a file
//! of the state directory (SQLite).
//!
//! Everything is on the disk before anybody is told. Deadlines count on the clock that never steps, within one
//! boot: a lease does not outlive the boot in which it was granted, and neither does a fact that has an end.

mod database;
mod fact;
mod key;
mod lease;
mod past;
mod quarantine;
mod request;

pub use database::LedgerError;
pub use fact::Fact;
pub(crate) use fact::{NewFact, Which};
pub use key::Key;
pub use lease::Lease;
pub(crate) use lease::{At, NewLease};
pub(crate) use quarantine::NewQuarantine;
pub use quarantine::Quarantine;
pub use request::{Approval, Request, RequestState};
pub(crate) use request::{Created, NewRequest};

use crate::policy::Instant;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An instant on the clock that never steps, and the boot that it counts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deadline {
    boot_ns: Instant,
    boot_id: String,
}

impl Deadline {
    /// So long from an instant of this boot.
    pub(crate) fn after(now: Instant, boot_id: &str, lasts: Duration) -> Self {
        let boot_ns = now.saturating_add(u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX));
        Self { boot_ns, boot_id: boot_id.to_owned() }
    }

    /// So long before an instant of this boot, or its first.
    pub(crate) fn before(now: Instant, boot_id: &str, age: Duration) -> Self {
        let boot_ns = now.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        Self { boot_ns, boot_id: boot_id.to_owned() }
    }

    /// So long after this one.
    pub(crate) fn later(&self, lasts: Duration) -> Self {
        Self::after(self.boot_ns, &self.boot_id, lasts)
    }

    /// Whether it counts from this boot.
    fn is_of(&self, boot_id: &str) -> bool {
        !boot_id.is_empty() && self.boot_id == boot_id
    }

    /// The end, if it is still to come in this boot.
    pub(crate) fn end(&self, now: Instant, boot_id: &str) -> Option<Instant> {
        (self.is_of(boot_id) && self.boot_ns > now).then_some(self.boot_ns)
    }
}

/// The file, and what of it counts.
pub(crate) struct Ledger {
    path: PathBuf,
    connection: Connection,
    leases: Vec<Lease>,
    facts: Vec<Fact>,
    quarantines: Vec<Quarantine>,
}

impl Ledger {
    /// Opens the file of a state directory, or makes it.
    ///
    /// # Errors
    /// If it cannot be used. It is not replaced then: who was refused what must not be forgotten.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, LedgerError> {
        let path = state_dir.join("state.db");
        let connection = database::open(&path)?;
        let mut this =
            Self { path, connection, leases: Vec::new(), facts: Vec::new(), quarantines: Vec::new() };
        this.leases = this.read_leases()?;
        this.facts = this.read_facts()?;
        this.quarantines = this.read_quarantines()?;
        Ok(this)
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(rusqlite::Error) -> LedgerError {
        let path = self.path.clone();
        move |source| LedgerError::Use { action, path, source }
    }
}

#[cfg(test)]
mod tests;
