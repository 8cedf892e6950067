//! Areas: regions that the parties cannot tell apart, and the decisions in them.

use std::rc::Rc;

use guard_common::tables::ALL_ACTIONS;

use super::choice::Choice;
use crate::policy::formula::AtomId;
use crate::policy::kind::Kind;
use crate::policy::outcome::Rule;

/// Most cases of one area that are looked at.
const MAX_CASES: usize = 1 << 16;

/// What is decided, as bits of actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What goes through.
    pub through: u64,
    /// What all policies together allow, those in monitor mode included.
    pub candidate: u64,
}

/// How the kernel answers for one action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It goes through.
    Allowed,
    /// It goes through, and is reported because the candidate set denies it.
    Reported,
    /// It is denied.
    Denied,
}

impl Verdict {
    /// The answer for one action.
    pub fn state(&self, action: u64) -> State {
        match (self.through & action != 0, self.candidate & action != 0) {
            (true, true) => State::Allowed,
            (true, false) => State::Reported,
            (false, _) => State::Denied,
        }
    }
}

/// The rules of one party that can hold in an area.
#[derive(Clone, Debug)]
pub(super) struct Party {
    pub(super) monitor: bool,
    pub(super) rules: Held,
}

/// How a party decides in an area.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// By these rules.
    Rules(Rc<Vec<Rule>>),
    /// Allowed is what all of these sets allow: a file system that is not classified.
    All(Vec<Rc<Vec<Rule>>>),
    /// The same whatever the resource is: the table would have been too large.
    Fixed(Verdict),
}

/// Regions that the parties cannot tell apart, for one type of resource.
pub struct Area {
    /// Numbers of the regions.
    pub regions: Vec<usize>,
    /// The actions that are taken on this type of resource.
    pub actions: u64,
    /// What resources of these regions can differ in.
    pub choices: Vec<Choice>,
    pub(super) kind: Kind,
    pub(super) support: Vec<AtomId>,
    pub(super) fixed: u64,
    pub(super) parties: Vec<Party>,
}

/// One combination of values.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its number, from 0.
    pub number: usize,
    /// The actions that such a resource can be asked for.
    pub actions: u64,
    bits: u64,
}

#[cfg(test)]
impl Case {
    /// The atoms that hold, as bits of the area's support.
    pub(crate) fn bits(&self) -> u64 {
        self.bits
    }
}

/// A rule that holds in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The policy, by its number in the bundle; none for the permit generated for what is not
    /// governed.
    pub policy: Option<usize>,
    /// Whether it permits.
    pub permit: bool,
    /// Whether it is enforced, as opposed to reported.
    pub enforced: bool,
    /// Whether what it allows is reported.
    pub audit: bool,
    /// The actions.
    pub actions: u64,
}

impl Area {
    /// All cases; nothing if there are too many to look at.
    pub fn cases(&self) -> Option<Vec<Case>> {
        let count = self
            .choices
            .iter()
            .try_fold(1usize, |count, choice| count.checked_mul(choice.values.len()))
            .filter(|count| *count <= MAX_CASES && self.support.len() <= 64)?;
        let case = |number: usize| {
            let (mut rest, mut bits, mut actions) = (number, self.fixed, self.actions);
            for choice in &self.choices {
                let value = &choice.values[rest % choice.values.len()];
                rest /= choice.values.len();
                bits |= value.bits;
                actions &= value.actions;
            }
            Case { number, actions, bits }
        };
        Some((0..count).map(case).collect())
    }

    /// What the party with this number decides.
    pub fn verdict(&self, party: usize, case: &Case) -> Verdict {
        let Party { monitor, rules } = &self.parties[party];
        let (enforced, candidate) = match rules {
            Held::Rules(rules) => self.allowed(rules, case),
            Held::All(sets) => sets.iter().fold((ALL_ACTIONS, ALL_ACTIONS), |(all, all_if), rules| {
                let (enforced, candidate) = self.allowed(rules, case);
                // In monitor mode everything goes through, and what each set reports counts.
                (all & enforced, all_if & candidate & if *monitor { ALL_ACTIONS } else { enforced })
            }),
            Held::Fixed(verdict) => return *verdict,
        };
        Verdict { through: if *monitor { ALL_ACTIONS } else { enforced }, candidate }
    }

    /// What the enforced and the candidate set allow.
    fn allowed(&self, rules: &[Rule], case: &Case) -> (u64, u64) {
        let [mut permitted, mut forbidden, mut permitted_if, mut forbidden_if] = [0u64; 4];
        for rule in self.true_rules(rules, case) {
            let (enforced, candidate) = if rule.permit {
                (&mut permitted, &mut permitted_if)
            } else {
                (&mut forbidden, &mut forbidden_if)
            };
            if rule.candidate {
                *candidate |= rule.actions;
            }
            if rule.enforced {
                *enforced |= rule.actions;
            }
        }
        (permitted & !forbidden, permitted_if & !forbidden_if)
    }

    fn true_rules<'a>(&'a self, rules: &'a [Rule], case: &'a Case) -> impl Iterator<Item = &'a Rule> {
        let value = move |id| self.support.binary_search(&id).is_ok_and(|index| case.bits >> index & 1 != 0);
        rules.iter().filter(move |rule| rule.kind == self.kind && rule.formula.evaluate(&value))
    }

    /// The rules of a party that hold; nothing where it decides by several sets at once.
    pub fn holding(&self, party: usize, case: &Case) -> Vec<Holding> {
        let Held::Rules(rules) = &self.parties[party].rules else { return Vec::new() };
        let holding = |rule: &Rule| Holding {
            policy: rule.policy,
            permit: rule.permit,
            enforced: rule.enforced,
            audit: rule.audit,
            actions: rule.actions,
        };
        self.true_rules(rules, case).map(holding).collect()
    }

    /// The policies that decide an action, by number: forbids that hold, else permits that do. None
    /// of them is the generated permit, or the default.
    pub fn deciding(&self, party: usize, case: &Case, action: u64) -> Vec<usize> {
        let holding = self.holding(party, case);
        let of = |permit: bool| -> Vec<usize> {
            let mut found: Vec<usize> = holding
                .iter()
                .filter(|rule| rule.permit == permit && rule.actions & action != 0)
                .filter_map(|rule| rule.policy)
                .collect();
            found.sort_unstable();
            found.dedup();
            found
        };
        let forbids = of(false);
        if forbids.is_empty() { of(true) } else { forbids }
    }

    /// The policies of a party that can hold in some case, by number.
    pub fn policies(&self, party: usize) -> impl Iterator<Item = usize> {
        let rules: &[Rule] = match &self.parties[party].rules {
            Held::Rules(rules) => rules,
            Held::All(_) | Held::Fixed(_) => &[],
        };
        rules.iter().filter(|rule| rule.kind == self.kind).filter_map(|rule| rule.policy)
    }

    /// The entity type of the resources, without its namespace.
    pub fn resource_type(&self) -> &'static str {
        self.kind.entity_type().trim_start_matches("Guard::")
    }
}
