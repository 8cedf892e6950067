//! Two policies that have nothing in common, switched back and forth while every processor issues
//! operations.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::attempt;
use crate::bundle::{Bundle, one_of, permit, within};
use crate::case::Case;
use crate::daemon::Daemon;
use crate::elf;
use crate::layout::{self, path};
use crate::raw::{self, SharedCounters};
use crate::users::AGENT;

/// Files that both policies permit reading. Their numbers in the tables differ.
const SHARED: usize = 16;
/// Literals that only the second policy has, so that the same resource has other numbers in it.
const FILLERS: usize = 40;
/// Rounds after which a worker adds up, looks whether to stop and executes.
const BATCH: u64 = 50;

// What the workers count.
const STOP: usize = 0;
const OPENED: usize = 1;
const EXECUTED: usize = 2;
/// Decisions that neither policy gives.
const MIXED: usize = 3;
/// Refusals of what both policies permit.
const LOST: usize = 4;
const BY_FIRST: usize = 5;
const BY_SECOND: usize = 6;
/// Anything but success and EACCES.
const ODD: usize = 7;

fn file(name: &str) -> PathBuf {
    path("flip").join(name)
}

fn shared(number: usize) -> PathBuf {
    file(&format!("shared-{number}"))
}

/// Makes the files and programs.
pub(crate) fn prepare() -> Result<()> {
    for name in ["first", "second", "either-way", "appended"] {
        layout::file(&file(name), b"content\n")?;
    }
    for number in 0..SHARED {
        layout::file(&shared(number), b"content\n")?;
    }
    for name in ["shared-interpreter", "second-interpreter", "no-interpreter"] {
        layout::program(&file(name), &elf::exits_with(0))?;
    }
    for (script, interpreter) in [
        ("good-script", "shared-interpreter"),
        ("bad-script", "no-interpreter"),
        ("first-script", "second-interpreter"),
    ] {
        let text = format!("#!{}\n", file(interpreter).display());
        layout::program(&file(script), text.as_bytes())?;
    }
    Ok(())
}

/// The two policies. What they share are the files and the script that both permit: nothing else is
/// permitted by both, and everything in one decision that needs both is permitted by neither.
fn policies() -> [Bundle; 2] {
    let shared: Vec<PathBuf> = (0..SHARED).map(shared).collect();
    let scripts = ["good-script", "bad-script", "shared-interpreter"].map(file);
    let common = permit("read", "agent", &["file.read"], &one_of(&shared))
        + &permit("run", "agent", &["exec"], &one_of(&scripts));
    let fillers: Vec<PathBuf> = (0..FILLERS).map(|number| file(&format!("filler-{number}/x"))).collect();
    let first = permit("a", "agent", &["file.read"], &one_of(&[file("first"), file("either-way")]))
        + &permit("b", "agent", &["file.append"], &one_of(&[file("appended")]))
        + &permit("c", "agent", &["exec"], &one_of(&[file("first-script")]));
    let second = permit("filler", "agent", &["file.read"], &within(&fillers))
        + &permit("a", "agent", &["file.read"], &one_of(&[file("second")]))
        + &permit("b", "agent", &["file.write"], &one_of(&[file("either-way")]))
        + &permit("c", "agent", &["file.read"], &one_of(&[file("appended")]))
        + &permit("d", "agent", &["exec"], &one_of(&[file("second-interpreter")]));
    let bundle = |version| Bundle::new("flip").version(version).subject("agent", "user = \"agent\"");
    [
        bundle(1).policy("common", common.clone()).policy("own", first),
        bundle(2).policy("own", second).policy("shared", common),
    ]
}

