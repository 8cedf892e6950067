//! The decision: pure, bounded, the same in the kernel and in user space.

use crate::class::Class;
use crate::tables::{
    MAX_BOUNDARIES, MAX_OUTCOME_FEATURES, Masks, Net4, Net6, Outcome, Ports, SUBJECT_LIVE, SubjectRow,
};

/// Why an operation was decided as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The policy of the live generation.
    Policy = 0,
    /// No generation is live.
    NoGeneration = 1,
    /// The live generation does not know the subject of the label.
    SubjectRemoved = 2,
    /// A table of the generation had no entry where one must be.
    TableMiss = 3,
    /// The path has more ancestors than the walk follows.
    PathTooDeep = 4,
    /// The path kept changing while it was read.
    PathUnstable = 5,
    /// Kernel memory that the decision needs could not be read.
    Unreadable = 6,
    /// The task has storage, but the kernel did not hand it out.
    StorageBusy = 7,
    /// The kernel could not allocate the label of a new task.
    NoMemory = 8,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Policy,
        Self::NoGeneration,
        Self::SubjectRemoved,
        Self::TableMiss,
        Self::PathTooDeep,
        Self::PathUnstable,
        Self::Unreadable,
        Self::StorageBusy,
        Self::NoMemory,
    ];

    /// The reason with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }

    /// The name in events and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::NoGeneration => "no-generation",
            Self::SubjectRemoved => "subject-removed",
            Self::TableMiss => "table-miss",
            Self::PathTooDeep => "path-too-deep",
            Self::PathUnstable => "path-unstable",
            Self::Unreadable => "unreadable",
            Self::StorageBusy => "storage-busy",
            Self::NoMemory => "no-memory",
        }
    }
}

/// The tables of one generation, behind whatever holds them.
pub trait Tables {
    /// The row of a subject.
    fn subject(&self, id: u32) -> Option<SubjectRow>;
    /// The outcome number in a cell.
    fn cell(&self, index: u32) -> Option<u32>;
    /// An outcome.
    fn outcome(&self, id: u32) -> Option<Outcome>;
    /// The masks at an index.
    fn masks(&self, index: u32) -> Option<Masks>;
}

/// One request: may `subject` do everything in `required` on a resource of `class`?
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// The subject.
    pub subject: u32,
    /// The class of the resource.
    pub class: Class,
    /// The features of the resource.
    pub features: u64,
    /// Bits of the actions that are asked for.
    pub required: u64,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// Actions of the query that are denied; allowed if and only if 0.
    pub denied: u64,
    /// Actions that the candidate policy set would deny.
    pub would_deny: u64,
    /// Allowed actions to report.
    pub audit: u64,
    /// Why.
    pub reason: Reason,
}

impl Decision {
    /// Everything that was asked for is denied, because of `reason`.
    #[inline(always)]
    pub fn deny_all(required: u64, reason: Reason) -> Self {
        Self { denied: required, would_deny: 0, audit: 0, reason }
    }
}

/// Decides `query`. `now` is called only if the subject has a deadline ahead; it returns
/// nanoseconds of CLOCK_BOOTTIME.
#[inline(always)]
pub fn decide(tables: &impl Tables, query: &Query, now: impl FnOnce() -> u64) -> Decision {
    let Some(subject) = tables.subject(query.subject) else {
        return Decision::deny_all(query.required, Reason::SubjectRemoved);
    };
    if subject.flags & SUBJECT_LIVE == 0 {
        return Decision::deny_all(query.required, Reason::SubjectRemoved);
    }
    let segment = if subject.boundaries == 0 { 0 } else { segment(&subject, now()) };
    let found = tables
        .cell(subject.cells.wrapping_add(query.class))
        .and_then(|id| tables.outcome(id))
        .and_then(|outcome| {
            let row = (segment << outcome.features) + combination(&outcome, query.features);
            tables.masks(outcome.base.wrapping_add(row))
        });
    match found {
        Some(masks) => Decision {
            denied: query.required & !masks.allow,
            would_deny: query.required & masks.would_deny,
            audit: query.required & masks.audit,
            reason: Reason::Policy,
        },
        None => Decision::deny_all(query.required, Reason::TableMiss),
    }
}

/// How many boundaries of the subject's timeline have been reached at `now`.
#[inline(always)]
fn segment(subject: &SubjectRow, now: u64) -> u32 {
    let mut reached = 0;
    let mut index = 0;
    while index < MAX_BOUNDARIES {
        if (index as u32) < subject.boundaries && subject.boundary[index] <= now {
            reached += 1;
        }
        index += 1;
    }
    reached
}

/// The values of the features that matter, as an index into the outcome's truth table.
#[inline(always)]
fn combination(outcome: &Outcome, features: u64) -> u32 {
    let mut index = 0;
    let mut bit = 0;
    while bit < MAX_OUTCOME_FEATURES {
        if bit < outcome.features as usize {
            index |= ((features >> (outcome.selected[bit] & 63)) as u32 & 1) << bit;
        }
        bit += 1;
    }
    index
}

