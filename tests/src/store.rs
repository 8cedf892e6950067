//! What the daemon remembers of events: through its own end, through spoilt files, and for people.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::attempt::{Outcome, eventually};
use crate::case::Case;
use crate::daemon::{Daemon, configure, spawn};
use crate::family::{Part, tests};
use crate::layout::path;
use crate::lifecycle::{apply, ends_with, output, prepare, small};
use crate::puppet::Puppet;
use crate::users::AGENT;

pub(crate) const PART: Part = Part {
    name: "store",
    bundle: Ok,
    prepare,
    tests: tests!(
        smoke: [denials_are_remembered_through_a_kill_of_the_agent],
        others: [
            a_spoilt_memory_is_set_aside_and_enforcement_goes_on,
            the_last_denials_before_a_stop_are_reported_and_remembered,
            events_are_chosen_by_what_is_asked_for,
            an_idle_agent_is_never_woken,
            a_malformed_request_is_refused_in_json,
        ],
    ),
};

const READ: &[&str] = &["file.read"];

fn second() -> PathBuf {
    path("flip/second")
}

/// What `guardctl events` has in JSON, with more arguments.
pub(crate) fn remembered(daemon: &Daemon, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut command = daemon.control(&["events", "-o", "json"]);
    let result = output(command.args(arguments))?;
    ends_with(&result, 0)?;
    let text = String::from_utf8(result.stdout).context("events are UTF-8")?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))).collect()
}

/// How often the file of standard output has an event of this id.
fn reported(daemon: &Daemon, id: &str) -> Result<usize> {
    let text = fs::read_to_string(daemon.directory().join("events.jsonl")).context("read the events")?;
    Ok(text.lines().filter(|line| line.contains(&format!("\"id\":\"{id}\""))).count())
}

/// The only row about `second`, once it counts to `count`.
fn row(daemon: &Daemon, count: u64) -> Result<Value> {
    let mut last = Value::Null;
    eventually("the denials are remembered", || {
        let rows = remembered(daemon, &["--subject", "agent", "--action", "file.read"])?;
        let name = second();
        let found: Vec<&Value> =
            rows.iter().filter(|row| row["resource"]["path"] == name.to_string_lossy().as_ref()).collect();
        ensure!(found.len() <= 1, "repeats are not one row: {rows:?}");
        last = found.first().map_or(Value::Null, |row| (*row).clone());
        Ok(last["seen"]["count"].as_u64() >= Some(count))
    })?;
    ensure!(last["seen"]["count"] == count, "not {count} times: {last}");
    Ok(last)
}

fn status(daemon: &Daemon) -> Result<Value> {
    let result = output(&mut daemon.control(&["status", "--json"]))?;
    serde_json::from_slice(&result.stdout).context("the status is JSON")
}

fn denials_are_remembered_through_a_kill_of_the_agent(_: &Case<'_>) -> Result<()> {
    let bundle = small(1, &[(READ, "first")]);
    let daemon = Daemon::start("remembered", &bundle)?;
    let directory = daemon.directory().to_owned();
    let mut puppet = Puppet::start(AGENT)?;
    for _ in 0..3 {
        puppet.is_refused(&second())?;
    }
    let before = row(&daemon, 3)?;
    let id = before["id"].as_str().context("an id")?.to_owned();
    ensure!(before["seen"]["bundle"]["version"] == 1, "the bundle is not known: {before}");
    ensure!(before["verdict"] == "denied" && before["errno"] == "EACCES", "{before}");
    let exe = before["seen"]["exe"].as_str().unwrap_or_default();
    ensure!(exe.ends_with("guard-tests"), "the executable is not known: {before}");
    ensure!(reported(&daemon, &id)? == 3, "standard output has another number");
    puppet.end()?;
    // Dropping it is SIGKILL.
    drop(daemon);

    let daemon = spawn(&directory)?.ready()?;
    let after = row(&daemon, 3)?;
    ensure!(after == before, "something was lost: {before} and {after}");
    ensure!(status(&daemon)?["store"]["set_aside"].is_null(), "the file was not usable after a kill");
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&second())?;
    let again = row(&daemon, 4)?;
    ensure!(again["id"] == id.as_str() && again["seen"]["first"] == before["seen"]["first"], "{again}");

    // Another bundle: another row with the same id.
    ends_with(&apply(&daemon, &small(2, &[(READ, "both")]), "next")?, 0)?;
    puppet.is_refused(&second())?;
    eventually("there are two rows", || {
        let rows = remembered(&daemon, &["--subject", "agent"])?;
        let versions: Vec<_> = rows
            .iter()
            .filter(|row| row["id"] == id.as_str())
            .map(|row| &row["seen"]["bundle"]["version"])
            .collect();
        Ok(versions == [1, 2])
    })?;
    let text = output(&mut daemon.control(&["events"]))?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    ensure!(text.contains(&format!("{id} DENIED EACCES  agent  file.read")) && text.contains("×4"), "{text}");
    puppet.end()?;
    daemon.stop().map(drop)
}

