//! `cargo xtask oracle`: random operations under Landlock and under Guard.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::command::say;
use crate::kernels::Selection;
use crate::vm::{self, Guest};
use crate::{build, setup};

/// Compare what Guard decides with what the kernel's own Landlock decides.
///
/// Random operations on files and TCP ports are made in step by a process without restrictions, by one
/// under a random rule set of Landlock, and by one with a label and the translated policy. Error numbers and
/// the trees that are left must be the same, but for the differences that docs/oracle.md explains. Ends, for
/// each kernel, in one line, `N operations, N unexplained differences`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series: 6.1, 6.12, 6.18, 7 or all.
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: Selection,
    /// Operations to compare.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    ops: u64,
    /// Where the random numbers begin, to repeat a run.
    #[arg(long, value_name = "X")]
    seed: Option<u64>,
    /// Only this round of that seed.
    #[arg(long, value_name = "N", requires = "seed")]
    round: Option<u64>,
    /// Translate some rules wrongly, to see that it is noticed.
    #[arg(long)]
    plant: bool,
    /// Use the binaries as they are instead of building them first.
    #[arg(long)]
    no_build: bool,
}

/// What a guest may take to boot and to start the daemon, and for a hundred operations.
const SECONDS: u64 = 900;
const SECONDS_PER_HUNDRED: u64 = 6;

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !args.no_build {
        build::all()?;
    }
    let mut command = vec!["guard-oracle".to_owned(), "--ops".to_owned(), args.ops.to_string()];
    for (name, value) in [("--seed", args.seed), ("--round", args.round)] {
        command.extend(value.into_iter().flat_map(|value| [name.to_owned(), value.to_string()]));
    }
    command.extend(args.plant.then(|| "--plant".to_owned()));
    let mut worst = ExitCode::SUCCESS;
    for series in args.kernel.series() {
        say!("Linux {series}");
        let environment = setup::guest(&series)?;
        let mut guest = Guest::new(&command);
        guest.cpus = 2;
        guest.memory_mib = 3072;
        guest.timeout = Some(Duration::from_secs(SECONDS + args.ops * SECONDS_PER_HUNDRED / 100));
        guest.scratch = vec!["ext4".to_owned()];
        let status = vm::run_and_judge(&guest, &environment)?;
        if status != ExitCode::SUCCESS {
            worst = status;
        }
    }
    Ok(worst)
}
