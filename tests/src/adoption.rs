//! Programs that stay when the agent ends, and the agents that take them over.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use crate::attempt::{Outcome, attempt, eventually};
use crate::bundle::{Bundle, permit};
use crate::case::Case;
use crate::daemon::{Daemon, FAULT, PINS as SHARED, configure, configure_apart, spawn};
use crate::family::{Part, tests};
use crate::layout::{ROOT, canary, path};
use crate::lifecycle::{ends_with, output};
use crate::puppet::Puppet;
use crate::running::{self, Storm};
use crate::tracer::{Seen, Tracer};
use crate::users::{AGENT, DAC_OVERRIDE, FREE, Identity, SYS_ADMIN};

pub(crate) const PART: Part = Part {
    name: "adoption",
    bundle: Ok,
    prepare: running::prepare,
    tests: tests!(
        smoke: [enforcement_goes_on_without_the_agent_until_it_is_disarmed],
        others: [
            no_process_of_a_fork_storm_escapes_while_agents_die_and_take_over,
            an_agent_that_is_killed_at_any_step_of_its_first_start_leaves_nothing_that_is_in_the_way,
            an_agent_that_is_killed_at_any_step_of_taking_over_leaves_what_enforced,
            what_belongs_to_another_agent_is_not_taken_over,
            a_subject_that_may_write_everything_removes_no_pin,
            a_subject_that_may_mount_everything_unmounts_no_pin,
        ],
    ),
};

const PINS: &str = "/sys/fs/bpf/guard";

fn secret() -> PathBuf {
    canary(ROOT)
}

fn notes() -> PathBuf {
    path("open/notes")
}

/// A fixture whose agent pins its programs.
pub(crate) struct Fixture {
    directory: PathBuf,
    /// Whether in [`PINS`], where nothing is pinned any more when this is dropped; else where daemons share them.
    apart: bool,
}

impl Fixture {
    pub(crate) fn new(name: &str, bundle: &Bundle) -> Result<Self> {
        let this = Self { directory: configure_apart(name, bundle)?, apart: true };
        this.pins(PINS)?;
        Ok(this)
    }

    /// One that adopts what other daemons have pinned, if they did, and leaves it to the next one.
    pub(crate) fn sharing(name: &str, bundle: &Bundle) -> Result<Self> {
        Ok(Self { directory: configure(name, bundle)?, apart: false })
    }

    fn config(&self) -> PathBuf {
        self.directory.join("agent.toml")
    }

    fn pins(&self, pins: &str) -> Result<()> {
        let text = "bundle = \"bundle\"\nrun_dir = \"run\"\nstate_dir = \"state\"\n";
        fs::write(self.config(), format!("{text}pins = \"{pins}\"\n")).context("write agent.toml")
    }

    pub(crate) fn start(&self) -> Result<Daemon> {
        spawn(&self.directory)?.ready()
    }

    /// Starts an agent that is killed at a step. With `next`, its programs are those of another version.
    fn killed_at(&self, step: &str, next: bool) -> Result<()> {
        let next = if next { "same object\n" } else { "" };
        fs::write(self.directory.join(FAULT), format!("{next}kill {step}\n")).context("name the step")?;
        let (status, log) = spawn(&self.directory)?.refused()?;
        ensure!(status.signal() == Some(libc::SIGKILL), "{step} was not reached: {status}: {log}");
        Ok(())
    }

    /// Starts an agent of another version, or one that is of the first one again.
    pub(crate) fn upgraded(&self, next: bool) -> Result<Daemon> {
        let fault = self.directory.join(FAULT);
        if next {
            fs::write(&fault, "same object\n").context("name the object")?;
        }
        let daemon = self.start();
        let _ = fs::remove_file(fault);
        daemon
    }

