//! The decision: pure, bounded, the same in the kernel and in user space.

use crate::action::{Action, EACCES, ECONNREFUSED, ENOENT, EPERM, EXDEV, QUIET_PEER};
use crate::class::Class;
use crate::quarantine::{LEVEL_BITS, level_in};
use crate::tables::{
    Control, MAX_BOUNDARIES, MAX_OUTCOME_FEATURES, Masks, Net4, Net6, Outcome, Ports, SUBJECT_LIVE,
    SubjectRow, Timeline,
};

/// Why an operation was decided as it was.
///
/// As wide as the answer of a hook: in a `Result` of both, whichever it is fills the same register. A
/// narrower one would leave a part of it unset, which the verifier refuses to see copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
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
    /// The subject's outcomes were replaced again and again while they were read.
    OutcomesChanging = 9,
    /// Under its new name the file would have more rights.
    MoreRights = 10,
    /// A successor with more rights would begin under conditions that its parent controls.
    UnsafeExec = 11,
    /// The file that begins a successor with more rights could be changed by others than root.
    UntrustedFile = 12,
    /// The subject, or the session, is in quarantine.
    Quarantine = 13,
    /// Only a lease would allow it, and its uses are spent.
    LeaseSpent = 14,
    /// Only a lease allows it, and this was one of its uses.
    LeaseUsed = 15,
    /// It depends on who signed the file, which cannot be told.
    SignersUnknown = 16,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::Policy,
        Self::NoGeneration,
        Self::SubjectRemoved,
        Self::TableMiss,
        Self::PathTooDeep,
        Self::PathUnstable,
        Self::Unreadable,
        Self::StorageBusy,
        Self::NoMemory,
        Self::OutcomesChanging,
        Self::MoreRights,
        Self::UnsafeExec,
        Self::UntrustedFile,
        Self::Quarantine,
        Self::LeaseSpent,
        Self::LeaseUsed,
        Self::SignersUnknown,
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
            Self::OutcomesChanging => "outcomes-changing",
            Self::MoreRights => "more-rights",
            Self::UnsafeExec => "unsafe-exec",
            Self::UntrustedFile => "untrusted-file",
            Self::Quarantine => "quarantine",
            Self::LeaseSpent => "lease-spent",
            Self::LeaseUsed => "lease-used",
            Self::SignersUnknown => "signers-unknown",
        }
    }

    /// Whether it is a verdict of Guard's, and not that Guard could not decide.
    #[inline(always)]
    pub fn is_decided(self) -> bool {
        matches!(
            self,
            Self::Policy
                | Self::MoreRights
                | Self::UnsafeExec
                | Self::UntrustedFile
                | Self::Quarantine
                | Self::LeaseSpent
                | Self::LeaseUsed
                | Self::SignersUnknown
        )
    }
}

/// The tables of one generation, behind whatever holds them.
pub trait Tables {
    /// A subject's row, found.
    type Row: Copy;
    /// Finds the row of a subject.
    fn subject(&self, id: u32) -> Option<Self::Row>;
    /// The row. Its control word may be out of date.
    fn row(&self, row: Self::Row) -> SubjectRow;
    /// The row's control word as it is at this moment.
    fn control(&self, row: Self::Row) -> Control;
    /// The outcome number in a cell.
    fn cell(&self, index: u32) -> Option<u32>;
    /// An outcome.
    fn outcome(&self, index: u32) -> Option<Outcome>;
    /// A timeline.
    fn timeline(&self, index: u32) -> Option<Timeline>;
    /// The masks at an index.
    fn masks(&self, index: u32) -> Option<Masks>;
}

/// One request: may `subject` do everything in `required` on a resource of `class`?
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// The row of the subject, or of the session if that has one of its own.
    pub subject: u32,
    /// The session; 0 = none.
    pub session: u64,
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
    /// Allowed actions that the candidate policy set would deny.
    pub would_deny: u64,
    /// Denied actions that the candidate set would allow.
    pub would_allow: u64,
    /// Allowed actions to report.
    pub audit: u64,
    /// Denied actions that answer as if the resource were not there, and the level of quarantine, as in
    /// [`crate::tables::Masks::quiet`].
    pub quiet: u64,
    /// Actions of the query that a shadow bundle decides otherwise.
    pub differs: u64,
    /// Where uses are counted, of actions that were not asked for as well: [`crate::tables::Masks::counted`].
    pub counted: u64,
    /// Why.
    pub reason: Reason,
    /// Index of the outcome, which is that of its use word; [`NO_OUTCOME`] if there is none.
    pub outcome: u32,
}

