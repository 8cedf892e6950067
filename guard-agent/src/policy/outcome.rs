//! Truth tables: what one subject may do with one class, over the features that matter and the tests
//! of the context that matter.
//!
//! A table covers every state of the context, so it is made once. Which of its blocks counts is
//! looked up when posture changes.

use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use guard_common::tables::{ALL_ACTIONS, MAX_OUTCOME_FEATURES, MONITORED, Masks};

use super::classes::{ClassInfo, substitute};
use super::features::Features;
use super::formula::{AtomId, Atoms, Formula};
use super::kind::Kind;
use super::subjects::Mode;

/// One policy for one subject and one type of resource.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) kind: Kind,
    pub(super) actions: u64,
    pub(super) permit: bool,
    /// Part of the enforced set.
    pub(super) enforced: bool,
    /// Part of the candidate set.
    pub(super) candidate: bool,
    /// Part of the enforced set of the shadow, and then of no other set.
    pub(super) shadow: bool,
    pub(super) audit: bool,
    /// Actions that answer as if the resource were not there, where they are denied and it holds.
    pub(super) quiet: u64,
    pub(super) formula: Formula,
    /// Generated because the subject has a root of its own.
    pub(super) own_root: bool,
    /// Index of the policy; `None` for generated ones.
    pub(super) policy: Option<usize>,
}

/// What one subject may do does not fit the kernel's tables.
#[derive(Debug)]
pub(super) enum TooLarge {
    /// An outcome depends on more features than a truth table may have.
    Features {
        /// The policy that depends on most of them.
        policy: Option<usize>,
        /// How many there are.
        count: usize,
    },
    /// There are more outcomes than a cell can number.
    Outcomes,
}

/// What the policy sets say about every action, whatever the subject's mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Answers {
    /// Allowed by the enforced set.
    pub(super) enforced: u64,
    /// Allowed by the candidate set.
    pub(super) candidate: u64,
    /// Allowed by the enforced set of the shadow.
    pub(super) shadow: u64,
    /// Matched by an audited policy.
    pub(super) audit: u64,
    /// Matched by a policy that has them answer as if the resource were not there.
    pub(super) quiet: u64,
}

impl Answers {
    /// Nothing is denied.
    const ALL: Self =
        Self { enforced: ALL_ACTIONS, candidate: ALL_ACTIONS, shadow: ALL_ACTIONS, audit: 0, quiet: 0 };

    /// What both allow.
    fn and(self, other: Self) -> Self {
        Self {
            enforced: self.enforced & other.enforced,
            candidate: self.candidate & other.candidate,
            shadow: self.shadow & other.shadow,
            audit: self.audit | other.audit,
            // Nobody can say of what nobody classified that it is not there.
            quiet: 0,
        }
    }

    fn within(self, actions: u64) -> Self {
        Self {
            enforced: self.enforced & actions,
            candidate: self.candidate & actions,
            shadow: self.shadow & actions,
            audit: self.audit & actions,
            quiet: self.quiet & actions,
        }
    }

    /// What the shadow says, or what the other sets say, with nothing of the rest.
    fn side(self, shadow: bool) -> Self {
        if shadow { Self { shadow: self.shadow, ..Self::default() } } else { Self { shadow: 0, ..self } }
    }

    /// The masks of a subject in this mode, and in that mode by the shadow if that has the subject.
    pub(super) fn masks(self, mode: Mode, shadow: Option<Mode>) -> Masks {
        let in_mode = |mode, allowed| if mode == Mode::Monitor { ALL_ACTIONS } else { allowed };
        let allow = in_mode(mode, self.enforced);
        Masks {
            allow: if mode == Mode::Monitor { allow | MONITORED } else { allow },
            would_deny: allow & !self.candidate,
            would_allow: self.candidate & !allow,
            audit: self.audit & allow,
            quiet: self.quiet & !allow,
            differs: shadow.map_or(0, |mode| allow ^ in_mode(mode, self.shadow)),
            counted: 0,
        }
    }
}

