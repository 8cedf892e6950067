//! Changing the policy while processes run: what takes effect when, and what is refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};

use crate::attempt::{Outcome, attempt, eventually};
use crate::bundle::{Bundle, permit, within};
use crate::case::{Case, refusal};
use crate::daemon::{Daemon, spawn};
use crate::family::{Part, tests};
use crate::file::read;
use crate::layout::{self, ROOT, canary, path};
use crate::puppet::Puppet;
use crate::users::{AGENT, Identity};

pub(crate) const PART: Part = Part {
    name: "lifecycle",
    bundle: Ok,
    prepare,
    tests: tests!(
        smoke: [applying_a_bundle_decides_the_next_system_call],
        others: [
            a_hangup_signal_reloads_the_bundle,
            a_link_that_root_moves_means_its_new_target_by_itself,
            a_mode_set_for_a_time_ends_by_itself_with_the_agent_stopped,
            an_invalid_bundle_leaves_the_running_policy_untouched,
            a_second_daemon_is_refused,
            an_account_that_is_created_later_is_confined_by_itself,
            denials_are_followed_by_the_client,
            the_status_tells_what_is_enforced,
            when_the_daemon_has_stopped_nothing_is_refused,
        ],
    ),
};

/// Makes the files that [`small`] speaks of.
pub(crate) fn prepare() -> Result<()> {
    layout::create()?;
    for name in ["first", "second", "both"] {
        layout::file(&path("flip").join(name), b"content\n")?;
    }
    Ok(())
}

/// A bundle that lets `agent` do something with some files below `flip`.
pub(crate) fn small(version: u64, permits: &[(&[&str], &str)]) -> Bundle {
    let mut policy = String::new();
    for (number, (actions, name)) in permits.iter().enumerate() {
        policy += &permit(&format!("p{number}"), "agent", actions, &within(&[path("flip").join(name)]));
    }
    Bundle::new("small").version(version).subject("agent", "user = \"agent\"").policy("small", policy)
}

pub(crate) const READ: &[&str] = &["file.read"];

pub(crate) fn first() -> PathBuf {
    path("flip/first")
}

pub(crate) fn second() -> PathBuf {
    path("flip/second")
}

/// Runs a client command; its output.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))
}

