//! What the daemon remembers of events: a SQLite file in its state directory.
//!
//! Who denied what to whom, for as long as the limits allow: `guardctl events`, `why`, `learn` and
//! `report` read it. Nothing that is enforced depends on it.
//!
//! - **One row for each kind of event and bundle.** A [`Kind`](crate::events::Kind) is a subject and
//!   session, its actions, the resource, the verdict and the reason. Repeats raise the row's count and
//!   move its last time; the row holds the last record. The id that events show is the kind's, so
//!   every id that was ever printed leads to its row.
//! - **[`Store::note`] never waits for the disk.** It adds to a map in memory ([`pending`]); one thread
//!   ([`writer`]) takes the whole map and writes it in one transaction. If the disk is too slow for
//!   new kinds, they are counted and not kept, and `guardctl status` says how many.
//! - **What a shadow would have decided otherwise** is counted in rows of its own ([`shadow`]), for as long
//!   as it stands.
//! - **Bounded.** By size and age ([`Limits`], [`retention`]); what goes first is the oldest of the subject that
//!   has most rows, so that none can push out what is known of others.
//! - **A file that cannot be used is set aside** ([`database`]): renamed, said, and begun anew.
//!
//! Readers ([`query`]) have connections of their own: [`Store::query`] asks for filters,
//! [`Store::find`] for an id. Both first wait until what was noted before is written.
#![forbid(unsafe_code)]

mod database;
mod error;
mod pending;
mod query;
mod retention;
mod shadow;
mod status;
mod used;
mod writer;

#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use pending::Noted;
pub use query::{Filter, Found};
pub use retention::Limits;
pub use shadow::{Beside, Difference, Differences};
pub use status::StoreStatus;
pub use used::{Used, UsedSince};

use crate::events::{BundleRecord, Missing};
use pending::Queue;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Name of the file in the state directory.
pub const FILE: &str = "events.db";

/// A handle on the memory. Dropping it writes what is pending and ends the writing thread.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Begins to remember in `directory`. The file is opened by the writing thread, so this does not
    /// wait for it.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(directory: &Path, limits: Limits) -> std::io::Result<Self> {
        let path = directory.join(FILE);
        let queue = Arc::new(Queue::default());
        let writer = writer::Writer::new(path.clone(), limits, Arc::clone(&queue));
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || writer.run())?;
        Ok(Self { path, queue, thread: Mutex::new(Some(thread)) })
    }

    /// Says which bundle a generation decides by, and which shadow stands beside it. To be called before
    /// the generation is live, so that its first event is known to belong to it.
    pub fn generation(&self, number: u64, bundle: BundleRecord, shadow: Option<Beside>) {
        self.queue.generation(number, bundle, shadow);
    }

    /// Remembers events. Does not wait for the disk.
    pub fn note(&self, events: impl IntoIterator<Item = Noted>) {
        self.queue.note(events);
    }

    /// Remembers that so many events never arrived.
    pub fn lost(&self, count: u64) {
        self.queue.lost(count);
    }

    /// Remembers what a subject used under a bundle, watched since an instant in nanoseconds since
    /// 1970. Does not wait for the disk.
    pub fn used(&self, bundle: &BundleRecord, subject: &str, since: i64, used: Used) {
        self.queue.used(bundle, subject, since, used);
    }

    /// What a subject used under the bundle with this digest; nothing if it was never watched.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn used_since(&self, digest: &str, subject: &str) -> Result<Option<UsedSince>, StoreError> {
        self.queue.settle();
        used::read(&self.path, digest, subject)
    }

    /// What is remembered and passes `filter`, newest first, and what is missing since then.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn query(&self, filter: &Filter) -> Result<(Vec<Found>, Missing), StoreError> {
        self.queue.settle();
        query::query(&self.path, filter)
    }

    /// What would have ended otherwise under the shadow that began at this instant.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn differences(&self, began: i64) -> Result<Differences, StoreError> {
        self.queue.settle();
        shadow::read(&self.path, began)
    }

    /// Every row with this id, newest first: one for each bundle that decided so, and rarely one of
    /// another kind.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn find(&self, id: &str) -> Result<Vec<Found>, StoreError> {
        self.queue.settle();
        query::find(&self.path, id)
    }

    /// How it is doing.
    pub fn status(&self) -> StoreStatus {
        self.queue.status()
    }
}

impl Store {
    /// Writes what is pending and ends the writing thread, for a process that ends while others hold this.
    pub fn finish(&self) {
        self.queue.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the store's thread ended early: the last events were not stored");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.finish();
    }
}
