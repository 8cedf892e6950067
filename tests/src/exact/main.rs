//! Whether the policy says exactly what is enforced, by random bundles and random requests: the
//! compiled tables against Cedar over the effective policy set, and real system calls in a guest
//! against the same oracle.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};

mod compare;
mod generate;
mod kernel;
mod kinds;
mod minimise;
mod model;
mod report;
mod requests;
mod tables;
#[cfg(test)]
mod tests;
mod words;
mod world;

/// Compare what is enforced with what policy says.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    side: Side,
}

#[derive(Subcommand)]
enum Side {
    /// The decision function over compiled tables, in user space.
    Tables {
        /// Decisions to compare.
        #[arg(long, default_value_t = 100_000)]
        cases: u64,
        /// Where the random numbers begin; the same seed gives the same cases.
        #[arg(long)]
        seed: Option<u64>,
        /// Threads; all processors if nothing is said.
        #[arg(long)]
        threads: Option<usize>,
    },
    /// Real system calls by labelled processes, in a guest.
    Kernel {
        /// Calls to compare.
        #[arg(long, default_value_t = 1000)]
        cases: u64,
        /// Where the random numbers begin.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// The requests of the reference bundle that a system call can express, in a guest.
    Reference,
}

fn main() -> ExitCode {
    match Args::parse().side {
        Side::Tables { cases, seed, threads } => {
            let threads = threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
            in_user_space(cases, seed.unwrap_or_else(|| fastrand::u64(..1 << 32)), threads.unwrap_or(1))
        }
        Side::Reference => match kernel::check_place().and_then(|()| kernel::reference::run()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("guard-exact: {error:#}");
                ExitCode::FAILURE
            }
        },
        Side::Kernel { cases, seed } => in_kernel(cases, seed.unwrap_or_else(|| fastrand::u64(..1 << 32)))
            .unwrap_or_else(|error| {
                eprintln!("guard-exact: {error:#}");
                ExitCode::FAILURE
            }),
    }
}

fn in_kernel(cases: u64, seed: u64) -> anyhow::Result<ExitCode> {
    kernel::check_place()?;
    let begin = Instant::now();
    eprintln!("exact: system calls against Cedar, seed {seed}");
    let outcome = kernel::run(cases, seed)?;
    eprintln!(
        "exact: {} bundles in {:.1} s: {} calls refused, {} on ground of the process's own, {} decisions reported; {} more calls fail for everybody",
        outcome.bundles,
        begin.elapsed().as_secs_f64(),
        outcome.refused,
        outcome.on_ground,
        outcome.reported,
        outcome.without_answer
    );
    Ok(end(outcome.decisions, outcome.counter_example))
}

fn in_user_space(cases: u64, seed: u64, threads: usize) -> ExitCode {
    let begin = Instant::now();
    eprintln!("exact: tables against Cedar, seed {seed}, {threads} threads");
    let outcome = tables::run(cases, seed, threads);
    let [denied, allowed, reported] = outcome.answers;
    eprintln!(
        "exact: {} bundles in {:.1} s: {denied} denied, {allowed} allowed, {reported} allowed that would be denied",
        outcome.bundles,
        begin.elapsed().as_secs_f64()
    );
    for (code, count) in &outcome.refused {
        eprintln!("exact: {count} more bundles were refused with {code}");
    }
    end(outcome.decisions, outcome.counter_example)
}

/// The last line, and what is before it.
fn end(decisions: u64, counter_example: Option<String>) -> ExitCode {
    let differences = u64::from(counter_example.is_some());
    if let Some(text) = counter_example {
        println!("{text}");
    }
    println!("{} decisions, {differences} differences", decisions + differences);
    if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
