//! Policies of the bundle as rules: one per (policy, subject, type of resource).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cedar_policy_core::ast::{
    EntityReference, Expr, ExprKind, Literal, PrincipalOrResourceConstraint as Scope, Var,
};
use guard_common::action::{Action, TABLE};

use super::bundle::Bundle;
use super::condition::Test;
use super::diagnostics::{Diagnostic, Severity};
use super::formula::{Atom, Atoms, Formula};
use super::kind::Kind;
use super::literals;
use super::outcome::Rule;
use super::policies::{Policy, eid};
use super::seats::Seat;
use super::subjects::SubjectDefinition;
use super::translate::{Names, Translator};
use super::world::{Facts, Mentions, Signers};
use crate::host::Host;

/// The rules of every subject, and every atom they mention.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) atoms: Atoms,
    /// By position of the subject in the bundle. Subjects share what policies say of all of them.
    pub(super) by_subject: Vec<Vec<Arc<Rule>>>,
    /// By position of the session among those with rows of their own.
    pub(super) by_seat: Vec<Vec<Arc<Rule>>>,
}

impl Rules {
    /// Replaces the formula of every rule, once for all who share it.
    pub(super) fn map_formulas(&mut self, with: impl Fn(&Formula) -> Formula) {
        let mut known: HashMap<*const Rule, Arc<Rule>> = HashMap::new();
        let originals = (self.by_subject.clone(), self.by_seat.clone());
        for rule in self.by_subject.iter_mut().chain(&mut self.by_seat).flatten() {
            let mapped = || Arc::new(Rule { formula: with(&rule.formula), ..Rule::clone(rule) });
            *rule = Arc::clone(known.entry(Arc::as_ptr(rule)).or_insert_with(mapped));
        }
        // An address that was freed meanwhile could have been given to another rule.
        drop(originals);
    }
}

/// Translates the effective policy set. Errors and notes go to `found`.
pub(super) fn translate(
    bundle: &Bundle,
    seats: &[Seat],
    host: &Host,
    facts: &Facts,
    found: &mut Vec<Diagnostic>,
) -> Rules {
    let mut atoms = Atoms::default();
    let by_subject = translate_into(&mut atoms, bundle, host, facts, found);
    let by_seat = translate_seats(&mut atoms, bundle, seats, host, facts, found);
    Rules { atoms, by_subject, by_seat }
}

/// The rules of every session with variables, in which these have values. What was said of the same
/// policies without values is not said again.
pub(super) fn translate_seats(
    atoms: &mut Atoms,
    bundle: &Bundle,
    seats: &[Seat],
    host: &Host,
    facts: &Facts,
    found: &mut Vec<Diagnostic>,
) -> Vec<Vec<Arc<Rule>>> {
    let mut one = |seat: &Seat| {
        let position = bundle.subjects.iter().position(|subject| subject.name == seat.subject);
        let facts = Facts { session: seat.variables.clone(), ..facts.clone() };
        let mut own = Vec::new();
        let mut rules = translate_some(atoms, bundle, host, &facts, &|name| name == seat.subject, &mut own);
        found.extend(own.into_iter().filter(|found| found.severity == Severity::Error));
        position.map(|position| rules.swap_remove(position)).unwrap_or_default()
    };
    seats.iter().map(&mut one).collect()
}

/// The rules of every subject, by its position in the bundle. What they mention is added to `atoms`,
/// which other bundles may share.
pub(super) fn translate_into(
    atoms: &mut Atoms,
    bundle: &Bundle,
    host: &Host,
    facts: &Facts,
    found: &mut Vec<Diagnostic>,
) -> Vec<Vec<Arc<Rule>>> {
    translate_some(atoms, bundle, host, facts, &|_| true, found)
}

