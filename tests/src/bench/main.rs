//! What a decision costs, in instructions: for a guest that counts them (`cargo xtask bench`).
//!
//! In such a guest the clock advances by a nanosecond an instruction, so the time that a loop takes is
//! the number of instructions that it and the kernel executed, whatever else the machine does.

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use guard_tests::attempt::{Outcome, attempt};
use guard_tests::bundle::{Bundle, permit};
use guard_tests::daemon::Daemon;
use guard_tests::layout;
use guard_tests::raw::SharedCounters;
use guard_tests::users::{self, AGENT, FREE, Identity};

/// Measure what one operation costs, in a guest that counts instructions.
#[derive(Parser)]
struct Args {
    /// Operations in each of the measured loops.
    #[arg(long, default_value_t = 2000)]
    operations: u64,
    /// Numbers of literals to measure with.
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    literals: Vec<usize>,
}

/// Loops of each measurement, of which the fastest counts: the others were interrupted.
const LOOPS: usize = 5;
/// Directories of the row in which no directory is known: more than a processor remembers.
const UNKNOWN_DIRECTORIES: usize = 2048;
const PORT: u16 = 9;
/// Literals in one policy.
const TERMS: usize = 50;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guard-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn base() -> PathBuf {
    Path::new("/scratch/tmpfs/bench").to_owned()
}

/// The file, four directories below the one that policy permits.
fn file() -> PathBuf {
    base().join("a/b/c/d/file")
}

fn scattered(number: usize) -> PathBuf {
    base().join(format!("many/{number}/file"))
}

fn run(args: &Args) -> Result<()> {
    ensure!(Path::new("/run/guard-vm").is_dir(), "this measures in guests only: cargo xtask bench");
    users::create(std::iter::empty())?;
    layout::file(&file(), b"content\n")?;
    for number in 0..UNKNOWN_DIRECTORIES {
        layout::file(&scattered(number), b"content\n")?;
    }
    println!("{:<34}{:>12}{:>12}{:>12}", "instructions per operation", "open+close", "cold", "connect");
    let without = measure("no agent", FREE, args.operations, None)?;
    for (index, literals) in args.literals.iter().enumerate() {
        let bundle = bundle(*literals);
        let daemon = Daemon::start_apart("bench", &bundle)?;
        if index == 0 {
            measure("unlabelled task", FREE, args.operations, Some(without))?;
        }
        measure(&format!("labelled task, {literals} literals"), AGENT, args.operations, Some(without))?;
        daemon.stop()?;
    }
    Ok(())
}

/// One directory and one network that are used, among many that are not.
fn bundle(literals: usize) -> Bundle {
    let mut paths = vec![format!("resource in Guard::Dir::\"{}\"", base().display())];
    let mut networks = vec!["resource in Guard::Net::\"127.0.0.0/8\"".to_owned()];
    for number in 1..literals / 2 {
        let (high, low) = (number / 64, number % 64);
        paths.push(format!("resource in Guard::Dir::\"/srv/other/{high}/{low}/data\""));
        networks.push(format!("resource in Guard::Net::\"10.{}.{}.0/25\"", number / 256, number % 256));
    }
    let policies = |action: &str, terms: &[String]| -> String {
        let each = terms.chunks(TERMS).enumerate();
        each.map(|(number, terms)| {
            permit(&format!("{action}-{number}"), "agent", &[action], &terms.join(" || "))
        })
        .collect()
    };
    let policy = policies("file.read", &paths) + &policies("net.connect", &networks);
    Bundle::new("bench").subject("agent", "user = \"agent\"").policy("bench", policy)
}

/// Runs the three loops as `who` and prints their costs, and how much more than `without` they are.
fn measure(name: &str, who: Identity, operations: u64, without: Option<[u64; 3]>) -> Result<[u64; 3]> {
    let counters = SharedCounters::new().context("share memory")?;
    let outcome = attempt(who, || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let warm = file();
        let many: Vec<PathBuf> = (0..UNKNOWN_DIRECTORIES).map(scattered).collect();
        let loops: [&dyn Fn(usize) -> io::Result<()>; 3] = [
            &|_| File::open(&warm).map(drop),
            &|number| File::open(&many[number % many.len()]).map(drop),
            &|_| socket.connect(("127.0.0.1", PORT)),
        ];
        for (index, operation) in loops.iter().enumerate() {
            counters.at(index).store(cost(operations, operation)?, Ordering::SeqCst);
        }
        Ok(())
    })?;
    ensure!(outcome == Outcome::Worked, "{name}: {outcome:?}");
    let costs = [0, 1, 2].map(|index| counters.at(index).load(Ordering::SeqCst));
    let cell = |index: usize| match without {
        None => costs[index].to_string(),
        Some(without) => format!("{:+}", costs[index] as i64 - without[index] as i64),
    };
    println!("{name:<34}{:>12}{:>12}{:>12}", cell(0), cell(1), cell(2));
    Ok(costs)
}

/// Instructions of one operation: of the fastest of some loops.
fn cost(operations: u64, operation: &dyn Fn(usize) -> io::Result<()>) -> io::Result<u64> {
    let mut fastest = u64::MAX;
    for _ in 0..LOOPS {
        let begin = Instant::now();
        for number in 0..operations {
            operation(number as usize)?;
        }
        let elapsed = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        fastest = fastest.min(elapsed / operations);
    }
    Ok(fastest)
}