/// What two sets of masks allow both, and what the candidate sets and the shadow do.
pub(super) fn both(a: Masks, b: Masks) -> Masks {
    let candidate = |masks: Masks| masks.allow & !masks.would_deny | masks.would_allow;
    let (allow, candidate) = (a.allow & b.allow, candidate(a) & candidate(b));
    Masks {
        allow,
        would_deny: allow & !candidate,
        would_allow: candidate & !allow,
        audit: (a.audit | b.audit) & allow,
        quiet: (a.allow | a.quiet) & (b.allow | b.quiet) & !allow,
        differs: allow ^ (a.allow ^ a.differs) & (b.allow ^ b.differs),
        counted: 0,
    }
}

/// Tests of the context that a table lists in its rows; with more, rows are computed when asked for.
const MAX_LISTED_CONDITIONS: usize = 6;

/// A truth table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Table {
    /// Bits of the features that matter, ascending.
    pub(super) features: Vec<u8>,
    /// The tests of the context that matter, ascending.
    conditions: Vec<AtomId>,
    body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Body {
    /// One row per combination: features in the low bits of the index, conditions above.
    Rows(Vec<Answers>),
    /// What is left of the rules, and the atoms of the features.
    Rules { rules: Vec<Part>, support: Vec<AtomId> },
}

/// What counts of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Part {
    actions: u64,
    permit: bool,
    enforced: bool,
    candidate: bool,
    shadow: bool,
    audit: bool,
    quiet: u64,
    formula: Formula,
}

impl Table {
    /// Nothing is allowed.
    pub(super) fn deny() -> Self {
        Self::always(0)
    }

    /// These actions are allowed.
    pub(super) fn always(actions: u64) -> Self {
        let answers = Answers { enforced: actions, candidate: actions, ..Answers::default() };
        Self { features: Vec::new(), conditions: Vec::new(), body: Body::Rows(vec![answers]) }
    }

