//! Tests that run inside guests, as root, against the real kernel and the real daemon.
//!
//! Every attack is tried three times: without Guard (it must work, else the test proves nothing),
//! by a labelled process under Guard (it must fail with the stated errno, leave the canary as it
//! was, and be reported), and by an unlabelled process under Guard (it must work). Every family has
//! permitted twins of its attacks that must work under Guard as well.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
// The test modules name these as their own.
use guard_tests::{attempt, bundle, daemon, elf, events, http, layout, raw, users};

mod admin;
mod bpf;
mod caches;
mod canary;
mod case;
mod checks;
mod deputies;
mod escape;
mod exactness;
mod exec;
mod family;
mod file;
mod first_hour;
mod flip;
mod generations;
mod hostile;
mod identity;
mod includes;
mod lifecycle;
mod mode;
mod mounts;
mod network;
mod nginx;
mod own_tmpfs;
mod path;
mod programs;
mod puppet;
mod quickstart;
mod quiet;
mod report;
mod requirements;
mod running;
mod selector;
mod session;
mod shadow;
mod stdio;
mod step;
mod store;
mod systemd;
mod transcript;
mod unix;
mod unused;
mod uring;
mod why;

/// The in-guest tests of Guard.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    inner: Option<Inner>,
    /// Run the dozen tests that every kernel series gets on every change.
    #[arg(long, conflicts_with_all = ["full", "systemd"])]
    smoke: bool,
    /// Repeat races as often as their tests promise.
    #[arg(long)]
    full: bool,
    /// Run the tests that need systemd as PID 1 instead of the others.
    #[arg(long)]
    systemd: bool,
    /// Run the tests for a kernel that was booted without the bpf LSM instead of the others.
    #[arg(long, conflicts_with_all = ["smoke", "systemd"])]
    without_bpf_lsm: bool,
    /// Lock this kernel down and run the tests for that instead of the others.
    #[arg(long, conflicts_with_all = ["smoke", "systemd", "without_bpf_lsm"])]
    lockdown: bool,
    /// Run only the controls: every attack without Guard, where it must work.
    #[arg(long)]
    controls: bool,
    /// Print the names of the tests instead of running them.
    #[arg(long)]
    list: bool,
    /// Run only tests whose name, or whose part's name, contains this.
    filter: Option<String>,
}

/// What the tests start this program for.
#[derive(Subcommand)]
enum Inner {
    /// Take one step of an attack.
    #[command(hide = true)]
    Step {
        #[command(subcommand)]
        step: step::Step,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Inner::Step { step }) = &args.inner {
        return step.run();
    }
    match select_and_run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("guard-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn select_and_run(args: &Args) -> Result<bool> {
    let wanted = family::Wanted {
        smoke: args.smoke,
        place: match (args.systemd, args.without_bpf_lsm, args.lockdown) {
            (true, ..) => family::Place::Systemd,
            (_, true, _) => family::Place::WithoutBpfLsm,
            (.., true) => family::Place::Lockdown,
            _ => family::Place::Plain,
        },
        filter: args.filter.clone().unwrap_or_default(),
    };
    if args.list {
        for name in family::names(&wanted) {
            println!("{name}");
        }
        return Ok(true);
    }
    ensure!(
        Path::new("/run/guard-vm").is_dir(),
        "these tests change accounts and file systems, so they run in guests only: cargo xtask test"
    );
    family::run_all(&wanted, args.full, args.controls)
}
