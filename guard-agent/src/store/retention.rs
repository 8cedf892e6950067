//! What is forgotten, and when.

use rusqlite::{Connection, params};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in use in the file.
    pub bytes: u64,
    /// Age of the last repeat, in nanoseconds.
    pub age: i64,
}

/// Nanoseconds of a day.
pub(super) const DAY: i64 = 86_400_000_000_000;

impl Default for Limits {
    /// 64 MiB, 90 days.
    fn default() -> Self {
        Self { bytes: 64 << 20, age: 90 * DAY }
    }
}

/// What one pass removed at most from one subject: a pass must not hold up the writer for long.
const STEP: i64 = 1_000;

/// Removes what is too old, then the oldest rows of whoever has most until the rest has room. Returns
/// how many.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn prune(connection: &Connection, limits: Limits, now: i64) -> rusqlite::Result<u64> {
    let oldest = now.saturating_sub(limits.age);
    let mut forgotten = connection.execute("DELETE FROM event WHERE last < ?1", [oldest])?;
    connection.execute("DELETE FROM missing WHERE at < ?1", [oldest])?;
    while used(connection)? > limits.bytes {
        let removed = connection.execute(
            "DELETE FROM event WHERE number IN (SELECT number FROM event WHERE subject_id =
                 (SELECT subject_id FROM event GROUP BY subject_id ORDER BY count(*) DESC LIMIT 1)
             ORDER BY last LIMIT ?1)",
            params![STEP],
        )?;
        if removed == 0 {
            connection.execute("DELETE FROM missing", [])?;
            break;
        }
        forgotten += removed;
    }
    if forgotten != 0 {
        connection.execute(
            "DELETE FROM bundle WHERE number NOT IN (SELECT DISTINCT bundle FROM event)
                 AND number NOT IN (SELECT DISTINCT shadow FROM event WHERE shadow IS NOT NULL)",
            [],
        )?;
    }
    Ok(forgotten as u64)
}

/// Bytes of pages that hold something.
pub(super) fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
    Ok(pages.saturating_mul(pragma("page_size")?).unsigned_abs())
}
