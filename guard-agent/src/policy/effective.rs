//! The effective policy set: what Cedar is asked, and what the tables must answer alike.

use std::ops::Range;
use std::sync::Arc;

use cedar_policy_core::ast::{
    ActionConstraint, Annotation, Annotations, Eid, EntityReference, EntityType, EntityUID, Expr, ExprKind,
    Literal, PolicyID, PrincipalConstraint, PrincipalOrResourceConstraint as Scope, ResourceConstraint,
    StaticPolicy, Template,
};
use cedar_policy_core::parser::parse_policy;
use guard_common::action::{self, Action};
use guard_common::class::BUILTINS;
use guard_common::tables::ALL_ACTIONS;

use super::assumptions::{Executes, Listeners, assume};
use super::bundle::{Bundle, parse_again};
use super::diagnostics::{Diagnostic, Diagnostics, Source};
use super::kind::Kind;
use super::literals;
use super::naming::Naming;
use super::policies::{Policy, eid};
use super::rewrite::{Rewrite, Use, constant, rewrite};
use super::style;
use super::subjects::SubjectDefinition;
use super::verbs;
use super::world::Facts;
use crate::host::Host;

/// One policy of the effective set.
#[derive(Clone, Debug)]
pub struct EffectivePolicy {
    /// Its name: `file/id`; an include ends in `@subject`.
    pub id: String,
    /// Whether it permits; otherwise it forbids.
    pub permit: bool,
    /// It is reported, not enforced.
    pub monitor: bool,
    /// The subject it was linked or generated for.
    pub subject: Option<String>,
    /// What its author says to the denied.
    pub reason: Option<String>,
    /// The lease that would change its answer, by its author's word.
    pub approval: Option<String>,
    /// Where it is written; nothing for a generated policy.
    pub origin: Option<Origin>,
    /// Its condition is not the one that is written: a fail-closed rule was applied to it.
    pub rewritten: bool,
    /// Bits of the actions its scope names; Guard's own actions have none.
    pub actions: u64,
    /// Those of its actions that answer as if the resource were not there (`@errno`).
    pub quiet: u64,
    pub(super) policy: StaticPolicy,
}

/// Where a policy is written.
#[derive(Clone, Debug)]
pub struct Origin {
    pub(super) source: Source,
    pub(super) span: Range<usize>,
}

impl Origin {
    /// The file, as the user would name it.
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// Line, from 1.
    pub fn line(&self) -> usize {
        self.source.place(self.span.clone()).line
    }
}

/// The effective policy set of a bundle on one host: its policies, the built-in ones, includes
/// linked for each subject, and the permits generated for what a subject does not govern; with the
/// fail-closed rules of absent facts and unknown attributes written into the conditions.
#[derive(Clone, Debug)]
pub struct EffectiveSet {
    /// The policies, in the order of the bundle.
    pub policies: Vec<EffectivePolicy>,
    /// Permits that can never hold, because a session variable they name has no value.
    pub without_value: Vec<WithoutValue>,
}

/// A permit that names a session variable without a value.
#[derive(Clone, Debug)]
pub struct WithoutValue {
    /// Its name.
    pub id: String,
    /// The variable.
    pub variable: String,
    /// The subjects it is about.
    pub subjects: Vec<String>,
}

impl EffectiveSet {
    /// The set of `bundle` on `host`. `facts` says which session variables have values and whether
    /// `resource.listener` and `resource.signed_by` are known; facts, leases and windows
    /// themselves are part of a request and leave the set as it is.
    ///
    /// # Errors
    /// If a policy has no exact counterpart; the compiler refuses the same policies.
    pub fn new(bundle: &Bundle, host: &Host, facts: &Facts) -> Result<Self, Diagnostics> {
        let naming = Naming::new(host);
        let mut this = Self { policies: Vec::new(), without_value: Vec::new() };
        let mut found = Vec::new();
        let own = bundle.policies.iter().chain(&bundle.api).map(|policy| (policy, None));
        let linked = bundle.linked.iter().map(|(policy, subject)| (policy, Some(subject.as_str())));
        for (policy, subject) in own.chain(linked) {
            let job = Job { bundle, naming: &naming, facts, policy, subject };
            match job.run() {
                Ok(Ok(policy)) => this.policies.push(*policy),
                Ok(Err(variable)) => {
                    this.without_value.push(WithoutValue { id: job.id(), variable, subjects: job.subjects() })
                }
                Err(error) => found.push(*error),
            }
        }
        for subject in &bundle.subjects {
            match generated(subject, host.undecided) {
                Ok(policies) => this.policies.extend(policies),
                Err(error) => found.push(*error),
            }
        }
        Diagnostics::refuse_if_errors(found).map(|_| this)
    }

