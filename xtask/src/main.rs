//! Everything a contributor runs, as one program: `cargo xtask --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod apt;
mod bench;
mod btf_names;
mod build;
mod channel;
mod command;
mod exact;
mod guest;
mod guest_packages;
mod interference;
mod kernels;
mod linker;
mod lint;
mod object_check;
mod oracle;
mod paths;
mod qemu;
mod run;
mod rust_src;
mod scale;
mod scratch;
mod setup;
mod test;
mod threats;
mod verifier;
mod vm;

/// Build, try and test Guard.
///
/// Whatever a command needs (BPF linker, Rust sources, QEMU, kernels) is looked for on this machine
/// first and otherwise fetched, verified and kept in ~/.cache/guard, after saying so.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    Setup(setup::Args),
    Build(build::Args),
    Vm(vm::Args),
    Run(run::Args),
    Test(test::Args),
    Threats(threats::Args),
    Interference(interference::Args),
    Exact(exact::Args),
    Oracle(oracle::Args),
    Lint(lint::Args),
    Scale(scale::Args),
    Bench(bench::Args),
    #[command(hide = true)]
    Guest(guest::Args),
}

fn main() -> ExitCode {
    let result: Result<ExitCode> = match Cli::parse().command {
        Task::Setup(args) => setup::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Build(args) => build::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Run(args) => run::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Threats(args) => threats::run(&args),
        Task::Interference(args) => interference::run(&args),
        Task::Scale(args) => scale::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Exact(args) => exact::run(&args),
        Task::Oracle(args) => oracle::run(&args),
        Task::Lint(args) => lint::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Vm(args) => vm::run(args),
        Task::Guest(args) => guest::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
