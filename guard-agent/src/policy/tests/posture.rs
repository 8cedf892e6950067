//! Outcomes under changing posture.

use proptest::prelude::*;

use super::*;
use crate::tables::SubjectOutcomes;
use guard_common::decide::{Reason, SPENT};
use guard_common::quarantine::{Level, level_in};
use guard_common::tables::{ALL_ACTIONS, MAX_BOUNDARIES, Masks, counted_actions, place_of, with_place};
use std::collections::BTreeMap;

/// Of the actions of which uses can be counted.
const EXEC: usize = 0;

const DECLARED: &str = "[facts]\ntrust = { type = \"long\" }\nsite = { type = \"string\" }\nquiet = { type = \"bool\" }\n\
    [approvals]\na = { approvers = [\"group:x\"], max = \"1h\" }\nb = { approvers = [\"group:x\"], max = \"1h\" }\nc = { approvers = [\"group:x\"], max = \"1h\" }\n\
    [windows]\nw = { days = [\"mon\"], from = \"10:00\", to = \"12:00\", zone = \"UTC\" }\n\
    freeze = { days = [\"fri\"], from = \"10:00\", to = \"12:00\", zone = \"UTC\" }\n\
    [subjects.web]\nselector = { user = \"web\" }\ngoverns = [\"*\"]\n";

/// Grants and refusals that come and go.
const POLICIES: &str = r#"
    @id("lease") permit (principal, action in [Guard::Action::"file.read", Guard::Action::"exec"], resource in Guard::Dir::"/srv")
    when { context.leases.contains("a") };
    @id("removal") permit (principal, action == Guard::Action::"file.remove", resource in Guard::Dir::"/srv")
    when { context.leases.contains("c") };
    @id("window") permit (principal, action == Guard::Action::"file.write", resource in Guard::Dir::"/srv")
    when { context.windows.contains("w") && resource.owner == 1000 };
    @id("trusted") permit (principal, action == Guard::Action::"dir.list", resource)
    when { context.posture has trust && context.posture.trust >= 3 };
    @id("freeze") forbid (principal, action == Guard::Action::"file.write", resource)
    when { context.windows.contains("freeze") };
    @id("stopped") forbid (principal, action == Guard::Action::"file.read", resource == Guard::File::"/srv/x")
    when { context.leases.contains("b") };
    @id("idle") @mode("monitor") permit (principal, action == Guard::Action::"file.append", resource)
    when { context.leases.isEmpty() };
"#;

fn changing() -> Compiled {
    let directory = Directory::new(&[("guard.toml", &format!("{TOML}{DECLARED}")), ("p.cedar", POLICIES)]);
    compiled(&directory)
}

fn web(compiled: &Compiled) -> u32 {
    *compiled.names.subjects.iter().find(|(_, name)| *name == "web").unwrap().0
}

fn until<T>(value: T, end: Option<Instant>) -> Until<T> {
    Until { value, end }
}

/// Whether `web` may do `action` on `path` at an instant.
fn at(compiled: &Compiled, action: &str, path: &str, now: Instant) -> Decision {
    let found = walk(compiled, path, &file(1000, false));
    let required = Action::from_name(action).unwrap().bit();
    let query =
        Query { subject: web(compiled), session: 0, class: found.class, features: found.features, required };
    decide(&compiled.generation, &query, || now)
}

#[test]
fn posture_changes_what_is_decided_and_no_static_table() {
    let mut compiled = changing();
    let (cells, outcomes) = (compiled.generation.cells.clone(), compiled.generation.outcomes.clone());
    assert_eq!(at(&compiled, "file.read", "/srv/y", 0).denied, Action::FileRead.bit());
    let leased = Posture { leases: [("a".to_owned(), until((), Some(500)))].into(), ..Posture::default() };
    let next = compiled.outcomes(web(&compiled), &leased, 100).unwrap();
    assert_eq!((next.boundaries.as_slice(), next.replan), (&[500][..], None));
    assert!(compiled.generation.set_outcomes(web(&compiled), &next));
    assert_eq!(at(&compiled, "file.read", "/srv/y", 499).denied, 0);
    assert_ne!(at(&compiled, "file.read", "/srv/y", 500).denied, 0, "it ends at its own instant");
    assert_ne!(at(&compiled, "file.read", "/etc/y", 499).denied, 0);
    assert_eq!((&cells, &outcomes), (&compiled.generation.cells, &compiled.generation.outcomes));
}

