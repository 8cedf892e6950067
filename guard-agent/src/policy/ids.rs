//! Numbers of subjects. A number is given once and never to another name.

use std::collections::{BTreeMap, BTreeSet};

use guard_common::label::FIRST_SUBJECT;
use serde::{Deserialize, Serialize};

/// Which number each subject name has, including names that the live bundle no longer holds.
///
/// The daemon stores it: labels outlive bundles, and a number that came to mean another subject
/// would hand one workload the rights of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectIds {
    next: u32,
    ids: BTreeMap<String, u32>,
    /// Numbers of rows for sessions with variables. They are never given to a subject; a session that
    /// ended leaves its row to a later one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    rows: BTreeSet<u32>,
}

impl Default for SubjectIds {
    fn default() -> Self {
        Self { next: FIRST_SUBJECT, ids: BTreeMap::new(), rows: BTreeSet::new() }
    }
}

impl SubjectIds {
    /// The number of `name`; a new one if the name was never seen.
    pub fn assign(&mut self, name: &str) -> u32 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.fresh();
        self.ids.insert(name.to_owned(), id);
        id
    }

    /// A number for the row of a session: one of an ended session, which is not among `taken`, or a new
    /// one.
    pub fn row(&mut self, taken: &BTreeSet<u32>) -> u32 {
        if let Some(free) = self.rows.difference(taken).next() {
            return *free;
        }
        let row = self.fresh();
        self.rows.insert(row);
        row
    }

    fn fresh(&mut self) -> u32 {
        // A stored file could say anything; a number that is in use must not be given again.
        let highest = self.ids.values().chain(&self.rows).max();
        let free = highest.map_or(FIRST_SUBJECT, |highest| highest.saturating_add(1));
        let id = self.next.max(free).max(FIRST_SUBJECT);
        self.next = id.saturating_add(1);
        id
    }

    /// The number of `name`, if it ever had one.
    pub fn get(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// The name with this number.
    pub fn name(&self, id: u32) -> Option<&str> {
        self.ids.iter().find(|(_, known)| **known == id).map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_and_never_given_twice() {
        let mut ids = SubjectIds::default();
        assert_eq!((ids.assign("a"), ids.assign("b"), ids.assign("a")), (16, 17, 16));
        let stored = serde_json::to_string(&ids).unwrap();
        let mut ids: SubjectIds = serde_json::from_str(&stored).unwrap();
        assert_eq!((ids.assign("c"), ids.get("b"), ids.name(18)), (18, Some(17), Some("c")));
    }

    #[test]
    fn rows_of_sessions_are_used_again_and_never_a_subjects() {
        let mut ids = SubjectIds::default();
        ids.assign("a");
        assert_eq!((ids.row(&[].into()), ids.row(&[17].into()), ids.assign("b")), (17, 18, 19));
        assert_eq!((ids.row(&[18].into()), ids.row(&[17, 18].into())), (17, 20));
        let stored = serde_json::to_string(&ids).unwrap();
        let mut ids: SubjectIds = serde_json::from_str(&stored).unwrap();
        assert_eq!((ids.row(&[17, 18].into()), ids.assign("c"), ids.name(17)), (20, 21, None));
    }
}
