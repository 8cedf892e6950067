//! A survey against the compiled tables: every request falls into a case that exists, and gets the
//! answer of the tables there.

use std::net::IpAddr;

use guard_common::action::TABLE;
use proptest::prelude::*;

use super::oracle::{ADDRESSES, ORACLE_TOML, PATHS, policy};
use super::*;
use crate::policy::survey::{Area, Asked, Survey, Where};

fn bundle(policies: &[String]) -> Bundle {
    let cedar: String =
        policies.iter().enumerate().map(|(number, text)| format!("@id(\"p{number}\") {text}\n")).collect();
    let directory = Directory::new(&[("guard.toml", &format!("{TOML}{ORACLE_TOML}")), ("p.cedar", &cedar)]);
    load(&directory.0).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The area of a region for the resources that this action is taken on.
fn area<'a>(areas: &'a [Area], survey: &Survey<'_>, action: u64, here: impl Fn(&Where) -> bool) -> &'a Area {
    let mut fitting = areas.iter().filter(|area| {
        area.actions & action != 0 && area.regions.iter().any(|region| here(survey.region(*region)))
    });
    let found = fitting.next().expect("every resource lies in some area");
    assert!(fitting.next().is_none(), "and in one only");
    found
}

fn check(
    survey: &Survey<'_>,
    area: &Area,
    compiled: [&Compiled; 2],
    action: &str,
    found: [Found; 2],
    bits: u64,
) {
    let cases = area.cases().expect("the policies are small");
    let case = cases.iter().find(|case| case.bits() == bits);
    let case = case.unwrap_or_else(|| panic!("{action}: no case has the features of a request that exists"));
    let bit = TABLE.iter().find(|row| row.name == action).unwrap().action.bit();
    for (party, (compiled, found)) in compiled.into_iter().zip(found).enumerate() {
        let decision = ask(compiled, "web", action, found);
        let verdict = area.verdict(party, case);
        let wanted = (decision.denied == 0, decision.would_deny != 0);
        let got = (verdict.through & bit != 0, verdict.through & bit != 0 && verdict.candidate & bit == 0);
        assert_eq!(
            got,
            wanted,
            "bundle {party}, {action}, {:?}",
            survey.places(&area.regions, &area.regions)
        );
    }
}

fn same_answers(first: &[String], second: &[String]) {
    let (first, second, host) = (bundle(first), bundle(second), host());
    let compile = |bundle| match compile(bundle, &host, &mut SubjectIds::default()) {
        Ok(compiled) => Some(compiled),
        Err(errors) if errors.iter().all(|error| error.code == "too-many-features") => None,
        Err(errors) => panic!("{errors}"),
    };
    let (Some(one), Some(two)) = (compile(&first), compile(&second)) else { return };
    let survey = Survey::new(&[&first, &second], &host, &Facts::default()).unwrap();
    let subject = first.subjects().position(|subject| subject.name == "web").unwrap();
    let areas = survey.areas(&[Asked { bundle: 0, subject }, Asked { bundle: 1, subject }]);
    for path in PATHS {
        let (device, inside) = place(path);
        let below = |region: &Where| match region {
            Where::At(of, path) => (*of == device && inside == *path).then_some(usize::MAX),
            Where::Below(of, path) => (*of == device && inside != *path && inside.starts_with(path))
                .then(|| path.components().count()),
            _ => None,
        };
        let deepest = areas
            .iter()
            .flat_map(|area| &area.regions)
            .filter_map(|region| below(survey.region(*region)))
            .max()
            .unwrap();
        for (attributes, actions) in [
            (file(1000, false), &["file.read", "file.write"][..]),
            (file(0, true), &["file.read", "file.write"][..]),
            (Attributes { owner: 0, kind: 0o040000, ..Attributes::default() }, &["dir.list"][..]),
        ] {
            for action in actions {
                let bit = TABLE.iter().find(|row| row.name == *action).unwrap().action.bit();
                let area = area(&areas, &survey, bit, |region| below(region) == Some(deepest));
                let bits = survey.bits_of_path(area, Some(&inside), &attributes);
                let found = [&one, &two].map(|compiled| walk(compiled, path, &attributes));
                check(&survey, area, [&one, &two], action, found, bits);
            }
        }
    }
    for address in ADDRESSES.map(|address| address.parse::<IpAddr>().unwrap()) {
        for (port, protocol) in [(22, 6), (79, 17), (80, 6), (443, 17), (65535, 6)] {
            let attributes = Attributes { protocol, ..Attributes::default() };
            let holds = |region: &Where| match (region, address) {
                (Where::V4(first, last), IpAddr::V4(it)) => (*first..=*last).contains(&it.into()),
                (Where::V6(first, last), IpAddr::V6(it)) => (*first..=*last).contains(&it.into()),
                _ => false,
            };
            let bit = Action::NetConnect.bit();
            let area = area(&areas, &survey, bit, holds);
            let bits = survey.bits_of_endpoint(area, port, &attributes);
            let found = [&one, &two]
                .map(|compiled| Walker::new(&compiled.generation).endpoint(address, port, &attributes));
            check(&survey, area, [&one, &two], "net.connect", found, bits);
        }
    }
    let attributes = file(1000, false);
    let class = guard_common::class::OWN_ANONYMOUS;
    let pipes = area(&areas, &survey, Action::FileRead.bit(), |region| *region == Where::Builtin(class));
    let bits = survey.bits_of_path(pipes, None, &attributes);
    let found = [&one, &two].map(|compiled| Walker::new(&compiled.generation).builtin(class, &attributes));
    check(&survey, pipes, [&one, &two], "file.read", found, bits);
    for class in guard_common::class::WITH_NAMES {
        let area = area(&areas, &survey, Action::FileRead.bit(), |region| *region == Where::Builtin(class));
        for path in ["/", "/a.pem", "/x/.git/b", "/c"].map(Path::new) {
            let bits = survey.bits_of_path(area, Some(path), &attributes);
            let found = [&one, &two]
                .map(|compiled| Walker::new(&compiled.generation).inside(class, path, &attributes));
            check(&survey, area, [&one, &two], "file.read", found, bits);
        }
    }
    let area = area(&areas, &survey, Action::FileRead.bit(), |region| *region == Where::Unclassified);
    for path in ["/etc/a.pem", "/x/.git/b", "/c"] {
        let bits = survey.bits_of_path(area, Some(Path::new(path)), &attributes);
        let found = [&one, &two].map(|compiled| {
            // A device that no table knows.
            Walker::new(&compiled.generation).path(0xfff_ffff, Path::new(path), &attributes)
        });
        check(&survey, area, [&one, &two], "file.read", found, bits);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_survey_answers_what_the_tables_of_both_bundles_answer(
        first in prop::collection::vec(policy(), 1..6),
        second in prop::collection::vec(policy(), 1..6),
    ) {
        same_answers(&first, &second);
    }
}
