//! What each permit of a subject gives: which actions, on which classes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use guard_common::class::{Class, FIRST_COMPILED};

use super::bundle::Bundle;
use super::classes::{ClassInfo, substitute};
use super::compile::front;
use super::diagnostics::Diagnostics;
use super::effective::fits;
use super::formula::{AtomId, Formula};
use super::ids::SubjectIds;
use super::outcome::Rule;
use super::places::Mounts;
use super::rules;
use super::world::Facts;
use crate::host::Host;

/// One permit of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The policy.
    pub policy: String,
    /// The file it is written in.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// The actions it speaks of, as bits.
    pub actions: u64,
    /// The actions it gives on each class, by what falls into the class, for people: the same words as
    /// in [`Names::classes`](super::Names::classes).
    pub classes: BTreeMap<String, u64>,
}

/// The permits of `subject`, in the order of the bundle. Generated ones are left out.
///
/// A permit gives nothing, and has no class, if its condition never holds or its actions are decided by
/// nothing.
///
/// # Errors
/// If the bundle does not compile on this host.
pub fn grants(
    bundle: &Bundle,
    host: &Host,
    ids: &SubjectIds,
    subject: &str,
) -> Result<Vec<Grant>, Diagnostics> {
    let Some(position) = bundle.subjects.iter().position(|known| known.name == subject) else {
        return Ok(Vec::new());
    };
    let mounts = Mounts::new(&host.mounts);
    let mut ids = ids.clone();
    let front = front(bundle, (None, &[]), host, &mounts, &Facts::default(), &mut ids)?;
    let (rules, classes) = (&front.rules.by_subject[position], &front.classes);
    let words = classes.describe(&front.rules.atoms);
    let policies: Vec<_> = rules::all_policies(bundle).collect();

    let mut found: BTreeMap<usize, Grant> = BTreeMap::new();
    let permits: Vec<(usize, &Rule)> =
        rules.iter().filter(|rule| rule.permit).filter_map(|rule| Some((rule.policy?, &**rule))).collect();
    for (number, policy) in policies.iter().enumerate() {
        let applies = match number.checked_sub(bundle.policies.len()) {
            Some(linked) => bundle.linked[linked].1 == subject,
            None => fits(policy.template.principal_constraint(), bundle, subject),
        };
        if !policy.is_permit() || !applies {
            continue;
        }
        let grant = Grant {
            policy: policy.id.clone(),
            file: policy.source.name.to_string(),
            line: policy.source.place(policy.span()).line,
            actions: policy.actions,
            classes: BTreeMap::new(),
        };
        found.insert(number, grant);
    }
    // Most permits name one literal and give nothing elsewhere: only those classes are looked at.
    let mut covered: HashMap<AtomId, Vec<Class>> = HashMap::new();
    for (number, info) in classes.list().iter().enumerate() {
        for id in info.cover.iter() {
            covered.entry(*id).or_default().push(number as Class);
        }
    }
    for (number, rule) in permits {
        let gives = |info: &ClassInfo| {
            info.sort.admits(rule.kind)
                && rule.formula.substitute(&|id| substitute(&front.rules.atoms, info, id)) != Formula::FALSE
        };
        let bare = |info: &ClassInfo| gives(&ClassInfo { sort: info.sort, cover: Vec::new().into() });
        let mut candidates: BTreeSet<Class> = (0..FIRST_COMPILED).collect();
        rule.formula.for_each_atom(&mut |id| {
            candidates.extend(covered.get(&id).into_iter().flatten());
        });
        if classes.list().iter().any(|info| info.sort.admits(rule.kind) && bare(info)) {
            candidates.extend(0..classes.list().len() as Class);
        }
        let Some(grant) = found.get_mut(&number) else { continue };
        for class in candidates {
            let given = classes.list().get(class as usize).is_some_and(gives);
            if let Some(word) = words.get(class as usize).filter(|_| given) {
                *grant.classes.entry(word.clone()).or_default() |= rule.actions;
            }
        }
    }
    Ok(found.into_values().collect())
}