    /// The table of `rules` for resources of class `info`.
    pub(super) fn of<'a>(
        rules: impl Iterator<Item = &'a Rule>,
        info: &ClassInfo,
        atoms: &Atoms,
        features: &Features,
    ) -> Result<Self, TooLarge> {
        let mut left: Vec<(Part, Option<usize>)> = rules
            .filter(|rule| info.sort.admits(rule.kind))
            .map(|rule| (Part::of(rule, atoms, info), rule.policy))
            .filter(|(part, _)| part.formula != Formula::FALSE)
            .collect();
        prune(&mut left);
        let (conditions, support): (Vec<AtomId>, Vec<AtomId>) = mentioned(left.iter().map(|(part, _)| part))
            .into_iter()
            .partition(|id| atoms.get(*id).condition().is_some());
        if support.len() > MAX_OUTCOME_FEATURES {
            let size = |(part, _): &&(Part, Option<usize>)| mentioned(std::iter::once(part)).len();
            let policy = left.iter().max_by_key(size).and_then(|(_, policy)| *policy);
            return Err(TooLarge::Features { policy, count: support.len() });
        }
        let rules: Vec<Part> = left.into_iter().map(|(part, _)| part).collect();
        // Atoms are numbered in the order of their bits.
        let bits: Vec<u8> = support.iter().filter_map(|id| features.bit(*id)).collect();
        Ok(Self::made(rules, conditions, support, bits))
    }

    /// The table of `rules`, which depend on these tests of the context and on the features with these
    /// atoms and bits.
    fn made(mut rules: Vec<Part>, conditions: Vec<AtomId>, support: Vec<AtomId>, bits: Vec<u8>) -> Self {
        if conditions.len() > MAX_LISTED_CONDITIONS {
            rules.sort_unstable();
            rules.dedup();
            return Self { features: bits, conditions, body: Body::Rules { rules, support } };
        }
        let rows = (0..1u32 << (support.len() + conditions.len()))
            .map(|row| {
                answers(&rules, &|id| match support.binary_search(&id) {
                    Ok(index) => row >> index & 1 != 0,
                    Err(_) => conditions
                        .binary_search(&id)
                        .is_ok_and(|index| row >> (support.len() + index) & 1 != 0),
                })
            })
            .collect();
        Self { features: bits, conditions, body: Body::Rows(rows) }.reduced()
    }

    /// The table that there would be for the shadow alone, or for the other sets alone.
    pub(super) fn side(&self, shadow: bool) -> Self {
        match &self.body {
            Body::Rows(rows) => {
                let rows = rows.iter().map(|row| row.side(shadow)).collect();
                Self { body: Body::Rows(rows), ..self.clone() }.reduced()
            }
            Body::Rules { rules, support } => {
                let rules: Vec<Part> = rules.iter().filter(|part| part.shadow == shadow).cloned().collect();
                let own = mentioned(rules.iter());
                let conditions = self.conditions.iter().copied().filter(|id| own.contains(id)).collect();
                let (support, bits) =
                    support.iter().zip(&self.features).filter(|(id, _)| own.contains(id)).unzip();
                Self::made(rules, conditions, support, bits)
            }
        }
    }

    /// Without the features and conditions that make no difference.
    fn reduced(mut self) -> Self {
        if let Body::Rows(rows) = &mut self.body {
            let kept = reduce(rows, self.features.len() + self.conditions.len());
            let features = self.features.len();
            let keep = |index: usize| kept.binary_search(&index).is_ok();
            self.features = select(&self.features, keep);
            self.conditions = select(&self.conditions, |index| keep(features + index));
        }
        self
    }

    /// The tests of the context it depends on.
    pub(super) fn conditions(&self) -> &[AtomId] {
        &self.conditions
    }

    /// Rows per state of the context.
    pub(super) fn rows(&self) -> usize {
        1 << self.features.len()
    }

    /// The rows in the state of the context that `holds` describes.
    pub(super) fn block(&self, holds: &impl Fn(AtomId) -> bool) -> Vec<Answers> {
        let count = self.rows();
        match &self.body {
            Body::Rows(rows) => {
                let index = self
                    .conditions
                    .iter()
                    .enumerate()
                    .fold(0, |index, (at, id)| index | usize::from(holds(*id)) << at);
                rows[index * count..(index + 1) * count].to_vec()
            }
            Body::Rules { rules, support } => (0..count)
                .map(|row| {
                    answers(rules, &|id| match support.binary_search(&id) {
                        Ok(index) => row >> index & 1 != 0,
                        Err(_) => holds(id),
                    })
                })
                .collect(),
        }
    }

    /// What some state of features and context could allow, at most.
    fn possible(&self) -> u64 {
        match &self.body {
            Body::Rows(rows) => {
                rows.iter().fold(0, |any, row| any | row.enforced | row.candidate | row.shadow)
            }
            Body::Rules { rules, .. } => {
                rules.iter().filter(|part| part.permit).fold(0, |any, part| any | part.actions)
            }
        }
    }

    /// The features that its answers about `actions` depend on.
    fn features_within(&self, actions: u64) -> Vec<u8> {
        match &self.body {
            Body::Rows(rows) => {
                let mut rows: Vec<Answers> = rows.iter().map(|row| row.within(actions)).collect();
                let kept = reduce(&mut rows, self.features.len() + self.conditions.len());
                select(&self.features, |index| kept.binary_search(&index).is_ok())
            }
            Body::Rules { .. } => self.features.clone(),
        }
    }
}

/// The atoms that the formulas of some rules mention.
fn mentioned<'a>(rules: impl Iterator<Item = &'a Part>) -> BTreeSet<AtomId> {
    let mut found = BTreeSet::new();
    for part in rules {
        part.formula.for_each_atom(&mut |id| {
            found.insert(id);
        });
    }
    found
}

/// The items that are kept by their position.
fn select<T: Copy>(items: &[T], keep: impl Fn(usize) -> bool) -> Vec<T> {
    items.iter().enumerate().filter(|(index, _)| keep(*index)).map(|(_, item)| *item).collect()
}

/// Removes from a table of `2^variables` rows the variables that make no difference, and returns those
/// that stay.
fn reduce(rows: &mut Vec<Answers>, variables: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..variables).collect();
    let mut index = 0;
    while index < kept.len() {
        let bit = 1 << index;
        let matters = (0..rows.len()).any(|row| row & bit == 0 && rows[row] != rows[row | bit]);
        if matters {
            index += 1;
        } else {
            kept.remove(index);
            let mut row = 0;
            rows.retain(|_| {
                row += 1;
                (row - 1) & bit == 0
            });
        }
    }
    kept
}