/// The same, of the subjects that are `wanted` only; the others have no rules.
pub(super) fn translate_some(
    atoms: &mut Atoms,
    bundle: &Bundle,
    host: &Host,
    facts: &Facts,
    wanted: &impl Fn(&str) -> bool,
    found: &mut Vec<Diagnostic>,
) -> Vec<Vec<Arc<Rule>>> {
    let groups: BTreeMap<String, Vec<String>> =
        bundle.subjects.iter().map(|subject| (subject.name.clone(), subject.groups.clone())).collect();
    let names = Names {
        groups: &groups,
        approvals: &bundle.approvals,
        windows: &bundle.windows,
        facts: &bundle.facts,
    };
    let policies: Vec<&Policy> = all_policies(bundle).collect();
    let details: Vec<Details> =
        policies.iter().map(|policy| Details::of(bundle, policy, facts, found)).collect();
    let index = Index::new(bundle, &policies);
    let mut by_subject = Vec::new();
    // What policies say that say the same of every subject they apply to.
    let mut common: HashMap<(usize, bool), Vec<Arc<Rule>>> = HashMap::new();
    for subject in &bundle.subjects {
        let mut own = Vec::new();
        if !wanted(&subject.name) {
            by_subject.push(own);
            continue;
        }
        for number in index.of(&subject.name) {
            let job = Job {
                bundle,
                names: &names,
                facts,
                subject,
                policy: policies[number],
                number,
                details: &details[number],
            };
            if details[number].per_subject {
                job.run(atoms, &mut own, found);
            } else if names.fits(&subject.name, policies[number].template.principal_constraint().as_inner()) {
                let rules = common.entry((number, subject.has_own_root())).or_insert_with(|| {
                    let mut rules = Vec::new();
                    job.run(atoms, &mut rules, found);
                    rules
                });
                own.extend_from_slice(rules);
            }
        }
        own.extend(generated(subject, host.undecided).map(Arc::new));
        by_subject.push(own);
    }
    by_subject
}

/// Policies by number: those of the bundle, then the included ones.
pub(super) fn all_policies(bundle: &Bundle) -> impl Iterator<Item = &Policy> {
    bundle.policies.iter().chain(bundle.linked.iter().map(|(policy, _)| policy))
}

/// The permit for what a subject does not govern, the forbid of what it governs if this kernel cannot enforce
/// all of that and its definition wants nothing then, and the forbid of what its kind may never do; once per
/// type of resource.
fn generated(subject: &SubjectDefinition, undecided: u64) -> impl Iterator<Item = Rule> {
    let denied = if subject.is_denied(undecided) { subject.governs } else { 0 };
    let all = [(!subject.governs, true, false), (denied, false, false), (subject.never(), false, true)];
    let kinds = Kind::ALL.into_iter().flat_map(move |kind| all.map(|rule| (kind, rule)));
    kinds.filter_map(|(kind, (wanted, permit, own_root))| {
        let actions = kind.actions() & wanted;
        (actions != 0).then_some(Rule {
            kind,
            actions,
            permit,
            enforced: true,
            candidate: true,
            shadow: false,
            audit: false,
            quiet: 0,
            formula: Formula::TRUE,
            own_root,
            policy: None,
        })
    })
}

/// Which policies can apply to which subject, so that not every pair is looked at.
struct Index {
    general: Vec<usize>,
    named: HashMap<String, Vec<usize>>,
}

impl Index {
    fn new(bundle: &Bundle, policies: &[&Policy]) -> Self {
        let mut this = Self { general: Vec::new(), named: HashMap::new() };
        for (number, policy) in policies.iter().enumerate() {
            let linked = number.checked_sub(bundle.policies.len()).map(|at| bundle.linked[at].1.clone());
            let only = linked.or_else(|| match policy.template.principal_constraint().as_inner() {
                Scope::Eq(EntityReference::EUID(uid)) => Some(eid(uid).to_owned()),
                _ => None,
            });
            match only {
                Some(subject) => this.named.entry(subject).or_default().push(number),
                None => this.general.push(number),
            }
        }
        this
    }

    fn of(&self, subject: &str) -> impl Iterator<Item = usize> {
        self.general.iter().copied().chain(self.named.get(subject).into_iter().flatten().copied())
    }
}

/// What is the same for every subject a policy applies to.
struct Details {
    mentions: Mentions,
    /// The condition depends on the action.
    per_action: bool,
    /// The condition depends on the subject.
    per_subject: bool,
    /// A session variable it names has no value, so it can never permit.
    never: bool,
}

