//! Events that never arrived: gaps in the sequence of a CPU.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Finds gaps. Every CPU counts its events from 1 and counts those that found no room as well.
#[derive(Clone, Debug, Default)]
pub struct SequenceTracker {
    next: HashMap<u32, u64>,
}

impl SequenceTracker {
    /// A tracker that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A tracker that goes on after the last event of each CPU.
    pub fn after(last: impl IntoIterator<Item = (u32, u64)>) -> Self {
        Self { next: last.into_iter().map(|(cpu, last)| (cpu, last.saturating_add(1))).collect() }
    }

    /// The last event of each CPU.
    pub fn last(&self) -> impl Iterator<Item = (u32, u64)> {
        self.next.iter().map(|(cpu, next)| (*cpu, next - 1))
    }

    /// Notes an event and returns how many events of its CPU were lost right before it.
    ///
    /// Two programs can preempt each other on one CPU and send in the other order: a number that
    /// comes late was counted as lost once and is not counted again.
    pub fn observe(&mut self, cpu: u32, sequence: u64) -> u64 {
        let next = self.next.entry(cpu).or_insert(1);
        let lost = sequence.saturating_sub(*next);
        *next = (*next).max(sequence.saturating_add(1));
        lost
    }
}

/// A gap, as it stands between the events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Lost {
    /// [`Lost::SCHEMA`].
    pub schema: String,
    /// The CPU whose events are missing.
    pub cpu: u32,
    /// How many are missing.
    pub lost: u64,
}

impl Lost {
    /// The schema of the record.
    pub const SCHEMA: &str = "guard.lost/1";

    /// A gap of `lost` events.
    pub fn new(cpu: u32, lost: u64) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), cpu, lost }
    }

    /// The gap as one line of JSON, without a line end.
    pub fn to_json_line(&self) -> String {
        super::record::json_line(self)
    }

    /// The gap as one line for people.
    pub fn compact(&self, colour: bool) -> String {
        format!("{}  {} of CPU {}: the ring was full", lost(colour), events(self.lost), self.cpu)
    }
}

/// Events that one reader was too slow for; others have them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Dropped {
    /// [`Dropped::SCHEMA`].
    pub schema: String,
    /// How many.
    pub dropped: u64,
}

impl Dropped {
    /// The schema of the record.
    pub const SCHEMA: &str = "guard.dropped/1";

    /// `dropped` events are missing for this reader.
    pub fn new(dropped: u64) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), dropped }
    }

    /// As one line of JSON, without a line end.
    pub fn to_json_line(&self) -> String {
        super::record::json_line(self)
    }

    /// As one line for people.
    pub fn compact(&self, colour: bool) -> String {
        format!("{}  {}: this reader was too slow", lost(colour), events(self.dropped))
    }
}

/// What the daemon's memory lacks, behind what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Missing {
    /// [`Missing::SCHEMA`].
    pub schema: String,
    /// Events that never arrived, because the ring was full.
    pub lost: u64,
    /// Events that arrived and were not stored.
    pub not_stored: u64,
}

impl Missing {
    /// The schema of the record.
    pub const SCHEMA: &str = "guard.missing/1";

    /// So many events are missing.
    pub fn new(lost: u64, not_stored: u64) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), lost, not_stored }
    }

    /// Whether nothing is.
    pub fn is_nothing(&self) -> bool {
        self.lost == 0 && self.not_stored == 0
    }

    /// As one line of JSON, without a line end.
    pub fn to_json_line(&self) -> String {
        super::record::json_line(self)
    }

    /// As one line for people.
    pub fn compact(&self, colour: bool) -> String {
        let part = |count, why| (count != 0).then(|| format!("{} {why}", events(count)));
        let parts: Vec<String> = [part(self.lost, "never arrived"), part(self.not_stored, "not stored")]
            .into_iter()
            .flatten()
            .collect();
        format!("{}  {}", lost(colour), parts.join(", "))
    }
}

fn lost(colour: bool) -> &'static str {
    if colour { "\x1b[33mLOST\x1b[0m" } else { "LOST" }
}

fn events(count: u64) -> String {
    format!("{count} {}", if count == 1 { "event" } else { "events" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_per_cpu() {
        let mut tracker = SequenceTracker::new();
        assert_eq!(tracker.observe(0, 1), 0);
        assert_eq!(tracker.observe(0, 2), 0);
        assert_eq!(tracker.observe(1, 4), 3, "the first three of CPU 1");
        assert_eq!(tracker.observe(0, 6), 3);
        assert_eq!(tracker.observe(0, 7), 0);
        assert_eq!(tracker.observe(0, u64::MAX), u64::MAX - 8);
        assert_eq!(tracker.observe(0, 8), 0);
    }

    #[test]
    fn a_tracker_goes_on_where_another_one_ended() {
        let mut first = SequenceTracker::new();
        first.observe(0, 1);
        first.observe(3, 5);
        let mut next = SequenceTracker::after(first.last());
        assert_eq!((next.observe(0, 2), next.observe(3, 7), next.observe(1, 1)), (0, 1, 0));
    }

    #[test]
    fn a_late_event_is_not_a_gap() {
        let mut tracker = SequenceTracker::new();
        tracker.observe(0, 1);
        assert_eq!(tracker.observe(0, 3), 1);
        assert_eq!(tracker.observe(0, 2), 0);
        assert_eq!(tracker.observe(0, 4), 0);
    }

    #[test]
    fn a_gap_is_one_line() {
        let lost = Lost::new(2, 14);
        assert_eq!(lost.to_json_line(), r#"{"schema":"guard.lost/1","cpu":2,"lost":14}"#);
        assert_eq!(lost.compact(false), "LOST  14 events of CPU 2: the ring was full");
    }

    #[test]
    fn what_a_reader_or_the_store_lacks_is_one_line() {
        assert_eq!(Dropped::new(40).to_json_line(), r#"{"schema":"guard.dropped/1","dropped":40}"#);
        assert_eq!(Dropped::new(1).compact(false), "LOST  1 event: this reader was too slow");
        let line = r#"{"schema":"guard.missing/1","lost":2,"not_stored":1}"#;
        assert_eq!(Missing::new(2, 1).to_json_line(), line);
        assert_eq!(Missing::new(2, 1).compact(false), "LOST  2 events never arrived, 1 event not stored");
        assert_eq!(Missing::new(0, 3).compact(true), "\x1b[33mLOST\x1b[0m  3 events not stored");
    }
}