impl Part {
    fn of(rule: &Rule, atoms: &Atoms, info: &ClassInfo) -> Self {
        Self {
            actions: rule.actions,
            permit: rule.permit,
            enforced: rule.enforced,
            candidate: rule.candidate,
            shadow: rule.shadow,
            audit: rule.audit,
            quiet: rule.quiet,
            formula: rule.formula.substitute(&|id| substitute(atoms, info, id)),
        }
    }

    /// The rule always counts, in every set of its bundle.
    fn is_settled(&self) -> bool {
        self.formula == Formula::TRUE && (self.shadow || self.enforced && self.candidate)
    }
}

/// The answers under one assignment of the atoms.
fn answers(rules: &[Part], value: &impl Fn(AtomId) -> bool) -> Answers {
    let [mut permitted, mut forbidden, mut permitted_if, mut forbidden_if, mut audit, mut quiet] = [0u64; 6];
    let [mut permitted_by_shadow, mut forbidden_by_shadow] = [0u64; 2];
    for rule in rules.iter().filter(|rule| rule.formula.evaluate(value)) {
        let (enforced, candidate, shadow) = if rule.permit {
            (&mut permitted, &mut permitted_if, &mut permitted_by_shadow)
        } else {
            (&mut forbidden, &mut forbidden_if, &mut forbidden_by_shadow)
        };
        if rule.shadow {
            *shadow |= rule.actions;
        }
        if rule.candidate {
            *candidate |= rule.actions;
        }
        if rule.enforced {
            *enforced |= rule.actions;
        }
        if rule.audit {
            audit |= rule.actions;
        }
        quiet |= rule.quiet;
    }
    let enforced = permitted & !forbidden;
    Answers {
        enforced,
        candidate: permitted_if & !forbidden_if,
        shadow: permitted_by_shadow & !forbidden_by_shadow,
        audit,
        quiet: quiet & !enforced,
    }
}

/// Drops what cannot change an answer, and with it the features only it depends on.
fn prune(rules: &mut Vec<(Part, Option<usize>)>) {
    // No rule of the shadow belongs to another set, so each side is looked at by itself.
    for shadow in [false, true] {
        prune_side(rules, shadow);
    }
    rules.retain(|(rule, _)| rule.actions != 0);
}

fn prune_side(rules: &mut [(Part, Option<usize>)], shadow: bool) {
    // What rules of every set settle is settled.
    let settled = |rules: &[(Part, Option<usize>)], permit: bool| {
        rules
            .iter()
            .filter(|(rule, _)| rule.shadow == shadow && rule.permit == permit && rule.is_settled())
            .fold(0, |bits, (rule, _)| bits | rule.actions)
    };
    let forbidden = settled(rules, false);
    let permitted = settled(rules, true);
    let possible = rules
        .iter()
        .filter(|(rule, _)| rule.shadow == shadow && rule.permit)
        .fold(0, |bits, (rule, _)| bits | rule.actions)
        & !forbidden;
    for (rule, _) in
        rules.iter_mut().filter(|(rule, _)| rule.shadow == shadow && !rule.audit && rule.quiet == 0)
    {
        if rule.is_settled() {
            continue;
        }
        rule.actions &= if rule.permit { possible & !permitted } else { possible };
    }
}

/// What is allowed on a file system that nobody classified.
///
/// Every set allows there what it would allow without the others, so that a shadow changes nothing of what
/// the live bundle decides, and is what it will be once it is live.
#[derive(Clone, Debug)]
pub(super) struct Unclassified {
    live: Conjunction,
    shadow: Option<Conjunction>,
    /// The features that one of both depends on, ascending.
    pub(super) features: Vec<u8>,
}

impl Unclassified {
    /// Where each of `tables` allows it; `shadowed` if they have answers of a shadow.
    pub(super) fn new(tables: Vec<Arc<Table>>, shadowed: bool) -> Result<Self, TooLarge> {
        if !shadowed {
            let live = Conjunction::new(tables);
            return Ok(Self { features: live.features.clone(), live, shadow: None });
        }
        let side = |shadow| {
            let own: HashSet<Table> = tables.iter().map(|table| table.side(shadow)).collect();
            Conjunction::new(own.into_iter().map(Arc::new).collect())
        };
        let (live, shadow) = (side(false), side(true));
        let features: BTreeSet<u8> = live.features.iter().chain(&shadow.features).copied().collect();
        if features.len() > MAX_OUTCOME_FEATURES {
            return Err(TooLarge::Features { policy: None, count: features.len() });
        }
        Ok(Self { features: features.into_iter().collect(), live, shadow: Some(shadow) })
    }

