//! Requests: a subject asks for a lease, and people approve or deny.

use super::lease::{At, NewLease};
use super::{Lease, Ledger, LedgerError};
use crate::events::time::rfc3339;
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a request waits for an answer.
const WAITS: i64 = 60 * 60 * 1_000_000_000;
/// For so long a subject does not get to ask again for what was denied.
const HELD_BACK: i64 = 10 * 60 * 1_000_000_000;
/// Requests of one subject that wait at a time.
const MAX_OPEN: i64 = 16;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "LeaseAskedState"))]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// It waits for approvers.
    Open,
    /// A lease was granted.
    Approved,
    /// Somebody said no.
    Denied,
    /// Nobody said anything for an hour.
    Expired,
}

impl RequestState {
    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "open" => Self::Open,
            "approved" => Self::Approved,
            "denied" => Self::Denied,
            _ => Self::Expired,
        }
    }
}

/// One person's yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Approval {
    /// The user who logged in, or the one that runs the tool if nobody did.
    pub person: u32,
    /// The same with everything that is known of them.
    pub by: String,
    /// When, RFC 3339 UTC.
    pub at: String,
}

/// A request for a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "LeaseAsked"))]
pub struct Request {
    /// Its number.
    pub id: i64,
    /// The lease.
    pub lease: String,
    /// Who asks: the label of the process, not what it says.
    pub subject: String,
    /// Its session; 0: none.
    pub session: u64,
    /// For how long.
    pub seconds: u64,
    /// How often it is to be usable; null: as often as the lease allows.
    pub uses: Option<u32>,
    /// Whether it is for this session only.
    pub only_session: bool,
    /// Why, in the words of whoever asks. Not to be trusted.
    pub reason: String,
    /// When, RFC 3339 UTC.
    pub created: String,
    /// The user that the process ran as.
    pub uid: u32,
    /// The user for whom the session runs, or who logged in; null: nobody.
    pub human: Option<u32>,
    /// The process.
    pub pid: i32,
    /// What it executed.
    pub exe: Option<String>,
    /// What became of it.
    pub state: RequestState,
    /// Who said yes.
    pub approvals: Vec<Approval>,
    /// When it was decided, RFC 3339 UTC.
    pub decided: Option<String>,
    /// By whom.
    pub decided_by: Option<String>,
    /// What they said to it.
    pub note: Option<String>,
    /// Number of the lease that was granted.
    pub granted: Option<i64>,
}

/// What somebody asks for.
pub(crate) struct NewRequest<'a> {
    pub(crate) lease: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) session: u64,
    pub(crate) lasts: Duration,
    pub(crate) uses: Option<u32>,
    pub(crate) only_session: bool,
    pub(crate) reason: &'a str,
    pub(crate) uid: u32,
    pub(crate) human: Option<u32>,
    pub(crate) pid: i32,
    pub(crate) exe: Option<&'a str>,
}

/// What became of asking.
pub(crate) enum Created {
    /// It waits now, or did already.
    Waits(Box<Request>),
    /// The same was denied a moment ago.
    HeldBack,
    /// The subject has too many that wait.
    TooMany,
}

const COLUMNS: &str = "id, lease, subject, session, seconds, reason, created, uid, human, pid, exe, state, decided, decided_by, note, granted, \
     uses, only_session";

