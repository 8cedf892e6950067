//! Families of tests that share one daemon, and how they are run: everything once without Guard,
//! then everything again under it.

use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};
use nix::errno::Errno;

use crate::attempt::{Outcome, attempt};
use crate::bundle::Bundle;
use crate::daemon::Daemon;
use crate::report::{Report, Verdict};
use crate::users::{FREE, Identity};
use crate::{
    events, exec, file, identity, layout, lifecycle, mounts, network, path, programs, running, stdio,
    systemd, unix, users, without_bpf,
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
    /// With systemd as PID 1.
    Systemd,
    /// With a kernel that was told to leave out the bpf LSM.
    WithoutBpfLsm,
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
            exec::PART,
            file::PART,
            path::PART,
            mounts::PART,
            network::PART,
            unix::PART,
            stdio::PART,
        ],
    },
    Family { name: "programs", place: Place::Plain, has_daemon: true, parts: &[programs::PART] },
    Family {
        name: "lifecycle",
        place: Place::Plain,
        has_daemon: false,
        parts: &[running::PART, lifecycle::PART, lifecycle::CHECKS],
    },
    Family { name: "systemd", place: Place::Systemd, has_daemon: true, parts: &[systemd::PART] },
    Family {
        name: "without-bpf",
        place: Place::WithoutBpfLsm,
        has_daemon: false,
        parts: &[without_bpf::PART],
    },
];

/// Which tests to run.
pub(crate) struct Wanted {
    /// Only the smoke set.
    pub(crate) smoke: bool,
    /// What this guest is like.
    pub(crate) place: Place,
    /// Only names that contain this.
    pub(crate) filter: String,
}

impl Wanted {
    fn tests(&self, family: &Family) -> Vec<Test> {
        let all = family.parts.iter().flat_map(|part| part.tests);
        all.filter(|test| (!self.smoke || test.smoke) && test.name.contains(&self.filter)).copied().collect()
    }

    fn families(&self) -> impl Iterator<Item = (&'static Family, Vec<Test>)> {
        FAMILIES
            .iter()
            .filter(|family| family.place == self.place)
            .map(|family| (family, self.tests(family)))
            .filter(|(_, tests)| !tests.is_empty())
    }
}

/// Names of the wanted tests.
pub(crate) fn names(wanted: &Wanted) -> Vec<&'static str> {
    wanted.families().flat_map(|(_, tests)| tests).map(|test| test.name).collect()
}

/// Runs the wanted tests; whether all passed.
pub(crate) fn run_all(wanted: &Wanted, full: bool, only_controls: bool) -> Result<bool> {
    users::create()?;
    let mut report = Report::default();
    for (family, tests) in wanted.families() {
        run(family, &tests, full, only_controls, &mut report);
    }
    Ok(report.finish())
}

/// What a test can know and do.
pub(crate) struct Case<'a> {
    daemon: Option<&'a Daemon>,
    /// Whether races are repeated as often as promised.
    pub(crate) full: bool,
}

/// Says that a test cannot run on this kernel, and why.
#[derive(Debug)]
pub(crate) struct NotHere(pub(crate) String);

impl std::fmt::Display for NotHere {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for NotHere {}

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
    let case = Case { daemon: None, full };
    if !family.has_daemon {
        for test in tests {
            let (result, time) = timed(test, &case);
            report.add(test.name, Verdict::of(result), time);
        }
        return;
    }
    let controls: Vec<(Result<()>, Duration)> = tests
        .iter()
        .map(|test| {
            let (result, time) = timed(test, &case);
            (result.context("without Guard"), time)
        })
        .collect();
    if only_controls {
        for (test, (result, time)) in tests.iter().zip(controls) {
            report.add(test.name, Verdict::of(result), time);
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
        let (result, after) = timed(test, &Case { daemon: Some(&daemon), full });
        let verdict = Verdict::of(control.and(result.context("under Guard")));
        report.add(test.name, verdict, before + after);
        if !daemon.is_alive() {
            report.note(&format!("the daemon died: {}", daemon.log()));
        }
    }
    if let Err(error) = daemon.stop() {
        report.add("the_daemon_stops_when_asked", Verdict::Failed(format!("{error:#}")), Duration::ZERO);
    }
}

fn timed(test: &Test, case: &Case<'_>) -> (Result<()>, Duration) {
    let begin = Instant::now();
    let result = (test.run)(case).and_then(|()| case.canaries_are_untouched());
    let restored = layout::restore_canaries();
    (result.and(restored), begin.elapsed())
}

fn fail_all(family: &Family, tests: &[Test], error: &Error, report: &mut Report) {
    report.note(&format!("{}: {error:#}", family.name));
    for test in tests {
        let reason = format!("the family {} could not be set up", family.name);
        report.add(test.name, Verdict::Failed(reason), Duration::ZERO);
    }
}

/// An attempt that must be refused.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    who: Identity,
    action: &'static str,
    errno: Errno,
    place: Option<String>,
    unlabelled: Option<Identity>,
}

