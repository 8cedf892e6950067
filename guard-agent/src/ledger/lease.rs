//! Leases: a subject has a right for a while.

use super::{Deadline, Ledger, LedgerError};
use crate::events::time::rfc3339;
use crate::policy::Instant;
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One lease. `context.leases` of its subject contains its name until it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Lease {
    /// Its number.
    pub id: i64,
    /// Its name, an approval that the bundle declares.
    pub name: String,
    /// Whose it is.
    pub subject: String,
    /// The one session of the subject that has it; null: all of the subject.
    pub session: Option<u64>,
    /// How often it can be used; null: uses are not counted.
    pub uses: Option<u32>,
    /// How many of these uses are left.
    pub left: Option<u32>,
    /// When it was granted, RFC 3339 UTC.
    pub granted: String,
    /// When it ends by itself, RFC 3339 UTC as the clock was set then.
    pub until: String,
    /// Who granted it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// The request that it answers.
    pub request: Option<i64>,
    /// When it was ended before its time, RFC 3339 UTC.
    pub ended: Option<String>,
    /// By whom.
    pub ended_by: Option<String>,
    /// Where the kernel counts uses.
    #[serde(skip)]
    #[cfg_attr(test, schemars(skip))]
    pub(crate) place: Option<u32>,
    #[serde(skip)]
    pub(super) deadline: Deadline,
}

impl Lease {
    /// Whether it is the holder's of a row: a subject, or one of its sessions (0: no particular one).
    pub(crate) fn is_of(&self, subject: &str, session: u64) -> bool {
        self.subject == subject && self.session.is_none_or(|only| only == session)
    }

    /// Whether some holder could have this one and a lease for that one.
    pub(crate) fn meets(&self, subject: &str, session: Option<u64>) -> bool {
        let same = |own: u64| session.is_none_or(|session| session == own);
        self.subject == subject && self.session.is_none_or(same)
    }

    /// Its end on this boot's clock; nothing if it has ended.
    pub(crate) fn end(&self, now: Instant, boot_id: &str) -> Option<Instant> {
        self.deadline.end(now, boot_id).filter(|_| self.ended.is_none())
    }
}

/// What a lease is to be.
pub(crate) struct NewLease<'a> {
    pub(crate) name: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) session: Option<u64>,
    pub(crate) lasts: Duration,
    /// How often it can be used, and where that is counted.
    pub(crate) uses: Option<(u32, u32)>,
    pub(crate) by: &'a str,
    pub(crate) reason: Option<&'a str>,
    pub(crate) request: Option<i64>,
}

/// What the clocks say.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    /// Nanoseconds since 1970.
    pub(crate) wall: i64,
    pub(crate) boot: Instant,
    pub(crate) boot_id: &'a str,
}

const COLUMNS: &str = "id, name, subject, granted, until, boot_ns, boot_id, granted_by, reason, request, ended, ended_by, \
     session, uses, place";

impl Ledger {
    /// All leases that were not ended before their time and have not been found over, oldest first.
    pub(crate) fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// The last ones that there were, newest first.
    pub(crate) fn all_leases(&self, limit: u32) -> Result<Vec<Lease>, LedgerError> {
        self.select(&format!("SELECT {COLUMNS} FROM lease ORDER BY id DESC LIMIT {limit}"))
    }

    pub(super) fn read_leases(&self) -> Result<Vec<Lease>, LedgerError> {
        self.select(&format!("SELECT {COLUMNS} FROM lease WHERE ended IS NULL ORDER BY id"))
    }

    fn select(&self, query: &str) -> Result<Vec<Lease>, LedgerError> {
        let read = || -> rusqlite::Result<Vec<Lease>> {
            let mut statement = self.connection.prepare(query)?;
            statement.query_map([], lease)?.collect()
        };
        read().map_err(self.failed("read leases"))
    }

