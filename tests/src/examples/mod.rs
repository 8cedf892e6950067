//! The bundles in `examples`, as they are: their own tests, and what they promise on a real host.

mod ai_agent;
mod ci_deploy;
mod response_automation;
mod workload_trust;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::attempt::eventually;
use crate::daemon::{BASE, Daemon, Programs, spawn};
use crate::family::{Part, tests};
use crate::layout;
use crate::lifecycle::{ends_with, output};
use crate::users::Identity;
use ai_agent::an_ai_agent_changes_production_only_while_somebody_on_call_approved;
use ci_deploy::a_ci_account_deploys_to_production_with_a_window_an_approval_and_a_signed_tool;
use response_automation::response_automation_isolates_and_deletes_only_what_others_approved;
use workload_trust::a_workload_is_trusted_where_it_is_and_as_it_is_now;

pub(crate) const PART: Part = Part {
    name: "examples",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            an_ai_agent_changes_production_only_while_somebody_on_call_approved,
            a_workload_is_trusted_where_it_is_and_as_it_is_now,
            response_automation_isolates_and_deletes_only_what_others_approved,
            a_ci_account_deploys_to_production_with_a_window_an_approval_and_a_signed_tool,
        ],
    ),
};

/// The agent.
const CODER: Identity = Identity::new("ai-coder", 2440);
/// Somebody on call.
const ANN: Identity = Identity::new("ann-on-call", 2441);
/// The workload that depends on where it is.
const REPORTS: Identity = Identity::new("report-builder", 2442);
/// Response automation, and two services that it may isolate.
const BOT: Identity = Identity::new("ir-bot", 2443);
const STOREFRONT: Identity = Identity::new("storefront", 2444);
const LEDGER: Identity = Identity::new("ledger", 2445);
/// Two people of forensics.
const FAY: Identity = Identity::new("fay-forensics", 2446);
const GUS: Identity = Identity::new("gus-forensics", 2447);
/// Somebody who releases.
const RITA: Identity = Identity::new("rita-release", 2448);

/// The accounts of this part.
pub(crate) const ACCOUNTS: [Identity; 9] = [CODER, ANN, REPORTS, BOT, STOREFRONT, LEDGER, FAY, GUS, RITA];

/// Addresses that the examples are about; the loopback interface has them here.
const ADDRESSES: [&str; 3] = ["10.20.0.10/32", "10.30.0.10/32", "10.40.0.10/32"];

/// Where the packaged agent has its sockets, as the example's policy names them.
const SOCKETS: &str = "/run/guard";

fn policy(example: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(example).join("policy")
}

fn prepare() -> Result<()> {
    layout::create()?;
    layout::file(Path::new(ai_agent::CREDENTIAL), b"token\n")?;
    layout::directory(Path::new("/srv/work"))?;
    fs::copy(layout::which("guardctl")?, "/usr/bin/guardctl").context("install guardctl")?;
    group("oncall", 2450, &[ANN])?;
    group("forensics", 2451, &[FAY, GUS])?;
    group("release", 2452, &[RITA])?;
    for address in ADDRESSES {
        // It may be there from an earlier test.
        let _ = layout::run("ip", &["address", "add", address, "dev", "lo"]);
    }
    Ok(())
}

/// A group with these members, if there is none of that name.
fn group(name: &str, id: u32, members: &[Identity]) -> Result<()> {
    let groups = fs::read_to_string("/etc/group").context("read /etc/group")?;
    if groups.lines().any(|line| line.starts_with(&format!("{name}:"))) {
        return Ok(());
    }
    let members: Vec<&str> = members.iter().map(|member| member.name).collect();
    fs::write("/etc/group", format!("{groups}{name}:x:{id}:{}\n", members.join(","))).context("add a group")
}

/// What the bundle says of itself.
fn passes_its_own_tests(example: &str) -> Result<()> {
    let tested = output(Command::new("guardctl").args(["policy", "test"]).arg(policy(example)))?;
    ends_with(&tested, 0).with_context(|| String::from_utf8_lossy(&tested.stdout).into_owned())
}

/// `guardctl` as somebody who has no part in administering Guard.
fn guardctl(who: Identity, arguments: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/guardctl");
    command.args(arguments).uid(who.uid).gid(who.uid).stdin(Stdio::null());
    command
}

/// The number of the request that waits, once there is one.
fn first_request(daemon: &Daemon) -> Result<String> {
    let mut id = String::new();
    eventually("the request is there", || {
        let listed = output(&mut daemon.control(&["request", "list", "--json"]))?;
        let listed: Value = serde_json::from_slice(&listed.stdout).context("JSON")?;
        id = listed.pointer("/requests/0/id").map(Value::to_string).unwrap_or_default();
        Ok(!id.is_empty())
    })?;
    Ok(id)
}

/// An agent with the example's bundle, more in its configuration, and the sockets where the bundle expects them.
fn start(example: &str, configuration: &str) -> Result<Daemon> {
    start_with(example, &policy(example), configuration)
}

/// The same with a bundle made of it.
fn start_with(example: &str, bundle: &Path, configuration: &str) -> Result<Daemon> {
    let directory = Path::new(BASE).join(example);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).context("make the fixture")?;
    fs::create_dir_all(SOCKETS).context("make the directory of sockets")?;
    symlink(SOCKETS, directory.join("run")).context("lead to the sockets")?;
    let text = format!(
        "bundle = \"{}\"\nrun_dir = \"run\"\nstate_dir = \"state\"\n{}{configuration}",
        bundle.display(),
        Programs::Shared.configured(&directory)?
    );
    fs::write(directory.join("agent.toml"), text).context("write agent.toml")?;
    spawn(&directory)?.ready()
}

/// Runs `guardctl` as root, for somebody who logged in.
fn logged_in(daemon: &Daemon, who: Identity, arguments: &[&str]) -> Result<Output> {
    let mut command = daemon.control(arguments);
    // SAFETY: between fork and exec nothing but a file is opened and written.
    unsafe { command.pre_exec(move || fs::write("/proc/self/loginuid", who.uid.to_string())) };
    output(&mut command)
}
