//! Change windows: they open and close by the wall clock, on time, with nobody's help, and only while that
//! clock is known to be right.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};

use crate::attempt::{Outcome, eventually};
use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::Daemon;
use crate::family::{Part, tests};
use crate::layout::path;
use crate::lifecycle::{apply, ends_with, prepare};
use crate::puppet::Puppet;
use crate::raw;
use crate::users::AGENT;

pub(crate) const PART: Part = Part {
    name: "windows",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            a_window_opens_and_closes_at_its_deadline_with_the_agent_stopped,
            windows_are_closed_until_the_clock_is_right_and_when_it_is_set,
        ],
    ),
};

fn file() -> PathBuf {
    path("flip/first")
}

/// `agent` may read a file while a window is open.
fn bundle(version: u64, window: &str) -> Bundle {
    let condition = format!("{} && context.windows.contains(\"change\")", within(&[file()]));
    Bundle::new("windows")
        .version(version)
        .toml(&format!("[windows]\nchange = {{ {window}, zone = \"UTC\" }}\n"))
        .subject("agent", "user = \"agent\"")
        .policy("agent", permit("change", "agent", &["file.read"], &condition))
}

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Hour and minute in UTC.
fn clock(seconds: u64) -> String {
    let minutes = seconds % DAY / MINUTE;
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

/// What the two clocks can be apart by, which are not read at once.
const READING: Duration = Duration::from_millis(50);

fn a_window_opens_and_closes_at_its_deadline_with_the_agent_stopped(case: &Case<'_>) -> Result<()> {
    let every = "days = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]";
    let never = format!("{every}, from = \"00:00\", to = \"00:01\"");
    let daemon = Daemon::start("windows", &bundle(1, &never))?;
    let mut puppet = Puppet::start(AGENT)?;
    // Before a full minute by what it may take to apply a policy, and far from midnight.
    let now = seconds(SystemTime::now());
    let shift = (DAY / 2 - 40) as i64 - (now % DAY) as i64;
    raw::shift_clock(shift).context("set the clock")?;
    raw::synchronise().context("call the clock right")?;
    let opens = seconds(SystemTime::now()).next_multiple_of(MINUTE);
    let window = format!("{every}, from = \"{}\", to = \"{}\"", clock(opens), clock(opens + MINUTE));
    ends_with(&apply(&daemon, &bundle(2, &window), "window")?, 0)?;
    // No part of the agent can run from here on.
    kill(daemon.pid(), Signal::SIGSTOP).context("stop the daemon")?;
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    let watched = watch(&mut puppet, at(opens), at(opens + MINUTE), if case.full { 100_000 } else { 0 });
    kill(daemon.pid(), Signal::SIGCONT).context("let the daemon go on")?;
    let [closed, open, closed_again] = watched?;
    println!(
        "  {closed} reads refused before the window, {open} allowed in it, {closed_again} refused after it"
    );
    raw::shift_clock(-shift).context("set the clock back")?;
    puppet.end()?;
    daemon.stop().map(drop)
}

/// Reads until the window is over, and was tried so often after it: how often before it, in it and after it.
fn watch(puppet: &mut Puppet, opens: SystemTime, closes: SystemTime, after_it: u64) -> Result<[u64; 3]> {
    let mut counts = [0; 3];
    ensure!(SystemTime::now() < opens, "the policy came too late for the window");
    loop {
        let before = SystemTime::now();
        let outcome = puppet.read(&file())?;
        let after = SystemTime::now();
        let phase = match () {
            () if after + READING < opens => 0,
            () if before > opens + READING && after + READING < closes => 1,
            () if before > closes + READING => 2,
            // Too close to tell.
            () => continue,
        };
        let wanted = if phase == 1 { Outcome::Worked } else { Outcome::Failed(Errno::EACCES) };
        ensure!(outcome == wanted, "{phase}: {outcome:?} at {before:?}, which opens at {opens:?}");
        counts[phase] += 1;
        if before > closes + Duration::from_secs(2) && counts[2] >= after_it {
            ensure!(counts.iter().all(|count| *count > 0), "{counts:?}");
            return Ok(counts);
        }
    }
}

fn windows_are_closed_until_the_clock_is_right_and_when_it_is_set(_: &Case<'_>) -> Result<()> {
    let always = "days = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"], from = \"00:00\", to = \"24:00\"";
    // A clock that is set is not known to be right.
    raw::shift_clock(0).context("set the clock")?;
    let daemon = Daemon::start("windows", &bundle(1, always))?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&file())?;
    let status = daemon.status()?;
    let said = status["degraded"].to_string();
    ensure!(status["state"] == "degraded" && said.contains("nothing has set the clock right"), "{status}");
    raw::synchronise().context("call the clock right")?;
    eventually("the window opens when the clock is right", || Ok(puppet.read(&file())? == Outcome::Worked))?;
    let status = daemon.status()?;
    ensure!(status["windows"][0]["open"] == true, "{status}");
    raw::shift_clock(MINUTE as i64).context("set the clock")?;
    eventually("the window closes when the clock is set", || {
        Ok(puppet.read(&file())? == Outcome::Failed(Errno::EACCES))
    })?;
    raw::shift_clock(-(MINUTE as i64)).context("set the clock back")?;
    puppet.end()?;
    daemon.stop().map(drop)
}
