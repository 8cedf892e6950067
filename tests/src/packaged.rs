//! The packaged unit with systemd as PID 1: what runs before the agent, and what is ordered after it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::attempt::eventually;
use crate::bundle::{Bundle, permit};
use crate::case::Case;
use crate::family::{Part, tests};
use crate::layout::{self, path};

pub(crate) const PART: Part = Part {
    name: "packaged",
    bundle: Ok,
    prepare,
    tests: tests!(others: [services_before_and_after_the_packaged_agent_are_both_labelled_when_it_is_ready]),
};

const AGENT: &str = "guard-agent.service";
/// Runs when the agent starts, and goes on.
const EARLY: &str = "guard-early.service";
/// Is ordered after the agent.
const LATE: &str = "guard-late.service";
/// Where both say what became of reading the secret.
const SAID: &str = "/run/guard-said";
/// The shell that both are, as a copy, and what it executes.
const SHELL: &str = "programs/sh";

fn secret() -> std::path::PathBuf {
    path("shut/secret")
}

fn install(from: &Path, to: &str) -> Result<()> {
    let to = Path::new(to);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    fs::copy(from, to).map(drop).with_context(|| format!("install {} as {}", from.display(), to.display()))
}

fn prepare() -> Result<()> {
    layout::create()?;
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    for program in ["guard-agent", "guardctl"] {
        install(&layout::which(program)?, &format!("/usr/bin/{program}"))?;
    }
    install(&packaging.join("agent.toml"), "/etc/guard/agent.toml")?;
    install(&packaging.join(AGENT), &format!("/etc/systemd/system/{AGENT}"))?;
    // Loading is what emulation makes slow; how long it takes is not what this is about.
    let slow = format!("/etc/systemd/system/{AGENT}.d");
    fs::create_dir_all(&slow).context("create the drop-in directory")?;
    fs::write(format!("{slow}/slow.conf"), "[Service]\nTimeoutStartSec=900\n")
        .context("write the drop-in")?;
    let said = Path::new(SAID);
    let _ = fs::remove_dir_all(said);
    layout::directory(said)?;
    layout::program(&path(SHELL), &fs::read(layout::which("sh")?).context("read sh")?)?;
    // Read by the shell itself, so that nothing else is executed.
    let try_it = format!("if read x <{}; then echo read; else echo refused; fi", secret().display());
    let shell = path(SHELL).display().to_string();
    let early = format!(
        "[Service]\nType=exec\nExecStart={shell} -c 'while :; do {try_it}; sleep 0.05; done'\n\
         StandardInput=null\nStandardOutput=append:{SAID}/early\nStandardError=null\n"
    );
    let late = format!(
        "[Unit]\nRequires={AGENT}\nAfter={AGENT}\n[Service]\nType=oneshot\nExecStart={shell} -c '{try_it}'\n\
         StandardOutput=append:{SAID}/late\nStandardError=null\n"
    );
    for (unit, text) in [(EARLY, early), (LATE, late)] {
        fs::write(format!("/etc/systemd/system/{unit}"), text).with_context(|| format!("write {unit}"))?;
    }
    layout::run("systemctl", &["daemon-reload"])
}

/// Both services may do everything but read one file.
fn bundle() -> Result<std::path::PathBuf> {
    let mut bundle = Bundle::new("packaged");
    for (name, unit) in [("early", EARLY), ("late", LATE)] {
        let policy = permit(name, name, &["*"], "!(resource in Guard::Name::\"shut\")");
        bundle = bundle.subject(name, &format!("unit = \"{unit}\"")).policy(name, policy);
    }
    bundle.write(Path::new("/etc/guard/bundle"))
}

fn systemctl(arguments: &[&str]) -> Result<()> {
    layout::run("systemctl", arguments).map_err(|error| {
        let journal = Command::new("journalctl").args(["--no-pager", "-n", "40", "-u", AGENT]).output();
        let journal = journal.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        error.context(journal.unwrap_or_default())
    })
}

/// What a service has said so far, line by line.
fn said(name: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(SAID).join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn services_before_and_after_the_packaged_agent_are_both_labelled_when_it_is_ready(
    _: &Case<'_>,
) -> Result<()> {
    bundle()?;
    systemctl(&["start", EARLY])?;
    eventually("the early service reads the file", || Ok(said("early").contains(&"read".to_owned())))?;
    // Starts the agent, waits until it is ready, then begins the late one.
    systemctl(&["start", LATE])?;
    let before = said("early").len();
    ensure!(said("late") == ["refused"], "what is ordered after the agent: {:?}", said("late"));
    eventually("the early service goes on", || Ok(said("early").len() > before + 3))?;
    let early = said("early").split_off(before + 1);
    ensure!(early.iter().all(|line| line == "refused"), "what ran before the agent was ready: {early:?}");
    let refused = said("early").iter().filter(|line| *line == "refused").count();
    systemctl(&["stop", EARLY])?;
    // Stopping the agent changes nothing; disarming does.
    fs::write("/etc/systemd/system/guard-late.service", late_alone()?).context("write the unit")?;
    layout::run("systemctl", &["daemon-reload"])?;
    systemctl(&["stop", AGENT])?;
    systemctl(&["start", LATE])?;
    ensure!(said("late") == ["refused", "refused"], "with the agent stopped: {:?}", said("late"));
    systemctl(&["start", AGENT])?;
    layout::run("guardctl", &["disarm", "--yes", "--reason", "the end of the test"])?;
    eventually("the unit ends with its agent", || {
        let state = Command::new("systemctl").args(["is-active", AGENT]).output().context("ask systemd")?;
        Ok(String::from_utf8_lossy(&state.stdout).trim() == "inactive")
    })?;
    // The control: without Guard the same services read the file.
    systemctl(&["start", LATE])?;
    ensure!(said("late") == ["refused", "refused", "read"], "disarmed: {:?}", said("late"));
    println!("  the early service was refused {refused} times");
    Ok(())
}

/// The late service without its order.
fn late_alone() -> Result<String> {
    let text = fs::read_to_string(format!("/etc/systemd/system/{LATE}")).context("read the unit")?;
    Ok(text.replace(&format!("Requires={AGENT}\nAfter={AGENT}\n"), ""))
}
