//! `cargo xtask bench`: what a decision costs.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::kernels::Series;
use crate::vm::{self, Guest};
use crate::{build, setup};

/// Count the instructions that a decision costs, with few literals and with many.
///
/// Runs in a guest whose clock counts instructions, so that numbers repeat on a busy machine: opening
/// a file whose directory is known, one whose directory is not, and connecting, without the agent and as
/// how much more a task without and with a label executes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series: 6.1, 6.12, 6.18, or 7 for the newest 7.x.
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: Series,
    /// Numbers of literals to measure with.
    #[arg(long, value_name = "N,N", default_value = "10,1000,10000")]
    literals: String,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    build::all()?;
    let environment = setup::guest(&args.kernel)?;
    let mut guest = Guest::new(["guard-bench", "--literals", &args.literals]);
    guest.icount = true;
    // Nothing but the programs that are measured, and no workarounds for flaws of processors.
    guest.append = vec!["lsm=landlock,bpf".to_owned(), "mitigations=off".to_owned()];
    guest.timeout = Some(Duration::from_secs(3600));
    vm::run_and_report(&guest, &environment)
}
