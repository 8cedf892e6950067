//! Lists of programs that must not run, where a copy may.

use std::collections::BTreeMap;

use guard_common::action::Action;

use super::codes::finding;
use super::exec::{WRITES, listed, own_programs};
use super::{Job, allowed};
use crate::policy::Diagnostic;

/// A forbid that a copy evades.
#[derive(Default)]
struct Evaded {
    /// Where it denies exec of what can be copied.
    regions: Vec<usize>,
    /// All regions of files.
    among: Vec<usize>,
    /// Whom it means to restrict.
    subjects: Vec<String>,
}

pub(super) fn check(job: &Job<'_>, found: &mut Vec<Diagnostic>) {
    let written = job.bundle.written();
    let mut evaded: BTreeMap<usize, Evaded> = BTreeMap::new();
    let mut copies: BTreeMap<String, String> = BTreeMap::new();
    for (number, subject) in job.subjects() {
        let places = own_programs(job, number, subject);
        if places.regions.is_empty() || subject.governs & WRITES == 0 {
            continue;
        }
        let texts = job.survey.places(&places.regions, &places.among);
        copies.insert(subject.name.clone(), listed(&texts));
        for (area, cases) in job.areas(number) {
            for case in cases.iter().filter(|case| case.actions & Action::Exec.bit() != 0) {
                if allowed(subject, &area, case) & Action::FileRead.bit() == 0 {
                    continue;
                }
                let holding = area.holding(0, case);
                let of = |permit: bool| {
                    holding
                        .iter()
                        .filter(move |rule| rule.permit == permit && rule.actions & Action::Exec.bit() != 0)
                };
                // A forbid of what nothing permits is no list that anybody relies on.
                if of(true).next().is_none() {
                    continue;
                }
                for forbid in of(false).filter_map(|rule| rule.policy) {
                    let entry = evaded.entry(forbid).or_default();
                    entry.regions.extend(&area.regions);
                    entry.among.extend(&places.among);
                    entry.subjects.push(subject.name.clone());
                }
            }
        }
    }
    for (number, Evaded { mut regions, among, mut subjects }) in evaded {
        if !written.get(number).is_some_and(|policy| policy.own) {
            continue;
        }
        regions.sort_unstable();
        regions.dedup();
        subjects.sort();
        subjects.dedup();
        let who = subjects.join(", ");
        let place = subjects.first().and_then(|name| copies.get(name)).cloned().unwrap_or_default();
        let message = format!(
            "{} is evaded by a copy: {who} may read {} and may write and execute in {place}",
            job.survey.policy_id(0, number),
            listed(&job.survey.places(&regions, &among)),
        );
        let at = job.bundle.at_policy(number, "", String::new());
        found.push(finding("evaded-by-copy", message, at, None));
    }
}
