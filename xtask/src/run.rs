//! `cargo xtask run`: see Guard enforce a policy, on this machine or in a guest.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, bail};

use crate::command::say;
use crate::kernels::Series;
use crate::vm::{self, Guest};
use crate::{build, paths, setup};

/// The scenario: starts the agent, plays the example's service accounts and says what happens.
const SCRIPT: &str = "examples/quickstart/demo.py";

/// Watch Guard enforce the policy in examples/quickstart.
///
/// Runs on this machine where it may load BPF LSM programs and in a virtual machine where it may
/// not, and says which and why. On a terminal it leaves you in a shell to try things.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Use a guest even where this machine could do it.
    #[arg(long)]
    guest: bool,
    /// Kernel series of the guest: 6.1, 6.12, 6.18, or 7 for the newest 7.x.
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: Series,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    build::all()?;
    let script = paths::root().join(SCRIPT);
    if !script.exists() {
        bail!("{} does not exist", script.display());
    }
    let reason = if args.guest { Err("asked for".to_owned()) } else { host_can_load_lsm() };
    match reason {
        Ok(()) => {
            say!("running on this machine: it loads BPF LSM programs");
            natively(&script)
        }
        Err(reason) => {
            say!("running in a guest, because this machine does not load BPF LSM programs: {reason}");
            in_guest(&script, &args.kernel)
        }
    }
}

/// Whether this machine loads and calls BPF LSM programs, found out by doing it; else why not.
fn host_can_load_lsm() -> Result<(), String> {
    let agent = paths::binaries().join("guard-agent");
    let output = Command::new(agent)
        .arg("probe")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("the probe does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    // What follows the first line is for those who want to know how the kernel put it.
    let text = String::from_utf8_lossy(&output.stderr);
    let reason = text.lines().find_map(|line| line.strip_prefix("guard-agent: "));
    Err(reason.unwrap_or("the probe failed").to_owned())
}

fn natively(script: &std::path::Path) -> Result<ExitCode> {
    let path = std::env::var("PATH").unwrap_or_default();
    let status = Command::new("python3")
        .arg(script)
        .current_dir(paths::root())
        .env("PATH", format!("{}:{path}", paths::binaries().display()))
        .status()?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn in_guest(script: &std::path::Path, series: &Series) -> Result<ExitCode> {
    let environment = setup::guest(series)?;
    let mut guest = Guest::new(["python3".as_ref(), script.as_os_str()]);
    guest.stdin = true;
    guest.terminal = vm::is_interactive();
    vm::run_and_report(&guest, &environment)
}
