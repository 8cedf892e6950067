//! The catalogue of ways round a program like Guard: what somebody would try, what answers it, and the
//! tests that show the answer. `docs/bypasses.md` is made from it and from what the tests gave.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

mod deputies;
mod exec;
mod exhaustion;
mod files;
mod identity;
mod network;
mod page;
mod results;
mod revocation;
mod self_protection;

pub(crate) use page::write;
use results::Results;

/// One way to try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Its name: chapter and number, which stay its own for ever.
    pub(crate) id: &'static str,
    /// What somebody does.
    pub(crate) technique: &'static str,
    /// What Guard makes of it.
    pub(crate) answer: &'static str,
    /// The tests that show it.
    pub(crate) tests: &'static [&'static str],
    /// How far the answer goes.
    pub(crate) state: State,
}

/// How far an entry is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// In whole, if its tests pass.
    Answered,
    /// It is not for Guard to answer, or not for this version.
    OutOfScope {
        /// Why.
        reason: &'static str,
        /// What helps.
        instead: &'static str,
    },
}

/// Entries of one kind.
pub(crate) struct Chapter {
    /// Heading of its table.
    pub(crate) name: &'static str,
    /// In the order of their numbers.
    pub(crate) entries: &'static [Entry],
}

/// All of it.
pub(crate) const CATALOGUE: &[Chapter] = &[
    identity::CHAPTER,
    exec::CHAPTER,
    files::CHAPTER,
    network::CHAPTER,
    deputies::CHAPTER,
    revocation::CHAPTER,
    self_protection::CHAPTER,
    exhaustion::CHAPTER,
];

/// An entry that its tests show to be answered.
const fn answered(
    id: &'static str,
    technique: &'static str,
    answer: &'static str,
    tests: &'static [&'static str],
) -> Entry {
    Entry { id, technique, answer, tests, state: State::Answered }
}

/// An entry that something else must answer.
const fn out_of_scope(
    id: &'static str,
    technique: &'static str,
    reason: &'static str,
    instead: &'static str,
) -> Entry {
    Entry { id, technique, answer: "", tests: &[], state: State::OutOfScope { reason, instead } }
}

/// Every entry, in order.
pub(crate) fn entries() -> impl Iterator<Item = &'static Entry> {
    CATALOGUE.iter().flat_map(|chapter| chapter.entries)
}

/// The entries that `wanted` means: one by its name, or `all`.
pub(crate) fn find(wanted: &str) -> Result<Vec<&'static Entry>> {
    let found: Vec<_> =
        entries().filter(|entry| wanted == "all" || entry.id.eq_ignore_ascii_case(wanted)).collect();
    if found.is_empty() {
        bail!("the catalogue has no entry {wanted}: docs/bypasses.md lists them; \"all\" means all of them");
    }
    Ok(found)
}

/// Whether every test that the catalogue names is one of `tests`.
pub(crate) fn check(tests: &BTreeSet<&str>) -> Result<()> {
    for entry in entries() {
        if let Some(missing) = entry.tests.iter().find(|test| !tests.contains(*test)) {
            bail!("entry {} of the catalogue names the test {missing}, which there is not", entry.id);
        }
    }
    Ok(())
}

/// One line per entry for other programs: name, state, tests, and what is said of it, between tabs.
pub(crate) fn print() {
    for entry in entries() {
        let (state, said) = match entry.state {
            State::Answered => ("answered", entry.answer),
            State::OutOfScope { reason, .. } => ("out-of-scope", reason),
        };
        println!("{}\t{state}\t{}\t{said}", entry.id, entry.tests.join(","));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_that_is_named_exists() {
        check(&crate::family::every_test()).unwrap();
    }

    #[test]
    fn names_are_unique_and_states_make_sense() {
        let mut seen = BTreeSet::new();
        for entry in entries() {
            assert!(seen.insert(entry.id), "{} is there twice", entry.id);
            match entry.state {
                State::Answered => assert!(!entry.tests.is_empty(), "{} names no test", entry.id),
                State::OutOfScope { .. } => assert!(entry.tests.is_empty(), "{}", entry.id),
            }
            let texts = [entry.technique, entry.answer];
            assert!(texts.iter().all(|text| !text.contains(['|', '\n', '\t'])), "{}", entry.id);
        }
    }
}
