//! May this subject do that, which policies say so, and what would change it?

use guard_common::action::{Action, Coverage};
use guard_common::class::{BUILTINS, Class};
use serde::{Deserialize, Serialize};

use super::question::Question;
use crate::events::errno_name;
use crate::policy::{Bundle, Diagnostic, EffectivePolicy, Facts, Lift, Oracle, Resource, Signers, Spot};

/// A policy, as an answer names it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Named {
    /// Its name.
    pub id: String,
    /// The file it is written in; nothing for a generated policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Its author's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Named {
    /// The name and place of `policy`.
    pub fn of(policy: &EffectivePolicy) -> Self {
        Self {
            id: policy.id.clone(),
            file: policy.origin.as_ref().map(|origin| origin.file().to_owned()),
            line: policy.origin.as_ref().map(|origin| origin.line()),
            reason: policy.reason.clone(),
        }
    }
}

/// The permit that comes nearest to what was denied.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Nearest {
    /// The policy.
    #[serde(flatten)]
    pub policy: Named,
    /// What of it comes near.
    pub covers: String,
}

/// The answer to one decision.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// The subject.
    pub subject: String,
    /// The action.
    pub action: String,
    /// The resource, by type and name.
    pub resource: String,
    /// Where its path leads, if symbolic links were followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<String>,
    /// Whether it is allowed.
    pub allowed: bool,
    /// What a denied caller gets instead of the action's own error number (`@errno`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// It is allowed and reported: the subject, or a policy, is in monitor mode.
    pub would_deny: bool,
    /// The policies that decided; empty if nothing permits.
    pub policies: Vec<Named>,
    /// What would lift a denial.
    pub lifts: Vec<Lift>,
    /// The nearest permit, for a denial that no `forbid` made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Nearest>,
    /// The keys that signed what is executed, as far as they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<Vec<String>>,
    /// What the kernel does not decide of this in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_enforced: Option<String>,
}

/// The keys that signed what is asked about, if they are known.
pub(super) fn signers(facts: &Facts) -> Option<Vec<String>> {
    match &facts.signed_by {
        Signers::Are(keys) => Some(keys.iter().cloned().collect()),
        Signers::Unknown | Signers::OfExec => None,
    }
}

/// Answers `question`.
///
/// # Errors
/// If it cannot be put to Cedar; that is a fault of Guard.
pub fn can(bundle: &Bundle, oracle: &Oracle<'_>, question: &Question) -> Result<Finding, Diagnostic> {
    let request = &question.request;
    let verdict = oracle.decide(request)?;
    let denied = !verdict.enforced.allow || !verdict.candidate.allow;
    // What is denied is explained by the set that denies it.
    let answer = if verdict.enforced.allow && denied { &verdict.candidate } else { &verdict.enforced };
    let policies: Vec<_> =
        answer.policies.iter().filter_map(|id| oracle.set.get(id)).map(Named::of).collect();
    let by_default = denied && policies.is_empty();
    Ok(Finding {
        subject: request.subject.clone(),
        action: request.action.clone(),
        resource: describe(&request.resource),
        resolved: question.resolved.as_ref().map(|path| path.display().to_string()),
        allowed: verdict.allowed(),
        errno: Action::from_name(&request.action)
            .filter(|_| verdict.quiet)
            .and_then(Action::quiet_errno)
            .map(errno_name),
        would_deny: verdict.would_deny(),
        lifts: if denied { oracle.lifts(request)? } else { Vec::new() },
        nearest: if by_default { nearest(bundle, oracle, question) } else { None },
        policies,
        signed_by: signers(&question.facts),
        not_enforced: not_enforced(&request.action),
    })
}

/// What the kernel does not decide of an action in this version.
fn not_enforced(action: &str) -> Option<String> {
    match Action::from_name(action).map(|action| action.row().coverage) {
        Some(Coverage::Enforced) => None,
        Some(Coverage::Partly(text)) => Some(text.to_owned()),
        Some(Coverage::NotYet) => Some("nothing decides it in this version, so it goes through".to_owned()),
        // Guard's own, which the agent decides.
        None => None,
    }
}

/// The permit for this action that comes nearest to the resource.
fn nearest(bundle: &Bundle, oracle: &Oracle<'_>, question: &Question) -> Option<Nearest> {
    let request = &question.request;
    let permits = oracle.set.policies.iter().filter(|policy| {
        policy.permit
            && !policy.is_never()
            && policy.origin.is_some()
            && policy.concerns(bundle, &request.subject)
            && policy.names_action(&request.action)
    });
    let found = match &request.resource {
        Resource::File(Spot::Path(path))
        | Resource::Dir(Spot::Path(path))
        | Resource::Unix(Spot::Path(path)) => {
            let near = |policy: &'_ EffectivePolicy| {
                let (shared, literal) = policy.near_path(path)?;
                Some((
                    shared,
                    policy.is_conditional(),
                    Nearest { policy: Named::of(policy), covers: literal },
                ))
            };
            permits.filter_map(near).max_by_key(|(shared, conditional, _)| (*shared, !conditional))
        }
        Resource::Endpoint(address, _) => {
            let near = |policy: &'_ EffectivePolicy| {
                let (size, network) = policy.near_address(bundle, *address)?;
                let closeness = 128 - (128 - size.leading_zeros()) as usize;
                Some((closeness, false, Nearest { policy: Named::of(policy), covers: network }))
            };
            permits.filter_map(near).max_by_key(|(closeness, _, _)| *closeness)
        }
        _ => None,
    };
    found.map(|(_, _, nearest)| nearest)
}

/// A resource in words.
pub fn describe(resource: &Resource) -> String {
    let builtin = |class: Class| {
        let known = BUILTINS.iter().find(|builtin| builtin.class == class);
        known.map_or_else(|| format!("class {class}"), |builtin| builtin.id.to_owned())
    };
    let spot = |spot: &Spot| match spot {
        Spot::Path(path) => path.display().to_string(),
        Spot::Place { device, path } => {
            format!("device {}:{} {}", device >> 20, device & 0xf_ffff, path.display())
        }
        Spot::Builtin(class) => builtin(*class),
        Spot::Inside { class, path } => format!("{}{}", builtin(*class), path.display()),
        Spot::Abstract(name) => format!("@{name}"),
    };
    let id = match resource {
        Resource::File(it) | Resource::Dir(it) | Resource::Unix(it) => spot(it),
        Resource::Endpoint(address, port) => std::net::SocketAddr::new(*address, *port).to_string(),
        Resource::Memory => "anonymous".to_owned(),
        Resource::Machine => return "Machine".to_owned(),
        Resource::Kernel => "kernel".to_owned(),
        Resource::Process { id, subject: Some(subject) } => format!("{id} of {subject}"),
        Resource::Process { id, subject: None } => id.clone(),
        Resource::Protocol(id)
        | Resource::Capability(id)
        | Resource::Subject(id)
        | Resource::Approval(id) => id.clone(),
    };
    format!("{} {id}", resource.entity_type().trim_start_matches("Guard::"))
}
