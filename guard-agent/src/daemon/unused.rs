//! What subjects used of what the policy gives them, and which permits were never used.

use super::engine::{ApplyError, Engine, Live};
use super::serve::Shared;
use crate::api::types::{Report, SubjectReport, UnusedPermit};
use crate::events::{BundleRecord, time};
use crate::host::Host;
use crate::policy::{Grant, grants};
use crate::store::{Store, StoreError, Used};
use guard_common::action::{self, Coverage, TABLE};
use guard_common::decide::Tables;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What falls into the classes of a permit, in words, at most.
const WORDS: usize = 5;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is no such subject.
    #[error("the live policy has no subject {0}")]
    NoSubject(String),
    /// Nothing is live.
    #[error("no policy is live")]
    NothingLive,
    /// The policy does not compile any more.
    #[error("{0}")]
    Apply(#[from] ApplyError),
    /// What was used cannot be read.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// What of the use of one generation is with the store already.
#[derive(Debug)]
pub(super) struct Watched {
    /// Since when, in nanoseconds since 1970.
    since: i64,
    /// The words as they were then, by outcome.
    stored: Vec<u64>,
}

impl Watched {
    /// From now on, with nothing stored.
    pub(super) fn begin() -> Self {
        Self { since: time::now(), stored: Vec::new() }
    }
}

impl Engine {
    /// Hands to the store what was used under the live generation. The words go with the generation and
    /// with the daemon, so this is done now and then, after every switch, and at the end.
    pub(super) fn harvest(&mut self) {
        if let Some(live) = &mut self.live {
            live.harvest(self.kernel.used(), &self.store);
        }
    }
}

impl Live {
    /// Hands to the store what is new in `words`, the use words of this generation.
    pub(super) fn harvest(&mut self, words: Vec<u64>, store: &Store) {
        let first = self.watched.stored.is_empty();
        if words.is_empty() || (!first && words == self.watched.stored) {
            return;
        }
        let (name, version, digest) =
            (self.bundle.name.clone(), self.bundle.version, self.bundle.digest.clone());
        let bundle = BundleRecord { name, version, digest };
        for (subject, used) in self.used(&words) {
            if first || !used.classes.is_empty() {
                store.used(&bundle, &subject, self.watched.since, used);
            }
        }
        self.watched.stored = words;
    }

    /// What each subject used that is not stored yet: the actions of an outcome count for every class
    /// that it decides.
    fn used(&self, words: &[u64]) -> BTreeMap<String, Used> {
        let generation = &self.compiled.generation;
        let is_new = |outcome: u32| {
            let word = words.get(outcome as usize).copied().unwrap_or(0);
            let known = self.watched.stored.get(outcome as usize).copied().unwrap_or(0);
            if word == known { 0 } else { word }
        };
        let mut found = BTreeMap::new();
        for (id, subject) in &self.compiled.names.subjects {
            let Some(row) = generation.subjects.get(*id as usize) else { continue };
            let mut used = Used::default();
            for (class, name) in self.compiled.names.classes.iter().enumerate() {
                let Some(number) = generation.cell(row.cells + class as u32) else { continue };
                let word = is_new(row.outcomes + number);
                if word != 0 {
                    *used.classes.entry(name.clone()).or_default() |= word;
                }
            }
            found.insert(subject.clone(), used);
        }
        found
    }
}

impl Shared {
    /// Which permits of the live policy were never used, for one subject or all. Blocks for as long as a
    /// compile takes.
    ///
    /// # Errors
    /// If there is no such subject, or what was used cannot be read.
    pub fn unused(&self, subject: Option<&str>) -> Result<Report, ReportError> {
        let (bundle, ids, status) = {
            let mut engine = self.engine();
            engine.harvest();
            let live = engine.live.as_ref().ok_or(ReportError::NothingLive)?;
            (Arc::clone(&live.bundle), engine.ids.clone(), engine.bundle_status())
        };
        let known = |name: &str| bundle.subjects().any(|subject| subject.name == name);
        if let Some(name) = subject.filter(|name| !known(name)) {
            return Err(ReportError::NoSubject(name.to_owned()));
        }
        let host = Host::read().map_err(ApplyError::Host)?;
        let mut subjects = Vec::new();
        for one in bundle.subjects().filter(|one| subject.is_none_or(|name| one.name == name)) {
            let permits = grants(&bundle, &host, &ids, &one.name).map_err(ApplyError::Invalid)?;
            let watched = self.store().used_since(&bundle.digest, &one.name)?;
            let used = watched.as_ref().map(|watched| watched.used.clone()).unwrap_or_default();
            let mut report = SubjectReport {
                subject: one.name.clone(),
                since: watched.map(|watched| time::rfc3339(watched.since)),
                permits: permits.len(),
                unused: Vec::new(),
                untold: Vec::new(),
            };
            for permit in permits {
                let origin = bundle.origin();
                match judge(&permit, &used) {
                    Found::Used => {}
                    Found::Unused => report.unused.push(described(&permit, origin, None)),
                    Found::Untold(why) => report.untold.push(described(&permit, origin, Some(why))),
                }
            }
            subjects.push(report);
        }
        Ok(Report { schema: Report::SCHEMA.to_owned(), bundle: status, subjects })
    }
}

/// Whether a permit was used.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Used,
    Unused,
    /// It cannot be known.
    Untold(&'static str),
}

fn judge(permit: &Grant, used: &Used) -> Found {
    let decided = TABLE
        .iter()
        .filter(|row| !matches!(row.coverage, Coverage::NotYet))
        .fold(0, |bits, row| bits | row.action.bit());
    if permit.actions == 0 {
        return Found::Untold("it is about Guard's own API, whose use is not counted");
    }
    if permit.actions & decided == 0 {
        return Found::Untold("nothing decides these actions in this version");
    }
    if permit.classes.is_empty() {
        return Found::Untold("it gives nothing now: its condition holds nowhere");
    }
    let hit = permit
        .classes
        .iter()
        .any(|(class, actions)| used.classes.get(class).is_some_and(|used| used & actions & decided != 0));
    if hit { Found::Used } else { Found::Unused }
}

fn described(permit: &Grant, origin: &str, why: Option<&str>) -> UnusedPermit {
    UnusedPermit {
        policy: permit.policy.clone(),
        file: permit.file.strip_prefix(origin).unwrap_or(&permit.file).to_owned(),
        line: permit.line,
        actions: action::names(permit.actions).map(str::to_owned).collect(),
        on: permit.classes.keys().take(WORDS).cloned().collect(),
        more: permit.classes.len().saturating_sub(WORDS),
        why: why.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guard_common::action::Action;

    fn permit(classes: &[(&str, u64)]) -> Grant {
        Grant {
            policy: "web/site".to_owned(),
            file: "/etc/guard/policy/web.cedar".to_owned(),
            line: 5,
            actions: classes.iter().fold(Action::FileRead.bit(), |bits, (_, actions)| bits | actions),
            classes: classes.iter().map(|(class, actions)| ((*class).to_owned(), *actions)).collect(),
        }
    }

    #[test]
    fn a_permit_is_used_if_one_action_on_one_of_its_classes_was() {
        let read = Action::FileRead.bit();
        let used = Used { classes: [("/srv/**".to_owned(), read)].into() };
        let both = permit(&[("/etc/**", read), ("/srv/**", read | Action::FileWrite.bit())]);
        assert_eq!(judge(&both, &used), Found::Used);
        assert_eq!(judge(&permit(&[("/srv/**", Action::FileWrite.bit())]), &used), Found::Unused);
        assert_eq!(judge(&permit(&[("/etc/**", read)]), &used), Found::Unused);
        assert!(matches!(judge(&permit(&[]), &used), Found::Untold(_)));
    }

    #[test]
    fn an_unused_permit_is_described_by_its_place_in_the_bundle() {
        let many: Vec<(String, u64)> =
            (0..7).map(|n| (format!("/srv/{n}"), Action::FileRead.bit())).collect();
        let many: Vec<(&str, u64)> = many.iter().map(|(name, actions)| (name.as_str(), *actions)).collect();
        let found = described(&permit(&many), "/etc/guard/policy/", None);
        assert_eq!((found.file.as_str(), found.line), ("web.cedar", 5));
        assert_eq!((found.actions, found.on.len(), found.more), (vec!["file.read".to_owned()], 5, 2));
    }
}
