//! `examples/response-automation`: isolates at once, and deletes what it collected only with two others' yes.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use serde_json::Value;

use super::{
    ANN, BOT, FAY, GUS, LEDGER, SOCKETS, STOREFRONT, first_request, guardctl, logged_in,
    passes_its_own_tests, start,
};
use crate::attempt::{Outcome, attempt};
use crate::case::Case;
use crate::daemon::Daemon;
use crate::layout;
use crate::lifecycle::{ends_with, output};
use crate::users::Identity;

const EVIDENCE: &str = "/var/lib/forensics/INC-6/events.jsonl";
/// What the shop talks to.
const PAYMENTS: &str = "10.40.0.10:443";

fn connects(who: Identity) -> Result<Outcome> {
    attempt(who, || {
        let address: SocketAddr = PAYMENTS.parse().map_err(io::Error::other)?;
        TcpStream::connect_timeout(&address, Duration::from_secs(5)).map(drop)
    })
}

/// What the bot asks of Guard, at the socket that is for everybody.
fn bot(arguments: &[&str]) -> Result<Output> {
    let socket = format!("{SOCKETS}/self.sock");
    let arguments: Vec<&str> = ["--socket", &socket].into_iter().chain(arguments.iter().copied()).collect();
    output(&mut guardctl(BOT, &arguments))
}

fn isolates(target: &str) -> Result<Output> {
    bot(&["quarantine", target, "--level", "network", "--reason", "INC-7", "--yes", "--json"])
}

fn refuses(answer: &Output, words: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&answer.stderr).into_owned();
    ensure!(!answer.status.success() && said.contains(words), "{}: {said}", answer.status);
    Ok(())
}

/// The bot asks for a lease, and these people say yes to it, one after the other.
fn approved(daemon: &Daemon, lease: &str, by: &[Identity]) -> Result<()> {
    let asks = ["request", "create", "--name", lease, "--reason", "the case is closed", "--wait"];
    let waiting = guardctl(BOT, &asks).stdout(Stdio::piped()).spawn().context("ask")?;
    let id = first_request(daemon)?;
    for (number, who) in by.iter().enumerate() {
        if number > 0 {
            // The same person twice is one person.
            let _ = logged_in(daemon, by[number - 1], &["request", "approve", &id, "--yes"])?;
            let shown = output(&mut daemon.control(&["request", "show", &id, "--json"]))?;
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            ensure!(shown.contains("\"state\":\"open\""), "one person was enough: {shown}");
        }
        ends_with(&logged_in(daemon, *who, &["request", "approve", &id, "--yes"])?, 0)?;
    }
    ends_with(&waiting.wait_with_output().context("wait for the answer")?, 0)
}

pub(super) fn response_automation_isolates_and_deletes_only_what_others_approved(_: &Case<'_>) -> Result<()> {
    passes_its_own_tests("response-automation")?;
    let case = Path::new(EVIDENCE).parent().context("a directory")?;
    let _ = fs::remove_dir_all("/var/lib/forensics");
    layout::file(Path::new(EVIDENCE), b"{}\n")?;
    for owned in [case, Path::new(EVIDENCE)] {
        std::os::unix::fs::chown(owned, Some(BOT.uid), Some(BOT.uid)).context("give it to the bot")?;
    }
    let payments = TcpListener::bind(PAYMENTS).context("play what the shop talks to")?;
    let deletes = || attempt(BOT, || fs::remove_file(EVIDENCE));
    let appends = || attempt(BOT, || OpenOptions::new().append(true).open(EVIDENCE)?.write_all(b"{}\n"));
    let overwrites = || attempt(BOT, || OpenOptions::new().write(true).open(EVIDENCE)?.write_all(b"{}\n"));
    let refused = Outcome::Failed(Errno::EACCES);
    // The controls.
    for (what, outcome) in
        [("overwrites", overwrites()?), ("deletes", deletes()?), ("connects", connects(STOREFRONT)?)]
    {
        ensure!(outcome == Outcome::Worked, "{what} without Guard: {outcome:?}");
    }
    fs::write(EVIDENCE, b"{}\n").context("make it again")?;
    std::os::unix::fs::chown(EVIDENCE, Some(BOT.uid), Some(BOT.uid)).context("give it to the bot")?;

    let daemon = start("response-automation", "")?;
    ensure!(connects(STOREFRONT)? == Outcome::Worked, "the shop at work");
    let answer = isolates("storefront")?;
    ends_with(&answer, 0)?;
    ensure!(connects(STOREFRONT)? == refused, "the shop in quarantine");
    let answer: Value = serde_json::from_slice(&answer.stdout).context("JSON")?;
    let by = answer.pointer("/quarantine/by").and_then(Value::as_str).context("by whom")?;
    ensure!(by.contains("ir-bot"), "{answer}");
    // What it may not: release, isolate what is critical, or itself.
    let id = answer.pointer("/quarantine/id").map(Value::to_string).context("a number")?;
    let released = bot(&["release", &id, "--reason", "INC-7"])?;
    ensure!(!released.status.success() && connects(STOREFRONT)? == refused, "it released: {released:?}");
    refuses(&isolates("ledger")?, "crown-jewels")?;
    refuses(&isolates("ir-bot")?, "itself")?;
    // Whoever has no such policy isolates nobody.
    let socket = format!("{SOCKETS}/self.sock");
    let words = ["--socket", &socket, "quarantine", "ir-bot", "--level", "full", "--reason", "x", "--yes"];
    refuses(&output(&mut guardctl(STOREFRONT, &words))?, "guard.quarantine")?;
    approved(&daemon, "isolate-critical", &[ANN])?;
    ends_with(&isolates("ledger")?, 0).context("with somebody on call")?;
    ensure!(connects(LEDGER)? == refused, "the ledger in quarantine");

    // That it may isolate what is critical does not let it delete.
    ensure!(appends()? == Outcome::Worked, "evidence is added");
    for (what, outcome) in [("overwrites", overwrites()?), ("deletes", deletes()?)] {
        ensure!(outcome == refused, "{what}: {outcome:?}");
    }
    approved(&daemon, "delete-evidence", &[FAY, GUS])?;
    ensure!(overwrites()? == refused, "it changes what it may delete");
    ensure!(deletes()? == Outcome::Worked, "two people said yes");
    ends_with(&output(&mut daemon.control(&["release", &id, "--reason", "INC-7"]))?, 0)?;
    ensure!(connects(STOREFRONT)? == Outcome::Worked, "the shop is released by a person");
    drop(payments);
    daemon.stop().map(drop)
}