impl Ledger {
    /// Records a request. It is on the disk when this returns.
    pub(crate) fn ask(&mut self, new: &NewRequest<'_>, at: At<'_>) -> Result<Created, LedgerError> {
        self.expire(at)?;
        let failed = self.failed("record a request");
        let ask = || -> rusqlite::Result<Result<i64, Created>> {
            let same: Option<i64> = self
                .connection
                .query_row(
                    "SELECT id FROM request WHERE state = 'open' AND subject = ?1 AND session = ?2 AND lease = ?3",
                    params![new.subject, new.session.cast_signed(), new.lease],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(id) = same {
                return Ok(Ok(id));
            }
            let count = |query: &str, since: i64| -> rusqlite::Result<i64> {
                self.connection.query_row(query, params![new.subject, new.lease, since], |row| row.get(0))
            };
            let denied = "SELECT count(*) FROM request WHERE state = 'denied' AND subject = ?1 AND lease = ?2 AND decided_ns > ?3";
            if count(denied, at.wall.saturating_sub(HELD_BACK))? > 0 {
                return Ok(Err(Created::HeldBack));
            }
            let open =
                "SELECT count(*) FROM request WHERE state = 'open' AND subject = ?1 AND ?2 != '' AND ?3 = 0";
            if count(open, 0)? >= MAX_OPEN {
                return Ok(Err(Created::TooMany));
            }
            self.connection.execute(
                "INSERT INTO request (lease, subject, session, seconds, reason, created, created_ns, uid, human, pid, exe, state, \
                 uses, only_session) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 'open', ?12, ?13)",
                params![
                    new.lease,
                    new.subject,
                    new.session.cast_signed(),
                    new.lasts.as_secs().cast_signed(),
                    new.reason,
                    rfc3339(at.wall),
                    at.wall,
                    new.uid,
                    new.human,
                    new.pid,
                    new.exe,
                    new.uses,
                    new.only_session,
                ],
            )?;
            Ok(Ok(self.connection.last_insert_rowid()))
        };
        match ask().map_err(failed)? {
            Ok(id) => {
                Ok(self.request(id)?.map_or(Created::TooMany, |request| Created::Waits(Box::new(request))))
            }
            Err(refused) => Ok(refused),
        }
    }

    /// One request.
    pub(crate) fn request(&self, id: i64) -> Result<Option<Request>, LedgerError> {
        let found = self.requests_where("id = ?1", id, 1)?;
        Ok(found.into_iter().next())
    }

    /// Those that wait, or all, newest first.
    pub(crate) fn requests(
        &mut self,
        all: bool,
        limit: u32,
        at: At<'_>,
    ) -> Result<Vec<Request>, LedgerError> {
        self.expire(at)?;
        self.requests_where(if all { "?1 = 0" } else { "state = 'open' AND ?1 = 0" }, 0, limit)
    }

    fn requests_where(&self, condition: &str, value: i64, limit: u32) -> Result<Vec<Request>, LedgerError> {
        let read = || -> rusqlite::Result<Vec<Request>> {
            let query =
                format!("SELECT {COLUMNS} FROM request WHERE {condition} ORDER BY id DESC LIMIT {limit}");
            let mut statement = self.connection.prepare(&query)?;
            let mut found: Vec<Request> =
                statement.query_map([value], request)?.collect::<rusqlite::Result<_>>()?;
            let mut approvals = self
                .connection
                .prepare("SELECT person, given_by, given FROM approval WHERE request = ?1 ORDER BY given")?;
            for one in &mut found {
                let given = approvals.query_map([one.id], |row| {
                    Ok(Approval { person: row.get(0)?, by: row.get(1)?, at: row.get(2)? })
                })?;
                one.approvals = given.collect::<rusqlite::Result<_>>()?;
            }
            Ok(found)
        };
        read().map_err(self.failed("read requests"))
    }

    /// Requests that nobody answered wait no longer.
    fn expire(&mut self, at: At<'_>) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "UPDATE request SET state = 'expired', decided = ?1, decided_ns = ?2 WHERE state = 'open' AND created_ns < ?3",
                params![rfc3339(at.wall), at.wall, at.wall.saturating_sub(WAITS)],
            )
            .map(drop)
            .map_err(self.failed("end old requests"))
    }

    /// Records a yes, with what was shown; another one of the same person changes nothing.
    pub(crate) fn approve(
        &mut self,
        id: i64,
        person: u32,
        by: &str,
        shown: &str,
        at: At<'_>,
    ) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "INSERT OR IGNORE INTO approval (request, person, given_by, given, shown) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![id, person, by, rfc3339(at.wall), shown],
            )
            .map(drop)
            .map_err(self.failed("record an approval"))
    }

    /// Grants what a request asks for, and closes it, both or neither.
    pub(crate) fn fulfil(&mut self, id: i64, new: &NewLease<'_>, at: At<'_>) -> Result<Lease, LedgerError> {
        let begin = |ledger: &Self, words: &'static str| {
            ledger.connection.execute_batch(words).map_err(ledger.failed("record an approval"))
        };
        begin(self, "BEGIN IMMEDIATE")?;
        let done = self.grant(new, at).and_then(|lease| {
            self.close(id, RequestState::Approved, new.by, None, Some(lease.id), at)?;
            begin(self, "COMMIT")?;
            Ok(lease)
        });
        if done.is_err() {
            let _ = self.connection.execute_batch("ROLLBACK");
            self.leases = self.read_leases()?;
        }
        done
    }

    /// Says no.
    pub(crate) fn deny(
        &mut self,
        id: i64,
        by: &str,
        note: Option<&str>,
        at: At<'_>,
    ) -> Result<(), LedgerError> {
        self.close(id, RequestState::Denied, by, note, None, at)
    }

    fn close(
        &self,
        id: i64,
        state: RequestState,
        by: &str,
        note: Option<&str>,
        granted: Option<i64>,
        at: At<'_>,
    ) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "UPDATE request SET state = ?2, decided = ?3, decided_ns = ?4, decided_by = ?5, note = ?6, granted = ?7 WHERE id = ?1",
                params![id, state.name(), rfc3339(at.wall), at.wall, by, note, granted],
            )
            .map(drop)
            .map_err(self.failed("close a request"))
    }
}

fn request(row: &Row<'_>) -> rusqlite::Result<Request> {
    Ok(Request {
        id: row.get(0)?,
        lease: row.get(1)?,
        subject: row.get(2)?,
        session: row.get::<_, i64>(3)?.cast_unsigned(),
        seconds: row.get::<_, i64>(4)?.cast_unsigned(),
        reason: row.get(5)?,
        created: row.get(6)?,
        uid: row.get(7)?,
        human: row.get(8)?,
        pid: row.get(9)?,
        exe: row.get(10)?,
        state: RequestState::of(&row.get::<_, String>(11)?),
        approvals: Vec::new(),
        decided: row.get(12)?,
        decided_by: row.get(13)?,
        note: row.get(14)?,
        granted: row.get(15)?,
        uses: row.get(16)?,
        only_session: row.get(17)?,
    })
}
