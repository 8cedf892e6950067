//! Facts: which of those that were said count under a bundle, and how they are said and taken back.
//!
//! What is in doubt does not count: a fact that the live bundle does not declare so, one on which two sources
//! differ, and one that is said so often that nobody can mean it.

use super::collectors::{self, Collected};
use super::engine::Engine;
use super::leases::{LeaseError, at};
use super::modes::Now;
use super::pace::Pace;
use super::serve::Shared;
use crate::api::types::FactRequest;
use crate::ledger::{Fact, Ledger, NewFact, Which};
use crate::policy::{Bundle, COLLECTOR, FactValue, Instant, LONGEST_FACT, PROVIDER, Stale, Until};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Longest text of a fact, in bytes.
const MAX_TEXT: usize = 1000;
/// Sources of one fact of one subject, or of the host.
const MAX_SOURCES: usize = 16;

/// What was said, and the bundle that says what of it counts.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) bundle: &'a Bundle,
    pub(super) ledger: &'a Ledger,
    pub(super) collected: &'a Collected,
}

/// Why a fact that was said does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Unfit {
    #[error("it is over")]
    Over,
    #[error("the live bundle does not declare it")]
    Undeclared,
    #[error("the live bundle wants a {0}")]
    Type(&'static str),
    #[error("the live bundle wants it from {0}")]
    Source(String),
    #[error("{0} says otherwise")]
    Disputed(String),
}

/// Who says a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// Whoever may use the admin socket or the directory of facts.
    Anybody,
    /// A command of the agent's configuration.
    Provider,
}

impl Known<'_> {
    /// The facts of a subject that count, each until its end.
    ///
    /// What is said of the subject counts before what is said of the host, and what the agent finds out before both.
    /// Where sources differ nobody knows, so the fact is absent.
    pub(super) fn facts(&self, subject: &str, now: &Now) -> BTreeMap<String, Until<FactValue>> {
        let mut facts = BTreeMap::new();
        for of in [None, Some(subject)] {
            let mut said: BTreeMap<&str, Vec<Until<&FactValue>>> = BTreeMap::new();
            for fact in self.ledger.facts().iter().filter(|fact| fact.subject.as_deref() == of) {
                if let Ok(end) = self.end(fact, now) {
                    said.entry(&fact.name).or_default().push(Until { value: &fact.value, end });
                }
            }
            for (name, words) in said {
                match agreed(&words) {
                    Some(fact) => drop(facts.insert(name.to_owned(), fact)),
                    None => drop(facts.remove(name)),
                }
            }
        }
        for (name, value) in self.collected {
            match value {
                Some(value) => facts.insert(name.clone(), Until { value: value.clone(), end: None }),
                None => facts.remove(name),
            };
        }
        facts
    }

    /// All that is known and not over, by name, with why what does not count does not.
    pub(super) fn all(&self, now: &Now) -> Vec<Fact> {
        let source = |name: &str| self.bundle.source(name).unwrap_or_default();
        let found = self
            .collected
            .iter()
            .filter_map(|(name, value)| Some(Fact::found(name, value.as_ref()?, source(name), now.wall)));
        let said = self.ledger.facts().iter().filter_map(|fact| {
            let ignored = match self.end(fact, now).and_then(|_| self.undisputed(fact, now)) {
                Ok(()) => None,
                Err(Unfit::Over) => return None,
                Err(why) => Some(why.to_string()),
            };
            Some(Fact { ignored, ..fact.clone() })
        });
        let mut all: Vec<Fact> = found.chain(said).collect();
        all.sort_by(|a, b| (&a.name, &a.subject, &a.source).cmp(&(&b.name, &b.subject, &b.source)));
        all
    }

    /// When facts without an end are stale to a subject, if nobody vouches for them before.
    pub(super) fn stale(&self, subject: &str, now: &Now) -> Option<Stale> {
        let definition = self.bundle.subjects().find(|known| known.name == subject)?;
        let at = now.boot.saturating_add(nanoseconds(definition.max_staleness?));
        Some(Stale { at, fail: definition.fail_mode })
    }

    /// The next instant at which the agent vouches for facts without an end: in time for a busy one.
    fn next_vouching(&self, now: &Now) -> Option<Instant> {
        let shortest = self.bundle.subjects().filter_map(|known| known.max_staleness).min()?;
        Some(now.boot.saturating_add(nanoseconds(shortest) / 2))
    }

    /// The next instant at which a lease, a fact or a quarantine ends, or a fact has to be vouched for.
    pub(super) fn next_end(&self, now: &Now) -> Option<Instant> {
        let leases = self.ledger.leases().iter().filter_map(|lease| lease.end(now.boot, &now.boot_id));
        let facts = self.ledger.facts().iter().filter_map(|fact| self.end(fact, now).ok().flatten());
        let quarantines = self.ledger.quarantines().iter();
        let quarantines = quarantines.filter_map(|one| one.end(now.wall, now.boot, &now.boot_id).flatten());
        leases.chain(facts).chain(quarantines).chain(self.next_vouching(now)).min()
    }

    /// Until when what a source says would count if no other said anything.
    fn end(&self, fact: &Fact, now: &Now) -> Result<Option<Instant>, Unfit> {
        let example = self.bundle.facts().get(&fact.name).ok_or(Unfit::Undeclared)?;
        if !example.is_like(&fact.value) {
            return Err(Unfit::Type(in_words(example)));
        }
        if let Some(wanted) = self.bundle.source(&fact.name).filter(|wanted| *wanted != fact.source) {
            return Err(Unfit::Source(wanted.to_owned()));
        }
        fact.end_within(self.bundle.lifetime(&fact.name), now.boot, &now.boot_id).ok_or(Unfit::Over)
    }

    /// Whether no other source says anything else of the same.
    fn undisputed(&self, fact: &Fact, now: &Now) -> Result<(), Unfit> {
        let same = |other: &&Fact| (&other.subject, &other.name) == (&fact.subject, &fact.name);
        let mut others = self.ledger.facts().iter().filter(same);
        let otherwise = others.find(|other| other.value != fact.value && self.end(other, now).is_ok());
        otherwise.map_or(Ok(()), |other| Err(Unfit::Disputed(other.source.clone())))
    }
}

fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

/// What all say, for as long as one of them says it; nothing if they differ.
fn agreed(words: &[Until<&FactValue>]) -> Option<Until<FactValue>> {
    let (first, others) = words.split_first()?;
    let mut end = first.end;
    for other in others {
        if other.value != first.value {
            return None;
        }
        end = end.zip(other.end).map(|(a, b)| a.max(b));
    }
    Some(Until { value: first.value.clone(), end })
}

/// A type, as people call it.
fn in_words(value: &FactValue) -> &'static str {
    match value {
        FactValue::Long(_) => "whole number",
        FactValue::String(_) => "text",
        FactValue::Bool(_) => "true or false",
    }
}

fn no_fact(bundle: &Bundle, name: &str) -> LeaseError {
    let known: Vec<&str> = bundle.facts().keys().map(String::as_str).collect();
    LeaseError::NoFact(name.to_owned(), known.join(", "))
}

/// Whether a fact may be said so under a bundle.
fn check(bundle: &Bundle, request: &FactRequest, writer: Writer) -> Result<(), LeaseError> {
    let name = || request.name.clone();
    let example = bundle.facts().get(&request.name).ok_or_else(|| no_fact(bundle, &request.name))?;
    if !example.is_like(&request.value) {
        let value = serde_json::to_string(&request.value).unwrap_or_default();
        return Err(LeaseError::Type { name: name(), wanted: in_words(example), value });
    }
    if matches!(&request.value, FactValue::String(text) if text.len() > MAX_TEXT) {
        return Err(LeaseError::LongText { name: name(), max: MAX_TEXT });
    }
    if let Some(wanted) = bundle.source(&request.name).filter(|wanted| *wanted != request.source) {
        let given = request.source.clone();
        return Err(LeaseError::Source { name: name(), wanted: wanted.to_owned(), given });
    }
    if request.source.starts_with(COLLECTOR) {
        return Err(LeaseError::Collected(name()));
    }
    if request.source.starts_with(PROVIDER) && writer != Writer::Provider {
        return Err(LeaseError::Provided(request.source.clone()));
    }
    if request.seconds.is_some_and(|seconds| seconds > LONGEST_FACT.as_secs()) {
        return Err(LeaseError::Absurd(name()));
    }
    Ok(())
}