/// Switches between the two at least `flips` times and until `wanted` operations were tried.
pub(crate) fn run(case: &Case<'_>, flips: usize, wanted: u64) -> Result<()> {
    let policies = policies();
    let daemon = Daemon::start("flip", &policies[0])?;
    let directories = [
        policies[0].write(&daemon.directory().join("a"))?,
        policies[1].write(&daemon.directory().join("b"))?,
    ];
    let counters = SharedCounters::new().context("share memory")?;
    let processors = std::thread::available_parallelism().context("count the processors")?.get();
    let workers = (0..processors)
        .map(|processor| attempt::start(AGENT, || work(&counters, processor)))
        .collect::<Result<Vec<_>>>()?;
    let count = |index| counters.at(index).load(Ordering::SeqCst);
    let mut flipped = 0;
    let switched = loop {
        let done = daemon.apply(&directories[(flipped + 1) % 2]);
        flipped += 1;
        if done.is_err() || flipped >= flips && count(OPENED) + count(EXECUTED) >= wanted {
            break done;
        }
    };
    counters.at(STOP).store(1, Ordering::SeqCst);
    for worker in workers {
        let outcome = worker.outcome()?;
        ensure!(outcome == attempt::Outcome::Worked, "a worker: {outcome:?}");
    }
    switched?;
    let operations = count(OPENED) + count(EXECUTED);
    case.tried(operations);
    let (mixed, lost, odd) = (count(MIXED), count(LOST), count(ODD));
    ensure!(mixed == 0, "{mixed} of {operations} operations that neither policy permits were allowed");
    ensure!(lost == 0, "{lost} of {operations} operations that both policies permit were refused");
    ensure!(odd == 0, "{odd} of {operations} operations failed otherwise than with EACCES");
    ensure!(count(BY_FIRST) > 0 && count(BY_SECOND) > 0, "not both policies were seen at work");
    ensure!(count(EXECUTED) > 0, "nothing was executed");
    daemon.stop().map(drop)
}

/// One processor's operations.
fn work(counters: &SharedCounters, processor: usize) -> io::Result<()> {
    let mut own = CpuSet::new();
    own.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &own)?;
    let shared: Vec<PathBuf> = (0..SHARED).map(shared).collect();
    let mut round: u64 = 0;
    while counters.at(STOP).load(Ordering::Relaxed) == 0 {
        let mut tally = Tally::default();
        for _ in 0..BATCH {
            round += 1;
            opens(&shared, round, &mut tally)?;
        }
        executions(round / BATCH, &mut tally)?;
        for (index, count) in tally.0.iter().enumerate().filter(|(_, count)| **count != 0) {
            counters.at(index).fetch_add(*count, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Counts of one batch, by the numbers above.
#[derive(Default)]
struct Tally([u64; 8]);

impl Tally {
    fn add(&mut self, index: usize) {
        self.0[index] += 1;
    }

    /// Whether an operation was allowed.
    fn allowed(&mut self, result: &io::Result<()>) -> bool {
        match result {
            Ok(()) => true,
            Err(error) => {
                if error.raw_os_error() != Some(libc::EACCES) {
                    self.add(ODD);
                }
                false
            }
        }
    }
}

/// Opens, of which each is one decision: what `O_CREAT` and `O_TRUNC` do would be further ones, on which side of
/// a switch they may.
fn opens(shared: &[PathBuf], round: u64, tally: &mut Tally) -> io::Result<()> {
    for path in shared {
        let result = File::open(path).map(drop);
        if !tally.allowed(&result) {
            tally.add(LOST);
        }
    }
    let odd = round % 2 == 1;
    // Each right is given by another policy, so both together by none.
    let neither = if odd {
        File::options().read(true).write(true).open(file("either-way"))
    } else {
        File::options().read(true).append(true).open(file("appended"))
    };
    if tally.allowed(&neither.map(drop)) {
        tally.add(MIXED);
    }
    let (name, index) = if odd { ("first", BY_FIRST) } else { ("second", BY_SECOND) };
    if tally.allowed(&File::open(file(name)).map(drop)) {
        tally.add(index);
    }
    tally.0[OPENED] += shared.len() as u64 + 2;
    Ok(())
}

/// Executions of scripts, of which each is several decisions. They may fall on both sides of a switch,
/// but each of them is as strict as one policy: an interpreter that neither permits never runs.
fn executions(number: u64, tally: &mut Tally) -> io::Result<()> {
    let run = |name: &str| raw::vfork_exec(&file(name));
    match number % 3 {
        0 => {
            if !tally.allowed(&run("good-script")) {
                tally.add(LOST);
            }
        }
        1 => {
            if tally.allowed(&run("bad-script")) {
                tally.add(MIXED);
            }
        }
        // The script by the first and its interpreter by the second: refused, unless a switch fell
        // between the two decisions.
        _ => {
            tally.allowed(&run("first-script"));
        }
    }
    tally.add(EXECUTED);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_and_oddities_are_counted_apart() {
        let mut tally = Tally::default();
        assert!(tally.allowed(&Ok(())));
        assert!(!tally.allowed(&Err(io::Error::from_raw_os_error(libc::EACCES))));
        assert!(!tally.allowed(&Err(io::Error::from_raw_os_error(libc::ENOENT))));
        assert_eq!(tally.0[ODD], 1);
    }
}
