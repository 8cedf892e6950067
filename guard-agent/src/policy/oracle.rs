//! The oracle: what Cedar answers over the effective policy set.
//!
//! The tables must answer the same; `guardctl` tools and tests ask here because Cedar also names
//! the policies that decided.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cedar_policy_core::ast::{
    Context, Eid, Entity, EntityType, EntityUID, EntityUIDEntry, PolicySet, Request as CedarRequest,
    RestrictedExpr,
};
use cedar_policy_core::authorizer::{Authorizer, Decision};
use cedar_policy_core::entities::{Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::extensions::Extensions;
use guard_common::action::Action;

use super::bundle::Bundle;
use super::diagnostics::{Diagnostic, Diagnostics};
use super::effective::{EffectivePolicy, EffectiveSet, counts_for_api, may_concern, subject_uid};
use super::entity::Covers;
use super::gate::Session;
use super::places::own_host;
use super::request::Request;
use super::subjects::Mode;
use super::verbs::{Asker, Verb};
use super::world::{FactValue, Facts};
use crate::host::Host;

/// What one policy set answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it allows.
    pub allow: bool,
    /// The policies that decided, by name: permits if it allows, else forbids. Empty if nothing
    /// permits.
    pub policies: Vec<String>,
    /// Why policies could not be evaluated. Then the answer is no.
    pub errors: Vec<String>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Of the enforced set, the policies without `@mode("monitor")`.
    pub enforced: Answer,
    /// Of the candidate set, all policies.
    pub candidate: Answer,
    /// The subject is in monitor mode, so nothing is denied.
    pub monitor: bool,
    /// A denial answers as if the resource were not there: a policy behind it says so (`@errno`).
    pub quiet: bool,
}

impl Verdict {
    /// Whether the operation goes through.
    pub fn allowed(&self) -> bool {
        self.monitor || self.enforced.allow
    }

    /// Whether it goes through and is reported because the candidate set denies it.
    pub fn would_deny(&self) -> bool {
        self.allowed() && !self.candidate.allow
    }

    /// Whether it is denied and reported because the candidate set allows it.
    pub fn would_allow(&self) -> bool {
        !self.allowed() && self.candidate.allow
    }
}

/// What would lift a denial.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Lift {
    /// A lease that would have to live.
    pub lease: Option<String>,
    /// A change window that would have to be open.
    pub window: Option<String>,
}

/// The sets that are asked for one subject.
struct Sets {
    enforced: PolicySet,
    /// Nothing if it is the enforced set.
    candidate: Option<PolicySet>,
}

/// Answers requests by one bundle, on one host, under one set of facts.
pub struct Oracle<'a> {
    bundle: &'a Bundle,
    /// The effective policy set.
    pub set: EffectiveSet,
    covers: Covers<'a>,
    facts: Facts,
    context: Context,
    sets: HashMap<String, Sets>,
    entities: Entities,
    /// The same for subjects with a root of their own, if there are any.
    own: Option<OwnRoot>,
}

/// The effective policy set where every path counts from a root of the subject's own.
struct OwnRoot {
    host: Host,
    set: EffectiveSet,
    sets: HashMap<String, Sets>,
}

impl OwnRoot {
    fn new(bundle: &Bundle, host: &Host, facts: &Facts) -> Result<Option<Self>, Diagnostics> {
        let mut subjects = bundle.subjects.iter().filter(|subject| subject.has_own_root()).peekable();
        if subjects.peek().is_none() {
            return Ok(None);
        }
        let host = own_host(host);
        let set = EffectiveSet::new(bundle, &host, facts)?;
        let sets = subjects
            .map(|subject| Ok((subject.name.clone(), Sets::of(&set, bundle, &subject.name)?)))
            .collect::<Result<_, Diagnostics>>()?;
        Ok(Some(Self { host, set, sets }))
    }
}

impl<'a> Oracle<'a> {
    /// An oracle for `bundle` on `host` under `facts`.
    ///
    /// # Errors
    /// If a policy has no exact counterpart; the compiler refuses the same policies.
    pub fn new(bundle: &'a Bundle, host: &'a Host, facts: &Facts) -> Result<Self, Diagnostics> {
        let set = EffectiveSet::new(bundle, host, facts)?;
        let covers = Covers::new(bundle, host, &set);
        let mut sets = HashMap::new();
        for subject in &bundle.subjects {
            sets.insert(subject.name.clone(), Sets::of(&set, bundle, &subject.name)?);
        }
        let entities = actions_and_subjects(bundle)?;
        let context = context(facts)?;
        let own = OwnRoot::new(bundle, host, facts)?;
        Ok(Self { bundle, set, covers, facts: facts.clone(), context, sets, entities, own })
    }

