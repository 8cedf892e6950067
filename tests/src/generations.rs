//! One policy at a time: switches, failed switches, what they leave behind, and the numbers of
//! subjects.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::attempt::eventually;
use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::{Daemon, FAULT, configure, spawn};
use crate::family::{Part, tests};
use crate::file::read;
use crate::layout::path;
use crate::lifecycle::{READ, apply, ends_with, first, second, small};
use crate::puppet::Puppet;
use crate::users::{AGENT, CI, FREE};
use crate::using::{Holder, Use};
use crate::{flip, lifecycle};
use guard_tests::system_bpf::Maps;

pub(crate) const PART: Part = Part {
    name: "generations",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            switching_between_two_policies_never_mixes_them,
            a_switch_that_fails_at_any_step_leaves_the_old_policy_untouched,
            tables_of_old_policies_are_freed,
            numbers_of_subjects_are_never_given_again,
            a_task_of_a_removed_subject_is_refused_everything,
        ],
    ),
};

fn prepare() -> Result<()> {
    lifecycle::prepare()?;
    flip::prepare()
}

fn switching_between_two_policies_never_mixes_them(case: &Case<'_>) -> Result<()> {
    let (flips, operations) = if case.full { (200, 1_000_000) } else { (15, 20_000) };
    flip::run(case, flips, operations)
}

/// Steps of a switch that a debug build of the agent can make fail, in their order.
const STEPS: [&str; 18] = [
    "HEADERS",
    "CELLS",
    "OUTCOMES",
    "NODES",
    "NETS4",
    "NETS6",
    "PORTS",
    "ATTRIBUTES",
    "PATTERNS",
    "EDGES",
    "SUBJECTS",
    "MASKS",
    "TIMELINES",
    "USED",
    "BARRIER",
    "put a map into its slot",
    "SELECT_GROUP",
    "remove a selector",
];

/// What a switch writes below the daemon's state: the copy, the numbers of the subjects, the record.
const WRITTEN: [&str; 3] = ["bundles", "subjects.json", "policy.json"];

fn a_switch_that_fails_at_any_step_leaves_the_old_policy_untouched(case: &Case<'_>) -> Result<()> {
    // The new policy has a selector less, two more, and a new subject, so that every step has work.
    let old = small(1, &[(READ, "first")]).subject("builder", &format!("user = \"{}\"", CI.name));
    let new = small(2, &[(READ, "second")])
        .subject("guest", &format!("user = \"{}\"", FREE.name))
        .subject("team", "group = \"games\"");
    let daemon = Daemon::start("fails", &old)?;
    let mut agent = Puppet::start(AGENT)?;
    let directory = new.write(&daemon.directory().join("new"))?;
    for name in WRITTEN {
        let place = daemon.directory().join("state").join(name);
        blocked(&place, || Ok(daemon.apply(&directory)))?
            .err()
            .with_context(|| format!("the switch should fail without {name}"))?;
        let version = daemon.status()?.pointer("/bundle/version").and_then(Value::as_u64);
        ensure!(version == Some(1), "version {version:?} is live after {name} could not be written");
        agent.is_allowed(&first())?;
        agent.is_refused(&second())?;
        case.tried(1);
    }
    let before = live(&daemon.status()?)?;
    let untouched = |agent: &mut Puppet| {
        let after = live(&daemon.status()?)?;
        ensure!(after == before, "{after} is live instead of {before}");
        agent.is_allowed(&first())?;
        agent.is_refused(&second())?;
        // Selectors are part of the policy: the new one's attach nothing, the old one's still do.
        let mut guest = Puppet::start(FREE)?;
        guest.is_allowed(&second())?;
        guest.end()?;
        let mut builder = Puppet::start(CI)?;
        builder.is_refused(&second())?;
        builder.end()
    };
    for step in STEPS {
        let fault = daemon.directory().join(FAULT);
        fs::write(&fault, step).context("name the step to fail")?;
        let error = daemon.apply(&directory).err().with_context(|| format!("{step} did not fail"))?;
        ensure!(!fault.exists(), "{step} was not reached: {error:#}");
        untouched(&mut agent).with_context(|| format!("after {step} failed"))?;
        case.tried(1);
    }
    daemon.apply(&directory).context("when nothing fails")?;
    agent.is_refused(&first())?;
    agent.is_allowed(&second())?;
    Puppet::start(FREE)?.is_refused(&second())?;
    agent.end()?;
    daemon.stop().map(drop)
}

/// Does something while nothing can be written at `place`: a directory is a file and a file a directory.
fn blocked<T>(place: &Path, action: impl FnOnce() -> Result<T>) -> Result<T> {
    let aside = place.with_extension("aside");
    fs::rename(place, &aside).with_context(|| format!("move {} aside", place.display()))?;
    if aside.is_dir() {
        fs::write(place, "").context("put a file in its place")?;
    } else {
        fs::create_dir(place).context("put a directory in its place")?;
    }
    let result = action();
    if aside.is_dir() { fs::remove_file(place) } else { fs::remove_dir(place) }.context("unblock it")?;
    fs::rename(&aside, place).context("move it back")?;
    result
}

