//! Facts: what somebody says of a host or a subject, until when. Each source's word is kept by itself.

use super::lease::At;
use super::{Deadline, Ledger, LedgerError};
use crate::events::time::rfc3339;
use crate::policy::{FactValue, Instant};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One fact, as `context.posture` of its subject has it until it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Fact {
    /// Of which subject; null: of the host, and so of every subject that has none of its own by this name.
    pub subject: Option<String>,
    /// Its name, as the bundle declares it.
    pub name: String,
    /// Its value.
    pub value: FactValue,
    /// Where it comes from.
    pub source: String,
    /// When it was told, RFC 3339 UTC.
    pub observed: String,
    /// When it ends, RFC 3339 UTC as the clock was set then; null: when it is taken back.
    pub until: Option<String>,
    /// Why it does not count; null: it does.
    #[serde(default)]
    pub ignored: Option<String>,
    #[serde(skip)]
    pub(crate) deadline: Option<Deadline>,
    /// When it was told, if that is known.
    #[serde(skip)]
    pub(crate) told: Option<Deadline>,
}

/// Whose word on what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Which<'a> {
    pub(crate) subject: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) source: &'a str,
}

impl Fact {
    /// What the agent has found out of the host by itself.
    pub(crate) fn found(name: &str, value: &FactValue, source: &str, wall: i64) -> Self {
        Self {
            subject: None,
            name: name.to_owned(),
            value: value.clone(),
            source: source.to_owned(),
            observed: rfc3339(wall),
            until: None,
            ignored: None,
            deadline: None,
            told: None,
        }
    }

    /// Whose word on what it is.
    pub(crate) fn which(&self) -> Which<'_> {
        Which { subject: self.subject.as_deref(), name: &self.name, source: &self.source }
    }

    /// Until when it holds: nothing if it does not any more, and no instant if it has no end.
    pub(crate) fn end(&self, now: Instant, boot_id: &str) -> Option<Option<Instant>> {
        match &self.deadline {
            None => Some(None),
            Some(deadline) => deadline.end(now, boot_id).map(Some),
        }
    }

    /// The same where no fact holds for longer than this after it was told. One of which nobody knows when it was
    /// told holds only if it has an end of its own.
    pub(crate) fn end_within(
        &self,
        longest: Option<Duration>,
        now: Instant,
        boot_id: &str,
    ) -> Option<Option<Instant>> {
        let end = self.end(now, boot_id)?;
        match (longest, &self.told) {
            (None, _) => Some(end),
            (Some(_), None) => end.map(Some),
            (Some(longest), Some(told)) => {
                let last = told.later(longest).end(now, boot_id)?;
                Some(Some(end.map_or(last, |end| end.min(last))))
            }
        }
    }
}

/// What is said.
pub(crate) struct NewFact<'a> {
    pub(crate) which: Which<'a>,
    pub(crate) value: FactValue,
    pub(crate) lasts: Option<Duration>,
    /// How long ago it was said.
    pub(crate) age: Duration,
}

impl Ledger {
    /// The facts that are known, those that are over as well.
    pub(crate) fn facts(&self) -> &[Fact] {
        &self.facts
    }

    pub(super) fn read_facts(&self) -> Result<Vec<Fact>, LedgerError> {
        let query = "SELECT subject, name, value, source, observed, until, boot_ns, boot_id, told_ns, told_boot FROM fact";
        let read = || -> rusqlite::Result<Vec<Fact>> {
            let mut statement = self.connection.prepare(query)?;
            statement.query_map([], fact)?.collect()
        };
        read().map_err(self.failed("read facts"))
    }