#[test]
fn facts_compiled_in_and_facts_that_come_later_give_the_same_tables() {
    let directory = Directory::new(&[("guard.toml", &format!("{TOML}{DECLARED}")), ("p.cedar", POLICIES)]);
    let bundle = load(&directory.0).unwrap();
    for trust in [2, 3] {
        let facts = Facts {
            posture: [("trust".to_owned(), FactValue::Long(trust))].into(),
            windows: ["w".to_owned()].into(),
            ..Facts::default()
        };
        let with = compile_with(&bundle, &host(), &facts, &mut SubjectIds::default()).unwrap();
        let mut later = compile(&bundle, &host(), &mut SubjectIds::default()).unwrap();
        let outcomes = later.outcomes(web(&later), &Posture::of(&facts), 0).unwrap();
        assert!(later.generation.set_outcomes(web(&later), &outcomes));
        assert_eq!(with.generation.masks, later.generation.masks);
        assert_eq!(with.generation.outcomes, later.generation.outcomes);
        assert_eq!(with.generation.cells, later.generation.cells);
    }
}

#[test]
fn outcomes_of_another_bundle_are_refused() {
    let mut compiled = changing();
    let before = compiled.generation.clone();
    let subject = web(&compiled);
    let good = compiled.outcomes(subject, &Posture::default(), 0).unwrap();
    for wrong in [
        SubjectOutcomes::default(),
        SubjectOutcomes { boundaries: vec![5], ..good.clone() },
        SubjectOutcomes { masks: good.masks[1..].to_vec(), ..good.clone() },
    ] {
        assert!(!compiled.generation.set_outcomes(subject, &wrong), "{wrong:?}");
    }
    assert!(!compiled.generation.set_outcomes(99, &good));
    assert!(compiled.outcomes(99, &Posture::default(), 0).is_none());
    assert_eq!(before.masks, compiled.generation.masks);
    assert_eq!(before.subjects, compiled.generation.subjects);
}

#[test]
fn a_mode_that_was_set_for_a_time_ends_by_itself() {
    let mut compiled = changing();
    let monitor = Posture { mode: Some(until(Mode::Monitor, Some(1000))), ..Posture::default() };
    let outcomes = compiled.outcomes(web(&compiled), &monitor, 0).unwrap();
    assert!(compiled.generation.set_outcomes(web(&compiled), &outcomes));
    let read = Action::FileRead.bit();
    let decision = at(&compiled, "file.read", "/srv/y", 999);
    assert_eq!((decision.denied, decision.would_deny), (0, read));
    assert_eq!(at(&compiled, "file.read", "/srv/y", 1000).denied, read);
}

#[test]
fn what_a_monitor_permit_would_allow_is_told() {
    let compiled = changing();
    let decision = at(&compiled, "file.append", "/srv/y", 0);
    assert_eq!((decision.denied, decision.would_allow), (Action::FileAppend.bit(), Action::FileAppend.bit()));
    assert!(decision.is_loosened());
    assert!(!at(&compiled, "file.read", "/srv/y", 0).is_loosened());
}

#[test]
fn instants_that_no_policy_asks_for_are_no_boundaries() {
    let compiled = changing();
    let posture = Posture {
        facts: [("site".to_owned(), until(FactValue::String("x".into()), Some(10)))].into(),
        ..Posture::default()
    };
    assert!(compiled.outcomes(web(&compiled), &posture, 0).unwrap().boundaries.is_empty());
}

#[test]
fn a_quarantine_counts_before_policy_mode_and_permits_in_monitor_mode_and_ends_at_its_instant() {
    let compiled = changing();
    let quarantines = vec![until(Level::Network, None), until(Level::Write, Some(100))];
    let posture = Posture { quarantines, mode: Some(until(Mode::Monitor, None)), ..Posture::default() };
    let outcomes = compiled.outcomes(web(&compiled), &posture, 0).unwrap();
    assert_eq!(outcomes.boundaries, [100]);
    let rows = outcomes.masks.len() / 2;
    for (masks, level) in outcomes.masks.chunks(rows).zip([Level::Write, Level::Network]) {
        for masks in masks {
            assert_eq!(masks.allow & level.denies(), 0);
            assert_eq!(
                masks.allow & ALL_ACTIONS,
                ALL_ACTIONS & !level.denies(),
                "the rest is in monitor mode"
            );
            assert_eq!((masks.would_deny | masks.would_allow | masks.audit) & level.denies(), 0);
            assert_eq!(level_in(masks.quiet), level as u64);
        }
    }
}

