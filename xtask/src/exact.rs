//! `cargo xtask exact`: random bundles and requests against Cedar.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::kernels::Series;
use crate::vm::{self, Guest};
use crate::{build, paths, setup};

/// Compare what is enforced with what policy says, by random bundles and random requests.
///
/// Without --kernel, the decision function over compiled tables is compared with Cedar over the
/// effective policy set, on this machine. With --kernel, real system calls by labelled processes are, in
/// a guest, under the real daemon. Ends in one line, `N decisions, N differences`; a difference is made
/// small and printed as a bundle and a request.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Decisions to compare.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    cases: u64,
    /// Make real system calls in a guest with this kernel series: 6.1, 6.12, 6.18 or 7.
    #[arg(long, value_name = "SERIES")]
    kernel: Option<Series>,
    /// Where the random numbers begin, to repeat a run.
    #[arg(long)]
    seed: Option<u64>,
    /// Threads; all processors if nothing is said.
    #[arg(long, conflicts_with = "kernel")]
    threads: Option<usize>,
}

/// A guest is slow, and so is what it may have to wait for.
const SECONDS_PER_CASE: u64 = 2;

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let seed = args.seed.map(|seed| ["--seed".to_owned(), seed.to_string()]);
    let threads = args.threads.map(|threads| ["--threads".to_owned(), threads.to_string()]);
    let options = ["--cases".to_owned(), args.cases.to_string()].into_iter();
    let options: Vec<String> =
        options.chain(seed.into_iter().flatten()).chain(threads.into_iter().flatten()).collect();
    let Some(series) = &args.kernel else {
        return in_user_space(&options);
    };
    build::all()?;
    let environment = setup::guest(series)?;
    let command = ["guard-exact".to_owned(), "kernel".to_owned()].into_iter().chain(options);
    let mut guest = Guest::new(command);
    guest.cpus = 2;
    guest.memory_mib = 3072;
    guest.timeout = Some(Duration::from_secs(600 + SECONDS_PER_CASE * args.cases));
    guest.scratch = environment.disks.iter().map(|disk| disk.kind.to_owned()).collect();
    vm::run_and_report(&guest, &environment)
}

fn in_user_space(options: &[String]) -> Result<ExitCode> {
    let status = Command::new(paths::cargo())
        .current_dir(paths::root())
        .args(["run", "--release", "--package", "guard-tests", "--bin", "guard-exact", "--", "tables"])
        .args(options)
        .status()
        .context("start cargo")?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
