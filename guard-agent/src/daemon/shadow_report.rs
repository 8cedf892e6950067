//! What the shadow would have decided otherwise, from what the store counted of it.

use super::engine::ApplyError;
use super::serve::Shared;
use super::shadow::ShadowError;
use crate::analysis::why::Explainer;
use crate::api::types::{ShadowDifference, ShadowReport};
use crate::events::{Record, time};
use crate::host::Host;
use crate::policy::{Bundle, Facts, selectors_text};
use crate::store::{Difference, StoreError};
use guard_common::tables::AttributeTest;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ShadowReportError {
    /// There is no shadow, or the counters cannot be read.
    #[error("{0}")]
    Apply(#[from] ApplyError),
    /// What was counted cannot be read.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl Shared {
    /// What the shadow would have decided otherwise since it began, at most `limit` lines of it. Blocks
    /// for as long as asking the shadow's policies about them takes.
    ///
    /// # Errors
    /// If there is no shadow, or what was counted cannot be read.
    pub fn shadow_report(&self, limit: usize) -> Result<ShadowReport, ShadowReportError> {
        let (mut report, bundle, live, tests, began) = {
            let engine = self.engine();
            let missing = || ApplyError::Shadow(ShadowError::None);
            let shadow = engine.shadow.as_ref().ok_or_else(missing)?;
            let live = engine.live.as_ref().ok_or_else(missing)?;
            let (decided, since) = engine.decided_beside(shadow)?;
            let report = ShadowReport {
                schema: ShadowReport::SCHEMA.to_owned(),
                shadow: engine.shadow_status().unwrap_or_default(),
                bundle: engine.bundle_status(),
                generation: live.generation,
                decided,
                decided_since: time::rfc3339(since),
                newly_denied: 0,
                newly_allowed: 0,
                differences: Vec::new(),
                more: 0,
                forgotten: 0,
                not_compared: Vec::new(),
                missing: crate::events::Missing::new(0, 0),
            };
            let tests = live.compiled.generation.attributes.clone();
            (report, Arc::clone(&shadow.bundle), Arc::clone(&live.bundle), tests, shadow.entry.began)
        };
        let found = self.store().differences(began)?;
        report.not_compared = not_compared(&live, &bundle);
        (report.forgotten, report.missing) = (found.forgotten, found.missing);
        let sums = added_up(found.kinds);
        for (line, allows) in sums.iter().map(|sum| (sum, sum.allows)) {
            let total = if allows { &mut report.newly_allowed } else { &mut report.newly_denied };
            *total = total.saturating_add(line.count);
        }
        report.more = sums.len().saturating_sub(limit);
        let host = Host::read().map_err(ApplyError::Host)?;
        let deciders = Deciders { bundle: &bundle, host: &host, tests: &tests, live: &live.digest };
        report.differences = deciders.described(sums.into_iter().take(limit).collect());
        Ok(report)
    }
}

/// Kinds that read the same, added up.
#[derive(Debug)]
struct Sum {
    allows: bool,
    count: u64,
    first: i64,
    last: i64,
    record: Record,
    /// Digest of the bundle that decided the last one.
    bundle: String,
}

/// Sessions and attributes that events do not show make several kinds of what reads the same. Newly denied
/// first, then by time, the newest first.
fn added_up(kinds: Vec<Difference>) -> Vec<Sum> {
    let mut sums: BTreeMap<(bool, String, Vec<String>, String), Sum> = BTreeMap::new();
    for kind in kinds {
        let Some(shadow) = &kind.record.shadow else { continue };
        let allows = shadow.allows();
        let key = (allows, subject(&kind.record), shadow.actions.clone(), kind.record.what());
        let Difference { record, bundle, count, first, last } = kind;
        match sums.get_mut(&key) {
            None => {
                sums.insert(key, Sum { allows, count, first, last, record, bundle });
            }
            Some(sum) => {
                sum.count = sum.count.saturating_add(count);
                sum.first = sum.first.min(first);
                if last > sum.last {
                    (sum.last, sum.record, sum.bundle) = (last, record, bundle);
                }
            }
        }
    }
    let mut sums: Vec<Sum> = sums.into_values().collect();
    sums.sort_by_key(|sum| (sum.allows, std::cmp::Reverse(sum.last)));
    sums
}

/// The subject's name, whatever the session.
fn subject(record: &Record) -> String {
    record.subject.clone().unwrap_or_else(|| format!("#{}", record.subject_id))
}

/// What says which policies of the shadow decide.
struct Deciders<'a> {
    bundle: &'a Bundle,
    host: &'a Host,
    /// Attribute tests of the tables that are live.
    tests: &'a [AttributeTest],
    /// Digest of the bundle that is live.
    live: &'a str,
}