    /// Starts an agent, of another version with `next`, that is traced from then on and killed before its call
    /// of this number that changes something; no daemon if that was before it was ready.
    pub(crate) fn traced(&self, next: bool, at: Option<u64>) -> Result<(Option<Daemon>, Seen)> {
        let fault = self.directory.join(FAULT);
        if next {
            fs::write(&fault, "same object\n").context("name the object")?;
        }
        let starting = spawn(&self.directory)?;
        let tracer = Tracer::attach(starting.pid(), at)?;
        let daemon = starting.ready_unless_killed();
        let _ = fs::remove_file(fault);
        Ok((daemon?, tracer.end()?))
    }

    fn disarm(&self, reason: &str) -> Result<Output> {
        let arguments = ["disarm", "--offline", "--yes", "--reason", reason, "--config"];
        output(Command::new("guardctl").args(arguments).arg(self.config()))
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if self.apart {
            let _ = self.disarm("the end of a test");
        }
    }
}

fn bundle() -> Bundle {
    running::bundle()
}

/// A process of the subject, which lives through everything, and a new one.
pub(crate) fn enforces(old: &mut Puppet) -> Result<()> {
    let mut new = Puppet::start(AGENT)?;
    for (name, puppet) in [("the old process", &mut *old), ("a new process", &mut new)] {
        puppet.is_refused(&secret()).context(name)?;
        puppet.is_allowed(&notes()).context(name)?;
    }
    new.end()?;
    let free = attempt(FREE, || fs::read(secret()).map(drop))?;
    ensure!(free == Outcome::Worked, "whoever is no subject: {free:?}");
    Ok(())
}

fn enforces_nothing() -> Result<()> {
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_allowed(&secret())?;
    puppet.end()
}

fn number(status: &Value, pointer: &str) -> Result<u64> {
    status.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("{pointer} of {status}"))
}

fn enforcement_goes_on_without_the_agent_until_it_is_disarmed(_: &Case<'_>) -> Result<()> {
    let fixture = Fixture::new("pins", &bundle())?;
    enforces_nothing()?;
    let daemon = fixture.start()?;
    let mut puppet = Puppet::start(AGENT)?;
    enforces(&mut puppet)?;
    let before = daemon.status()?;
    ensure!(before["pinned"] == PINS, "the status does not say that the programs stay: {}", before["pinned"]);
    // Dropping it is SIGKILL.
    drop(daemon);
    enforces(&mut puppet).context("after a kill")?;

    let daemon = fixture.start()?;
    enforces(&mut puppet).context("under the next agent")?;
    let after = daemon.status()?;
    ensure!(daemon.log().contains("adopted"), "it did not take over: {}", daemon.log());
    ensure!(number(&after, "/generation")? > number(&before, "/generation")?, "the generation is older");
    for counter in ["decided", "denied", "labelled"] {
        let pointer = format!("/counters/{counter}");
        ensure!(number(&after, &pointer)? >= number(&before, &pointer)?, "{counter} went back");
    }
    ensure!(number(&after, "/counters/events_lost")? == 0, "events were lost: {after}");
    let events = output(&mut daemon.control(&["events", "-o", "json", "--subject", "agent"]))?;
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    ensure!(!events.contains("guard.missing"), "something is missing: {events}");
    let status = daemon.stop()?;
    ensure!(status.success(), "the agent ended with {status}");
    enforces(&mut puppet).context("after a stop")?;
    let log = fs::read_to_string(fixture.directory.join("log")).context("read the log")?;
    ensure!(log.contains("guardctl disarm"), "it does not say that enforcement stays: {log}");

    // Only who says why ends it.
    let daemon = fixture.start()?;
    let refused = output(daemon.control(&["disarm", "--yes", "--reason", " "]).env("NO_COLOR", "1"))?;
    ensure!(!refused.status.success(), "it was disarmed without a reason");
    let offline = fixture.disarm("INC-1")?;
    ends_with(&offline, 1)?;
    let said = String::from_utf8_lossy(&offline.stderr).into_owned();
    ensure!(said.contains("an agent holds"), "{said}");
    enforces(&mut puppet).context("after refused disarms")?;
    let disarmed = output(&mut daemon.control(&["disarm", "--yes", "--json", "--reason", "INC-2"]))?;
    ends_with(&disarmed, 0)?;
    let answer: Value = serde_json::from_slice(&disarmed.stdout).context("the answer is JSON")?;
    ensure!(answer["reason"] == "INC-2" && answer["offline"] == false, "{answer}");
    puppet.is_allowed(&secret()).context("once disarmed")?;
    enforces_nothing()?;
    ensure!(!Path::new(PINS).join("current").exists(), "something is still pinned");
    let status = daemon.ended()?;
    ensure!(status.success(), "the agent ended with {status}");

    // What was disarmed is armed by the next start, which remembers.
    let daemon = fixture.start()?;
    let mut again = Puppet::start(AGENT)?;
    enforces(&mut again)?;
    ensure!(daemon.status()?["disarmed"]["reason"] == "INC-2", "the status does not remember");
    drop(daemon);
    ends_with(&fixture.disarm("INC-3")?, 0)?;
    again.is_allowed(&secret()).context("once disarmed offline")?;
    ends_with(&fixture.disarm("INC-4")?, 1)?;
    again.end()?;
    puppet.end()
}

