//! Who may ask Guard for what: Cedar over the shipped roles and what the live bundle says of Guard's own API.
//!
//! The policies are those of the effective set that count for these actions: permits that name one of them, and
//! forbids that name one or all. The mode of a subject does not matter here, and a policy in monitor mode decides
//! nothing. What cannot be asked is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cedar_policy_core::ast::{
    ActionConstraint, Eid, Entity, EntityReference, EntityType, EntityUID, EntityUIDEntry, Expr, ExprKind,
    PolicyID, PolicySet, PrincipalConstraint, PrincipalOrResourceConstraint as Scope,
    Request as CedarRequest, StaticPolicy, Var,
};
use cedar_policy_core::authorizer::{Authorizer, Decision};
use cedar_policy_core::entities::{Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::extensions::Extensions;

use super::assumptions::{Executes, Listeners, assume};
use super::bundle::{Bundle, ROLES};
use super::diagnostics::{Diagnostic, Diagnostics, Source};
use super::effective::{annotations, counts_for_api, subject_uid};
use super::literals::THIS_MACHINE;
use super::oracle;
use super::policies::{self, Policy, eid};
use super::rewrite::constant;
use super::verbs::{self, Asker, Verb};
use super::world::{Facts, Mentions};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A process with the label of this subject.
    Subject(String),
    /// An account of this host, by name, or by number if it has no name, and the roles it has.
    User {
        /// Name or number.
        name: String,
        /// Names of roles.
        roles: Vec<String>,
    },
}

/// What somebody asks for an action on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    /// A subject, by name.
    Subject(String),
    /// Processes that are no subject's, by what selects them: `unit:nginx.service`.
    Processes(String),
    /// A lease, by name.
    Approval(String),
    /// This host.
    Machine,
}

impl std::fmt::Display for On {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Subject(name) => write!(f, "the subject {name}"),
            Self::Processes(text) => write!(f, "the processes {text}"),
            Self::Approval(name) => write!(f, "the lease {name}"),
            Self::Machine => f.write_str("this host"),
        }
    }
}

/// `context.session` of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// User id of whoever logged in; empty if nobody did.
    pub human: String,
    /// Number of the session; empty if there is none.
    pub id: String,
    /// Whether there is a terminal.
    pub tty: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Ruling {
    /// Yes.
    Permitted {
        /// Shipped roles whose policies permit it.
        roles: Vec<String>,
        /// Policies of the bundle that do.
        policies: Vec<String>,
    },
    /// No.
    Refused {
        /// The policy that forbids it, if one does.
        forbidden: Option<String>,
        /// What its author says to the refused.
        reason: Option<String>,
    },
}

impl Ruling {
    /// Whether it is a yes.
    pub fn is_permitted(&self) -> bool {
        matches!(self, Self::Permitted { .. })
    }

    fn refused() -> Self {
        Self::Refused { forbidden: None, reason: None }
    }
}

/// A permit that can give somebody an action.
#[derive(Debug)]
struct Permit {
    principal: PrincipalConstraint,
    action: ActionConstraint,
}

/// Answers who may ask for what, by one bundle.
#[derive(Debug)]
pub struct Gate {
    set: PolicySet,
    entities: Entities,
    permits: Vec<Permit>,
    /// Policies that Guard ships.
    shipped: BTreeSet<String>,
    reasons: BTreeMap<String, String>,
    /// Some policy depends on what is known, granted or open.
    asks_for_context: bool,
    /// What conditions about leases name.
    leases: BTreeSet<String>,
}

/// The prefix of the names of what Guard ships.
const SHIPPED: &str = "roles/";

impl Gate {
    /// What nobody passes.
    pub fn closed() -> Self {
        Self {
            set: PolicySet::new(),
            entities: Entities::new(),
            permits: Vec::new(),
            shipped: BTreeSet::new(),
            reasons: BTreeMap::new(),
            asks_for_context: false,
            leases: BTreeSet::new(),
        }
    }