/// What a status says is live.
fn live(status: &Value) -> Result<String> {
    let generation = status["generation"].as_u64().context("the status has no generation")?;
    Ok(format!("generation {generation}, {}", status["bundle"]))
}

fn tables_of_old_policies_are_freed(case: &Case<'_>) -> Result<()> {
    let switches = if case.full { 200 } else { 30 };
    let daemon = Daemon::start("freed", &small(1, &[(READ, "first")]))?;
    let policies = [small(2, &[(READ, "second")]), small(3, &[(READ, "first"), (READ, "both")])];
    let directories = [
        policies[0].write(&daemon.directory().join("a"))?,
        policies[1].write(&daemon.directory().join("b"))?,
    ];
    let both = || directories.iter().try_for_each(|directory| daemon.apply(directory));
    // From here on, one table set of each policy exists after every pair of switches.
    both()?;
    both()?;
    let before = settled()?;
    for _ in 0..switches / 2 {
        both()?;
    }
    case.tried(switches);
    // The kernel frees what nobody can see any more in its own time.
    eventually("the tables of old policies are freed", || {
        let now = Maps::now()?;
        Ok(now.count <= before.count && now.bytes <= before.bytes)
    })?;
    daemon.stop().map(drop)
}

/// The maps, once the kernel has freed those of the switches before.
fn settled() -> Result<Maps> {
    let mut maps = Maps::now()?;
    let mut same = 0;
    eventually("the number of maps settles", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = Maps::now()?;
        same = if now == maps { same + 1 } else { 0 };
        maps = now;
        Ok(same == 10)
    })?;
    Ok(maps)
}

/// A process that reads the first file when it is told to. A puppet whose subject is removed could not even hear
/// that.
pub(crate) fn reader() -> Result<Holder> {
    let uses = || -> std::io::Result<Vec<Use>> { Ok(vec![("read", Box::new(|| read(first())))]) };
    Holder::start(AGENT, &["read"], uses)
}

fn numbers_of_subjects_are_never_given_again(_: &Case<'_>) -> Result<()> {
    let one = |version, name: &str| Bundle::new("numbers").version(version).subject(name, "user = \"agent\"");
    let number = |daemon: &Daemon| {
        daemon.status()?.pointer("/subjects/0/id").and_then(Value::as_u64).context("the subject's number")
    };
    let directory = configure("numbers", &one(1, "a"))?;
    let daemon = spawn(&directory)?.ready()?;
    let mut given = vec![number(&daemon)?];
    // A process that carries the first number, and outlives everything that follows.
    let mut agent = reader()?;
    for (version, name) in [(2, "b"), (3, "c")] {
        daemon.apply(&one(version, name).write(&directory.join("next"))?)?;
        given.push(number(&daemon)?);
        agent.is_refused("read")?;
    }
    daemon.stop()?;
    // Another daemon on the same state.
    one(4, "d").write(&directory.join("bundle"))?;
    let daemon = spawn(&directory)?.ready()?;
    given.push(number(&daemon)?);
    let mut unique = given.clone();
    unique.sort_unstable();
    unique.dedup();
    ensure!(unique.len() == given.len(), "a number was given twice: {given:?}");
    // A name that was known before has its number again.
    daemon.apply(&one(5, "a").write(&directory.join("next"))?)?;
    ensure!(number(&daemon)? == given[0], "another number for a name that is known");
    agent.end()?;
    daemon.stop().map(drop)
}

fn a_task_of_a_removed_subject_is_refused_everything(case: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("removed", &small(1, &[(READ, "first")]))?;
    let mut holder = reader()?;
    holder.works("read")?;
    let mark = daemon.events.mark()?;
    // What the next policy permits everybody counts for no subject that it does not know.
    let everybody = permit("any", "other", READ, &within(&[path("flip")]))
        .replace("principal == Guard::Subject::\"other\"", "principal");
    let without =
        Bundle::new("small").version(2).subject("other", "user = \"ci\"").policy("everybody", everybody);
    ends_with(&apply(&daemon, &without, "without")?, 0)?;
    holder.is_refused("read")?;
    let wait = Duration::from_secs(20);
    daemon.events.wait(mark, wait, "a removed subject", |event| event.reason() == "subject-removed")?;
    // Who comes now is nobody's subject any more.
    Case::under(&daemon, case.full).allowed(AGENT, || read(second()))?;
    // The same name again is the same subject, which releases its task to what policy permits it.
    ends_with(&apply(&daemon, &small(3, &[(READ, "first")]), "again")?, 0)?;
    holder.works("read")?;
    holder.end()?;
    daemon.stop().map(drop)
}
