//! Fail-closed rules as rewrites of one condition.
//!
//! Cedar knows neither rule, so both become part of the effective policy set: a `forbid` that some
//! value of an absent fact could make true is true while the fact is absent, and what this version
//! cannot tell of a resource (who listens, who signed) never decides in favour of a subject.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy_core::ast::{EntityUID, Expr, ExprKind, Var};
use guard_common::action::Action;

use super::effective::subject_uid;
use super::kind::Kind;
use super::rewrite::{Rewrite, and, not, or, rewrite};
use super::world::{FactValue, Facts, Listener as Known, MAX_WORLDS, Mentions, SOMEBODY, Signers};

/// A condition that cannot be rewritten, and what to write instead.
#[derive(Debug)]
pub(super) struct Unclear {
    pub(super) message: &'static str,
    pub(super) help: &'static str,
}

const TOO_MANY: Unclear = Unclear {
    message: "this policy depends on too many absent facts and constants at once",
    help: "split it into several policies",
};

/// `condition` as it counts: `permit` says of what kind of policy, `vary_facts` whether absent
/// facts count, `listeners` which of its resources have one and what of it is executed, `facts` what is known
/// and `declared` which facts there are.
///
/// # Errors
/// If the condition uses a fact or an unknown attribute in a way that is no test of its value.
pub(super) fn assume(
    condition: &Expr,
    permit: bool,
    vary_facts: bool,
    listeners: &Listeners,
    facts: &Facts,
    declared: &BTreeMap<String, FactValue>,
) -> Result<Expr, Unclear> {
    let mentions = Mentions::of(Some(condition));
    // Of what is executed the signers are known, and of nothing else.
    if facts.signed_by == Signers::OfExec && mentions.attribute("signed_by") {
        // What the kernel tells is part of the request, whatever it is.
        let assume = |signed_by: Signers| {
            let facts = Facts { signed_by, ..facts.clone() };
            assume(condition, permit, vary_facts, listeners, &facts, declared)
        };
        let told = || assume(Signers::Are(BTreeSet::new()));
        return match (listeners.executes, is_exec()) {
            (Executes::Only, _) => told(),
            (Executes::Also, Some(test)) => Ok(Expr::ite(test, told()?, assume(Signers::Unknown)?)),
            (Executes::Never, _) | (Executes::Also, None) => assume(Signers::Unknown),
        };
    }
    // Of the kinds of resource that have a listener, only one may be known. Each is then assumed for itself.
    if facts.listener == Known::OfUnix && mentions.attribute("listener") {
        let is_unix = Kind::Unix.entity_type();
        let assume = |types: &[&'static str], listener: Known| {
            let listeners = Listeners { types: types.to_vec(), ..*listeners };
            let facts = Facts { listener, ..facts.clone() };
            assume(condition, permit, vary_facts, &listeners, &facts, declared)
        };
        let others: Vec<&str> = listeners.types.iter().copied().filter(|name| *name != is_unix).collect();
        if !listeners.types.contains(&is_unix) {
            return assume(&others, Known::Unknown);
        }
        let told = assume(&[is_unix], Known::Told)?;
        if others.is_empty() {
            return Ok(told);
        }
        let Some(test) = is_type(is_unix) else { return Ok(told) };
        return Ok(Expr::ite(test, told, assume(&others, Known::Unknown)?));
    }
    let plain = rewrite(condition, &Plain);
    let mut worlds = vec![plain];
    if facts.listener == Known::Unknown && mentions.attribute("listener") {
        let named = mentions.subjects().chain([SOMEBODY]).filter_map(subject);
        let peers: Vec<_> =
            std::iter::once(None).chain(named.chain([Expr::var(Var::Principal)]).map(Some)).collect();
        worlds = cross(&worlds, &peers, |peer| Listener { on: listeners, peer: peer.as_ref() })?;
    }
    if facts.signed_by == Signers::Unknown && mentions.attribute("signed_by") {
        let mut sets = vec![Vec::new()];
        for key in mentions.strings() {
            let with: Vec<Vec<&str>> =
                sets.iter().map(|set: &Vec<&str>| set.iter().copied().chain([key]).collect()).collect();
            sets.extend(with);
            if sets.len() > MAX_WORLDS {
                return Err(TOO_MANY);
            }
        }
        worlds = cross(&worlds, &sets, |set| Signed(set))?;
    }
    let names: Vec<(&String, Vec<FactValue>)> = if vary_facts {
        mentions.facts(declared).map(|(name, like)| (name, mentions.values(like))).collect()
    } else {
        Vec::new()
    };
    let combinations = names.iter().try_fold(worlds.len(), |all, (_, values)| {
        all.checked_mul(values.len() + 1).filter(|product| *product <= MAX_WORLDS)
    });
    if combinations.is_none() {
        return Err(TOO_MANY);
    }
    let mut whole: Option<Expr> = None;
    for world in worlds {
        let world = absent(&world, &names);
        whole = Some(match whole {
            None => world,
            Some(before) if permit => and(before, world),
            Some(before) => or(before, world),
        });
    }
    let whole = whole.unwrap_or_else(|| Expr::val(!permit));
    match leftover(&whole, facts) {
        Some(unclear) => Err(unclear),
        None => Ok(whole),
    }
}

