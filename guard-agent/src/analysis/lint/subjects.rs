//! Subjects that nobody answers for, or that no process can be.

use std::path::Path;

use super::Job;
use super::codes::finding;
use crate::policy::{Diagnostic, SelectorDefinition};

/// Where units are defined.
const UNITS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/usr/local/lib/systemd/system",
];

pub(super) fn check(job: &Job<'_>, found: &mut Vec<Diagnostic>) {
    for (_, subject) in job.subjects() {
        let name = &subject.name;
        if subject.owner.as_deref().is_none_or(|owner| owner.trim().is_empty()) {
            let message = format!("{name} does not say who answers for it");
            found.push(finding("no-owner", message, job.bundle.at_subject(name, "", String::new()), None));
        }
        let attaching = subject.selectors.iter().filter(|selector| selector.attaches());
        let missing: Vec<Vec<String>> = attaching.map(|selector| missing(job, selector)).collect();
        let enters = job.subjects().any(|(_, one)| one.successors.iter().any(|other| other.name == *name));
        if !enters && !missing.is_empty() && missing.iter().all(|missing| !missing.is_empty()) {
            let missing: Vec<String> = missing.into_iter().flatten().collect();
            let message = format!("no process of this host is {name}: there is no {}", missing.join(", no "));
            found.push(finding(
                "no-processes",
                message,
                job.bundle.at_subject(name, "", String::new()),
                None,
            ));
        }
    }
}

/// What a selector names that is not on this host; empty if something is there.
fn missing(job: &Job<'_>, selector: &SelectorDefinition) -> Vec<String> {
    let mut missing = Vec::new();
    let mut any = false;
    let mut look = |there: bool, what: String| if there { any = true } else { missing.push(what) };
    let number = |text: &str| text.parse::<u32>().is_ok();
    let lookup = &job.host.lookup;
    if let Some(user) = &selector.user {
        look(number(user) || lookup.user(user).is_some(), format!("user {user}"));
    }
    if let Some(group) = &selector.group {
        look(number(group) || lookup.group(group).is_some(), format!("group {group}"));
    }
    if let Some(unit) = &selector.unit {
        // A scope, or an instance of a template, has no file of its own.
        let template = unit
            .split_once('@')
            .and_then(|(name, rest)| rest.rsplit_once('.').map(|(_, kind)| format!("{name}@.{kind}")));
        let there = |name: &str| UNITS.iter().any(|dir| lookup.entry(&Path::new(dir).join(name)).is_some());
        let fleeting = unit.ends_with(".scope") || unit.ends_with(".slice");
        look(fleeting || there(unit) || template.is_some_and(|name| there(&name)), format!("unit {unit}"));
    }
    // A cgroup comes and goes with what runs in it.
    look(selector.cgroup.is_some(), String::new());
    for path in selector.exe.iter().chain(&selector.exe_in) {
        look(lookup.entry(Path::new(path)).is_some(), path.clone());
    }
    missing.retain(|what| !what.is_empty());
    if any { Vec::new() } else { missing }
}