    /// The policy with this name.
    pub fn get(&self, id: &str) -> Option<&EffectivePolicy> {
        self.policies.iter().find(|policy| policy.id == id)
    }

    /// The set as Cedar text, one policy after the other, each with a comment that says where it
    /// comes from. With `subject` only what can concern it, by its scope.
    ///
    /// The text is parsed and validated again before it is returned.
    ///
    /// # Errors
    /// If it cannot be laid out or is not valid; that is a fault of Guard.
    pub fn text(&self, bundle: &Bundle, subject: Option<&str>) -> Result<String, Diagnostic> {
        let concerns = |policy: &&EffectivePolicy| {
            subject.is_none_or(|subject| may_concern(&policy.policy, bundle, subject))
        };
        let mut text = String::new();
        for policy in self.policies.iter().filter(concerns) {
            let origin = match &policy.origin {
                Some(origin) => format!("{}:{}", origin.file(), origin.line()),
                None if policy.permit => "generated: actions that the subject does not govern".to_owned(),
                None if policy.id.starts_with(OWN_ROOT_ID) => {
                    "generated: with a root of its own, files are called what mounts make of them".to_owned()
                }
                None => "generated: this kernel cannot enforce all that the subject governs".to_owned(),
            };
            let rewritten = if policy.rewritten { ", rewritten to fail closed" } else { "" };
            text.push_str(&format!("// {}{rewritten}\n{}\n", origin.replace('\n', " "), policy.policy));
        }
        let left_out =
            self.without_value.iter().filter(|one| subject.is_none_or(|subject| one.concerns(subject)));
        for one in left_out {
            text.push_str(&format!(
                "// left out: {}, the session variable {} has no value\n",
                one.id, one.variable
            ));
        }
        let text = style::lay_out("the effective policy set", &text, 120)?;
        match parse_again(bundle, &Source::new("the effective policy set", text.as_str())) {
            Ok(_) => Ok(text),
            Err(errors) => {
                Err(Diagnostic::error("internal", format!("the policy set is not valid any more:\n{errors}")))
            }
        }
    }
}

impl WithoutValue {
    /// Whether it is about this subject.
    pub fn concerns(&self, subject: &str) -> bool {
        self.subjects.iter().any(|name| name == subject)
    }
}

/// Whether the scope of a policy leaves room for `subject`.
pub(super) fn may_concern(policy: &StaticPolicy, bundle: &Bundle, subject: &str) -> bool {
    fits(policy.principal_constraint(), bundle, subject)
}

pub(super) fn fits(scope: &PrincipalConstraint, bundle: &Bundle, subject: &str) -> bool {
    let within = |reference: &EntityReference, group: bool| match reference {
        EntityReference::EUID(uid) if uid.entity_type().to_string() == "Guard::Subject" => {
            eid(uid) == subject
        }
        EntityReference::EUID(uid) => {
            group
                && uid.entity_type().to_string() == "Guard::Group"
                && bundle
                    .subjects()
                    .any(|known| known.name == subject && known.groups.iter().any(|name| name == eid(uid)))
        }
        EntityReference::Slot(_) => false,
    };
    match scope.as_inner() {
        Scope::Any | Scope::Is(_) => true,
        Scope::Eq(reference) => within(reference, false),
        Scope::In(reference) | Scope::IsIn(_, reference) => within(reference, true),
    }
}

/// Whether the scope of a policy names actions of Guard's own API, which an unconstrained one does not: who writes
/// `action` alone speaks of what processes do, and gives nobody the agent.
pub(super) fn names_api(actions: &ActionConstraint) -> bool {
    match actions {
        ActionConstraint::Any => false,
        ActionConstraint::Eq(uid) => verbs::is_own(eid(uid)),
        ActionConstraint::In(uids) => uids.iter().any(|uid| verbs::is_own(eid(uid))),
    }
}

/// Whether a policy counts where one of those actions is decided.
pub(super) fn counts_for_api(permit: bool, actions: &ActionConstraint) -> bool {
    names_api(actions) || !permit && matches!(actions, ActionConstraint::Any)
}

/// One policy on its way into the set.
struct Job<'a> {
    bundle: &'a Bundle,
    naming: &'a Naming<'a>,
    facts: &'a Facts,
    policy: &'a Policy,
    /// The subject it is linked for, if it is a template.
    subject: Option<&'a str>,
}

