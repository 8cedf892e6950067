//! `guardctl mode`: enforce or monitor one subject, at once, and until it ends by itself.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::attempt::{Outcome, eventually};
use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::{Daemon, spawn};
use crate::family::{Part, tests};
use crate::layout::path;
use crate::lifecycle::{apply, ends_with, output, prepare};
use crate::puppet::Puppet;
use crate::raw;
use crate::users::{AGENT, CI};

pub(crate) const PART: Part = Part {
    name: "mode",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            a_mode_ends_at_its_deadline_for_its_subject_only,
            setting_the_clock_moves_no_end_of_a_mode,
            a_mode_outlives_a_new_bundle_a_kill_and_a_restart,
            what_denies_less_wants_a_reason_and_a_yes,
        ],
    ),
};

fn first() -> PathBuf {
    path("flip/first")
}

fn second() -> PathBuf {
    path("flip/second")
}

/// `agent` and `ci` may read `first`; `agent` is in `mode`.
fn bundle(version: u64, mode: &str) -> Bundle {
    let policy = ["agent", "ci"]
        .map(|subject| permit(&format!("{subject}-first"), subject, &["file.read"], &within(&[first()])))
        .concat();
    Bundle::new("small")
        .version(version)
        .subject("agent", "user = \"agent\"")
        .subject("ci", "user = \"ci\"")
        .toml(&format!("[modes]\nagent = \"{mode}\"\n"))
        .policy("web", policy)
}

fn mode(daemon: &Daemon, arguments: &[&str]) -> Result<Value> {
    let result = output(daemon.control(&["mode", "--json"]).args(arguments))?;
    ends_with(&result, 0).with_context(|| arguments.join(" "))?;
    serde_json::from_slice(&result.stdout).context("JSON")
}

/// The status of `agent`.
fn status(daemon: &Daemon) -> Result<Value> {
    let result = output(&mut daemon.control(&["status", "--json"]))?;
    ends_with(&result, 0)?;
    let status: Value = serde_json::from_slice(&result.stdout).context("JSON")?;
    let agent = status["subjects"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "agent"));
    agent.cloned().context("the subject")
}

fn a_mode_ends_at_its_deadline_for_its_subject_only(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("mode-ends", &bundle(1, "enforce"))?;
    let mut puppet = Puppet::start(AGENT)?;
    let mut other = Puppet::start(CI)?;
    puppet.is_refused(&second())?;
    let begin = SystemTime::now();
    let set = mode(&daemon, &["monitor", "agent", "--for", "20s", "--reason", "INC-1", "--yes"])?;
    ensure!(set["schema"] == "guard.mode/1" && set["mode"] == "monitor" && set["then"] == "enforce", "{set}");
    let returned = SystemTime::now();
    let while_monitored = puppet.read(&second())?;
    // No part of the agent can run from here on.
    kill(daemon.pid(), Signal::SIGSTOP).context("stop the daemon")?;
    let ended = ends_between(&mut puppet, begin, returned, Duration::from_secs(20));
    let others = other.is_refused(&second());
    kill(daemon.pid(), Signal::SIGCONT).context("let the daemon go on")?;
    ended?;
    others?;
    ensure!(while_monitored == Outcome::Worked, "not allowed at once: {while_monitored:?}");
    puppet.is_allowed(&first())?;
    let agent = status(&daemon)?;
    ensure!(agent["mode"] == "enforce" && agent["mode_set"].is_null(), "{agent}");
    let history = output(&mut daemon.control(&["policy", "history"]))?;
    let history = String::from_utf8_lossy(&history.stdout).into_owned();
    ensure!(history.contains("mode  agent: monitor until") && history.contains("\"INC-1\""), "{history}");
    for puppet in [puppet, other] {
        puppet.end()?;
    }
    daemon.stop().map(drop)
}

fn setting_the_clock_moves_no_end_of_a_mode(_: &Case<'_>) -> Result<()> {
    const YEAR: i64 = 365 * 24 * 3600;
    let daemon = Daemon::start("mode-clock", &bundle(1, "enforce"))?;
    let mut puppet = Puppet::start(AGENT)?;
    let lasts = Duration::from_secs(20);
    for shift in [-YEAR, YEAR] {
        puppet.is_refused(&second())?;
        let begin = Instant::now();
        mode(&daemon, &["monitor", "agent", "--for", "20s", "--reason", "INC-1", "--yes"])?;
        let returned = Instant::now();
        raw::shift_clock(shift).context("set the clock")?;
        let ended = loop {
            let before = Instant::now();
            match puppet.read(&second())? {
                Outcome::Worked if before < returned + lasts => {}
                Outcome::Worked => break Err(anyhow::anyhow!("it goes on although the time is over")),
                _ if Instant::now() >= begin + lasts => break Ok(()),
                other => break Err(anyhow::anyhow!("it ended too early: {other:?}")),
            }
        };
        raw::shift_clock(-shift).context("set the clock back")?;
        ended.with_context(|| format!("with the clock {shift} s on"))?;
    }
    puppet.end()?;
    daemon.stop().map(drop)
}

