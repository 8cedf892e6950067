//! The agent, killed before any call by which it changes something: what it enforced goes on without a gap, and what
//! it acknowledged is there under the next one.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use serde_json::{Value, json};

use crate::adoption::{Fixture, enforces};
use crate::attempt::{self, Outcome, attempt};
use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::Daemon;
use crate::family::{Part, tests};
use crate::file::read;
use crate::layout::{ROOT, canary, path};
use crate::puppet::Puppet;
use crate::raw::{self, SharedCounters};
use crate::running;
use crate::tracer::Tracer;
use crate::users::{AGENT, CI};

pub(crate) const PART: Part = Part {
    name: "adoption-kills",
    bundle: Ok,
    prepare: running::prepare,
    tests: tests!(
        others: [
            an_agent_that_is_killed_at_any_call_of_taking_over_leaves_no_gap,
            an_agent_that_is_killed_at_any_call_of_a_change_loses_nothing_that_it_acknowledged,
        ],
    ),
};

/// So many numbers below `calls`, at equal distances.
fn spread(calls: u64, places: u64) -> impl Iterator<Item = u64> {
    let places = places.min(calls);
    (0..places).map(move |number| (number * calls + calls / 2) / places)
}

fn secret() -> PathBuf {
    canary(ROOT)
}

/// A file that `ci` may read where what is tried says so.
fn gated(what: What) -> PathBuf {
    match what {
        What::Policy => path("flip/first"),
        What::Lease => path("flip/second"),
        What::Fact => path("flip/third"),
        // It may be read at other times.
        What::Quarantine => path("open/notes"),
        What::Mode => secret(),
    }
}

/// What an agent changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Policy,
    Lease,
    Fact,
    Quarantine,
    Mode,
}

impl What {
    const ALL: [Self; 5] = [Self::Policy, Self::Lease, Self::Fact, Self::Quarantine, Self::Mode];
}

/// `agent` may read what is open, `ci` that and what is tried. An odd version permits one file more.
fn bundle(version: u64) -> Bundle {
    let open = within(&[path("open")]);
    let leased = format!("{} && context.leases.contains(\"change\")", within(&[gated(What::Lease)]));
    let trusted = format!(
        "{} && context.posture has trust && context.posture.trust >= 3",
        within(&[gated(What::Fact)])
    );
    let mut policy = permit("agent", "agent", &["file.*"], &open)
        + &permit("ci", "ci", &["file.*"], &open)
        + &permit("leased", "ci", &["file.read"], &leased)
        + &permit("trusted", "ci", &["file.read"], &trusted);
    if version % 2 == 1 {
        policy += &permit("odd", "ci", &["file.read"], &within(&[gated(What::Policy)]));
    }
    Bundle::new("kills")
        .version(version)
        .toml("[facts]\ntrust = { type = \"long\" }\n[approvals]\nchange = { approvers = [\"user:root\"], max = \"1h\" }\n")
        .subject("agent", "user = \"agent\"")
        .subject("ci", "user = \"ci\"")
        .policy("all", policy)
}

/// A labelled process that tries the canary without a pause, when nothing else wants the processor.
struct Watch {
    counters: SharedCounters,
    running: attempt::Running,
}

const OVER: usize = 0;
const REFUSED: usize = 1;
const ADMITTED: usize = 2;

