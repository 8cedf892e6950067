//! Exec lists that do not restrict, because the subject can write what it executes.

use std::collections::BTreeSet;

use guard_common::action::Action;

use super::codes::finding;
use super::{Job, allowed};
use crate::policy::{Diagnostic, SubjectDefinition};

/// Each of these puts content of the subject's choice where it is taken.
pub(super) const WRITES: u64 = Action::FileWrite.bit() | Action::FileAppend.bit() | Action::FileCreate.bit();

pub(super) fn check(job: &Job<'_>, found: &mut Vec<Diagnostic>) {
    for (number, subject) in job.subjects() {
        if subject.governs & Action::Exec.bit() == 0 {
            continue;
        }
        let places = own_programs(job, number, subject);
        if places.regions.is_empty() {
            continue;
        }
        let name = &subject.name;
        // What is not governed is permitted everywhere, so the places say nothing.
        if subject.governs & WRITES == 0 {
            let message = format!(
                "{name}: policy decides what it executes and not what it writes, so the list holds as far as file modes do"
            );
            let at = job.bundle.at_subject(name, "", String::new());
            found.push(finding("exec-by-file-modes", message, at, None));
            continue;
        }
        let texts = job.survey.places(&places.regions, &places.among);
        let writes: Vec<String> =
            places.writes.iter().map(|policy| job.survey.policy_id(0, *policy)).collect();
        let by = if writes.is_empty() {
            "which is not governed".to_owned()
        } else {
            format!("by {}", writes.join(", "))
        };
        let message = format!("{name} may execute what it may write {by}: {}", listed(&texts));
        let at = match places.execs.first() {
            Some(policy) => job.bundle.at_policy(*policy, "", String::new()),
            None => job.bundle.at_subject(name, "", String::new()),
        };
        let help = texts.first().and_then(|text| text.strip_suffix("/**")).map(|directory| {
            format!(
                "if nothing has to run from there: forbid (principal == Guard::Subject::\"{name}\", action == Guard::Action::\"exec\", resource in Guard::Dir::\"{directory}\");"
            )
        });
        found.push(finding("exec-of-own-files", message, at, help));
    }
}

/// Where a subject may both write and execute.
pub(super) struct Places {
    pub(super) regions: Vec<usize>,
    /// All regions of files.
    pub(super) among: Vec<usize>,
    /// The policies that let it execute there.
    pub(super) execs: BTreeSet<usize>,
    /// The policies that let it write there.
    pub(super) writes: BTreeSet<usize>,
}

pub(super) fn own_programs(job: &Job<'_>, number: usize, subject: &SubjectDefinition) -> Places {
    let mut places =
        Places { regions: Vec::new(), among: Vec::new(), execs: BTreeSet::new(), writes: BTreeSet::new() };
    for (area, cases) in job.areas(number) {
        if area.actions & Action::Exec.bit() == 0 {
            continue;
        }
        places.among.extend(&area.regions);
        let mut here = false;
        for case in &cases {
            let may = allowed(subject, &area, case);
            // No file is two things at once: what is written is executed later, in the same place.
            if may & Action::Exec.bit() == 0 || may & WRITES == 0 {
                continue;
            }
            here = true;
            places.execs.extend(area.deciding(0, case, Action::Exec.bit()));
            for write in [Action::FileWrite, Action::FileAppend, Action::FileCreate] {
                if may & write.bit() != 0 {
                    places.writes.extend(area.deciding(0, case, write.bit()));
                }
            }
        }
        if here {
            places.regions.extend(&area.regions);
        }
    }
    places
}

/// A few texts, and how many more there are.
pub(super) fn listed(texts: &[String]) -> String {
    const SHOWN: usize = 4;
    match texts.len().saturating_sub(SHOWN) {
        0 => texts.join(", "),
        more => format!("{} and {more} more", texts[..SHOWN].join(", ")),
    }
}
