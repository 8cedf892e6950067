//! Permits that hold for everything, and rights that end in control of the host.

use std::collections::{BTreeMap, BTreeSet};

use guard_common::action::{self, Action, expand};
use guard_common::tables::Attributes;

use super::Job;
use super::codes::finding;
use super::exec::listed;
use crate::policy::survey::{Asked, Where};
use crate::policy::{
    Diagnostic, Diagnostics, EffectivePolicy, Facts, Oracle, Request, Resource, Spot, actions_text,
    file_kind, is_guards_own,
};

/// What a subject should hardly ever be permitted: the action, the kind of file, the place, and what
/// it ends in.
const SENSITIVE: &[(&str, &str, &str, &str)] = &[
    ("file.write", "regular", "/etc/ld.so.preload", "runs code in every program"),
    ("file.write", "regular", "/etc/passwd", "makes accounts"),
    ("file.write", "regular", "/etc/shadow", "sets passwords"),
    ("file.read", "regular", "/etc/shadow", "reads password hashes"),
    ("file.create", "regular", "/etc/sudoers.d/new", "grants root"),
    ("file.create", "regular", "/etc/cron.d/new", "runs commands as root"),
    ("file.create", "regular", "/etc/systemd/system/new.service", "runs commands as root"),
    ("file.write", "regular", "/usr/bin/env", "replaces programs that root runs"),
    ("file.write", "regular", "/usr/lib/x86_64-linux-gnu/libc.so.6", "replaces libraries that root loads"),
    ("file.create", "regular", "/root/.ssh/authorized_keys", "lets somebody log in as root"),
    ("file.read", "regular", "/root/.ssh/id_ed25519", "reads root's keys"),
    ("file.write", "regular", "/proc/sys/kernel/core_pattern", "runs commands as root"),
    ("file.write", "regular", "/proc/sysrq-trigger", "stops the machine"),
    ("file.read", "regular", "/proc/kcore", "reads the kernel's memory"),
    ("file.write", "chr", "/dev/mem", "writes the machine's memory"),
    ("file.read", "blk", "/dev/sda", "reads whole disks"),
    ("file.write", "blk", "/dev/sda", "writes whole disks"),
    ("unix.connect", "socket", "/run/docker.sock", "controls containers, and with them the host"),
    (
        "unix.connect",
        "socket",
        "/run/containerd/containerd.sock",
        "controls containers, and with them the host",
    ),
];

/// Taken on everything by every server: what comes in is not chosen by the subject.
const FROM_OUTSIDE: [Action; 2] = [Action::NetAccept, Action::NetReceive];

pub(super) fn check(job: &Job<'_>, found: &mut Vec<Diagnostic>) -> Result<(), Diagnostics> {
    everything(job, found);
    let facts = Facts::default();
    let oracle = Oracle::new(job.bundle, job.host, &facts)?;
    machine_wide(job, &oracle, found);
    sensitive(job, &oracle, found)?;
    Ok(())
}

/// Permits that hold in every case of every region of a sort.
fn everything(job: &Job<'_>, found: &mut Vec<Diagnostic>) {
    let written = job.bundle.written();
    // Policy → sort of place → actions, over all subjects.
    let mut broad: BTreeMap<usize, BTreeMap<&'static str, u64>> = BTreeMap::new();
    for (subject, _) in job.subjects() {
        // (policy, sort, action) → regions in which it holds in some case but not in all.
        let mut holds: BTreeMap<&'static str, Option<BTreeMap<usize, u64>>> = BTreeMap::new();
        for area in job.survey.areas(&[Asked { bundle: 0, subject }]) {
            let sorts: BTreeSet<&'static str> =
                area.regions.iter().filter_map(|region| sort(job.survey.region(*region))).collect();
            let mut here: Option<BTreeMap<usize, u64>> = None;
            for case in area.cases().unwrap_or_default() {
                let mut now: BTreeMap<usize, u64> = BTreeMap::new();
                for rule in area.holding(0, &case).iter().filter(|rule| rule.permit) {
                    if let Some(number) = rule.policy {
                        *now.entry(number).or_default() |= rule.actions;
                    }
                }
                // What cannot be asked of such a resource holds for it as well.
                now.values_mut().for_each(|bits| *bits |= area.actions & !case.actions);
                here = Some(here.map_or_else(|| now.clone(), |before| both(&before, &now)));
            }
            let here = here.unwrap_or_default();
            for sort in sorts {
                // A type of resource only narrows its own actions.
                let entry = holds.entry(sort).or_default();
                let before = entry.take();
                let merged = match before {
                    None => mask(&here, area.actions),
                    Some(before) => narrowed(&before, &here, area.actions),
                };
                *entry = Some(merged);
            }
        }
        for (sort, policies) in holds {
            for (number, bits) in policies.unwrap_or_default() {
                if bits != 0 {
                    *broad.entry(number).or_default().entry(sort).or_default() |= bits;
                }
            }
        }
    }
    let ignored = FROM_OUTSIDE.iter().fold(0, |bits, action| bits | action.bit());
    for (number, sorts) in broad {
        if !written.get(number).is_some_and(|policy| policy.own) {
            continue;
        }
        let every = sorts.contains_key("every IPv4 address") && sorts.contains_key("every IPv6 address");
        for (sort, bits) in &sorts {
            let bits = bits & !ignored;
            if bits == 0 || every && *sort == "every IPv6 address" {
                continue;
            }
            let sort = if every && *sort == "every IPv4 address" { "every address" } else { sort };
            let message =
                format!("{} permits {} on {sort}", job.survey.policy_id(0, number), actions_text(bits));
            found.push(finding("broad", message, job.bundle.at_policy(number, "", String::new()), None));
        }
    }
}