    /// The gate of a bundle.
    ///
    /// # Errors
    /// If a policy depends on an absent fact in a way that is no test of its value.
    pub fn new(bundle: &Bundle) -> Result<Self, Diagnostics> {
        let mut this = Self { entities: oracle::actions_and_subjects(bundle)?, ..Self::closed() };
        let mut found = Vec::new();
        let own = bundle.policies.iter().chain(&bundle.api).map(|policy| (policy, None));
        let linked = bundle.linked.iter().map(|(policy, subject)| (policy, Some(subject.as_str())));
        for (policy, subject) in own.chain(linked) {
            let counts = counts_for_api(policy.is_permit(), policy.template.action_constraint());
            if counts
                && !policy.monitor
                && let Err(error) = this.add(bundle, policy, subject)
            {
                found.push(*error);
            }
        }
        this.shipped = bundle.api.iter().map(|policy| policy.id.clone()).collect();
        Diagnostics::refuse_if_errors(found).map(|_| this)
    }

    fn add(
        &mut self,
        bundle: &Bundle,
        policy: &Policy,
        subject: Option<&str>,
    ) -> Result<(), Box<Diagnostic>> {
        let (template, permit) = (&policy.template, policy.is_permit());
        if permit
            && let Some(verb) = for_people(template.principal_constraint(), template.action_constraint())
        {
            let message =
                format!("{} gives {} to labelled processes, and it is for people", policy.id, verb.name());
            let help = "name it in a policy about a Guard::Role or Guard::User";
            return Err(Box::new(policy.error("not-for-subjects", None, message).help(help)));
        }
        let listeners = Listeners { types: Vec::new(), all: false, executes: Executes::Never };
        let condition = template
            .non_scope_constraints()
            .map(|condition| {
                let vary = !permit && !policy.ignore_absent;
                assume(condition, permit, vary, &listeners, &Facts::default(), &bundle.facts)
            })
            .transpose()
            .map_err(|unclear| {
                let message = format!("{}: {}", policy.id, unclear.message);
                Box::new(policy.error("not-exact", None, message).help(unclear.help))
            })?;
        let id = subject.map_or_else(|| policy.id.clone(), |subject| format!("{}@{subject}", policy.id));
        let principal = match subject {
            Some(subject) => {
                template.principal_constraint().clone().with_filled_slot(Arc::new(subject_uid(subject)?))
            }
            None => template.principal_constraint().clone(),
        };
        let action = template.action_constraint().clone();
        let context = |condition: &Expr| {
            condition.subexpressions().any(|part| matches!(part.expr_kind(), ExprKind::Var(Var::Context)))
        };
        self.asks_for_context |= condition.as_ref().is_some_and(context);
        let mentions = Mentions::of(condition.as_ref());
        if mentions.attribute("leases") {
            self.leases.extend(mentions.strings().map(str::to_owned));
        }
        let whole = StaticPolicy::new(
            PolicyID::from_string(&id),
            None,
            annotations(template, &id),
            template.effect(),
            principal.clone(),
            action.clone(),
            template.resource_constraint().clone(),
            condition.filter(|condition| constant(condition) != Some(true)),
        )
        .map_err(|error| Box::new(policy.error("not-exact", None, error.to_string())))?;
        self.set
            .add_static(whole)
            .map_err(|error| Box::new(policy.error("internal", None, error.to_string())))?;
        if let Some(reason) = policy.text("reason") {
            self.reasons.insert(id, reason);
        }
        if permit {
            self.permits.push(Permit { principal, action });
        }
        Ok(())
    }

    /// Whether an answer depends on facts, leases, windows or the session.
    pub fn asks_for_context(&self) -> bool {
        self.asks_for_context
    }

    /// Whether some answer may depend on this lease.
    pub fn asks_for_lease(&self, name: &str) -> bool {
        self.leases.contains(name)
    }

    /// Whether some policy could permit it, on whatever. If not, nothing about it need be looked at.
    pub fn could(&self, who: &Principal, verb: Verb) -> bool {
        let mut permits = self.permits.iter().filter(|permit| gives(&permit.action, verb));
        can_ask(who, verb) && permits.any(|permit| fits(&permit.principal, who, &self.entities))
    }

