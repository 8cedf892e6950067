//! What a bundle writes where, for tools that point at it.

use cedar_policy_core::ast::{Expr, ExprKind, Literal};

use super::bundle::Bundle;
use super::diagnostics::Diagnostic;
use super::effective::fits;
use super::includes::{self, SHIPPED_IN, is_guards_own};
use super::literals;
use super::policies::{Policy, eid};
use super::rules::all_policies;
use super::world::Mentions;

/// One policy as it is written. Its number is the one that a survey uses.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its name; an include has its template's, whoever it is linked for.
    pub id: String,
    /// Whether it permits.
    pub permit: bool,
    /// Bits of the actions of its scope.
    pub actions: u64,
    /// It is written in the bundle, not shipped with Guard.
    pub own: bool,
    /// It is a template that subjects include.
    pub template: bool,
    /// The subjects that its scope leaves room for.
    pub subjects: Vec<String>,
    /// Its answer depends on what a survey does not vary: posture facts, who listens, who signed.
    pub depends: bool,
}

/// A template of the bundle, and the one of the same name that this agent ships.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// The name it is included by.
    pub include: String,
    /// At the template of the bundle.
    pub at: Diagnostic,
}

impl Bundle {
    /// The policies, by number: those of the bundle and the built-in ones, then the linked ones.
    pub fn written(&self) -> Vec<Written> {
        all_policies(self).enumerate().map(|(number, policy)| self.one(number, policy)).collect()
    }

    fn one(&self, number: usize, policy: &Policy) -> Written {
        let mentions = Mentions::of(policy.template.non_scope_constraints());
        let depends = mentions.facts(&self.facts).next().is_some()
            || ["listener", "signed_by", "session"].iter().any(|name| mentions.attribute(name));
        let linked = number.checked_sub(self.policies.len()).and_then(|at| self.linked.get(at));
        let subjects = match linked {
            Some((_, subject)) => vec![subject.clone()],
            None => {
                let names = self.subjects.iter().map(|subject| subject.name.clone());
                names.filter(|name| fits(policy.template.principal_constraint(), self, name)).collect()
            }
        };
        Written {
            id: policy.id.clone(),
            subjects,
            permit: policy.is_permit(),
            actions: policy.actions,
            own: !is_guards_own(&policy.source.name),
            template: number >= self.policies.len(),
            depends,
        }
    }

    /// The session variables that policies name.
    pub fn session_variables(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for policy in all_policies(self) {
            let condition = policy.template.non_scope_constraints();
            let parts = condition.into_iter().flat_map(Expr::subexpressions);
            let in_condition = parts.filter_map(|part| match part.expr_kind() {
                ExprKind::Lit(Literal::EntityUID(uid)) => Some(eid(uid).to_owned()),
                _ => None,
            });
            let scope = policy.template.resource_constraint().to_string();
            for text in in_condition.chain([scope]) {
                found.extend(literals::session_variables(&text).map(str::to_owned));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// A warning at a policy.
    pub fn at_policy(&self, number: usize, code: &'static str, message: String) -> Diagnostic {
        match all_policies(self).nth(number) {
            Some(policy) => policy.error(code, None, message).into_warning(),
            None => Diagnostic::warning(code, message),
        }
    }

    /// A warning at the definition of a subject.
    pub fn at_subject(&self, name: &str, code: &'static str, message: String) -> Diagnostic {
        match self.subjects.iter().find(|subject| subject.name == name) {
            Some(subject) => self.toml.error(code, subject.span.clone(), message).into_warning(),
            None => Diagnostic::warning(code, message),
        }
    }

    /// A warning at a successor of a subject.
    pub fn at_successor(&self, subject: &str, name: &str, code: &'static str, message: String) -> Diagnostic {
        let found = self.subjects.iter().find(|one| one.name == subject);
        let successor = found.and_then(|one| one.successors.iter().find(|one| one.name == name));
        match successor {
            Some(successor) => self.toml.error(code, successor.span.clone(), message).into_warning(),
            None => self.at_subject(subject, code, message),
        }
    }

    /// The path literals of the bundle's own policies, each with a warning at its place: path, whether
    /// everything below is meant, and the policy's number.
    pub fn path_literals(&self) -> Vec<(String, bool, Diagnostic)> {
        let mut found = Vec::new();
        for policy in all_policies(self).filter(|policy| !is_guards_own(&policy.source.name)) {
            for uid in policy.resource_literals() {
                let kind = uid.entity_type().to_string();
                let id = eid(&uid);
                let path = id.starts_with('/') && literals::session_variables(id).next().is_none();
                if path && matches!(kind.as_str(), "Guard::File" | "Guard::Dir" | "Guard::Unix") {
                    let at = policy.error("", uid.loc(), String::new()).into_warning();
                    found.push((id.to_owned(), kind == "Guard::Dir", at));
                }
            }
        }
        found.sort_by(|a, b| (&a.0, place_key(&a.2)).cmp(&(&b.0, place_key(&b.2))));
        found.dedup_by(|a, b| a.0 == b.0 && place_key(&a.2) == place_key(&b.2));
        found
    }

    /// Comparisons of numbers that no resource has: ports above 65535, negative owners.
    pub fn impossible_numbers(&self) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for policy in all_policies(self).filter(|policy| !is_guards_own(&policy.source.name)) {
            let condition = policy.template.non_scope_constraints();
            for part in condition.into_iter().flat_map(Expr::subexpressions) {
                let ExprKind::BinaryApp { arg1, arg2, .. } = part.expr_kind() else { continue };
                for (side, other) in [(arg1, arg2), (arg2, arg1)] {
                    let ExprKind::GetAttr { attr, .. } = side.expr_kind() else { continue };
                    let ExprKind::Lit(Literal::Long(number)) = other.expr_kind() else { continue };
                    let most = match attr.as_str() {
                        "port" => 65_535,
                        "owner" => i64::from(u32::MAX),
                        _ => continue,
                    };
                    if !(0..=most).contains(number) {
                        let message = format!("no {attr} is {number}");
                        found.push(policy.error("", part.source_loc(), message).into_warning());
                    }
                }
            }
        }
        found.dedup_by_key(|one| place_key(one));
        found
    }

    /// Templates of the bundle that say something else than the ones of the same id that this agent
    /// ships.
    pub fn replaced_includes(&self) -> Vec<Replaced> {
        let shipped = includes::shipped(&mut Vec::new());
        let mut found: Vec<Replaced> = Vec::new();
        for (policy, _) in
            self.linked.iter().filter(|(policy, _)| !policy.source.name.starts_with(SHIPPED_IN))
        {
            let include = includes::name(&policy.id).to_owned();
            if found.iter().any(|known| known.include == include) {
                continue;
            }
            let same =
                |a: &Policy, b: &Policy| a.id == b.id && a.template.to_string() == b.template.to_string();
            let theirs: Vec<&Policy> =
                shipped.iter().filter(|one| includes::name(&one.id) == include).collect();
            let ours: Vec<&Policy> = self
                .linked
                .iter()
                .map(|(one, _)| one)
                .filter(|one| includes::name(&one.id) == include)
                .collect();
            let equal = theirs.iter().all(|one| ours.iter().any(|own| same(one, own)))
                && ours.iter().all(|own| theirs.iter().any(|one| same(one, own)));
            if !theirs.is_empty() && !equal {
                found.push(Replaced { include, at: policy.error("", None, String::new()).into_warning() });
            }
        }
        found
    }
}

fn place_key(one: &Diagnostic) -> Option<(String, usize, usize)> {
    one.place.as_ref().map(|place| (place.file.clone(), place.line, place.column))
}