    /// Records a fact in place of what the same source said before. It is on the disk when this returns.
    pub(crate) fn set_fact(&mut self, new: &NewFact<'_>, at: At<'_>) -> Result<Fact, LedgerError> {
        let deadline = new.lasts.map(|lasts| Deadline::after(at.boot, at.boot_id, lasts));
        let length = |lasts: Duration| i64::try_from(lasts.as_nanos()).unwrap_or(i64::MAX);
        let Which { subject, name, source } = new.which;
        let fact = Fact {
            subject: subject.map(str::to_owned),
            name: name.to_owned(),
            value: new.value.clone(),
            source: source.to_owned(),
            observed: rfc3339(at.wall),
            until: new.lasts.map(|lasts| rfc3339(at.wall.saturating_add(length(lasts)))),
            ignored: None,
            deadline,
            told: Some(Deadline::before(at.boot, at.boot_id, new.age)),
        };
        self.remember_fact(new.which, at.wall).map_err(self.failed("remember a fact"))?;
        self.put_fact(fact.clone())?;
        Ok(fact)
    }

    fn put_fact(&mut self, fact: Fact) -> Result<(), LedgerError> {
        let unwritable = |error: serde_json::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
        let write = || -> rusqlite::Result<usize> {
            self.connection.execute(
                "INSERT OR REPLACE INTO fact
                 (subject, name, value, source, observed, until, boot_ns, boot_id, told_ns, told_boot)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    fact.subject.as_deref().unwrap_or_default(),
                    fact.name,
                    serde_json::to_string(&fact.value).map_err(unwritable)?,
                    fact.source,
                    fact.observed,
                    fact.until,
                    fact.deadline.as_ref().map(|deadline| deadline.boot_ns.cast_signed()),
                    fact.deadline.as_ref().map(|deadline| deadline.boot_id.as_str()),
                    fact.told.as_ref().map(|told| told.boot_ns.cast_signed()),
                    fact.told.as_ref().map(|told| told.boot_id.as_str()),
                ],
            )
        };
        write().map_err(self.failed("record a fact"))?;
        self.facts.retain(|other| other.which() != fact.which());
        self.facts.push(fact);
        Ok(())
    }

    /// Takes back what a source said. Returns what that was.
    pub(crate) fn unset_fact(&mut self, which: Which<'_>, at: At<'_>) -> Result<Option<Fact>, LedgerError> {
        self.remember_fact(which, at.wall).map_err(self.failed("remember a fact"))?;
        self.remove_fact(which)
    }

    fn remove_fact(&mut self, which: Which<'_>) -> Result<Option<Fact>, LedgerError> {
        let Some(place) = self.facts.iter().position(|fact| fact.which() == which) else { return Ok(None) };
        self.connection
            .execute(
                "DELETE FROM fact WHERE subject = ?1 AND name = ?2 AND source = ?3",
                params![which.subject.unwrap_or_default(), which.name, which.source],
            )
            .map_err(self.failed("take back a fact"))?;
        Ok(Some(self.facts.remove(place)))
    }

    /// Puts back what was before a change of one fact that came to nothing.
    pub(crate) fn restore_fact(&mut self, which: Which<'_>, before: Option<Fact>) -> Result<(), LedgerError> {
        self.remove_fact(which)?;
        before.map_or(Ok(()), |fact| self.put_fact(fact))
    }
}

fn fact(row: &Row<'_>) -> rusqlite::Result<Fact> {
    let subject: String = row.get(0)?;
    let text: String = row.get(2)?;
    let value = serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, error.into())
    })?;
    let instant = |boot_ns: usize, boot_id: usize| -> rusqlite::Result<Option<Deadline>> {
        let both = row.get::<_, Option<i64>>(boot_ns)?.zip(row.get::<_, Option<String>>(boot_id)?);
        Ok(both.map(|(boot_ns, boot_id)| Deadline { boot_ns: boot_ns.cast_unsigned(), boot_id }))
    };
    Ok(Fact {
        subject: (!subject.is_empty()).then_some(subject),
        name: row.get(1)?,
        value,
        source: row.get(3)?,
        observed: row.get(4)?,
        until: row.get(5)?,
        ignored: None,
        deadline: instant(6, 7)?,
        told: instant(8, 9)?,
    })
}
