//! Kernels that lack a hook: what is told, and what a subject gets that needs it. No supported kernel lacks
//! one of these hooks, so the daemon is made to leave it out.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::attempt::{Outcome, attempt};
use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::{Daemon, FAULT, configure_apart, spawn};
use crate::family::{Part, tests};
use crate::file::read;
use crate::layout::{self, ROOT, canary, path};
use crate::lifecycle::{ends_with, output};
use crate::users::AGENT;

pub(crate) const PART: Part = Part {
    name: "coverage",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            what_is_attached_is_told_action_by_action,
            what_a_kernel_lacks_is_told_and_the_rest_is_enforced,
            a_subject_is_denied_all_where_that_is_wanted,
            a_bundle_is_refused_where_that_is_wanted,
        ],
    ),
};

/// The hook that is left out, and the action that it decides.
const HOOK: &str = "unix_may_send";
const ACTION: &str = "unix.send";

fn socket() -> PathBuf {
    path("open/datagrams")
}

fn prepare() -> Result<()> {
    layout::create()?;
    let _ = fs::remove_file(socket());
    std::mem::forget(UnixDatagram::bind(socket()).context("bind a datagram socket")?);
    layout::mode(&socket(), 0o666)
}

/// A bundle whose subject may read but not send, and wants this on such a kernel.
fn bundle(unenforceable: &str) -> Bundle {
    Bundle::new("coverage")
        .toml(&format!(
            "[subjects.agent]\nselector = {{ user = \"agent\" }}\ngoverns = [\"read\", \"unix.send\"]\n\
             unenforceable = \"{unenforceable}\"\n"
        ))
        .policy("open", permit("open", "agent", &["file.read"], &within(&[path("open")])))
}

fn lacking(unenforceable: &str) -> Result<crate::daemon::Starting> {
    let directory = configure_apart("coverage", &bundle(unenforceable))?;
    fs::write(directory.join(FAULT), format!("hook {HOOK}")).context("leave out a hook")?;
    spawn(&directory)
}

/// What `guardctl coverage` answers, with this exit status.
fn coverage(daemon: &Daemon, status: i32) -> Result<Value> {
    let result = output(&mut daemon.control(&["coverage", "--json"]))?;
    ends_with(&result, status)?;
    serde_json::from_slice(&result.stdout).context("the coverage is no JSON")
}

fn of<'a>(report: &'a Value, action: &str) -> Result<&'a Value> {
    let actions = report.get("actions").and_then(Value::as_array).context("there are actions")?;
    actions.iter().find(|found| found["action"] == action).with_context(|| format!("nothing of {action}"))
}

fn send() -> std::io::Result<()> {
    UnixDatagram::unbound()?.send_to(b"x", socket()).map(drop)
}

fn what_is_attached_is_told_action_by_action(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("coverage", &bundle("accept"))?;
    let report = coverage(&daemon, 0)?;
    for (action, hook) in
        [("exec", "bprm_creds_for_exec"), ("unix.connect", "unix_stream_connect"), (ACTION, HOOK)]
    {
        let found = of(&report, action)?;
        ensure!(found["coverage"] == "enforced" || found["coverage"] == "partly", "{action}: {found}");
        let hooks = found["hooks"].as_array().context("there are hooks")?;
        ensure!(
            hooks.iter().any(|name| name == hook),
            "{action} is not said to be decided by {hook}: {found}"
        );
    }
    let refused = attempt(AGENT, send)?;
    ensure!(refused == Outcome::Failed(nix::errno::Errno::EACCES), "sending should be refused: {refused:?}");
    ensure!(daemon.status()?["state"] == "enforcing", "the state is {}", daemon.status()?["state"]);
    daemon.stop().map(drop)
}

fn what_a_kernel_lacks_is_told_and_the_rest_is_enforced(_: &Case<'_>) -> Result<()> {
    let daemon = lacking("accept")?.ready()?;
    let report = coverage(&daemon, 4)?;
    let found = of(&report, ACTION)?;
    ensure!(found["coverage"] == "not-on-this-kernel", "{found}");
    ensure!(found["why"].to_string().contains(HOOK), "{found}");
    ensure!(report["subjects"][0]["unenforceable"][0] == ACTION, "{report}");
    let status = daemon.status()?;
    let degraded = status["degraded"].to_string();
    ensure!(status["state"] == "degraded" && degraded.contains(ACTION), "degraded: {degraded}");
    // It is as it is said to be.
    let sent = attempt(AGENT, send)?;
    ensure!(sent == Outcome::Worked, "nothing should have refused sending: {sent:?}");
    let read_secret = attempt(AGENT, || read(canary(ROOT)))?;
    ensure!(read_secret == Outcome::Failed(nix::errno::Errno::EACCES), "reading a secret: {read_secret:?}");
    let read_notes = attempt(AGENT, || read(path("open/notes")))?;
    ensure!(read_notes == Outcome::Worked, "reading what is permitted: {read_notes:?}");
    daemon.stop().map(drop)
}

fn a_subject_is_denied_all_where_that_is_wanted(_: &Case<'_>) -> Result<()> {
    let daemon = lacking("deny")?.ready()?;
    let mark = daemon.events.mark()?;
    let outcome = attempt(AGENT, || read(path("open/notes")))?;
    ensure!(outcome == Outcome::Failed(nix::errno::Errno::EACCES), "reading what is permitted: {outcome:?}");
    let seconds = std::time::Duration::from_secs(20);
    daemon
        .events
        .wait(mark, seconds, "the denial", |event| event.is_denial() && event.is_about("file.read"))?;
    let degraded = daemon.status()?["degraded"].to_string();
    ensure!(degraded.contains("all that it governs is denied"), "degraded: {degraded}");
    let why = output(&mut daemon.control(&["why", "--last", "agent"]))?;
    let text = String::from_utf8_lossy(&why.stdout).into_owned();
    ensure!(text.contains("generated/unenforceable@agent"), "why: {text}");
    daemon.stop().map(drop)
}

fn a_bundle_is_refused_where_that_is_wanted(_: &Case<'_>) -> Result<()> {
    let (status, log) = lacking("stop")?.refused()?;
    ensure!(status.code() == Some(6), "the daemon ended with {status}: {log}");
    ensure!(log.contains("unenforceable") && log.contains(ACTION), "the daemon says: {log}");
    Ok(())
}