    /// Answers `request`. A subject that the bundle does not define is permitted nothing.
    ///
    /// # Errors
    /// If the request cannot be put to Cedar; that is a fault of Guard.
    pub fn decide(&self, request: &Request) -> Result<Verdict, Diagnostic> {
        self.decide_in(request, &self.context)
    }

    /// What would turn a denial by the enforced set into permission: one lease, one open window,
    /// or one of each where neither is enough.
    ///
    /// # Errors
    /// As for [`Oracle::decide`].
    pub fn lifts(&self, request: &Request) -> Result<Vec<Lift>, Diagnostic> {
        let names = |names: &[String], live: &BTreeSet<String>| -> Vec<Option<String>> {
            let others = names.iter().filter(|name| !live.contains(*name));
            std::iter::once(None).chain(others.map(|name| Some(name.clone()))).collect()
        };
        let leases = names(&self.bundle.approvals, &self.facts.leases);
        let windows = names(&self.bundle.windows, &self.facts.windows);
        let mut found: Vec<Lift> = Vec::new();
        let mut candidates: Vec<Lift> = leases
            .iter()
            .flat_map(|lease| {
                windows.iter().map(|window| Lift { lease: lease.clone(), window: window.clone() })
            })
            .collect();
        candidates.sort_by_key(|lift| usize::from(lift.lease.is_some()) + usize::from(lift.window.is_some()));
        for lift in candidates {
            let enough = |part: &Lift| {
                (part.lease.is_none() || part.lease == lift.lease)
                    && (part.window.is_none() || part.window == lift.window)
            };
            if found.iter().any(enough) {
                continue;
            }
            let mut facts = self.facts.clone();
            facts.leases.extend(lift.lease.clone());
            facts.windows.extend(lift.window.clone());
            if self.decide_in(request, &context(&facts)?)?.enforced.allow {
                found.push(lift);
            }
        }
        Ok(found)
    }

    fn decide_in(&self, request: &Request, context: &Context) -> Result<Verdict, Diagnostic> {
        let broken = || internal("the request cannot be put to Cedar");
        let subject = self.bundle.subjects.iter().find(|subject| subject.name == request.subject);
        let groups = |name: &str| {
            let known = self.bundle.subjects.iter().find(|subject| subject.name == name);
            known.map(|subject| subject.groups.clone()).unwrap_or_default()
        };
        let own = self.own.as_ref().filter(|own| own.sets.contains_key(&request.subject));
        let resource = match own {
            Some(own) => Covers::new(self.bundle, &own.host, &own.set).entity(request, &self.facts, &groups),
            None => self.covers.entity(request, &self.facts, &groups),
        }
        .ok_or_else(broken)?;
        let uid = |kind, id: &str| self.covers.uid(kind, id).ok_or_else(broken);
        let known = |uid| EntityUIDEntry::known(uid, None);
        let cedar = CedarRequest::new_unchecked(
            known(uid("Guard::Subject", &request.subject)?),
            known(uid("Guard::Action", &request.action)?),
            known(resource.uid().clone()),
            Some(context.clone()),
        );
        let none = Answer { allow: false, policies: Vec::new(), errors: Vec::new() };
        let sets = own.map_or(&self.sets, |own| &own.sets);
        let verb = Verb::from_name(&request.action);
        let can_ask = verb.is_none_or(|verb| verb.row().askers.contains(&Asker::Subject));
        let Some(sets) = sets.get(&request.subject).filter(|_| can_ask) else {
            return Ok(Verdict { enforced: none.clone(), candidate: none, monitor: false, quiet: false });
        };
        // What is asked of Guard itself is decided by fewer policies, and no mode lets it through.
        let for_api = |policy: &EffectivePolicy| {
            may_concern(&policy.policy, self.bundle, &request.subject)
                && counts_for_api(policy.permit, policy.policy.action_constraint())
        };
        let api = verb.map(|_| Sets::select(&self.set, for_api)).transpose()?;
        let sets = api.as_ref().unwrap_or(sets);
        // A subject that is itself the resource is part of the store already.
        let store = if request.resource.entity_type() == "Guard::Subject"
            && self.bundle.subjects.iter().any(|subject| subject.name == resource_name(&resource))
        {
            self.entities.clone()
        } else {
            let resource = std::iter::once(std::sync::Arc::new(resource));
            let schema = None::<&NoEntitiesSchema>;
            let extensions = Extensions::all_available();
            self.entities
                .clone()
                .add_entities(resource, schema, TCComputation::AssumeAlreadyComputed, extensions)
                .map_err(|error| internal(&error.to_string()))?
        };
        let enforced = answer(&cedar, &sets.enforced, &store);
        let candidate = match &sets.candidate {
            Some(set) => answer(&cedar, set, &store),
            None => enforced.clone(),
        };
        let monitor = verb.is_none() && subject.is_some_and(|subject| subject.mode == Mode::Monitor);
        let action = request.known_action().map_or(0, Action::bit);
        let quiet = !monitor
            && !enforced.allow
            && enforced.policies.iter().any(|id| self.set.get(id).is_some_and(|by| by.quiet & action != 0));
        Ok(Verdict { enforced, candidate, monitor, quiet })
    }
}

