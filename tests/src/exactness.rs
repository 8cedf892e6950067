//! What policy says is what system calls give: random bundles and calls, the reference bundle, and random
//! operations under Landlock's rules and under their translation. These are programs of their own.

use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};

use crate::case::Case;
use crate::family::{Part, tests};
use crate::layout;

pub(crate) const PART: Part = Part {
    name: "exactness",
    bundle: Ok,
    prepare: layout::create,
    tests: tests!(others: [
        system_calls_are_decided_as_cedar_decides,
        the_requests_of_the_reference_bundle_get_their_answers,
        random_operations_are_decided_as_landlock_decides,
        a_rule_that_is_translated_wrongly_is_noticed,
    ]),
};

fn run(program: &str, arguments: &[&str]) -> Result<(ExitStatus, String)> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in text.lines() {
        eprintln!("{line}");
    }
    Ok((output.status, text))
}

fn exact(arguments: &[&str]) -> Result<()> {
    let (status, text) = run("guard-exact", arguments)?;
    ensure!(status.success(), "guard-exact {} ended with {status}", arguments.join(" "));
    ensure!(text.trim_end().ends_with(" 0 differences"), "it does not say that there are no differences");
    Ok(())
}

fn system_calls_are_decided_as_cedar_decides(case: &Case<'_>) -> Result<()> {
    exact(&["kernel", "--cases", if case.full { "3000" } else { "300" }])
}

fn the_requests_of_the_reference_bundle_get_their_answers(_: &Case<'_>) -> Result<()> {
    exact(&["reference"])
}

fn random_operations_are_decided_as_landlock_decides(case: &Case<'_>) -> Result<()> {
    let (status, text) = run("guard-oracle", &["--ops", if case.full { "20000" } else { "2000" }])?;
    ensure!(status.success(), "guard-oracle ended with {status}");
    ensure!(text.trim_end().ends_with(" 0 unexplained differences"), "it does not say that all is explained");
    Ok(())
}

fn a_rule_that_is_translated_wrongly_is_noticed(_: &Case<'_>) -> Result<()> {
    let (status, text) = run("guard-oracle", &["--ops", "1000", "--plant"])?;
    ensure!(status.code() == Some(1), "guard-oracle ended with {status}");
    ensure!(text.contains("DIFFERENCE"), "no difference is shown");
    let last = text.trim_end().lines().last().unwrap_or_default();
    ensure!(!last.ends_with(" 0 unexplained differences"), "nothing is noticed: {last}");
    Ok(())
}
