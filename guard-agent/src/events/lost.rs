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
        let word = if colour { "\x1b[33mLOST\x1b[0m" } else { "LOST" };
        let plural = if self.lost == 1 { "event" } else { "events" };
        format!("{word}  {} {plural} of CPU {}: the ring was full", self.lost, self.cpu)
    }
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
}
