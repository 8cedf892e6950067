//! Strict validation of policies, each shape of policy once.
//!
//! Cedar validates types: a policy that differs from a valid one in the names of files only is as
//! valid. Large bundles consist of such policies, and validating is most of what loading them costs.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use cedar_policy_core::ast::{
    ActionConstraint, Effect, Eid, EntityReference, EntityUID, Expr, ExprKind, Literal, PolicySet,
    PrincipalOrResourceConstraint as Scope, Template,
};
use cedar_policy_core::validator::{ValidationMode, Validator};

use super::diagnostics::{Diagnostic, Source};
use super::policies::{Policy, eid, from_miette};

/// Policies from which on threads are worth their start.
const MANY_POLICIES: usize = 500;
/// What to write instead of a comparison with a path.
const NO_PATH: &str =
    "write `resource in Guard::Dir::\"/path\"`, and `resource.name like \"prefix*\"` for the last component";
/// Types of Guard's schema whose entities are not enumerated, so that any name is as valid as another.
const FREELY_NAMED: [&str; 8] = [
    "Guard::Dir",
    "Guard::File",
    "Guard::Group",
    "Guard::Name",
    "Guard::Net",
    "Guard::DnsName",
    "Guard::Subject",
    "Guard::Unix",
];

/// Strict validation of the policies of one file.
pub(super) fn validate<'a>(
    validator: Option<&Validator>,
    source: &Source,
    policies: impl Iterator<Item = &'a Policy>,
    found: &mut Vec<Diagnostic>,
) {
    let Some(validator) = validator else { return };
    let mut shapes: HashMap<Shape, Vec<&Policy>> = HashMap::new();
    for policy in policies {
        shapes.entry(Shape::of(policy)).or_default().push(policy);
    }
    let groups: Vec<Vec<&Policy>> = shapes.into_values().collect();
    let mut all: Vec<Diagnostic> = in_parallel(&groups, |groups| {
        let first: Vec<&Policy> = groups.iter().filter_map(|group| group.first().copied()).collect();
        if validation(validator, source, &first).is_empty() {
            return Vec::new();
        }
        // Something is wrong with one of them: every policy like it is reported at its own place.
        groups
            .iter()
            .filter(|group| !validation(validator, source, &group[..1]).is_empty())
            .flat_map(|group| validation(validator, source, group))
            .collect()
    });
    // Cedar checks a policy once per type of resource, in no particular order, and repeats itself.
    let order = |one: &Diagnostic| {
        (one.severity, one.place.as_ref().map(|place| (place.line, place.column)), one.message.clone())
    };
    all.sort_by_key(order);
    all.dedup_by(|a, b| a.severity == b.severity && a.place.is_some() && a.place == b.place);
    found.append(&mut all);
}

/// Runs `check` over parts of `items`, on as many threads as there are processors if that is worth it.
fn in_parallel<T: Sync>(items: &[T], check: impl Fn(&[T]) -> Vec<Diagnostic> + Sync) -> Vec<Diagnostic> {
    let workers =
        if items.len() < MANY_POLICIES { 1 } else { thread::available_parallelism().map_or(1, usize::from) };
    thread::scope(|scope| {
        let mut parts = items.chunks(items.len().div_ceil(workers).max(1));
        let here = parts.next().unwrap_or_default();
        let check = &check;
        let running: Vec<_> = parts
            .map(|part| {
                let thread = thread::Builder::new().spawn_scoped(scope, move || check(part));
                // Without a thread it is done here.
                thread.map_err(|_| part)
            })
            .collect();
        let mut all = check(here);
        for running in running {
            all.extend(match running {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(part) => check(part),
            });
        }
        all
    })
}

/// What strict validation says of some policies.
fn validation(validator: &Validator, source: &Source, policies: &[&Policy]) -> Vec<Diagnostic> {
    let mut set = PolicySet::new();
    for policy in policies {
        let added = match Template::try_as_policy(policy.template.clone()) {
            Ok(fixed) => set.add(fixed).is_ok(),
            Err(_) => set.add_template((*policy.template).clone()).is_ok(),
        };
        // A second policy of the same name is reported on its own.
        let _ = added;
    }
    let result = validator.validate(&set, ValidationMode::Strict);
    let errors = result.validation_errors().map(|error| {
        let error = from_miette(source, "validation", error);
        // Cedar would propose the attribute whose name is most alike.
        if error.message.starts_with("attribute `path` ") { error.help(NO_PATH) } else { error }
    });
    let warnings =
        result.validation_warnings().map(|warning| from_miette(source, "validation", warning).into_warning());
    errors.chain(warnings).collect()
}

