//! Leases, requests for them, and facts: what was granted or is known counts from the next operation on, and
//! ends on time with nobody's help.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::attempt::{Outcome, attempt, eventually};
use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::{BASE, Daemon, configure, spawn};
use crate::family::{Part, tests};
use crate::http;
use crate::layout::path;
use crate::lifecycle::{apply, ends_with, output, prepare};
use crate::puppet::Puppet;
use crate::raw;
use crate::users::AGENT;

pub(crate) const PART: Part = Part {
    name: "leases",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            a_lease_admits_until_its_deadline_with_the_agent_dead,
            a_revocation_counts_at_once_and_what_was_decided_survives_a_kill,
            who_may_not_approve_grants_nothing,
            whoever_runs_below_a_labelled_process_grants_nothing,
            a_subject_asks_and_people_answer,
            a_fact_counts_until_it_ends_or_is_taken_back,
            what_the_agent_finds_out_by_itself_counts_and_nobody_else_says_it,
        ],
    ),
};

/// The fixture in which the subject may reach the self-service socket.
const ASKS: &str = "leases-ask";

fn file() -> PathBuf {
    path("flip/first")
}

/// `agent` may read a file while a lease lives, and another one while it is trusted.
fn bundle(version: u64, approvals: &str) -> Bundle {
    let condition = format!("{} && context.leases.contains(\"change\")", within(&[file()]));
    let trusted = format!(
        "{} && context.posture has trust && context.posture.trust >= 3",
        within(&[path("flip/second")])
    );
    let socket = format!("resource == Guard::Unix::\"{BASE}/{ASKS}/run/self.sock\"");
    Bundle::new("leases")
        .version(version)
        .toml(&format!(
            "[facts]\ntrust = {{ type = \"long\", source = \"edr\", ttl = \"1h\" }}\n[approvals]\n{approvals}\n"
        ))
        .subject("agent", "user = \"agent\"")
        .policy(
            "agent",
            permit("change", "agent", &["file.read"], &condition)
                + &permit("trusted", "agent", &["file.read"], &trusted)
                + &permit("socket", "agent", &["unix.connect"], &socket),
        )
}

const BY_ROOT: &str = "change = { approvers = [\"user:root\"], max = \"1h\" }";

fn start(name: &str, approvals: &str) -> Result<Daemon> {
    Daemon::start(name, &bundle(1, approvals))
}

/// Grants the lease; its number.
fn grant(daemon: &Daemon, length: &str) -> Result<i64> {
    let arguments =
        ["lease", "grant", "change", "--subject", "agent", "--for", length, "--reason", "INC-1", "--json"];
    let granted = output(&mut daemon.control(&arguments))?;
    ends_with(&granted, 0)?;
    let lease: Value = serde_json::from_slice(&granted.stdout).context("the lease is JSON")?;
    lease["id"].as_i64().with_context(|| format!("no number: {lease}"))
}

fn a_lease_admits_until_its_deadline_with_the_agent_dead(case: &Case<'_>) -> Result<()> {
    let directory = configure("leases-dead", &bundle(1, BY_ROOT))?;
    let daemon = spawn(&directory)?.ready()?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&file())?;
    const LASTS: Duration = Duration::from_secs(10);
    let before = Instant::now();
    grant(&daemon, "10s")?;
    let after = Instant::now();
    puppet.is_allowed(&file()).context("once it is granted")?;
    // Nobody is there who could end it.
    drop(daemon);
    let (mut admitted, mut refused) = (0u64, 0u64);
    while refused < if case.full { 100_000 } else { 1000 } {
        let (begun, outcome, done) = (Instant::now(), puppet.read(&file())?, Instant::now());
        match outcome {
            Outcome::Worked => {
                ensure!(begun < after + LASTS, "admitted {:?} after the lease", begun - (after + LASTS));
                admitted += 1;
            }
            Outcome::Failed(Errno::EACCES) => {
                ensure!(done > before + LASTS, "refused {:?} before its end", before + LASTS - done);
                refused += 1;
            }
            other => anyhow::bail!("neither: {other:?}"),
        }
    }
    println!("  {admitted} reads admitted, then {refused} refused");
    ensure!(admitted > 0, "nothing was admitted");
    // The next agent does not revive it.
    let daemon = spawn(&directory)?.ready()?;
    puppet.is_refused(&file()).context("under the next agent")?;
    let listed = output(&mut daemon.control(&["lease", "list"]))?;
    ensure!(String::from_utf8_lossy(&listed.stdout).contains("no leases"), "it is listed: {listed:?}");
    drop(daemon);
    puppet.end()
}