fn a_spoilt_memory_is_set_aside_and_enforcement_goes_on(_: &Case<'_>) -> Result<()> {
    let directory = configure("spoilt", &small(1, &[(READ, "first")]))?;
    let state = directory.join("state");
    fs::create_dir_all(&state).context("make the state directory")?;
    fs::write(state.join("events.db"), vec![b'x'; 10_000]).context("spoil the memory")?;
    let daemon = spawn(&directory)?.ready()?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&second())?;
    puppet.is_allowed(&path("flip/first"))?;
    row(&daemon, 1)?;
    let status = status(&daemon)?;
    ensure!(status["state"] == "enforcing", "it is not degraded: {status}");
    let said = status["store"]["set_aside"].as_str().unwrap_or_default();
    ensure!(said.contains("events.db.unusable-"), "it is not said: {status}");
    let kept = fs::read_dir(&state).context("list the state")?.flatten().filter(|entry| {
        entry.file_name().to_string_lossy().starts_with("events.db.unusable-")
            && entry.metadata().is_ok_and(|metadata| metadata.len() == 10_000)
    });
    ensure!(kept.count() == 1, "the spoilt file is not kept");
    puppet.end()?;
    daemon.stop().map(drop)
}

fn the_last_denials_before_a_stop_are_reported_and_remembered(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start_apart("last", &small(1, &[(READ, "first")]))?;
    let directory = daemon.directory().to_owned();
    let mut puppet = Puppet::start(AGENT)?;
    for _ in 0..200 {
        puppet.is_refused(&second())?;
    }
    // What the kernel had reported by then must arrive, however shortly before.
    ensure!(daemon.stop()?.success(), "the daemon did not stop well");
    puppet.is_allowed(&second())?;
    puppet.end()?;
    let text = fs::read_to_string(directory.join("events.jsonl")).context("read the events")?;
    let name = second().display().to_string();
    let count = text.lines().filter(|line| line.contains(&name)).count();
    ensure!(count == 200, "{count} of 200 denials are on standard output");
    let daemon = spawn(&directory)?.ready()?;
    row(&daemon, 200)?;
    daemon.stop().map(drop)
}

