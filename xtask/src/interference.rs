//! `cargo xtask interference`: whether real programs notice Guard.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::kernels::Series;
use crate::vm::{self, Guest};
use crate::{build, paths, setup};

/// Compare what real programs do without Guard, beside it and under it.
///
/// git, a cargo build, nginx under load, pgbench, stress-ng and an overlay container run in a guest three
/// times: without Guard, with Guard attached and nothing labelled, and as a subject that is permitted
/// everything. Exit status, output and the tree that each leaves must be the same. A kernel that warns is a
/// failure. Ends in one line, `N workloads, N differences`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series: 6.1, 6.12, 6.18, or 7 for the newest 7.x.
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: Series,
    /// Use the binaries as they are instead of building them first.
    #[arg(long)]
    no_build: bool,
    /// Only workloads whose name contains this.
    filter: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !args.no_build {
        build::all()?;
    }
    let environment = setup::guest(&args.kernel)?;
    // The proxies of a toolchain manager want the home directory of the user who installed it.
    let cargo = toolchain_cargo();
    let command = ["guard-interference".into(), "--cargo".into(), cargo];
    let mut guest = Guest::new(command.into_iter().chain(args.filter.iter().map(Into::into)));
    guest.cpus = 2;
    guest.memory_mib = 3072;
    guest.timeout = Some(Duration::from_secs(3600));
    guest.scratch = vec!["ext4".to_owned()];
    vm::run_and_judge(&guest, &environment)
}

/// The cargo of the toolchain itself.
pub(crate) fn toolchain_cargo() -> std::ffi::OsString {
    let found = std::process::Command::new("rustc").args(["--print", "sysroot"]).output();
    match found {
        Ok(output) if output.status.success() => {
            let root = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            format!("{root}/bin/cargo").into()
        }
        _ => paths::cargo(),
    }
}
