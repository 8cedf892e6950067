//! Families of tests that share one daemon, and how they are run: everything once without Guard,
//! then everything again under it.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Error, Result};

use crate::bundle::Bundle;
use crate::case::Case;
use crate::daemon::Daemon;
use crate::report::{Effort, Report, Verdict};
use crate::threats::Entry;
use crate::{
    admin, adoption, attributes, caches, canary, checks, coverage, credentials, deputies, doors, escape,
    exactness, examples, exec, facts, failures, families, file, first_hour, flood, generations, hostile,
    identity, image, includes, interpreter, kills, layout, leases, lifecycle, listening, machine, mode,
    mounts, names, network, nspawn, own_tmpfs, packaged, path, podman, process, programs, quickstart, quiet,
    reference, requirements, ring, roles, running, sctp, selector, self_protection, selftest, sending,
    session, shadow, shared, signed, starters, stdio, store, successor, systemd, unix, unused, users, uses,
    using, why, windows,
};

/// One test: run once without Guard and once under it.
#[derive(Clone, Copy)]
pub(crate) struct Test {
    /// Its name, a sentence.
    pub(crate) name: &'static str,
    /// Whether every kernel series gets it on every change.
    pub(crate) smoke: bool,
    /// What it does.
    pub(crate) run: fn(&Case<'_>) -> Result<()>,
}

/// A list of tests from names of functions; those behind `smoke:` belong to the smoke set.
macro_rules! tests {
    ($(smoke: [$($smoke:ident),* $(,)?],)? others: [$($other:ident),* $(,)?] $(,)?) => {
        &[
            $($($crate::family::Test { name: stringify!($smoke), smoke: true, run: $smoke },)*)?
            $($crate::family::Test { name: stringify!($other), smoke: false, run: $other },)*
        ]
    };
}
pub(crate) use tests;

/// What one module adds to a family.
pub(crate) struct Part {
    /// Its name, which is that of its policy file.
    pub(crate) name: &'static str,
    /// What it adds to the bundle.
    pub(crate) bundle: fn(Bundle) -> Result<Bundle>,
    /// What it needs on disk, before anything else.
    pub(crate) prepare: fn() -> Result<()>,
    /// Its tests.
    pub(crate) tests: &'static [Test],
}

/// What a guest must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// As `cargo xtask vm` boots it.
    Plain,
    /// The same, for tests that start daemons themselves, which takes most of their time.
    Alone,
    /// With systemd as PID 1.
    Systemd,
    /// With a kernel that was told to leave out the bpf LSM.
    WithoutBpfLsm,
    /// With a kernel that the tests may lock down.
    Lockdown,
}

/// Tests that share a daemon.
pub(crate) struct Family {
    name: &'static str,
    place: Place,
    /// Whether the family's bundle is enforced around its tests; else they start daemons themselves
    /// and are run once.
    has_daemon: bool,
    parts: &'static [Part],
}

