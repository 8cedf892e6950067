//! The same in small, with every change; and that a difference would be found and made small.

use guard_agent::policy::{Request, Resource, Spot};
use guard_common::tables::Attributes;

use crate::compare::Setting;
use crate::minimise::minimise;
use crate::words::Words;
use crate::world::World;
use crate::{generate, tables};

#[test]
fn the_tables_answer_what_cedar_answers() {
    let outcome = tables::run(20_000, 1, 2);
    assert_eq!(outcome.counter_example, None);
    assert_eq!(outcome.decisions, 20_000);
    assert!(outcome.answers.iter().all(|count| *count > 100), "hardly anything was asked: {outcome:?}");
    let refused: u64 = outcome.refused.values().sum();
    assert!(refused < outcome.bundles / 4, "too few of the bundles compile: {outcome:?}");
}

#[test]
fn a_counter_example_becomes_small() {
    let mut rng = tables::generator(3, 3);
    let words = Words::random(&mut rng);
    let setting = Setting {
        world: World::random(&mut rng),
        facts: generate::facts(&mut rng, &words),
        model: generate::bundle(&mut rng, &words),
    };
    let request = Request {
        subject: "web".into(),
        action: "file.read".into(),
        resource: Resource::File(Spot::Path("/srv/www/x/y".into())),
        attributes: Attributes::default(),
        within: Vec::new(),
    };
    // As if every permit in a bundle, and every path with "www" in it, made a difference.
    let differs = |setting: &Setting, request: &Request| {
        let Resource::File(Spot::Path(path)) = &request.resource else { return false };
        setting.model.policies.iter().any(|policy| policy.permit) && path.to_string_lossy().contains("www")
    };
    assert!(differs(&setting, &request), "another seed is needed");
    let (setting, request) = minimise(&setting, &request, &differs);
    let [policy] = &setting.model.policies[..] else { panic!("{:?}", setting.model.policies) };
    assert_eq!((policy.principal.as_str(), policy.resource.as_str()), ("principal", "resource"));
    assert!(policy.clauses.is_empty() && policy.annotations.is_empty());
    assert_eq!(request.resource, Resource::File(Spot::Path("/www".into())));
    assert_eq!((setting.world.mounts.len(), setting.world.links.len()), (1, 0));
}