fn resource_name(resource: &Entity) -> &str {
    super::policies::eid(resource.uid())
}

impl Sets {
    fn of(set: &EffectiveSet, bundle: &Bundle, subject: &str) -> Result<Self, Diagnostic> {
        Self::select(set, |policy| may_concern(&policy.policy, bundle, subject))
    }

    fn select(set: &EffectiveSet, wanted: impl Fn(&EffectivePolicy) -> bool) -> Result<Self, Diagnostic> {
        let (mut enforced, mut all, mut monitored) = (PolicySet::new(), PolicySet::new(), false);
        for policy in set.policies.iter().filter(|policy| wanted(policy)) {
            let twice = |error: &dyn std::fmt::Display| internal(&error.to_string());
            if policy.monitor {
                monitored = true;
            } else {
                enforced.add_static(policy.policy.clone()).map_err(|error| twice(&error))?;
            }
            all.add_static(policy.policy.clone()).map_err(|error| twice(&error))?;
        }
        Ok(Self { enforced, candidate: monitored.then_some(all) })
    }
}

fn answer(request: &CedarRequest, set: &PolicySet, entities: &Entities) -> Answer {
    let response = Authorizer::new().is_authorized(request.clone(), set, entities);
    let errors: Vec<String> = response.diagnostics.errors.iter().map(ToString::to_string).collect();
    let mut policies: Vec<String> =
        response.diagnostics.reason.iter().map(|id| AsRef::<str>::as_ref(id).to_owned()).collect();
    policies.sort();
    Answer { allow: response.decision == Decision::Allow && errors.is_empty(), policies, errors }
}

/// Actions with their groups, and subjects with theirs.
pub(super) fn actions_and_subjects(bundle: &Bundle) -> Result<Entities, Diagnostic> {
    let actions = bundle.schema.action_entities().map_err(|error| internal(&error.to_string()))?;
    let group: EntityType = "Guard::Group".parse().map_err(|_| internal("groups cannot be put to Cedar"))?;
    let mut subjects = Vec::new();
    for subject in &bundle.subjects {
        let mut entity = Entity::with_uid(subject_uid(&subject.name).map_err(|error| *error)?);
        for name in &subject.groups {
            entity.add_parent(EntityUID::from_components(group.clone(), Eid::new(name.as_str()), None));
        }
        subjects.push(std::sync::Arc::new(entity));
    }
    let extensions = Extensions::all_available();
    actions
        .add_entities(subjects, None::<&NoEntitiesSchema>, TCComputation::AssumeAlreadyComputed, extensions)
        .map_err(|error| internal(&error.to_string()))
}

/// `context` of a request: what is not part of the resource.
fn context(facts: &Facts) -> Result<Context, Diagnostic> {
    context_of(facts, &Session::default())
}

/// The same, of a known session.
pub(super) fn context_of(facts: &Facts, session: &Session) -> Result<Context, Diagnostic> {
    let broken = |error: &dyn std::fmt::Display| internal(&error.to_string());
    let names = |names: &BTreeSet<String>| {
        RestrictedExpr::set(names.iter().map(|name| RestrictedExpr::val(name.as_str())))
    };
    let posture: BTreeMap<_, _> = facts
        .posture
        .iter()
        .map(|(name, value)| {
            let value = match value {
                FactValue::Long(number) => RestrictedExpr::val(*number),
                FactValue::String(text) => RestrictedExpr::val(text.as_str()),
                FactValue::Bool(value) => RestrictedExpr::val(*value),
            };
            (name.as_str().into(), value)
        })
        .collect();
    let session = [
        ("human".into(), RestrictedExpr::val(session.human.as_str())),
        ("id".into(), RestrictedExpr::val(session.id.as_str())),
        ("tty".into(), RestrictedExpr::val(session.tty)),
    ];
    let fields = [
        ("posture".into(), RestrictedExpr::record(posture).map_err(|error| broken(&error))?),
        ("leases".into(), names(&facts.leases)),
        ("windows".into(), names(&facts.windows)),
        ("session".into(), RestrictedExpr::record(session).map_err(|error| broken(&error))?),
    ];
    Context::from_pairs(fields, Extensions::all_available()).map_err(|error| broken(&error))
}

fn internal(message: &str) -> Diagnostic {
    Diagnostic::error("internal", message)
}