fn no_process_of_a_fork_storm_escapes_while_agents_die_and_take_over(case: &Case<'_>) -> Result<()> {
    let (rounds, refusals) = if case.full { (5, 2_000) } else { (1, 100) };
    let fixture = Fixture::sharing("pins-storm", &bundle())?;
    let daemon = fixture.start()?;
    let storm = Storm::start()?;
    storm.enforced();
    storm.goes_on(refusals)?;
    drop(daemon);
    for _ in 0..rounds {
        for next in [false, true] {
            storm.goes_on(refusals).context("without an agent")?;
            let daemon = fixture.upgraded(next)?;
            storm.goes_on(refusals).with_context(|| format!("under the next agent: {}", daemon.log()))?;
        }
        let daemon = fixture.upgraded(false)?;
        ensure!(daemon.log().contains("took over the labels"), "no labels were taken over: {}", daemon.log());
        storm.goes_on(refusals)?;
    }
    case.tried(storm.end()?);
    Ok(())
}

fn an_agent_that_is_killed_at_any_step_of_its_first_start_leaves_nothing_that_is_in_the_way(
    case: &Case<'_>,
) -> Result<()> {
    const STEPS: [&str; 5] = ["attach file_open", "pin maps", "pin iterators", "pin links", "commit pins"];
    let fixture = Fixture::new("pins-first", &bundle())?;
    // Each costs a start of the agent.
    for step in if case.full { &STEPS } else { &STEPS[3..] } {
        fixture.killed_at(step, false)?;
        ensure!(!Path::new(PINS).join("current").exists(), "{step}: half of it counts as whole");
        case.tried(1);
    }
    let daemon = fixture.start()?;
    let mut puppet = Puppet::start(AGENT)?;
    enforces(&mut puppet)?;
    let left: Vec<_> =
        fs::read_dir(PINS).context("read the pins")?.flatten().map(|one| one.file_name()).collect();
    ensure!(left == ["current"], "something is left: {left:?}");
    // Half of something is removed by whoever disarms as well.
    drop(daemon);
    ends_with(&fixture.disarm("INC-1")?, 0)?;
    fixture.killed_at("commit pins", false)?;
    ends_with(&fixture.disarm("INC-2")?, 1)?;
    ensure!(fs::read_dir(PINS).context("read the pins")?.next().is_none(), "something is left");
    puppet.is_allowed(&secret())?;
    puppet.end()
}

