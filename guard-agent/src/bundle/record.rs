//! What a host remembers of the bundles it enforced, and what that forbids. Pure: no files, no clock.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::trust::Standing;

/// The one format of records.
const FORMAT: u32 = 1;
/// Entries that are kept.
const MAX_ENTRIES: usize = 100;

/// History, hold, and the newest version of every signed bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    format: u32,
    next: u64,
    history: Vec<Entry>,
    newest: BTreeMap<String, Newest>,
    hold: Option<Hold>,
}

/// How a bundle became the live one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "HistoryHow"))]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// The daemon started with it.
    Start,
    /// It was applied, or its directory was read again.
    Apply,
    /// It was live before, and somebody went back to it.
    Rollback,
    /// It was a shadow, and somebody made it live.
    Promote,
}

/// One change of the live bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "HistoryEntry"))]
pub struct Entry {
    /// Number of the change, from 1.
    pub number: u64,
    /// How it came about.
    pub how: How,
    /// When, RFC 3339 UTC.
    pub at: String,
    /// Name of the bundle.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Its digest; the files are kept under this name.
    pub digest: String,
    /// Where it was read from.
    pub source: String,
    /// Names of the trusted keys that signed it; none if it is local.
    pub signed_by: Vec<String>,
    /// Who asked for it.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of a rollback: the number of the change that it went back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_to: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Newest {
    version: u64,
    digest: String,
}

/// Nothing else is applied until it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Hold {
    /// When it ends by itself, RFC 3339 UTC.
    pub until: String,
    /// Who asked for it.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is asked about a bundle that is to become live.
#[derive(Clone, Copy, Debug)]
pub struct Proposed<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: u64,
    /// Its digest.
    pub digest: &'a str,
    /// How it was accepted.
    pub standing: &'a Standing,
}

/// What making a candidate live would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is live already.
    Unchanged,
    /// Another bundle becomes live.
    Changed,
}

/// Why a valid bundle does not become live.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// An older version of the same signed bundle.
    #[error(
        "{name} version {version} is older than version {newest}, which this host has had: build a newer version, or go back with guardctl policy rollback"
    )]
    Older {
        /// Name of the bundle.
        name: String,
        /// Its version.
        version: u64,
        /// The newest version that was live.
        newest: u64,
    },
    /// The same version with other contents.
    #[error(
        "{name} version {version} is known to this host with other contents (digest {known}): a signed version never changes, build a new one"
    )]
    Conflict {
        /// Name of the bundle.
        name: String,
        /// Its version.
        version: u64,
        /// Digest of the one that was live.
        known: String,
    },
    /// A hold is in force.
    #[error("the live policy is held until {until}{why}: guardctl policy release-hold ends that")]
    Held {
        /// When it ends.
        until: String,
        /// Its reason in brackets, or nothing.
        why: String,
    },
    /// There is nothing to go back to.
    #[error("no other bundle was live on this host before this one: there is nothing to go back to")]
    NothingBefore,
}

impl Denied {
    /// Stable name for tools.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Older { .. } => "older-version",
            Self::Conflict { .. } => "version-conflict",
            Self::Held { .. } => "held",
            Self::NothingBefore => "nothing-before",
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self { format: FORMAT, next: 1, history: Vec::new(), newest: BTreeMap::new(), hold: None }
    }
}

