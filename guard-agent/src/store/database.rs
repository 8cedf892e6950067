//! The file: its tables, how it is opened, and what happens to one that cannot be used.

use super::error::StoreError;
use rusqlite::{Connection, OpenFlags};
use std::ffi::OsString;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The format this version writes, kept in `user_version`.
pub(super) const FORMAT: i64 = 3;
/// How long one connection waits for another. Only a reader that holds a snapshot while the writer
/// empties the log can make it wait.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that the write-ahead log keeps once its contents are in the file.
const LOG_BYTES: i64 = 4 << 20;
/// Files that were set aside and are kept.
const ASIDE: usize = 2;

/// The tables. Times are nanoseconds since 1970; masks, classes and features are the kernel's numbers.
const TABLES: &str = "
CREATE TABLE bundle (
    number INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    UNIQUE (digest, name, version)
);
CREATE TABLE event (
    number INTEGER PRIMARY KEY,
    kind BLOB NOT NULL,
    bundle INTEGER NOT NULL,        -- 0: not known
    id TEXT NOT NULL,
    subject TEXT,
    subject_id INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    actions INTEGER NOT NULL,
    path BLOB,                      -- on this host, as the kernel has it
    count INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    exe BLOB,
    record TEXT NOT NULL,           -- the last one, guard.event/1
    UNIQUE (kind, bundle)
);
CREATE INDEX event_last ON event (last);
CREATE INDEX event_id ON event (id);
CREATE INDEX event_subject ON event (subject_id, last);
CREATE TABLE missing (
    at INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    not_stored INTEGER NOT NULL
);
CREATE INDEX missing_at ON missing (at);
";

/// The tables that came with format 2.
const USED: &str = "
CREATE TABLE watched (
    digest TEXT NOT NULL,
    subject TEXT NOT NULL,
    since INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (digest, subject)
) WITHOUT ROWID;
CREATE TABLE used (
    digest TEXT NOT NULL,
    subject TEXT NOT NULL,
    class TEXT NOT NULL,
    actions INTEGER NOT NULL,
    PRIMARY KEY (digest, subject, class)
) WITHOUT ROWID;
";

/// What came with format 3.
const SHADOW: &str = "
ALTER TABLE event ADD COLUMN shadow INTEGER;  -- the bundle that stood beside; NULL: none
CREATE TABLE shadow (
    number INTEGER PRIMARY KEY,
    began INTEGER NOT NULL,         -- which shadow
    kind BLOB NOT NULL,
    allows INTEGER NOT NULL,        -- 1: it would have allowed what was denied
    actions INTEGER NOT NULL,
    subject_id INTEGER NOT NULL,
    bundle TEXT NOT NULL,           -- digest of the bundle that decided the last one
    count INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    record TEXT NOT NULL,           -- the last one, guard.event/1
    UNIQUE (began, kind, allows, actions)
);
CREATE INDEX shadow_subject ON shadow (began, subject_id, last);
CREATE TABLE shadow_forgotten (
    began INTEGER PRIMARY KEY,
    operations INTEGER NOT NULL
);
";

/// Opens the file for writing, with its tables. Made if it is not there.
///
/// # Errors
/// If it cannot be opened, is damaged, or was written by a newer agent.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let fail = |action| StoreError::at(action, path);
    private(path)?;
    let mut connection = Connection::open(path).map_err(fail("open"))?;
    connection.busy_timeout(PATIENCE).map_err(fail("open"))?;
    // After a kill nothing that was committed is lost; after a loss of power the last batches can be.
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(fail("open"))?;
    if mode != "wal" {
        tracing::warn!(
            "{} is kept without a write-ahead log ({mode}): readers and writer wait for each other",
            path.display()
        );
    }
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(fail("open"))?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES).map_err(fail("open"))?;
    // A file that somebody else wrote must not have functions called.
    connection.pragma_update(None, "trusted_schema", false).map_err(fail("open"))?;
    let found: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fail("read"))?;
    match found {
        FORMAT => check(&connection, path)?,
        0..FORMAT => {
            if found != 0 {
                check(&connection, path)?;
            }
            let transaction = connection.transaction().map_err(fail("write"))?;
            for (_, tables) in
                [(1, TABLES), (2, USED), (3, SHADOW)].iter().filter(|(format, _)| *format > found)
            {
                transaction.execute_batch(tables).map_err(fail("make the tables of"))?;
            }
            transaction.pragma_update(None, "user_version", FORMAT).map_err(fail("write"))?;
            transaction.commit().map_err(fail("write"))?;
        }
        _ => return Err(StoreError::TooNew { path: path.to_owned(), found, known: FORMAT }),
    }
    Ok(connection)
}

/// Makes the file for its owner only, if it is not there. The files beside it get its mode.
fn private(path: &Path) -> Result<(), StoreError> {
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(StoreError::Make { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Looks for damage. Reads the whole file once, which the limit on its size bounds.
fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(StoreError::at("check", path))?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Row { path: path.to_owned(), why: verdict }) }
}

/// Opens the file for reading.
///
/// # Errors
/// If it cannot be opened.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let fail = |action| StoreError::at(action, path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(fail("open"))?;
    connection.busy_timeout(PATIENCE).map_err(fail("open"))?;
    Ok(connection)
}

/// Renames a file that cannot be used, with its log, and removes those that were set aside long ago.
/// Returns its new name.
///
/// # Errors
/// If it cannot be renamed.
pub(super) fn set_aside(path: &Path, now: i64) -> Result<PathBuf, StoreError> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    // In order of time as text, until the year 2286.
    let aside = with(&format!(".unusable-{}", now / 1_000_000_000));
    std::fs::rename(path, &aside).map_err(|source| StoreError::Aside { path: path.to_owned(), source })?;
    for suffix in ["-wal", "-shm"] {
        let mut name: OsString = aside.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::rename(with(suffix), name) {
            // A log without its file must not be found by the next one.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Aside { path: with(suffix), source: error });
            }
            _ => {}
        }
    }
    prune_aside(path);
    Ok(aside)
}

/// Removes all but the last files that were set aside. One that cannot be removed only takes space.
fn prune_aside(path: &Path) {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return;
    };
    let prefix = format!("{name}.unusable-");
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut aside: Vec<PathBuf> = names
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)))
        .map(|entry| entry.path())
        .collect();
    aside.sort();
    let stamp =
        |path: &PathBuf| path.to_string_lossy().trim_end_matches("-wal").trim_end_matches("-shm").to_owned();
    let mut stamps: Vec<String> = aside.iter().map(stamp).collect();
    stamps.dedup();
    let old: Vec<&String> = stamps.iter().rev().skip(ASIDE).collect();
    for path in aside.iter().filter(|path| old.contains(&&stamp(path))) {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
    }
}