fn a_revocation_counts_at_once_and_what_was_decided_survives_a_kill(case: &Case<'_>) -> Result<()> {
    let directory = configure("leases-kill", &bundle(1, BY_ROOT))?;
    let daemon = spawn(&directory)?.ready()?;
    let mut puppet = Puppet::start(AGENT)?;
    let rounds = if case.full { 200 } else { 20 };
    for _ in 0..rounds {
        let (status, lease) = daemon.request(
            "POST",
            "/v1/leases",
            &json!({ "name": "change", "subject": "agent", "seconds": 600 }).to_string(),
        )?;
        ensure!(status == 200, "{status}: {lease}");
        puppet.is_allowed(&file()).context("once it is granted")?;
        let id = serde_json::from_str::<Value>(&lease).context("JSON")?["id"].as_i64().context("a number")?;
        let (status, answer) = daemon.request("POST", &format!("/v1/leases/{id}/revoke"), "{}")?;
        ensure!(status == 200, "{status}: {answer}");
        puppet.is_refused(&file()).context("once it is revoked")?;
    }
    case.tried(rounds);
    // Two by one name: the other one still counts when one ends.
    let (one, two) = (grant(&daemon, "30m")?, grant(&daemon, "40m")?);
    ends_with(&output(&mut daemon.control(&["lease", "revoke", &two.to_string()]))?, 0)?;
    puppet.is_allowed(&file()).context("by the other lease")?;
    // A new policy keeps it, and so does another agent.
    ends_with(&apply(&daemon, &bundle(2, BY_ROOT), "next")?, 0)?;
    puppet.is_allowed(&file()).context("under the next policy")?;
    drop(daemon);
    puppet.end()?;
    let daemon = spawn(&directory)?.ready()?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_allowed(&file()).context("under the next agent")?;
    ends_with(&output(&mut daemon.control(&["lease", "renew", &one.to_string(), "--for", "5m"]))?, 0)?;
    puppet.is_allowed(&file()).context("renewed")?;
    ends_with(&output(&mut daemon.control(&["lease", "revoke", &one.to_string()]))?, 0)?;
    puppet.is_refused(&file())?;
    drop(daemon);
    puppet.end()?;
    // What was revoked stays so through a kill as well.
    let daemon = spawn(&directory)?.ready()?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&file()).context("after a kill")?;
    let all = output(&mut daemon.control(&["lease", "list", "--all", "--json"]))?;
    let all: Value = serde_json::from_slice(&all.stdout).context("JSON")?;
    let ended = all["leases"].as_array().context("a list")?.iter().filter(|lease| !lease["ended"].is_null());
    ensure!(ended.count() as u64 == rounds + 2, "not all that was revoked is remembered: {all}");
    puppet.end()?;
    daemon.stop().map(drop)
}

fn who_may_not_approve_grants_nothing(_: &Case<'_>) -> Result<()> {
    let daemon = start(
        "leases-who",
        "change = { approvers = [\"group:games\"], max = \"1h\" }\nother = { approvers = [\"user:root\"], max = \"1h\" }\n",
    )?;
    let mut puppet = Puppet::start(AGENT)?;
    for (arguments, status, says) in [
        // Root, but nobody whom the bundle names.
        (["change", "--subject", "agent", "--for", "1m"], 5, "approvers are group games"),
        (["nope", "--subject", "agent", "--for", "1m"], 6, "change"),
        (["other", "--subject", "agent", "--for", "1m"], 6, "would change nothing"),
        (["change", "--subject", "nobody", "--for", "1m"], 6, "no subject nobody"),
        (["change", "--subject", "agent", "--for", "soon"], 6, "duration"),
    ] {
        let words: Vec<&str> = ["lease", "grant"].into_iter().chain(arguments).collect();
        let refused = output(&mut daemon.control(&words))?;
        ends_with(&refused, status)?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(said.contains(says), "{words:?}: {said}");
        puppet.is_refused(&file()).with_context(|| format!("after {words:?}"))?;
    }
    // The same by somebody who logged in as a member, and not for longer than allowed.
    ends_with(
        &apply(&daemon, &bundle(2, "change = { approvers = [\"user:0\"], max = \"1m\" }"), "short")?,
        0,
    )?;
    let long =
        output(&mut daemon.control(&["lease", "grant", "change", "--subject", "agent", "--for", "2m"]))?;
    ensure!(String::from_utf8_lossy(&long.stderr).contains("at most 60 s"), "{long:?}");
    puppet.is_refused(&file())?;
    grant(&daemon, "1m")?;
    puppet.is_allowed(&file())?;
    // What is used again by every read cannot be counted.
    let uses = "change = { approvers = [\"user:root\"], max = \"1h\", uses = 1, count = \"file.read\" }";
    let counted = apply(&daemon, &bundle(3, uses), "uses")?;
    ensure!(String::from_utf8_lossy(&counted.stderr).contains("cannot be counted"), "{counted:?}");
    ends_with(&output(&mut daemon.control(&["lease", "revoke", "999"]))?, 1)?;
    puppet.end()?;
    daemon.stop().map(drop)
}