/// Checks that a mode that was set between `begin` and `returned` ends when it is to.
fn ends_between(puppet: &mut Puppet, begin: SystemTime, returned: SystemTime, lasts: Duration) -> Result<()> {
    let (earliest, latest) = (begin + lasts, returned + lasts);
    loop {
        let before = SystemTime::now();
        let refused = puppet.read(&second())? == Outcome::Failed(Errno::EACCES);
        if refused {
            ensure!(SystemTime::now() >= earliest, "it is denied again before the time is over");
            return Ok(());
        }
        ensure!(before < latest, "it is not denied again although the time is over");
    }
}

fn a_mode_outlives_a_new_bundle_a_kill_and_a_restart(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("mode-stays", &bundle(1, "monitor"))?;
    let directory = daemon.directory().to_owned();
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_allowed(&second())?;
    // Nothing is widened: nobody has to say why.
    mode(&daemon, &["enforce", "agent", "--for", "1h"])?;
    puppet.is_refused(&second())?;
    puppet.is_allowed(&first())?;
    let screen = output(&mut daemon.control(&["status"]))?;
    let screen = String::from_utf8_lossy(&screen.stdout).into_owned();
    ensure!(screen.contains("agent: enforce until") && screen.contains("then monitor"), "{screen}");
    // Another bundle, which says monitor as well.
    ends_with(&apply(&daemon, &bundle(2, "monitor"), "next")?, 0)?;
    puppet.is_refused(&second())?;
    puppet.end()?;
    kill(daemon.pid(), Signal::SIGKILL).context("kill the daemon")?;
    drop(daemon);

    let daemon = spawn(&directory)?.ready()?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&second())?;
    let agent = status(&daemon)?;
    ensure!(agent["mode"] == "enforce" && agent["bundle_mode"] == "monitor", "{agent}");
    let back = mode(&daemon, &["bundle", "agent", "--reason", "done", "--yes"])?;
    ensure!(back["mode"] == "monitor" && back["until"].is_null(), "{back}");
    puppet.is_allowed(&second())?;
    eventually("what would be denied is remembered", || {
        let rows = crate::store::remembered(&daemon, &["--subject", "agent", "--verdict", "would-deny"])?;
        Ok(rows.iter().any(|row| row["resource"]["path"] == second().to_string_lossy().as_ref()))
    })?;
    puppet.end()?;
    daemon.stop().map(drop)
}

fn what_denies_less_wants_a_reason_and_a_yes(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("mode-asks", &bundle(1, "enforce"))?;
    let mut puppet = Puppet::start(AGENT)?;
    for arguments in [
        &["monitor", "agent", "--for", "1h", "--yes"][..],
        &["monitor", "agent", "--for", "1h", "--reason", "x"],
        &["monitor", "nobody", "--for", "1h", "--reason", "x", "--yes"],
        &["monitor", "agent", "--reason", "x", "--yes"],
        &["enforce", "agent", "--for", "soon"],
        &["bundle", "agent", "--for", "1h"],
    ] {
        let mut command = daemon.control(&["mode"]);
        let result = output(command.args(arguments).stdin(Stdio::null()))?;
        ends_with(&result, 6).with_context(|| arguments.join(" "))?;
        puppet.is_refused(&second())?;
        ensure!(status(&daemon)?["mode_set"].is_null(), "{}: a mode is set", arguments.join(" "));
    }
    // To enforce for a while what the bundle monitors, and to stop that before its time.
    ends_with(&apply(&daemon, &bundle(2, "monitor"), "monitor")?, 0)?;
    mode(&daemon, &["enforce", "agent", "--for", "1h"])?;
    for sooner in [&["bundle", "agent"][..], &["enforce", "agent", "--for", "1m"]] {
        let mut command = daemon.control(&["mode"]);
        let result = output(command.args(sooner).stdin(Stdio::null()))?;
        ends_with(&result, 6).with_context(|| sooner.join(" "))?;
        puppet.is_refused(&second())?;
    }
    mode(&daemon, &["enforce", "agent", "--for", "2h"])?;
    puppet.end()?;
    daemon.stop().map(drop)
}