impl Watch {
    fn start() -> Result<Self> {
        let counters = SharedCounters::new().context("share memory")?;
        let running = attempt::start(AGENT, || {
            raw::nice(19)?;
            while counters.at(OVER).load(Ordering::SeqCst) == 0 {
                let counter = match read(secret()) {
                    Ok(()) => ADMITTED,
                    Err(error) if error.raw_os_error() == Some(libc::EACCES) => REFUSED,
                    Err(error) => return Err(error),
                };
                counters.at(counter).fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        })?;
        Ok(Self { counters, running })
    }

    /// Nothing was admitted until now.
    fn saw_no_gap(&self) -> Result<()> {
        let admitted = self.counters.at(ADMITTED).load(Ordering::SeqCst);
        ensure!(admitted == 0, "the canary was read {admitted} times");
        Ok(())
    }

    /// Ends it; how often it was refused.
    fn end(self) -> Result<u64> {
        self.counters.at(OVER).store(1, Ordering::SeqCst);
        let outcome = self.running.outcome()?;
        ensure!(outcome == Outcome::Worked, "who watches: {outcome:?}");
        let of = |index: usize| self.counters.at(index).load(Ordering::SeqCst);
        ensure!(of(ADMITTED) == 0, "the canary was read {} times", of(ADMITTED));
        Ok(of(REFUSED))
    }
}

fn an_agent_that_is_killed_at_any_call_of_taking_over_leaves_no_gap(case: &Case<'_>) -> Result<()> {
    let fixture = Fixture::sharing("kills-adopt", &bundle(1))?;
    drop(fixture.start()?);
    let mut old = Puppet::start(AGENT)?;
    let watch = Watch::start()?;
    let mut killed = 0;
    // The next agent has the same programs, or others, which have to be loaded twice for each place.
    let kinds: &[(bool, u64)] = if case.full { &[(false, 60), (true, 20)] } else { &[(false, 6)] };
    for &(next, places) in kinds {
        let (daemon, seen) = fixture.traced(next, None)?;
        ensure!(daemon.is_some(), "it ended without being killed");
        drop(daemon);
        let calls = seen.calls;
        if next {
            drop(fixture.upgraded(false)?);
        }
        for place in spread(calls, places) {
            let (daemon, seen) = fixture.traced(next, Some(place))?;
            ensure!(daemon.is_some() || seen.killed, "at call {place} of {calls}: it ended by itself");
            killed += u64::from(seen.killed);
            watch.saw_no_gap().with_context(|| format!("at call {place} of {calls}"))?;
            enforces(&mut old).with_context(|| format!("after a kill at call {place} of {calls}"))?;
            drop(daemon);
            if next {
                // What the other version left is taken over by the first one again.
                drop(fixture.upgraded(false).with_context(|| format!("after call {place} of {calls}"))?);
                enforces(&mut old).with_context(|| format!("once call {place} was made good"))?;
            }
        }
        println!("  {calls} calls{}", if next { " with other programs" } else { "" });
    }
    drop(fixture.start()?);
    enforces(&mut old).context("under the last agent")?;
    let refused = watch.end()?;
    println!("  {killed} kills, the canary was refused {refused} times meanwhile and never read");
    case.tried(killed);
    ensure!(killed > 0, "it was never killed");
    old.end()
}

/// An agent whose changes are tried, and what it acknowledged.
struct Changes {
    /// The bundle that was applied last.
    version: Cell<u64>,
    directory: PathBuf,
}

impl Changes {
    /// Asks for a change, or for it to be taken back; whether it was acknowledged.
    fn ask(&self, daemon: &Daemon, what: What, on: bool) -> Result<bool> {
        let (method, path, body) = match (what, on) {
            (What::Policy, _) => {
                let next = self.version.get() + 1;
                let next = if (next % 2 == 1) == on { next } else { next + 1 };
                self.version.set(next);
                let written = bundle(next).write(&self.directory.join(next.to_string()))?;
                ("POST", "/v1/policy/apply".to_owned(), json!({ "directory": written }))
            }
            (What::Lease, true) => {
                ("POST", "/v1/leases".to_owned(), json!({ "name": "change", "subject": "ci" }))
            }
            (What::Lease, false) => {
                let lease = first(daemon, "leases")?["id"].to_string();
                ("POST", format!("/v1/leases/{lease}/revoke"), json!({}))
            }
            (What::Fact, true) => {
                ("POST", "/v1/facts".to_owned(), json!({ "name": "trust", "value": 3, "source": "edr" }))
            }
            (What::Fact, false) => ("DELETE", "/v1/facts?name=trust&source=edr".to_owned(), Value::Null),
            // What is denied under it is the file.
            (What::Quarantine, false) => (
                "POST",
                "/v1/quarantines".to_owned(),
                json!({ "subject": "ci", "level": "full", "reason": "INC-1", "evidence": false }),
            ),
            (What::Quarantine, true) => {
                let id = first(daemon, "quarantines")?["id"].to_string();
                ("POST", format!("/v1/quarantines/{id}/release"), json!({ "reason": "INC-1" }))
            }
            (What::Mode, on) => (
                "POST",
                "/v1/mode".to_owned(),
                json!({
                    "subject": "ci",
                    "mode": on.then_some("monitor"),
                    "seconds": if on { 3600 } else { 0 },
                    "reason": "INC-1",
                    "confirmed": true,
                }),
            ),
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        match daemon.request(method, &path, &body) {
            Ok((200, _)) => Ok(true),
            Ok((status, answer)) => bail!("{what:?}: {status}: {answer}"),
            // It was killed meanwhile.
            Err(_) => Ok(false),
        }
    }
}

/// The first of what is listed and counts.
fn first(daemon: &Daemon, list: &str) -> Result<Value> {
    let (status, answer) = daemon.request("GET", &format!("/v1/{list}"), "")?;
    ensure!(status == 200, "{status}: {answer}");
    let answer: Value = serde_json::from_str(&answer).context("JSON")?;
    answer[list].get(0).cloned().with_context(|| format!("nothing is listed: {answer}"))
}

/// Whether it is so for the kernel.
fn counts(what: What) -> Result<bool> {
    let file = gated(what);
    match attempt(CI, || read(&file))? {
        Outcome::Worked => Ok(true),
        Outcome::Failed(Errno::EACCES) => Ok(false),
        other => bail!("{what:?}: {other:?}"),
    }
}

/// Whether it is so by what the agent says.
fn is_recorded(daemon: &Daemon, what: What) -> Result<bool> {
    let status = daemon.status()?;
    Ok(match what {
        What::Policy => status["bundle"]["version"].as_u64().context("a version")? % 2 == 1,
        What::Lease => first(daemon, "leases").is_ok(),
        What::Fact => first(daemon, "facts").is_ok(),
        What::Quarantine => first(daemon, "quarantines").is_err(),
        What::Mode => {
            let subjects = status["subjects"].as_array().context("subjects")?;
            subjects.iter().any(|one| one["name"] == "ci" && one["mode"] == "monitor")
        }
    })
}

fn an_agent_that_is_killed_at_any_call_of_a_change_loses_nothing_that_it_acknowledged(
    case: &Case<'_>,
) -> Result<()> {
    let fixture = Fixture::sharing("kills-change", &bundle(2))?;
    let changes = Changes { version: Cell::new(2), directory: fixture.directory().join("next") };
    fs::create_dir_all(&changes.directory).context("make a directory")?;
    fs::write(gated(What::Fact), b"third\n").context("write a file")?;
    let mut daemon = fixture.start()?;
    let watch = Watch::start()?;
    let (mut killed, mut acknowledged) = (0, 0);
    for what in What::ALL {
        let calls = {
            let tracer = Tracer::attach(daemon.pid(), None)?;
            let on = !counts(what)?;
            ensure!(changes.ask(&daemon, what, on)?, "{what:?} without a kill");
            ensure!(counts(what)? == on, "{what:?} does not count");
            tracer.end()?.calls
        };
        for place in spread(calls, if case.full { 60 } else { 4 }) {
            let wanted = !counts(what)?;
            let tracer = Tracer::attach(daemon.pid(), Some(place))?;
            let done = changes.ask(&daemon, what, wanted)?;
            let seen = tracer.end()?;
            let at =
                || format!("{what:?} to {wanted}, killed at call {place} of {calls}, acknowledged: {done}");
            ensure!(done || seen.killed, "{}: neither", at());
            if done {
                ensure!(counts(what)? == wanted, "{}: it does not count", at());
            }
            drop(daemon);
            watch.saw_no_gap().with_context(at)?;
            daemon = fixture.start().with_context(at)?;
            let now = counts(what)?;
            ensure!(!done || now == wanted, "{}: it is lost", at());
            ensure!(is_recorded(&daemon, what)? == now, "{}: {now} counts, which is not what is said", at());
            killed += u64::from(seen.killed);
            acknowledged += u64::from(done);
        }
        println!("  {what:?}: {calls} calls");
        // It would hide what comes after it.
        if what == What::Quarantine && !counts(what)? {
            ensure!(changes.ask(&daemon, what, true)?, "it is not released");
        }
    }
    let refused = watch.end()?;
    println!(
        "  {killed} kills, {acknowledged} changes acknowledged, the canary was refused {refused} times meanwhile and never read"
    );
    case.tried(killed);
    ensure!(killed > 0, "it was never killed");
    daemon.stop().map(drop)
}