fn whoever_runs_below_a_labelled_process_grants_nothing(_: &Case<'_>) -> Result<()> {
    let worker = permit("worker", "worker", &["*"], "true");
    let bundle = bundle(1, BY_ROOT).subject("worker", "adopt = [\"user:root\"]").policy("worker", worker);
    let daemon = Daemon::start("leases-below", &bundle)?;
    let (go, said) = (daemon.directory().join("go"), daemon.directory().join("said"));
    mkfifo(&go, Mode::S_IRWXU).context("make a fifo")?;
    // A shell starts a child, which waits, and becomes a session: the child has no label, and its parent has.
    let script = format!(
        "(read word <{go}; guardctl --socket {admin} lease grant change --subject agent >{said} 2>&1; echo done >>{said}) &\n\
         exec guardctl --socket {own} run --as worker -- cat",
        go = go.display(),
        said = said.display(),
        admin = daemon.socket().display(),
        own = daemon.directory().join("run/self.sock").display(),
    );
    let mut parent = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("start a shell")?;
    eventually("the parent is in a session", || {
        let sessions = output(&mut daemon.control(&["sessions", "--json"]))?;
        Ok(String::from_utf8_lossy(&sessions.stdout).contains("\"worker\""))
    })?;
    fs::write(&go, "go\n").context("let the child go on")?;
    let mut text = String::new();
    eventually("the child has an answer", || {
        text = fs::read_to_string(&said).unwrap_or_default();
        Ok(text.ends_with("done\n"))
    })?;
    ensure!(text.contains("subject to policy"), "{text}");
    // The control: the same root, elsewhere.
    grant(&daemon, "1m")?;
    drop(parent.stdin.take());
    parent.wait().context("wait for the parent")?;
    daemon.stop().map(drop)
}

/// One exchange at the self-service socket, by whoever runs.
fn own(daemon: &Daemon, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
    let socket = daemon.directory().join("run/self.sock");
    http::exchange(UnixStream::connect(socket)?, method, path, body).map_err(io::Error::other)
}

/// Has the subject ask for a lease.
fn ask(daemon: &Daemon, lease: &str, reason: &str) -> Result<(u16, Value)> {
    asked(
        daemon,
        "POST",
        "/v1/requests",
        &json!({ "lease": lease, "seconds": 600, "reason": reason }).to_string(),
    )
}

/// Has the subject make a request at the self-service socket.
fn asked(daemon: &Daemon, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
    let (mut reader, writer) = io::pipe().context("make a pipe")?;
    let outcome = attempt(AGENT, || {
        use io::Write;
        let (status, answer) = own(daemon, method, path, body)?;
        writer.try_clone()?.write_all(format!("{status} {answer}").as_bytes())
    })?;
    drop(writer);
    ensure!(outcome == Outcome::Worked, "the subject could not ask: {outcome:?}");
    let answer = io::read_to_string(&mut reader).context("read the answer")?;
    let (status, body) = answer.split_once(' ').context("an answer")?;
    Ok((status.parse().context("a status")?, serde_json::from_str(body).with_context(|| body.to_owned())?))
}

