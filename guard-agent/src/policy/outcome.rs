//! Truth tables: what one subject may do with one class, over the features that matter.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use guard_common::tables::{ALL_ACTIONS, MAX_OUTCOME_FEATURES, Masks, Outcome};

use super::classes::{ClassInfo, substitute};
use super::features::Features;
use super::formula::{AtomId, Atoms, Formula};
use super::kind::Kind;

/// One policy for one subject and one type of resource.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) kind: Kind,
    pub(super) actions: u64,
    pub(super) permit: bool,
    /// Part of the enforced set; otherwise of the candidate set only.
    pub(super) enforced: bool,
    pub(super) audit: bool,
    pub(super) formula: Formula,
    /// Index of the policy, for diagnostics; `None` for generated permits.
    pub(super) policy: Option<usize>,
}

/// An outcome depends on more features than a truth table may have.
#[derive(Debug)]
pub(super) struct TooManyFeatures {
    /// The policy that depends on most of them.
    pub(super) policy: Option<usize>,
    /// How many there are.
    pub(super) count: usize,
}

/// A truth table before it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Table {
    /// Bits of the features that matter, ascending.
    pub(super) features: Vec<u8>,
    /// One row per combination.
    pub(super) rows: Vec<Masks>,
}

impl Table {
    /// Nothing is allowed.
    pub(super) fn deny() -> Self {
        Self { features: Vec::new(), rows: vec![Masks::default()] }
    }

    /// The table of `rules` for resources of class `info`.
    pub(super) fn of<'a>(
        rules: impl Iterator<Item = &'a Rule>,
        info: &ClassInfo,
        atoms: &Atoms,
        features: &Features,
        monitor: bool,
    ) -> Result<Self, TooManyFeatures> {
        let mut left: Vec<Rule> = rules
            .filter(|rule| info.sort.admits(rule.kind))
            .map(|rule| Rule {
                formula: rule.formula.substitute(&|id| substitute(atoms, info, id)),
                ..rule.clone()
            })
            .filter(|rule| rule.formula != Formula::FALSE)
            .collect();
        prune(&mut left);
        let mut support: BTreeSet<AtomId> = BTreeSet::new();
        for rule in &left {
            rule.formula.for_each_atom(&mut |id| {
                support.insert(id);
            });
        }
        if support.len() > MAX_OUTCOME_FEATURES {
            let size = |rule: &&Rule| {
                let mut own = BTreeSet::new();
                rule.formula.for_each_atom(&mut |id| {
                    own.insert(id);
                });
                own.len()
            };
            let policy = left.iter().max_by_key(size).and_then(|rule| rule.policy);
            return Err(TooManyFeatures { policy, count: support.len() });
        }
        let support: Vec<AtomId> = support.into_iter().collect();
        let rows = (0..1u32 << support.len())
            .map(|row| {
                let value = |id: AtomId| support.binary_search(&id).is_ok_and(|index| row >> index & 1 != 0);
                masks(&left, &value, monitor)
            })
            .collect();
        // Atoms are numbered in the order of their bits.
        let features = support.iter().filter_map(|id| features.bit(*id)).collect();
        Ok(Self { features, rows }.reduced())
    }

    /// Without the features that make no difference.
    pub(super) fn reduced(mut self) -> Self {
        let mut index = 0;
        while index < self.features.len() {
            let bit = 1 << index;
            let matters =
                (0..self.rows.len()).any(|row| row & bit == 0 && self.rows[row] != self.rows[row | bit]);
            if matters {
                index += 1;
            } else {
                self.features.remove(index);
                let rows = std::mem::take(&mut self.rows);
                self.rows = rows
                    .into_iter()
                    .enumerate()
                    .filter(|(row, _)| row & bit == 0)
                    .map(|(_, row)| row)
                    .collect();
            }
        }
        self
    }

    /// The row for a feature word.
    fn row(&self, word: u64) -> Masks {
        let index =
            self.features.iter().enumerate().fold(0, |index, (at, bit)| index | (word >> bit & 1) << at);
        self.rows.get(index as usize).copied().unwrap_or_default()
    }

    /// Allows what all of `tables` allow. If that depends on too many features, what they allow
    /// whatever the features are.
    pub(super) fn all_of(tables: &[&Self]) -> Self {
        // An action that some table never allows is decided already, and with it every feature
        // that only such actions depend on.
        let possible = tables
            .iter()
            .fold(ALL_ACTIONS, |all, table| all & table.rows.iter().fold(0, |any, row| any | row.allow));
        let relevant: Vec<Self> = tables
            .iter()
            .map(|table| {
                let cut = |row: &Masks| Masks {
                    allow: row.allow & possible,
                    would_deny: row.would_deny & possible,
                    audit: row.audit & possible,
                };
                Self { features: table.features.clone(), rows: table.rows.iter().map(cut).collect() }
                    .reduced()
            })
            .collect();
        let features: BTreeSet<u8> =
            relevant.iter().flat_map(|table| table.features.iter().copied()).collect();
        let features: Vec<u8> = features.into_iter().collect();
        let merge = |all: Masks, row: Masks| {
            // A row that denies an action has no say in what the candidate set would do.
            let candidate = (all.allow & !all.would_deny) & (row.allow & !row.would_deny);
            let allow = all.allow & row.allow;
            Masks { allow, would_deny: allow & !candidate, audit: (all.audit | row.audit) & allow }
        };
        let start = Masks { allow: ALL_ACTIONS, would_deny: 0, audit: 0 };
        if features.len() > MAX_OUTCOME_FEATURES {
            let rows = relevant.iter().flat_map(|table| table.rows.iter().copied());
            return Self { features: Vec::new(), rows: vec![rows.fold(start, merge)] };
        }
        let rows = (0..1u64 << features.len())
            .map(|row| {
                let word =
                    features.iter().enumerate().fold(0, |word, (at, bit)| word | (row >> at & 1) << bit);
                relevant.iter().fold(start, |all, table| merge(all, table.row(word)))
            })
            .collect();
        Self { features, rows }.reduced()
    }
}

