//! What changes between two bundles, in decisions: newly allowed, newly denied, newly reported.

use std::collections::{BTreeMap, BTreeSet};

use guard_common::action::{self, TABLE};
use serde::Serialize;

use super::elsewhere;
use crate::host::Host;
use crate::policy::survey::{Area, Asked, Case, Condition, Membership, State, Survey, conditions};
use crate::policy::{Bundle, Diagnostics, Facts, selectors_text, successors_text};

/// What a change means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// Denied before, goes through after.
    NewlyAllowed,
    /// Went through before, denied after.
    NewlyDenied,
    /// Goes through before and after; reported after, because it would be denied.
    NewlyReported,
    /// Goes through before and after; no longer reported.
    NoLongerReported,
}

impl Sign {
    /// The sign of a change; nothing if there is none.
    pub fn of(before: State, after: State) -> Option<Self> {
        match (before, after) {
            _ if before == after => None,
            (State::Denied, _) => Some(Self::NewlyAllowed),
            (_, State::Denied) => Some(Self::NewlyDenied),
            (_, State::Reported) => Some(Self::NewlyReported),
            _ => Some(Self::NoLongerReported),
        }
    }
}

/// One change: what a subject may do somewhere, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it means.
    pub change: Sign,
    /// The subject.
    pub subject: String,
    /// The actions, each taken on every one of the resources.
    pub actions: Vec<&'static str>,
    /// The types of the resources.
    pub resource_types: BTreeSet<String>,
    /// The resources in words: `/srv/www/**` is everything below `/srv/www`, itself included.
    pub resources: Vec<String>,
    /// What must hold besides; empty: nothing.
    pub condition: String,
    /// The answer before.
    pub before: State,
    /// The answer after.
    pub after: State,
    /// The policies that decide before; empty: default, or what is not governed.
    pub policies_before: Vec<String>,
    /// The policies that decide after.
    pub policies_after: Vec<String>,
}

impl Change {
    /// How many (action, resource) pairs it stands for.
    pub fn count(&self) -> usize {
        self.actions.len() * self.resources.len()
    }
}

/// A subject whose processes are others after the change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Processes {
    /// The subject.
    pub subject: String,
    /// Its selectors before, and what its processes can become.
    pub before: Vec<String>,
    /// The same after.
    pub after: Vec<String>,
}

/// Everything that differs between two bundles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Subjects that only the second bundle has: their processes are not governed before.
    pub added: Vec<String>,
    /// Subjects that only the first bundle has: their processes are denied everything after.
    pub removed: Vec<String>,
    /// Subjects that are attached to other processes.
    pub processes: Vec<Processes>,
    /// The decisions that differ.
    pub changes: Vec<Change>,
    /// What is too large to decide, by subject. Then nothing is said about it.
    pub undecided: Vec<String>,
}

impl Diff {
    /// Whether the two bundles do the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many (action, resource) pairs changed like this.
    pub fn count(&self, sign: Sign) -> usize {
        self.changes.iter().filter(|change| change.change == sign).map(Change::count).sum()
    }
}

/// What changes from `before` to `after` on `host` under `facts`.
///
/// # Errors
/// If one of them does not compile.
pub fn diff(before: &Bundle, after: &Bundle, host: &Host, facts: &Facts) -> Result<Diff, Diagnostics> {
    let survey = Survey::new(&[before, after], host, facts)?;
    let mut found = Diff::default();
    let names = |bundle: &Bundle| -> BTreeSet<String> {
        bundle.subjects().map(|subject| subject.name.clone()).collect()
    };
    let (old, new) = (names(before), names(after));
    found.added = new.difference(&old).cloned().collect();
    found.removed = old.difference(&new).cloned().collect();
    for name in old.intersection(&new) {
        let position = |bundle: &Bundle| bundle.subjects().position(|subject| subject.name == *name);
        let (Some(first), Some(second)) = (position(before), position(after)) else { continue };
        let selectors = |bundle: &Bundle, at: usize| -> Vec<String> {
            let subject = bundle.subjects().nth(at);
            subject.map_or_else(Vec::new, |subject| {
                [selectors_text(&subject.selectors), successors_text(subject)].concat()
            })
        };
        let (before, after) = (selectors(before, first), selectors(after, second));
        if before != after {
            found.processes.push(Processes { subject: name.clone(), before, after });
        }
        let asked = [Asked { bundle: 0, subject: first }, Asked { bundle: 1, subject: second }];
        compare(&survey, name, &asked, &mut found);
    }
    elsewhere::compare(before, after, host, facts, &survey.actions(), &mut found)?;
    found.changes = joined(std::mem::take(&mut found.changes));
    Ok(found)
}

