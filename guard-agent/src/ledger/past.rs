//! What held at an instant of the past, for explanations.

use super::{Ledger, LedgerError, Which};
use crate::events::time::rfc3339;
use crate::policy::{FactValue, Facts};
use rusqlite::params;
use std::collections::BTreeMap;

/// Facts that do not hold any more and are remembered.
const MAX_PAST: i64 = 10_000;

impl Ledger {
    /// The leases and facts of a subject at an instant, in nanoseconds since 1970.
    pub(crate) fn facts_at(&self, subject: &str, wall: i64) -> Result<Facts, LedgerError> {
        let at = rfc3339(wall);
        let read = || -> rusqlite::Result<Facts> {
            // Texts of one form, whose order is that of the times.
            let mut leases = self.connection.prepare(
                "SELECT name FROM lease WHERE subject = ?1 AND granted <= ?2 AND until > ?2 AND (ended IS NULL OR ended > ?2)",
            )?;
            let leases = leases.query_map(params![subject, at], |row| row.get(0))?;
            let mut facts = self.connection.prepare(
                "SELECT subject, name, value FROM fact WHERE observed <= ?2 AND (until IS NULL OR until > ?2) AND subject IN ('', ?1)
                 UNION ALL
                 SELECT subject, name, value FROM past_fact WHERE observed <= ?2 AND ended > ?2 AND subject IN ('', ?1)
                 ORDER BY subject",
            )?;
            let mut said: BTreeMap<(String, String), Vec<FactValue>> = BTreeMap::new();
            let mut rows = facts.query(params![subject, at])?;
            while let Some(row) = rows.next()? {
                let text: String = row.get(2)?;
                if let Ok(value) = serde_json::from_str::<FactValue>(&text) {
                    said.entry((row.get(0)?, row.get(1)?)).or_default().push(value);
                }
            }
            // What is said of the subject comes after what is said of the host, whose subject is empty.
            let mut posture = BTreeMap::new();
            for ((_, name), values) in said {
                match values.as_slice() {
                    [first, others @ ..] if others.iter().all(|other| other == first) => {
                        posture.insert(name, first.clone());
                    }
                    // Where sources differ, nobody knows.
                    _ => drop(posture.remove(&name)),
                }
            }
            Ok(Facts { leases: leases.collect::<rusqlite::Result<_>>()?, posture, ..Facts::default() })
        };
        read().map_err(self.failed("read what held"))
    }

    /// Remembers a fact that is about to be replaced or taken back.
    pub(super) fn remember_fact(&self, which: Which<'_>, wall: i64) -> rusqlite::Result<()> {
        self.connection.execute(
            "INSERT INTO past_fact (subject, name, value, observed, ended)
             SELECT subject, name, value, observed, min(coalesce(until, ?4), ?4) FROM fact
             WHERE subject = ?1 AND name = ?2 AND source = ?3",
            params![which.subject.unwrap_or_default(), which.name, which.source, rfc3339(wall)],
        )?;
        self.connection.execute(
            "DELETE FROM past_fact WHERE number <= (SELECT max(number) FROM past_fact) - ?1",
            [MAX_PAST],
        )?;
        Ok(())
    }
}
