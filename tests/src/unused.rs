//! `guardctl report --unused`: permits of which nothing was used, through switches and restarts.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::{Daemon, spawn};
use crate::family::{Part, tests};
use crate::layout::path;
use crate::lifecycle::{ends_with, output, prepare};
use crate::puppet::Puppet;
use crate::users::AGENT;

pub(crate) const PART: Part = Part {
    name: "unused",
    bundle: Ok,
    prepare,
    tests: tests!(others: [a_permit_counts_as_used_from_its_first_use_on],),
};

fn report(daemon: &Daemon) -> Result<Value> {
    let result = output(&mut daemon.control(&["report", "--unused", "--subject", "agent", "--json"]))?;
    ends_with(&result, 0)?;
    let value: Value = serde_json::from_slice(&result.stdout).context("JSON")?;
    ensure!(value["schema"] == "guard.unused/1" && value["subjects"][0]["subject"] == "agent", "{value}");
    Ok(value["subjects"][0].clone())
}

/// Whether the policy is listed under this heading.
fn lists(report: &Value, heading: &str, policy: &str) -> bool {
    report[heading].as_array().is_some_and(|all| all.iter().any(|one| one["policy"] == policy))
}

fn a_permit_counts_as_used_from_its_first_use_on(_: &Case<'_>) -> Result<()> {
    let file = |name: &str| path("flip").join(name);
    let policy = permit("first", "agent", &["file.read"], &within(&[file("first")]))
        + &permit("second", "agent", &["file.read"], &within(&[file("second")]))
        + &permit("write", "agent", &["file.write"], &within(&[file("first")]))
        + &permit("mount", "agent", &["sys.mount"], "true");
    let bundle = Bundle::new("small").subject("agent", "user = \"agent\"").policy("web", policy);
    let daemon = Daemon::start("unused", &bundle)?;
    let directory = daemon.directory().to_owned();
    let before = report(&daemon)?;
    for policy in ["web/first", "web/second", "web/write", "web/mount"] {
        ensure!(lists(&before, "unused", policy), "{policy} was used: {before}");
    }
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&file("both"))?;
    puppet.is_allowed(&file("first"))?;
    let after = report(&daemon)?;
    ensure!(!lists(&after, "unused", "web/first"), "{after}");
    for policy in ["web/second", "web/write"] {
        ensure!(lists(&after, "unused", policy), "{policy} was used: {after}");
    }
    // A reload is another generation of the same bundle, and a restart another one again.
    nix::sys::signal::kill(daemon.pid(), nix::sys::signal::Signal::SIGHUP).context("signal the daemon")?;
    puppet.is_allowed(&file("second"))?;
    puppet.end()?;
    daemon.stop()?;
    let daemon = spawn(&directory)?.ready()?;
    let again = report(&daemon)?;
    for policy in ["web/first", "web/second"] {
        ensure!(!lists(&again, "unused", policy), "{policy} was forgotten: {again}");
    }
    ensure!(lists(&again, "unused", "web/write") && again["since"] == before["since"], "{again}");
    let text = output(&mut daemon.control(&["report", "--unused"]))?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    ensure!(text.contains("web/write  web.cedar:") && text.contains("not seen"), "{text}");
    ends_with(&output(&mut daemon.control(&["report", "--unused", "--subject", "nobody"]))?, 6)?;
    daemon.stop().map(drop)
}
