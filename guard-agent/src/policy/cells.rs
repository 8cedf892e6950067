//! Cells: the outcome of every (subject, class).

use std::collections::{BTreeSet, HashMap};

use guard_common::class;

use super::classes::{ClassInfo, Classes, Sort, substitute};
use super::features::Features;
use super::formula::{AtomId, Atoms, Formula};
use super::outcome::{Outcomes, Rule, Table, TooManyFeatures};

/// What all subjects share while their cells are computed.
pub(super) struct Cells<'a> {
    pub(super) classes: &'a Classes,
    pub(super) atoms: &'a Atoms,
    pub(super) features: &'a Features,
}

impl Cells<'_> {
    /// The outcomes of one subject, by class.
    ///
    /// Most rules name one literal and are false everywhere else. So the rules that remain without
    /// any literal are found once, and for each class only those that name one of its literals are
    /// looked at again.
    pub(super) fn subject(
        &self,
        rules: &[Rule],
        monitor: bool,
        outcomes: &mut Outcomes,
    ) -> Result<Vec<u32>, TooManyFeatures> {
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
        let mut known: HashMap<(Sort, Vec<AtomId>), u32> = HashMap::new();
        let mut row = Vec::with_capacity(self.classes.list().len());
        for info in self.classes.list() {
            let named: Vec<AtomId> =
                info.cover.iter().copied().filter(|id| mentions.contains_key(id)).collect();
            let key = (info.sort, named);
            let number = match known.get(&key) {
                Some(number) => *number,
                None => {
                    let always =
                        base.entry(info.sort).or_insert_with(|| self.without_literals(rules, info.sort));
                    let mut relevant: BTreeSet<usize> = always.iter().copied().collect();
                    relevant.extend(key.1.iter().flat_map(|id| &mentions[id]));
                    let relevant = relevant.iter().map(|number| &rules[*number]);
                    let table = Table::of(relevant, info, self.atoms, self.features, monitor)?;
                    let number = outcomes.intern(table);
                    known.insert(key, number);
                    number
                }
            };
            row.push(number);
        }
        row[class::UNKNOWN as usize] = self.unknown(&row, outcomes);
        Ok(row)
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

    /// What is allowed where every path class allows it.
    fn unknown(&self, row: &[u32], outcomes: &mut Outcomes) -> u32 {
        let numbers: BTreeSet<u32> = (0..row.len())
            .filter(|number| self.classes.is_compiled_path(*number as u32))
            .map(|number| row[number])
            .collect();
        let tables: Vec<&Table> = numbers.iter().map(|number| outcomes.table(*number)).collect();
        let table = if tables.is_empty() { Table::deny() } else { Table::all_of(&tables) };
        outcomes.intern(table)
    }
}
