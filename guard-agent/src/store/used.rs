//! What was used at least once: actions by subject, class and bundle.

use super::database;
use super::error::StoreError;
use crate::events::BundleRecord;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::BTreeMap;
use std::path::Path;

/// Bundles whose use is kept.
const BUNDLES: i64 = 32;

/// What one subject used under one bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Actions as bits, by what falls into the class, for people.
    pub classes: BTreeMap<String, u64>,
}

/// What one subject used, since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedSince {
    /// Since this instant, in nanoseconds since 1970.
    pub since: i64,
    /// What was used.
    pub used: Used,
}

/// Adds what was used to what is known. `since` is when watching began.
pub(super) fn add(
    transaction: &Transaction<'_>,
    bundle: &BundleRecord,
    subject: &str,
    since: i64,
    used: &Used,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO watched (digest, subject, since, last) VALUES (?1, ?2, ?3, ?3)
         ON CONFLICT DO UPDATE SET since = min(since, excluded.since), last = max(last, excluded.last)",
        params![bundle.digest, subject, since],
    )?;
    let mut statement = transaction.prepare(
        "INSERT INTO used (digest, subject, class, actions) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET actions = actions | excluded.actions",
    )?;
    for (class, actions) in &used.classes {
        statement.execute(params![bundle.digest, subject, class, actions.cast_signed()])?;
    }
    Ok(())
}

/// Forgets the bundles that were watched longest ago.
pub(super) fn prune(connection: &Connection) -> rusqlite::Result<()> {
    let old = "SELECT digest FROM watched GROUP BY digest ORDER BY max(last) DESC LIMIT -1 OFFSET ?1";
    connection.execute(&format!("DELETE FROM used WHERE digest IN ({old})"), [BUNDLES])?;
    connection.execute(&format!("DELETE FROM watched WHERE digest IN ({old})"), [BUNDLES])?;
    Ok(())
}

/// What a subject used under a bundle; nothing if it was never watched.
pub(super) fn read(path: &Path, digest: &str, subject: &str) -> Result<Option<UsedSince>, StoreError> {
    let fail = StoreError::at("read", path);
    let connection = database::open_to_read(path)?;
    let since = connection
        .query_row("SELECT since FROM watched WHERE digest = ?1 AND subject = ?2", [digest, subject], |row| {
            row.get(0)
        })
        .optional()
        .map_err(&fail)?;
    let Some(since) = since else { return Ok(None) };
    let mut statement = connection
        .prepare("SELECT class, actions FROM used WHERE digest = ?1 AND subject = ?2")
        .map_err(&fail)?;
    let rows = statement
        .query_map([digest, subject], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))
        .map_err(&fail)?;
    let classes = rows.collect::<rusqlite::Result<_>>().map_err(&fail)?;
    Ok(Some(UsedSince { since, used: Used { classes } }))
}
