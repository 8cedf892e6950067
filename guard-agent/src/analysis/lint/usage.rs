//! Policies that decide nothing: shadowed, idle, never matching.

use std::collections::{BTreeMap, BTreeSet};

use super::codes::finding;
use super::{Job, allowed};
use crate::policy::survey::{Asked, Holding, Survey};
use crate::policy::{Diagnostic, Diagnostics, Facts, Written};

/// What was seen of each policy, by number.
#[derive(Default)]
struct Usage {
    /// It holds somewhere.
    holds: BTreeSet<usize>,
    /// Without it some decision or report would be another one.
    needed: BTreeSet<usize>,
    /// It holds somewhere that is too large to look at.
    unclear: BTreeSet<usize>,
}

/// What stands beside a policy that is not needed, wherever it holds.
#[derive(Default)]
struct Beside {
    /// Permits that permit the same.
    permits: BTreeSet<usize>,
    /// Forbids that forbid the same.
    forbids: BTreeSet<usize>,
    /// It permits what a forbid denies.
    undone: bool,
    /// What it permits is not governed and so permitted anyway.
    ungoverned: bool,
}

pub(super) fn check(
    job: &Job<'_>,
    found: &mut Vec<Diagnostic>,
    undecided: &mut Vec<String>,
) -> Result<(), Diagnostics> {
    let written = job.bundle.written();
    let mut usage = Usage::default();
    observe(job, &written, &job.survey, &mut usage);
    let mut others = Vec::new();
    for facts in scenarios(job) {
        let survey = Survey::new(&[job.bundle], job.host, &facts)?;
        observe(job, &written, &survey, &mut usage);
        others.push(survey);
    }
    let tables = job.survey.actions();
    let mut beside = BTreeMap::new();
    let idle: Vec<usize> = (0..written.len()).filter(|number| !usage.needed.contains(number)).collect();
    for survey in std::iter::once(&job.survey).chain(&others) {
        describe(job, survey, &idle, &mut beside);
    }
    // A permit of the moment may be what a forbid is there for.
    let of_the_moment: Vec<&Written> =
        written.iter().filter(|policy| policy.permit && policy.depends).collect();
    let kept_out = |forbid: &Written| {
        of_the_moment.iter().any(|permit| {
            permit.actions & forbid.actions != 0
                && permit.subjects.iter().any(|subject| forbid.subjects.contains(subject))
        })
    };
    for (group, numbers) in groups(&written) {
        let first = &written[numbers[0]];
        let any = |set: &BTreeSet<usize>| numbers.iter().any(|number| set.contains(number));
        // What no table holds is not part of a survey.
        if !first.own || first.actions & !tables != 0 && first.actions & tables == 0 || first.actions == 0 {
            continue;
        }
        if any(&usage.needed) {
            continue;
        }
        let forbids = !first.permit && any(&usage.holds) && kept_out(first);
        if first.depends || forbids || any(&usage.unclear) {
            undecided.push(if first.depends || forbids {
                format!("{group} depends on what is only known at the moment of a request")
            } else {
                format!("{group} holds where decisions depend on too much at once")
            });
            continue;
        }
        if !any(&usage.holds) {
            if first.actions & !tables == 0 {
                let message = format!("{group} matches no request that any subject can make");
                found.push(finding("never-matches", message, at(job, numbers[0]), None));
            }
            continue;
        }
        if first.actions & !tables != 0 {
            continue;
        }
        let mut all = Beside::default();
        for one in numbers.iter().filter_map(|number| beside.get(number)) {
            all.permits.extend(&one.permits);
            all.forbids.extend(&one.forbids);
            all.undone |= one.undone;
            all.ungoverned |= one.ungoverned;
        }
        found.push(shadowed(job, &group, first, numbers[0], &all));
    }
    Ok(())
}

/// What leases, windows and session variables there can be, besides none: all of them, each lease and
/// window alone, and all but one.
fn scenarios(job: &Job<'_>) -> Vec<Facts> {
    let session: BTreeMap<String, String> = job
        .bundle
        .session_variables()
        .into_iter()
        .map(|name| (name.clone(), format!("/guard-session/{name}")))
        .collect();
    let names: Vec<(bool, &String)> = job
        .bundle
        .approvals()
        .iter()
        .map(|name| (true, name))
        .chain(job.bundle.windows().iter().map(|name| (false, name)))
        .collect();
    let with = |keep: &dyn Fn(usize) -> bool| {
        let kept = |lease: bool| -> BTreeSet<String> {
            let of_kind = names.iter().enumerate().filter(|(at, (is, _))| *is == lease && keep(*at));
            of_kind.map(|(_, (_, name))| (*name).clone()).collect()
        };
        Facts { leases: kept(true), windows: kept(false), session: session.clone(), ..Facts::default() }
    };
    let mut found = Vec::new();
    if !names.is_empty() || !session.is_empty() {
        found.push(with(&|_| true));
    }
    if names.len() > 1 {
        for one in 0..names.len() {
            found.push(with(&|at| at == one));
            found.push(with(&|at| at != one));
        }
    }
    found
}