/// All that validation depends on in a policy.
#[derive(PartialEq, Eq, Hash)]
struct Shape {
    effect: Effect,
    principal: Scope,
    action: ActionConstraint,
    resource: Scope,
    condition: Option<Expr>,
}

impl Shape {
    fn of(policy: &Policy) -> Self {
        let template = &policy.template;
        let mut names = Placeholders::default();
        Self {
            effect: template.effect(),
            principal: names.scope(template.principal_constraint().as_inner()),
            action: template.action_constraint().clone(),
            resource: names.scope(template.resource_constraint().as_inner()),
            condition: template.non_scope_constraints().map(|condition| names.expression(condition)),
        }
    }
}

/// Numbers in place of names: the same number for the same name, because Cedar knows that a name equals
/// itself and no other.
#[derive(Default)]
struct Placeholders {
    known: HashMap<EntityUID, EntityUID>,
}

impl Placeholders {
    fn uid(&mut self, uid: &EntityUID) -> EntityUID {
        // Cedar warns of unusual characters wherever they are.
        let plain = |id: &str| id.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        let kind = uid.entity_type();
        if !plain(eid(uid)) || !FREELY_NAMED.contains(&kind.to_string().as_str()) {
            return uid.clone();
        }
        let number = self.known.len();
        let placeholder = || EntityUID::from_components(kind.clone(), Eid::new(number.to_string()), None);
        self.known.entry(uid.clone()).or_insert_with(placeholder).clone()
    }

    fn scope(&mut self, scope: &Scope) -> Scope {
        let mut renamed = |reference: &EntityReference| match reference {
            EntityReference::EUID(uid) => EntityReference::EUID(Arc::new(self.uid(uid))),
            EntityReference::Slot(_) => reference.clone(),
        };
        match scope {
            Scope::Eq(reference) => Scope::Eq(renamed(reference)),
            Scope::In(reference) => Scope::In(renamed(reference)),
            Scope::IsIn(kind, reference) => Scope::IsIn(kind.clone(), renamed(reference)),
            Scope::Any | Scope::Is(_) => scope.clone(),
        }
    }

    /// With placeholders in the parts that usually hold names; others are compared as they are.
    fn expression(&mut self, expr: &Expr) -> Expr {
        match expr.expr_kind() {
            ExprKind::Lit(Literal::EntityUID(uid)) => Expr::val(self.uid(uid)),
            ExprKind::And { left, right } => Expr::and(self.expression(left), self.expression(right)),
            ExprKind::Or { left, right } => Expr::or(self.expression(left), self.expression(right)),
            ExprKind::UnaryApp { op, arg } => Expr::unary_app(*op, self.expression(arg)),
            ExprKind::BinaryApp { op, arg1, arg2 } => {
                Expr::binary_app(*op, self.expression(arg1), self.expression(arg2))
            }
            ExprKind::Set(items) => {
                Expr::set(items.iter().map(|item| self.expression(item)).collect::<Vec<_>>())
            }
            _ => expr.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::policies::parse;

    fn shape(text: &str) -> Shape {
        let mut found = Vec::new();
        let parsed = parse(&Source::new("x.cedar", format!("@id(\"x\") {text}")), "x", &mut found);
        assert!(found.is_empty(), "{text}: {found:?}");
        Shape::of(&parsed.policies[0])
    }

    #[test]
    fn policies_that_differ_in_names_only_have_one_shape() {
        let of = |subject: &str, action: &str, dir: &str, other: &str| {
            shape(&format!(
                "permit (principal == Guard::Subject::\"{subject}\", action == Guard::Action::\"{action}\", resource in Guard::Dir::\"{dir}\") when {{ resource in Guard::Dir::\"{other}\" && resource.name like \"a*\" }};"
            ))
        };
        let one = of("a", "file.read", "/x", "/y");
        assert!(one == of("b", "file.read", "/z", "/with space"));
        assert!(one != of("a", "file.write", "/x", "/y"), "actions are types");
        assert!(one != of("a", "file.read", "/x", "/x"), "a name equals itself");
        assert!(one != of("a", "file.read", "/x", "/\u{430}"), "Cedar looks at unusual characters");
    }
}
