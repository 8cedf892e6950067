//! `cargo xtask bench`: what decisions cost.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{CommandExt, say};
use crate::kernels::Series;
use crate::vm::{Ended, Guest, Stream};
use crate::{build, interference, paths, setup};

/// Measure what decisions cost, against what a user would pick instead.
///
/// Runs in a guest whose clock counts instructions, so that numbers repeat on a busy machine: operations on
/// files, processes and sockets without an agent, with empty programs on the same hooks, under Guard without
/// and with a label, under Landlock, and beside a fanotify listener and a seccomp supervisor. Prints tables
/// and where each goal stands, and leaves the record and a chart in target/bench.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series: 6.1, 6.12, 6.18, or 7 for the newest 7.x.
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: Series,
    /// Measure on this host instead, in time; it has to let BPF LSM programs in.
    #[arg(long)]
    native: bool,
    /// Numbers of literals to measure with.
    #[arg(long, value_name = "N,N", default_value = "10,1000,10000")]
    literals: String,
    /// Only operations whose key contains this.
    #[arg(long, value_name = "TEXT")]
    operation: Option<String>,
    /// Also measure memory, starts, changes and events (costs), and whole programs (workloads).
    #[arg(long, value_name = "PARTS")]
    also: Option<String>,
    /// Leave the operations out, for what --also names.
    #[arg(long, requires = "also")]
    no_operations: bool,
    /// Keep the record in this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show what differs from the record in this file.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Measure only what budgets are about, and fail where one is exceeded.
    #[arg(long, conflicts_with_all = ["page", "also"])]
    check: bool,
    /// Measure only what budgets are about, and make that the budgets.
    #[arg(long, conflicts_with_all = ["page", "also", "check"])]
    set_budgets: bool,
    /// Put tables and chart into docs/performance.md.
    #[arg(long)]
    page: bool,
    /// Show this record again instead of measuring.
    #[arg(long, value_name = "FILE")]
    show: Option<PathBuf>,
    /// Use the binaries as they are instead of building them first.
    #[arg(long)]
    no_build: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !args.no_build {
        build::all()?;
    }
    match &args.show {
        Some(record) => present(args, record, false),
        None => {
            let record = if args.native { native(args)? } else { in_guest(args)? };
            present(args, &record, true)
        }
    }
}

/// The command that measures.
fn measuring(args: &Args) -> Vec<String> {
    let mut words = ["guard-bench", "measure", "--literals", &args.literals].map(str::to_owned).to_vec();
    if args.check || args.set_budgets {
        words.push("--reduced".to_owned());
    }
    let options = [("--operation", &args.operation), ("--also", &args.also)];
    for (name, value) in options.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        words.extend([name.to_owned(), value.clone()]);
    }
    if args.no_operations {
        words.push("--no-operations".to_owned());
    }
    words
}

/// Measures in a guest; the record.
fn in_guest(args: &Args) -> Result<PathBuf> {
    let environment = setup::guest(&args.kernel)?;
    let mut command: Vec<std::ffi::OsString> = measuring(args).into_iter().map(Into::into).collect();
    command.extend(["--cargo".into(), interference::toolchain_cargo()]);
    let mut guest = Guest::new(command);
    guest.icount = true;
    guest.memory_mib = 3072;
    // Nothing but the programs that are measured, and no workarounds for flaws of processors.
    guest.append = vec!["lsm=landlock,bpf".to_owned(), "mitigations=off".to_owned()];
    guest.timeout = Some(Duration::from_secs(3600));
    let mut record = Vec::new();
    let outcome = guest.run(&environment, &mut |stream, bytes| match stream {
        Stream::Stdout => record.write_all(bytes),
        Stream::Stderr => std::io::stderr().write_all(bytes),
    })?;
    for warning in &outcome.warnings {
        say!("kernel warning in the guest: {warning}");
    }
    match outcome.ended {
        Ended::Exit(0) => {}
        Ended::Exit(status) => bail!("measuring failed with exit status {status}"),
        Ended::Crash(why) | Ended::TimedOut(why) => bail!("{why}"),
    }
    keep(&record, &environment.kernel.release)
}

/// Measures here; the record.
fn native(args: &Args) -> Result<PathBuf> {
    let words = measuring(args);
    let probe = Command::new(paths::binaries().join("guard-agent")).arg("probe").output();
    let probe = probe.context("start guard-agent")?;
    ensure!(
        probe.status.success(),
        "this host does not let Guard's programs in, leave --native out to measure in a guest: {}",
        String::from_utf8_lossy(&probe.stderr).trim()
    );
    let path = format!("{}:{}", paths::binaries().display(), std::env::var("PATH").unwrap_or_default());
    let record = Command::new(paths::binaries().join(&words[0]))
        .args(&words[1..])
        .arg("--native")
        .env("PATH", path)
        .read()?;
    keep(record.as_bytes(), "native")
}

fn directory() -> Result<PathBuf> {
    let directory = paths::target().join("bench");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    Ok(directory)
}

fn keep(record: &[u8], name: &str) -> Result<PathBuf> {
    let path = directory()?.join(format!("{name}.json"));
    fs::write(&path, record).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Shows a record; one that is new is told when, of what and by which command it was made.
fn present(args: &Args, record: &PathBuf, is_new: bool) -> Result<ExitCode> {
    let mut command = Command::new(paths::binaries().join("guard-bench"));
    command.current_dir(paths::root()).arg("present").arg(record);
    if is_new {
        let date = Command::new("date").args(["-u", "+%F"]).read()?;
        let revision =
            Command::new("git").current_dir(paths::root()).args(["describe", "--always", "--dirty"]).read();
        let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--no-build").collect();
        command.args(["--date", date.trim()]);
        command.args(["--revision", revision.as_deref().unwrap_or("unknown").trim()]);
        command.args(["--command", &format!("cargo xtask {}", words.join(" "))]);
    }
    let here = std::env::current_dir().context("find the working directory")?;
    let kept = args.json.as_ref().map_or_else(|| record.clone(), |path| here.join(path));
    command.arg("--json").arg(kept);
    if let Some(path) = &args.compare {
        command.arg("--compare").arg(here.join(path));
    }
    let budgets = paths::root().join("tests/src/bench/budgets.json");
    if args.check {
        command.arg("--check").arg(&budgets);
    }
    if args.set_budgets {
        command.arg("--set-budgets").arg(&budgets);
    }
    if args.page {
        command.arg("--chart").arg(paths::root().join("docs/performance.svg"));
        command.arg("--page").arg(paths::root().join("docs/performance.md"));
    } else if !args.check && !args.set_budgets {
        command.arg("--chart").arg(directory()?.join("chart.svg"));
    }
    let status = command.status().context("start guard-bench")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