/// Beside actions: there was no use left. Above their bits.
pub const SPENT: u64 = 1 << 63;

/// No outcome decided.
pub const NO_OUTCOME: u32 = u32::MAX;

impl Decision {
    /// Everything that was asked for is denied, because of `reason`.
    #[inline(always)]
    pub fn deny_all(required: u64, reason: Reason) -> Self {
        Self {
            denied: required,
            would_deny: 0,
            would_allow: 0,
            audit: 0,
            quiet: 0,
            differs: 0,
            counted: 0,
            reason,
            outcome: NO_OUTCOME,
        }
    }

    /// What is said of these actions only.
    #[inline(always)]
    pub fn within(&self, required: u64) -> Self {
        Self {
            denied: self.denied & required,
            would_deny: self.would_deny & required,
            would_allow: self.would_allow & required,
            audit: self.audit & required,
            quiet: self.quiet & (required | LEVEL_BITS),
            differs: self.differs & required,
            ..*self
        }
    }

    /// The decision that at least one of two actions is allowed, with the actions that it is about. What is
    /// denied is called the first; both of them must be part of this decision.
    #[inline(always)]
    pub fn either(&self, first: u64, second: u64) -> (u64, Self) {
        // What the candidate set and the shadow would deny or allow of both, as if both were one action.
        let both = first | second;
        let allowed = both & !self.denied;
        let candidate = both & !(self.denied & !self.would_allow) & !self.would_deny;
        let allowed_by_shadow = both & !(self.denied ^ self.differs);
        let decision = Self {
            denied: if allowed == 0 { first } else { 0 },
            would_deny: if allowed != 0 && candidate == 0 { first } else { 0 },
            would_allow: if allowed == 0 && candidate != 0 { first } else { 0 },
            quiet: self.quiet & (first | LEVEL_BITS),
            audit: 0,
            differs: if (allowed == 0) == (allowed_by_shadow == 0) { 0 } else { first },
            // Whichever it is, what is asked for is not done yet.
            counted: 0,
            ..*self
        };
        (if allowed == 0 { first } else { allowed }, decision)
    }

    /// Adds that a new name would give the file more rights: by the enforced set (`gained`), by the
    /// candidate set, or by both. `action` is what is denied for it.
    #[inline(always)]
    pub fn refer(&mut self, action: u64, gained: bool, candidate: bool) {
        if gained {
            self.reason = Reason::MoreRights;
            self.denied = action;
            self.would_deny = 0;
            self.would_allow = if candidate { 0 } else { action };
        } else if candidate {
            self.reason = Reason::MoreRights;
            self.would_deny |= action;
        }
    }

    /// What a hook returns: the negative error number of the denial, or 0. A constant for each case, so
    /// that the verifier can bound it.
    ///
    /// What is denied for several actions answers quietly only if every one of them does.
    #[inline(always)]
    pub fn answer(&self) -> i32 {
        const WITH_EPERM: u64 = Action::ProcSignal.bit()
            | Action::ProcTrace.bit()
            | Action::SysCap.bit()
            | Action::SysMount.bit()
            | Action::SysUserns.bit()
            | Action::SysBpf.bit()
            | Action::SysModule.bit()
            | Action::SysUring.bit()
            | Action::SysSetid.bit();
        let loud = self.denied & !self.quiet;
        if self.denied == 0 {
            0
        } else if matches!(self.reason, Reason::MoreRights) {
            // What programs answer by copying, which is decided as what it is.
            -EXDEV
        } else if loud & WITH_EPERM != 0 {
            -EPERM
        } else if loud != 0 {
            -EACCES
        } else if self.denied & QUIET_PEER != 0 {
            -ECONNREFUSED
        } else {
            -ENOENT
        }
    }

