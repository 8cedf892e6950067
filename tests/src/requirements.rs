//! Hosts that lack something: the agent and the doctor say what, each in its own words.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::bundle::Bundle;
use crate::case::Case;
use crate::daemon::{FAULT, configure_apart, spawn_in};
use crate::family::{Part, tests};
use crate::lifecycle::{output, prepare};

pub(crate) const PART: Part = Part {
    name: "requirements",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            a_kernel_without_type_information_is_named,
            a_kernel_that_is_too_old_is_named,
        ],
    ),
};

/// For a kernel that is locked down.
pub(crate) const LOCKDOWN: Part = Part {
    name: "lockdown",
    bundle: Ok,
    prepare: lock_down,
    tests: tests!(others: [lockdown_for_confidentiality_is_named]),
};

/// For a kernel that was booted without the bpf LSM.
pub(crate) const WITHOUT_BPF_LSM: Part = Part {
    name: "without-bpf",
    bundle: Ok,
    prepare,
    tests: tests!(others: [without_the_bpf_lsm_the_missing_parameter_is_named]),
};

/// The daemon, started through `host`, must end without ever having been ready, and say all of
/// `wanted` and that nothing is enforced. `fault` is a step for it to leave out.
pub(crate) fn daemon_refuses(host: &[&str], fault: Option<&str>, wanted: &[&str]) -> Result<()> {
    let directory = configure_apart("refuses", &Bundle::new("refuses").subject("agent", "user = \"agent\""))?;
    if let Some(fault) = fault {
        fs::write(directory.join(FAULT), fault).context("name what to leave out")?;
    }
    let (status, log) = spawn_in(host, &directory)?.refused()?;
    ensure!(status.code() == Some(4), "the daemon ended with {status}: {log}");
    for wanted in wanted.iter().chain(&["not enforcing"]) {
        ensure!(log.contains(wanted), "the daemon does not say {wanted:?}: {log}");
    }
    Ok(())
}

/// So must the doctor.
fn doctor_finds(host: &[&str], wanted: &[&str]) -> Result<()> {
    let words: Vec<&str> = host.iter().copied().chain(["guardctl", "doctor"]).collect();
    let Output { status, stdout, .. } = output(Command::new(words[0]).args(&words[1..]))?;
    let text = String::from_utf8_lossy(&stdout);
    ensure!(status.code() == Some(4), "the doctor ended with {status}: {text}");
    for wanted in wanted {
        ensure!(text.contains(wanted), "the doctor does not say {wanted:?}: {text}");
    }
    Ok(())
}

/// Both, on this host as these shell commands change it for them alone.
fn both_name(change: &str, wanted: &[&str]) -> Result<()> {
    let script = format!("{change} && exec \"$@\"");
    let host = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    daemon_refuses(&host, None, wanted)?;
    doctor_finds(&host, wanted)
}

fn a_kernel_without_type_information_is_named(_: &Case<'_>) -> Result<()> {
    both_name("mount -t tmpfs none /sys/kernel/btf", &["no BTF", "CONFIG_DEBUG_INFO_BTF=y"])
}

fn a_kernel_that_is_too_old_is_named(_: &Case<'_>) -> Result<()> {
    let release = "/run/guard-tests-osrelease";
    fs::write(release, "5.15.0-91-generic\n").context("write a release")?;
    both_name(
        &format!("mount --bind {release} /proc/sys/kernel/osrelease"),
        &["5.15.0-91-generic is older than 6.1", "boot a kernel of series 6.1 or later"],
    )
}

/// There is no way back but another boot.
fn lock_down() -> Result<()> {
    prepare()?;
    fs::write("/sys/kernel/security/lockdown", "confidentiality").context("lock the kernel down")
}

fn lockdown_for_confidentiality_is_named(_: &Case<'_>) -> Result<()> {
    let wanted = ["lockdown is in confidentiality mode", "lockdown=integrity is fine"];
    daemon_refuses(&[], None, &wanted)?;
    doctor_finds(&[], &wanted)
}

fn without_the_bpf_lsm_the_missing_parameter_is_named(_: &Case<'_>) -> Result<()> {
    let running = fs::read_to_string("/sys/kernel/security/lsm").context("read the list of modules")?;
    let others: Vec<&str> = running.trim().split(',').filter(|name| *name != "capability").collect();
    let parameter = format!("boot with: lsm={},bpf", others.join(","));
    daemon_refuses(&[], None, &["BPF LSM inactive", &parameter])?;
    doctor_finds(&[], &["BPF LSM inactive", &parameter])
}