impl Details {
    fn of(bundle: &Bundle, policy: &Policy, facts: &Facts, found: &mut Vec<Diagnostic>) -> Self {
        let condition = policy.template.non_scope_constraints();
        let parts = || condition.into_iter().flat_map(Expr::subexpressions);
        let mentions = Mentions::of(condition);
        let per_action = parts().any(|part| matches!(part.expr_kind(), ExprKind::Var(Var::Action)))
            || mentions.attribute("signed_by") && facts.signed_by == Signers::OfExec;
        let mut unset = Vec::new();
        let mut look = |id: &str| {
            unset.extend(
                literals::session_variables(id)
                    .filter(|name| !facts.session.contains_key(*name))
                    .map(str::to_owned),
            );
        };
        match policy.template.resource_constraint().as_inner() {
            Scope::Eq(EntityReference::EUID(uid))
            | Scope::In(EntityReference::EUID(uid))
            | Scope::IsIn(_, EntityReference::EUID(uid)) => {
                look(eid(uid));
            }
            _ => {}
        }
        for part in parts() {
            if let ExprKind::Lit(Literal::EntityUID(uid)) = part.expr_kind() {
                look(eid(uid));
            }
        }
        // A listener that nothing tells could be the subject itself.
        let per_subject = parts().any(|part| matches!(part.expr_kind(), ExprKind::Var(Var::Principal)))
            || mentions.attribute("listener") && !facts.listener.is_known(Kind::Endpoint);
        let this = Self { mentions, per_action, per_subject, never: !unset.is_empty() };
        if let Some(name) = unset.first() {
            let declared =
                bundle.subjects.iter().any(|subject| subject.variables.contains_key(name.as_str()));
            found.push(match (policy.is_permit(), declared) {
                (true, true) => policy.note(
                    "session",
                    format!("{} permits in sessions only: outside of one ${{session.{name}}} has no value", policy.id),
                ),
                (true, false) => policy
                    .note("session", format!("{} never permits: no subject declares the session variable {name}", policy.id))
                    .help(format!("add `session = {{ {name} = {{ kind = \"dir\" }} }}` to the subject in guard.toml")),
                (false, _) => policy
                    .error("session", None, format!("{} cannot be enforced outside of a session: ${{session.{name}}} has no value there", policy.id))
                    .help("name the path itself"),
            });
        }
        this.remark(bundle, policy, facts, found);
        this
    }

    /// Notes what the policy depends on that this version does not supply.
    fn remark(&self, bundle: &Bundle, policy: &Policy, facts: &Facts, found: &mut Vec<Diagnostic>) {
        let id = &policy.id;
        let effect = if policy.is_permit() {
            "where that would decide, it does not permit"
        } else {
            "where that would decide, it denies"
        };
        let unknown = |kind: Kind| policy.actions & kind.actions() != 0 && !facts.listener.is_known(kind);
        for (attribute, of, unknown) in [
            (
                "listener",
                if unknown(Kind::Unix) { "" } else { " of an endpoint" },
                unknown(Kind::Unix) || unknown(Kind::Endpoint),
            ),
            (
                "signed_by",
                if policy.actions & Action::Exec.bit() == 0 { "" } else { " of what is not executed" },
                match facts.signed_by {
                    Signers::Unknown => true,
                    Signers::OfExec => policy.actions & !Action::Exec.bit() & Kind::File.actions() != 0,
                    Signers::Are(_) => false,
                },
            ),
        ] {
            if self.mentions.attribute(attribute) && unknown {
                found.push(policy.note(
                    "not-in-this-version",
                    format!(
                        "{id} depends on resource.{attribute}{of}, which this version cannot tell; {effect}"
                    ),
                ));
            }
        }
        for (fact, _) in
            self.mentions.facts(&bundle.facts).filter(|(fact, _)| !facts.posture.contains_key(*fact))
        {
            let rule = match (policy.is_permit(), policy.ignore_absent) {
                (true, _) => "and permits nothing without it while it is absent",
                (false, true) => "and by @absent(\"ignore\") does not count while it is absent",
                (false, false) => "and while it is absent denies where some value would",
            };
            found.push(policy.note("absent-fact", format!("{id} depends on the fact {fact}, {rule}")));
        }
        if let Some((name, span)) = policy.approval() {
            if !bundle.approvals.contains(&name) {
                found.push(
                    policy
                        .source
                        .error("approval", span, format!("guard.toml declares no approval \"{name}\""))
                        .help("add it to [approvals]"),
                );
            } else if !self.mentions.attribute("leases") || !self.mentions.mentions_text(&name) {
                found.push(
                    policy
                        .source
                        .error(
                            "approval",
                            span,
                            format!("the lease \"{name}\" cannot change what this policy says"),
                        )
                        .help(format!(
                            "add `context.leases.contains(\"{name}\")` to its condition, or remove @approval"
                        )),
                );
            }
        }
    }
}

