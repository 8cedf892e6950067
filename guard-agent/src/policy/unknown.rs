//! Subjects and groups that a policy names and the bundle does not have.
//!
//! Cedar's validator knows types, not entities: a misspelt subject would silently never match.

use std::collections::BTreeSet;

use cedar_policy_core::ast::{
    EntityReference, EntityUID, Expr, ExprKind, Literal, PrincipalOrResourceConstraint as Scope,
};

use super::diagnostics::Diagnostic;
use super::policies::{Policy, eid};
use super::subjects::{AGENT, CANARY, SubjectDefinition};

/// Warns of every literal that names nothing.
pub(super) fn check<'a>(
    policies: impl Iterator<Item = &'a Policy>,
    subjects: &[SubjectDefinition],
    found: &mut Vec<Diagnostic>,
) {
    let names: BTreeSet<&str> =
        subjects.iter().map(|subject| subject.name.as_str()).chain([CANARY, AGENT]).collect();
    let groups: BTreeSet<&str> =
        subjects.iter().flat_map(|subject| &subject.groups).map(String::as_str).collect();
    for policy in policies {
        for uid in mentioned(policy) {
            let (what, known) = match uid.entity_type().to_string().as_str() {
                "Guard::Subject" => ("subject", &names),
                "Guard::Group" => ("group", &groups),
                _ => continue,
            };
            if known.contains(eid(&uid)) {
                continue;
            }
            let code = if what == "subject" { "unknown-subject" } else { "unknown-group" };
            let message =
                format!("{} names the {what} {}, which this bundle does not have", policy.id, eid(&uid));
            let known: Vec<&str> =
                known.iter().copied().filter(|name| ![CANARY, AGENT].contains(name)).collect();
            let help = if known.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has: {}", known.join(" "))
            };
            found.push(policy.error(code, uid.loc(), message).help(help).into_warning());
        }
    }
}

fn mentioned(policy: &Policy) -> Vec<EntityUID> {
    let mut found = Vec::new();
    for scope in
        [policy.template.principal_constraint().as_inner(), policy.template.resource_constraint().as_inner()]
    {
        if let Scope::Eq(EntityReference::EUID(uid))
        | Scope::In(EntityReference::EUID(uid))
        | Scope::IsIn(_, EntityReference::EUID(uid)) = scope
        {
            found.push((**uid).clone());
        }
    }
    let condition = policy.template.non_scope_constraints();
    for part in condition.into_iter().flat_map(Expr::subexpressions) {
        if let ExprKind::Lit(Literal::EntityUID(uid)) = part.expr_kind() {
            found.push((**uid).clone());
        }
    }
    found
}
