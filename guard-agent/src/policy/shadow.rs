//! A second bundle beside the one that is enforced: its verdicts are compared, and nobody enforces them.
//!
//! Its rules are about the same atoms as those of the first bundle, so both are decided in the same
//! classes, by the same features and rows. It can make these finer, and changes no answer of the first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::bundle::Bundle;
use super::diagnostics::Diagnostic;
use super::formula::{Atom, AtomId, Formula};
use super::network::Range;
use super::outcome::Rule;
use super::rules::{self, Rules};
use super::seats::Seat;
use super::subjects::Mode;
use super::world::Facts;
use crate::host::Host;

/// Adds the enforced set of `shadow` to the rules of the subjects that both bundles have. Returns the
/// addresses of the names of both.
///
/// Policies of the shadow are numbered after those of `bundle`.
pub(super) fn add(
    rules: &mut Rules,
    bundle: &Bundle,
    (shadow, seats): (&Bundle, &[Seat]),
    host: &Host,
    facts: &Facts,
    found: &mut Vec<Diagnostic>,
) -> BTreeMap<String, Vec<Range>> {
    let first = rules::all_policies(bundle).count();
    let wanted = |name: &str| bundle.subjects.iter().any(|subject| subject.name == name);
    let theirs = rules::translate_some(&mut rules.atoms, shadow, host, facts, &wanted, found);
    let of_seats = rules::translate_seats(&mut rules.atoms, shadow, (host, seats), facts, found);
    let (names, renamed) = own_names(rules, bundle, shadow);
    let of_shadow = |rule: &Rule| Rule {
        enforced: false,
        candidate: false,
        shadow: true,
        audit: false,
        quiet: 0,
        formula: rule.formula.substitute(&|id| Formula::Atom(renamed.get(&id).copied().unwrap_or(id))),
        policy: rule.policy.map(|number| first + number),
        ..*rule
    };
    // Subjects share what policies say of all of them, here as well.
    let mut shared: HashMap<*const Rule, Arc<Rule>> = HashMap::new();
    let mut join = |own: &mut Vec<Arc<Rule>>, theirs: &[Arc<Rule>]| {
        own.extend(theirs.iter().filter(|rule| rule.enforced).map(|rule| {
            Arc::clone(shared.entry(Arc::as_ptr(rule)).or_insert_with(|| Arc::new(of_shadow(rule))))
        }));
    };
    for (subject, own) in bundle.subjects.iter().zip(&mut rules.by_subject) {
        let Some(position) = shadow.subjects.iter().position(|other| other.name == subject.name) else {
            continue;
        };
        join(own, &theirs[position]);
    }
    for (own, theirs) in rules.by_seat.iter_mut().zip(&of_seats) {
        join(own, theirs);
    }
    names
}

/// A subject's mode by the shadow, if that has it.
pub(super) fn mode(shadow: Option<&Bundle>, subject: &str) -> Option<Mode> {
    shadow?.subjects.iter().find(|other| other.name == subject).map(|other| other.mode)
}

/// The addresses of the names of both bundles. A name that the shadow gives other addresses is another
/// literal, which takes its place in the shadow's rules.
fn own_names(
    rules: &mut Rules,
    bundle: &Bundle,
    shadow: &Bundle,
) -> (BTreeMap<String, Vec<Range>>, HashMap<AtomId, AtomId>) {
    let mut names = bundle.names.clone();
    let mut renamed = HashMap::new();
    let used: Vec<(AtomId, String)> = rules
        .atoms
        .iter()
        .filter_map(|(id, atom, _)| match atom {
            Atom::Dns(name) => Some((id, name.clone())),
            _ => None,
        })
        .collect();
    for (id, name) in used {
        let ranges = shadow.names.get(&name).cloned().unwrap_or_default();
        if bundle.names.get(&name).cloned().unwrap_or_default() == ranges {
            continue;
        }
        // No name that a policy writes ends like this.
        let other = format!("{name}\0shadow");
        let mention = || Diagnostic::note("shadow", "");
        renamed.insert(id, rules.atoms.intern(Atom::Dns(other.clone()), mention));
        names.insert(other, ranges);
    }
    (names, renamed)
}