    /// Records a lease. It is on the disk when this returns.
    pub(crate) fn grant(&mut self, new: &NewLease<'_>, at: At<'_>) -> Result<Lease, LedgerError> {
        let deadline = Deadline::after(at.boot, at.boot_id, new.lasts);
        let length = i64::try_from(new.lasts.as_nanos()).unwrap_or(i64::MAX);
        let (granted, until) = (rfc3339(at.wall), rfc3339(at.wall.saturating_add(length)));
        self.connection
            .execute(
                "INSERT INTO lease (name, subject, granted, until, boot_ns, boot_id, granted_by, reason, request, \
                 session, uses, place) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                params![
                    new.name,
                    new.subject,
                    granted,
                    until,
                    deadline.boot_ns.cast_signed(),
                    deadline.boot_id,
                    new.by,
                    new.reason,
                    new.request,
                    new.session.unwrap_or(0).cast_signed(),
                    new.uses.map(|(uses, _)| uses),
                    new.uses.map(|(_, place)| place),
                ],
            )
            .map_err(self.failed("record a lease"))?;
        let lease = Lease {
            id: self.connection.last_insert_rowid(),
            name: new.name.to_owned(),
            subject: new.subject.to_owned(),
            session: new.session,
            uses: new.uses.map(|(uses, _)| uses),
            left: None,
            place: new.uses.map(|(_, place)| place),
            granted,
            until,
            by: new.by.to_owned(),
            reason: new.reason.map(str::to_owned),
            request: new.request,
            ended: None,
            ended_by: None,
            deadline,
        };
        // What is over is not looked at again.
        self.leases.retain(|lease| lease.end(at.boot, at.boot_id).is_some());
        self.leases.push(lease.clone());
        Ok(lease)
    }

    /// Gives a lease another end. Returns it, and what it was.
    pub(crate) fn renew(
        &mut self,
        id: i64,
        lasts: Duration,
        at: At<'_>,
    ) -> Result<Option<Lease>, LedgerError> {
        let Some(place) = self.leases.iter().position(|lease| lease.id == id) else { return Ok(None) };
        let deadline = Deadline::after(at.boot, at.boot_id, lasts);
        let length = i64::try_from(lasts.as_nanos()).unwrap_or(i64::MAX);
        let until = rfc3339(at.wall.saturating_add(length));
        self.connection
            .execute(
                "UPDATE lease SET until = ?2, boot_ns = ?3, boot_id = ?4 WHERE id = ?1",
                params![id, until, deadline.boot_ns.cast_signed(), deadline.boot_id],
            )
            .map_err(self.failed("renew a lease"))?;
        let lease = &mut self.leases[place];
        (lease.until, lease.deadline) = (until, deadline);
        Ok(Some(lease.clone()))
    }

    /// Ends a lease before its time. Nothing if it is not there any more.
    pub(crate) fn revoke(&mut self, id: i64, by: &str, at: At<'_>) -> Result<Option<Lease>, LedgerError> {
        let Some(place) = self.leases.iter().position(|lease| lease.id == id) else { return Ok(None) };
        let ended = rfc3339(at.wall);
        self.connection
            .execute("UPDATE lease SET ended = ?2, ended_by = ?3 WHERE id = ?1", params![id, ended, by])
            .map_err(self.failed("end a lease"))?;
        let mut lease = self.leases.remove(place);
        (lease.ended, lease.ended_by) = (Some(ended), Some(by.to_owned()));
        Ok(Some(lease))
    }
}

fn lease(row: &Row<'_>) -> rusqlite::Result<Lease> {
    let session = row.get::<_, i64>(12)?.cast_unsigned();
    Ok(Lease {
        session: Some(session).filter(|session| *session != 0),
        uses: row.get(13)?,
        left: None,
        place: row.get(14)?,
        id: row.get(0)?,
        name: row.get(1)?,
        subject: row.get(2)?,
        granted: row.get(3)?,
        until: row.get(4)?,
        deadline: Deadline { boot_ns: row.get::<_, i64>(5)?.cast_unsigned(), boot_id: row.get(6)? },
        by: row.get(7)?,
        reason: row.get(8)?,
        request: row.get(9)?,
        ended: row.get(10)?,
        ended_by: row.get(11)?,
    })
}