impl Job<'_> {
    fn id(&self) -> String {
        match self.subject {
            Some(subject) => format!("{}@{subject}", self.policy.id),
            None => self.policy.id.clone(),
        }
    }

    /// The subjects that the policy is about.
    fn subjects(&self) -> Vec<String> {
        let all = self.bundle.subjects.iter().map(|subject| subject.name.clone());
        all.filter(|name| match self.subject {
            Some(subject) => name == subject,
            None => fits(self.policy.template.principal_constraint(), self.bundle, name),
        })
        .collect()
    }

    /// The policy of the set, or the variable without a value for which it can never permit.
    fn run(&self) -> Result<Result<Box<EffectivePolicy>, String>, Box<Diagnostic>> {
        let template = &self.policy.template;
        if let Some(name) = self.unset() {
            if self.policy.is_permit() {
                return Ok(Err(name));
            }
            let message = format!("{} cannot be enforced: ${{session.{name}}} has no value", self.policy.id);
            return Err(Box::new(self.policy.error("not-exact", None, message).help("name the path itself")));
        }
        let condition = match template.non_scope_constraints() {
            Some(condition) => Some((condition, self.condition(condition)?)),
            None => None,
        };
        let rewritten = condition.as_ref().is_some_and(|(_, (rewritten, _))| *rewritten);
        let condition = condition.map(|(_, (_, condition))| condition);
        let id = self.id();
        let policy = StaticPolicy::new(
            PolicyID::from_string(&id),
            None,
            annotations(template, &id),
            template.effect(),
            match self.subject.map(subject_uid).transpose()? {
                Some(uid) => template.principal_constraint().clone().with_filled_slot(Arc::new(uid)),
                None => template.principal_constraint().clone(),
            },
            template.action_constraint().clone(),
            self.resource(),
            condition.filter(|condition| constant(condition) != Some(true)),
        )
        .map_err(|error| Box::new(self.policy.error("not-exact", None, error.to_string())))?;
        Ok(Ok(Box::new(EffectivePolicy {
            id,
            permit: self.policy.is_permit(),
            monitor: self.policy.monitor,
            subject: self.subject.map(str::to_owned),
            reason: self.policy.text("reason"),
            approval: self.policy.text("approval"),
            origin: Some(Origin { source: self.policy.source.clone(), span: self.policy.span() }),
            rewritten,
            actions: self.policy.actions,
            quiet: self.policy.quiet,
            policy,
        })))
    }

    /// The condition as it counts, and whether that is another one.
    fn condition(&self, condition: &Expr) -> Result<(bool, Expr), Box<Diagnostic>> {
        let named = rewrite(condition, self);
        let permit = self.policy.is_permit();
        let counts = assume(
            &named,
            permit,
            !permit && !self.policy.ignore_absent,
            &self.listeners(),
            self.facts,
            &self.bundle.facts,
        )
        .map_err(|unclear| {
            let message = format!("{}: {}", self.policy.id, unclear.message);
            Box::new(self.policy.error("not-exact", None, message).help(unclear.help))
        })?;
        Ok((counts != named, counts))
    }

    fn listeners(&self) -> Listeners {
        let (endpoint, unix) = (Kind::Endpoint.actions(), Kind::Unix.actions());
        let actions = self.policy.actions;
        let types = [(endpoint, Kind::Endpoint), (unix, Kind::Unix)]
            .into_iter()
            .filter(|(bits, _)| actions & bits != 0)
            .map(|(_, kind)| kind.entity_type())
            .collect();
        let known = |uid: &Arc<EntityUID>| action::expand(eid(uid)).is_some();
        let kernel_only = match self.policy.template.action_constraint() {
            ActionConstraint::Any => false,
            ActionConstraint::Eq(uid) => known(uid),
            ActionConstraint::In(uids) => uids.iter().all(known),
        };
        let exec = Action::Exec.bit();
        let executes = match actions & exec {
            0 => Executes::Never,
            _ if kernel_only && actions == exec => Executes::Only,
            _ => Executes::Also,
        };
        Listeners { types, all: kernel_only && actions & !(endpoint | unix) == 0, executes }
    }

    fn resource(&self) -> ResourceConstraint {
        let renamed = |reference: &EntityReference, how: Use| match reference {
            EntityReference::EUID(uid) => match self.literal(uid, how) {
                Some(other) => EntityReference::EUID(Arc::new(other)),
                None => reference.clone(),
            },
            EntityReference::Slot(_) => reference.clone(),
        };
        ResourceConstraint::new(match self.policy.template.resource_constraint().as_inner() {
            Scope::Eq(reference) => Scope::Eq(renamed(reference, Use::Equal)),
            Scope::In(reference) => Scope::In(renamed(reference, Use::Within)),
            Scope::IsIn(kind, reference) => Scope::IsIn(kind.clone(), renamed(reference, Use::Within)),
            other => other.clone(),
        })
    }

    /// A session variable that the policy names and that has no value.
    fn unset(&self) -> Option<String> {
        let mut literals: Vec<&EntityUID> = Vec::new();
        match self.policy.template.resource_constraint().as_inner() {
            Scope::Eq(EntityReference::EUID(uid))
            | Scope::In(EntityReference::EUID(uid))
            | Scope::IsIn(_, EntityReference::EUID(uid)) => literals.push(uid),
            _ => {}
        }
        let condition = self.policy.template.non_scope_constraints();
        for part in condition.into_iter().flat_map(Expr::subexpressions) {
            if let ExprKind::Lit(Literal::EntityUID(uid)) = part.expr_kind() {
                literals.push(uid);
            }
        }
        literals
            .into_iter()
            .flat_map(|uid| literals::session_variables(eid(uid)))
            .find(|name| !self.facts.session.contains_key(*name))
            .map(str::to_owned)
    }
}

