//! One line per test, and a last line with the counts.

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

/// The counts so far.
#[derive(Default)]
pub(crate) struct Report {
    passed: usize,
    failed: usize,
}

impl Report {
    /// Prints a test's line.
    pub(crate) fn add(&mut self, name: &str, verdict: Verdict, time: Duration) {
        match verdict {
            Verdict::Passed => {
                self.passed += 1;
                println!("ok {name} ({:.1} s)", time.as_secs_f64());
            }
            Verdict::Failed(reason) => {
                self.failed += 1;
                println!("FAIL {name}: {}", reason.replace('\n', " | "));
            }
            Verdict::NotHere(reason) => println!("NOT HERE {name}: {reason}"),
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