const FAMILIES: &[Family] = &[
    Family {
        name: "core",
        place: Place::Plain,
        has_daemon: true,
        parts: &[
            identity::PART,
            escape::PART,
            credentials::PART,
            selector::PART,
            exec::PART,
            image::PART,
            interpreter::PART,
            file::PART,
            doors::PART,
            path::PART,
            names::PART,
            attributes::PART,
            mounts::PART,
            own_tmpfs::PART,
            network::PART,
            sending::PART,
            listening::PART,
            sctp::PART,
            families::PART,
            ring::PART,
            unix::PART,
            stdio::PART,
            quiet::PART,
            deputies::PART,
            flood::PART,
        ],
    },
    Family { name: "machine", place: Place::Plain, has_daemon: true, parts: &[process::PART, machine::PART] },
    Family { name: "session", place: Place::Plain, has_daemon: true, parts: &[session::PART] },
    Family { name: "successor", place: Place::Plain, has_daemon: true, parts: &[successor::PART] },
    Family { name: "signed", place: Place::Plain, has_daemon: true, parts: &[signed::PART] },
    Family { name: "starters", place: Place::Plain, has_daemon: true, parts: &[starters::PART] },
    Family {
        name: "admin",
        place: Place::Plain,
        has_daemon: true,
        parts: &[admin::PART, self_protection::PART, selftest::PART],
    },
    Family { name: "quickstart", place: Place::Alone, has_daemon: false, parts: &[quickstart::PART] },
    Family { name: "programs", place: Place::Plain, has_daemon: true, parts: &[programs::PART] },
    Family {
        name: "includes",
        place: Place::Plain,
        has_daemon: true,
        parts: &[
            includes::base::PART,
            includes::shell::PART,
            includes::lang::PART,
            includes::tool::PART,
            includes::sandbox::PART,
            includes::container::PART,
        ],
    },
    Family { name: "podman", place: Place::Plain, has_daemon: true, parts: &[podman::PART] },
    Family { name: "nspawn", place: Place::Systemd, has_daemon: true, parts: &[nspawn::PART] },
    Family {
        name: "lifecycle",
        place: Place::Alone,
        has_daemon: false,
        parts: &[
            running::PART,
            lifecycle::PART,
            generations::PART,
            caches::PART,
            canary::PART,
            requirements::PART,
            store::PART,
            why::PART,
            mode::PART,
            adoption::PART,
            kills::PART,
            leases::PART,
            roles::PART,
            facts::PART,
            using::PART,
            uses::PART,
            examples::PART,
            windows::PART,
            shadow::PART,
            unused::PART,
            checks::PART,
            coverage::PART,
            failures::PART,
            hostile::PART,
            session::ALONE,
            successor::ALONE,
        ],
    },
    Family { name: "exact", place: Place::Alone, has_daemon: false, parts: &[exactness::PART] },
    // Before those that configure nginx anew.
    Family {
        name: "reference",
        place: Place::Systemd,
        has_daemon: true,
        parts: &[reference::nginx::PART, reference::postgres::PART, reference::coder::PART],
    },
    Family { name: "systemd", place: Place::Systemd, has_daemon: true, parts: &[systemd::PART] },
    Family { name: "packaged", place: Place::Systemd, has_daemon: false, parts: &[packaged::PART] },
    Family { name: "units", place: Place::Systemd, has_daemon: false, parts: &[facts::UNITS] },
    Family { name: "first-hour", place: Place::Systemd, has_daemon: false, parts: &[first_hour::PART] },
    Family {
        name: "without-bpf",
        place: Place::WithoutBpfLsm,
        has_daemon: false,
        parts: &[requirements::WITHOUT_BPF_LSM],
    },
    Family { name: "lockdown", place: Place::Lockdown, has_daemon: false, parts: &[requirements::LOCKDOWN] },
];

/// Which tests to run.
pub(crate) struct Wanted {
    /// Only the smoke set.
    pub(crate) smoke: bool,
    /// What this guest is like.
    pub(crate) places: &'static [Place],
    /// Only parts and tests whose name contains this.
    pub(crate) filter: String,
    /// Only tests that answer one of these entries of the catalogue, and a report by entry.
    pub(crate) entries: Option<Vec<&'static Entry>>,
    /// Only every second one of all these tests: the first, third and so on, or the others.
    pub(crate) half: Option<Half>,
}

/// One of two guests that share a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Half {
    First,
    Second,
}

impl Wanted {
    fn tests(&self, family: &Family) -> Vec<Test> {
        let named = |name: &str| name.contains(&self.filter);
        let answers = |test: &Test| match &self.entries {
            Some(entries) => entries.iter().any(|entry| entry.tests.contains(&test.name)),
            None => true,
        };
        let all = family.parts.iter().flat_map(|part| part.tests.iter().map(|test| (part.name, test)));
        all.filter(|(part, test)| (!self.smoke || test.smoke) && (named(part) || named(test.name)))
            .filter(|(_, test)| answers(test))
            .map(|(_, test)| *test)
            .collect()
    }

    fn families(&self) -> impl Iterator<Item = (&'static Family, Vec<Test>)> {
        let mut is_first = false;
        let mut is_mine = move |_: &Test| {
            is_first = !is_first;
            self.half.is_none_or(|half| (half == Half::First) == is_first)
        };
        FAMILIES
            .iter()
            .filter(|family| self.places.contains(&family.place))
            .map(move |family| {
                (family, self.tests(family).into_iter().filter(&mut is_mine).collect::<Vec<_>>())
            })
            .filter(|(_, tests)| !tests.is_empty())
    }
}

/// Names of the wanted tests; if entries of the catalogue are wanted, of those that have tests here.
pub(crate) fn names(wanted: &Wanted) -> Vec<&'static str> {
    let tests: Vec<&str> = wanted.families().flat_map(|(_, tests)| tests).map(|test| test.name).collect();
    match &wanted.entries {
        Some(entries) => {
            let here = entries.iter().filter(|entry| entry.tests.iter().any(|test| tests.contains(test)));
            here.map(|entry| entry.id).collect()
        }
        None => tests,
    }
}

/// Names of all tests, for whatever guest.
pub(crate) fn every_test() -> BTreeSet<&'static str> {
    let parts = FAMILIES.iter().flat_map(|family| family.parts);
    parts.flat_map(|part| part.tests).map(|test| test.name).collect()
}

