//! Unit tests: `cargo test`, counted.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::tally::Tally;
use crate::command::say;
use crate::paths;

/// Runs all unit and documentation tests of the workspace.
pub(super) fn run(filter: Option<&str>) -> Result<Tally> {
    say!("unit tests");
    let mut cargo = Command::new(paths::cargo())
        .current_dir(paths::root())
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(filter)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start cargo test")?;
    let mut tally = Tally::default();
    let output = cargo.stdout.take().context("cargo test has an output")?;
    for line in BufReader::new(output).lines() {
        let line = line.context("read from cargo test")?;
        if let Some(counted) = count(&line) {
            tally.add(counted);
        } else {
            println!("{line}");
        }
    }
    let status = cargo.wait().context("wait for cargo test")?;
    if !status.success() && tally.failures.is_empty() {
        tally.failures.push(format!("`cargo test --workspace` ended with {status}"));
    }
    Ok(tally)
}

/// What a line of the test harness adds; `None` for lines that are for people.
fn count(line: &str) -> Option<Tally> {
    if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
        println!("{line}");
        return Some(Tally { failures: vec![format!("unit test {name}")], ..Tally::default() });
    }
    let counts = line.strip_prefix("test result: ")?;
    let passed = counts.split_once(" passed;")?.0.rsplit(' ').next()?.parse().ok()?;
    Some(Tally { passed, ..Tally::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_and_failures_named() {
        let line = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(count(line), Some(Tally { passed: 12, ..Tally::default() }));
        let failed = count("test a::b ... FAILED").unwrap();
        assert_eq!(failed.failures, ["unit test a::b"]);
        assert_eq!(count("test a::c ... ok"), None);
    }
}
