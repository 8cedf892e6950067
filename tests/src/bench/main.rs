//! What a decision costs, against what a user would pick instead (`cargo xtask bench`).
//!
//! `measure` runs in a guest whose clock advances by a nanosecond an instruction, so the time that a loop
//! takes is the number of instructions that it and the kernel executed, whatever else the machine does.
//! `present` shows what was measured, and compares it with another run, with budgets and with goals.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod costs;
mod measure;
mod operations;
mod places;
mod plan;
mod policy;
mod present;
mod programs;
mod record;
mod rivals;
mod run;
mod workloads;

/// Measure what decisions cost.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure here; the record goes to standard output.
    Measure(run::Args),
    /// Show what was measured.
    Present(present::Args),
}

fn main() -> ExitCode {
    let result: Result<bool> = match Args::parse().command {
        Command::Measure(args) => run::run(&args).map(|()| true),
        Command::Present(args) => present::run(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("guard-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
