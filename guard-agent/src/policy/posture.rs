//! What is true of a subject, until when, and the outcomes that follow: the dynamic half of the tables.
//!
//! Facts expire and windows open at instants that are known in advance, so what a subject may do is a
//! short timeline. The kernel holds the next few instants and the masks between them, and needs nobody
//! to go from one to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guard_common::action::COUNTABLE;
use guard_common::quarantine::{LEVEL_BITS, LEVEL_SHIFT, Level, level_in};
use guard_common::tables::{
    ALL_ACTIONS, MAX_BOUNDARIES, MONITORED, Masks, counted_actions, place_of, with_place,
};

use super::condition::Test;
use super::formula::{AtomId, Atoms};
use super::manifest::FailMode;
use super::outcome::{Table, Unclassified, both};
use super::subjects::Mode;
use super::world::{FactValue, Facts};
use crate::tables::SubjectOutcomes;

/// An instant of CLOCK_BOOTTIME, in nanoseconds.
pub type Instant = u64;

/// A statement about a subject, and when it ends; without an end it holds until it is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Until<T> {
    /// What holds.
    pub value: T,
    /// The first instant at which it no longer does.
    pub end: Option<Instant>,
}

impl<T> Until<T> {
    fn holds(&self, now: Instant) -> bool {
        self.end.is_none_or(|end| now < end)
    }
}

/// When a window is open: from `opens` until just before `closes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The first instant at which it is open.
    pub opens: Instant,
    /// The first instant at which it is closed again.
    pub closes: Instant,
}

/// What of a lease is counted, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The actions of which each is a use.
    pub actions: u64,
    /// The place of the count in the kernel, from 1.
    pub place: u32,
}

/// Everything besides the bundle that decides what one subject may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Posture {
    /// Posture facts.
    pub facts: BTreeMap<String, Until<FactValue>>,
    /// Live leases.
    pub leases: BTreeMap<String, Until<()>>,
    /// Those of them of which each use is counted.
    pub counted: BTreeMap<String, Counted>,
    /// When windows are open, as far ahead as is known.
    pub windows: BTreeMap<String, Vec<Opening>>,
    /// Another mode than the bundle's.
    pub mode: Option<Until<Mode>>,
    /// Quarantines: the highest level of those that hold counts, before everything else.
    pub quarantines: Vec<Until<Level>>,
    /// When facts without an end become stale, if they do.
    pub stale: Option<Stale>,
}

/// From when on nobody vouches for facts without an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The first instant.
    pub at: Instant,
    /// What they are then.
    pub fail: FailMode,
}

/// The state at one instant.
struct State {
    facts: Facts,
    /// The leases that are counted.
    counted: BTreeMap<String, Counted>,
    /// Instead of a bundle's mode.
    mode: Option<Mode>,
    /// The level of quarantine.
    level: Option<Level>,
    /// Stale facts that count all the same, and what they allow is to be reported.
    stale: BTreeSet<String>,
}

impl Posture {
    /// What holds now and has no end.
    pub fn of(facts: &Facts) -> Self {
        let open =
            |name: &String| (name.clone(), vec![Opening { opens: Instant::MIN, closes: Instant::MAX }]);
        Self {
            facts: facts
                .posture
                .iter()
                .map(|(name, value)| (name.clone(), Until { value: value.clone(), end: None }))
                .collect(),
            leases: facts.leases.iter().map(|name| (name.clone(), Until { value: (), end: None })).collect(),
            windows: facts.windows.iter().map(open).collect(),
            ..Self::default()
        }
    }

    /// What of it holds at `now`.
    fn at(&self, now: Instant) -> State {
        let open = |openings: &[Opening]| {
            openings.iter().any(|opening| opening.opens <= now && now < opening.closes)
        };
        let stale = self.stale.filter(|stale| stale.at <= now).map(|stale| stale.fail);
        let is_stale = |fact: &Until<FactValue>| fact.end.is_none() && stale.is_some();
        let dropped = |fact: &Until<FactValue>| is_stale(fact) && stale == Some(FailMode::Deny);
        let audited = |fact: &Until<FactValue>| is_stale(fact) && stale == Some(FailMode::Audit);
        let posture = self.facts.iter().filter(|(_, fact)| fact.holds(now) && !dropped(fact));
        let leases = self.leases.iter().filter(|(_, lease)| lease.holds(now));
        let windows = self.windows.iter().filter(|(_, openings)| open(openings));
        let counted = self
            .counted
            .iter()
            .filter(|(name, _)| self.leases.get(*name).is_some_and(|lease| lease.holds(now)));
        State {
            counted: counted.map(|(name, counted)| (name.clone(), *counted)).collect(),
            facts: Facts {
                posture: posture.map(|(name, fact)| (name.clone(), fact.value.clone())).collect(),
                leases: leases.map(|(name, _)| name.clone()).collect(),
                windows: windows.map(|(name, _)| name.clone()).collect(),
                ..Facts::default()
            },
            mode: self.mode.as_ref().filter(|mode| mode.holds(now)).map(|mode| mode.value),
            level: self.quarantines.iter().filter(|one| one.holds(now)).map(|one| one.value).max(),
            stale: self
                .facts
                .iter()
                .filter(|(_, fact)| audited(fact))
                .map(|(name, _)| name.clone())
                .collect(),
        }
    }

