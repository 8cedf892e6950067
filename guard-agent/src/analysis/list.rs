//! What one subject may do at all.

use guard_common::action;
use serde::Serialize;

use super::can::Named;
use crate::policy::{Bundle, EffectivePolicy, EffectiveSet};

/// One policy that concerns the subject.
#[derive(Clone, Debug, Serialize)]
pub struct Right {
    /// The actions, as the policy writes them.
    pub actions: String,
    /// The resource of its scope.
    pub resource: String,
    /// Its condition, as Cedar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Leases that the condition asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<String>,
    /// Change windows that the condition asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<String>,
    /// It is reported, not enforced.
    pub monitor: bool,
    /// The policy.
    #[serde(flatten)]
    pub policy: Named,
}

/// Everything the policy says about one subject.
#[derive(Clone, Debug, Serialize)]
pub struct Rights {
    /// The subject.
    pub subject: String,
    /// `enforce` or `monitor`.
    pub mode: crate::policy::Mode,
    /// Permitted as things are.
    pub permitted: Vec<Right>,
    /// Forbidden, whatever permits it.
    pub forbidden: Vec<Right>,
    /// Permitted, or no longer forbidden, under a lease or in a change window.
    pub conditional: Vec<Right>,
    /// Permits that hold for nothing: a session variable has no value, or the condition is false.
    pub never: Vec<String>,
    /// Actions that policy does not govern: permitted unless something forbids them.
    pub not_governed: Vec<&'static str>,
}

/// What `set` says about `subject`; nothing if the bundle does not define it.
pub fn list(bundle: &Bundle, set: &EffectiveSet, subject: &str) -> Option<Rights> {
    let definition = bundle.subjects().find(|known| known.name == subject)?;
    let mut rights = Rights {
        subject: subject.to_owned(),
        mode: definition.mode,
        permitted: Vec::new(),
        forbidden: Vec::new(),
        conditional: Vec::new(),
        never: Vec::new(),
        not_governed: action::names(!definition.governs).collect(),
    };
    let concerned = set.policies.iter().filter(|policy| policy.concerns(bundle, subject));
    for policy in concerned.filter(|policy| policy.origin.is_some()) {
        if policy.is_never() {
            rights.never.push(policy.id.clone());
            continue;
        }
        let right = right(bundle, policy);
        let under = !right.leases.is_empty() || !right.windows.is_empty();
        match (policy.permit, under) {
            (true, false) => rights.permitted.push(right),
            (false, false) => rights.forbidden.push(right),
            (_, true) if policy.permit => rights.conditional.push(right),
            // A forbid that a lease lifts is in force without the lease.
            _ => rights.forbidden.push(right),
        }
    }
    let unset = set.without_value.iter().filter(|one| one.concerns(subject));
    rights.never.extend(unset.map(|one| one.id.clone()));
    Some(rights)
}

fn right(bundle: &Bundle, policy: &EffectivePolicy) -> Right {
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    Right {
        actions: policy.actions_text(),
        resource: policy.resource_text(),
        condition: policy.condition_text(),
        leases: owned(policy.leases(bundle)),
        windows: owned(policy.windows(bundle)),
        monitor: policy.monitor,
        policy: Named::of(policy),
    }
}