#[test]
fn what_only_a_counted_lease_allows_is_counted() {
    let place = |decision: &Decision| place_of(decision.counted, EXEC);
    let mut compiled = changing();
    let lease = |actions, place| [("a".to_owned(), Counted { actions, place })].into();
    let leases: BTreeMap<_, _> = [("a".to_owned(), until((), Some(100)))].into();
    let exec = Action::Exec.bit();
    let posture = Posture { leases: leases.clone(), counted: lease(exec, 7), ..Posture::default() };
    let outcomes = compiled.outcomes(web(&compiled), &posture, 0).unwrap();
    assert!(compiled.generation.set_outcomes(web(&compiled), &outcomes));
    let decision = at(&compiled, "exec", "/srv/y", 99);
    assert_eq!((decision.denied, place(&decision)), (0, 7));
    assert_eq!(place(&at(&compiled, "exec", "/srv/y", 100)), 0, "nothing is left to count");
    assert_eq!(place(&at(&compiled, "exec", "/etc/y", 99)), 0);
    // What the lease allows besides lasts as long as it does.
    assert_eq!(at(&compiled, "file.read", "/srv/y", 99).denied, 0);
    // What is allowed anyway needs no use, and neither does monitor mode.
    let monitored = Posture { mode: Some(until(Mode::Monitor, None)), ..posture };
    let outcomes = compiled.outcomes(web(&compiled), &monitored, 0).unwrap();
    assert!(outcomes.masks.iter().all(|masks| masks.counted == 0));
    // Two leases count two actions of one resource.
    let both: BTreeMap<_, _> = ["a", "c"].map(|name| (name.to_owned(), until((), Some(100)))).into();
    let counted = [("a", exec, 7), ("c", Action::FileRemove.bit(), 9)]
        .map(|(name, actions, place)| (name.to_owned(), Counted { actions, place }));
    let posture = Posture { leases: both, counted: counted.into(), ..Posture::default() };
    let outcomes = compiled.outcomes(web(&compiled), &posture, 0).unwrap();
    assert!(compiled.generation.set_outcomes(web(&compiled), &outcomes));
    let decision = at(&compiled, "file.remove", "/srv/y", 99);
    assert_eq!((decision.denied, place(&decision), place_of(decision.counted, 2)), (0, 7, 9));
}

#[test]
fn a_use_is_taken_or_the_action_is_denied() {
    let decision = Decision::deny_all(0, Reason::Policy);
    let (mut none, mut taken, mut spent) = (decision, decision, decision);
    none.count(0);
    taken.count(5);
    spent.count(5 | SPENT);
    assert_eq!(none, decision);
    assert_eq!((taken.denied, taken.audit, taken.reason), (0, 5, Reason::LeaseUsed));
    assert_eq!((spent.denied, spent.reason), (5, Reason::LeaseSpent));
    assert_eq!(Decision { counted: with_place(0, 2, 3), ..decision }.either(1, 4).1.counted, 0);
}

#[test]
fn facts_without_an_end_become_stale_if_nobody_vouches_for_them() {
    let mut compiled = changing();
    let list = Action::DirList.bit();
    let mut decided = |end, fail, instant| {
        let trust = ("trust".to_owned(), until(FactValue::Long(3), end));
        let stale = Some(Stale { at: 100, fail });
        let posture = Posture { facts: [trust].into(), stale, ..Posture::default() };
        let outcomes = compiled.outcomes(web(&compiled), &posture, 0).unwrap();
        assert!(compiled.generation.set_outcomes(web(&compiled), &outcomes));
        let decision = at(&compiled, "dir.list", "/srv/y", instant);
        (decision.denied, decision.audit, outcomes.boundaries)
    };
    assert_eq!(decided(None, FailMode::Deny, 99), (0, 0, vec![100]));
    assert_eq!(decided(None, FailMode::Deny, 100), (list, 0, vec![100]));
    assert_eq!(decided(None, FailMode::Keep, 100), (0, 0, vec![]));
    assert_eq!(decided(None, FailMode::Audit, 100), (0, list, vec![100]));
    // What has an end ends then, and not before.
    assert_eq!(decided(Some(200), FailMode::Deny, 100), (0, 0, vec![200]));
    assert_eq!(decided(Some(200), FailMode::Keep, 200), (list, 0, vec![200]));
}

fn end() -> impl Strategy<Value = Option<Instant>> {
    prop::option::weighted(0.8, 1u64..20)
}