/// Every expression under every rewrite.
fn cross<'a, T, R: Rewrite>(
    worlds: &[Expr],
    options: &'a [T],
    rules: impl Fn(&'a T) -> R,
) -> Result<Vec<Expr>, Unclear> {
    if worlds.len() * options.len() > MAX_WORLDS {
        return Err(TOO_MANY);
    }
    let mut found: Vec<Expr> = Vec::new();
    for option in options {
        for world in worlds {
            let one = rewrite(world, &rules(option));
            if !found.contains(&one) {
                found.push(one);
            }
        }
    }
    Ok(found)
}

/// `condition`, or what some value of an absent fact would make of it.
fn absent(condition: &Expr, names: &[(&String, Vec<FactValue>)]) -> Expr {
    let Some(((name, values), rest)) = names.split_first() else { return condition.clone() };
    let as_it_is = absent(condition, rest);
    let mut some = Expr::val(false);
    for value in values {
        some = or(some, absent(&rewrite(condition, &Fact { name, value }), rest));
    }
    // Nothing new, or nothing that the condition does not say already.
    if some == as_it_is {
        return as_it_is;
    }
    let posture = Expr::get_attr(Expr::var(Var::Context), "posture".into());
    let missing = not(Expr::has_attr(posture, name.as_str().into()));
    or(as_it_is, and(missing, some))
}

/// One way to write each test.
struct Plain;

impl Rewrite for Plain {
    fn expression(&self, expr: &Expr) -> Option<Expr> {
        let go = |part: &Expr| rewrite(part, self);
        match expr.expr_kind() {
            ExprKind::ExtHasAttr { expr: of, attrs } => {
                let mut so_far = go(of);
                let mut all = Expr::val(true);
                for attr in attrs {
                    all = and(all, has(so_far.clone(), attr));
                    so_far = Expr::get_attr(so_far, attr.clone());
                }
                Some(all)
            }
            // An attribute of an alternative is an alternative of attributes.
            ExprKind::GetAttr { expr: of, attr } => {
                alternative(of, &|one| Expr::get_attr(one, attr.clone())).map(|e| go(&e))
            }
            ExprKind::HasAttr { expr: of, attr } => alternative(of, &|one| has(one, attr))
                .map(|alternatives| go(&alternatives))
                .or_else(|| Some(has(go(of), attr))),
            _ => None,
        }
    }
}

/// `of has attribute`. The context has all of its attributes.
fn has(of: Expr, attribute: &str) -> Expr {
    match (of.expr_kind(), attribute) {
        (ExprKind::Var(Var::Context), "posture" | "leases" | "windows" | "session") => Expr::val(true),
        _ => Expr::has_attr(of, attribute.into()),
    }
}

