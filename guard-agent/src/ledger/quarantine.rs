//! Quarantines: who is denied what, whatever policy says, until somebody releases them.

use super::lease::At;
use super::{Deadline, Key, Ledger, LedgerError};
use crate::events::time::rfc3339;
use crate::policy::Instant;
use guard_common::quarantine::Level;
use rusqlite::types::Type;
use rusqlite::{Row, params};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::Duration;

/// One quarantine. It holds until it is released or its time is over, through every change of policy, every end
/// of the agent and every boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Quarantine {
    /// Its number.
    pub id: i64,
    /// Which subject is covered; empty with `target`.
    pub subject: String,
    /// The one session that is covered; null: all of the subject.
    pub session: Option<u64>,
    /// What it is bound to, if that is no subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Key>,
    /// When it ends unless somebody confirms it, RFC 3339 UTC; null: it need not be confirmed, or has been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<String>,
    /// How much is denied: network, write, exec, full or freeze.
    #[serde(serialize_with = "level_name", deserialize_with = "level_of_name")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub level: Level,
    /// Since when, RFC 3339 UTC.
    pub since: String,
    /// When it ends by itself, RFC 3339 UTC as the clock was set then; null: it does not.
    pub until: Option<String>,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The file in which what was found then was written down; null if nothing was.
    pub evidence: Option<String>,
    /// SHA-256 of that file, in hexadecimal digits.
    pub evidence_sha256: Option<String>,
    /// When it was released, RFC 3339 UTC.
    pub released: Option<String>,
    /// By whom.
    pub released_by: Option<String>,
    /// Why it was released.
    pub release_reason: Option<String>,
    #[serde(skip)]
    #[cfg_attr(test, schemars(skip))]
    deadline: Option<Deadline>,
    /// The end by the wall clock, nanoseconds since 1970.
    #[serde(skip)]
    #[cfg_attr(test, schemars(skip))]
    until_ns: Option<i64>,
    /// The end unless it is confirmed.
    #[serde(skip)]
    #[cfg_attr(test, schemars(skip))]
    confirm: Option<Deadline>,
    /// Its bit in labels, if it is bound to no subject.
    #[serde(skip)]
    #[cfg_attr(test, schemars(skip))]
    pub(crate) place: Option<usize>,
}

fn level_name<S: Serializer>(level: &Level, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(level.name())
}

fn level_of_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Level, D::Error> {
    let name = String::deserialize(deserializer)?;
    Level::from_name(&name)
        .ok_or_else(|| serde::de::Error::custom(format!("{name} is no level of quarantine")))
}

/// What a quarantine is to be.
pub(crate) struct NewQuarantine<'a> {
    pub(crate) subject: &'a str,
    pub(crate) session: Option<u64>,
    /// Instead of a subject: what it is bound to, and its bit in labels.
    pub(crate) target: Option<(&'a Key, usize)>,
    /// It ends so soon unless it is confirmed.
    pub(crate) confirm: Option<Duration>,
    pub(crate) level: Level,
    pub(crate) lasts: Option<Duration>,
    pub(crate) by: &'a str,
    pub(crate) reason: &'a str,
}

impl Quarantine {
    /// Whether it covers the holder of a row: a subject, or one of its sessions (0: no particular one).
    pub(crate) fn covers(&self, subject: &str, session: u64) -> bool {
        self.target.is_none() && self.subject == subject && self.session.is_none_or(|only| only == session)
    }

    /// Who or what it covers, in words.
    pub fn name(&self) -> String {
        match (&self.target, self.session) {
            (Some(key), _) => key.to_string(),
            (None, Some(session)) => format!("{}/{session}", self.subject),
            (None, None) => self.subject.clone(),
        }
    }

    /// Its end on this boot's clock; the inner one is nothing if it has none, the outer one if it is over.
    ///
    /// Within one boot the clock that never steps counts. In another one the wall clock is all there is; what
    /// it says too early only makes the quarantine last until somebody looks.
    ///
    /// One that was not confirmed does not outlive its boot.
    pub(crate) fn end(&self, wall: i64, boot: Instant, boot_id: &str) -> Option<Option<Instant>> {
        let end = self.end_if_confirmed(wall, boot, boot_id)?;
        match &self.confirm {
            Some(confirm) => {
                let unconfirmed = confirm.end(boot, boot_id)?;
                Some(Some(end.map_or(unconfirmed, |end| end.min(unconfirmed))))
            }
            None => Some(end),
        }
    }