prop_compose! {
    fn posture()(
        a in prop::option::of(end()),
        b in prop::option::of(end()),
        trust in prop::option::of((0i64..6, end())),
        w in prop::collection::vec((0u64..20, 1u64..5), 0..4),
        freeze in prop::collection::vec((0u64..20, 1u64..5), 0..4),
        mode in prop::option::of((prop::sample::select(vec![Mode::Enforce, Mode::Monitor]), end())),
        quarantines in prop::collection::vec((prop::sample::select(Level::ALL.to_vec()), end()), 0..3),
        counted in prop::collection::btree_map(
            prop::sample::select(vec!["a", "b"]),
            (prop::sample::select(vec![Action::Exec.bit(), ALL_ACTIONS]), 1u32..3),
            0..3,
        ),
        stale in prop::option::of((1u64..20, prop::sample::select(vec![FailMode::Deny, FailMode::Keep, FailMode::Audit]))),
    ) -> Posture {
        let lease = |name: &str, end: Option<Option<Instant>>| end.map(|end| (name.to_owned(), until((), end)));
        let openings = |list: Vec<(u64, u64)>| {
            list.into_iter().map(|(opens, length)| Opening { opens, closes: opens + length }).collect()
        };
        Posture {
            facts: trust.map(|(trust, end)| ("trust".to_owned(), until(FactValue::Long(trust), end))).into_iter().collect(),
            leases: lease("a", a).into_iter().chain(lease("b", b)).collect(),
            windows: [("w".to_owned(), openings(w)), ("freeze".to_owned(), openings(freeze))].into(),
            mode: mode.map(|(mode, end)| until(mode, end)),
            quarantines: quarantines.into_iter().map(|(level, end)| until(level, end)).collect(),
            stale: stale.map(|(at, fail)| Stale { at, fail }),
            counted: counted
                .into_iter()
                .map(|(name, (actions, place))| (name.to_owned(), Counted { actions, place }))
                .collect(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_truncated_timeline_allows_nothing_that_the_whole_one_denies(posture in posture(), now in 0u64..10) {
        let compiled = changing();
        let subject = web(&compiled);
        let outcomes = compiled.outcomes(subject, &posture, now).unwrap();
        prop_assert!(outcomes.boundaries.len() <= MAX_BOUNDARIES);
        let rows = outcomes.masks.len() / (outcomes.boundaries.len() + 1);
        for instant in now..30 {
            // What is true at an instant is the first segment of the outcomes that begin there.
            let truth = compiled.outcomes(subject, &posture, instant).unwrap();
            let segment = outcomes.boundaries.iter().filter(|boundary| **boundary <= instant).count();
            let stored = &outcomes.masks[segment * rows..(segment + 1) * rows];
            for (stored, truth) in stored.iter().zip(&truth.masks[..rows]) {
                prop_assert_eq!(stored.allow & !truth.allow, 0, "at {}", instant);
                let free = |masks: &Masks| masks.allow & !counted_actions(masks.counted);
                prop_assert_eq!(free(stored) & !free(truth), 0, "at {}", instant);
                if segment < MAX_BOUNDARIES || outcomes.replan.is_none() {
                    prop_assert_eq!(stored, truth, "at {}", instant);
                }
            }
        }
    }
}

#[test]
fn a_denial_names_the_leases_that_alone_would_lift_it() {
    let compiled = changing();
    let lifts = compiled.lifts();
    let ask = |actions: &[&str], path: &str, posture: &Posture, at: Instant| {
        let found = walk(&compiled, path, &file(1000, false));
        let actions: Vec<Action> = actions.iter().map(|name| Action::from_name(name).unwrap()).collect();
        lifts.of(web(&compiled), (found.class, found.features), &actions, posture, at)
    };
    let nothing = Posture::default();
    assert_eq!(ask(&["file.read"], "/srv/y", &nothing, 5), ["a"]);
    assert_eq!(ask(&["file.remove"], "/srv/y", &nothing, 5), ["c"]);
    // Both would have to be lifted, no lease speaks of it, and it lives already.
    assert!(ask(&["file.read", "file.remove"], "/srv/y", &nothing, 5).is_empty());
    assert!(ask(&["file.write"], "/srv/y", &nothing, 5).is_empty());
    assert!(ask(&["file.read"], "/etc/y", &nothing, 5).is_empty());
    let mut granted = Posture::default();
    granted.leases.insert("a".to_owned(), until((), Some(10)));
    assert!(ask(&["file.read"], "/srv/y", &granted, 9).is_empty());
    assert_eq!(lifts.until(web(&compiled), &granted, 9), 10);
    assert_eq!(ask(&["file.read"], "/srv/y", &granted, 10), ["a"]);
    assert_eq!(lifts.until(web(&compiled), &granted, 10), Instant::MAX);
    assert!(!lifts.concern(web(&compiled) + 1000));
}
