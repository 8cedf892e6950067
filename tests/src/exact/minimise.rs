//! Makes a counter-example smaller as long as it stays one.

use std::path::PathBuf;

use guard_agent::policy::{Facts, Listener, Request, Resource, Signers, Spot};
use guard_common::tables::Attributes;

use crate::compare::Setting;
use crate::model::{Expr, Model, Policy};

/// The smallest setting and request to be found for which `differs` still holds.
pub(crate) fn minimise(
    setting: &Setting,
    request: &Request,
    differs: &dyn Fn(&Setting, &Request) -> bool,
) -> (Setting, Request) {
    let (mut setting, mut request) = (setting.clone(), request.clone());
    loop {
        if let Some(smaller) =
            settings(&setting, &request).into_iter().find(|smaller| differs(smaller, &request))
        {
            setting = smaller;
        } else if let Some(smaller) =
            requests(&request).into_iter().find(|smaller| differs(&setting, smaller))
        {
            request = smaller;
        } else {
            return (setting, request);
        }
    }
}

/// Every setting that is one step smaller; large steps first.
fn settings(setting: &Setting, request: &Request) -> Vec<Setting> {
    let mut smaller = Vec::new();
    smaller.extend(
        models(&setting.model, &request.subject, &request.action)
            .into_iter()
            .map(|model| Setting { model, ..setting.clone() }),
    );
    smaller.extend(facts(&setting.facts).into_iter().map(|facts| Setting { facts, ..setting.clone() }));
    let mut with = |change: &dyn Fn(&mut Setting)| {
        let mut other = setting.clone();
        change(&mut other);
        smaller.push(other);
    };
    for index in 1..setting.world.mounts.len() {
        with(&|other| drop(other.world.mounts.remove(index)));
    }
    for index in 0..setting.world.links.len() {
        with(&|other| drop(other.world.links.remove(index)));
    }
    for index in 0..setting.world.resolvers.len() {
        with(&|other| {
            other.world.resolvers.remove(index);
        });
    }
    smaller
}

/// Every bundle that is one step smaller, as far as this action of this subject needs it.
pub(crate) fn models(model: &Model, subject: &str, action: &str) -> Vec<Model> {
    let mut smaller = Vec::new();
    let mut with = |change: &dyn Fn(&mut Model)| {
        let mut other = model.clone();
        change(&mut other);
        if other != *model {
            smaller.push(other);
        }
    };
    for index in 0..model.policies.len() {
        with(&|other| drop(other.policies.remove(index)));
    }
    with(&|other| other.subjects.retain(|one| one.name == subject));
    for index in 0..model.subjects.len() {
        with(&|other| other.subjects[index].include.clear());
        with(&|other| other.subjects[index].groups.clear());
        with(&|other| other.subjects[index].governs = vec!["*"]);
        with(&|other| other.subjects[index].monitor = false);
        for include in 0..model.subjects[index].include.len() {
            with(&|other| drop(other.subjects[index].include.remove(include)));
        }
    }
    for index in 0..model.names.len() {
        with(&|other| drop(other.names.remove(index)));
    }
    for (index, policy) in model.policies.iter().enumerate() {
        for policy in policies(policy, action) {
            with(&|other| other.policies[index] = policy.clone());
        }
    }
    smaller
}

fn policies(policy: &Policy, action: &str) -> Vec<Policy> {
    let mut smaller = Vec::new();
    let mut with = |change: &dyn Fn(&mut Policy)| {
        let mut other = policy.clone();
        change(&mut other);
        if other != *policy {
            smaller.push(other);
        }
    };
    for index in 0..policy.clauses.len() {
        with(&|other| drop(other.clauses.remove(index)));
    }
    with(&|other| {
        other.template = false;
        other.id = other.id.replace(':', "-");
    });
    with(&|other| other.annotations.clear());
    with(&|other| other.principal = "principal".to_owned());
    with(&|other| other.resource = "resource".to_owned());
    with(&|other| other.action = format!("action == Guard::Action::\"{}\"", action));
    for (index, clause) in policy.clauses.iter().enumerate() {
        for condition in expressions(&clause.condition) {
            with(&|other| other.clauses[index].condition = condition.clone());
        }
        with(&|other| other.clauses[index].unless = false);
    }
    smaller
}

/// Its parts, and itself with a part made smaller.
fn expressions(expr: &Expr) -> Vec<Expr> {
    let mut smaller: Vec<Expr> = expr.parts().into_iter().cloned().collect();
    for (index, part) in expr.parts().into_iter().enumerate() {
        smaller.extend(expressions(part).into_iter().map(|part| expr.with_part(index, part)));
    }
    smaller
}

fn facts(facts: &Facts) -> Vec<Facts> {
    let mut smaller = Vec::new();
    for lease in &facts.leases {
        let mut other = facts.clone();
        other.leases.remove(lease);
        smaller.push(other);
    }
    for fact in facts.posture.keys() {
        let mut other = facts.clone();
        other.posture.remove(fact);
        smaller.push(other);
    }
    if !facts.windows.is_empty() {
        smaller.push(Facts { windows: Default::default(), ..facts.clone() });
    }
    if !facts.session.is_empty() {
        smaller.push(Facts { session: Default::default(), ..facts.clone() });
    }
    if facts.listener != Listener::Unknown {
        smaller.push(Facts { listener: Listener::Unknown, ..facts.clone() });
    }
    if facts.signed_by != Signers::Unknown {
        smaller.push(Facts { signed_by: Signers::Unknown, ..facts.clone() });
    }
    smaller
}

fn requests(request: &Request) -> Vec<Request> {
    let spots = |spot: &Spot| -> Vec<Spot> {
        match spot {
            Spot::Path(path) => shorter(path).into_iter().map(Spot::Path).collect(),
            Spot::Place { device, path } => {
                shorter(path).into_iter().map(|path| Spot::Place { device: *device, path }).collect()
            }
            Spot::Inside { class, path } => {
                shorter(path).into_iter().map(|path| Spot::Inside { class: *class, path }).collect()
            }
            Spot::Builtin(_) | Spot::Abstract(_) => Vec::new(),
        }
    };
    let resources: Vec<Resource> = match &request.resource {
        Resource::File(spot) => spots(spot).into_iter().map(Resource::File).collect(),
        Resource::Dir(spot) => spots(spot).into_iter().map(Resource::Dir).collect(),
        Resource::Unix(spot) => spots(spot).into_iter().map(Resource::Unix).collect(),
        _ => Vec::new(),
    };
    let mut smaller: Vec<Request> =
        resources.into_iter().map(|resource| Request { resource, ..request.clone() }).collect();
    if request.listener.is_some() {
        smaller.push(Request { listener: None, ..request.clone() });
    }
    for change in [
        |attributes: &mut Attributes| attributes.owner = 0,
        |attributes: &mut Attributes| attributes.set_id = 0,
        |attributes: &mut Attributes| attributes.fileless = 0,
    ] {
        let mut other = request.clone();
        change(&mut other.attributes);
        let key = |of: &Request| (of.attributes.owner, of.attributes.set_id, of.attributes.fileless);
        if key(&other) != key(request) {
            smaller.push(other);
        }
    }
    smaller
}

/// The path without each of its components.
fn shorter(path: &std::path::Path) -> Vec<PathBuf> {
    let parts: Vec<_> = path.components().skip(1).collect();
    (0..parts.len())
        .map(|left_out| {
            let rest = parts.iter().enumerate().filter(|(index, _)| *index != left_out);
            rest.fold(PathBuf::from("/"), |path, (_, part)| path.join(part))
        })
        .collect()
}