/// It must end with this status.
pub(crate) fn ends_with(output: &Output, status: i32) -> Result<()> {
    ensure!(
        output.status.code() == Some(status),
        "the exit status should be {status}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Has the client apply a bundle.
pub(crate) fn apply(daemon: &Daemon, bundle: &Bundle, name: &str) -> Result<Output> {
    let directory = bundle.write(&daemon.directory().join(name))?;
    output(&mut daemon.control(&["policy", "apply", &directory.display().to_string()]))
}

fn applying_a_bundle_decides_the_next_system_call(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("apply", &small(1, &[(READ, "first")]))?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_allowed(&first())?;
    puppet.is_refused(&second())?;
    for round in 0..3 {
        ends_with(&apply(&daemon, &small(2 + 2 * round, &[(READ, "second")]), "b")?, 0)?;
        puppet.is_refused(&first())?;
        puppet.is_allowed(&second())?;
        ends_with(&apply(&daemon, &small(3 + 2 * round, &[(READ, "first")]), "a")?, 0)?;
        puppet.is_allowed(&first())?;
        puppet.is_refused(&second())?;
    }
    puppet.end()?;
    daemon.stop().map(drop)
}

fn a_hangup_signal_reloads_the_bundle(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("hangup", &small(1, &[(READ, "first")]))?;
    let bundle = daemon.directory().join("bundle");
    small(2, &[(READ, "second")]).write(&bundle)?;
    kill(daemon.pid(), Signal::SIGHUP).context("signal the daemon")?;
    eventually("the second is allowed", || Ok(attempt(AGENT, || read(second()))? == Outcome::Worked))?;
    Puppet::start(AGENT)?.is_refused(&first())?;
    // An invalid bundle changes nothing, and the daemon goes on.
    fs::write(bundle.join("small.cedar"), "permit (nonsense").context("spoil the bundle")?;
    kill(daemon.pid(), Signal::SIGHUP).context("signal the daemon")?;
    ends_with(&output(&mut daemon.control(&["status"]))?, 0)?;
    Puppet::start(AGENT)?.is_allowed(&second())?;
    small(3, &[(READ, "first")]).write(&bundle)?;
    kill(daemon.pid(), Signal::SIGHUP).context("signal the daemon")?;
    eventually("the first is allowed", || Ok(attempt(AGENT, || read(first()))? == Outcome::Worked))?;
    daemon.stop().map(drop)
}

fn a_mode_set_for_a_time_ends_by_itself_with_the_agent_stopped(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("mode", &small(1, &[(READ, "first")]))?;
    let mut puppet = Puppet::start(AGENT)?;
    let set = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["mode"].into_iter().chain(arguments.iter().copied()).collect();
        output(&mut daemon.control(&arguments))
    };
    puppet.is_refused(&second())?;
    ends_with(&set(&["monitor", "agent", "--for", "1h"])?, 6)?;
    ends_with(&set(&["monitor", "nobody", "--for", "1h", "--reason", "test", "--yes"])?, 6)?;
    puppet.is_refused(&second())?;
    // More often than there are slots.
    for _ in 0..6 {
        ends_with(&set(&["monitor", "agent", "--for", "1h", "--reason", "test", "--yes"])?, 0)?;
        puppet.is_allowed(&second())?;
        ends_with(&set(&["bundle", "agent"])?, 0)?;
        puppet.is_refused(&second())?;
        puppet.is_allowed(&first())?;
    }
    // Another bundle does not end it.
    ends_with(&set(&["monitor", "agent", "--for", "1h", "--reason", "test", "--yes"])?, 0)?;
    ends_with(&apply(&daemon, &small(2, &[(READ, "first")]), "again")?, 0)?;
    puppet.is_allowed(&second())?;
    ends_with(&set(&["monitor", "agent", "--for", "5s", "--reason", "test", "--yes"])?, 0)?;
    puppet.is_allowed(&second())?;
    kill(daemon.pid(), Signal::SIGSTOP).context("stop the daemon")?;
    let ended = eventually("the mode ends", || Ok(puppet.read(&second())? == Outcome::Failed(Errno::EACCES)));
    kill(daemon.pid(), Signal::SIGCONT).context("let the daemon go on")?;
    ended?;
    puppet.is_allowed(&first())?;
    puppet.end()?;
    daemon.stop().map(drop)
}

fn a_link_that_root_moves_means_its_new_target_by_itself(_: &Case<'_>) -> Result<()> {
    // Where only root can make links.
    const LINK: &str = "/srv/guard-tests-link";
    let lead = |to: PathBuf| -> Result<()> {
        const NEW: &str = "/srv/guard-tests-new";
        symlink(to, NEW).and_then(|()| fs::rename(NEW, LINK)).context("move the link")
    };
    lead(first())?;
    let bundle = Bundle::new("small").version(1).subject("agent", "user = \"agent\"");
    let bundle = bundle.policy("small", permit("p", "agent", READ, &within(&[LINK])));
    let daemon = Daemon::start("link", &bundle)?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_allowed(&first())?;
    puppet.is_refused(&second())?;
    lead(second())?;
    eventually("the new target is allowed", || Ok(puppet.read(&second())? == Outcome::Worked))?;
    puppet.is_refused(&first())?;
    // Through nothing, nothing is meant but the name itself.
    fs::remove_file(LINK).context("remove the link")?;
    let refused = || Ok(puppet.read(&second())? == Outcome::Failed(Errno::EACCES));
    eventually("what is no target any more is refused", refused)?;
    puppet.end()?;
    daemon.stop().map(drop)
}

fn an_account_that_is_created_later_is_confined_by_itself(_: &Case<'_>) -> Result<()> {
    const LATE: Identity = Identity::new("latecomer", 2777);
    let bundle = Bundle::new("small").version(1).subject("agent", "user = \"latecomer\"");
    let bundle = bundle.policy("small", permit("p", "agent", READ, &within(&[first()])));
    let daemon = Daemon::start("latecomer", &bundle)?;
    ensure!(attempt(LATE, || read(second()))? == Outcome::Worked, "nobody is called so yet");
    let before = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    let line = format!("{}:x:{uid}:{uid}::/:/bin/sh\n", LATE.name, uid = LATE.uid);
    fs::write("/etc/passwd", before.clone() + &line).context("write /etc/passwd")?;
    let refused = || Ok(attempt(LATE, || read(second()))? == Outcome::Failed(Errno::EACCES));
    let confined = eventually("the account is confined", refused);
    let allowed = attempt(LATE, || read(first()));
    fs::write("/etc/passwd", before).context("restore /etc/passwd")?;
    confined?;
    ensure!(allowed? == Outcome::Worked, "what is permitted is allowed");
    daemon.stop().map(drop)
}

fn an_invalid_bundle_leaves_the_running_policy_untouched(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("invalid", &small(1, &[(READ, "first")]))?;
    let mut puppet = Puppet::start(AGENT)?;
    let agent = layout::which("guard-agent")?.display().to_string();
    let bad = [
        ("parse", small(2, &[]).policy("bad", "\n  permit (principal, acton, resource);\n"), "bad.cedar:2:"),
        (
            "validate",
            small(2, &[]).policy("bad", permit("x", "agent", READ, "resource.nmae == \"x\"")),
            "bad.cedar:",
        ),
        ("key", small(2, &[]).toml("[subject.agent]\n"), "guard.toml:"),
        ("user root", small(2, &[]).subject("root", "user = \"root\""), "guard.toml:"),
        ("the agent", small(2, &[]).subject("itself", &format!("exe = \"{agent}\"")), "guard.toml:"),
    ];
    for (what, bundle, place) in bad {
        let result = apply(&daemon, &bundle, "bad")?;
        ends_with(&result, 6).context(what)?;
        let text = String::from_utf8_lossy(&result.stderr);
        ensure!(text.contains(place), "{what}: {place} is not named: {text}");
        ensure!(text.contains('^'), "{what}: nothing is underlined: {text}");
        puppet.is_allowed(&first()).context(what)?;
        puppet.is_refused(&second()).context(what)?;
    }
    let status = daemon.status()?;
    let version = status.pointer("/bundle/version").and_then(serde_json::Value::as_u64);
    ensure!(version == Some(1), "the live version should be 1: {status}");
    puppet.end()?;
    daemon.stop().map(drop)
}

fn a_second_daemon_is_refused(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("second", &small(1, &[(READ, "first")]))?;
    let (status, log) = spawn(daemon.directory())?.refused()?;
    ensure!(status.code() == Some(1), "the second daemon ended with {status}: {log}");
    ensure!(log.contains("another guard-agent"), "it does not say why: {log}");
    Puppet::start(AGENT)?.is_refused(&second())?;
    ends_with(&output(&mut daemon.control(&["status"]))?, 0)?;
    daemon.stop().map(drop)
}

fn denials_are_followed_by_the_client(case: &Case<'_>) -> Result<()> {
    use std::io::{BufRead, BufReader};
    let daemon = Daemon::start("follow", &small(1, &[(READ, "first")]))?;
    let mut client = daemon
        .control(&["events", "-f", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .context("start guardctl")?;
    let stdout = client.stdout.take().context("its output")?;
    let (lines, line) = std::io::pipe().context("make a pipe")?;
    // The client may need a moment to connect: denials are repeated until it has seen one.
    let reader = std::thread::spawn(move || {
        let (mut text, mut stdout) = (String::new(), BufReader::new(stdout));
        let result = stdout.read_line(&mut text).map(|_| text);
        drop(line);
        // Kept open: the client ends by itself when nobody reads what it writes.
        (result, stdout)
    });
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !reader.is_finished() && std::time::Instant::now() < deadline {
        Case::under(&daemon, case.full).refused(refusal(AGENT, "file.read"), || read(second()))?;
    }
    drop(lines);
    let _ = client.kill();
    let status = client.wait().context("wait for guardctl")?;
    ensure!(status.signal() == Some(Signal::SIGKILL as i32), "guardctl events -f ended by itself: {status}");
    let (text, _stdout) = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    let text = text.context("read its output")?;
    let event: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
    ensure!(event["schema"] == "guard.event/1" && event["subject"] == "agent", "another event: {text}");
    daemon.stop().map(drop)
}

fn the_status_tells_what_is_enforced(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("status", &small(7, &[(READ, "first")]))?;
    let before = daemon.status()?["counters"]["denied"].as_u64();
    Puppet::start(AGENT)?.is_refused(&second())?;
    let result = output(&mut daemon.control(&["status", "--json"]))?;
    ends_with(&result, 0)?;
    let status: serde_json::Value = serde_json::from_slice(&result.stdout).context("the status is JSON")?;
    ensure!(status["schema"] == "guard.status/1" && status["state"] == "enforcing", "{status}");
    ensure!(status["bundle"]["version"] == 7 && status["subjects"][0]["name"] == "agent", "{status}");
    ensure!(status["counters"]["denied"].as_u64() > before, "no denial was counted: {status}");
    let programs = status["programs"].as_array().context("programs")?;
    // The iterator that labels running tasks is run when it is needed, not attached.
    let mut attached = programs
        .iter()
        .filter(|program| !["label_running", "label_requested"].iter().any(|name| program["name"] == *name));
    ensure!(attached.all(|program| program["attached"] == true), "not all programs are attached: {status}");
    let text = output(&mut daemon.control(&["status"]))?;
    ensure!(String::from_utf8_lossy(&text.stdout).contains("enforcing"), "the screen does not say it");
    daemon.stop().map(drop)
}

fn when_the_daemon_has_stopped_nothing_is_refused(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start_apart("stopped", &small(1, &[(READ, "first")]))?;
    let control = |daemon: &Daemon| daemon.control(&["status"]);
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&canary(ROOT))?;
    let mut status = control(&daemon);
    daemon.stop()?;
    puppet.is_allowed(&canary(ROOT))?;
    ends_with(&output(&mut status)?, 3)?;
    puppet.end()
}
