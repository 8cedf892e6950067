//! What a shadow would have decided otherwise: one row for each kind of operation.

use super::database;
use super::error::StoreError;
use super::pending::{Otherwise, Sum};
use super::writer::clamped;
use crate::events::{BundleRecord, Missing, Record};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::HashMap;
use std::path::Path;

/// Shadows whose counts are kept: the one that stands, and the one before it.
const SHADOWS: i64 = 2;
/// Kinds of one shadow that are kept.
const KINDS: i64 = 5_000;
/// Kinds that are forgotten at once when there are more.
const STEP: i64 = 500;

/// The shadow that stands beside a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// When it began, in nanoseconds since 1970: what it is known by.
    pub began: i64,
    /// Its bundle.
    pub bundle: BundleRecord,
}

/// One kind of operation that would have ended otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The last one.
    pub record: Record,
    /// Digest of the bundle that decided it; empty if it is not known.
    pub bundle: String,
    /// How often.
    pub count: u64,
    /// The first time, in nanoseconds since 1970.
    pub first: i64,
    /// The last time.
    pub last: i64,
}

/// Everything that would have ended otherwise under one shadow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// By kind, newest first.
    pub kinds: Vec<Difference>,
    /// Operations of kinds that were forgotten, because there were too many.
    pub forgotten: u64,
    /// What never arrived, or was not stored, since the shadow began.
    pub missing: Missing,
}

/// Adds to the rows.
pub(super) fn insert(transaction: &Transaction<'_>, sums: &HashMap<Otherwise, Sum>) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare(
        "INSERT INTO shadow (began, kind, allows, actions, subject_id, bundle, count, first, last, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT DO UPDATE SET count = count + excluded.count, first = min(first, excluded.first),
             last = max(last, excluded.last), record = excluded.record, bundle = excluded.bundle",
    )?;
    for ((began, kind, allows, actions), sum) in sums {
        statement.execute(params![
            began,
            kind.bytes(),
            allows,
            actions.cast_signed(),
            sum.record.subject_id,
            sum.bundle.digest,
            clamped(sum.count),
            sum.first,
            sum.last,
            sum.record.to_json_line()
        ])?;
    }
    Ok(())
}

/// Forgets the shadows before the last ones, and the oldest kinds of the subject that has most, where one
/// has too many.
pub(super) fn prune(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let old = "(SELECT DISTINCT began FROM shadow ORDER BY began DESC LIMIT -1 OFFSET ?1)";
    for table in ["shadow_forgotten", "shadow"] {
        transaction.execute(&format!("DELETE FROM {table} WHERE began IN {old}"), [SHADOWS])?;
    }
    loop {
        let full: Option<i64> = transaction
            .query_row("SELECT began FROM shadow GROUP BY began HAVING count(*) > ?1", [KINDS], |row| {
                row.get(0)
            })
            .optional()?;
        let Some(began) = full else { return Ok(()) };
        let oldest = "SELECT number FROM shadow WHERE began = ?1 AND subject_id =
                (SELECT subject_id FROM shadow WHERE began = ?1 GROUP BY subject_id ORDER BY count(*) DESC LIMIT 1)
            ORDER BY last LIMIT ?2";
        transaction.execute(
            &format!(
                "INSERT INTO shadow_forgotten (began, operations)
                 SELECT ?1, coalesce(sum(count), 0) FROM shadow WHERE number IN ({oldest})
                 ON CONFLICT DO UPDATE SET operations = operations + excluded.operations"
            ),
            [began, STEP],
        )?;
        transaction.execute(&format!("DELETE FROM shadow WHERE number IN ({oldest})"), [began, STEP])?;
    }
}

/// What would have ended otherwise under the shadow that began then.
pub(super) fn read(path: &Path, began: i64) -> Result<Differences, StoreError> {
    let connection = database::open_to_read(path)?;
    // All from one state of the file.
    connection.execute_batch("BEGIN").map_err(StoreError::at("read", path))?;
    differences(&connection, path, began).map_err(StoreError::at("read", path))
}

fn differences(connection: &Connection, path: &Path, began: i64) -> rusqlite::Result<Differences> {
    let mut statement = connection.prepare(
        "SELECT record, bundle, count, first, last FROM shadow WHERE began = ?1 ORDER BY last DESC, number DESC",
    )?;
    let mut rows = statement.query([began])?;
    let mut found = Differences::default();
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        match Record::from_json_line(&line) {
            Ok(record) => found.kinds.push(Difference {
                record,
                bundle: row.get(1)?,
                count: row.get::<_, i64>(2)?.unsigned_abs(),
                first: row.get(3)?,
                last: row.get(4)?,
            }),
            // One row that rotted must not hide the others.
            Err(why) => tracing::warn!("{} has a row that is not understood: {why}", path.display()),
        }
    }
    let forgotten: Option<i64> = connection
        .query_row("SELECT operations FROM shadow_forgotten WHERE began = ?1", [began], |row| row.get(0))
        .optional()?;
    found.forgotten = forgotten.unwrap_or(0).unsigned_abs();
    let (lost, not_stored): (i64, i64) = connection.query_row(
        "SELECT coalesce(sum(lost), 0), coalesce(sum(not_stored), 0) FROM missing WHERE at >= ?1",
        [began],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    found.missing = Missing::new(lost.unsigned_abs(), not_stored.unsigned_abs());
    Ok(found)
}
