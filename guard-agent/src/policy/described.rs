//! What a policy of the effective set says, in pieces that tools show and compare.

use std::net::IpAddr;
use std::path::Path;

use cedar_policy_core::ast::{
    ActionConstraint, EntityReference, EntityUID, Expr, ExprKind, Literal,
    PrincipalOrResourceConstraint as Scope,
};
use guard_common::action::{self, Action};

use super::bundle::Bundle;
use super::effective::{EffectivePolicy, may_concern};
use super::network::{self, Range};
use super::policies::eid;
use super::rewrite::constant;
use super::verbs;

impl EffectivePolicy {
    /// Whether its scope leaves room for this subject.
    pub fn concerns(&self, bundle: &Bundle, subject: &str) -> bool {
        may_concern(&self.policy, bundle, subject)
    }

    /// Whether its scope names this action, itself or by a group.
    pub fn names_action(&self, name: &str) -> bool {
        if Action::from_name(name).is_some() {
            return action::expand(name).is_some_and(|actions| self.actions & actions != 0);
        }
        let holds = |uid: &EntityUID| eid(uid) == name || eid(uid) == verbs::GROUP && verbs::is_own(name);
        match self.policy.action_constraint() {
            // An unconstrained permit gives nothing of Guard's own API.
            ActionConstraint::Any => !self.permit,
            ActionConstraint::Eq(uid) => holds(uid),
            ActionConstraint::In(uids) => uids.iter().any(|uid| holds(uid)),
        }
    }

    /// The actions of its scope as they are written.
    pub fn actions_text(&self) -> String {
        match self.policy.action_constraint() {
            ActionConstraint::Any => "any action".to_owned(),
            ActionConstraint::Eq(uid) => eid(uid).to_owned(),
            ActionConstraint::In(uids) => {
                let names: Vec<_> = uids.iter().map(|uid| eid(uid)).collect();
                names.join(" ")
            }
        }
    }

    /// The resource of its scope: a literal, or `any`.
    pub fn resource_text(&self) -> String {
        let named = |reference: &EntityReference, within: bool| match reference {
            EntityReference::EUID(uid) if within && uid.entity_type().to_string() == "Guard::Dir" => {
                if eid(uid).starts_with('/') {
                    format!("{}/**", eid(uid).trim_end_matches('/'))
                } else {
                    eid(uid).to_owned()
                }
            }
            EntityReference::EUID(uid) if uid.entity_type().to_string() == "Guard::Name" => {
                format!("**/{}/**", eid(uid))
            }
            EntityReference::EUID(uid) => eid(uid).to_owned(),
            EntityReference::Slot(_) => "any".to_owned(),
        };
        match self.policy.resource_constraint().as_inner() {
            Scope::Any => "any".to_owned(),
            Scope::Is(kind) => format!("any {}", kind.to_string().trim_start_matches("Guard::")),
            Scope::Eq(reference) => named(reference, false),
            Scope::In(reference) | Scope::IsIn(_, reference) => named(reference, true),
        }
    }

    /// Its condition as Cedar text on one line; nothing if it has none.
    pub fn condition_text(&self) -> Option<String> {
        self.policy.non_scope_constraints().map(ToString::to_string)
    }

    /// Its condition is false whatever is asked, as far as one can see from it.
    pub fn is_never(&self) -> bool {
        self.policy.non_scope_constraints().and_then(constant) == Some(false)
    }

    /// Whether it has a condition.
    pub fn is_conditional(&self) -> bool {
        self.policy.non_scope_constraints().is_some()
    }