/// What a change means for one resource in words, besides the actions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct About {
    subject: String,
    change: Sign,
    before: State,
    after: State,
    condition: String,
}

/// What changes for one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Here {
    actions: BTreeSet<(usize, &'static str)>,
    types: BTreeSet<String>,
}

/// The same changes with all actions of one resource together, and resources with the same actions as
/// one change: what changes in a directory is read as one thing.
fn joined(changes: Vec<Change>) -> Vec<Change> {
    let rank = |action: &'static str| {
        (TABLE.iter().position(|row| row.name == action).unwrap_or(usize::MAX), action)
    };
    let mut here: BTreeMap<(About, String), Here> = BTreeMap::new();
    let mut policies: BTreeMap<(About, String), [BTreeSet<String>; 2]> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    for change in changes {
        let about = About {
            subject: change.subject,
            change: change.change,
            before: change.before,
            after: change.after,
            condition: change.condition,
        };
        for resource in change.resources {
            if !order.contains(&resource) {
                order.push(resource.clone());
            }
            let key = (about.clone(), resource);
            let entry = here.entry(key.clone()).or_default();
            entry.actions.extend(change.actions.iter().map(|action| rank(action)));
            entry.types.extend(change.resource_types.iter().cloned());
            let [before, after] = policies.entry(key).or_default();
            before.extend(change.policies_before.iter().cloned());
            after.extend(change.policies_after.iter().cloned());
        }
    }
    let mut groups: BTreeMap<(About, Here), Vec<String>> = BTreeMap::new();
    for ((about, resource), what) in here {
        groups.entry((about, what)).or_default().push(resource);
    }
    let mut joined: Vec<Change> = groups
        .into_iter()
        .map(|((about, what), mut resources)| {
            resources.sort_by_key(|resource| order.iter().position(|known| known == resource));
            let of = |side: usize| -> Vec<String> {
                let held = resources.iter().filter_map(|one| policies.get(&(about.clone(), one.clone())));
                let all: BTreeSet<String> = held.flat_map(|sides| sides[side].iter().cloned()).collect();
                all.into_iter().collect()
            };
            Change {
                change: about.change,
                policies_before: of(0),
                policies_after: of(1),
                subject: about.subject.clone(),
                actions: what.actions.into_iter().map(|(_, action)| action).collect(),
                resource_types: what.types,
                resources,
                condition: about.condition.clone(),
                before: about.before,
                after: about.after,
            }
        })
        .collect();
    joined.sort_by(|a, b| {
        let key = |one: &Change| {
            let actions: Vec<_> = one.actions.iter().map(|action| rank(action)).collect();
            (one.subject.clone(), one.change, actions, one.resources.clone(), one.condition.clone())
        };
        key(a).cmp(&key(b))
    });
    joined
}

/// What one change depends on besides where it is: changes with one key are one line or several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    change: Sign,
    before: State,
    after: State,
    resource_type: &'static str,
    condition: String,
}

/// Regions and deciding policies of one key and action.
#[derive(Default)]
struct Spread {
    regions: BTreeSet<usize>,
    condition: Condition,
    policies_before: BTreeSet<String>,
    policies_after: BTreeSet<String>,
}

