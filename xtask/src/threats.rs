//! `cargo xtask threats`: the catalogue of ways round Guard, tried in guests.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::command::{CommandExt, say};
use crate::kernels::Selection;
use crate::test::{Choice, Job, Set, run_all};
use crate::{build, paths};

/// Try every way round Guard that the catalogue has, or one of them.
///
/// The catalogue is in tests/src/threats. Each entry names tests that run in guests; what they gave is
/// kept in docs/bypasses.md, where entries and kernels that a run does not reach stay as they are. An entry
/// that is open, which means that Guard does not answer it in whole, counts as failed. Ends in one line,
/// `N passed, N failed, N out of scope`, of entries.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series to try them on: 6.1, 6.12, 6.18, 7 or all.
    #[arg(long, value_name = "SERIES", default_value = "all")]
    kernel: Selection,
    /// Repeat races as often as their tests promise.
    #[arg(long)]
    full: bool,
    /// Use the binaries as they are instead of building them first.
    #[arg(long)]
    no_build: bool,
    /// One entry, such as ID-1.
    entry: Option<String>,
}

/// What the catalogue says of an entry.
struct Entry {
    id: String,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Answered,
    OutOfScope,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !args.no_build {
        build::all()?;
    }
    let entries: Vec<Entry> = catalogue()?
        .into_iter()
        .filter(|entry| args.entry.as_ref().is_none_or(|wanted| entry.id.eq_ignore_ascii_case(wanted)))
        .collect();
    ensure!(
        !entries.is_empty(),
        "the catalogue has no entry {}: docs/bypasses.md lists them",
        args.entry.as_deref().unwrap_or_default()
    );
    let choice =
        Choice { full: args.full, filter: None, threat: Some(args.entry.as_deref().unwrap_or("all")) };
    let mut jobs = Vec::new();
    let mut expected = BTreeSet::new();
    for series in args.kernel.series() {
        for set in Set::WHOLE {
            let here = set.names(&choice)?;
            if !here.is_empty() {
                jobs.push(Job { series: series.clone(), set });
            }
            expected.extend(here.into_iter().map(|id| (series.to_string(), id)));
        }
    }
    let tally = run_all(jobs, &choice)?;
    let results = results(&expected, &tally.entries);
    write_page(&results)?;
    for failure in &tally.failures {
        say!("failed: {failure}");
    }
    let counts = counts(&entries, &results);
    println!("{} passed, {} failed, {} out of scope", counts.passed, counts.failed, counts.out_of_scope);
    let is_good = counts.failed == 0 && tally.failures.is_empty();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn program() -> Command {
    Command::new(paths::binaries().join("guard-tests"))
}

fn catalogue() -> Result<Vec<Entry>> {
    let text = program().arg("catalogue").read()?;
    text.lines()
        .map(|line| {
            let [id, state, ..] = line.split('\t').collect::<Vec<_>>()[..] else {
                bail!("guard-tests printed an entry that is none: {line}");
            };
            let state = match state {
                "answered" => State::Answered,
                "out-of-scope" => State::OutOfScope,
                other => bail!("guard-tests printed a state that is none: {other}"),
            };
            Ok(Entry { id: id.to_owned(), state })
        })
        .collect()
}

/// What became of every entry on every series, by series and entry: the worst that any guest said. What
/// was to run and said nothing has failed.
fn results(
    expected: &BTreeSet<(String, String)>,
    said: &[(String, String, String)],
) -> BTreeMap<(String, String), String> {
    let badness = |outcome: &str| match outcome {
        "not-here" => 0,
        "passed" => 1,
        _ => 2,
    };
    let mut results: BTreeMap<(String, String), String> = BTreeMap::new();
    for (series, id, outcome) in said {
        let worst = results.entry((series.clone(), id.clone())).or_insert_with(|| outcome.clone());
        if badness(outcome) > badness(worst) {
            *worst = outcome.clone();
        }
    }
    for key in expected {
        results.entry(key.clone()).or_insert_with(|| "failed".to_owned());
    }
    results
}

fn write_page(results: &BTreeMap<(String, String), String>) -> Result<()> {
    let page = paths::root().join("docs/bypasses.md");
    let mut child =
        program().arg("page").arg(&page).stdin(Stdio::piped()).spawn().context("start guard-tests")?;
    let mut input = child.stdin.take().context("guard-tests has an input")?;
    for ((series, id), outcome) in results {
        writeln!(input, "{series}\t{id}\t{outcome}").context("tell guard-tests the results")?;
    }
    drop(input);
    ensure!(child.wait().context("wait for guard-tests")?.success(), "guard-tests could not write the page");
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    out_of_scope: usize,
}

/// Counts entries, and says what is not simply green.
fn counts(entries: &[Entry], results: &BTreeMap<(String, String), String>) -> Counts {
    let mut counts = Counts::default();
    for entry in entries {
        let on = |wanted: &str| -> Vec<&str> {
            let of_this = results.iter().filter(|((_, id), outcome)| *id == entry.id && *outcome == wanted);
            of_this.map(|((series, _), _)| series.as_str()).collect()
        };
        let (passed, failed, not_here) = (on("passed"), on("failed"), on("not-here"));
        let id = &entry.id;
        match entry.state {
            State::OutOfScope => counts.out_of_scope += 1,
            _ if !failed.is_empty() => {
                println!("FAIL {id} on {}", failed.join(", "));
                counts.failed += 1;
            }
            State::Answered if passed.is_empty() => {
                println!("NOT HERE {id}: nothing of the kind on {}", not_here.join(", "));
                counts.out_of_scope += 1;
            }
            State::Answered => {
                println!("ok {id} on {}", passed.join(", "));
                counts.passed += 1;
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(series: &str, id: &str) -> (String, String) {
        (series.to_owned(), id.to_owned())
    }

    #[test]
    fn the_worst_of_all_guests_counts_and_silence_is_failure() {
        let said = |outcome: &str| ("6.1".to_owned(), "ID-1".to_owned(), outcome.to_owned());
        let expected = BTreeSet::from([key("6.1", "ID-1"), key("6.1", "ID-2")]);
        let found = results(&expected, &[said("passed"), said("failed"), said("not-here")]);
        assert_eq!(found[&key("6.1", "ID-1")], "failed");
        assert_eq!(found[&key("6.1", "ID-2")], "failed");
        assert_eq!(results(&expected, &[said("not-here"), said("passed")])[&key("6.1", "ID-1")], "passed");
    }

    #[test]
    fn what_there_is_nothing_of_counts_as_out_of_scope() {
        let entry = |id: &str, state| Entry { id: id.to_owned(), state };
        let entries = [
            entry("A", State::Answered),
            entry("C", State::OutOfScope),
            entry("D", State::Answered),
            entry("E", State::Answered),
        ];
        let results = [("A", "passed"), ("D", "not-here"), ("E", "failed")]
            .map(|(id, outcome)| (key("7", id), outcome.to_owned()));
        let expected = Counts { passed: 1, failed: 1, out_of_scope: 2 };
        assert_eq!(counts(&entries, &results.into()), expected);
    }
}
