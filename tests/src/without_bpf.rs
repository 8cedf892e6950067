//! On a kernel that was booted without the bpf LSM, nothing is enforced, and that is said.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::case::Case;
use crate::daemon::{configure, spawn};
use crate::family::{Part, tests};
use crate::layout;
use crate::lifecycle::{output, small};

pub(crate) const PART: Part = Part {
    name: "without-bpf",
    bundle: Ok,
    prepare: layout::create,
    tests: tests!(
        others: [
            without_the_bpf_lsm_the_daemon_says_which_parameter_is_missing,
            without_the_bpf_lsm_the_doctor_says_so,
        ],
    ),
};

fn without_the_bpf_lsm_the_daemon_says_which_parameter_is_missing(_: &Case<'_>) -> Result<()> {
    let (status, log) = spawn(&configure("without-bpf", &small(1, &[]))?)?.refused()?;
    ensure!(status.code() == Some(4), "the daemon ended with {status}: {log}");
    ensure!(log.contains("lsm=") && log.contains("bpf"), "the boot parameter is not named: {log}");
    ensure!(log.contains("not enforcing"), "it does not say that nothing is enforced: {log}");
    Ok(())
}

fn without_the_bpf_lsm_the_doctor_says_so(_: &Case<'_>) -> Result<()> {
    let result = output(Command::new("guardctl").arg("doctor"))?;
    let text = [result.stdout, result.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    ensure!(!result.status.success(), "the doctor finds nothing wrong: {text}");
    ensure!(text.contains("lsm="), "the boot parameter is not named: {text}");
    Ok(())
}
