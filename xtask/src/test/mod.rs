//! `cargo xtask test`: unit tests here, then tests of the real thing in guests.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, anyhow};

use crate::command::{CommandExt, say};
use crate::kernels::Selection;
use crate::setup::GuestEnvironment;
use crate::{build, paths, setup};

mod in_guest;
mod tally;
mod unit;

pub(crate) use in_guest::{Choice, Job, Set};
pub(crate) use tally::Tally;

/// Run the tests: unit tests on this machine, the others in guests, one kernel after another.
///
/// By default each kernel series gets a smoke set and one of them, chosen by the commit, the whole
/// set; `--kernel all --full` is everything. With a filter, every selected series runs whatever it
/// matches. A guest whose kernel warns or crashes is a failure. Ends in one line, `N passed, N failed`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series to test on: 6.1, 6.12, 6.18, 7 or all.
    #[arg(long, value_name = "SERIES", default_value = "all")]
    kernel: Selection,
    /// The whole set on every selected series, with races repeated as often as promised.
    #[arg(long)]
    full: bool,
    /// Only tests whose name contains this, or that belong to a part of the tests called so
    /// (a file in tests/src, such as `generations`).
    filter: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    build::all()?;
    let mut tally = unit::run(args.filter.as_deref())?;
    tally.add(guests(args)?);
    for failure in &tally.failures {
        say!("failed: {failure}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failures.len());
    Ok(if tally.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Boots what the arguments ask for.
fn guests(args: &Args) -> Result<Tally> {
    let choice = Choice { full: args.full, filter: args.filter.as_deref(), threat: None };
    let mut jobs = Vec::new();
    for job in plan(args) {
        if !job.set.names(&choice)?.is_empty() {
            jobs.push(job);
        }
    }
    run_all(jobs, &choice)
}

/// Runs jobs in several guests at a time, those that take longest first.
pub(crate) fn run_all(mut jobs: Vec<Job>, choice: &Choice<'_>) -> Result<Tally> {
    jobs.sort_by_key(|job| Reverse(job.set.timeout(choice.full)));
    // One after another and before any guest runs: this may download.
    let jobs: VecDeque<(GuestEnvironment, Job)> =
        jobs.into_iter().map(|job| Ok((setup::guest(&job.series)?, job))).collect::<Result<_>>()?;
    let jobs = Mutex::new(jobs);
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || -> Result<Tally> {
        let mut sum = Tally::default();
        while let Some((environment, job)) = next() {
            sum.add(job.run(&environment, choice)?);
        }
        Ok(sum)
    };
    let tallies: Vec<Result<Tally>> = thread::scope(|scope| {
        let running: Vec<_> = (0..guests_at_a_time()).map(|_| scope.spawn(work)).collect();
        let panicked = || Err(anyhow!("a test thread panicked"));
        running.into_iter().map(|job| job.join().unwrap_or_else(|_| panicked())).collect()
    });
    let mut sum = Tally::default();
    for tally in tallies {
        sum.add(tally?);
    }
    Ok(sum)
}

/// Three for two processors: a guest keeps one of them busy, except while it runs a race, and while
/// programs are detached it waits.
fn guests_at_a_time() -> usize {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    processors + processors / 2
}

/// Which guests to boot.
fn plan(args: &Args) -> Vec<Job> {
    let selected = args.kernel.series();
    let chosen = choose(&commit(), selected.len());
    let mut jobs = Vec::new();
    for (number, series) in selected.into_iter().enumerate() {
        let whole = args.full || args.filter.is_some() || number == chosen;
        let sets: &[Set] = if whole { &Set::WHOLE } else { &[Set::Smoke] };
        jobs.extend(sets.iter().map(|set| Job { series: series.clone(), set: *set }));
    }
    jobs
}

/// The series that gets the whole set: it moves on with every commit, so that all get it in turn.
fn choose(commit: &str, count: usize) -> usize {
    let number = commit.get(..8).and_then(|digits| usize::from_str_radix(digits, 16).ok()).unwrap_or(1);
    number % count.max(1)
}

fn commit() -> String {
    let git = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(paths::root()).read();
    git.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(kernel: &str, full: bool) -> Vec<Set> {
        planned(Args { kernel: kernel.parse().unwrap(), full, filter: None })
    }

    fn planned(args: Args) -> Vec<Set> {
        plan(&args).iter().map(|job| job.set).collect()
    }

    #[test]
    fn one_series_gets_the_whole_set_and_the_others_a_smoke_set() {
        let sets = sets("all", false);
        assert_eq!(sets.iter().filter(|set| **set == Set::Smoke).count(), 3);
        assert_eq!(sets.iter().filter(|set| **set == Set::Plain).count(), 1);
    }

    #[test]
    fn a_single_series_and_full_mean_the_whole_set() {
        assert_eq!(sets("6.1", false), Set::WHOLE);
        assert_eq!(sets("all", true).len(), 4 * Set::WHOLE.len());
    }

    #[test]
    fn a_filter_is_looked_for_in_everything() {
        let args = Args { kernel: "all".parse().unwrap(), full: false, filter: Some("generations".into()) };
        assert_eq!(planned(args).len(), 4 * Set::WHOLE.len());
    }

    #[test]
    fn any_commit_chooses_a_series_that_exists() {
        for commit in ["", "00000003ff", "ffffffffff", "not hexadecimal"] {
            assert!(choose(commit, 4) < 4);
        }
    }
}