/// `action` by `who` must be refused with EACCES by policy.
pub(crate) fn refusal(who: Identity, action: &'static str) -> Refusal {
    let unlabelled = Some(FREE.with(who.capabilities));
    Refusal { who, action, errno: Errno::EACCES, place: None, unlabelled }
}

impl Refusal {
    /// The event must name a path that ends like this, or this `ADDRESS:PORT`.
    pub(crate) fn at(mut self, path: impl AsRef<std::path::Path>) -> Self {
        self.place = Some(path.as_ref().to_string_lossy().into_owned());
        self
    }

    /// There is no unlabelled process that could do the same.
    pub(crate) fn only_labelled(mut self) -> Self {
        self.unlabelled = None;
        self
    }
}

/// How long to look for the denial that explains a failure.
const SAID: Duration = Duration::from_secs(3);
/// How long an event may take to reach standard output.
const EVENT: Duration = Duration::from_secs(20);

impl<'a> Case<'a> {
    /// A case of a test that starts its daemons itself.
    pub(crate) fn under(daemon: &'a Daemon, full: bool) -> Self {
        Self { daemon: Some(daemon), full }
    }

    /// The daemon, under Guard.
    pub(crate) fn daemon(&self) -> Option<&'a Daemon> {
        self.daemon
    }

    /// Works without Guard; under Guard, is refused as described and reported, leaves the canaries
    /// as they were, and works for an unlabelled process.
    pub(crate) fn refused(&self, refusal: Refusal, action: impl Fn() -> std::io::Result<()>) -> Result<()> {
        let Some(daemon) = self.daemon else {
            return self.works(refusal.who, "without Guard", &action);
        };
        let mark = daemon.events.mark()?;
        let outcome = attempt(refusal.who, &action)?;
        ensure!(
            outcome == Outcome::Failed(refusal.errno),
            "{} by {} should be refused with {}: {outcome:?}",
            refusal.action,
            refusal.who.name,
            refusal.errno
        );
        self.canaries_are_untouched()?;
        let what = format!("{} of {:?} refused to {}", refusal.action, refusal.place, refusal.who.name);
        daemon.events.wait(mark, EVENT, &what, |event| {
            event.is_denial()
                && event.subject() == refusal.who.name
                && event.is_about(refusal.action)
                && event.errno() == format!("{:?}", refusal.errno)
                && event.reason() == "policy"
                && refusal.place.as_ref().is_none_or(|place| event.is_at(place))
        })?;
        match refusal.unlabelled {
            Some(other) => {
                let result = self.works(other, "as an unlabelled user", &action);
                layout::restore_canaries()?;
                result
            }
            None => Ok(()),
        }
    }

    /// Works without Guard and under it.
    pub(crate) fn allowed(&self, who: Identity, action: impl Fn() -> std::io::Result<()>) -> Result<()> {
        self.works(who, "which policy permits", &action)
    }

    fn works(&self, who: Identity, when: &str, action: &impl Fn() -> std::io::Result<()>) -> Result<()> {
        let mark = self.daemon.map(|daemon| daemon.events.mark()).transpose()?;
        let outcome = attempt(who, action)?;
        if outcome == Outcome::Worked {
            return Ok(());
        }
        let denial = match (self.daemon, mark) {
            (Some(daemon), Some(mark)) => daemon.events.wait(mark, SAID, "", events::Event::is_denial).ok(),
            _ => None,
        };
        let denial = denial.map(|event| format!("; denied: {event}")).unwrap_or_default();
        bail!("the attempt by {}, {when}, should work: {outcome:?}{denial}", who.name)
    }

    /// Under Guard, nobody may have changed what only refused attempts reach for.
    pub(crate) fn canaries_are_untouched(&self) -> Result<()> {
        if self.daemon.is_some() { layout::check_canaries() } else { Ok(()) }
    }
}
