//! `cargo xtask scale`: what large policies cost.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Result;

use crate::command::{CommandExt, say};
use crate::kernels::Series;
use crate::vm::{self, Guest};
use crate::{build, paths, setup};

/// Measure how long large policies take to compile and to switch to.
///
/// Builds with optimisations, compiles bundles with many literals and subjects, changes a fact, and
/// prints times, table sizes and memory. With --kernel the switch and the change are measured in a
/// guest as well; under emulation, times there are many times those of a real machine.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Literals in the bundle.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    literals: usize,
    /// Subjects in the bundle.
    #[arg(long, value_name = "N", default_value_t = 100)]
    subjects: usize,
    /// Put the tables into the kernel of a guest of this series too: 6.1, 6.12, 6.18, or 7.
    #[arg(long, value_name = "SERIES")]
    kernel: Option<Series>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    build::bpf_object()?;
    Command::new(paths::cargo())
        .current_dir(paths::root())
        .args(["build", "--release", "--package", "guard-agent", "--example", "scale"])
        .run()?;
    let program = paths::target().join("release/examples/scale");
    let numbers = [args.literals.to_string(), args.subjects.to_string()];
    say!("on this machine");
    Command::new(&program).args(&numbers).run()?;
    let Some(series) = &args.kernel else { return Ok(ExitCode::SUCCESS) };
    let environment = setup::guest(series)?;
    say!("in a guest with {}", environment.kernel.release);
    let mut command = vec![program.into_os_string()];
    command.extend(numbers.iter().map(Into::into));
    command.push("--in-kernel".into());
    let guest = Guest { cpus: 2, timeout: Some(Duration::from_secs(900)), ..Guest::new(command) };
    vm::run_and_report(&guest, &environment)
}
