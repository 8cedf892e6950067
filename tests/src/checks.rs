//! What the daemon and the client refuse before anything is enforced.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::bundle::Bundle;
use crate::case::Case;
use crate::daemon::{BASE, configure, spawn};
use crate::family::{Part, tests};
use crate::lifecycle::{ends_with, output, prepare, small};
use crate::users::FREE;

pub(crate) const PART: Part = Part {
    name: "checks",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            an_unreachable_daemon_is_exit_status_3,
            without_root_the_daemon_does_not_start,
            an_unknown_key_of_the_configuration_is_named,
            an_unknown_key_of_a_bundle_is_named,
            a_selector_that_covers_too_much_is_refused,
            an_unknown_user_is_named_and_selects_nobody,
            a_daemon_on_an_invalid_bundle_is_never_ready,
        ],
    ),
};

fn check(bundle: &Bundle) -> Result<Output> {
    let directory = bundle.write(&Path::new(BASE).join("check"))?;
    output(Command::new("guardctl").args(["policy", "check"]).arg(directory))
}

fn an_unreachable_daemon_is_exit_status_3(_: &Case<'_>) -> Result<()> {
    let directory = small(1, &[]).write(&Path::new(BASE).join("check"))?.display().to_string();
    for arguments in [&["status"][..], &["policy", "apply", &directory], &["events"]] {
        let mut command = Command::new("guardctl");
        command.args(["--socket", "/run/guard-tests/nowhere.sock"]).args(arguments);
        ends_with(&output(&mut command)?, 3).with_context(|| arguments.join(" "))?;
    }
    Ok(())
}

fn without_root_the_daemon_does_not_start(_: &Case<'_>) -> Result<()> {
    let directory = configure("no-root", &small(1, &[]))?;
    std::os::unix::fs::chown(&directory, Some(FREE.uid), Some(FREE.uid)).context("chown")?;
    let config = directory.join("agent.toml").display().to_string();
    let result =
        output(Command::new("guard-agent").args(["run", "--config", &config]).uid(FREE.uid).gid(FREE.uid))?;
    let text = String::from_utf8_lossy(&result.stderr);
    ensure!(!result.status.success(), "it started: {text}");
    ensure!(text.contains("root"), "it does not say that root is needed: {text}");
    Ok(())
}

fn an_unknown_key_of_the_configuration_is_named(_: &Case<'_>) -> Result<()> {
    let directory = configure("config-key", &small(1, &[]))?;
    fs::write(directory.join("agent.toml"), "bundle = \"bundle\"\nbundel = 1\n")
        .context("write agent.toml")?;
    let (status, log) = spawn(&directory)?.refused()?;
    ensure!(status.code() == Some(6) && log.contains("bundel"), "{status}: {log}");
    Ok(())
}

fn an_unknown_key_of_a_bundle_is_named(_: &Case<'_>) -> Result<()> {
    for (key, toml) in [
        ("selectr", "[subjects.x]\nselectr = { user = \"ci\" }\ngoverns = [\"*\"]\n"),
        ("usr", "[subjects.x]\nselector = { usr = \"ci\" }\ngoverns = [\"*\"]\n"),
        ("subject", "[subject.x]\nselector = { user = \"ci\" }\n"),
    ] {
        let result = check(&small(1, &[]).toml(toml))?;
        ends_with(&result, 6).context(key)?;
        let text = String::from_utf8_lossy(&result.stderr);
        ensure!(text.contains(key) && text.contains("guard.toml:"), "{key} is not named: {text}");
    }
    Ok(())
}

fn a_selector_that_covers_too_much_is_refused(_: &Case<'_>) -> Result<()> {
    for selector in [
        "user = \"root\"",
        "user = \"0\"",
        "group = \"root\"",
        "unit = \"init.scope\"",
        "unit = \"-.slice\"",
        "unit = \"system.slice\"",
        "unit = \"guard-agent.service\"",
        "cgroup = \"/\"",
        "cgroup = \"/system.slice\"",
        "cgroup = \"/init.scope\"",
        "exe_in = [\"/\"]",
        "exe_in = [\"/usr\"]",
        "exe_in = [\"/usr/bin\"]",
        "exe = \"/lib64/ld-linux-x86-64.so.2\"",
        "exe = \"/usr/lib/systemd/systemd\"",
    ] {
        let result = check(&small(1, &[]).subject("much", selector))?;
        ends_with(&result, 6).context(selector.to_owned())?;
        let text = String::from_utf8_lossy(&result.stderr);
        ensure!(text.contains("guard.toml:") && text.contains('^'), "{selector}: {text}");
    }
    Ok(())
}

fn an_unknown_user_is_named_and_selects_nobody(_: &Case<'_>) -> Result<()> {
    let result = check(&small(1, &[]).subject("ghost", "user = \"nobody-has-this-name\""))?;
    ends_with(&result, 0)?;
    let text = [result.stdout, result.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    ensure!(text.contains("nobody-has-this-name") && text.contains("matches nothing"), "{text}");
    Ok(())
}

fn a_daemon_on_an_invalid_bundle_is_never_ready(_: &Case<'_>) -> Result<()> {
    let directory = configure("never", &small(1, &[]).policy("bad", "permit (nonsense"))?;
    let (status, log) = spawn(&directory)?.refused()?;
    ensure!(status.code() == Some(6) && log.contains("bad.cedar:1:"), "{status}: {log}");
    Ok(())
}