/// Runs the wanted tests; whether all passed.
pub(crate) fn run_all(wanted: &Wanted, full: bool, only_controls: bool) -> Result<bool> {
    users::create(
        includes::accounts()
            .chain(process::ACCOUNTS)
            .chain(machine::ACCOUNTS)
            .chain(self_protection::ACCOUNTS)
            .chain(examples::ACCOUNTS)
            .chain(sctp::ACCOUNTS)
            .chain(reference::ACCOUNTS),
    )?;
    let mut report = Report::default();
    for (family, tests) in wanted.families() {
        run(family, &tests, full, only_controls, &mut report);
    }
    for entry in wanted.entries.iter().flatten() {
        report.entry(entry.id, entry.tests);
    }
    Ok(report.finish())
}

fn run(family: &Family, tests: &[Test], full: bool, only_controls: bool, report: &mut Report) {
    if only_controls && !family.has_daemon {
        return;
    }
    let prepared = family
        .parts
        .iter()
        .try_for_each(|part| (part.prepare)().with_context(|| format!("prepare {}", part.name)));
    if let Err(error) = prepared {
        return fail_all(family, tests, &error, report);
    }
    let case = Case::without_daemon(full);
    if !family.has_daemon {
        for test in tests {
            let (result, effort) = measured(test, &case);
            report.add(test.name, Verdict::of(result), effort);
            reset(test.name, report);
        }
        return;
    }
    let controls: Vec<(Result<()>, Effort)> = tests
        .iter()
        .map(|test| {
            let (result, effort) = measured(test, &case);
            (result.context("without Guard"), effort)
        })
        .collect();
    if only_controls {
        for (test, (result, effort)) in tests.iter().zip(controls) {
            report.add(test.name, Verdict::of(result), effort);
        }
        return;
    }
    let begin = Instant::now();
    let bundle = family.parts.iter().try_fold(Bundle::new(family.name), |bundle, part| (part.bundle)(bundle));
    let mut daemon = match bundle.and_then(|bundle| Daemon::start(family.name, &bundle)) {
        Ok(daemon) => daemon,
        Err(error) => return fail_all(family, tests, &error, report),
    };
    report.note(&format!("{}: enforcing after {:.1} s", family.name, begin.elapsed().as_secs_f64()));
    for (test, (control, before)) in tests.iter().zip(controls) {
        let (result, after) = measured(test, &Case::under(&daemon, full));
        let verdict = Verdict::of(control.and(result.context("under Guard")));
        report.add(test.name, verdict, before + after);
        if !daemon.is_alive() {
            report.note(&format!("the daemon died: {}", daemon.log()));
        }
    }
    if let Err(error) = daemon.stop() {
        report.add("the_daemon_stops_when_asked", Verdict::Failed(format!("{error:#}")), Effort::default());
    }
    reset(family.name, report);
}

/// Whatever is run next would begin with the policy of what was run last.
fn reset(after: &str, report: &mut Report) {
    if let Err(error) = shared::reset() {
        let reason = format!("after {after}: {error:#}");
        report.add("nothing_is_enforced_after_a_test", Verdict::Failed(reason), Effort::default());
    }
}

fn measured(test: &Test, case: &Case<'_>) -> (Result<()>, Effort) {
    let begin = Instant::now();
    let result = (test.run)(case).and_then(|()| case.canaries_are_untouched());
    let restored = layout::restore_canaries();
    let effort = Effort { time: begin.elapsed(), operations: case.take_operations() };
    (result.and(restored), effort)
}

fn fail_all(family: &Family, tests: &[Test], error: &Error, report: &mut Report) {
    report.note(&format!("{}: {error:#}", family.name));
    for test in tests {
        let reason = format!("the family {} could not be set up", family.name);
        report.add(test.name, Verdict::Failed(reason), Effort::default());
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn two_halves_are_the_whole() {
        let of = |half| {
            let wanted =
                Wanted { smoke: false, places: &[Place::Alone], filter: String::new(), entries: None, half };
            names(&wanted).into_iter().collect::<BTreeSet<_>>()
        };
        let (first, second) = (of(Some(Half::First)), of(Some(Half::Second)));
        assert!(first.is_disjoint(&second) && first.len().abs_diff(second.len()) <= 1);
        assert_eq!(&first | &second, of(None));
    }

    #[test]
    fn names_of_tests_are_unique() {
        let parts = FAMILIES.iter().flat_map(|family| family.parts);
        let mut seen = BTreeSet::new();
        for test in parts.flat_map(|part| part.tests) {
            assert!(seen.insert(test.name), "two tests are called {}", test.name);
        }
    }
}
