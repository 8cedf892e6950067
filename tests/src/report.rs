//! One line per test, and a last line with the counts.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Add;
use std::time::Duration;

use anyhow::Result;

use crate::case::NotHere;

/// How a test ended.
pub(crate) enum Verdict {
    /// As it should.
    Passed,
    /// Otherwise, with the reason.
    Failed(String),
    /// It cannot run on this kernel, with the reason. Neither passed nor failed.
    NotHere(String),
}

impl Verdict {
    /// The verdict on a result.
    pub(crate) fn of(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Passed,
            Err(error) => match error.downcast_ref::<NotHere>() {
                Some(reason) => Self::NotHere(reason.0.clone()),
                None => Self::Failed(format!("{error:#}")),
            },
        }
    }
}

/// What a test took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effort {
    /// How long it ran.
    pub(crate) time: Duration,
    /// Operations it tried, if it counts them.
    pub(crate) operations: u64,
}

impl Add for Effort {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { time: self.time + other.time, operations: self.operations + other.operations }
    }
}

impl fmt::Display for Effort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "({:.1} s)", self.time.as_secs_f64())?;
        match self.operations {
            0 => Ok(()),
            count => write!(formatter, " ({} operations)", grouped(count)),
        }
    }
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// The counts so far.
#[derive(Default)]
pub(crate) struct Report {
    passed: usize,
    failed: usize,
    /// By name: whether it passed, or nothing if it cannot run here.
    tests: BTreeMap<String, Option<bool>>,
}

impl Report {
    /// Prints a test's line.
    pub(crate) fn add(&mut self, name: &str, verdict: Verdict, effort: Effort) {
        let passed = match verdict {
            Verdict::Passed => Some(true),
            Verdict::Failed(_) => Some(false),
            Verdict::NotHere(_) => None,
        };
        self.tests.insert(name.to_owned(), passed);
        match verdict {
            Verdict::Passed => {
                self.passed += 1;
                println!("ok {name} {effort}");
            }
            Verdict::Failed(reason) => {
                self.failed += 1;
                println!("FAIL {name}: {}", reason.replace('\n', " | "));
            }
            Verdict::NotHere(reason) => println!("NOT HERE {name}: {reason}"),
        }
    }

    /// Prints the line of an entry of the catalogue, as its tests were; nothing if none of them ran.
    pub(crate) fn entry(&self, id: &str, tests: &[&str]) {
        let ran: Vec<_> = tests.iter().filter_map(|test| Some((*test, *self.tests.get(*test)?))).collect();
        let failed: Vec<&str> =
            ran.iter().filter(|(_, passed)| *passed == Some(false)).map(|(test, _)| *test).collect();
        if !failed.is_empty() {
            println!("entry {id} failed: {}", failed.join(", "));
        } else if ran.iter().any(|(_, passed)| *passed == Some(true)) {
            println!("entry {id} passed");
        } else if !ran.is_empty() {
            println!("entry {id} not-here");
        }
    }

    /// Says something that is not about one test.
    pub(crate) fn note(&self, text: &str) {
        eprintln!("guard-tests: {text}");
    }

    /// Prints the last line; whether all passed.
    pub(crate) fn finish(&self) -> bool {
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_shown_in_groups_if_they_are_counted() {
        let effort = |operations| Effort { time: Duration::from_millis(1250), operations }.to_string();
        assert_eq!(effort(0), "(1.2 s)");
        assert_eq!(effort(999), "(1.2 s) (999 operations)");
        assert_eq!(effort(1_000_000), "(1.2 s) (1 000 000 operations)");
    }
}
