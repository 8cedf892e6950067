//! What policy says is what system calls give: random bundles and calls, and the reference bundle. Both
//! are programs of their own, which have Cedar in them.

use std::process::{Command, Stdio};

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
    ]),
};

fn exact(arguments: &[&str]) -> Result<()> {
    let output = Command::new("guard-exact")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("start guard-exact")?;
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines() {
        eprintln!("{line}");
    }
    ensure!(output.status.success(), "guard-exact {} ended with {}", arguments.join(" "), output.status);
    ensure!(text.trim_end().ends_with(" 0 differences"), "it does not say that there are no differences");
    Ok(())
}

fn system_calls_are_decided_as_cedar_decides(case: &Case<'_>) -> Result<()> {
    exact(&["kernel", "--cases", if case.full { "3000" } else { "300" }])
}

fn the_requests_of_the_reference_bundle_get_their_answers(_: &Case<'_>) -> Result<()> {
    exact(&["reference"])
}