fn an_agent_that_is_killed_at_any_step_of_taking_over_leaves_what_enforced(case: &Case<'_>) -> Result<()> {
    // The last one comes when the programs of the other version are the ones that count.
    const STEPS: [&str; 7] = [
        "attach file_open",
        "inherit",
        "pin maps",
        "pin iterators",
        "pin links",
        "commit pins",
        "remove old pins",
    ];
    let fixture = Fixture::new("pins-steps", &bundle())?;
    drop(fixture.start()?);
    let mut puppet = Puppet::start(AGENT)?;
    fixture.killed_at("adopt", false)?;
    enforces(&mut puppet).context("after adopt")?;
    for step in if case.full { &STEPS } else { &STEPS[4..] } {
        fixture.killed_at(step, true)?;
        enforces(&mut puppet).with_context(|| format!("after {step}"))?;
        case.tried(1);
    }
    let daemon = fixture.upgraded(true)?;
    ensure!(daemon.log().contains("adopted"), "what was pinned last is not what counts: {}", daemon.log());
    enforces(&mut puppet)?;
    puppet.end()
}

fn what_belongs_to_another_agent_is_not_taken_over(_: &Case<'_>) -> Result<()> {
    let fixture = Fixture::new("pins-own", &bundle())?;
    let daemon = fixture.start()?;
    let mut puppet = Puppet::start(AGENT)?;
    // Two at the same time, each with directories of its own.
    let other = configure_apart("pins-other", &bundle())?;
    let config = fs::read_to_string(fixture.config()).context("read agent.toml")?;
    fs::write(other.join("agent.toml"), &config).context("write agent.toml")?;
    let (status, log) = spawn(&other)?.refused()?;
    ensure!(status.code() == Some(1) && log.contains("another guard-agent holds"), "{status}: {log}");
    enforces(&mut puppet)?;
    // One after the other: the numbers in labels are those of the first one's state.
    drop(daemon);
    let (status, log) = spawn(&other)?.refused()?;
    ensure!(
        !status.success() && log.contains("state_dir") && log.contains("goes on enforcing"),
        "{status}: {log}"
    );
    enforces(&mut puppet).context("after the agent of another state")?;
    // A directory that cannot hold pins.
    fixture.pins("/tmp/pins")?;
    let (status, log) = spawn(&fixture.directory)?.refused()?;
    ensure!(!status.success() && log.contains("mount -t bpf"), "{status}: {log}");
    fixture.pins(PINS)?;
    // Pins that somebody took away are made good by what is loaded anew.
    for program in ["file_open", "file_permission"] {
        fs::remove_file(Path::new(PINS).join("current/links").join(program)).context("remove a pin")?;
    }
    // The control. Removing the last pin does not wait for the program to be detached.
    eventually("the file is read without these programs", || Ok(puppet.read(&secret())? == Outcome::Worked))?;
    let daemon = fixture.start()?;
    enforces(&mut puppet).context("once it was made good")?;
    drop(daemon);
    puppet.end()
}

/// May do everything that is not Guard's own.
const ROOTLIKE: Identity = Identity::new("self-root", 2420);

fn a_subject_that_may_write_everything_removes_no_pin(_: &Case<'_>) -> Result<()> {
    let everything = permit("everything", "self-root", &["*"], "true");
    let bundle = Bundle::new("pins").subject("self-root", "user = \"self-root\"").policy("all", everything);
    let fixture = Fixture::new("pins-rootlike", &bundle)?;
    let daemon = fixture.start()?;
    let link = Path::new(PINS).join("current/links/file_open");
    let other = Path::new("/sys/fs/bpf/other");
    fs::create_dir_all(other).context("make a directory")?;
    let attempts: [(&str, &dyn Fn() -> std::io::Result<()>); 4] = [
        ("remove a pin", &|| fs::remove_file(&link)),
        ("rename the pins", &|| fs::rename(Path::new(PINS).join("current"), other.join("x"))),
        ("put something beside them", &|| fs::create_dir(Path::new(PINS).join("new"))),
        ("remove a directory", &|| fs::remove_dir_all(Path::new(PINS).join("current/about"))),
    ];
    for (what, action) in attempts {
        let outcome = attempt(ROOTLIKE.with(DAC_OVERRIDE), action)?;
        ensure!(outcome == Outcome::Failed(Errno::EACCES), "{what}: {outcome:?}");
    }
    // The twin: the same file system, elsewhere.
    let twin = attempt(ROOTLIKE.with(DAC_OVERRIDE), || fs::create_dir(other.join("twin")))?;
    ensure!(twin == Outcome::Worked, "beside it: {twin:?}");
    ensure!(link.exists(), "the pin is gone");
    drop(daemon);
    ends_with(&fixture.disarm("INC-1")?, 0)?;
    // The control: without Guard these very rights are enough.
    let path = Path::new(PINS).join("control");
    fs::create_dir_all(&path).context("make a directory")?;
    let control = attempt(ROOTLIKE.with(DAC_OVERRIDE), || fs::remove_dir(&path))?;
    ensure!(control == Outcome::Worked, "without Guard: {control:?}");
    fs::remove_dir_all(other).context("remove the directory")
}