    fn end_if_confirmed(&self, wall: i64, boot: Instant, boot_id: &str) -> Option<Option<Instant>> {
        if self.released.is_some() {
            return None;
        }
        let (Some(deadline), Some(until)) = (&self.deadline, self.until_ns) else { return Some(None) };
        if deadline.is_of(boot_id) {
            return deadline.end(boot, boot_id).map(Some);
        }
        let left = until.saturating_sub(wall);
        (left > 0).then(|| Some(boot.saturating_add(left.unsigned_abs())))
    }
}

const COLUMNS: &str = "id, subject, session, level, since, until, until_ns, boot_ns, boot_id, ordered_by, reason, \
                       evidence, evidence_sha256, released, released_by, release_reason, target, place, confirm_by, \
                       confirm_ns, confirm_boot";

impl Ledger {
    /// Those that were not released, oldest first; some may be over.
    pub(crate) fn quarantines(&self) -> &[Quarantine] {
        &self.quarantines
    }

    /// The last ones that there were, newest first.
    pub(crate) fn all_quarantines(&self, limit: u32) -> Result<Vec<Quarantine>, LedgerError> {
        self.select_quarantines(&format!("SELECT {COLUMNS} FROM quarantine ORDER BY id DESC LIMIT {limit}"))
    }

    pub(super) fn read_quarantines(&self) -> Result<Vec<Quarantine>, LedgerError> {
        self.select_quarantines(&format!(
            "SELECT {COLUMNS} FROM quarantine WHERE released IS NULL ORDER BY id"
        ))
    }

    fn select_quarantines(&self, query: &str) -> Result<Vec<Quarantine>, LedgerError> {
        let read = || -> rusqlite::Result<Vec<Quarantine>> {
            let mut statement = self.connection.prepare(query)?;
            statement.query_map([], quarantine)?.collect()
        };
        read().map_err(self.failed("read quarantines"))
    }

    /// Records a quarantine. It is on the disk when this returns.
    pub(crate) fn confine(&mut self, new: &NewQuarantine<'_>, at: At<'_>) -> Result<Quarantine, LedgerError> {
        let deadline = new.lasts.map(|lasts| Deadline::after(at.boot, at.boot_id, lasts));
        let until_ns = new
            .lasts
            .map(|lasts| at.wall.saturating_add(i64::try_from(lasts.as_nanos()).unwrap_or(i64::MAX)));
        let confirm = new.confirm.map(|soon| Deadline::after(at.boot, at.boot_id, soon));
        let confirm_by = new
            .confirm
            .map(|soon| rfc3339(at.wall.saturating_add(i64::try_from(soon.as_nanos()).unwrap_or(i64::MAX))));
        let key = new.target.map(|(key, _)| serde_json::to_string(key).unwrap_or_default());
        let place = new.target.map(|(_, place)| place);
        let (since, until) = (rfc3339(at.wall), until_ns.map(rfc3339));
        self.connection
            .execute(
                "INSERT INTO quarantine (subject, session, level, since, until, until_ns, boot_ns, boot_id, ordered_by, \
                 reason, target, place, confirm_by, confirm_ns, confirm_boot) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, \
                 ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
                params![
                    new.subject,
                    new.session.unwrap_or(0).cast_signed(),
                    new.level.name(),
                    since,
                    until,
                    until_ns,
                    deadline.as_ref().map(|deadline| deadline.boot_ns.cast_signed()),
                    deadline.as_ref().map(|deadline| deadline.boot_id.as_str()),
                    new.by,
                    new.reason,
                    key,
                    place.and_then(|place| i64::try_from(place).ok()),
                    confirm_by,
                    confirm.as_ref().map(|confirm| confirm.boot_ns.cast_signed()),
                    confirm.as_ref().map(|confirm| confirm.boot_id.as_str()),
                ],
            )
            .map_err(self.failed("record a quarantine"))?;
        let quarantine = Quarantine {
            id: self.connection.last_insert_rowid(),
            subject: new.subject.to_owned(),
            session: new.session,
            target: new.target.map(|(key, _)| key.clone()),
            confirm_by,
            confirm,
            place,
            level: new.level,
            since,
            until,
            by: new.by.to_owned(),
            reason: new.reason.to_owned(),
            evidence: None,
            evidence_sha256: None,
            released: None,
            released_by: None,
            release_reason: None,
            deadline,
            until_ns,
        };
        self.quarantines.push(quarantine.clone());
        Ok(quarantine)
    }