    /// The leases its condition asks for, of those that `bundle` declares.
    pub fn leases<'a>(&self, bundle: &'a Bundle) -> Vec<&'a str> {
        self.asks("leases", &bundle.approvals)
    }

    /// The change windows its condition asks for, of those that `bundle` declares.
    pub fn windows<'a>(&self, bundle: &'a Bundle) -> Vec<&'a str> {
        self.asks("windows", &bundle.windows)
    }

    fn asks<'a>(&self, attribute: &str, declared: &'a [String]) -> Vec<&'a str> {
        let condition = self.policy.non_scope_constraints();
        let mut found = Vec::new();
        for part in condition.into_iter().flat_map(Expr::subexpressions) {
            let ExprKind::BinaryApp { arg1, arg2, .. } = part.expr_kind() else { continue };
            if !matches!(arg1.expr_kind(), ExprKind::GetAttr { attr, .. } if attr == attribute) {
                continue;
            }
            for text in arg2.subexpressions() {
                if let ExprKind::Lit(Literal::String(name)) = text.expr_kind() {
                    found.extend(declared.iter().map(String::as_str).filter(|known| *known == name.as_str()));
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Entity literals about the resource: type without namespace, and id.
    pub fn literals(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut add = |uid: &EntityUID| {
            let kind = uid.entity_type().to_string();
            let kind = kind.trim_start_matches("Guard::");
            if !matches!(kind, "Subject" | "Group" | "Action") {
                found.push((kind.to_owned(), eid(uid).to_owned()));
            }
        };
        match self.policy.resource_constraint().as_inner() {
            Scope::Eq(EntityReference::EUID(uid))
            | Scope::In(EntityReference::EUID(uid))
            | Scope::IsIn(_, EntityReference::EUID(uid)) => add(uid),
            _ => {}
        }
        let condition = self.policy.non_scope_constraints();
        for part in condition.into_iter().flat_map(Expr::subexpressions) {
            if let ExprKind::Lit(Literal::EntityUID(uid)) = part.expr_kind() {
                add(uid);
            }
        }
        found.dedup();
        found
    }

    /// How near one of its literals comes to a path, and which: components in common. Nothing if
    /// they part at the root.
    pub fn near_path(&self, path: &Path) -> Option<(usize, String)> {
        let shared = |literal: &str| {
            let pairs = Path::new(literal).components().zip(path.components());
            pairs.take_while(|(a, b)| a == b).count().saturating_sub(1)
        };
        self.literals()
            .into_iter()
            .filter(|(kind, id)| matches!(kind.as_str(), "File" | "Dir" | "Unix") && id.starts_with('/'))
            .map(|(_, id)| (shared(&id), id))
            .filter(|(shared, _)| *shared > 0)
            .max_by_key(|(shared, id)| (*shared, std::cmp::Reverse(id.len())))
    }

    /// The network among its literals that holds an address most closely: prefix and text.
    pub fn near_address(&self, bundle: &Bundle, address: IpAddr) -> Option<(u128, String)> {
        let size = |range: &Range| match (*range, network::single(address)) {
            (Range::V4(first, last), Range::V4(it, _)) if (first..=last).contains(&it) => {
                Some(u128::from(last - first))
            }
            (Range::V6(first, last), Range::V6(it, _)) if (first..=last).contains(&it) => Some(last - first),
            _ => None,
        };
        self.literals()
            .into_iter()
            .filter_map(|(kind, id)| match kind.as_str() {
                "Net" => network::parse(&id).ok().and_then(|range| size(&range)).map(|size| (size, id)),
                "DnsName" => bundle.names.get(&id)?.iter().filter_map(size).min().map(|size| (size, id)),
                _ => None,
            })
            .min()
    }
}

/// Every action that a request can name, Guard's own included, with the entity types it is taken on.
pub fn known_actions(bundle: &Bundle) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = bundle
        .schema
        .actions()
        .filter_map(|uid| {
            let types = bundle.schema.resources_for_action(uid)?;
            let mut types: Vec<String> = types.map(ToString::to_string).collect();
            types.sort();
            (!types.is_empty()).then(|| (eid(uid).to_owned(), types))
        })
        .collect();
    // The kernel's first, in the order of the action table.
    let rank = |name: &str| action::TABLE.iter().position(|row| row.name == name).unwrap_or(usize::MAX);
    found.sort_by(|a, b| (rank(&a.0), &a.0).cmp(&(rank(&b.0), &b.0)));
    found
}
