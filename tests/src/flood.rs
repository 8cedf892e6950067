//! Very many of something: denials, tasks.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{ForkResult, Pid};

use crate::attempt::{Outcome, attempt};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::file::read;
use crate::identity::fork;
use crate::layout::{self, ROOT, canary, path};
use crate::raw;
use crate::users::AGENT;

pub(crate) const PART: Part = Part {
    name: "flood",
    bundle: Ok,
    prepare: layout::create,
    tests: tests!(
        others: [
            a_flood_of_denials_lets_nothing_pass_and_is_accounted,
            many_tasks_are_all_labelled,
        ],
    ),
};

fn secret() -> PathBuf {
    canary(ROOT)
}

/// Reads a file that is refused so often, on this processor; works as soon as one of them worked.
fn repeatedly(times: u64, processor: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &only)?;
    for _ in 0..times {
        match read(secret()) {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {}
            other => return other,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EACCES))
}

fn a_flood_of_denials_lets_nothing_pass_and_is_accounted(case: &Case<'_>) -> Result<()> {
    let Some(daemon) = case.daemon() else {
        return case.allowed(AGENT, || repeatedly(1, 0));
    };
    let processors = std::thread::available_parallelism().context("count the processors")?.get();
    let times = if case.full { 100_000 } else { 5_000 };
    let mut accounted = daemon.events.accounted()?;
    let mut denied = 0;
    let mut deny = |times: u64| -> Result<u64> {
        for processor in 0..processors {
            let outcome = attempt(AGENT, || repeatedly(times, processor))?;
            let refused = Outcome::Failed(nix::errno::Errno::EACCES);
            ensure!(outcome == refused, "one of {times} reads was not refused: {outcome:?}");
            denied += times;
        }
        Ok(denied)
    };
    let mut expected = deny(times)?;
    case.tried(expected);
    // What was lost at the end shows only when something comes after it, on the same processor.
    for _ in 0..100 {
        expected = deny(1)?;
        if accounted.reaches(expected, std::time::Duration::from_secs(5))? {
            break;
        }
    }
    let (reported, lost) = (accounted.reported, accounted.lost);
    ensure!(
        reported + lost == expected,
        "{expected} were denied, {reported} reported and {lost} counted as lost"
    );
    case.allowed(AGENT, || read(path("open/notes")))
}

/// Makes so many children that are alive together, and has each read the file; works as soon as one read
/// worked.
fn together(count: usize, file: &std::path::Path) -> io::Result<()> {
    let (go, go_out) = io::pipe()?;
    let (mut answers, answers_out) = io::pipe()?;
    let mut children = Vec::with_capacity(count);
    for _ in 0..count {
        match fork()? {
            ForkResult::Parent { child } => children.push(child),
            ForkResult::Child => {
                let answer = match (&go).read_exact(&mut [0]).and_then(|()| read(file)) {
                    Ok(()) => 0,
                    Err(error) => {
                        error.raw_os_error().and_then(|number| u8::try_from(number).ok()).unwrap_or(255)
                    }
                };
                let _ = (&answers_out).write_all(&[answer]);
                raw::exit_now(0);
            }
        }
    }
    (&go_out).write_all(&vec![0; count])?;
    let mut numbers = vec![0; count];
    answers.read_exact(&mut numbers)?;
    for child in children {
        nix::sys::wait::waitpid(child, None)?;
    }
    match numbers.iter().find(|number| i32::from(**number) != libc::EACCES) {
        None => Err(io::Error::from_raw_os_error(libc::EACCES)),
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error((*number).into())),
    }
}

fn many_tasks_are_all_labelled(case: &Case<'_>) -> Result<()> {
    let count = if case.full { 4000 } else { 300 };
    case.tried(count as u64);
    case.refused(refusal(AGENT, "file.read").at("shut/secret"), || together(count, &secret()))?;
    case.allowed(AGENT, || together(count, &path("open/notes")))
}