fn at(job: &Job<'_>, number: usize) -> Diagnostic {
    job.bundle.at_policy(number, "", String::new())
}

/// Numbers of one policy: a template has one for every subject that includes it.
fn groups(written: &[Written]) -> BTreeMap<String, Vec<usize>> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, policy) in written.iter().enumerate() {
        groups.entry(policy.id.clone()).or_default().push(number);
    }
    groups
}

fn shadowed(job: &Job<'_>, id: &str, policy: &Written, number: usize, beside: &Beside) -> Diagnostic {
    let names = |numbers: &BTreeSet<usize>| {
        let mut names: Vec<String> = numbers.iter().map(|number| job.survey.policy_id(0, *number)).collect();
        names.sort();
        names.dedup();
        let more = names.len().saturating_sub(4);
        names.truncate(4);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", names.join(", "))
    };
    let mut why = Vec::new();
    if policy.permit {
        if !beside.permits.is_empty() {
            why.push(format!("permitted by {} as well", names(&beside.permits)));
        }
        if beside.ungoverned {
            why.push("not governed, so permitted anyway".to_owned());
        }
        if beside.undone {
            why.push(format!("forbidden by {}", names(&beside.forbids)));
        }
        let message = format!("{id} changes no decision: what it permits is {}", why.join(", or "));
        return finding("shadowed", message, at(job, number), None);
    }
    if beside.forbids.is_empty() {
        let message = format!("{id} changes no decision: no policy permits what it forbids");
        return finding("idle-forbid", message, at(job, number), None);
    }
    let message = format!(
        "{id} changes no decision: what it forbids is forbidden by {} as well, or permitted by nothing",
        names(&beside.forbids)
    );
    finding("shadowed", message, at(job, number), None)
}

/// Notes which policies hold, and which are needed, over all subjects.
fn observe(job: &Job<'_>, written: &[Written], survey: &Survey<'_>, usage: &mut Usage) {
    let steady = |rule: &Holding| rule.policy.is_none_or(|number| !written[number].depends);
    for (subject, definition) in job.subjects() {
        for area in survey.areas(&[Asked { bundle: 0, subject }]) {
            let Some(cases) = area.cases() else {
                usage.unclear.extend(area.policies(0));
                continue;
            };
            for case in &cases {
                let holding = area.holding(0, case);
                if holding.is_empty() {
                    continue;
                }
                let through = allowed(definition, &area, case);
                for (index, rule) in holding.iter().enumerate() {
                    let Some(number) = rule.policy else { continue };
                    if rule.actions & case.actions == 0 {
                        continue;
                    }
                    usage.holds.insert(number);
                    if !usage.needed.contains(&number)
                        && needed(&holding, index, case.actions, through, &steady)
                    {
                        usage.needed.insert(number);
                    }
                }
            }
        }
    }
}

/// Whether the answer would be another one without the rule `index`. Others count only if they are
/// `steady`: what holds by a fact of the moment does not stand in for a policy.
fn needed(
    holding: &[Holding],
    index: usize,
    asked: u64,
    through: u64,
    steady: &impl Fn(&Holding) -> bool,
) -> bool {
    let rule = holding[index];
    let others = || {
        let others = holding.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, rule)| rule);
        others.filter(|rule| steady(rule))
    };
    let differs = |enforced_only: bool| {
        let of = |permit: bool| {
            others()
                .filter(|other| other.permit == permit && (other.enforced || !enforced_only))
                .fold(0, |bits, other| bits | other.actions)
        };
        let (permitted, forbidden) = (of(true), of(false));
        let matters = if rule.permit { !permitted & !forbidden } else { permitted & !forbidden };
        (rule.enforced || !enforced_only) && rule.actions & asked & matters != 0
    };
    let reported = others().filter(|other| other.audit).fold(0, |bits, other| bits | other.actions);
    differs(true) || differs(false) || rule.audit && rule.actions & through & !reported != 0
}

/// Finds out what stands beside the policies that are not needed.
fn describe(job: &Job<'_>, survey: &Survey<'_>, idle: &[usize], beside: &mut BTreeMap<usize, Beside>) {
    for (subject, _) in job.subjects() {
        for area in survey.areas(&[Asked { bundle: 0, subject }]) {
            if !area.policies(0).any(|number| idle.contains(&number)) {
                continue;
            }
            for case in area.cases().unwrap_or_default() {
                let holding = area.holding(0, &case);
                for (index, rule) in holding.iter().enumerate() {
                    let Some(number) = rule.policy.filter(|number| idle.contains(number)) else { continue };
                    let entry = beside.entry(number).or_default();
                    for (at, other) in holding.iter().enumerate() {
                        if at == index || other.actions & rule.actions & case.actions == 0 {
                            continue;
                        }
                        match (other.permit, other.policy) {
                            (true, Some(other)) if rule.permit => {
                                entry.permits.insert(other);
                            }
                            (true, None) if rule.permit => entry.ungoverned = true,
                            (false, Some(other)) => {
                                entry.forbids.insert(other);
                                entry.undone |= rule.permit;
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
    }
}
