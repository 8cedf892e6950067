//! A shadow: a bundle on live traffic whose verdicts are compared, counted, and enforced by nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::attempt::eventually;
use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::{Daemon, configure, spawn};
use crate::family::{Part, tests};
use crate::layout::path;
use crate::lifecycle::{READ, apply, ends_with, first, output, prepare, second, small};
use crate::puppet::Puppet;
use crate::users::AGENT;

pub(crate) const PART: Part = Part {
    name: "shadow",
    bundle: Ok,
    prepare,
    tests: tests!(
        smoke: [a_shadow_decides_nothing_and_what_it_would_is_counted_through_a_kill],
        others: [
            a_promoted_shadow_is_the_live_policy,
            a_shadow_stays_beside_a_new_live_policy_and_follows_modes,
            a_stopped_shadow_is_gone_and_the_next_begins_at_nothing,
            a_bad_shadow_is_refused_with_the_live_policy_untouched,
            an_unsigned_shadow_is_neither_begun_nor_promoted_where_keys_are_trusted,
            a_shadow_that_cannot_be_read_any_more_is_said_and_stops_nothing,
        ],
    ),
};

fn both() -> PathBuf {
    path("flip/both")
}

fn live() -> Bundle {
    small(1, &[(READ, "first")])
}

/// What is allowed is denied by it, and what is denied is allowed.
fn opposite(version: u64) -> Bundle {
    small(version, &[(READ, "second")]).subject("ci", "user = \"ci\"")
}

/// Has the client put a bundle beside the live one.
fn begin(daemon: &Daemon, bundle: &Bundle, name: &str) -> Result<Output> {
    let directory = bundle.write(&daemon.directory().join(name))?;
    output(&mut daemon.control(&["policy", "apply", "--shadow", &directory.display().to_string()]))
}

fn shadow(daemon: &Daemon, arguments: &[&str]) -> Result<Output> {
    output(daemon.control(&["policy", "shadow"]).args(arguments))
}

fn report(daemon: &Daemon) -> Result<Value> {
    let result = shadow(daemon, &["report", "--output", "json"])?;
    let report: Value = serde_json::from_slice(&result.stdout).context("JSON")?;
    ensure!(report["schema"] == "guard.shadow/1", "{report}");
    let same =
        report["newly_denied"] == 0 && report["newly_allowed"] == 0 && report["shadow"]["paused"].is_null();
    ends_with(&result, if same { 0 } else { 1 })?;
    Ok(report)
}

/// The line about reading `path`, if there is one.
fn line<'a>(report: &'a Value, path: &Path) -> Option<&'a Value> {
    let resource = path.to_string_lossy();
    report["differences"].as_array()?.iter().find(|line| line["resource"] == resource.as_ref())
}

/// Waits until the report has exactly these lines: change, path, how often.
fn counted(daemon: &Daemon, wanted: &[(&str, &Path, u64)]) -> Result<Value> {
    let mut last = Value::Null;
    let waited = eventually("the differences are counted", || {
        last = report(daemon)?;
        let same = |(change, path, count): &(&str, &Path, u64)| {
            line(&last, path).is_some_and(|line| line["change"] == *change && line["count"] == *count)
        };
        Ok(wanted.iter().all(same))
    });
    waited.with_context(|| format!("{wanted:?} in {last}"))?;
    let lines = last["differences"].as_array().map_or(0, Vec::len);
    ensure!(lines == wanted.len(), "more differs than {wanted:?}: {last}");
    Ok(last)
}

const DENIED: &str = "newly_denied";
const ALLOWED: &str = "newly_allowed";