fn compare(survey: &Survey<'_>, subject: &str, asked: &[Asked; 2], found: &mut Diff) {
    let mut spread: BTreeMap<Key, BTreeMap<u64, Spread>> = BTreeMap::new();
    // Regions that a type of resource can lie in: what is left out is an exception.
    let mut among: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
    let mut undecided: Vec<usize> = Vec::new();
    for area in survey.areas(asked) {
        among.entry(area.resource_type()).or_default().extend(&area.regions);
        let Some(cases) = area.cases() else {
            undecided.extend(&area.regions);
            continue;
        };
        for row in TABLE.iter().filter(|row| row.action.bit() & area.actions != 0) {
            one_action(survey, asked, &area, &cases, row.action.bit(), &mut spread);
        }
    }
    let everything: Vec<usize> = among.values().flatten().copied().collect();
    if !undecided.is_empty() {
        let places = survey.places(&undecided, &everything).join(", ");
        found.undecided.push(format!("{subject}: decisions on {places} depend on too much at once"));
    }
    for (key, actions) in spread {
        // Actions that changed in the same places are one change.
        let mut same: BTreeMap<BTreeSet<usize>, Vec<(u64, Spread)>> = BTreeMap::new();
        for (action, spread) in actions {
            same.entry(spread.regions.clone()).or_default().push((action, spread));
        }
        for (regions, group) in same {
            let regions: Vec<usize> = regions.into_iter().collect();
            let condition = group.first().map(|(_, spread)| spread.condition.clone()).unwrap_or_default();
            let resources = survey.places_under(&regions, &among[key.resource_type], &condition);
            let union = |of: fn(&Spread) -> &BTreeSet<String>| -> Vec<String> {
                group
                    .iter()
                    .flat_map(|(_, spread)| of(spread))
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .cloned()
                    .collect()
            };
            found.changes.push(Change {
                change: key.change,
                subject: subject.to_owned(),
                actions: action::names(group.iter().fold(0, |bits, (action, _)| bits | action)).collect(),
                resource_types: [key.resource_type.to_owned()].into(),
                resources,
                condition: key.condition.clone(),
                before: key.before,
                after: key.after,
                policies_before: union(|spread| &spread.policies_before),
                policies_after: union(|spread| &spread.policies_after),
            });
        }
    }
}

/// Adds the changes of one action in one area.
fn one_action(
    survey: &Survey<'_>,
    asked: &[Asked; 2],
    area: &Area,
    cases: &[Case],
    action: u64,
    spread: &mut BTreeMap<Key, BTreeMap<u64, Spread>>,
) {
    let states: Vec<Option<(State, State)>> = cases
        .iter()
        .map(|case| {
            let state = |party: usize| area.verdict(party, case).state(action);
            (case.actions & action != 0).then(|| (state(0), state(1)))
        })
        .collect();
    let changes: BTreeSet<(State, State)> =
        states.iter().flatten().filter(|(before, after)| before != after).copied().collect();
    for (before, after) in changes {
        let Some(change) = Sign::of(before, after) else { continue };
        let membership: Vec<Membership> = states
            .iter()
            .map(|state| match state {
                None => Membership::Any,
                Some(state) if *state == (before, after) => Membership::In,
                Some(_) => Membership::Out,
            })
            .collect();
        let policies = |party: usize| -> BTreeSet<String> {
            let held = cases.iter().zip(&membership).filter(|(_, member)| **member == Membership::In);
            held.flat_map(|(case, _)| area.deciding(party, case, action))
                .map(|number| survey.policy_id(asked[party].bundle, number))
                .collect()
        };
        let (policies_before, policies_after) = (policies(0), policies(1));
        for condition in conditions(area, &membership) {
            let text = condition.text.clone();
            let key = Key { change, before, after, resource_type: area.resource_type(), condition: text };
            let entry = spread.entry(key).or_default().entry(action).or_default();
            entry.condition = condition;
            entry.regions.extend(&area.regions);
            entry.policies_before.extend(policies_before.iter().cloned());
            entry.policies_after.extend(policies_after.iter().cloned());
        }
    }
}