    /// Adds what became of counting: the actions that are uses, with [`SPENT`] if there was none left for one of them.
    #[inline(always)]
    pub fn count(&mut self, uses: u64) {
        let actions = uses & !SPENT;
        if uses & SPENT != 0 {
            self.reason = Reason::LeaseSpent;
            self.denied = actions;
            self.would_deny = 0;
        } else if actions != 0 {
            self.reason = Reason::LeaseUsed;
            self.audit |= actions;
        }
    }

    /// The operation is denied and the candidate set would allow it.
    #[inline(always)]
    pub fn is_loosened(&self) -> bool {
        self.denied != 0 && self.denied & !self.would_allow == 0 && self.would_deny == 0
    }

    /// The actions for which the operation as a whole would end otherwise if the shadow were live: those
    /// that it denies where the operation is allowed, and all that are denied where it allows the
    /// operation. 0 if it would end the same.
    #[inline(always)]
    pub fn shadow(&self) -> u64 {
        // What it denies is `denied ^ differs`. Something is denied then as well, unless that is nothing.
        if self.denied == 0 || self.denied == self.differs { self.differs } else { 0 }
    }
}

/// How often a decision looks at a subject's outcomes before it gives up because they change.
const ATTEMPTS: u32 = 4;

/// Decides `query`. `now` is called only if the subject has a deadline ahead; it returns
/// nanoseconds of CLOCK_BOOTTIME.
#[inline(always)]
pub fn decide<T: Tables>(tables: &T, query: &Query, now: impl Fn() -> u64) -> Decision {
    let Some(handle) = tables.subject(query.subject) else {
        return Decision::deny_all(query.required, Reason::SubjectRemoved);
    };
    let subject = tables.row(handle);
    if subject.flags & SUBJECT_LIVE == 0 || (subject.session != 0 && subject.session != query.session) {
        return Decision::deny_all(query.required, Reason::SubjectRemoved);
    }
    let found = tables.cell(subject.cells.wrapping_add(query.class)).and_then(|cell| {
        let index = subject.outcomes.wrapping_add(cell);
        tables.outcome(index).map(|outcome| (index, outcome))
    });
    let Some((index, outcome)) = found else {
        return Decision::deny_all(query.required, Reason::TableMiss);
    };
    let row = outcome.base + combination(&outcome, query.features);
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let control = tables.control(handle);
        let Some(masks) = current(tables, &subject, control, row, &now) else {
            return Decision::deny_all(query.required, Reason::TableMiss);
        };
        // The masks that were read are those of one slot whatever happens, because a slot is not
        // filled while a program may read it. Equal words say that they also still count.
        if tables.control(handle) == control {
            return Decision {
                denied: query.required & !masks.allow,
                would_deny: query.required & masks.would_deny,
                would_allow: query.required & masks.would_allow,
                audit: query.required & masks.audit,
                quiet: (query.required | LEVEL_BITS) & masks.quiet,
                differs: query.required & masks.differs,
                counted: masks.counted,
                reason: Reason::Policy,
                outcome: index,
            };
        }
        attempt += 1;
    }
    Decision::deny_all(query.required, Reason::OutcomesChanging)
}

/// The number of the level of quarantine that a subject, or a session, is at; 0 = none. Nothing if it cannot be
/// said.
#[inline(always)]
pub fn level<T: Tables>(tables: &T, subject: u32, session: u64, now: impl Fn() -> u64) -> Option<u64> {
    let handle = tables.subject(subject)?;
    let row = tables.row(handle);
    if row.flags & SUBJECT_LIVE == 0 || (row.session != 0 && row.session != session) {
        return None;
    }
    // A word that changes meanwhile says that this instant is as good as that before.
    current(tables, &row, tables.control(handle), 0, &now).map(|masks| level_in(masks.quiet))
}

/// The masks that a control word selects.
#[inline(always)]
fn current<T: Tables>(
    tables: &T,
    subject: &SubjectRow,
    control: Control,
    row: u32,
    now: &impl Fn() -> u64,
) -> Option<Masks> {
    let slot = control.slot();
    let mut segment = 0;
    if control.boundaries() != 0 {
        let timeline = tables.timeline(subject.timeline + slot * subject.timeline_stride)?;
        segment = reached(&timeline, control.boundaries(), now());
    }
    tables.masks(subject.masks + slot * subject.mask_stride + segment * subject.rows + row)
}

