//! The bundles in `examples`, as they are: their own tests, and what they promise on a real host.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use serde_json::Value;

use crate::attempt::{Outcome, attempt, eventually};
use crate::case::Case;
use crate::daemon::{BASE, Daemon, Programs, spawn};
use crate::family::{Part, tests};
use crate::layout;
use crate::lifecycle::{ends_with, output};
use crate::puppet::Puppet;
use crate::users::Identity;

pub(crate) const PART: Part = Part {
    name: "examples",
    bundle: Ok,
    prepare,
    tests: tests!(others: [an_ai_agent_changes_production_only_while_somebody_on_call_approved]),
};

/// The agent.
const CODER: Identity = Identity::new("ai-coder", 2440);
/// Somebody on call.
const ANN: Identity = Identity::new("ann-on-call", 2441);

/// The accounts of this part.
pub(crate) const ACCOUNTS: [Identity; 2] = [CODER, ANN];

const CREDENTIAL: &str = "/etc/production/kubeconfig";
/// An address of the example's production, which the loopback interface has here.
const PRODUCTION: &str = "10.20.0.10:6443";
/// Where the packaged agent has its sockets, as the example's policy names them.
const SOCKETS: &str = "/run/guard";

fn policy(example: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(example).join("policy")
}

fn prepare() -> Result<()> {
    layout::create()?;
    layout::file(Path::new(CREDENTIAL), b"token\n")?;
    layout::directory(Path::new("/srv/work"))?;
    fs::copy(layout::which("guardctl")?, "/usr/bin/guardctl").context("install guardctl")?;
    let groups = fs::read_to_string("/etc/group").context("read /etc/group")?;
    if !groups.lines().any(|line| line.starts_with("oncall:")) {
        fs::write("/etc/group", format!("{groups}oncall:x:2450:{}\n", ANN.name)).context("add a group")?;
    }
    // It may be there from an earlier test.
    let _ = layout::run("ip", &["address", "add", "10.20.0.10/32", "dev", "lo"]);
    Ok(())
}

/// An agent with the example's bundle, and the sockets where the bundle expects them.
fn start(example: &str) -> Result<Daemon> {
    let directory = Path::new(BASE).join(example);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).context("make the fixture")?;
    fs::create_dir_all(SOCKETS).context("make the directory of sockets")?;
    symlink(SOCKETS, directory.join("run")).context("lead to the sockets")?;
    let text = format!(
        "bundle = \"{}\"\nrun_dir = \"run\"\nstate_dir = \"state\"\n{}",
        policy(example).display(),
        Programs::Shared.configured(&directory)?
    );
    fs::write(directory.join("agent.toml"), text).context("write agent.toml")?;
    spawn(&directory)?.ready()
}

fn connect() -> io::Result<()> {
    let address: SocketAddr = PRODUCTION.parse().map_err(io::Error::other)?;
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).map(drop)
}

/// Runs `guardctl` as root, for somebody who logged in.
fn logged_in(daemon: &Daemon, who: Identity, arguments: &[&str]) -> Result<Output> {
    let mut command = daemon.control(arguments);
    // SAFETY: between fork and exec nothing but a file is opened and written.
    unsafe { command.pre_exec(move || fs::write("/proc/self/loginuid", who.uid.to_string())) };
    output(&mut command)
}

fn an_ai_agent_changes_production_only_while_somebody_on_call_approved(_: &Case<'_>) -> Result<()> {
    let tested = output(Command::new("guardctl").args(["policy", "test"]).arg(policy("ai-agent")))?;
    ends_with(&tested, 0).with_context(|| String::from_utf8_lossy(&tested.stdout).into_owned())?;
    let production = TcpListener::bind(PRODUCTION).context("play production")?;
    let connects = |expected: Outcome, when: &str| -> Result<()> {
        let outcome = attempt(CODER, connect)?;
        ensure!(outcome == expected, "{when}: {outcome:?}");
        Ok(())
    };
    connects(Outcome::Worked, "without Guard")?;

    let daemon = start("ai-agent")?;
    let mut agent = Puppet::start(CODER)?;
    agent.is_allowed(Path::new("/etc/hostname")).context("it reads freely")?;
    agent.is_refused(Path::new(CREDENTIAL))?;
    connects(Outcome::Failed(Errno::EACCES), "before an approval")?;
    // What it hears of that, with the tool that the example names.
    let coder = |arguments: &[&str]| {
        let mut command = Command::new("/usr/bin/guardctl");
        command.args(arguments).uid(CODER.uid).gid(CODER.uid).stdin(Stdio::null());
        command
    };
    eventually("it hears what to ask for", || {
        let why = output(&mut coder(&["why", "--last", "--json"]))?;
        Ok(String::from_utf8_lossy(&why.stdout).contains("\"ask_for\":[\"prod-change\"]"))
    })?;
    let asks =
        ["request", "create", "--name", "prod-change", "--reason", "roll out", "--for", "10m", "--wait"];
    let waiting = coder(&asks).stdout(Stdio::piped()).spawn().context("ask")?;
    let mut id = String::new();
    eventually("the request is there", || {
        let listed = output(&mut daemon.control(&["request", "list", "--json"]))?;
        let listed: Value = serde_json::from_slice(&listed.stdout).context("JSON")?;
        id = listed.pointer("/requests/0/id").map(Value::to_string).unwrap_or_default();
        Ok(!id.is_empty())
    })?;
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
