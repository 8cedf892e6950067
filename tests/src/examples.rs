//! The bundles in `examples`, as they are: their own tests, and what they promise on a real host.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use guard_agent::artifact::{Artifact, ArtifactList, DIRECTORY, digest_of};
use guard_agent::bundle::PrivateKey;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use serde_json::Value;

use crate::attempt::{Outcome, attempt, eventually};
use crate::case::Case;
use crate::daemon::{BASE, Daemon, Programs, spawn};
use crate::family::{Part, tests};
use crate::layout;
use crate::lifecycle::{ends_with, output};
use crate::puppet::Puppet;
use crate::users::{CI, Identity};
use crate::{raw, step};

pub(crate) const PART: Part = Part {
    name: "examples",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            an_ai_agent_changes_production_only_while_somebody_on_call_approved,
            a_ci_account_deploys_to_production_with_a_window_an_approval_and_a_signed_tool,
        ],
    ),
};

/// The agent.
const CODER: Identity = Identity::new("ai-coder", 2440);
/// Somebody on call.
const ANN: Identity = Identity::new("ann-on-call", 2441);

/// Somebody who releases.
const RITA: Identity = Identity::new("rita-release", 2442);

/// The accounts of this part.
pub(crate) const ACCOUNTS: [Identity; 3] = [CODER, ANN, RITA];

/// The tool of the example of a CI account, and what only that may read.
const TOOL: &str = "/opt/deploy/bin/deployctl";
const PRODUCTION_KEY: &str = "/etc/ci/production.key";
/// A day, in seconds.
const DAY: i64 = 24 * 3600;

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
        let more = format!("oncall:x:2450:{}\nrelease:x:2451:{}\n", ANN.name, RITA.name);
        fs::write("/etc/group", groups + &more).context("add groups")?;
    }
    // It may be there from an earlier test.
    let _ = layout::run("ip", &["address", "add", "10.20.0.10/32", "dev", "lo"]);
    Ok(())
}

/// An agent with the example's bundle, and the sockets where the bundle expects them.
fn start(example: &str) -> Result<Daemon> {
    start_with(example, &policy(example))
}

/// The same with a bundle made of it.
fn start_with(example: &str, bundle: &Path) -> Result<Daemon> {
    let directory = Path::new(BASE).join(example);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).context("make the fixture")?;
    fs::create_dir_all(SOCKETS).context("make the directory of sockets")?;
    symlink(SOCKETS, directory.join("run")).context("lead to the sockets")?;
    let text = format!(
        "bundle = \"{}\"\nrun_dir = \"run\"\nstate_dir = \"state\"\n{}",
        bundle.display(),
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

/// What a host has to have for the example of a CI account: the tool on a file system that keeps its content, a key
/// of production, and a bundle with this host's own key in it.
fn ci_host(key: &PrivateKey) -> Result<PathBuf> {
    let (kept, place) = (Path::new("/scratch/ext4/deploy"), Path::new("/opt/deploy"));
    for directory in [kept, place, Path::new("/etc/ci"), Path::new("/var/lib/ci/work"), Path::new(DIRECTORY)]
    {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        layout::mode(directory, 0o755)?;
    }
    if !place.join("bin").exists() {
        fs::create_dir_all(kept.join("bin")).context("make the directory of the tool")?;
        mount(Some(kept), place, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("mount the tool")?;
    }
    layout::file(Path::new(PRODUCTION_KEY), b"key\n")?;
    let bundle = Path::new(BASE).join("ci-deploy-policy");
    let _ = fs::remove_dir_all(&bundle);
    fs::create_dir_all(&bundle).context("make the bundle")?;
    for name in ["guard.toml", "ci.cedar"] {
        let text = fs::read_to_string(policy("ci-deploy").join(name)).context("read the example")?;
        let own = |line: &str| {
            let key = format!("release = {{ key = \"{}\" }}", key.public());
            if line.starts_with("release = { key") { key } else { line.to_owned() }
        };
        let text: Vec<String> = text.lines().map(own).collect();
        fs::write(bundle.join(name), text.join("\n") + "\n").context("write the bundle")?;
    }
    Ok(bundle)
}

/// Puts a tool there, and on the list of what was signed if it is to be.
fn install(content: &[u8], signed_by: Option<&PrivateKey>) -> Result<()> {
    let tool = Path::new(TOOL);
    layout::program(tool, content)?;
    if let Some(key) = signed_by {
        let artifact = Artifact { digest: digest_of(tool)?, name: TOOL.to_owned() };
        let list = Path::new(DIRECTORY).join("deployctl.artifacts");
        fs::write(&list, ArtifactList::sign(&[artifact], key)?).context("write the list")?;
        layout::mode(&list, 0o644)?;
    }
    Ok(())
}

/// Seconds from now to the next Tuesday, half past eight in UTC, when the example's window is open.
fn until_tuesday() -> i64 {
    let day = DAY as u64;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // The first day of the epoch was a Thursday.
    let tuesday = (now / day..).find(|number| number % 7 == 5).unwrap_or_default();
    (tuesday * day + 8 * 3600 + 1800) as i64 - now as i64
}

fn a_ci_account_deploys_to_production_with_a_window_an_approval_and_a_signed_tool(
    _: &Case<'_>,
) -> Result<()> {
    let tested = output(Command::new("guardctl").args(["policy", "test"]).arg(policy("ci-deploy")))?;
    ends_with(&tested, 0).with_context(|| String::from_utf8_lossy(&tested.stdout).into_owned())?;
    let key = PrivateKey::generate().context("make a key")?;
    let bundle = ci_host(&key)?;
    let own = fs::read("/proc/self/exe").context("read this program")?;
    install(&own, Some(&key))?;
    let deploys = |expected: Outcome, when: &str| -> Result<()> {
        let outcome = attempt(CI, || {
            let mut tool = Command::new(TOOL);
            step::result(tool.args(["step", "read", PRODUCTION_KEY]).stdin(Stdio::null()).status()?)
        })?;
        ensure!(outcome == expected, "{when}: {outcome:?}");
        Ok(())
    };
    let refused = || Outcome::Failed(Errno::EACCES);
    deploys(Outcome::Worked, "without Guard")?;

    let daemon = start_with("ci-deploy", &bundle)?;
    let mut job = Puppet::start(CI)?;
    job.is_refused(Path::new(PRODUCTION_KEY)).context("a job has no key of production")?;
    let approve = || -> Result<()> {
        let grant = ["lease", "grant", "prod-deploy", "--subject", "ci-job", "--for", "30m"];
        ends_with(&logged_in(&daemon, RITA, &grant)?, 0)
    };
    let window = |shift: i64, open: bool| -> Result<()> {
        raw::shift_clock(shift).context("set the clock")?;
        raw::synchronise().context("call the clock right")?;
        eventually("the agent knows the window", || {
            Ok(daemon.status()?["windows"][0]["open"] == serde_json::json!(open))
        })
    };
    let shift = until_tuesday();
    window(shift, true)?;
    deploys(refused(), "in the window, without an approval")?;
    window(DAY, false)?;
    approve()?;
    deploys(refused(), "approved, the day after the window")?;
    window(-DAY, true)?;
    deploys(Outcome::Worked, "in the window, approved, signed")?;
    deploys(refused(), "a second time with one approval")?;
    approve()?;
    install(&[own.as_slice(), b"\0"].concat(), None)?;
    deploys(refused(), "a tool with one byte more")?;
    install(&own, None)?;
    deploys(Outcome::Worked, "the signed tool again")?;
    raw::shift_clock(-shift).context("set the clock back")?;
    job.end()?;
    daemon.stop().map(drop)
}