    /// The facts, leases and open windows at `now`.
    pub(super) fn facts_at(&self, now: Instant) -> Facts {
        self.at(now).facts
    }

    /// The instants after `now` at which something that `tests` ask for changes, ascending.
    pub(super) fn boundaries(&self, now: Instant, tests: &BTreeSet<&Test>) -> BTreeSet<Instant> {
        let about = |wanted: &dyn Fn(&Test) -> bool| tests.iter().any(|test| wanted(test));
        let facts = self
            .facts
            .iter()
            .filter(|(name, _)| about(&|test| test.fact(name)))
            .filter_map(|(_, fact)| fact.end);
        let leases = self
            .leases
            .iter()
            .filter(|(name, _)| {
                about(&|test| *test == Test::NoLease || matches!(test, Test::Lease(lease) if lease == *name))
            })
            .filter_map(|(_, lease)| lease.end);
        let windows = self
            .windows
            .iter()
            .filter(|(name, _)| {
                about(&|test| {
                    *test == Test::NoWindow || matches!(test, Test::Window(window) if window == *name)
                })
            })
            .flat_map(|(_, openings)| openings.iter().flat_map(|opening| [opening.opens, opening.closes]));
        let vouched =
            |name: &String, fact: &Until<FactValue>| fact.end.is_none() && about(&|test| test.fact(name));
        let stale = self.stale.filter(|stale| stale.fail != FailMode::Keep);
        let stale = stale.filter(|_| self.facts.iter().any(|(name, fact)| vouched(name, fact)));
        let mode = self.mode.iter().filter_map(|mode| mode.end);
        let quarantines = self.quarantines.iter().filter_map(|one| one.end);
        facts
            .chain(leases)
            .chain(windows)
            .chain(mode)
            .chain(stale.map(|stale| stale.at))
            .chain(quarantines)
            .filter(|end| *end > now && *end != Instant::MAX)
            .collect()
    }
}

/// How the masks of one subject follow from posture.
#[derive(Debug)]
pub(super) struct Program {
    /// The bundle's mode.
    pub(super) mode: Mode,
    /// The shadow's, if it has this subject.
    pub(super) shadow: Option<Mode>,
    /// The truth tables, in the order of their rows.
    pub(super) tables: Vec<Arc<Table>>,
    /// The rows that come last.
    pub(super) unknown: Unclassified,
    /// The tests that some table depends on.
    pub(super) tests: BTreeMap<AtomId, Test>,
}

impl Program {
    pub(super) fn new(
        (mode, shadow): (Mode, Option<Mode>),
        tables: Vec<Arc<Table>>,
        unknown: Unclassified,
        atoms: &Atoms,
    ) -> Self {
        let tests = tables
            .iter()
            .flat_map(|table| table.conditions())
            .filter_map(|id| Some((*id, atoms.get(*id).condition()?.clone())))
            .collect();
        Self { mode, shadow, tables, unknown, tests }
    }

    /// The subject's outcomes from `now` on.
    ///
    /// If more instants are known than the kernel stores, the last segment allows only what every
    /// state from there on allows, and what is allowed once everything that has an end has ended: with
    /// nobody there to store the next instants, nothing lasts longer than it should.
    pub(super) fn outcomes(&self, posture: &Posture, now: Instant) -> SubjectOutcomes {
        let all = posture.boundaries(now, &self.tests.values().collect());
        let boundaries: Vec<Instant> = if all.len() > MAX_BOUNDARIES && self.shadow.is_some() {
            // Instants that only the shadow waits for must not make the last segment of what is enforced
            // come sooner. Until the plan is made again, the shadow is compared as it is when a segment begins.
            posture.boundaries(now, &self.enforced_tests().iter().collect()).into_iter().collect()
        } else {
            all.iter().copied().collect()
        };
        let (stored, beyond) = boundaries.split_at(boundaries.len().min(MAX_BOUNDARIES));
        let mut masks = self.masks(&posture.at(now));
        for (index, boundary) in stored.iter().enumerate() {
            let mut segment = self.masks(&posture.at(*boundary));
            if index + 1 == MAX_BOUNDARIES {
                for later in beyond {
                    let other = self.masks(&posture.at(*later));
                    segment.iter_mut().zip(other).for_each(|(here, other)| *here = stricter(*here, other));
                }
            }
            masks.extend(segment);
        }
        let replan = if all.len() > stored.len() { all.first().copied() } else { None };
        SubjectOutcomes { boundaries: stored.to_vec(), masks, replan }
    }