    /// Notes where what was found is written down.
    pub(crate) fn note_evidence(&mut self, id: i64, file: &str, sha256: &str) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "UPDATE quarantine SET evidence = ?2, evidence_sha256 = ?3 WHERE id = ?1",
                params![id, file, sha256],
            )
            .map_err(self.failed("note the evidence of a quarantine"))?;
        if let Some(one) = self.quarantines.iter_mut().find(|one| one.id == id) {
            (one.evidence, one.evidence_sha256) = (Some(file.to_owned()), Some(sha256.to_owned()));
        }
        Ok(())
    }

    /// Lets a quarantine go on that would have ended unless somebody confirmed it. Nothing if it is not there any
    /// more.
    pub(crate) fn confirm(&mut self, id: i64) -> Result<Option<Quarantine>, LedgerError> {
        let Some(place) = self.quarantines.iter().position(|one| one.id == id) else { return Ok(None) };
        self.connection
            .execute(
                "UPDATE quarantine SET confirm_by = NULL, confirm_ns = NULL, confirm_boot = NULL WHERE id = ?1",
                params![id],
            )
            .map_err(self.failed("confirm a quarantine"))?;
        let one = &mut self.quarantines[place];
        (one.confirm, one.confirm_by) = (None, None);
        Ok(Some(one.clone()))
    }

    /// Gives a quarantine another level. Returns it as it is then; nothing if it is not there any more.
    pub(crate) fn set_level(&mut self, id: i64, level: Level) -> Result<Option<Quarantine>, LedgerError> {
        let Some(place) = self.quarantines.iter().position(|one| one.id == id) else { return Ok(None) };
        self.connection
            .execute("UPDATE quarantine SET level = ?2 WHERE id = ?1", params![id, level.name()])
            .map_err(self.failed("change a quarantine"))?;
        self.quarantines[place].level = level;
        Ok(Some(self.quarantines[place].clone()))
    }

    /// Ends a quarantine. Nothing if it is not there any more.
    pub(crate) fn release(
        &mut self,
        id: i64,
        by: &str,
        reason: &str,
        at: At<'_>,
    ) -> Result<Option<Quarantine>, LedgerError> {
        let Some(place) = self.quarantines.iter().position(|one| one.id == id) else { return Ok(None) };
        let released = rfc3339(at.wall);
        self.connection
            .execute(
                "UPDATE quarantine SET released = ?2, released_by = ?3, release_reason = ?4 WHERE id = ?1",
                params![id, released, by, reason],
            )
            .map_err(self.failed("release a quarantine"))?;
        let mut one = self.quarantines.remove(place);
        one.released = Some(released);
        (one.released_by, one.release_reason) = (Some(by.to_owned()), Some(reason.to_owned()));
        Ok(Some(one))
    }
}

fn quarantine(row: &Row<'_>) -> rusqlite::Result<Quarantine> {
    let level: String = row.get(3)?;
    let unknown = || rusqlite::Error::InvalidColumnType(3, level.clone(), Type::Text);
    let level = Level::from_name(&level).ok_or_else(unknown)?;
    let (boot_ns, boot_id): (Option<i64>, Option<String>) = (row.get(7)?, row.get(8)?);
    let session = row.get::<_, i64>(2)?.cast_unsigned();
    let target = row.get::<_, Option<String>>(16)?.map(|text| {
        serde_json::from_str(&text)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(16, Type::Text, error.into()))
    });
    let (confirm_ns, confirm_boot): (Option<i64>, Option<String>) = (row.get(19)?, row.get(20)?);
    let deadline = |boot_ns: Option<i64>, boot_id: Option<String>| {
        boot_ns.zip(boot_id).map(|(boot_ns, boot_id)| Deadline { boot_ns: boot_ns.cast_unsigned(), boot_id })
    };
    Ok(Quarantine {
        id: row.get(0)?,
        subject: row.get(1)?,
        session: Some(session).filter(|session| *session != 0),
        level,
        since: row.get(4)?,
        until: row.get(5)?,
        until_ns: row.get(6)?,
        deadline: deadline(boot_ns, boot_id),
        target: target.transpose()?,
        place: row.get::<_, Option<i64>>(17)?.and_then(|place| usize::try_from(place).ok()),
        confirm_by: row.get(18)?,
        confirm: deadline(confirm_ns, confirm_boot),
        by: row.get(9)?,
        reason: row.get(10)?,
        evidence: row.get(11)?,
        evidence_sha256: row.get(12)?,
        released: row.get(13)?,
        released_by: row.get(14)?,
        release_reason: row.get(15)?,
    })
}