/// Mounts a file system of this type at a directory.
fn mounted(kind: &str, at: &Path) -> Result<()> {
    fs::create_dir_all(at).with_context(|| format!("create {}", at.display()))?;
    mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount at {}", at.display()))
}

fn a_subject_that_may_mount_everything_unmounts_no_pin(_: &Case<'_>) -> Result<()> {
    let who = ROOTLIKE.with(DAC_OVERRIDE | SYS_ADMIN);
    let detach = |at: &Path| Ok(umount2(at, MntFlags::MNT_DETACH)?);
    let elsewhere = |at: &Path, propagation: MsFlags| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, propagation | MsFlags::MS_REC, None::<&str>)?;
        detach(at)
    };
    // A tree of mounts with a BPF file system in it, as /sys is one.
    let tree = Path::new("/run/gt-mounts");
    let inner = tree.join("bpf");
    let make = || -> Result<()> {
        mounted("tmpfs", tree)?;
        mount(None::<&str>, tree, None::<&str>, MsFlags::MS_SHARED, None::<&str>)
            .context("share the tree")?;
        mounted("bpf", &inner)
    };
    // The controls: what is refused below works without Guard.
    for at in [&inner, &tree.to_owned()] {
        make()?;
        let outcome = attempt(who, || detach(at))?;
        ensure!(outcome == Outcome::Worked, "without Guard: {}: {outcome:?}", at.display());
        let _ = umount2(tree, MntFlags::MNT_DETACH);
    }
    make()?;
    let bundle = Bundle::new("pins")
        .subject("self-root", "user = \"self-root\"")
        .policy("all", permit("everything", "self-root", &["*"], "true"));
    let fixture = Fixture::sharing("pins-mounts", &bundle)?;
    let daemon = fixture.start()?;
    let refused = |what: &str, action: &dyn Fn() -> std::io::Result<()>| -> Result<()> {
        let outcome = attempt(who, action)?;
        ensure!(outcome == Outcome::Failed(Errno::EPERM), "{what}: {outcome:?}");
        Ok(())
    };
    refused("the file system itself", &|| detach(&inner))?;
    refused("the same, at once", &|| Ok(umount2(&inner, MntFlags::empty())?))?;
    refused("what it is mounted in", &|| detach(tree))?;
    refused("the host's", &|| detach(Path::new("/sys/fs/bpf")))?;
    refused("the host's, with all that is above", &|| detach(Path::new("/sys")))?;
    refused("a shared copy of it", &|| elsewhere(&inner, MsFlags::MS_SHARED))?;
    ensure!(Path::new(SHARED).join("current").exists(), "the pins are gone");
    // The twins: a copy that nobody shares, and a tree without one.
    let private = attempt(who, || elsewhere(&inner, MsFlags::MS_PRIVATE))?;
    ensure!(private == Outcome::Worked, "a private copy: {private:?}");
    let plain = path("open/plain");
    mounted("tmpfs", &plain)?;
    let twin = attempt(who, || detach(&plain))?;
    ensure!(twin == Outcome::Worked, "another file system: {twin:?}");
    drop(daemon);
    umount2(tree, MntFlags::MNT_DETACH).context("unmount the tree")
}