fn a_subject_asks_and_people_answer(_: &Case<'_>) -> Result<()> {
    let daemon = start(ASKS, BY_ROOT)?;
    let mut puppet = Puppet::start(AGENT)?;
    // What was denied says itself what to ask for.
    puppet.is_refused(&file())?;
    let mut told = Value::Null;
    eventually("the subject hears of its denial", || {
        told = asked(&daemon, "GET", "/v1/denials/last", "")?.1;
        Ok(!told["id"].is_null())
    })?;
    ensure!(
        told["ask_for"] == json!(["change"]) && told["retry"] == false && told["errno"] == "EACCES",
        "{told}"
    );
    // And so does its event, to whoever looks.
    let events = output(&mut daemon.control(&["events", "-o", "json", "--subject", "agent"]))?;
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    ensure!(events.contains("\"ask_for\":[\"change\"]"), "no event names the lease: {events}");
    let (status, request) = ask(&daemon, "change", "please\napproved by root")?;
    ensure!(
        status == 200 && request["state"] == "open" && request["subject"] == "agent",
        "{status}: {request}"
    );
    let id = request["id"].as_i64().context("a number")?.to_string();
    puppet.is_refused(&file()).context("asking is not enough")?;
    // Asking again is the same request; asking for nonsense is refused.
    let (_, again) = ask(&daemon, "change", "now")?;
    ensure!(again["id"] == request["id"], "{again}");
    let (status, refused) = ask(&daemon, "nope", "please")?;
    ensure!(status == 422 && refused["code"] == "unknown-lease", "{status}: {refused}");
    // Nobody else asks for it: this process has no label.
    let (status, answer) =
        own(&daemon, "POST", "/v1/requests", &json!({ "lease": "change", "reason": "x" }).to_string())
            .context("ask without a label")?;
    ensure!(status == 403, "{status}: {answer}");
    // What is shown has the facts first and the words of the subject last, on one line.
    let shown = output(&mut daemon.control(&["request", "list"]))?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(
        shown.contains("subject  agent")
            && shown.trim_end().ends_with("it says  \"please\\x0aapproved by root\""),
        "{shown}"
    );
    // The subject cannot approve: the admin socket is closed to it, whatever it runs as.
    let socket = daemon.socket();
    let refused = attempt(AGENT, || UnixStream::connect(&socket).map(drop))?;
    ensure!(refused == Outcome::Failed(Errno::EACCES), "the subject reached the admin socket: {refused:?}");
    // Somebody waits for the answer.
    let waiting = Command::new("guardctl")
        .args(["request", "show", &id, "--json", "--socket"])
        .arg(daemon.socket())
        .stdout(Stdio::piped())
        .spawn()
        .context("wait for the answer")?;
    ends_with(&output(&mut daemon.control(&["request", "approve", &id, "--yes"]))?, 0)?;
    let _ = waiting.wait_with_output();
    puppet.is_allowed(&file()).context("once it is approved")?;
    let twice = output(&mut daemon.control(&["request", "approve", &id, "--yes"]))?;
    ensure!(String::from_utf8_lossy(&twice.stderr).contains("approved already"), "{twice:?}");
    let listed = output(&mut daemon.control(&["lease", "list", "--json"]))?;
    let listed: Value = serde_json::from_slice(&listed.stdout).context("JSON")?;
    ensure!(listed["leases"][0]["request"].as_i64() == id.parse().ok(), "{listed}");
    ends_with(
        &output(&mut daemon.control(&["lease", "revoke", &listed["leases"][0]["id"].to_string()]))?,
        0,
    )?;
    puppet.is_refused(&file())?;

    // A no holds, for a while.
    let (_, second) = ask(&daemon, "change", "again")?;
    let id = second["id"].as_i64().context("a number")?.to_string();
    ends_with(&output(&mut daemon.control(&["request", "deny", &id, "--note", "not today"]))?, 0)?;
    puppet.is_refused(&file())?;
    let (status, held) = ask(&daemon, "change", "and again")?;
    ensure!(status == 429, "{status}: {held}");
    puppet.end()?;
    daemon.stop().map(drop)
}

