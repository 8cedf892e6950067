//! The one thread that writes.

use super::database;
use super::error::StoreError;
use super::pending::{Batch, Key, Queue, Row};
use super::retention::{self, Limits};
use super::shadow;
use super::status::StoreStatus;
use super::used;
use crate::events::time;
use rusqlite::{Connection, Transaction, params};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Rows that may be added before room is looked for again.
const BETWEEN_PRUNES: u64 = 1_000;
/// Nanoseconds after which age is looked at again.
const BETWEEN_AGES: i64 = 3_600_000_000_000;

/// Takes batches and writes them.
pub(super) struct Writer {
    path: PathBuf,
    limits: Limits,
    queue: Arc<Queue>,
    connection: Option<Connection>,
    status: StoreStatus,
    /// Rows added since room was looked for.
    added: u64,
    pruned_at: i64,
    /// What a batch that could not be written lacks in the table of what is missing.
    owed: (u64, u64),
}

impl Writer {
    pub(super) fn new(path: PathBuf, limits: Limits, queue: Arc<Queue>) -> Self {
        Self {
            path,
            limits,
            queue,
            connection: None,
            status: StoreStatus::default(),
            added: 0,
            pruned_at: 0,
            owed: (0, 0),
        }
    }

    /// Writes until it is told to stop and nothing is left.
    pub(super) fn run(mut self) {
        let begun = self.usable();
        self.say(begun);
        self.publish(0);
        while let Some((batch, ticket)) = self.queue.take() {
            self.handle(batch);
            self.publish(ticket);
        }
        self.queue.end();
    }

    fn publish(&self, ticket: u64) {
        self.queue.finish(ticket, |status| *status = self.status.clone());
    }

    fn handle(&mut self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        self.owed.0 += batch.lost;
        self.owed.1 += batch.not_stored;
        self.status.not_stored += batch.not_stored;
        let mut result = self.write(&batch);
        if result.as_ref().is_err_and(StoreError::is_damage) {
            // Once: a new file that is damaged at once is the disk's fault.
            result = result.or_else(|error| self.begin_anew(&error)).and_then(|()| self.write(&batch));
        }
        if result.is_err() {
            let count: u64 = batch.rows.values().map(|row| row.count).sum();
            self.status.not_stored += count;
            self.owed.1 += count;
        }
        self.say(result);
    }

    /// Keeps the state of the file for the status, and logs where it changes.
    fn say(&mut self, result: Result<(), StoreError>) {
        let broken = result.err().map(|error| error.to_string());
        if broken != self.status.broken {
            match &broken {
                Some(error) => tracing::error!("events are not remembered: {error}"),
                None => tracing::info!("events are remembered again"),
            }
        }
        self.status.broken = broken;
    }

    /// Makes sure that the file is open.
    fn usable(&mut self) -> Result<(), StoreError> {
        if self.connection.is_some() {
            return Ok(());
        }
        match database::open(&self.path) {
            Ok(connection) => self.opened(connection),
            Err(error) if error.is_damage() => self.begin_anew(&error),
            Err(error) => Err(error),
        }
    }

    fn begin_anew(&mut self, why: &StoreError) -> Result<(), StoreError> {
        self.connection = None;
        let aside = database::set_aside(&self.path, time::now())?;
        let said = format!("{why}; it is kept as {}", aside.display());
        tracing::error!("the memory of events begins anew: {said}");
        self.status.set_aside = Some(said);
        self.opened(database::open(&self.path)?)
    }