/// One policy for one subject.
struct Job<'a> {
    bundle: &'a Bundle,
    names: &'a Names<'a>,
    facts: &'a Facts,
    subject: &'a SubjectDefinition,
    policy: &'a Policy,
    number: usize,
    details: &'a Details,
}

impl Job<'_> {
    fn run(&self, atoms: &mut Atoms, rules: &mut Vec<Arc<Rule>>, found: &mut Vec<Diagnostic>) {
        if self.details.never || self.policy.actions == 0 {
            return;
        }
        for kind in Kind::ALL {
            let actions = self.policy.actions & kind.actions();
            if actions == 0 {
                continue;
            }
            // Without the action in the condition, one of them stands for all.
            let groups: Vec<u64> = if self.details.per_action {
                TABLE.iter().map(|row| row.action.bit()).filter(|bit| bit & actions != 0).collect()
            } else {
                vec![actions]
            };
            for actions in groups {
                let name =
                    TABLE.iter().find(|row| row.action.bit() & actions != 0).map_or("", |row| row.name);
                match self.formula(kind, name, atoms) {
                    Ok(Formula::Const(false)) => {}
                    Ok(formula) => rules.push(Arc::new(Rule {
                        kind,
                        actions,
                        permit: self.policy.is_permit(),
                        enforced: !self.policy.monitor,
                        candidate: true,
                        shadow: false,
                        audit: self.policy.audit,
                        quiet: self.policy.quiet & actions,
                        formula,
                        own_root: false,
                        policy: Some(self.number),
                    })),
                    Err(error) => found.push(*error),
                }
            }
        }
    }

    /// The condition over all worlds: a permit must hold in every one, a forbid in some.
    fn formula(
        &self,
        kind: Kind,
        action: &'static str,
        atoms: &mut Atoms,
    ) -> Result<Formula, Box<Diagnostic>> {
        let permit = self.policy.is_permit();
        let vary_facts = !permit && !self.policy.ignore_absent;
        let asked = (self.subject.name.as_str(), action);
        let Some(worlds) = self.details.mentions.worlds(self.facts, &self.bundle.facts, asked, vary_facts)
        else {
            return Err(Box::new(
                self.policy
                    .error(
                        "too-large",
                        None,
                        format!("{} depends on too many absent facts and constants at once", self.policy.id),
                    )
                    .help("split it into several policies"),
            ));
        };
        let mut found = Vec::with_capacity(worlds.len());
        for world in &worlds {
            let one = Translator {
                names: self.names,
                policy: self.policy,
                subject: &self.subject.name,
                own_root: self.subject.has_own_root(),
                kind,
                action,
                session: &self.facts.session,
                world,
                atoms,
            }
            .policy()?;
            // A value is tried for a fact only while it is absent.
            found.push(world.assumed.keys().fold(one, |one, fact| {
                let present = Atom::Condition(Test::Present(fact.clone()));
                let policy = self.policy;
                let id = atoms.intern(present, || policy.error("not-exact", None, String::new()));
                Formula::Atom(id).not().and(one)
            }));
        }
        Ok(if permit { Formula::all(found) } else { Formula::any(found) })
    }
}