fn a_fact_counts_until_it_ends_or_is_taken_back(_: &Case<'_>) -> Result<()> {
    let directory = configure("facts", &bundle(1, BY_ROOT))?;
    let daemon = spawn(&directory)?.ready()?;
    let second = path("flip/second");
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&second).context("while it is absent")?;
    let set = |daemon: &Daemon, words: &[&str]| -> Result<std::process::Output> {
        let all: Vec<&str> = ["posture", "set"].into_iter().chain(words.iter().copied()).collect();
        output(&mut daemon.control(&all))
    };
    ends_with(&set(&daemon, &["trust=3", "--source", "edr"])?, 0)?;
    puppet.is_allowed(&second).context("of the host")?;
    // What is said of the subject counts before what is said of the host.
    ends_with(&set(&daemon, &["trust=1", "--subject", "agent", "--source", "edr"])?, 0)?;
    puppet.is_refused(&second).context("of the subject")?;
    ends_with(&output(&mut daemon.control(&["posture", "unset", "trust", "--subject", "agent"]))?, 0)?;
    puppet.is_allowed(&second).context("taken back")?;
    for (words, says) in [
        (["trust=high", "--source", "edr"], "whole number"),
        (["trust=3", "--source", "me"], "is to come from"),
        (["speed=3", "--source", "edr"], "it has: trust"),
    ] {
        let refused = set(&daemon, &words)?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(!refused.status.success() && said.contains(says), "{words:?}: {said}");
    }
    puppet.is_allowed(&second).context("after refused facts")?;
    drop(daemon);
    puppet.end()?;

    let daemon = spawn(&directory)?.ready()?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_allowed(&second).context("under the next agent")?;
    // A short one ends by itself, with the agent stopped.
    ends_with(&set(&daemon, &["trust=5", "--source", "edr", "--for", "3s"])?, 0)?;
    let told = Instant::now();
    kill(daemon.pid(), Signal::SIGSTOP).context("stop the daemon")?;
    let ended = eventually("the fact ends", || Ok(puppet.read(&second)? == Outcome::Failed(Errno::EACCES)));
    kill(daemon.pid(), Signal::SIGCONT).context("let the daemon go on")?;
    ended?;
    ensure!(told.elapsed() > Duration::from_secs(2), "it ended after {:?}", told.elapsed());
    let shown = output(&mut daemon.control(&["posture", "get", "trust"]))?;
    ensure!(!shown.status.success(), "it is still shown: {shown:?}");
    // A file that appears whole is read; one that says nothing true changes nothing and is kept aside.
    let spool = directory.join("state/facts");
    let drop_in = |name: &str, text: &str| -> Result<()> {
        let written = spool.join(format!("{name}.new"));
        fs::write(&written, text).context("write a file of facts")?;
        fs::rename(&written, spool.join(format!("{name}.json"))).context("rename it")
    };
    drop_in("edr", "{\"facts\":[{\"name\":\"trust\",\"value\":4,\"source\":\"edr\"}]}")?;
    eventually("the file counts", || Ok(puppet.read(&second)? == Outcome::Worked))?;
    eventually("the file is gone", || Ok(!spool.join("edr.json").exists()))?;
    drop_in("bad", "{\"facts\":[{\"name\":\"trust\",\"value\":\"high\",\"source\":\"edr\"}]}")?;
    eventually("the bad file is put aside", || Ok(spool.join("bad.refused").exists()))?;
    puppet.is_allowed(&second).context("after a bad file")?;
    let log = fs::read_to_string(directory.join("log")).context("read the log")?;
    ensure!(log.contains("a fact was set") && log.contains("whole number"), "{log}");
    puppet.end()?;
    daemon.stop().map(drop)
}

fn what_the_agent_finds_out_by_itself_counts_and_nobody_else_says_it(_: &Case<'_>) -> Result<()> {
    let condition = format!("{} && context.posture has right && context.posture.right", within(&[file()]));
    let bundle = Bundle::new("collectors")
        .toml("[facts]\nright = { type = \"bool\", source = \"collector:clock\" }\n")
        .subject("agent", "user = \"agent\"")
        .policy("agent", permit("right", "agent", &["file.read"], &condition));
    // A clock that is set is not known to be right.
    raw::shift_clock(0).context("set the clock")?;
    let daemon = Daemon::start("collectors", &bundle)?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&file()).context("while the clock is not right")?;
    let forged =
        output(&mut daemon.control(&["posture", "set", "right=true", "--source", "collector:clock"]))?;
    let said = String::from_utf8_lossy(&forged.stderr).into_owned();
    ensure!(!forged.status.success() && said.contains("by itself"), "{said}");
    puppet.is_refused(&file()).context("after somebody said so")?;
    raw::synchronise().context("call the clock right")?;
    eventually("the clock is right", || Ok(puppet.read(&file())? == Outcome::Worked))?;
    let shown = output(&mut daemon.control(&["posture", "get", "right"]))?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(shown.contains("right = true") && shown.contains("collector:clock"), "{shown}");
    raw::shift_clock(0).context("set the clock")?;
    eventually("the clock is not right", || Ok(puppet.read(&file())? == Outcome::Failed(Errno::EACCES)))?;
    puppet.end()?;
    daemon.stop().map(drop)
}