    /// The tests that the live bundle's own sets depend on.
    fn enforced_tests(&self) -> BTreeSet<Test> {
        let sides = self.tables.iter().map(|table| table.side(false));
        let ids: BTreeSet<AtomId> = sides.flat_map(|side| side.conditions().to_vec()).collect();
        ids.iter().filter_map(|id| self.tests.get(id).cloned()).collect()
    }

    fn masks(&self, state: &State) -> Vec<Masks> {
        let mut masks = self.masks_of(&state.facts, state.mode);
        if !state.counted.is_empty() {
            let mut facts = state.facts.clone();
            facts.leases.retain(|name| !state.counted.contains_key(name));
            let without = self.masks_of(&facts, state.mode);
            // What only one of them allows counts for that one.
            let places = state.counted.iter().map(|(name, counted)| {
                let mut only = facts.clone();
                only.leases.insert(name.clone());
                (*counted, self.masks_of(&only, state.mode))
            });
            let places: Vec<(Counted, Vec<Masks>)> = places.collect();
            for (row, (masks, without)) in masks.iter_mut().zip(without).enumerate() {
                count(masks, without, places.iter().map(|(counted, only)| (*counted, only[row])));
            }
        }
        if !state.stale.is_empty() {
            let mut facts = state.facts.clone();
            facts.posture.retain(|name, _| !state.stale.contains(name));
            let without = self.masks_of(&facts, state.mode);
            for (masks, without) in masks.iter_mut().zip(without) {
                masks.audit |= masks.allow & !without.allow & ALL_ACTIONS;
            }
        }
        masks.into_iter().map(|masks| at_level(masks, state.level)).collect()
    }

    /// The masks that follow from facts, whatever is counted and whoever is in quarantine.
    fn masks_of(&self, facts: &Facts, mode: Option<Mode>) -> Vec<Masks> {
        // A mode that is set for a while outlives a change of the bundle, so it counts for both.
        let shadow = self.shadow.map(|shadow| mode.unwrap_or(shadow));
        let mode = mode.unwrap_or(self.mode);
        let holds = |id: AtomId| self.tests.get(&id).is_some_and(|test| test.holds(facts));
        self.tables
            .iter()
            .flat_map(|table| table.block(&holds))
            .chain(self.unknown.block(&holds))
            .map(|answers| answers.masks(mode, shadow))
            .collect()
    }
}

/// Marks what leases allow of which uses are counted. `only` says what each of them allows by itself, `without` what is
/// allowed with none of them. What takes several of these leases at once is not allowed.
fn count(masks: &mut Masks, without: Masks, only: impl Iterator<Item = (Counted, Masks)>) {
    let gained = masks.allow & !without.allow;
    let (mut free, mut counted) = (0, 0);
    for (lease, by_it) in only {
        let own = gained & by_it.allow;
        free |= own & !lease.actions;
        for (index, action) in COUNTABLE.iter().enumerate() {
            if own & lease.actions & action.bit() != 0 && place_of(counted, index) == 0 {
                counted = with_place(counted, index, lease.place);
            }
        }
    }
    forbid(masks, gained & !free & !counted_actions(counted));
    masks.counted = counted_within(counted, !free);
}

/// The places of these actions.
fn counted_within(counted: u64, actions: u64) -> u64 {
    COUNTABLE
        .iter()
        .enumerate()
        .filter(|(_, action)| actions & action.bit() != 0)
        .fold(0, |left, (index, _)| with_place(left, index, place_of(counted, index)))
}

/// Takes actions from what is allowed.
fn forbid(masks: &mut Masks, actions: u64) {
    masks.allow &= !actions;
    masks.would_deny &= !actions;
    masks.audit &= !actions;
}

/// Masks with what a quarantine denies taken away: no mode and no policy in monitor mode changes that.
fn at_level(masks: Masks, level: Option<Level>) -> Masks {
    let Some(level) = level else { return masks };
    let left = !level.denies();
    Masks {
        allow: masks.allow & (left | MONITORED),
        would_deny: masks.would_deny & left,
        would_allow: masks.would_allow & left,
        audit: masks.audit & left,
        quiet: masks.quiet & left & !LEVEL_BITS | (level as u64) << LEVEL_SHIFT,
        differs: masks.differs & left,
        counted: counted_within(masks.counted, left),
    }
}

/// What two states both allow, at the higher one of their levels.
fn stricter(a: Masks, b: Masks) -> Masks {
    let level = level_in(a.quiet).max(level_in(b.quiet));
    let masks = both(a, b);
    let mut masks = Masks { quiet: masks.quiet & !LEVEL_BITS | level << LEVEL_SHIFT, ..masks };
    // What one of them counts is counted; at two places it cannot be.
    let allow = masks.allow;
    for (index, action) in COUNTABLE.iter().enumerate().filter(|(_, action)| allow & action.bit() != 0) {
        match (place_of(a.counted, index), place_of(b.counted, index)) {
            (0, place) | (place, 0) => masks.counted = with_place(masks.counted, index, place),
            (one, other) if one == other => masks.counted = with_place(masks.counted, index, one),
            _ => forbid(&mut masks, action.bit()),
        }
    }
    masks
}