fn why(daemon: &Daemon, id: &str) -> Result<Value> {
    let result = output(&mut daemon.control(&["why", id, "--json"]))?;
    ends_with(&result, 0)?;
    serde_json::from_slice(&result.stdout).context("JSON")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn a_shadow_decides_nothing_and_what_it_would_is_counted_through_a_kill(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("shadow", &live())?;
    let directory = daemon.directory().to_owned();
    let counters = || -> Result<[Option<u64>; 2]> {
        let status = daemon.status()?;
        Ok(["shadow_deny", "shadow_allow"].map(|counter| status["counters"][counter].as_u64()))
    };
    let [denied_before, allowed_before] = counters()?;
    let mut puppet = Puppet::start(AGENT)?;
    // Without a shadow nothing is counted, and it is said that there is none.
    puppet.is_allowed(&first())?;
    let none = shadow(&daemon, &["report", "--json"])?;
    ends_with(&none, 1)?;
    ensure!(text(&none).contains("\"no-shadow\""), "{}", text(&none));

    ends_with(&begin(&daemon, &opposite(2), "candidate")?, 0)?;
    let empty = report(&daemon)?;
    ensure!(empty["differences"] == serde_json::json!([]) && empty["shadow"]["version"] == 2, "{empty}");
    for _ in 0..3 {
        puppet.is_allowed(&first())?;
    }
    for _ in 0..2 {
        puppet.is_refused(&second())?;
    }
    // Both say the same of this.
    puppet.is_refused(&both())?;
    let lines = [(DENIED, first(), 3), (ALLOWED, second(), 2)];
    let lines = lines.each_ref().map(|(change, path, count)| (*change, path.as_path(), *count));
    let found = counted(&daemon, &lines)?;
    ensure!(found["newly_denied"] == 3 && found["newly_allowed"] == 2, "{found}");
    let not_compared = found["not_compared"].to_string();
    ensure!(not_compared.contains("subject ci is only in the shadow"), "{found}");
    let [denied, allowed] = [first(), second()].map(|path| line(&found, &path).cloned().unwrap_or_default());
    ensure!(denied["policies"] == serde_json::json!([]), "the denial by default: {denied}");
    ensure!(allowed["policies"][0]["id"] == "small/p0", "the permit: {allowed}");
    ensure!(found["decided"].as_u64() >= Some(6), "{found}");
    let screen = text(&shadow(&daemon, &["report"])?);
    ensure!(
        screen.starts_with("shadow  small version 2 (") && screen.contains("newly denied   agent  file.read"),
        "{screen}"
    );
    ensure!(screen.contains("3 times, last ") && screen.contains("by default (no permit)"), "{screen}");

    // The events behind it.
    let id = |line: &Value| line["id"].as_str().map(str::to_owned).context("an id");
    let answer = why(&daemon, &id(&denied)?)?;
    ensure!(answer["event"]["verdict"] == "shadow_deny" && answer["event"]["errno"].is_null(), "{answer}");
    ensure!(answer["decisions"][0]["allowed"] == true, "what the live policy decided: {answer}");
    ensure!(
        answer["decisions"][0]["policies"][0]["id"] == "small/p0" && answer["note"].is_null(),
        "{answer}"
    );
    ensure!(
        answer["shadow"]["verdict"] == "denied" && answer["shadow"]["bundle"]["version"] == 2,
        "{answer}"
    );
    ensure!(answer["shadow"]["decisions"][0]["policies"] == serde_json::json!([]), "{answer}");
    let answer = why(&daemon, &id(&allowed)?)?;
    ensure!(answer["event"]["verdict"] == "denied" && answer["event"]["errno"] == "EACCES", "{answer}");
    ensure!(answer["shadow"]["verdict"] == "allowed" && answer["shadow"]["note"].is_null(), "{answer}");
    ensure!(answer["shadow"]["decisions"][0]["policies"][0]["id"] == "small/p0", "{answer}");
    let rows = crate::store::remembered(&daemon, &["--verdict", "shadow-deny"])?;
    ensure!(rows.len() == 1 && rows[0]["seen"]["shadow"]["version"] == 2, "{rows:?}");
    let status = daemon.status()?;
    ensure!(status["shadow"]["version"] == 2 && status["bundle"]["version"] == 1, "{status}");
    let after = counters()?;
    ensure!(
        after == [denied_before.map(|count| count + 3), allowed_before.map(|count| count + 2)],
        "{after:?}"
    );
    puppet.end()?;

    kill(daemon.pid(), Signal::SIGKILL).context("kill the daemon")?;
    drop(daemon);
    let daemon = spawn(&directory)?.ready()?;
    counted(&daemon, &lines).context("after the restart")?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_allowed(&first())?;
    puppet.is_refused(&second())?;
    counted(&daemon, &[(DENIED, &first(), 4), (ALLOWED, &second(), 3)]).context("after the restart")?;
    puppet.end()?;
    daemon.stop().map(drop)
}

fn a_promoted_shadow_is_the_live_policy(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("promoted", &live())?;
    let directory = daemon.directory().to_owned();
    let mut puppet = Puppet::start(AGENT)?;
    ends_with(&begin(&daemon, &opposite(2), "candidate")?, 0)?;
    puppet.is_allowed(&first())?;
    puppet.is_refused(&second())?;
    // What was shadowed is promoted, whatever became of the directory.
    fs::remove_dir_all(daemon.directory().join("candidate")).context("remove the directory")?;
    let promoted = shadow(&daemon, &["promote"])?;
    ends_with(&promoted, 0)?;
    ensure!(text(&promoted).starts_with("promoted generation "), "{}", text(&promoted));
    puppet.is_refused(&first())?;
    puppet.is_allowed(&second())?;
    let status = daemon.status()?;
    ensure!(status["shadow"].is_null() && status["bundle"]["version"] == 2, "{status}");
    ends_with(&shadow(&daemon, &["report"])?, 1)?;
    ends_with(&shadow(&daemon, &["promote"])?, 1)?;
    let history = text(&output(&mut daemon.control(&["policy", "history"]))?);
    ensure!(history.contains("  promoted  small version 2 ("), "{history}");
    ensure!(history.contains("shadow promoted  small version 2 ("), "{history}");
    // It can be gone back from, as from any other.
    ends_with(&output(&mut daemon.control(&["policy", "rollback"]))?, 0)?;
    puppet.is_allowed(&first())?;
    puppet.is_refused(&second())?;
    puppet.end()?;
    drop(daemon);
    let daemon = spawn(&directory)?.ready()?;
    ensure!(daemon.status()?["shadow"].is_null(), "a shadow that ended is there again");
    daemon.stop().map(drop)
}

fn a_shadow_stays_beside_a_new_live_policy_and_follows_modes(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("beside", &live())?;
    let mut puppet = Puppet::start(AGENT)?;
    ends_with(&begin(&daemon, &opposite(9), "candidate")?, 0)?;
    puppet.is_allowed(&first())?;
    counted(&daemon, &[(DENIED, &first(), 1)])?;
    // In monitor mode both go through; a mode that is set for a while outlives a change of the bundle.
    let mode = |arguments: &[&str]| -> Result<()> {
        ends_with(&output(daemon.control(&["mode"]).args(arguments))?, 0)
    };
    mode(&["monitor", "agent", "--for", "1h", "--reason", "test", "--yes"])?;
    puppet.is_allowed(&first())?;
    puppet.is_allowed(&second())?;
    mode(&["bundle", "agent"])?;
    puppet.is_refused(&second())?;
    counted(&daemon, &[(DENIED, &first(), 1), (ALLOWED, &second(), 1)])?;

    // Another live policy, then the one before it: the shadow stays, and what it counted.
    let other = small(3, &[(READ, "second"), (READ, "both")]);
    ends_with(&apply(&daemon, &other, "next")?, 0)?;
    puppet.is_refused(&first())?;
    puppet.is_allowed(&second())?;
    puppet.is_allowed(&both())?;
    counted(&daemon, &[(DENIED, &first(), 1), (ALLOWED, &second(), 1), (DENIED, &both(), 1)])?;
    ends_with(&output(&mut daemon.control(&["policy", "rollback"]))?, 0)?;
    puppet.is_refused(&both())?;
    puppet.is_refused(&second())?;
    counted(&daemon, &[(DENIED, &first(), 1), (ALLOWED, &second(), 2), (DENIED, &both(), 1)])?;
    // The same bundle, made live in the ordinary way: nothing is left to compare.
    ends_with(&apply(&daemon, &opposite(9), "applied")?, 0)?;
    ensure!(daemon.status()?["shadow"].is_null(), "a bundle beside itself");
    let history = text(&output(&mut daemon.control(&["policy", "history"]))?);
    ensure!(history.contains("shadow applied  small version 9 ("), "{history}");
    puppet.end()?;
    daemon.stop().map(drop)
}

fn a_stopped_shadow_is_gone_and_the_next_begins_at_nothing(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("stopped-shadow", &live())?;
    let directory = daemon.directory().to_owned();
    let mut puppet = Puppet::start(AGENT)?;
    ends_with(&begin(&daemon, &opposite(2), "candidate")?, 0)?;
    puppet.is_allowed(&first())?;
    let id = line(&counted(&daemon, &[(DENIED, &first(), 1)])?, &first()).context("the line")?["id"].clone();
    ends_with(&shadow(&daemon, &["stop"])?, 0)?;
    ends_with(&shadow(&daemon, &["stop"])?, 1)?;
    ends_with(&shadow(&daemon, &["report"])?, 1)?;
    ensure!(daemon.status()?["shadow"].is_null(), "it is not gone");
    puppet.is_allowed(&first())?;
    puppet.is_refused(&second())?;
    eventually("the denial is remembered", || {
        Ok(!crate::store::remembered(&daemon, &["--verdict", "denied"])?.is_empty())
    })?;
    let rows = crate::store::remembered(&daemon, &["--verdict", "shadow-deny"])?;
    ensure!(rows.len() == 1 && rows[0]["seen"]["count"] == 1, "it is reported after its end: {rows:?}");
    // Its copy is kept for what it reported.
    let answer = why(&daemon, id.as_str().context("an id")?)?;
    ensure!(answer["shadow"]["verdict"] == "denied" && answer["shadow"]["note"].is_null(), "{answer}");
    // The same again, and one that differs from nothing that is done.
    ends_with(&begin(&daemon, &opposite(2), "candidate")?, 0)?;
    ensure!(report(&daemon)?["newly_denied"] == 0, "the counts of another shadow");
    let alike = small(4, &[(READ, "first"), (READ, "nothing-there")]);
    ends_with(&begin(&daemon, &alike, "alike")?, 0)?;
    puppet.is_allowed(&first())?;
    puppet.is_refused(&second())?;
    let screen = shadow(&daemon, &["report"])?;
    ends_with(&screen, 0)?;
    ensure!(
        text(&screen).contains("no difference  ") && text(&screen).contains(" operations decided since"),
        "{}",
        text(&screen)
    );
    let history = text(&output(&mut daemon.control(&["policy", "history"]))?);
    for ended in ["shadow stopped  small version 2 (", "shadow replaced  small version 2 ("] {
        ensure!(history.contains(ended), "{ended} is missing: {history}");
    }
    puppet.end()?;
    drop(daemon);
    let daemon = spawn(&directory)?.ready()?;
    ensure!(daemon.status()?["shadow"]["version"] == 4, "the one that stands is restored");
    daemon.stop().map(drop)
}

/// Twelve ports that policies of one class ask for, half of them in each bundle: each alone fits.
fn ports(version: u64, from: u16) -> Bundle {
    let policy: String = (from..from + 6)
        .map(|port| {
            let action = if port % 2 == 0 { "net.connect" } else { "net.send" };
            permit(&format!("port-{port}"), "agent", &[action], &format!("resource.port == {port}"))
        })
        .collect();
    let all = permit("first", "agent", READ, &within(&[first()])) + &policy;
    Bundle::new("ports").version(version).subject("agent", "user = \"agent\"").policy("ports", all)
}

fn a_bad_shadow_is_refused_with_the_live_policy_untouched(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("bad-shadow", &ports(1, 100))?;
    let mut puppet = Puppet::start(AGENT)?;
    let generation = daemon.status()?["generation"].clone();
    let bad = small(2, &[]).policy("bad", "\n  permit (principal, acton, resource);\n");
    let result = begin(&daemon, &bad, "bad")?;
    ends_with(&result, 6)?;
    let said = String::from_utf8_lossy(&result.stderr).into_owned();
    ensure!(said.contains("bad.cedar:2:") && said.contains('^'), "{said}");
    let result = begin(&daemon, &ports(1, 100), "same")?;
    ends_with(&result, 1)?;
    ensure!(String::from_utf8_lossy(&result.stderr).contains("is the live bundle"), "{result:?}");
    let result = begin(&daemon, &ports(2, 200), "large")?;
    ends_with(&result, 1)?;
    let said = String::from_utf8_lossy(&result.stderr).into_owned();
    ensure!(said.contains("not together with the live policy") && said.contains("at most 10"), "{said}");
    let nowhere = output(&mut daemon.control(&["policy", "apply", "--shadow", "/nowhere/at/all"]))?;
    ends_with(&nowhere, 6)?;
    let status = daemon.status()?;
    ensure!(status["shadow"].is_null() && status["generation"] == generation, "{status}");
    puppet.is_allowed(&first())?;
    puppet.is_refused(&second())?;

    // One that stands is not touched by one that is refused, nor by a look at another one.
    ends_with(&begin(&daemon, &opposite(5), "good")?, 0)?;
    ends_with(&begin(&daemon, &bad, "bad")?, 6)?;
    let other = small(6, &[]).write(&daemon.directory().join("other"))?.display().to_string();
    ends_with(&output(&mut daemon.control(&["policy", "apply", "--shadow", "--dry-run", &other]))?, 0)?;
    ensure!(daemon.status()?["shadow"]["version"] == 5, "another shadow stands");
    puppet.is_allowed(&first())?;
    counted(&daemon, &[(DENIED, &first(), 1)])?;
    // A live policy that the shadow does not fit beside: it pauses, and goes on with one that it does.
    let paused = |daemon: &Daemon| -> Result<bool> { Ok(!daemon.status()?["shadow"]["paused"].is_null()) };
    ends_with(&begin(&daemon, &ports(7, 200), "large")?, 1)?;
    ends_with(&apply(&daemon, &small(8, &[(READ, "first")]), "small")?, 0)?;
    ends_with(&begin(&daemon, &ports(7, 200), "large")?, 0)?;
    ensure!(!paused(&daemon)?, "it fits");
    ends_with(&apply(&daemon, &ports(9, 100), "ports")?, 0)?;
    ensure!(paused(&daemon)?, "it does not fit");
    puppet.is_allowed(&first())?;
    puppet.is_refused(&second())?;
    ends_with(&shadow(&daemon, &["report"])?, 1)?;
    ends_with(&apply(&daemon, &small(10, &[(READ, "first")]), "small")?, 0)?;
    ensure!(!paused(&daemon)?, "it fits again");
    puppet.end()?;
    daemon.stop().map(drop)
}

fn an_unsigned_shadow_is_neither_begun_nor_promoted_where_keys_are_trusted(_: &Case<'_>) -> Result<()> {
    let directory = configure("signed-shadow", &live())?;
    let (trust, keys) = (directory.join("trust.d"), directory.join("keys"));
    for made in [&trust, &keys] {
        fs::create_dir(made).with_context(|| format!("create {}", made.display()))?;
    }
    let config = fs::read_to_string(directory.join("agent.toml")).context("read agent.toml")?;
    fs::write(directory.join("agent.toml"), config + "[trust]\ndir = \"trust.d\"\n")
        .context("write agent.toml")?;
    let daemon = spawn(&directory)?.ready()?;
    ends_with(&begin(&daemon, &opposite(2), "candidate")?, 0)?;
    // From here on somebody has to sign.
    let generate = output(daemon.control(&["keys", "generate", "release", "--dir"]).arg(&keys))?;
    ends_with(&generate, 0)?;
    fs::copy(keys.join("release.pub"), trust.join("release.pub")).context("trust the key")?;
    for refused in [begin(&daemon, &opposite(3), "next")?, shadow(&daemon, &["promote"])?] {
        ends_with(&refused, 1)?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(said.contains("not signed"), "{said}");
    }
    let status = daemon.status()?;
    ensure!(status["bundle"]["version"] == 1 && status["shadow"]["version"] == 2, "{status}");
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_allowed(&first())?;
    puppet.is_refused(&second())?;
    puppet.end()?;
    daemon.stop().map(drop)
}

fn a_shadow_that_cannot_be_read_any_more_is_said_and_stops_nothing(_: &Case<'_>) -> Result<()> {
    for spoil in ["copy", "record"] {
        let daemon = Daemon::start("spoilt-shadow", &live())?;
        let directory = daemon.directory().to_owned();
        ends_with(&begin(&daemon, &opposite(2), "candidate")?, 0)?;
        let digest = daemon.status()?["shadow"]["digest"].as_str().context("a digest")?.to_owned();
        drop(daemon);
        let state = directory.join("state");
        let file = match spoil {
            "copy" => state.join(format!("bundles/{digest}.tar.zst")),
            _ => state.join("shadows.json"),
        };
        fs::write(&file, "rot").with_context(|| format!("spoil {}", file.display()))?;
        let daemon = spawn(&directory)?.ready()?;
        let mut puppet = Puppet::start(AGENT)?;
        puppet.is_allowed(&first())?;
        puppet.is_refused(&second())?;
        let status = daemon.status()?;
        ensure!(status["state"] == "enforcing" && status["shadow"].is_null(), "{spoil}: {status}");
        ensure!(status["shadow_lost"].as_str().is_some_and(|why| !why.is_empty()), "{spoil}: {status}");
        ends_with(&begin(&daemon, &opposite(3), "again")?, 0)?;
        ensure!(daemon.status()?["shadow_lost"].is_null(), "{spoil}: it is not over");
        puppet.end()?;
        daemon.stop()?;
    }
    Ok(())
}