    /// Whether somebody may ask for something.
    pub fn decide(&self, who: &Principal, verb: Verb, on: &On, facts: &Facts, session: &Session) -> Ruling {
        if !can_ask(who, verb) {
            return Ruling::refused();
        }
        self.put(who, verb, on, facts, session).unwrap_or_else(Ruling::refused)
    }

    /// Puts the question to Cedar; nothing if that is not possible.
    fn put(&self, who: &Principal, verb: Verb, on: &On, facts: &Facts, session: &Session) -> Option<Ruling> {
        let principal = match who {
            Principal::Subject(name) => entity("Guard::Subject", name)?,
            Principal::User { name, roles } => {
                let mut user = entity("Guard::User", name)?;
                for role in roles {
                    user.add_parent(uid("Guard::Role", role)?);
                }
                user
            }
        };
        let resource = match on {
            On::Subject(name) => entity("Guard::Subject", name)?,
            On::Processes(text) => entity("Guard::Process", text)?,
            On::Approval(name) => entity("Guard::Approval", name)?,
            On::Machine => entity("Guard::Machine", THIS_MACHINE)?,
        };
        let known = |entity: &Entity| EntityUIDEntry::known(entity.uid().clone(), None);
        let request = CedarRequest::new_unchecked(
            known(&principal),
            EntityUIDEntry::known(uid("Guard::Action", verb.name())?, None),
            known(&resource),
            Some(oracle::context_of(facts, session).ok()?),
        );
        // Subjects of the bundle are there already, with their groups.
        let mut new: Vec<Arc<Entity>> = Vec::new();
        for one in [principal, resource] {
            let there = self.entities.iter().any(|known| known.uid() == one.uid());
            if !there && new.iter().all(|known| known.uid() != one.uid()) {
                new.push(Arc::new(one));
            }
        }
        let store = self
            .entities
            .clone()
            .add_entities(
                new,
                None::<&NoEntitiesSchema>,
                TCComputation::AssumeAlreadyComputed,
                Extensions::all_available(),
            )
            .ok()?;
        let response = Authorizer::new().is_authorized(request, &self.set, &store);
        let mut decided: Vec<String> =
            response.diagnostics.reason.iter().map(|id| AsRef::<str>::as_ref(id).to_owned()).collect();
        decided.sort();
        if response.decision == Decision::Allow && response.diagnostics.errors.is_empty() {
            let (shipped, policies): (Vec<String>, Vec<String>) =
                decided.into_iter().partition(|id| self.shipped.contains(id));
            let role = |id: &String| id.strip_prefix(SHIPPED).unwrap_or(id).to_owned();
            return Some(Ruling::Permitted { roles: shipped.iter().map(role).collect(), policies });
        }
        let forbidden = decided.into_iter().next().filter(|_| response.decision == Decision::Deny);
        let reason = forbidden.as_ref().and_then(|id| self.reasons.get(id).cloned());
        Some(Ruling::Refused { forbidden, reason })
    }

    /// The roles that some policy gives an action, on whatever, by name.
    pub fn roles_with(&self, verb: Verb) -> Vec<String> {
        let permits = self.permits.iter().filter(|permit| gives(&permit.action, verb));
        let found: BTreeSet<String> = permits.filter_map(|permit| role(&permit.principal)).collect();
        found.into_iter().collect()
    }

    /// The actions that some policy gives a role, on whatever.
    pub fn verbs_of(&self, role: &str) -> Vec<Verb> {
        let has = |verb: &Verb| self.roles_with(*verb).iter().any(|name| name == role);
        verbs::TABLE.iter().map(|row| row.verb).filter(has).collect()
    }
}

/// The shipped roles that have an action, in the order of their file.
pub(super) fn shipped_roles_with(verb: Verb) -> Vec<String> {
    let source = Source::new("<guard>/roles.cedar", ROLES);
    let policies = policies::parse(&source, "roles", &mut Vec::new()).policies;
    let permits = policies.iter().filter(|one| gives(one.template.action_constraint(), verb));
    permits.filter_map(|one| role(one.template.principal_constraint())).collect()
}

