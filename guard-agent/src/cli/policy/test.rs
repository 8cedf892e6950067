//! `guardctl policy test`.

use super::source::{host, invalid, refused};
use crate::analysis::cases::{self, Report};
use crate::bundle;
use crate::cli::screen::Screen;
use crate::cli::{CliError, Exit};
use crate::events::escape::line;
use crate::events::wrapped;
use crate::policy;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The bundle; its tests are tests/*.toml and tests/*.json.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

/// Runs the tests of the bundle.
pub(super) fn run(screen: &Screen, args: &Args) -> Result<Exit, CliError> {
    let opened = bundle::open(&args.bundle).map_err(invalid)?;
    let bundle = policy::parse(&opened).map_err(invalid)?;
    let tests = cases::read(&opened.files).map_err(refused)?;
    let report = cases::run(&bundle, &host()?, &tests).map_err(invalid)?;
    let passed = report.failed() == 0;
    if args.json {
        let mut body = serde_json::json!({ "schema": "guard.test/1", "passed": passed });
        super::merge(&mut body, &report)?;
        screen.answer(&body.to_string())?;
    } else {
        screen.answer(&render(&report, screen))?;
    }
    Ok(if passed { Exit::Yes } else { Exit::No })
}

fn render(report: &Report, screen: &Screen) -> String {
    let failed = report.failed();
    let plural = if report.tests.len() == 1 { "test" } else { "tests" };
    let mut lines = vec![format!("running {} {plural}", report.tests.len())];
    for test in &report.tests {
        let word = match test.failure {
            None => screen.paint("32", "ok"),
            Some(_) => screen.paint("31", "FAILED"),
        };
        lines.push(format!("test {} ... {word}", line(&test.name)));
    }
    if failed > 0 {
        lines.push("\nfailures:".to_owned());
        for test in &report.tests {
            if let Some(failure) = &test.failure {
                lines.push(format!("  {}\n      {}", line(&test.name), line(failure)));
            }
        }
    }
    let all = report.covered.len() + report.untested.len();
    lines.push(format!("\ncoverage: {} of {all} policies decide some test", report.covered.len()));
    if !report.untested.is_empty() {
        let names: Vec<_> = report.untested.iter().map(|id| line(id)).collect();
        lines.push(format!("untested: {}", wrapped(&names, 10, 100)));
    }
    let word = if failed == 0 { screen.paint("32", "ok") } else { screen.paint("31", "FAILED") };
    lines.push(format!("\ntest result: {word}. {} passed; {failed} failed", report.tests.len() - failed));
    lines.join("\n")
}