impl Deciders<'_> {
    fn described(&self, sums: Vec<Sum>) -> Vec<ShadowDifference> {
        let facts = Facts::default();
        let explainer = Explainer::new(self.bundle, self.tests, self.host, &facts).ok();
        let policies = |sum: &Sum| {
            // The attributes of a resource are known by the tables of their time, if they matter.
            let told = sum.bundle == self.live || self.tests.is_empty();
            let explainer = explainer.as_ref().filter(|_| told)?;
            let shadow = sum.record.shadow.as_ref()?;
            let (allowed, policies) = explainer.deciding(&sum.record, &shadow.actions).ok()?;
            (allowed == sum.allows).then_some(policies)
        };
        sums.into_iter()
            .map(|sum| ShadowDifference {
                change: if sum.allows { "newly_allowed" } else { "newly_denied" }.to_owned(),
                subject: subject(&sum.record),
                actions: sum.record.shadow.as_ref().map(|shadow| shadow.actions.clone()).unwrap_or_default(),
                resource: sum.record.what(),
                count: sum.count,
                first: time::rfc3339(sum.first),
                last: time::rfc3339(sum.last),
                id: sum.record.id.clone(),
                policies: policies(&sum),
            })
            .collect()
    }
}

/// What no operation can show, because the label of a process comes from the live bundle.
fn not_compared(live: &Bundle, shadow: &Bundle) -> Vec<String> {
    let mut found = Vec::new();
    for subject in live.subjects() {
        match shadow.subjects().find(|other| other.name == subject.name) {
            None => found.push(format!(
                "subject {} is not in the shadow: once that is live, its processes are denied everything",
                subject.name
            )),
            Some(other) => {
                let (now, then) = (selectors_text(&subject.selectors), selectors_text(&other.selectors));
                if now != then {
                    found.push(format!(
                        "subject {} is attached to other processes by the shadow: {} instead of {}",
                        subject.name,
                        then.join(", "),
                        now.join(", ")
                    ));
                }
            }
        }
    }
    for subject in shadow.subjects() {
        if !live.subjects().any(|known| known.name == subject.name) {
            found.push(format!(
                "subject {} is only in the shadow: nothing is labelled with it yet",
                subject.name
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"schema":"guard.event/1","id":"d-7K3F2Q","time":"2026-05-04T03:02:01.000000Z","boot_ns":1,"verdict":"shadow_deny","subject":"nginx","subject_id":16,"session":null,"actions":["file.read"],"resource":{"type":"file","path":"/x","fs_path":"/x","device":"8:1","path_truncated":false,"abstract_name":null,"address":null,"port":null,"protocol":null},"reason":"policy","errno":null,"pid":1,"tid":1,"uid":33,"comm":"nginx","cgroup":9,"generation":2,"sequence":4,"cpu":0,"shadow":{"verdict":"denied","actions":["file.read"]}}"#;

    fn difference(count: u64, last: i64, change: impl FnOnce(&mut Record)) -> Difference {
        let mut record = Record::from_json_line(LINE).unwrap();
        change(&mut record);
        Difference { record, bundle: "d1".to_owned(), count, first: last - 5, last }
    }

    #[test]
    fn what_reads_the_same_is_one_line_and_what_is_newly_denied_comes_first() {
        let allows = |record: &mut Record| {
            record.verdict = "denied".to_owned();
            record.shadow.as_mut().unwrap().verdict = "allowed".to_owned();
        };
        let sums = added_up(vec![
            difference(1, 900, allows),
            difference(3, 100, |record| record.session = Some(4)),
            difference(2, 200, |record| (record.session, record.id) = (Some(5), "d-000000".to_owned())),
            difference(7, 50, |record| record.resource.path = Some("/y".to_owned())),
            difference(9, 60, |record| record.shadow = None),
        ]);
        let told: Vec<_> = sums.iter().map(|sum| (sum.allows, sum.count, sum.first, sum.last)).collect();
        assert_eq!(told, [(false, 5, 95, 200), (false, 7, 45, 50), (true, 1, 895, 900)]);
        assert_eq!(sums[0].record.id, "d-000000", "the sample is the last one");
    }

    #[test]
    fn what_labels_hide_is_said() {
        let bundle = |name: &str, subjects: &str| {
            let directory = std::env::temp_dir().join(format!("guard-shadow-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            let toml = format!("[bundle]\nname = \"x\"\nversion = 1\nprofile = 1\n{subjects}");
            std::fs::write(directory.join("guard.toml"), toml).unwrap();
            let policy = "@id(\"x\") permit (principal, action, resource == Guard::File::\"/srv/x\");";
            std::fs::write(directory.join("x.cedar"), policy).unwrap();
            let bundle = crate::policy::load(&directory).unwrap_or_else(|errors| panic!("{errors}"));
            std::fs::remove_dir_all(&directory).unwrap();
            bundle
        };
        let subject = |name: &str, user: &str| {
            format!("[subjects.{name}]\nselector = {{ user = \"{user}\" }}\ngoverns = [\"*\"]\n")
        };
        let live = bundle("live", &(subject("a", "u1") + &subject("b", "u2") + &subject("same", "u3")));
        let shadow =
            bundle("shadow", &(subject("b", "other") + &subject("c", "u1") + &subject("same", "u3")));
        let said = not_compared(&live, &shadow);
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].starts_with("subject a is not in the shadow"), "{said:?}");
        assert!(said[1].contains("subject b is attached to other processes by the shadow: "), "{said:?}");
        assert!(
            said[1].contains("other instead of ") && said[2].starts_with("subject c is only in the shadow")
        );
        assert!(not_compared(&live, &live).is_empty());
    }
}