/// The role that a scope names.
fn role(scope: &PrincipalConstraint) -> Option<String> {
    match scope.as_inner() {
        Scope::Eq(EntityReference::EUID(uid))
        | Scope::In(EntityReference::EUID(uid))
        | Scope::IsIn(_, EntityReference::EUID(uid))
            if uid.entity_type().to_string() == "Guard::Role" =>
        {
            Some(eid(uid).to_owned())
        }
        _ => None,
    }
}

/// Whether an action is one that somebody of this kind can ask for at all.
fn can_ask(who: &Principal, verb: Verb) -> bool {
    verb.row().askers.contains(match who {
        Principal::Subject(_) => &Asker::Subject,
        Principal::User { .. } => &Asker::User,
    })
}

/// The action that a scope names and no subject can ask for, where the scope of principals is about subjects.
fn for_people(principal: &PrincipalConstraint, actions: &ActionConstraint) -> Option<Verb> {
    let about = |kind: &EntityType| matches!(kind.to_string().as_str(), "Guard::Subject" | "Guard::Group");
    let subjects = match principal.as_inner() {
        Scope::Any => false,
        Scope::Is(kind) | Scope::IsIn(kind, _) => about(kind),
        Scope::Eq(EntityReference::EUID(uid)) | Scope::In(EntityReference::EUID(uid)) => {
            about(uid.entity_type())
        }
        Scope::Eq(EntityReference::Slot(_)) | Scope::In(EntityReference::Slot(_)) => true,
    };
    let named: Vec<Verb> = match actions {
        ActionConstraint::Any => Vec::new(),
        ActionConstraint::Eq(uid) => Verb::from_name(eid(uid)).into_iter().collect(),
        ActionConstraint::In(uids) => uids.iter().filter_map(|uid| Verb::from_name(eid(uid))).collect(),
    };
    named.into_iter().find(|verb| subjects && !verb.row().askers.contains(&Asker::Subject))
}

/// Whether a scope holds an action. An unconstrained one gives nothing here.
fn gives(scope: &ActionConstraint, verb: Verb) -> bool {
    let holds = |uid: &EntityUID| eid(uid) == verb.name() || eid(uid) == verbs::GROUP;
    match scope {
        ActionConstraint::Any => false,
        ActionConstraint::Eq(uid) => eid(uid) == verb.name(),
        ActionConstraint::In(uids) => uids.iter().any(|uid| holds(uid)),
    }
}

/// Whether a scope leaves room for whoever asks.
fn fits(scope: &PrincipalConstraint, who: &Principal, entities: &Entities) -> bool {
    let (kind, name) = match who {
        Principal::Subject(name) => ("Guard::Subject", name),
        Principal::User { name, .. } => ("Guard::User", name),
    };
    let is = |uid: &EntityUID| uid.entity_type().to_string() == kind && eid(uid) == name;
    let within = |wanted: &EntityUID| match who {
        Principal::User { roles, .. } => {
            wanted.entity_type().to_string() == "Guard::Role" && roles.iter().any(|role| role == eid(wanted))
        }
        Principal::Subject(_) => {
            entities.iter().any(|known| is(known.uid()) && known.is_descendant_of(wanted))
        }
    };
    let of_kind = |wanted: &EntityType| wanted.to_string() == kind;
    match scope.as_inner() {
        Scope::Any => true,
        Scope::Is(wanted) => of_kind(wanted),
        Scope::Eq(EntityReference::EUID(uid)) => is(uid),
        Scope::In(EntityReference::EUID(uid)) => is(uid) || within(uid),
        Scope::IsIn(wanted, EntityReference::EUID(uid)) => of_kind(wanted) && (is(uid) || within(uid)),
        Scope::Eq(_) | Scope::In(_) | Scope::IsIn(..) => false,
    }
}

fn uid(kind: &str, id: &str) -> Option<EntityUID> {
    Some(EntityUID::from_components(kind.parse().ok()?, Eid::new(id), None))
}

fn entity(kind: &str, id: &str) -> Option<Entity> {
    uid(kind, id).map(Entity::with_uid)
}
