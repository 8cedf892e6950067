//! What one subject may do and another may not.

use std::collections::{BTreeMap, BTreeSet};

use guard_common::action::TABLE;
use guard_common::tables::OWN;

use super::condition::{Membership, conditions};
use super::region::{self, Where};
use super::{Asked, Survey, View};
use crate::host::Host;
use crate::policy::bundle::Bundle;
use crate::policy::compile::Compiled;
use crate::policy::formula::{Atom, Formula};
use crate::policy::naming::Naming;
use crate::policy::outcome::Rule;
use crate::policy::places::Place;
use crate::policy::report::actions_text;

/// What is more, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::policy) struct Wider {
    /// `file.read /srv/** except /srv/www/**`, one text for each set of actions.
    pub(in crate::policy) more: Vec<String>,
    /// Where decisions depend on too much at once to compare them.
    pub(in crate::policy) undecided: Vec<String>,
}

impl Wider {
    /// Whether the second may do nothing that the first may not.
    pub(in crate::policy) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl<'a> Survey<'a> {
    /// A survey of some rows of tables that were compiled from `bundle`, subjects' or sessions', by what
    /// the enforced set says whatever the mode. Unlike other surveys it leaves open what the context is,
    /// and what is a subject's own is not the same for two of them, so it stays that.
    pub(in crate::policy) fn of_rows(
        bundle: &'a Bundle,
        host: &'a Host,
        compiled: &Compiled,
        rows: &[u32],
    ) -> Self {
        let explanations = &compiled.explanations;
        let own = explanations.atoms.iter().find(|(_, atom, _)| matches!(atom, Atom::Attribute(_, OWN)));
        let own = own.map(|(id, ..)| id);
        let rules = rows.iter().map(|row| {
            let (name, rules) = explanations.of(*row);
            let held = rules.iter().filter(|rule| rule.enforced);
            held.map(|rule| Rule {
                // A process of the subject that asks is one of this name as well.
                formula: rule.formula.substitute(&|id| match (own, explanations.atoms.get(id)) {
                    (Some(own), Atom::IsSubject(_, other)) if other == name => {
                        Formula::Atom(id).or(Formula::Atom(own))
                    }
                    _ => Formula::Atom(id),
                }),
                ..Rule::clone(rule)
            })
            .collect()
        });
        let generation = &compiled.generation;
        let mut regions = region::all(
            &explanations.classes,
            &generation.edges,
            &generation.nodes,
            &generation.net4,
            &generation.net6,
        );
        // What is allowed on every path is allowed there: of two subjects, no more to the one that may do no
        // more on any.
        regions.retain(|region| region.spot != Where::Unclassified);
        let rules: Vec<Vec<_>> = rules.collect();
        let monitor = vec![false; rules.len()];
        Self {
            naming: Naming::new(host),
            views: vec![View { bundle, rules, monitor, tables: None }],
            atoms: explanations.atoms.clone(),
            groups: explanations.groups.clone(),
            classes: explanations.classes.clone(),
            regions,
        }
    }

    /// What the row at `second` may do and the one at `first` may not.
    pub(in crate::policy) fn wider(&self, first: usize, second: usize) -> Wider {
        let asked = [first, second].map(|subject| Asked { bundle: 0, subject });
        let mut spread: BTreeMap<(u64, String), BTreeSet<usize>> = BTreeMap::new();
        let (mut among, mut undecided) = (Vec::new(), Vec::new());
        for area in self.areas(&asked) {
            among.extend(&area.regions);
            let Some(cases) = area.cases() else {
                undecided.extend(&area.regions);
                continue;
            };
            let more: Vec<u64> = cases
                .iter()
                .map(|case| area.verdict(1, case).through & !area.verdict(0, case).through & case.actions)
                .collect();
            let any = more.iter().fold(0, |any, more| any | more);
            for bit in TABLE.iter().map(|row| row.action.bit()).filter(|bit| any & bit != 0) {
                let membership: Vec<Membership> = cases
                    .iter()
                    .zip(&more)
                    .map(|(case, more)| match (case.actions & bit != 0, more & bit != 0) {
                        (false, _) => Membership::Any,
                        (true, true) => Membership::In,
                        (true, false) => Membership::Out,
                    })
                    .collect();
                for condition in conditions(&area, &membership) {
                    spread.entry((bit, condition.text)).or_default().extend(&area.regions);
                }
            }
        }
        among.sort_unstable();
        among.dedup();
        let mut same: BTreeMap<(BTreeSet<usize>, String), u64> = BTreeMap::new();
        for ((bit, condition), regions) in spread {
            *same.entry((regions, condition)).or_default() |= bit;
        }
        let mut texts: Vec<(u64, String)> = same
            .into_iter()
            .map(|((regions, condition), bits)| {
                let regions: Vec<usize> = regions.into_iter().collect();
                let places = self.places(&regions, &among).join(", ");
                let condition = if condition.is_empty() { condition } else { format!(" ({condition})") };
                (bits, format!("{} {places}{condition}", actions_text(bits)))
            })
            .collect();
        texts.sort();
        Wider {
            more: texts.into_iter().map(|(_, text)| text).collect(),
            undecided: if undecided.is_empty() { Vec::new() } else { self.places(&undecided, &among) },
        }
    }

    /// What a row may do, in some state of everything, exactly at a path; nothing where that cannot be
    /// told.
    pub(in crate::policy) fn may_at(&self, row: usize, place: &Place) -> Option<u64> {
        self.may(row, &Where::At(place.device, place.path.clone()))
    }

    /// The same where a region lies.
    pub(in crate::policy) fn may(&self, row: usize, spot: &Where) -> Option<u64> {
        let number = self.regions.iter().position(|region| region.spot == *spot)?;
        let areas = self.areas_of(&[Asked { bundle: 0, subject: row }], number..number + 1);
        areas.into_iter().try_fold(0, |all, area| {
            let cases = area.cases()?;
            Some(cases.iter().fold(all, |all, case| all | area.verdict(0, case).through & case.actions))
        })
    }
}
