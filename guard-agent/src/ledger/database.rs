//! The file: its tables, and how it is opened.

use rusqlite::{Connection, OpenFlags};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The format this version writes, kept in `user_version`.
const FORMAT: i64 = 3;
/// How long one connection waits for another one's lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// What makes format 2 of format 1, with [`SINCE_1`]: each source's word on a fact is a row of its own, with the instant at which it
/// was said.
const FROM_1: &str = "
ALTER TABLE fact RENAME TO fact_1;
CREATE TABLE fact (
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    source TEXT NOT NULL,
    observed TEXT NOT NULL,
    until TEXT,
    boot_ns INTEGER,
    boot_id TEXT,
    told_ns INTEGER,
    told_boot TEXT,
    PRIMARY KEY (subject, name, source)
) WITHOUT ROWID;
INSERT INTO fact
    SELECT subject, name, value, source, observed, until, boot_ns, boot_id, NULL, NULL FROM fact_1;
DROP TABLE fact_1;
";

/// The tables. Times are RFC 3339 UTC; `boot_ns` is an instant of CLOCK_BOOTTIME in the boot `boot_id`.
const TABLES: &str = "
CREATE TABLE lease (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    subject TEXT NOT NULL,
    granted TEXT NOT NULL,
    until TEXT NOT NULL,
    boot_ns INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    granted_by TEXT NOT NULL,
    reason TEXT,
    request INTEGER,
    ended TEXT,                     -- before its time
    ended_by TEXT
);
CREATE TABLE request (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    lease TEXT NOT NULL,
    subject TEXT NOT NULL,
    session INTEGER NOT NULL,       -- 0: none
    seconds INTEGER NOT NULL,
    reason TEXT NOT NULL,           -- in the words of whoever is to be trusted with nothing
    created TEXT NOT NULL,
    created_ns INTEGER NOT NULL,    -- nanoseconds since 1970
    uid INTEGER NOT NULL,
    human INTEGER,
    pid INTEGER NOT NULL,
    exe TEXT,
    state TEXT NOT NULL,
    decided TEXT,
    decided_ns INTEGER,
    decided_by TEXT,
    note TEXT,
    granted INTEGER                 -- the lease
);
CREATE INDEX request_state ON request (state, subject);
CREATE TABLE approval (
    request INTEGER NOT NULL,
    person INTEGER NOT NULL,
    given_by TEXT NOT NULL,
    given TEXT NOT NULL,
    shown TEXT NOT NULL,            -- what the approver was shown
    PRIMARY KEY (request, person)
) WITHOUT ROWID;
CREATE TABLE fact (
    subject TEXT NOT NULL,          -- empty: the host
    name TEXT NOT NULL,
    value TEXT NOT NULL,            -- JSON
    source TEXT NOT NULL,
    observed TEXT NOT NULL,
    until TEXT,
    boot_ns INTEGER,
    boot_id TEXT,
    told_ns INTEGER,                -- when it was said, if that is known, as an instant of CLOCK_BOOTTIME
    told_boot TEXT,
    PRIMARY KEY (subject, name, source)
) WITHOUT ROWID;
CREATE TABLE past_fact (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    observed TEXT NOT NULL,
    ended TEXT NOT NULL
);
CREATE INDEX past_fact_of ON past_fact (subject, ended);
CREATE INDEX lease_of ON lease (subject, until);
";

/// What format 1 has not: quarantines, leases of one session, and uses.
const SINCE_1: &str = "
ALTER TABLE lease ADD COLUMN session INTEGER NOT NULL DEFAULT 0;  -- 0: the whole subject
ALTER TABLE lease ADD COLUMN uses INTEGER;                        -- null: they are not counted
ALTER TABLE lease ADD COLUMN place INTEGER;                       -- where the kernel counts them
ALTER TABLE request ADD COLUMN uses INTEGER;
ALTER TABLE request ADD COLUMN only_session INTEGER NOT NULL DEFAULT 0;
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL,
    session INTEGER NOT NULL,       -- 0: the whole subject
    level TEXT NOT NULL,
    since TEXT NOT NULL,
    until TEXT,                     -- null: until it is released
    until_ns INTEGER,               -- the same, nanoseconds since 1970
    boot_ns INTEGER,
    boot_id TEXT,
    ordered_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    evidence TEXT,                  -- the file with what was found, and its SHA-256
    evidence_sha256 TEXT,
    released TEXT,
    released_by TEXT,
    release_reason TEXT
);
";

/// What format 2 has not: quarantines that are bound to no subject, and those that have to be confirmed.
const SINCE_2: &str = "
ALTER TABLE quarantine ADD COLUMN target TEXT;         -- JSON; null: the subject
ALTER TABLE quarantine ADD COLUMN place INTEGER;       -- its bit in labels
ALTER TABLE quarantine ADD COLUMN confirm_by TEXT;     -- null: it need not be, or has been
ALTER TABLE quarantine ADD COLUMN confirm_ns INTEGER;  -- the same in the boot `confirm_boot`
ALTER TABLE quarantine ADD COLUMN confirm_boot TEXT;
";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It cannot be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another version wrote it.
    #[error(
        "{path} has format {found}, and this agent reads format {FORMAT}: use the version of Guard that wrote it"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: i64,
    },
    /// It cannot be read or written.
    #[error("cannot {action} in {path}: {source}")]
    Use {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
}

/// Opens or makes the file. What a call has written is on the disk when the call returns.
pub(super) fn open(path: &Path) -> Result<Connection, LedgerError> {
    type Cause = Box<dyn std::error::Error + Send + Sync>;
    let failed = |source: Cause| LedgerError::Open { path: path.to_owned(), source };
    // Made here, so that nobody but root can ever read it.
    std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(error.into()))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let begin = || -> rusqlite::Result<(Connection, i64)> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        let format = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok((connection, format))
    };
    let (mut connection, format) = begin().map_err(|error| failed(error.into()))?;
    let steps: &[&str] = match format {
        FORMAT => return Ok(connection),
        2 => &[SINCE_2],
        1 => &[FROM_1, SINCE_1, SINCE_2],
        0 => &[TABLES, SINCE_1, SINCE_2],
        found => return Err(LedgerError::Format { path: path.to_owned(), found }),
    };
    let mut make = || -> rusqlite::Result<()> {
        let transaction = connection.transaction()?;
        for step in steps {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", FORMAT)?;
        transaction.commit()
    };
    make().map_err(|error| failed(error.into()))?;
    Ok(connection)
}
