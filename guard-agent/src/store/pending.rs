//! What was noted and is not written yet: one map, shared by who notes and who writes.

use super::shadow::Beside;
use super::status::StoreStatus;
use super::used::Used;
use crate::events::{BundleRecord, Kind, Record};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Kinds that may wait for the disk. Repeats of what waits need no room.
const MAX_KINDS: usize = 16_384;
/// Kinds in one batch whose executable is looked up: that takes a few system calls each, too many for
/// a storm of invented names.
const EXECUTABLES: usize = 512;
/// Generations whose bundle is remembered: events of the one before the live one can still arrive.
const GENERATIONS: usize = 16;
/// How long a batch is gathered after its first event.
const GATHER: Duration = Duration::from_millis(200);
/// How long a reader waits for what was noted before it.
const SETTLE: Duration = Duration::from_secs(5);

/// One event to remember.
#[derive(Clone, Debug)]
pub struct Noted {
    /// What makes it a repeat of another one.
    pub kind: Kind,
    /// What it reads like.
    pub record: Record,
    /// When, in nanoseconds since 1970.
    pub at: i64,
}

/// Events of one kind under one bundle.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) record: Record,
    pub(super) exe: Option<PathBuf>,
    pub(super) count: u64,
    pub(super) first: i64,
    pub(super) last: i64,
    /// The shadow that stood beside when the last one was decided.
    pub(super) shadow: Option<Arc<Beside>>,
}

/// What makes a row.
pub(super) type Key = (Kind, Option<Arc<BundleRecord>>);

/// What makes a row of what a shadow would have decided otherwise: when it began, the kind, whether it
/// would have allowed it, and the actions.
pub(super) type Otherwise = (i64, Kind, bool, u64);

/// What of it waits.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    pub(super) record: Record,
    pub(super) bundle: Arc<BundleRecord>,
    pub(super) count: u64,
    pub(super) first: i64,
    pub(super) last: i64,
}

/// What the writer takes at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) rows: HashMap<Key, Row>,
    /// What a shadow would have decided otherwise.
    pub(super) otherwise: HashMap<Otherwise, Sum>,
    /// What subjects used: bundle, subject, since when.
    pub(super) used: Vec<(BundleRecord, String, i64, Used)>,
    /// Events that never arrived.
    pub(super) lost: u64,
    /// Events of kinds that found no room.
    pub(super) not_stored: u64,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.otherwise.is_empty()
            && self.used.is_empty()
            && self.lost == 0
            && self.not_stored == 0
    }
}

impl Batch {
    /// Counts an event that would have been another one if the shadow were live.
    fn otherwise(
        &mut self,
        kind: Kind,
        record: &Record,
        at: i64,
        bundle: &Arc<BundleRecord>,
        shadow: &Arc<Beside>,
    ) {
        let Some(differs) = &record.shadow else { return };
        let key = (shadow.began, kind, differs.allows(), record.bits_of(&differs.actions));
        let room = self.otherwise.len() < MAX_KINDS;
        if let Some(sum) = self.otherwise.get_mut(&key) {
            sum.count += 1;
            sum.first = sum.first.min(at);
            sum.last = sum.last.max(at);
            (sum.record, sum.bundle) = (record.clone(), Arc::clone(bundle));
        } else if room {
            let (record, bundle) = (record.clone(), Arc::clone(bundle));
            self.otherwise.insert(key, Sum { record, bundle, count: 1, first: at, last: at });
        } else {
            self.not_stored += 1;
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    batch: Batch,
    generations: BTreeMap<u64, (Arc<BundleRecord>, Option<Arc<Beside>>)>,
    /// Readers that wait, numbered; and the last one whose wait is over.
    asked: u64,
    settled: u64,
    stop: bool,
    ended: bool,
    status: StoreStatus,
}

/// The map and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// There is something to do for the writer.
    work: Condvar,
    /// The writer is done with what it took.
    done: Condvar,
}

impl Queue {
    /// Nothing in the map is ever half changed, so a panic of another thread does not matter.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn generation(&self, number: u64, bundle: BundleRecord, shadow: Option<Beside>) {
        let mut inner = self.lock();
        inner.generations.insert(number, (Arc::new(bundle), shadow.map(Arc::new)));
        while inner.generations.len() > GENERATIONS {
            inner.generations.pop_first();
        }
    }

