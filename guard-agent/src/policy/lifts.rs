//! Which lease would lift a denial: asked for every denial that is reported, so it is answered from the index that
//! explains the tables and not by Cedar.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guard_common::action::Action;
use guard_common::class::Class;

use super::condition::Test;
use super::explanations::Explanations;
use super::formula::AtomId;
use super::posture::{Instant, Posture};
use super::world::Facts;

/// What of a compiled bundle it takes to say so.
#[derive(Clone, Debug)]
pub struct Lifts {
    explanations: Arc<Explanations>,
    /// By row: what its answers depend on. Rows that depend on no lease are not there.
    tests: Arc<BTreeMap<u32, BTreeSet<Test>>>,
}

impl Lifts {
    pub(super) fn new<'a>(
        explanations: Arc<Explanations>,
        rows: impl Iterator<Item = (u32, &'a BTreeMap<AtomId, Test>)>,
    ) -> Self {
        let tests = rows.map(|(row, tests)| (row, tests.values().cloned().collect::<BTreeSet<Test>>()));
        let tests = tests.filter(|(_, tests)| tests.iter().any(|test| matches!(test, Test::Lease(_))));
        Self { explanations, tests: Arc::new(tests.collect()) }
    }

    /// Whether some lease makes a difference to a row.
    pub fn concern(&self, row: u32) -> bool {
        self.tests.contains_key(&row)
    }

    /// The leases each of which alone would have turned the denial of all of these actions into permission, as `posture`
    /// is at `at`. Class and features are those of an event of the same generation.
    pub fn of(
        &self,
        row: u32,
        (class, features): (Class, u64),
        actions: &[Action],
        posture: &Posture,
        at: Instant,
    ) -> Vec<String> {
        let Some(tests) = self.tests.get(&row) else { return Vec::new() };
        let facts = posture.facts_at(at);
        let lacking = tests.iter().filter_map(|test| match test {
            Test::Lease(name) if !facts.leases.contains(name) => Some(name),
            _ => None,
        });
        let allows = |facts: &Facts| {
            let allowed = |action: &Action| {
                let deciding = self.explanations.deciding(row, class, features, *action, facts);
                deciding.is_some_and(|deciding| deciding.enforced.allow)
            };
            !actions.is_empty() && actions.iter().all(allowed)
        };
        // It may have been granted since.
        if allows(&facts) {
            return Vec::new();
        }
        let lifts = |lease: &&String| {
            let mut with = facts.clone();
            with.leases.insert((*lease).clone());
            allows(&with)
        };
        lacking.filter(lifts).cloned().collect()
    }

    /// Until when an answer about a row that was given at `at` is right, if nothing is told.
    pub fn until(&self, row: u32, posture: &Posture, at: Instant) -> Instant {
        let tests = self.tests.get(&row).into_iter().flatten().collect();
        posture.boundaries(at, &tests).first().copied().unwrap_or(Instant::MAX)
    }
}
