//! Decisions that no table holds: processes, capabilities, the machine, Guard's own API. Their
//! resources are few, so each is asked of the oracle.

use std::collections::{BTreeMap, BTreeSet};

use guard_common::action::{Action, expand};
use guard_common::tables::Attributes;

use super::diff::{Change, Diff, Sign};
use crate::host::Host;
use crate::policy::survey::State;
use crate::policy::verbs::Verb;
use crate::policy::{
    Bundle, Diagnostic, Diagnostics, Facts, Oracle, Request, Resource, Verdict, known_actions,
};

/// A subject that no bundle can define, for "some other subject".
const SOMEBODY: &str = "guard-somebody";
/// A capability that no policy names, for "any other".
const ANOTHER: &str = "other capabilities";

/// The answer before and after, the policies that decide each, and the type of the resource.
type Kind = (State, State, Vec<String>, Vec<String>, String);

/// Adds what differs between the bundles for actions that `tables` does not hold.
pub(super) fn compare(
    before: &Bundle,
    after: &Bundle,
    host: &Host,
    facts: &Facts,
    tables: &u64,
    found: &mut Diff,
) -> Result<(), Diagnostics> {
    let (first, second) = (Oracle::new(before, host, facts)?, Oracle::new(after, host, facts)?);
    let resources = resources(&[before, after], &[&first, &second]);
    let subjects = before.subjects().filter(|one| after.subjects().any(|other| other.name == one.name));
    for subject in subjects {
        let mut changes: BTreeMap<Kind, Vec<(String, &'static str)>> = BTreeMap::new();
        for (action, types) in known_actions(after) {
            if expand(&action).is_some_and(|actions| actions & tables != 0) {
                continue;
            }
            for (name, resource) in
                resources.iter().filter(|(_, it)| types.iter().any(|of| of == it.entity_type()))
            {
                let request = Request {
                    subject: subject.name.clone(),
                    action: action.clone(),
                    resource: resource.clone(),
                    attributes: Attributes::default(),
                    listener: None,
                    within: Vec::new(),
                };
                let ask = |oracle: &Oracle<'_>| -> Result<_, Diagnostic> {
                    let verdict = oracle.decide(&request)?;
                    Ok((state(&verdict), verdict.candidate.policies))
                };
                let ((old, old_by), (new, new_by)) = (ask(&first)?, ask(&second)?);
                if Sign::of(old, new).is_some() {
                    let kind = resource.entity_type().trim_start_matches("Guard::").to_owned();
                    let of = changes.entry((old, new, old_by, new_by, kind)).or_default();
                    of.push((name.clone(), static_name(&action)));
                }
            }
        }
        for ((old, new, policies_before, policies_after, resource_type), pairs) in changes {
            let Some(change) = Sign::of(old, new) else { continue };
            // One line for every set of resources that some actions share.
            let mut by_action: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
            for (name, action) in pairs {
                by_action.entry(action).or_default().insert(name);
            }
            let mut by_resources: BTreeMap<BTreeSet<String>, Vec<&'static str>> = BTreeMap::new();
            for (action, names) in by_action {
                by_resources.entry(names).or_default().push(action);
            }
            found.changes.extend(by_resources.into_iter().map(|(names, actions)| Change {
                change,
                subject: subject.name.clone(),
                actions,
                resource_types: [resource_type.clone()].into(),
                resources: names.into_iter().collect(),
                condition: String::new(),
                before: old,
                after: new,
                policies_before: policies_before.clone(),
                policies_after: policies_after.clone(),
            }));
        }
    }
    Ok(())
}

fn state(verdict: &Verdict) -> State {
    match (verdict.allowed(), verdict.would_deny()) {
        (false, _) => State::Denied,
        (true, true) => State::Reported,
        (true, false) => State::Allowed,
    }
}

/// Action names live as long as the program: the kernel's and Guard's own are in tables.
fn static_name(name: &str) -> &'static str {
    Action::from_name(name)
        .map(|action| action.row().name)
        .or_else(|| Verb::from_name(name).map(Verb::name))
        .unwrap_or("guard.*")
}

/// Every resource that the policies can tell from others, with its name.
fn resources(bundles: &[&Bundle], oracles: &[&Oracle<'_>]) -> Vec<(String, Resource)> {
    let subjects: BTreeSet<String> =
        bundles.iter().flat_map(|bundle| bundle.subjects().map(|subject| subject.name.clone())).collect();
    let capabilities: BTreeSet<String> = oracles
        .iter()
        .flat_map(|oracle| &oracle.set.policies)
        .flat_map(|policy| policy.literals())
        .filter(|(kind, _)| kind == "Capability")
        .map(|(_, id)| id)
        .collect();
    let approvals: BTreeSet<&String> = bundles.iter().flat_map(|bundle| bundle.approvals()).collect();
    let process = |subject: Option<String>| Resource::Process { id: "1".to_owned(), subject };
    let mut found = vec![
        ("the machine".to_owned(), Resource::Machine),
        ("the kernel".to_owned(), Resource::Kernel),
        ("processes without a label".to_owned(), process(None)),
        ("processes of other subjects".to_owned(), process(Some(SOMEBODY.to_owned()))),
        (ANOTHER.to_owned(), Resource::Capability(ANOTHER.to_owned())),
        ("other subjects".to_owned(), Resource::Subject(SOMEBODY.to_owned())),
    ];
    for name in &subjects {
        found.push((format!("processes of {name}"), process(Some(name.clone()))));
        found.push((format!("subject {name}"), Resource::Subject(name.clone())));
    }
    found.extend(capabilities.into_iter().map(|name| (name.clone(), Resource::Capability(name))));
    found.extend(approvals.into_iter().map(|name| (name.clone(), Resource::Approval(name.clone()))));
    found
}
