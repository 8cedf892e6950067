//! Reading what is remembered.

use super::database;
use super::error::StoreError;
use crate::events::{BundleRecord, Missing, Record, Seen, escape, time};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};
use std::path::Path;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this subject, by name.
    pub subject: Option<String>,
    /// About one of these actions, as bits.
    pub actions: Option<u64>,
    /// With this verdict, as records spell it.
    pub verdict: Option<String>,
    /// On this path of the host.
    pub path: Option<Vec<u8>>,
    /// Of this process, where it was the last.
    pub pid: Option<u32>,
    /// Last seen at or after this instant, in nanoseconds since 1970.
    pub since: Option<i64>,
    /// At most so many, the newest.
    pub limit: Option<usize>,
}

impl Filter {
    /// Whether an event that just happened is wanted; how many there are and when does not count.
    pub fn takes(&self, record: &Record) -> bool {
        self.subject.as_ref().is_none_or(|subject| record.subject.as_ref() == Some(subject))
            && self.actions.is_none_or(|actions| record.action_bits() & actions != 0)
            && self.verdict.as_ref().is_none_or(|verdict| record.verdict == *verdict)
            && self.path.as_ref().is_none_or(|path| record.path_bytes().as_ref() == Some(path))
            && self.pid.is_none_or(|pid| record.pid == pid)
    }
}

/// One kind of event under one bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The last one; `seen` says how often and under which bundle.
    pub record: Record,
    /// How often.
    pub count: u64,
    /// The first time, in nanoseconds since 1970.
    pub first: i64,
    /// The last time.
    pub last: i64,
}

const COLUMNS: &str = "event.record, event.count, event.first, event.last, event.exe, \
                       bundle.name, bundle.version, bundle.digest, \
                       beside.name, beside.version, beside.digest";
const FROM: &str = "event LEFT JOIN bundle ON bundle.number = event.bundle \
                    LEFT JOIN bundle AS beside ON beside.number = event.shadow";

pub(super) fn query(path: &Path, filter: &Filter) -> Result<(Vec<Found>, Missing), StoreError> {
    let fail = StoreError::at("read", path);
    let connection = database::open_to_read(path)?;
    let (mut wanted, mut values): (Vec<&str>, Vec<Value>) = (Vec::new(), Vec::new());
    let mut clause = |text: &'static str, value: Value| {
        wanted.push(text);
        values.push(value);
    };
    if let Some(subject) = &filter.subject {
        clause("event.subject = ?", Value::Text(subject.clone()));
    }
    if let Some(actions) = filter.actions {
        clause("event.actions & ? != 0", Value::Integer(actions.cast_signed()));
    }
    if let Some(verdict) = &filter.verdict {
        clause("event.verdict = ?", Value::Text(verdict.clone()));
    }
    if let Some(path) = &filter.path {
        clause("event.path = ?", Value::Blob(path.clone()));
    }
    if let Some(pid) = filter.pid {
        clause("json_extract(event.record, '$.pid') = ?", Value::Integer(pid.into()));
    }
    if let Some(since) = filter.since {
        clause("event.last >= ?", Value::Integer(since));
    }
    let condition = if wanted.is_empty() { "1".to_owned() } else { wanted.join(" AND ") };
    let limit = filter.limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(-1);
    let sql = format!(
        "SELECT {COLUMNS} FROM {FROM} WHERE {condition} ORDER BY event.last DESC, event.number DESC LIMIT {limit}"
    );
    // Both from one state of the file.
    connection.execute_batch("BEGIN").map_err(&fail)?;
    let found = rows(&connection, path, &sql, values)?;
    let (lost, not_stored): (i64, i64) = connection
        .query_row(
            "SELECT coalesce(sum(lost), 0), coalesce(sum(not_stored), 0) FROM missing WHERE at >= ?1",
            [filter.since.unwrap_or(i64::MIN)],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(&fail)?;
    Ok((found, Missing::new(lost.unsigned_abs(), not_stored.unsigned_abs())))
}

pub(super) fn find(path: &Path, id: &str) -> Result<Vec<Found>, StoreError> {
    let connection = database::open_to_read(path)?;
    let sql = format!(
        "SELECT {COLUMNS} FROM {FROM} WHERE event.id = ? ORDER BY event.last DESC, event.number DESC"
    );
    rows(&connection, path, &sql, vec![Value::Text(id.to_owned())])
}

fn rows(
    connection: &Connection,
    path: &Path,
    sql: &str,
    values: Vec<Value>,
) -> Result<Vec<Found>, StoreError> {
    let fail = StoreError::at("read", path);
    let mut statement = connection.prepare(sql).map_err(&fail)?;
    let found = statement.query_map(params_from_iter(values), |row| Ok(read(row))).map_err(&fail)?;
    let mut out = Vec::new();
    for row in found {
        match row.map_err(&fail)?.map_err(&fail)? {
            Ok(found) => out.push(found),
            // One row that rotted must not hide the others.
            Err(why) => tracing::warn!("{} has a row that is not understood: {why}", path.display()),
        }
    }
    Ok(out)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Result<Found, String>> {
    let line: String = row.get(0)?;
    let (count, first, last): (i64, i64, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
    let exe: Option<Vec<u8>> = row.get(4)?;
    let bundle = |at: usize| -> rusqlite::Result<Option<BundleRecord>> {
        let Some(name) = row.get(at)? else { return Ok(None) };
        let version = row.get::<_, i64>(at + 1)?.unsigned_abs();
        Ok(Some(BundleRecord { name, version, digest: row.get(at + 2)? }))
    };
    let (bundle, shadow) = (bundle(5)?, bundle(8)?);
    let count = count.unsigned_abs();
    let seen =
        Seen { count, first: time::rfc3339(first), exe: exe.map(|exe| escape::escape(&exe)), bundle, shadow };
    Ok(Record::from_json_line(&line)
        .map(|record| Found { record: Record { seen: Some(seen), ..record }, count, first, last })
        .map_err(|error| error.to_string()))
}
