//! The demonstration that `cargo xtask run` plays: it checks itself what it shows.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::case::Case;
use crate::family::{Part, tests};

pub(crate) const PART: Part = Part {
    name: "quickstart",
    bundle: Ok,
    prepare: || Ok(()),
    tests: tests!(others: [the_demonstration_shows_what_it_promises],),
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart/demo.py");

fn the_demonstration_shows_what_it_promises(_: &Case<'_>) -> Result<()> {
    let mut python = Command::new("python3");
    let output = python.arg(SCRIPT).stdin(Stdio::null()).output().context("start python3")?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}:\n{text}", output.status);
    ensure!(text.contains("DENIED") && text.contains("allowed"), "nothing is shown:\n{text}");
    Ok(())
}
