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
mod adoption;
mod attributes;
mod boxes;
mod bpf;
mod caches;
mod canary;
mod case;
mod checks;
mod coverage;
mod credentials;
mod deputies;
mod doors;
mod escape;
mod exactness;
mod examples;
mod exec;
mod facts;
mod failures;
mod families;
mod family;
mod file;
mod first_hour;
mod flip;
mod flood;
mod fuse;
mod generations;
mod hostile;
mod identity;
mod image;
mod includes;
mod interpreter;
mod kills;
mod leases;
mod lifecycle;
mod listening;
mod machine;
mod mode;
mod mounts;
mod names;
mod network;
mod nginx;
mod nspawn;
mod own_tmpfs;
mod packaged;
mod path;
mod podman;
mod process;
mod programs;
mod puppet;
mod quickstart;
mod quiet;
mod reference;
mod report;
mod requirements;
mod ring;
mod roles;
mod running;
mod sctp;
mod selector;
mod self_protection;
mod selftest;
mod sending;
mod session;
mod shadow;
mod shared;
mod signed;
mod starters;
mod stdio;
mod step;
mod store;
mod successor;
mod systemd;
mod threats;
mod tracer;
mod transcript;
mod unix;
mod unused;
mod uring;
mod uses;
mod using;
mod why;
mod windows;

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
    /// Run the tests that start daemons themselves instead of the others.
    #[arg(long, conflicts_with_all = ["smoke", "systemd", "without_bpf_lsm", "lockdown"])]
    alone: bool,
    /// Run one half of what would be run: two guests can share a set.
    #[arg(long, value_enum)]
    half: Option<family::Half>,
    /// Run only the controls: every attack without Guard, where it must work.
    #[arg(long)]
    controls: bool,
    /// Run the tests that answer one entry of the catalogue of threats, or all of them, and report by entry.
    #[arg(long, value_name = "ENTRY", conflicts_with_all = ["smoke", "filter"])]
    threat: Option<String>,
    /// Print the names of the tests, or of the entries if --threat is given, instead of running them.
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
    /// Print the catalogue of threats for other programs.
    #[command(hide = true)]
    Catalogue,
    /// Write the page that shows the catalogue, with the results that standard input gives.
    #[command(hide = true)]
    Page {
        /// The page.
        page: std::path::PathBuf,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.inner {
        Some(Inner::Step { step }) => return step.run(),
        Some(Inner::Catalogue) => threats::check(&family::every_test()).map(|()| {
            threats::print();
            true
        }),
        Some(Inner::Page { page }) => std::io::read_to_string(std::io::stdin())
            .map_err(Into::into)
            .and_then(|run| threats::write(page, &run))
            .map(|()| true),
        None => select_and_run(&args),
    };
    match result {
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
        places: match args {
            Args { systemd: true, .. } => &[family::Place::Systemd],
            Args { without_bpf_lsm: true, .. } => &[family::Place::WithoutBpfLsm],
            Args { lockdown: true, .. } => &[family::Place::Lockdown],
            Args { alone: true, .. } => &[family::Place::Alone],
            Args { smoke: true, .. } => &[family::Place::Plain, family::Place::Alone],
            _ => &[family::Place::Plain],
        },
        filter: args.filter.clone().unwrap_or_default(),
        entries: args.threat.as_deref().map(threats::find).transpose()?,
        half: args.half,
    };
    threats::check(&family::every_test())?;
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