/// For how long a fact holds that was said so long ago; what the bundle says is the longest.
fn lasts(bundle: &Bundle, request: &FactRequest, age: Duration) -> Result<Option<Duration>, LeaseError> {
    let asked = request.seconds.map(Duration::from_secs);
    let lasts = match (asked, bundle.lifetime(&request.name)) {
        (Some(asked), Some(longest)) => Some(asked.min(longest)),
        (asked, longest) => asked.or(longest),
    };
    match lasts.map(|lasts| lasts.saturating_sub(age)) {
        Some(Duration::ZERO) => Err(LeaseError::TooOld(request.name.clone())),
        left => Ok(left),
    }
}

impl Engine {
    /// What is known, and the live bundle.
    pub(super) fn known(&self) -> Option<Known<'_>> {
        let live = self.live.as_ref()?;
        Some(Known { bundle: &live.bundle, ledger: &self.ledger, collected: self.collected() })
    }

    fn set_fact(&mut self, request: &FactRequest, age: Duration, writer: Writer) -> Result<Fact, LeaseError> {
        let subject = request.subject.as_deref();
        let live = self.live.as_ref().ok_or_else(|| LeaseError::NoSubject(String::new()))?;
        if let Some(name) = subject.filter(|name| live.bundle.subjects().all(|known| known.name != *name)) {
            return Err(LeaseError::NoSubject(name.to_owned()));
        }
        check(&live.bundle, request, writer)?;
        let lasts = lasts(&live.bundle, request, age)?;
        let now = Now::read();
        match self.pace.of(subject, &request.name, now.boot) {
            Pace::Slow => {}
            Pace::TooFast { since_now } => {
                if since_now {
                    self.give_up(subject, &request.name);
                }
                return Err(LeaseError::Flood(request.name.clone()));
            }
        }
        let which = Which { subject, name: &request.name, source: &request.source };
        self.make_room(which, &now)?;
        let before = self.ledger.facts().iter().find(|fact| fact.which() == which).cloned();
        let new = NewFact { which, value: request.value.clone(), lasts, age };
        let fact = self.ledger.set_fact(&new, at(&now))?;
        self.told_facts(subject, &[(which, before)])?;
        Ok(fact)
    }

    /// Forgets what other sources said of the same and is over, and says whether there is room for one more.
    fn make_room(&mut self, which: Which<'_>, now: &Now) -> Result<(), LeaseError> {
        let is_other = |fact: &&Fact| {
            let other = fact.which();
            (other.subject, other.name) == (which.subject, which.name) && other.source != which.source
        };
        let is_over = |fact: &Fact| fact.end(now.boot, &now.boot_id).is_none();
        let (over, others): (Vec<Fact>, Vec<Fact>) =
            self.ledger.facts().iter().filter(is_other).cloned().partition(is_over);
        for fact in &over {
            self.ledger.unset_fact(fact.which(), at(now))?;
        }
        if others.len() < MAX_SOURCES {
            return Ok(());
        }
        Err(LeaseError::Sources { name: which.name.to_owned(), max: MAX_SOURCES })
    }

    /// Takes back what is said so often that nobody can mean it: it is absent.
    fn give_up(&mut self, subject: Option<&str>, name: &str) {
        match self.unset_facts(subject, name, None) {
            Ok(_) => tracing::error!(name, subject, "a fact is said too often to be believed: it is absent"),
            Err(LeaseError::Nothing(_)) => {}
            Err(error) => {
                tracing::error!(name, subject, "a fact is said too often and cannot be taken back: {error}")
            }
        }
    }

    /// Takes back what one source, or whoever, said.
    fn unset_facts(
        &mut self,
        subject: Option<&str>,
        name: &str,
        source: Option<&str>,
    ) -> Result<Vec<Fact>, LeaseError> {
        let is_meant = |fact: &&Fact| {
            fact.subject.as_deref() == subject
                && fact.name == name
                && source.is_none_or(|source| fact.source == source)
        };
        let meant: Vec<Fact> = self.ledger.facts().iter().filter(is_meant).cloned().collect();
        if meant.is_empty() {
            return Err(LeaseError::Nothing(format!("fact {name}")));
        }
        let now = Now::read();
        for fact in &meant {
            self.ledger.unset_fact(fact.which(), at(&now))?;
        }
        let before: Vec<_> = meant.iter().map(|fact| (fact.which(), Some(fact.clone()))).collect();
        self.told_facts(subject, &before)?;
        Ok(meant)
    }

    /// Tells the kernel of facts that changed, or makes them what they were before.
    fn told_facts(
        &mut self,
        subject: Option<&str>,
        before: &[(Which<'_>, Option<Fact>)],
    ) -> Result<(), LeaseError> {
        let Err(error) = self.tell_subjects(subject) else { return Ok(()) };
        for (which, fact) in before {
            if let Err(error) = self.ledger.restore_fact(*which, fact.clone()) {
                tracing::error!("the fact {} is recorded and does not count: {error}", which.name);
            }
        }
        if let Err(error) = self.tell_subjects(subject) {
            tracing::error!("some subjects may be told other facts than are recorded: {error}");
        }
        Err(error.into())
    }
}

impl Shared {
    /// Records a fact that was told so long ago, and tells the kernel.
    ///
    /// # Errors
    /// If the bundle does not declare it so, it is over already, or it cannot be made so.
    pub fn set_fact(&self, request: &FactRequest, age: Duration, by: &str) -> Result<Fact, LeaseError> {
        self.say(request, age, by, Writer::Anybody)
    }

    /// The same for whoever says it.
    pub(super) fn say(
        &self,
        request: &FactRequest,
        age: Duration,
        by: &str,
        writer: Writer,
    ) -> Result<Fact, LeaseError> {
        let fact = self.change_ledger(None, |engine| engine.set_fact(request, age, writer))?;
        tracing::info!(fact.name, fact.subject, fact.source, by, "a fact was set");
        Ok(fact)
    }

    /// Takes back what one source said of a fact, or what all did.
    ///
    /// # Errors
    /// If there is none, or it cannot be made so.
    pub fn unset_facts(
        &self,
        subject: Option<&str>,
        name: &str,
        source: Option<&str>,
        by: &str,
    ) -> Result<Vec<Fact>, LeaseError> {
        let facts = self.change_ledger(None, |engine| engine.unset_facts(subject, name, source))?;
        for fact in &facts {
            tracing::info!(fact.name, fact.subject, fact.source, by, "a fact was taken back");
        }
        Ok(facts)
    }

    /// The facts that are known, by name.
    pub fn facts(&self) -> Vec<Fact> {
        let now = Now::read();
        self.engine().known().map(|known| known.all(&now)).unwrap_or_default()
    }

    /// The systemd units whose state the live bundle asks for.
    pub(super) fn units(&self) -> BTreeSet<String> {
        self.engine().live.as_ref().map(|live| collectors::units(&live.bundle)).unwrap_or_default()
    }

    /// Whether the live bundle declares one of these facts.
    pub(super) fn declares(&self, facts: &[String]) -> bool {
        let engine = self.engine();
        let declared = engine.live.as_ref().map(|live| live.bundle.facts());
        declared.is_some_and(|declared| facts.iter().any(|fact| declared.contains_key(fact)))
    }
}

#[cfg(test)]
#[path = "facts_tests.rs"]
mod tests;
