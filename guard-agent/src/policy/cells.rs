//! Cells: the outcome of every (subject, class).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use guard_common::class;
use guard_common::tables::{MAX_OUTCOME_FEATURES, MAX_OUTCOMES, Outcome};

use super::classes::{ClassInfo, Classes, Sort, substitute};
use super::features::Features;
use super::formula::{AtomId, Atoms, Formula};
use super::outcome::{Conjunction, Pool, Rule, Table, TooLarge};

/// What all subjects share while their cells are computed.
pub(super) struct Cells<'a> {
    pub(super) classes: &'a Classes,
    pub(super) atoms: &'a Atoms,
    pub(super) features: &'a Features,
}

/// The tables of one subject. Nothing in them depends on posture.
#[derive(Debug)]
pub(super) struct SubjectCells {
    /// Outcome numbers, by class.
    pub(super) cells: Vec<u16>,
    /// Outcomes: one for each group of classes that the subject's policies cannot tell apart.
    pub(super) outcomes: Vec<Outcome>,
    /// The truth tables, in the order of their rows.
    pub(super) tables: Vec<Arc<Table>>,
    /// What is allowed on a file system that is not classified; its rows come last.
    pub(super) unknown: Conjunction,
    /// Mask rows per segment.
    pub(super) rows: u32,
}

impl SubjectCells {
    /// Nothing is allowed, with `classes` classes.
    pub(super) fn deny(classes: usize) -> Self {
        let table = Arc::new(Table::deny());
        Self {
            cells: vec![0; classes],
            outcomes: vec![Outcome::default()],
            tables: vec![table],
            unknown: Conjunction::new(Vec::new()),
            rows: 2,
        }
    }

    /// Makes room for a table and returns the outcome that decides by it.
    fn outcome(base: u32, features: &[u8]) -> Outcome {
        let mut selected = [0; MAX_OUTCOME_FEATURES + 1];
        selected[..features.len()].copy_from_slice(features);
        Outcome { base, features: features.len() as u8, selected }
    }
}

impl Cells<'_> {
    /// The tables of one subject.
    ///
    /// Most rules name one literal and are false everywhere else. So the rules that remain without
    /// any literal are found once, and for each class only those that name one of its literals are
    /// looked at again.
    pub(super) fn subject(&self, rules: &[Rule], pool: &mut Pool<Table>) -> Result<SubjectCells, TooLarge> {
        let mut mentions: HashMap<AtomId, Vec<usize>> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            rule.formula.for_each_atom(&mut |id| {
                let list = mentions.entry(id).or_default();
                if list.last() != Some(&number) {
                    list.push(number);
                }
            });
        }
        let mut base: HashMap<Sort, Vec<usize>> = HashMap::new();
        let mut known: HashMap<(Sort, Vec<AtomId>), u16> = HashMap::new();
        let mut of_table: HashMap<Arc<Table>, u16> = HashMap::new();
        let mut bases: HashMap<Arc<Table>, u32> = HashMap::new();
        let mut built = SubjectCells {
            cells: Vec::with_capacity(self.classes.list().len()),
            outcomes: Vec::new(),
            tables: Vec::new(),
            unknown: Conjunction::new(Vec::new()),
            rows: 0,
        };
        // By outcome number.
        let mut decided: Vec<Arc<Table>> = Vec::new();
        for info in self.classes.list() {
            let named: Vec<AtomId> =
                info.cover.iter().copied().filter(|id| mentions.contains_key(id)).collect();
            let key = (info.sort, named);
            if let Some(number) = known.get(&key) {
                built.cells.push(*number);
                continue;
            }
            let always = base.entry(info.sort).or_insert_with(|| self.without_literals(rules, info.sort));
            let mut relevant: BTreeSet<usize> = always.iter().copied().collect();
            relevant.extend(key.1.iter().flat_map(|id| &mentions[id]));
            let relevant = relevant.iter().map(|number| &rules[*number]);
            let table = pool.intern(Table::of(relevant, info, self.atoms, self.features)?);
            let at = match bases.get(&table) {
                Some(at) => *at,
                None => {
                    let at = built.rows;
                    built.rows += table.rows() as u32;
                    built.tables.push(table.clone());
                    bases.insert(table.clone(), at);
                    at
                }
            };
            // A subject with more groups than a cell can number shares outcomes between equal tables:
            // it is decided the same, and what it used is told less finely.
            let number = match of_table.get(&table) {
                Some(number) if built.outcomes.len() >= MAX_OUTCOMES / 2 => *number,
                _ if built.outcomes.len() + 1 >= MAX_OUTCOMES => return Err(TooLarge::Outcomes),
                _ => {
                    let number = built.outcomes.len() as u16;
                    built.outcomes.push(SubjectCells::outcome(at, &table.features));
                    of_table.insert(table.clone(), number);
                    decided.push(table);
                    number
                }
            };
            known.insert(key, number);
            built.cells.push(number);
        }
        let paths: BTreeSet<u16> = built
            .cells
            .iter()
            .enumerate()
            .filter(|(class, _)| self.classes.is_compiled_path(*class as u32))
            .map(|(_, number)| *number)
            .collect();
        let mut distinct: Vec<Arc<Table>> = Vec::new();
        let mut seen = HashSet::new();
        distinct.extend(
            paths
                .into_iter()
                .map(|number| decided[usize::from(number)].clone())
                .filter(|table| seen.insert(Arc::as_ptr(table))),
        );
        built.unknown = Conjunction::new(distinct);
        built.cells[class::UNKNOWN as usize] = built.outcomes.len() as u16;
        built.outcomes.push(SubjectCells::outcome(built.rows, &built.unknown.features));
        built.rows += built.unknown.rows() as u32;
        Ok(built)
    }

    /// The rules that can be true of a resource that no literal covers.
    fn without_literals(&self, rules: &[Rule], sort: Sort) -> Vec<usize> {
        let bare = ClassInfo { sort, cover: Vec::new().into() };
        (0..rules.len())
            .filter(|number| {
                let rule = &rules[*number];
                sort.admits(rule.kind)
                    && rule.formula.substitute(&|id| substitute(self.atoms, &bare, id)) != Formula::FALSE
            })
            .collect()
    }
}