    fn opened(&mut self, connection: Connection) -> Result<(), StoreError> {
        let kinds = connection.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, i64>(0));
        self.status.kinds = kinds.map_err(StoreError::at("read", &self.path))?.unsigned_abs();
        self.status.bytes = retention::used(&connection).map_err(StoreError::at("read", &self.path))?;
        self.connection = Some(connection);
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.usable()?;
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let now = time::now();
        let fail = StoreError::at("write", &self.path);
        let transaction = connection.transaction().map_err(&fail)?;
        let added = insert(&transaction, &batch.rows).map_err(&fail)?;
        for (bundle, subject, since, used) in &batch.used {
            used::add(&transaction, bundle, subject, *since, used).map_err(&fail)?;
        }
        if !batch.used.is_empty() {
            used::prune(&transaction).map_err(&fail)?;
        }
        if !batch.otherwise.is_empty() {
            shadow::insert(&transaction, &batch.otherwise).map_err(&fail)?;
            shadow::prune(&transaction).map_err(&fail)?;
        }
        if self.owed != (0, 0) {
            let (lost, not_stored) = self.owed;
            transaction
                .execute(
                    "INSERT INTO missing (at, lost, not_stored) VALUES (?1, ?2, ?3)",
                    params![now, clamped(lost), clamped(not_stored)],
                )
                .map_err(&fail)?;
        }
        let due = self.added + added >= BETWEEN_PRUNES || now - self.pruned_at >= BETWEEN_AGES;
        let mut forgotten = 0;
        if due {
            forgotten = retention::prune(&transaction, self.limits, now).map_err(&fail)?;
        }
        transaction.commit().map_err(&fail)?;
        self.owed = (0, 0);
        self.added = if due { 0 } else { self.added + added };
        if due {
            self.pruned_at = now;
        }
        self.status.kinds = (self.status.kinds + added).saturating_sub(forgotten);
        self.status.forgotten += forgotten;
        self.status.bytes = retention::used(connection).map_err(&fail)?;
        Ok(())
    }
}

/// Adds rows, or their counts to those that are there. Returns how many are new.
fn insert(transaction: &Transaction<'_>, rows: &HashMap<Key, Row>) -> rusqlite::Result<u64> {
    let mut known = transaction.prepare(
        "UPDATE event SET count = count + ?3, first = min(first, ?4), last = max(last, ?5),
             exe = coalesce(?6, exe), record = ?7, path = ?8, subject = coalesce(?9, subject), shadow = ?10
         WHERE kind = ?1 AND bundle = ?2",
    )?;
    let mut new = transaction.prepare(
        "INSERT INTO event (kind, bundle, count, first, last, exe, record, path, subject, subject_id, id,
             verdict, actions, shadow)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    let mut added = 0;
    for ((kind, bundle), row) in rows {
        let bundle = match bundle {
            None => 0,
            Some(bundle) => bundle_number(transaction, &bundle.digest, &bundle.name, bundle.version)?,
        };
        let shadow = match row.shadow.as_ref().map(|shadow| &shadow.bundle) {
            None => None,
            Some(other) => Some(bundle_number(transaction, &other.digest, &other.name, other.version)?),
        };
        let record = &row.record;
        let exe = row.exe.as_ref().map(|exe| exe.as_os_str().as_bytes());
        let (line, path) = (record.to_json_line(), record.path_bytes());
        let common = (kind.bytes(), bundle, clamped(row.count), row.first, row.last);
        let changed = known.execute(params![
            common.0,
            common.1,
            common.2,
            common.3,
            common.4,
            exe,
            line,
            path,
            record.subject,
            shadow
        ])?;
        if changed != 0 {
            continue;
        }
        added += 1;
        new.execute(params![
            common.0,
            common.1,
            common.2,
            common.3,
            common.4,
            exe,
            line,
            path,
            record.subject,
            record.subject_id,
            record.id,
            record.verdict,
            record.action_bits().cast_signed(),
            shadow
        ])?;
    }
    Ok(added)
}

/// The number of a bundle, given to it if it has none.
fn bundle_number(
    transaction: &Transaction<'_>,
    digest: &str,
    name: &str,
    version: u64,
) -> rusqlite::Result<i64> {
    let version = clamped(version);
    transaction.execute(
        "INSERT OR IGNORE INTO bundle (digest, name, version) VALUES (?1, ?2, ?3)",
        params![digest, name, version],
    )?;
    transaction.query_row(
        "SELECT number FROM bundle WHERE digest = ?1 AND name = ?2 AND version = ?3",
        params![digest, name, version],
        |row| row.get(0),
    )
}

/// SQLite's integers have a sign.
pub(super) fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