fn sort(place: &Where) -> Option<&'static str> {
    match place {
        Where::At(..) | Where::Below(..) => Some("every path"),
        Where::V4(..) => Some("every IPv4 address"),
        Where::V6(..) => Some("every IPv6 address"),
        _ => None,
    }
}

fn both(a: &BTreeMap<usize, u64>, b: &BTreeMap<usize, u64>) -> BTreeMap<usize, u64> {
    a.iter().filter_map(|(number, bits)| Some((*number, bits & b.get(number)?))).collect()
}

fn mask(of: &BTreeMap<usize, u64>, actions: u64) -> BTreeMap<usize, u64> {
    // Actions that are taken on other types of resources are not narrowed by this one.
    of.iter().map(|(number, bits)| (*number, bits & actions)).collect()
}

/// `before`, with the actions of this area kept only where they hold here as well.
fn narrowed(
    before: &BTreeMap<usize, u64>,
    here: &BTreeMap<usize, u64>,
    actions: u64,
) -> BTreeMap<usize, u64> {
    let numbers: BTreeSet<usize> = before.keys().chain(here.keys()).copied().collect();
    let get = |of: &BTreeMap<usize, u64>, number: &usize| of.get(number).copied().unwrap_or_default();
    numbers
        .into_iter()
        .map(|number| (number, get(before, &number) & !actions | get(before, &number) & get(here, &number)))
        .collect()
}

/// Permits without any restriction for what no table holds.
fn machine_wide(job: &Job<'_>, oracle: &Oracle<'_>, found: &mut Vec<Diagnostic>) {
    let concerned = expand("proc.*").unwrap_or(0) | Action::SysCap.bit();
    let written = job.bundle.written();
    for (number, policy) in written.iter().enumerate().filter(|(_, policy)| policy.own && policy.permit) {
        let Some(effective) = oracle.set.get(&job.survey.policy_id(0, number)) else { continue };
        let bits = policy.actions & concerned;
        if bits == 0 || effective.is_conditional() || effective.resource_text() != "any" {
            continue;
        }
        let names: Vec<_> = action::names(bits).collect();
        let what = if bits == Action::SysCap.bit() { "every capability" } else { "every process" };
        let message = format!("{} permits {} on {what}", policy.id, names.join(" "));
        found.push(finding("broad", message, job.bundle.at_policy(number, "", String::new()), None));
    }
}

fn sensitive(job: &Job<'_>, oracle: &Oracle<'_>, found: &mut Vec<Diagnostic>) -> Result<(), Diagnostics> {
    for (_, subject) in job.subjects() {
        let mut by_policy: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (action, kind, path, ends_in) in SENSITIVE {
            if expand(action).is_none_or(|bits| bits & subject.governs == 0) {
                continue;
            }
            let own_root = subject.has_own_root();
            let path_there = if own_root { path.into() } else { crate::policy::resolved(job.host, path) };
            let spot = Spot::Path(path_there);
            let resource = if *kind == "socket" { Resource::Unix(spot) } else { Resource::File(spot) };
            let request = Request {
                subject: subject.name.clone(),
                action: (*action).to_owned(),
                resource,
                attributes: Attributes {
                    owner: 0,
                    kind: file_kind(kind).unwrap_or_default(),
                    set_id: 0,
                    fileless: 0,
                    ..Attributes::default()
                },
                listener: None,
                within: Vec::new(),
            };
            let verdict = oracle.decide(&request)?;
            let answer = if verdict.monitor { &verdict.candidate } else { &verdict.enforced };
            if answer.allow {
                for policy in &answer.policies {
                    by_policy
                        .entry(policy.clone())
                        .or_default()
                        .push(format!("{action} {path}, which {ends_in}"));
                }
            }
        }
        for (id, rights) in by_policy {
            let policy = oracle.set.get(&id);
            let own = policy
                .and_then(|policy: &EffectivePolicy| policy.origin.as_ref())
                .is_some_and(|origin| !is_guards_own(origin.file()));
            let number =
                (0..job.bundle.written().len()).find(|number| job.survey.policy_id(0, *number) == id);
            let (true, Some(number)) = (own, number) else { continue };
            let message = format!("{} may {}, by {id}", subject.name, listed(&rights));
            found.push(finding("sensitive", message, job.bundle.at_policy(number, "", String::new()), None));
        }
    }
    Ok(())
}