    /// Nothing.
    pub(super) fn nothing() -> Self {
        Self { live: Conjunction::new(Vec::new()), shadow: None, features: Vec::new() }
    }

    /// Rows per state of the context.
    pub(super) fn rows(&self) -> usize {
        1 << self.features.len()
    }

    /// The rows in the state of the context that `holds` describes.
    pub(super) fn block(&self, holds: &impl Fn(AtomId) -> bool) -> Vec<Answers> {
        let live = self.live.block(holds);
        let Some(shadow) = &self.shadow else { return live };
        let by_shadow = shadow.block(holds);
        // The row of one side for a row of both.
        let of = |side: &Conjunction, row: usize| {
            let at = |bit: &u8| self.features.binary_search(bit).map_or(0, |at| row >> at & 1);
            side.features.iter().enumerate().fold(0, |index, (to, bit)| index | at(bit) << to)
        };
        (0..self.rows())
            .map(|row| Answers { shadow: by_shadow[of(shadow, row)].shadow, ..live[of(&self.live, row)] })
            .collect()
    }
}

/// What is allowed where every one of some tables allows it.
#[derive(Clone, Debug)]
struct Conjunction {
    tables: Vec<Arc<Table>>,
    /// The features that matter; nothing if there are too many, and then what is allowed is what is
    /// allowed whatever they are.
    features: Vec<u8>,
    /// The actions that all of them could allow.
    possible: u64,
}

impl Conjunction {
    fn new(tables: Vec<Arc<Table>>) -> Self {
        // An action that some table never allows is decided already, and with it every feature
        // that only such actions depend on.
        let possible = tables.iter().fold(ALL_ACTIONS, |all, table| all & table.possible());
        let features: BTreeSet<u8> =
            tables.iter().flat_map(|table| table.features_within(possible)).collect();
        let mut features: Vec<u8> = features.into_iter().collect();
        if features.len() > MAX_OUTCOME_FEATURES {
            features.clear();
        }
        Self { tables, features, possible }
    }

    fn rows(&self) -> usize {
        1 << self.features.len()
    }

    fn block(&self, holds: &impl Fn(AtomId) -> bool) -> Vec<Answers> {
        let start = if self.tables.is_empty() { Answers::default() } else { Answers::ALL };
        let mut all = vec![start; self.rows()];
        for table in &self.tables {
            let block = table.block(holds);
            let own: Option<Vec<usize>> =
                table.features.iter().map(|bit| self.features.binary_search(bit).ok()).collect();
            if let Some(own) = own {
                for (index, here) in all.iter_mut().enumerate() {
                    let row = own.iter().enumerate().fold(0, |row, (at, own)| row | (index >> own & 1) << at);
                    *here = here.and(block[row]);
                }
                continue;
            }
            // Rows of the table that a row here stands for: those that agree in the features of both.
            let shared: Vec<(usize, usize)> = table
                .features
                .iter()
                .enumerate()
                .filter_map(|(at, bit)| Some((at, self.features.binary_search(bit).ok()?)))
                .collect();
            for (row, answer) in block.into_iter().enumerate() {
                for (index, here) in all.iter_mut().enumerate() {
                    if shared.iter().all(|(at, own)| row >> at & 1 == index >> own & 1) {
                        *here = here.and(answer);
                    }
                }
            }
        }
        all.into_iter().map(|answers| answers.within(self.possible)).collect()
    }
}

/// Equal things, stored once.
#[derive(Debug)]
pub(super) struct Pool<T> {
    known: HashSet<Arc<T>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { known: HashSet::new() }
    }
}