fn alternative(of: &Expr, with: &dyn Fn(Expr) -> Expr) -> Option<Expr> {
    match of.expr_kind() {
        ExprKind::If { test_expr, then_expr, else_expr } => {
            Some(Expr::ite((**test_expr).clone(), with((**then_expr).clone()), with((**else_expr).clone())))
        }
        _ => None,
    }
}

/// A fact has a value.
struct Fact<'a> {
    name: &'a str,
    value: &'a FactValue,
}

impl Rewrite for Fact<'_> {
    fn expression(&self, expr: &Expr) -> Option<Expr> {
        match expr.expr_kind() {
            ExprKind::HasAttr { expr: of, attr } if attr == self.name && is_posture(of) => {
                Some(Expr::val(true))
            }
            ExprKind::GetAttr { expr: of, attr } if attr == self.name && is_posture(of) => {
                Some(match self.value {
                    FactValue::Long(number) => Expr::val(*number),
                    FactValue::String(text) => Expr::val(text.as_str()),
                    FactValue::Bool(value) => Expr::val(*value),
                })
            }
            _ => None,
        }
    }
}

/// The types of resource that a policy is about and that have a listener.
#[derive(Debug)]
pub(super) struct Listeners {
    /// Their names.
    pub(super) types: Vec<&'static str>,
    /// The policy is about no other type.
    pub(super) all: bool,
    /// Whether it is about what is executed.
    pub(super) executes: Executes,
}

/// Whether a policy is about what is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Executes {
    /// Its scope has no `exec`.
    Never,
    /// Its scope has `exec` and other actions.
    Also,
    /// Its scope has nothing else.
    Only,
}

/// Who listens at the other end; `None` is nobody with a label.
struct Listener<'a> {
    on: &'a Listeners,
    peer: Option<&'a Expr>,
}

impl Rewrite for Listener<'_> {
    fn expression(&self, expr: &Expr) -> Option<Expr> {
        match (expr.expr_kind(), self.peer) {
            (ExprKind::HasAttr { expr: of, attr }, peer) if attr == "listener" && is_resource(of) => {
                Some(match peer {
                    Some(_) if self.on.all => Expr::val(true),
                    Some(_) => {
                        self.on.types.iter().filter_map(|name| is_type(name)).fold(Expr::val(false), or)
                    }
                    None => Expr::val(false),
                })
            }
            (ExprKind::GetAttr { expr: of, attr }, Some(peer)) if attr == "listener" && is_resource(of) => {
                Some(peer.clone())
            }
            _ => None,
        }
    }
}

/// Exactly these keys have signed the file.
struct Signed<'a>(&'a [&'a str]);

impl Rewrite for Signed<'_> {
    fn expression(&self, expr: &Expr) -> Option<Expr> {
        match expr.expr_kind() {
            ExprKind::GetAttr { expr: of, attr } if attr == "signed_by" && is_resource(of) => {
                Some(Expr::set(self.0.iter().map(|key| Expr::val(*key))))
            }
            _ => None,
        }
    }
}

fn is_resource(expr: &Expr) -> bool {
    matches!(expr.expr_kind(), ExprKind::Var(Var::Resource))
}

fn is_posture(expr: &Expr) -> bool {
    match expr.expr_kind() {
        ExprKind::GetAttr { expr: of, attr } => {
            attr == "posture" && matches!(of.expr_kind(), ExprKind::Var(Var::Context))
        }
        _ => false,
    }
}

fn is_type(name: &str) -> Option<Expr> {
    Some(Expr::is_entity_type(Expr::var(Var::Resource), name.parse().ok()?))
}

/// The action is `exec`.
fn is_exec() -> Option<Expr> {
    let action: EntityUID = format!("Guard::Action::\"{}\"", Action::Exec.row().name).parse().ok()?;
    Some(Expr::is_eq(Expr::var(Var::Action), Expr::val(action)))
}