impl Record {
    /// A record that was stored.
    ///
    /// # Errors
    /// If this version does not understand it: what it forbids must not be forgotten.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let ordered = record.history.is_sorted_by(|a, b| a.number < b.number);
        let counted = record.history.last().is_none_or(|last| last.number < record.next);
        match record.format {
            FORMAT if ordered && counted => Ok(record),
            FORMAT => Err("its entries are not in order".to_owned()),
            other => Err(format!("it has format {other}, and this agent reads format {FORMAT}")),
        }
    }

    /// Every kept change, oldest first.
    pub fn history(&self) -> &[Entry] {
        &self.history
    }

    /// The change that made the live bundle live.
    pub fn live(&self) -> Option<&Entry> {
        self.history.last()
    }

    /// The hold in force at `now`. One whose end cannot be read is in force.
    pub fn hold(&self, now: Timestamp) -> Option<&Hold> {
        self.hold.as_ref().filter(|hold| hold.until.parse::<Timestamp>().map_or(true, |until| until > now))
    }

    /// What making a candidate live would do. `live` is the digest of the live bundle.
    ///
    /// # Errors
    /// Why it may not become live.
    pub fn admit(
        &self,
        candidate: Proposed<'_>,
        live: Option<&str>,
        now: Timestamp,
    ) -> Result<Effect, Denied> {
        if live == Some(candidate.digest) {
            return Ok(Effect::Unchanged);
        }
        self.free(now)?;
        self.known(candidate)?;
        Ok(Effect::Changed)
    }

    /// That no newer version of a signed bundle was live, and none with other contents under its version.
    ///
    /// # Errors
    /// Which one was.
    pub fn known(&self, candidate: Proposed<'_>) -> Result<(), Denied> {
        // Versions of unsigned bundles are what somebody types while writing them.
        if let (Standing::Signed(_), Some(newest)) = (candidate.standing, self.newest.get(candidate.name)) {
            let (name, version) = (candidate.name.to_owned(), candidate.version);
            if version < newest.version {
                return Err(Denied::Older { name, version, newest: newest.version });
            }
            if version == newest.version && candidate.digest != newest.digest {
                return Err(Denied::Conflict { name, version, known: newest.digest.clone() });
            }
        }
        Ok(())
    }

    /// That nothing is held.
    ///
    /// # Errors
    /// The hold.
    pub fn free(&self, now: Timestamp) -> Result<(), Denied> {
        match self.hold(now) {
            None => Ok(()),
            Some(hold) => {
                let why = hold.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                Err(Denied::Held { until: hold.until.clone(), why })
            }
        }
    }

    /// The change to go back to: the last one before the live bundle's own that had another bundle.
    /// Going back again and again goes further back.
    ///
    /// # Errors
    /// If there is none.
    pub fn before(&self) -> Result<&Entry, Denied> {
        let live = self.live().ok_or(Denied::NothingBefore)?;
        let position = live.back_to.unwrap_or(live.number);
        let earlier = self.history.iter().rev().filter(|entry| entry.number < position);
        let mut earlier = earlier.filter(|entry| entry.how != How::Rollback && entry.digest != live.digest);
        earlier.next().ok_or(Denied::NothingBefore)
    }

    /// Remembers a change. Its number is given here.
    pub fn push(&mut self, mut entry: Entry) {
        entry.number = self.next;
        self.next = self.next.saturating_add(1);
        if !entry.signed_by.is_empty() && entry.how != How::Rollback {
            let newest = Newest { version: entry.version, digest: entry.digest.clone() };
            self.newest.insert(entry.name.clone(), newest);
        }
        self.history.push(entry);
        let surplus = self.history.len().saturating_sub(MAX_ENTRIES);
        self.history.drain(..surplus);
    }

    /// Puts a hold in force, or ends it.
    pub fn set_hold(&mut self, hold: Option<Hold>) -> Option<Hold> {
        std::mem::replace(&mut self.hold, hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const NOW: &str = "2026-01-01T12:00:00Z";

    fn signed() -> Standing {
        Standing::Signed(vec!["release".into()])
    }

    fn entry(how: How, version: u64, standing: &Standing) -> Entry {
        let signed_by = if let Standing::Signed(by) = standing { by.clone() } else { Vec::new() };
        Entry {
            number: 0,
            how,
            at: NOW.into(),
            name: "web".into(),
            version,
            digest: format!("d{version}"),
            source: "/x".into(),
            signed_by,
            by: "uid 0".into(),
            reason: None,
            back_to: None,
        }
    }

    fn admit(record: &Record, version: u64, digest: &str, standing: &Standing) -> Result<Effect, Denied> {
        let live = record.live().map(|entry| entry.digest.clone());
        record.admit(Proposed { name: "web", version, digest, standing }, live.as_deref(), at(NOW))
    }

    #[test]
    fn a_signed_version_never_changes_and_never_goes_back_by_itself() {
        let mut record = Record::default();
        assert_eq!(admit(&record, 3, "d3", &signed()), Ok(Effect::Changed));
        record.push(entry(How::Apply, 3, &signed()));
        assert_eq!(admit(&record, 3, "d3", &signed()), Ok(Effect::Unchanged));
        assert_eq!(admit(&record, 3, "x", &signed()).unwrap_err().code(), "version-conflict");
        assert_eq!(admit(&record, 2, "d2", &signed()).unwrap_err().code(), "older-version");
        assert_eq!(admit(&record, 4, "d4", &signed()), Ok(Effect::Changed));
        // After a rollback the newer one may come again, but only as what it was.
        record.push(entry(How::Apply, 4, &signed()));
        record.push(Entry { back_to: Some(1), ..entry(How::Rollback, 3, &signed()) });
        assert_eq!(admit(&record, 4, "d4", &signed()), Ok(Effect::Changed));
        assert_eq!(admit(&record, 4, "x", &signed()).unwrap_err().code(), "version-conflict");
        assert_eq!(admit(&record, 3, "d3", &signed()), Ok(Effect::Unchanged));
        let other = Proposed { name: "db", version: 1, digest: "e", standing: &signed() };
        assert_eq!(record.admit(other, Some("d3"), at(NOW)), Ok(Effect::Changed));
    }

    #[test]
    fn versions_of_local_bundles_are_free() {
        let mut record = Record::default();
        record.push(entry(How::Apply, 3, &Standing::Local));
        assert_eq!(admit(&record, 3, "x", &Standing::Local), Ok(Effect::Changed));
        assert_eq!(admit(&record, 1, "y", &Standing::Local), Ok(Effect::Changed));
        assert_eq!(admit(&record, 3, "d3", &Standing::Local), Ok(Effect::Unchanged));
    }

    #[test]
    fn a_hold_refuses_everything_but_what_is_live_until_it_ends() {
        let mut record = Record::default();
        record.push(entry(How::Apply, 3, &signed()));
        let hold = |until: &str| {
            Some(Hold { until: until.into(), by: "uid 0".into(), reason: Some("INC-1".into()) })
        };
        record.set_hold(hold("2026-01-01T12:00:01Z"));
        let error = admit(&record, 4, "d4", &signed()).unwrap_err();
        assert!(error.to_string().contains("(INC-1)") && error.code() == "held", "{error}");
        assert_eq!(admit(&record, 3, "d3", &signed()), Ok(Effect::Unchanged));
        record.set_hold(hold("2026-01-01T12:00:00Z"));
        assert_eq!(admit(&record, 4, "d4", &signed()), Ok(Effect::Changed));
        record.set_hold(hold("some day"));
        assert!(record.hold(at(NOW)).is_some(), "what cannot be read holds");
        record.set_hold(None);
        assert!(record.hold(at(NOW)).is_none());
    }

    #[test]
    fn going_back_again_goes_further_back() {
        let mut record = Record::default();
        assert_eq!(record.before(), Err(Denied::NothingBefore));
        for version in 1..=3 {
            record.push(entry(How::Apply, version, &signed()));
        }
        for wanted in [2, 1] {
            let before = record.before().unwrap().clone();
            assert_eq!(before.version, wanted);
            record.push(Entry { back_to: Some(before.number), ..entry(How::Rollback, wanted, &signed()) });
        }
        assert_eq!(record.before(), Err(Denied::NothingBefore));
        record.push(entry(How::Apply, 4, &signed()));
        assert_eq!(record.before().unwrap().version, 3);
    }

    #[test]
    fn a_record_is_bounded_and_survives_storage() {
        let mut record = Record::default();
        for version in 1..=250 {
            record.push(entry(How::Apply, version, &signed()));
        }
        assert_eq!((record.history().len(), record.history()[0].number), (100, 151));
        let stored = serde_json::to_vec(&record).unwrap();
        assert_eq!(Record::parse(&stored).unwrap(), record);
        for bad in [&b""[..], b"{}", b"{\"format\":2,\"next\":1,\"history\":[],\"newest\":{},\"hold\":null}"]
        {
            assert!(Record::parse(bad).is_err());
        }
        record.history.swap(0, 1);
        assert!(Record::parse(&serde_json::to_vec(&record).unwrap()).is_err());
    }
}