impl<T: Hash + Eq> Pool<T> {
    /// The one copy of `value`.
    pub(super) fn intern(&mut self, value: T) -> Arc<T> {
        if let Some(known) = self.known.get(&value) {
            return known.clone();
        }
        let value = Arc::new(value);
        self.known.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(enforced: u64) -> Answers {
        Answers { enforced, candidate: enforced, ..Answers::default() }
    }

    #[test]
    fn variables_that_make_no_difference_disappear() {
        let mut rows: Vec<Answers> = [1, 1, 2, 2, 1, 1, 2, 2].map(row).into();
        assert_eq!(reduce(&mut rows, 3), [1]);
        assert_eq!(rows, [row(1), row(2)]);
    }

    #[test]
    fn a_conjunction_allows_what_every_table_allows() {
        let table = |features: &[u8], rows: &[u64]| {
            let body = Body::Rows(rows.iter().map(|bits| row(*bits)).collect());
            Arc::new(Table { features: features.to_vec(), conditions: Vec::new(), body })
        };
        let all = Conjunction::new(vec![table(&[3], &[0b110, 0b100]), table(&[1], &[0b100, 0b110])]);
        assert_eq!(all.features, [1, 3]);
        let allowed: Vec<u64> = all.block(&|_| false).iter().map(|answers| answers.enforced).collect();
        assert_eq!(allowed, [0b100, 0b110, 0b100, 0b100]);
        assert_eq!(Conjunction::new(Vec::new()).block(&|_| false), [Answers::default()]);
    }

    #[test]
    fn both_directions_of_a_candidate_survive_a_conjunction() {
        let one =
            Answers { enforced: 0b011, candidate: 0b101, ..Answers::default() }.masks(Mode::Enforce, None);
        assert_eq!((one.allow, one.would_deny, one.would_allow), (0b011, 0b010, 0b100));
        assert_eq!(both(one, one), one);
        assert_eq!(both(one, Masks::default()), Masks::default());
        let monitor =
            Answers { enforced: 0b011, candidate: 0b101, ..Answers::default() }.masks(Mode::Monitor, None);
        assert_eq!((monitor.allow, monitor.would_allow), (ALL_ACTIONS | MONITORED, 0));
        assert_eq!(monitor.would_deny, ALL_ACTIONS & !0b101);
    }

    #[test]
    fn a_shadow_differs_where_its_verdict_would_be_another_one() {
        use Mode::{Enforce, Monitor};
        let answers = Answers { enforced: 0b011, candidate: 0b011, shadow: 0b110, ..Answers::default() };
        for (mode, shadow, differs) in [
            (Enforce, None, 0),
            (Enforce, Some(Enforce), 0b101),
            (Monitor, Some(Enforce), ALL_ACTIONS & !0b110),
            (Enforce, Some(Monitor), ALL_ACTIONS & !0b011),
            (Monitor, Some(Monitor), 0),
        ] {
            let masks = answers.masks(mode, shadow);
            assert_eq!(masks.differs, differs, "{mode:?} {shadow:?}");
            assert_eq!(Masks { differs: 0, ..masks }, answers.masks(mode, None));
        }
        let (one, two) = (answers.masks(Enforce, Some(Enforce)), answers.masks(Monitor, Some(Enforce)));
        let both = both(one, two);
        assert_eq!((both.allow, both.allow ^ both.differs), (0b011, 0b110));
        assert_eq!(super::both(one, Masks::default()), Masks::default());
    }

    #[test]
    fn on_an_unclassified_file_system_each_side_allows_what_it_would_alone() {
        let table = |live: [u64; 2], shadow: [u64; 2]| {
            let both = |index: usize| Answers { shadow: shadow[index >> 1], ..row(live[index & 1]) };
            let body = Body::Rows((0..4).map(both).collect());
            Arc::new(Table { features: vec![2, 5], conditions: Vec::new(), body })
        };
        let tables = vec![table([0b11, 0b01], [0b111, 0b100]), table([0b01, 0b11], [0b110, 0b110])];
        for shadow in [false, true] {
            for table in &tables {
                assert!(table.side(shadow).features.len() <= 1, "what only the other side asks for is gone");
            }
        }
        let all = Unclassified::new(tables.clone(), true).unwrap();
        assert_eq!(all.features, [2, 5]);
        let wanted = [0b110, 0b110, 0b100, 0b100].map(|shadow| Answers { shadow, ..row(0b01) });
        assert_eq!(all.block(&|_| false), wanted);
        let live = Unclassified::new(tables.iter().map(|table| Arc::new(table.side(false))).collect(), false);
        assert_eq!(live.unwrap().block(&|_| false), [row(0b01), row(0b01)]);
    }
}