/// A subject as a literal; no bundle is validated against a schema without subjects.
fn subject(name: &str) -> Option<Expr> {
    subject_uid(name).ok().map(Expr::val)
}

/// What the rewrites could not reach.
fn leftover(expr: &Expr, facts: &Facts) -> Option<Unclear> {
    let (mut postures, mut tests) = (0, 0);
    for part in expr.subexpressions() {
        postures += usize::from(is_posture(part));
        match part.expr_kind() {
            ExprKind::GetAttr { expr: of, .. } | ExprKind::HasAttr { expr: of, .. } if is_posture(of) => {
                tests += 1;
            }
            ExprKind::GetAttr { expr: of, attr }
                if attr == "listener" && facts.listener == Known::Unknown && is_resource(of) =>
            {
                return Some(Unclear {
                    message: "resource.listener is used where it may be absent",
                    help: "write `resource has listener && resource.listener == principal`",
                });
            }
            // Strict Cedar has no empty set, so it stands for an empty set of signers.
            ExprKind::Set(items) if items.is_empty() => {
                return Some(Unclear {
                    message: "the kernel cannot compare the set of signers",
                    help: "write `resource.signed_by.contains(\"name\")`",
                });
            }
            _ => {}
        }
    }
    (postures != tests).then_some(Unclear {
        message: "the posture cannot be compared as a whole",
        help: "compare one fact: `context.posture has trust && context.posture.trust >= 3`",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assumed(text: &str, permit: bool) -> String {
        let declared = BTreeMap::from([
            ("trust".to_owned(), FactValue::Long(0)),
            ("network".to_owned(), FactValue::String(String::new())),
        ]);
        let listeners = Listeners { types: vec!["Guard::Endpoint"], all: true, executes: Executes::Never };
        match assume(&text.parse().unwrap(), permit, !permit, &listeners, &Facts::default(), &declared) {
            Ok(expr) => expr.to_string(),
            Err(unclear) => unclear.message.to_owned(),
        }
    }

    fn same(text: &str) -> String {
        text.parse::<Expr>().unwrap().to_string()
    }

    #[test]
    fn a_forbid_is_true_while_a_fact_that_could_make_it_true_is_absent() {
        let guest = "context.posture has network && context.posture.network == \"guest\"";
        assert_eq!(assumed(guest, false), same(&format!("{guest} || !(context.posture has network)")));
        assert_eq!(assumed(guest, true), same(guest), "a permit asks for the fact itself");
        let office = "!(context.posture has network && context.posture.network == \"office\")";
        assert_eq!(assumed(office, false), same(&format!("{office} || !(context.posture has network)")));
        let never = "context.posture has trust && context.posture.trust < 3 && context.posture.trust > 3";
        assert_eq!(assumed(never, false), same(never), "no value makes it true");
        let mixed = "resource.port == 1 && context has posture.trust && context.posture.trust > 3";
        assert_eq!(
            assumed(mixed, false),
            same(
                "resource.port == 1 && context.posture has trust && context.posture.trust > 3 || !(context.posture has trust) && resource.port == 1"
            )
        );
    }

    #[test]
    fn what_cannot_be_told_decides_for_no_subject() {
        let own = "resource has listener && resource.listener == principal";
        assert_eq!(assumed(own, true), "false");
        assert_eq!(assumed(own, false), "true");
        assert_eq!(assumed(&format!("!({own})"), true), "false");
        let signed = "resource.port == 1 || resource.signed_by.contains(\"release\")";
        assert_eq!(assumed(signed, true), same("resource.port == 1"));
        assert_eq!(assumed(signed, false), "true");
    }

    #[test]
    fn what_is_no_test_of_a_value_is_refused() {
        assert!(assumed("context.posture == context.posture", false).contains("as a whole"));
        assert!(assumed("resource.signed_by == [\"a\"]", true).contains("signers"));
    }
}
