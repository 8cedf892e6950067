//! The explanation index: which policies decide what a table answers, by class and action.
//!
//! It is made of the same rules, classes and atoms as the tables, so it explains the answer that the
//! kernel gave, from what the kernel reports of it: the class and the features of the resource.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guard_common::action::Action;
use guard_common::class::{Class, UNKNOWN};

use super::bundle::Bundle;
use super::classes::{Classes, substitute};
use super::effective::{generated_id, own_root_id, unenforceable_id};
use super::features::Features;
use super::formula::{AtomId, Atoms};
use super::ids::SubjectIds;
use super::oracle::Answer;
use super::outcome::Rule;
use super::rules::Rules;
use super::seats::Seat;
use super::world::Facts;

/// Policies by number, and for each subject which rules of them apply.
#[derive(Debug)]
pub(super) struct Explanations {
    pub(super) atoms: Atoms,
    /// By atom: the one that stands for it in the rules.
    pub(super) groups: Vec<AtomId>,
    pub(super) classes: Classes,
    features: Features,
    /// Subject number → its name and rules.
    subjects: BTreeMap<u32, (String, Vec<Arc<Rule>>)>,
    /// Names of the policies, by number.
    policies: Vec<String>,
}

/// What both sets say of one decision, and by which policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deciding {
    /// The enforced set.
    pub enforced: Answer,
    /// The candidate set.
    pub candidate: Answer,
}

impl Explanations {
    pub(super) fn new(
        bundle: &Bundle,
        seats: &[Seat],
        (rules, groups): (Rules, Vec<AtomId>),
        classes: Classes,
        features: Features,
        ids: &mut SubjectIds,
    ) -> Self {
        let Rules { atoms, by_subject, by_seat } = rules;
        let named = bundle.subjects.iter().zip(by_subject);
        let subjects =
            named.map(|(subject, rules)| (ids.assign(&subject.name), (subject.name.clone(), rules)));
        let seated = seats.iter().zip(by_seat).map(|(seat, rules)| (seat.row, (seat.subject.clone(), rules)));
        let subjects = subjects.chain(seated).collect();
        Self { atoms, groups, classes, features, subjects, policies: bundle.policy_ids().collect() }
    }

    /// The subject and the rules of a row, a subject's or a session's; none if there is no such row.
    pub(super) fn of(&self, row: u32) -> (&str, &[Arc<Rule>]) {
        match self.subjects.get(&row) {
            Some((name, rules)) => (name.as_str(), rules.as_slice()),
            None => ("", &[]),
        }
    }

    /// Which policies decide whether `subject` may do `action` with a resource of `class` that has
    /// these features, under `facts`. Nothing if there is no such subject or class, and for a file system
    /// that is not classified: all policies together decide there.
    pub(super) fn deciding(
        &self,
        subject: u32,
        class: Class,
        features: u64,
        action: Action,
        facts: &Facts,
    ) -> Option<Deciding> {
        if class == UNKNOWN {
            return None;
        }
        let (name, rules) = self.subjects.get(&subject)?;
        let info = self.classes.list().get(class as usize)?;
        let atom = |id: AtomId| {
            substitute(&self.atoms, info, id).evaluate(&|id| match self.atoms.get(id).condition() {
                Some(test) => test.holds(facts),
                None => self.features.bit(id).is_some_and(|bit| features >> bit & 1 != 0),
            })
        };
        let holding: Vec<&Rule> = rules
            .iter()
            .map(|rule| &**rule)
            .filter(|rule| rule.actions & action.bit() != 0 && info.sort.admits(rule.kind))
            .filter(|rule| rule.formula.evaluate(&atom))
            .collect();
        let answer = |counts: &dyn Fn(&Rule) -> bool| {
            let of = |permit: bool| -> BTreeSet<String> {
                let rules = holding.iter().filter(|rule| rule.permit == permit && counts(rule));
                rules.map(|rule| self.policy(rule, name)).collect()
            };
            let (permits, forbids) = (of(true), of(false));
            let allow = forbids.is_empty() && !permits.is_empty();
            let policies = if allow { permits } else { forbids };
            Answer { allow, policies: policies.into_iter().collect(), errors: Vec::new() }
        };
        Some(Deciding { enforced: answer(&|rule| rule.enforced), candidate: answer(&|rule| rule.candidate) })
    }

    fn policy(&self, rule: &Rule, subject: &str) -> String {
        match rule.policy {
            Some(number) => self.policies[number].clone(),
            None if rule.permit => generated_id(subject),
            None if rule.own_root => own_root_id(subject),
            None => unenforceable_id(subject),
        }
    }
}