    pub(super) fn note(&self, events: impl IntoIterator<Item = Noted>) {
        let mut inner = self.lock();
        let idle = inner.batch.is_empty();
        for Noted { kind, record, at } in events {
            let (bundle, shadow) = inner.generations.get(&record.generation).cloned().unzip();
            let shadow = shadow.flatten();
            if let (Some(bundle), Some(shadow)) = (&bundle, &shadow) {
                inner.batch.otherwise(kind, &record, at, bundle, shadow);
            }
            let batch = &mut inner.batch;
            let (room, look) = (batch.rows.len() < MAX_KINDS, batch.rows.len() < EXECUTABLES);
            match batch.rows.entry((kind, bundle)) {
                std::collections::hash_map::Entry::Occupied(mut row) => {
                    let row = row.get_mut();
                    row.count += 1;
                    row.first = row.first.min(at);
                    row.last = row.last.max(at);
                    row.record = record;
                    row.shadow = shadow;
                }
                std::collections::hash_map::Entry::Vacant(place) if room => {
                    let exe = look.then(|| executable(record.pid, record.boot_ns)).flatten();
                    place.insert(Row { record, exe, count: 1, first: at, last: at, shadow });
                }
                std::collections::hash_map::Entry::Vacant(_) => batch.not_stored += 1,
            }
        }
        if idle && !inner.batch.is_empty() {
            self.work.notify_one();
        }
    }

    pub(super) fn used(&self, bundle: &BundleRecord, subject: &str, since: i64, used: Used) {
        self.lock().batch.used.push((bundle.clone(), subject.to_owned(), since, used));
        self.work.notify_one();
    }

    pub(super) fn lost(&self, count: u64) {
        let mut inner = self.lock();
        inner.batch.lost = inner.batch.lost.saturating_add(count);
        self.work.notify_one();
    }

    /// Waits until everything that was noted before is written, or could not be.
    pub(super) fn settle(&self) {
        let mut inner = self.lock();
        inner.asked += 1;
        let ticket = inner.asked;
        self.work.notify_one();
        let waiting = |inner: &mut Inner| inner.settled < ticket && !inner.ended;
        drop(self.done.wait_timeout_while(inner, SETTLE, waiting));
    }

    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.work.notify_one();
    }

    /// The writer ends: nobody waits for it any more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.done.notify_all();
    }

    /// Waits for work and takes it, with the number of the last reader that waits for it. Nothing once
    /// everything is written and it is to stop.
    pub(super) fn take(&self) -> Option<(Batch, u64)> {
        let mut inner = self.lock();
        let calm = |inner: &mut Inner| inner.batch.is_empty() && inner.asked == inner.settled && !inner.stop;
        inner = self.work.wait_while(inner, calm).unwrap_or_else(PoisonError::into_inner);
        // Nobody waits for it, so what follows shortly can go into the same transaction.
        let alone = |inner: &mut Inner| inner.asked == inner.settled && !inner.stop;
        inner = self.work.wait_timeout_while(inner, GATHER, alone).unwrap_or_else(PoisonError::into_inner).0;
        if inner.stop && inner.batch.is_empty() && inner.asked == inner.settled {
            return None;
        }
        Some((std::mem::take(&mut inner.batch), inner.asked))
    }

    /// What was taken is written, or could not be.
    pub(super) fn finish(&self, ticket: u64, status: impl FnOnce(&mut StoreStatus)) {
        let mut inner = self.lock();
        inner.settled = inner.settled.max(ticket);
        status(&mut inner.status);
        self.done.notify_all();
    }

    pub(super) fn status(&self) -> StoreStatus {
        let inner = self.lock();
        let mut status = inner.status.clone();
        status.not_stored += inner.batch.not_stored;
        status
    }
}

/// The executable of a process that made an event, if it still runs. A process that got the number
/// later began after the event.
fn executable(pid: u32, boot_ns: u64) -> Option<PathBuf> {
    /// Clock ticks of /proc, USER_HZ, in nanoseconds (`include/asm-generic/param.h`).
    const TICK: u64 = 10_000_000;
    /// Field of /proc/PID/stat, counted after the name in brackets (proc_pid_stat(5): 22).
    const START: usize = 22 - 3;
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let start: u64 = rest.split_ascii_whitespace().nth(START)?.parse().ok()?;
    (start.saturating_mul(TICK) <= boot_ns).then_some(exe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_that_of_the_process_which_was_there_then() {
        let pid = std::process::id();
        assert_eq!(executable(pid, u64::MAX), std::env::current_exe().ok());
        assert_eq!(executable(pid, 0), None, "it began later");
        assert_eq!(executable(u32::MAX, u64::MAX), None, "nobody");
    }
}
