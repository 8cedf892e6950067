//! `examples/ai-agent`: reads freely, and needs an approval to change production.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use serde_json::Value;

use super::{ANN, CODER, first_request, guardctl, logged_in, passes_its_own_tests, start};
use crate::attempt::{Outcome, attempt, eventually};
use crate::case::Case;
use crate::lifecycle::{ends_with, output};
use crate::puppet::Puppet;

/// What production's interface asks for.
pub(super) const CREDENTIAL: &str = "/etc/production/kubeconfig";
/// An address of the example's production, which the loopback interface has here.
const PRODUCTION: &str = "10.20.0.10:6443";

fn connect() -> io::Result<()> {
    let address: SocketAddr = PRODUCTION.parse().map_err(io::Error::other)?;
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).map(drop)
}

pub(super) fn an_ai_agent_changes_production_only_while_somebody_on_call_approved(
    _: &Case<'_>,
) -> Result<()> {
    passes_its_own_tests("ai-agent")?;
    let production = TcpListener::bind(PRODUCTION).context("play production")?;
    let connects = |expected: Outcome, when: &str| -> Result<()> {
        let outcome = attempt(CODER, connect)?;
        ensure!(outcome == expected, "{when}: {outcome:?}");
        Ok(())
    };
    connects(Outcome::Worked, "without Guard")?;

    let daemon = start("ai-agent", "")?;
    let mut agent = Puppet::start(CODER)?;
    agent.is_allowed(Path::new("/etc/hostname")).context("it reads freely")?;
    agent.is_refused(Path::new(CREDENTIAL))?;
    connects(Outcome::Failed(Errno::EACCES), "before an approval")?;
    // What it hears of that, with the tool that the example names.
    eventually("it hears what to ask for", || {
        let why = output(&mut guardctl(CODER, &["why", "--last", "--json"]))?;
        Ok(String::from_utf8_lossy(&why.stdout).contains("\"ask_for\":[\"prod-change\"]"))
    })?;
    let asks =
        ["request", "create", "--name", "prod-change", "--reason", "roll out", "--for", "10m", "--wait"];
    let waiting = guardctl(CODER, &asks).stdout(Stdio::piped()).spawn().context("ask")?;
    let id = first_request(&daemon)?;
    agent.is_refused(Path::new(CREDENTIAL)).context("while it waits")?;
    // Root that nobody logged in as is not on call, and neither is the agent's own user.
    for (refused, why) in [
        (output(&mut daemon.control(&["request", "approve", &id, "--yes"]))?, "approvers are group oncall"),
        (logged_in(&daemon, CODER, &["request", "approve", &id, "--yes"])?, "yourself"),
    ] {
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(!refused.status.success() && said.contains(why), "{said}");
    }
    ends_with(&logged_in(&daemon, ANN, &["request", "approve", &id, "--yes"])?, 0)?;
    let answered = waiting.wait_with_output().context("wait for the answer")?;
    ends_with(&answered, 0)?;
    agent.is_allowed(Path::new(CREDENTIAL)).context("once it is approved")?;
    connects(Outcome::Worked, "once it is approved")?;

    let listed = output(&mut daemon.control(&["lease", "list", "--json"]))?;
    let listed: Value = serde_json::from_slice(&listed.stdout).context("JSON")?;
    let lease = listed["leases"][0]["id"].to_string();
    ends_with(&output(&mut daemon.control(&["lease", "revoke", &lease]))?, 0)?;
    agent.is_refused(Path::new(CREDENTIAL)).context("once it is revoked")?;
    connects(Outcome::Failed(Errno::EACCES), "once it is revoked")?;
    agent.end()?;
    drop(production);
    daemon.stop().map(drop)
}