fn events_are_chosen_by_what_is_asked_for(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("chosen", &small(1, &[(READ, "first")]))?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&second())?;
    row(&daemon, 1)?;
    puppet.is_refused(&path("flip/both"))?;
    let count = |arguments: &[&str]| -> Result<usize> { Ok(remembered(&daemon, arguments)?.len()) };
    eventually("both are remembered", || Ok(count(&[])? == 2))?;
    for (arguments, wanted) in [
        (&["--subject", "agent", "--since", "1h"][..], 2),
        (&["--subject", "nobody"], 0),
        (&["--action", "read"], 2),
        (&["--action", "exec"], 0),
        (&["--verdict", "denied"], 2),
        (&["--verdict", "would-deny"], 0),
        (&["--limit", "1"], 1),
        (&["--since", "2200-01-01T00:00:00Z"], 0),
    ] {
        let found = count(arguments)?;
        ensure!(found == wanted, "{arguments:?}: {found} events instead of {wanted}");
    }
    let newest = remembered(&daemon, &["--limit", "1"])?;
    let name = newest[0]["resource"]["path"].as_str().unwrap_or_default();
    ensure!(name.ends_with("/both"), "--limit does not keep the newest: {newest:?}");
    ends_with(&output(&mut daemon.control(&["events", "--action", "file.raed"]))?, 6)?;
    let long = output(&mut daemon.control(&["events", "-o", "long", "--limit", "1"]))?;
    let long = String::from_utf8_lossy(&long.stdout).into_owned();
    let decided = format!("decided   policy, generation {}, small version 1", daemon.status()?["generation"]);
    ensure!(long.contains(&decided), "{long}");

    // What is remembered, then what happens.
    let mut client = daemon
        .control(&["events", "-f", "--since", "1h", "--action", "file.read", "-o", "json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("start guardctl")?;
    let mut lines = BufReader::new(client.stdout.take().context("its output")?).lines();
    let mut next = || -> Result<Value> {
        let line = lines.next().context("the stream ended")?.context("read")?;
        serde_json::from_str(&line).context("JSON")
    };
    let (first, other) = (next()?, next()?);
    ensure!(first["seen"]["count"] == 1 && other["seen"]["count"] == 1, "{first} {other}");
    puppet.is_refused(&second())?;
    let live = next()?;
    ensure!(live["seen"].is_null() && live["id"] == first["id"], "{live} after {first}");
    client.kill().context("end guardctl")?;
    client.wait().context("wait for guardctl")?;
    ensure!(puppet.read(&path("flip/first"))? == Outcome::Worked, "the puppet is gone");
    puppet.end()?;
    daemon.stop().map(drop)
}

/// Sum of the voluntary context switches of the daemon's threads: how often one went to sleep.
fn sleeps(daemon: &Daemon) -> Result<u64> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).context("the daemon's threads")?;
    let mut sum = 0;
    for task in tasks.flatten() {
        let text = fs::read_to_string(task.path().join("status")).context("a thread's status")?;
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.context("a count")?.trim().parse::<u64>().context("a number")?;
    }
    Ok(sum)
}

fn an_idle_agent_is_never_woken(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("idle", &small(1, &[(READ, "first")]))?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&second())?;
    row(&daemon, 1)?;
    // What the start and the request left to do is done when a while passes without anything; threads
    // that are kept for the next request for ten seconds end by themselves in between.
    let mut quiet = false;
    for _ in 0..10 {
        let before = sleeps(&daemon)?;
        std::thread::sleep(Duration::from_secs(5));
        if sleeps(&daemon)? == before {
            quiet = true;
            break;
        }
    }
    ensure!(quiet, "the daemon does something although nothing happens");
    puppet.end()?;
    daemon.stop().map(drop)
}

fn a_malformed_request_is_refused_in_json(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("malformed", &small(1, &[(READ, "first")]))?;
    let ask = |head: &str, body: &str| -> Result<String> {
        let mut stream = UnixStream::connect(daemon.directory().join("run/admin.sock")).context("connect")?;
        let length = body.len();
        let request = format!(
            "{head} HTTP/1.1\r\nHost: guard\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).context("send")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("receive")?;
        Ok(answer)
    };
    for (head, body, status) in [
        ("POST /v1/policy/apply", "{\"directory\":", 400),
        ("POST /v1/policy/apply", "{\"directory\":\"/x\",\"more\":1}", 422),
        ("POST /v1/policy/apply", "[]", 422),
        ("GET /v1/events?folow=true", "", 400),
        ("GET /v1/events?limit=many", "", 400),
        ("GET /v1/events?since=yesterday", "", 400),
        ("GET /v1/nothing", "", 404),
        ("DELETE /v1/status", "", 405),
    ] {
        let answer = ask(head, body)?;
        let (headers, text) = answer.split_once("\r\n\r\n").context("an answer")?;
        ensure!(headers.starts_with(&format!("HTTP/1.1 {status} ")), "{head} {body}: {answer}");
        let value: Value =
            serde_json::from_str(text).with_context(|| format!("{head}: not JSON: {answer}"))?;
        ensure!(value["schema"] == "guard.error/1" && value["code"] == "invalid-request", "{head}: {value}");
        ensure!(value["message"].as_str().is_some_and(|message| !message.is_empty()), "{head}: {value}");
    }
    daemon.stop().map(drop)
}