/// How many of the first `count` boundaries of a timeline have been reached at `now`.
#[inline(always)]
fn reached(timeline: &Timeline, count: u32, now: u64) -> u32 {
    let mut reached = 0;
    let mut index = 0;
    while index < MAX_BOUNDARIES {
        reached += ((index as u32) < count && timeline.boundary[index] <= now) as u32;
        index += 1;
    }
    reached
}

/// The values of the features that matter, as an index into the outcome's truth table.
#[inline(always)]
pub fn combination(outcome: &Outcome, features: u64) -> u32 {
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

/// Which of `features` an outcome depends on.
#[inline(always)]
pub fn matters(outcome: &Outcome, features: u64) -> u64 {
    let mut found = 0;
    let mut index = 0;
    while index < MAX_OUTCOME_FEATURES {
        if index < outcome.features as usize {
            found |= features & 1 << (outcome.selected[index] & 63);
        }
        index += 1;
    }
    found
}

/// Features that may be unknown at once and still be looked at one state after the other.
pub const MAX_UNKNOWN: u32 = 4;

/// Whether `holds` for some state of features that are not known, at most [`MAX_UNKNOWN`] of them.
#[inline(always)]
pub fn some_state(unknown: u64, mut holds: impl FnMut(u64) -> bool) -> bool {
    // All subsets, from the whole to the empty one.
    let mut state = unknown;
    let mut left = 1 << MAX_UNKNOWN;
    while left > 0 {
        if holds(state) {
            return true;
        }
        if state == 0 {
            return false;
        }
        state = (state - 1) & unknown;
        left -= 1;
    }
    true
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
    use core::cell::Cell;
    use std::vec::Vec;

    #[test]
    fn every_state_of_what_is_not_known_is_looked_at() {
        let mut seen = Vec::new();
        let none = some_state(0b1010, |state| {
            seen.push(state);
            false
        });
        assert!(!none && seen == [0b1010, 0b1000, 0b0010, 0]);
        assert!(some_state(0b1010, |state| state == 0) && some_state(0b1010, |state| state == 0b0010));
        assert!(!some_state(0, |_| false) && some_state(0, |_| true));
        assert!(some_state(0b1_1111, |_| false), "of more than can be looked at, nobody can say no");
    }

    #[test]
    fn only_the_features_of_an_outcome_matter() {
        let mut outcome = Outcome { features: 2, ..Outcome::default() };
        outcome.selected[..3].copy_from_slice(&[3, 63, 5]);
        assert_eq!(matters(&outcome, u64::MAX), 1 << 3 | 1 << 63);
        assert_eq!(matters(&outcome, 1 << 5), 0);
    }

    struct Fixture {
        subjects: Vec<SubjectRow>,
        /// What further reads of the control word find.
        changes: Cell<u32>,
        masks: Vec<Masks>,
    }

    impl Tables for Fixture {
        type Row = u32;
        fn subject(&self, id: u32) -> Option<u32> {
            self.subjects.get(id as usize).map(|_| id)
        }
        fn row(&self, row: u32) -> SubjectRow {
            self.subjects[row as usize]
        }
        fn control(&self, row: u32) -> Control {
            let control = Control(self.subjects[row as usize].control);
            let left = self.changes.get();
            self.changes.set(left.saturating_sub(1));
            Control::new(control.slot(), control.boundaries(), u64::from(left))
        }
        fn cell(&self, index: u32) -> Option<u32> {
            (index == 3).then_some(0)
        }
        fn outcome(&self, index: u32) -> Option<Outcome> {
            let mut selected = [0; MAX_OUTCOME_FEATURES + 1];
            selected[0] = 5;
            (index == 2).then_some(Outcome { base: 1, features: 1, selected })
        }
        fn timeline(&self, index: u32) -> Option<Timeline> {
            (index == 6).then_some(Timeline { boundary: [100, 200, 0] })
        }
        fn masks(&self, index: u32) -> Option<Masks> {
            self.masks.get(index as usize).copied()
        }
    }

    /// Subject 1 has one outcome of two rows behind a row of another, in slot 1 of two.
    fn fixture() -> Fixture {
        let mut masks = std::vec![Masks::default(); 20];
        for (index, allow) in [(11, 0b01), (12, 0b11), (14, 0), (15, 0b10), (17, 0b11), (18, 0b11)] {
            masks[index].allow = allow;
        }
        let row = SubjectRow {
            control: Control::new(1, 2, 0).0,
            flags: SUBJECT_LIVE,
            cells: 3,
            outcomes: 2,
            masks: 0,
            rows: 3,
            mask_stride: 10,
            timeline: 5,
            timeline_stride: 1,
            session: 0,
        };
        Fixture { subjects: [SubjectRow::default(), row].into(), changes: Cell::new(0), masks }
    }

    fn ask(class: u32, features: u64, now: u64) -> Decision {
        decide(&fixture(), &Query { subject: 1, session: 0, class, features, required: 0b11 }, || now)
    }

    #[test]
    fn features_and_segments_pick_the_row() {
        assert_eq!(ask(0, 0, 99).denied, 0b10);
        assert_eq!(ask(0, 1 << 5, 99).denied, 0);
        assert_eq!(ask(0, 0, 100).denied, 0b11, "a deadline is reached at its own instant");
        assert_eq!(ask(0, 1 << 5, 199).denied, 0b01);
        assert_eq!(ask(0, 0, 200).denied, 0);
        assert_eq!(ask(0, 0, u64::MAX).denied, 0, "the last segment has no end");
        assert_eq!(ask(0, 0, 0).outcome, 2);
    }

    #[test]
    fn what_the_tables_do_not_know_is_denied() {
        assert_eq!(ask(7, 0, 0).reason, Reason::TableMiss);
        assert_eq!(ask(7, 0, 0).denied, 0b11);
        let query = Query { subject: 0, session: 0, class: 0, features: 0, required: 1 };
        let removed = decide(&fixture(), &query, || 0);
        assert_eq!((removed.denied, removed.reason), (1, Reason::SubjectRemoved));
    }

    #[test]
    fn a_row_of_a_session_decides_for_that_session_only() {
        let mut fixture = fixture();
        fixture.subjects[1].session = 7;
        let query = |session| Query { subject: 1, session, class: 0, features: 1 << 5, required: 0b11 };
        assert_eq!(decide(&fixture, &query(7), || 99).denied, 0);
        for other in [0, 6, 8] {
            let decision = decide(&fixture, &query(other), || 99);
            assert_eq!((decision.denied, decision.reason), (0b11, Reason::SubjectRemoved));
        }
    }

    #[test]
    fn outcomes_that_change_while_they_are_read_are_read_again_and_then_denied() {
        let query = Query { subject: 1, session: 0, class: 0, features: 1 << 5, required: 0b11 };
        let with = |changes| {
            let fixture = Fixture { changes: Cell::new(changes), ..fixture() };
            decide(&fixture, &query, || 0)
        };
        assert_eq!((with(0).denied, with(0).reason), (0, Reason::Policy));
        assert_eq!(with(5).denied, 0, "the fourth look finds the same twice");
        let never = with(100);
        assert_eq!((never.denied, never.reason), (0b11, Reason::OutcomesChanging));
    }

    #[test]
    fn an_operation_is_loosened_only_if_the_candidate_allows_all_of_it() {
        let decision = |denied, would_deny, would_allow| Decision {
            denied,
            would_deny,
            would_allow,
            ..Decision::deny_all(0, Reason::Policy)
        };
        assert!(decision(0b10, 0, 0b10).is_loosened());
        assert!(!decision(0b11, 0, 0b10).is_loosened());
        assert!(!decision(0b10, 0b01, 0b10).is_loosened());
        assert!(!decision(0, 0, 0).is_loosened());
    }

    #[test]
    fn a_shadow_is_told_only_where_the_operation_as_a_whole_would_end_otherwise() {
        let shadow =
            |denied, differs| Decision { denied, differs, ..Decision::deny_all(0, Reason::Policy) }.shadow();
        assert_eq!(shadow(0, 0), 0);
        assert_eq!(shadow(0, 0b10), 0b10, "newly denied: what the shadow denies of it");
        assert_eq!(shadow(0b11, 0b11), 0b11, "newly allowed");
        assert_eq!(shadow(0b11, 0b01), 0, "still denied, for one action of two");
        assert_eq!(shadow(0b01, 0b11), 0, "denied for another action");
        assert_eq!(shadow(0b01, 0), 0);
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
