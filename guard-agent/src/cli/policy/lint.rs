//! `guardctl policy lint`.

use super::source::{host, invalid, load};
use crate::analysis::lint::{Report, lint};
use crate::cli::screen::Screen;
use crate::cli::{CliError, Exit};
use crate::events::escape::{block, line};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The bundle; without it, the current directory.
    #[arg(value_name = "BUNDLE", default_value = ".")]
    bundle: PathBuf,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

/// Examines the bundle and prints what was found.
pub(super) fn run(screen: &Screen, args: &Args) -> Result<Exit, CliError> {
    let bundle = load(&args.bundle)?;
    let report = lint(&bundle, &host()?).map_err(invalid)?;
    let clean = report.warnings() == 0;
    if args.json {
        let mut body = serde_json::json!({ "schema": "guard.lint/1", "clean": clean });
        super::merge(&mut body, &report)?;
        screen.answer(&body.to_string())?;
    } else {
        screen.answer(&render(&report))?;
    }
    Ok(if clean { Exit::Yes } else { Exit::No })
}

/// The findings are the answer, so they go where answers go.
fn render(report: &Report) -> String {
    let mut parts: Vec<String> =
        report.findings.iter().map(|finding| block(&finding.to_string()).trim_end().to_owned()).collect();
    parts.extend(report.undecided.iter().map(|text| format!("not decided: {}", line(text))));
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let warnings = report.warnings();
    parts.push(format!(
        "{}, {}",
        plural(warnings, "warning"),
        plural(report.findings.len() - warnings, "note")
    ));
    parts.join("\n\n")
}