/// Literals by the one name of what they mean, session variables by their values.
impl Rewrite for Job<'_> {
    fn literal(&self, uid: &EntityUID, how: Use) -> Option<EntityUID> {
        let kind = uid.entity_type().to_string();
        let id = literals::with_session(eid(uid), &self.facts.session);
        let path = matches!(kind.as_str(), "Guard::File" | "Guard::Dir" | "Guard::Unix")
            && id.starts_with('/')
            && !BUILTINS.iter().any(|builtin| builtin.id == id);
        let name = match (path, how) {
            (false, _) => id,
            (true, Use::Within) if kind == "Guard::Dir" => {
                self.naming.resolved(&id).into_os_string().into_string().unwrap_or(id)
            }
            (true, _) => self.naming.literal(&id),
        };
        (name != eid(uid))
            .then(|| EntityUID::from_components(uid.entity_type().clone(), Eid::new(name), None))
    }
}

/// The annotations of a policy, with its full name.
pub(super) fn annotations(template: &Template, id: &str) -> Annotations {
    template
        .annotations()
        .map(|(key, value)| {
            let text = if key.as_ref() == "id" { id.into() } else { value.val.clone() };
            (key.clone(), Annotation { val: text, loc: None })
        })
        .collect()
}

/// The entity of a subject.
pub(super) fn subject_uid(name: &str) -> Result<EntityUID, Box<Diagnostic>> {
    match "Guard::Subject".parse::<EntityType>() {
        Ok(kind) => Ok(EntityUID::from_components(kind, Eid::new(name), None)),
        Err(error) => Err(Box::new(Diagnostic::error("internal", error.to_string()))),
    }
}

/// The name of the permit for what a subject does not govern.
pub(super) fn generated_id(subject: &str) -> String {
    format!("generated/ungoverned@{subject}")
}

/// The name of the forbid for a subject whose policy this kernel cannot enforce.
pub(super) fn unenforceable_id(subject: &str) -> String {
    format!("generated/unenforceable@{subject}")
}

/// How the name of [`own_root_id`] begins.
const OWN_ROOT_ID: &str = "generated/own-root@";

/// The name of the forbid of what a subject with a root of its own may never do.
pub(super) fn own_root_id(subject: &str) -> String {
    format!("{OWN_ROOT_ID}{subject}")
}

/// The permit for what a subject does not govern, the forbid of all that it governs where this kernel cannot
/// enforce that, and the forbid of what its kind may never do.
fn generated(subject: &SubjectDefinition, undecided: u64) -> Result<Vec<EffectivePolicy>, Box<Diagnostic>> {
    let denied = if subject.is_denied(undecided) { subject.governs } else { 0 };
    [
        (generated_id(&subject.name), true, ALL_ACTIONS & !subject.governs),
        (unenforceable_id(&subject.name), false, denied),
        (own_root_id(&subject.name), false, subject.never()),
    ]
    .into_iter()
    .filter(|(_, _, actions)| *actions != 0)
    .map(|(id, permit, actions)| one_generated(subject, id, permit, actions))
    .collect()
}

fn one_generated(
    subject: &SubjectDefinition,
    id: String,
    permit: bool,
    bits: u64,
) -> Result<EffectivePolicy, Box<Diagnostic>> {
    let actions: Vec<_> = action::names(bits).map(|name| format!("Guard::Action::\"{name}\"")).collect();
    let text = format!(
        "@id(\"{id}\") {} (principal == Guard::Subject::\"{}\", action in [{}], resource);",
        if permit { "permit" } else { "forbid" },
        subject.name,
        actions.join(", ")
    );
    let policy = parse_policy(Some(PolicyID::from_string(&id)), &text)
        .map_err(|error| Box::new(Diagnostic::error("internal", format!("cannot generate {id}: {error}"))))?;
    Ok(EffectivePolicy {
        id,
        permit,
        monitor: false,
        subject: Some(subject.name.clone()),
        reason: None,
        approval: None,
        origin: None,
        rewritten: false,
        actions: bits,
        quiet: 0,
        policy,
    })
}
