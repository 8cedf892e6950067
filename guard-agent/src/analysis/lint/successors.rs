//! Subjects that can become one with more rights.

use std::collections::{BTreeMap, BTreeSet};

use guard_common::action::TABLE;

use super::Job;
use super::codes::finding;
use super::exec::listed;
use crate::policy::survey::{Area, Asked, Case};
use crate::policy::{Diagnostic, Mode, SubjectDefinition, actions_text};

pub(super) fn check(job: &Job<'_>, found: &mut Vec<Diagnostic>, undecided: &mut Vec<String>) {
    for (number, subject) in job.subjects() {
        for successor in &subject.successors {
            let Some((other, definition)) = job.subjects().find(|(_, one)| one.name == successor.name) else {
                continue;
            };
            // The compiler has proven the others.
            if successor.narrowing {
                continue;
            }
            let edge = format!("{} → {}", subject.name, successor.name);
            let (wider, unclear) = wider(job, (number, subject), (other, definition));
            if unclear {
                undecided.push(format!("{edge}: some decisions depend on what is only known at the moment, or on too much at once"));
            }
            let what = if wider.is_empty() {
                "the second may do nothing more today, and nothing keeps it so".to_owned()
            } else {
                format!("{} may {} and {} may not", successor.name, listed(&wider), subject.name)
            };
            let at = job.bundle.at_successor(&subject.name, &successor.name, "", String::new());
            found.push(finding("widening-successor", format!("{edge} widens: {what}"), at, None));
        }
    }
}

/// What the second subject may do and the first may not, in words, and whether something was too
/// large to decide.
fn wider(
    job: &Job<'_>,
    (first, before): (usize, &SubjectDefinition),
    (second, after): (usize, &SubjectDefinition),
) -> (Vec<String>, bool) {
    let asked = [Asked { bundle: 0, subject: first }, Asked { bundle: 0, subject: second }];
    let mut unclear = false;
    let mut spread: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
    let mut among = Vec::new();
    let written = job.bundle.written();
    for area in job.survey.areas(&asked) {
        among.extend(&area.regions);
        unclear |= (0..2).any(|party| area.policies(party).any(|number| written[number].depends));
        let Some(cases) = area.cases() else {
            unclear = true;
            continue;
        };
        let may = |party: usize, subject: &SubjectDefinition, case: &Case, area: &Area| {
            let verdict = area.verdict(party, case);
            if subject.mode == Mode::Monitor { verdict.candidate } else { verdict.through }
        };
        let more = cases.iter().fold(0, |bits, case| {
            bits | may(1, after, case, &area) & !may(0, before, case, &area) & case.actions
        });
        for row in TABLE.iter().filter(|row| more & row.action.bit() != 0) {
            spread.entry(row.action.bit()).or_default().extend(&area.regions);
        }
    }
    let mut same: BTreeMap<BTreeSet<usize>, u64> = BTreeMap::new();
    for (action, regions) in spread {
        *same.entry(regions).or_default() |= action;
    }
    among.sort_unstable();
    among.dedup();
    let mut texts: Vec<(u64, String)> = same
        .into_iter()
        .map(|(regions, bits)| {
            let regions: Vec<usize> = regions.into_iter().collect();
            (bits, format!("{} {}", actions_text(bits), listed(&job.survey.places(&regions, &among))))
        })
        .collect();
    texts.sort();
    (texts.into_iter().map(|(_, text)| text).collect(), unclear)
}