/// A sorted table of ranges, each ending where the next begins.
pub trait Ranges {
    /// What is looked up.
    type Key: Copy;
    /// Whether entry `index` begins at or before `key`; `None` if there is no such entry.
    fn begins_by(&self, index: u32, key: Self::Key) -> Option<bool>;
}

/// State of a binary search for the last range that begins at or before a key.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// The best entry so far. Entry 0 begins at the smallest key, so it always qualifies.
    pub found: u32,
    /// Distance of the next entry to try; halves with each step, 0 when the search is over.
    pub step: u32,
}

/// Steps that finish a search in a table of at most `2^20` entries.
pub const SEARCH_STEPS: u32 = 20;

impl Search {
    /// A search that finishes after [`SEARCH_STEPS`] calls of [`Search::advance`].
    pub const fn new() -> Self {
        Self { found: 0, step: 1 << (SEARCH_STEPS - 1) }
    }

    /// Takes one step in a table of `count` entries. Returns whether another one is needed.
    #[inline(always)]
    pub fn advance<R: Ranges>(&mut self, ranges: &R, count: u32, key: R::Key) -> bool {
        let candidate = self.found + self.step;
        if candidate < count && ranges.begins_by(candidate, key) == Some(true) {
            self.found = candidate;
        }
        self.step >>= 1;
        self.step != 0
    }

    /// Runs the whole search. Kernel programs drive [`Search::advance`] with `bpf_loop` instead.
    pub fn run<R: Ranges>(mut self, ranges: &R, count: u32, key: R::Key) -> u32 {
        while self.advance(ranges, count, key) {}
        self.found
    }
}

impl Default for Search {
    fn default() -> Self {
        Self::new()
    }
}

impl Ranges for &[Net4] {
    type Key = u32;
    fn begins_by(&self, index: u32, key: u32) -> Option<bool> {
        self.get(index as usize).map(|range| range.start <= key)
    }
}

impl Ranges for &[Net6] {
    type Key = (u64, u64);
    fn begins_by(&self, index: u32, key: (u64, u64)) -> Option<bool> {
        self.get(index as usize).map(|range| (range.high, range.low) <= key)
    }
}

impl Ranges for &[Ports] {
    type Key = u32;
    fn begins_by(&self, index: u32, key: u32) -> Option<bool> {
        self.get(index as usize).map(|range| range.start <= key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    struct Fixture {
        subjects: Vec<SubjectRow>,
        cells: Vec<u32>,
        outcomes: Vec<Outcome>,
        masks: Vec<Masks>,
    }

    impl Tables for Fixture {
        fn subject(&self, id: u32) -> Option<SubjectRow> {
            self.subjects.get(id as usize).copied()
        }
        fn cell(&self, index: u32) -> Option<u32> {
            self.cells.get(index as usize).copied()
        }
        fn outcome(&self, id: u32) -> Option<Outcome> {
            self.outcomes.get(id as usize).copied()
        }
        fn masks(&self, index: u32) -> Option<Masks> {
            self.masks.get(index as usize).copied()
        }
    }

    fn fixture() -> Fixture {
        let allow = |allow| Masks { allow, would_deny: 0, audit: 0 };
        let mut selected = [0; MAX_OUTCOME_FEATURES + 1];
        selected[0] = 5;
        Fixture {
            subjects: [
                SubjectRow::default(),
                SubjectRow {
                    flags: SUBJECT_LIVE,
                    boundaries: 1,
                    boundary: [100, 0, 0],
                    ..SubjectRow::default()
                },
            ]
            .into(),
            cells: [0].into(),
            outcomes: [Outcome { base: 0, features: 1, selected }].into(),
            masks: [allow(0b01), allow(0b11), allow(0), allow(0b10)].into(),
        }
    }

    fn ask(class: u32, features: u64, now: u64) -> Decision {
        decide(&fixture(), &Query { subject: 1, class, features, required: 0b11 }, || now)
    }

    #[test]
    fn features_and_segments_pick_the_row() {
        assert_eq!(ask(0, 0, 99).denied, 0b10);
        assert_eq!(ask(0, 1 << 5, 99).denied, 0);
        assert_eq!(ask(0, 0, 100).denied, 0b11, "a deadline is reached at its own instant");
        assert_eq!(ask(0, 1 << 5, 100).denied, 0b01);
    }

    #[test]
    fn what_the_tables_do_not_know_is_denied() {
        assert_eq!(ask(7, 0, 0).reason, Reason::TableMiss);
        assert_eq!(ask(7, 0, 0).denied, 0b11);
        let removed = decide(&fixture(), &Query { subject: 0, class: 0, features: 0, required: 1 }, || 0);
        assert_eq!((removed.denied, removed.reason), (1, Reason::SubjectRemoved));
    }

    #[test]
    fn search_finds_the_last_range_that_begins_at_or_before_the_key() {
        for count in [1, 2, 3, 100] {
            let ranges: Vec<Net4> = (0..count).map(|n| Net4 { start: n * 10, class: n }).collect();
            for key in 0..count * 10 {
                assert_eq!(Search::new().run(&ranges.as_slice(), count, key), key / 10);
            }
        }
    }
}