/// The answers under one assignment of the features.
fn masks(rules: &[Rule], value: &impl Fn(AtomId) -> bool, monitor: bool) -> Masks {
    let [mut permitted, mut forbidden, mut permitted_if, mut forbidden_if, mut audit] = [0u64; 5];
    for rule in rules.iter().filter(|rule| rule.formula.evaluate(value)) {
        let (enforced, candidate) = if rule.permit {
            (&mut permitted, &mut permitted_if)
        } else {
            (&mut forbidden, &mut forbidden_if)
        };
        *candidate |= rule.actions;
        if rule.enforced {
            *enforced |= rule.actions;
        }
        if rule.audit {
            audit |= rule.actions;
        }
    }
    let allow = if monitor { ALL_ACTIONS } else { permitted & !forbidden };
    Masks { allow, would_deny: allow & !(permitted_if & !forbidden_if), audit: audit & allow }
}

/// Drops what cannot change an answer, and with it the features only it depends on.
fn prune(rules: &mut Vec<Rule>) {
    let always = |rules: &[Rule], permit: bool, enforced_only: bool| {
        rules
            .iter()
            .filter(|rule| {
                rule.permit == permit && (rule.enforced || !enforced_only) && rule.formula == Formula::TRUE
            })
            .fold(0, |bits, rule| bits | rule.actions)
    };
    // An enforced rule is part of both sets, so what the enforced rules settle is settled.
    let forbidden = always(rules, false, true);
    let permitted = always(rules, true, true);
    let possible =
        rules.iter().filter(|rule| rule.permit).fold(0, |bits, rule| bits | rule.actions) & !forbidden;
    for rule in rules.iter_mut().filter(|rule| !rule.audit) {
        if rule.formula == Formula::TRUE && rule.enforced {
            continue;
        }
        rule.actions &= if rule.permit { possible & !permitted } else { possible };
    }
    rules.retain(|rule| rule.actions != 0);
}

/// Tables with numbers, each stored once.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) masks: Vec<Masks>,
    tables: Vec<Arc<Table>>,
    numbers: HashMap<Arc<Table>, u32>,
    blocks: HashMap<Vec<Masks>, u32>,
}

impl Outcomes {
    /// The number of a table.
    pub(super) fn intern(&mut self, table: Table) -> u32 {
        if let Some(number) = self.numbers.get(&table) {
            return *number;
        }
        let base = match self.blocks.get(&table.rows) {
            Some(base) => *base,
            None => {
                let base = self.masks.len() as u32;
                self.masks.extend(&table.rows);
                self.blocks.insert(table.rows.clone(), base);
                base
            }
        };
        let mut selected = [0; MAX_OUTCOME_FEATURES + 1];
        selected[..table.features.len()].copy_from_slice(&table.features);
        let number = self.outcomes.len() as u32;
        self.outcomes.push(Outcome { base, features: table.features.len() as u8, selected });
        let table = Arc::new(table);
        self.tables.push(table.clone());
        self.numbers.insert(table, number);
        number
    }

    /// The table with this number.
    pub(super) fn table(&self, number: u32) -> &Table {
        &self.tables[number as usize]
    }
}
