//! `guardctl policy explain`.

use super::answer::{Assume, render};
use super::source::{Source, host, invalid, refused};
use crate::analysis::can::{Finding, can};
use crate::analysis::operations::{OPERATIONS, Operation, operation};
use crate::analysis::question::Files;
use crate::cli::client::Client;
use crate::cli::screen::Screen;
use crate::cli::{CliError, Exit};
use crate::policy::Oracle;
use std::path::Path;

#[derive(Debug, clap::Args)]
#[command(after_help = operations_help())]
pub(in crate::cli) struct Args {
    /// The subject.
    #[arg(long = "as", value_name = "SUBJECT")]
    subject: String,
    /// The operation.
    operation: String,
    /// What it is done to.
    arguments: Vec<String>,
    #[command(flatten)]
    assume: Assume,
    #[command(flatten)]
    source: Source,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

fn operations_help() -> String {
    let width = OPERATIONS.iter().map(|one| usage(one).len()).max().unwrap_or_default();
    let lines: Vec<_> =
        OPERATIONS.iter().map(|one| format!("  {:width$}  {}", usage(one), one.calls)).collect();
    format!("Operations:\n{}", lines.join("\n"))
}

fn usage(operation: &Operation) -> String {
    std::iter::once(operation.name).chain(operation.arguments.iter().copied()).collect::<Vec<_>>().join(" ")
}

/// Answers every decision of the operation; it succeeds if all are allowed.
pub(super) async fn run(client: &Client, screen: &Screen, args: &Args) -> Result<Exit, CliError> {
    let Some(operation) = operation(&args.operation) else {
        let known: Vec<_> = OPERATIONS.iter().map(|one| one.name).collect();
        let message = format!("there is no operation {}\n  known: {}", args.operation, known.join(" "));
        return Err(CliError::invalid(message));
    };
    if args.arguments.len() != operation.arguments.len() {
        return Err(CliError::invalid(format!(
            "write: guardctl policy explain --as SUBJECT {}",
            usage(operation)
        )));
    }
    let bundle = args.source.load(client).await?;
    let host = host()?;
    let exists = |path: &str| std::fs::symlink_metadata(Path::new(path)).is_ok();
    let mut findings: Vec<Finding> = Vec::new();
    let mut oracle = None;
    for (action, resource) in operation.decisions(&args.arguments, &exists) {
        let words = args.assume.words(&args.subject, action, resource);
        let question = words.question(&bundle, &host, Files::Read).map_err(refused)?;
        // The facts are the same for every decision.
        let oracle = match &oracle {
            Some(oracle) => oracle,
            None => &*oracle.insert(Oracle::new(&bundle, &host, &question.facts).map_err(invalid)?),
        };
        findings.push(can(&bundle, oracle, &question).map_err(refused)?);
    }
    let allowed = findings.iter().all(|finding| finding.allowed);
    if args.json {
        let body = serde_json::json!({
            "schema": "guard.explain/1",
            "operation": operation.name,
            "calls": operation.calls,
            "allowed": allowed,
            "decisions": findings,
        });
        screen.answer(&body.to_string())?;
    } else {
        let plural = if findings.len() == 1 { "decision" } else { "decisions" };
        let word = if allowed { "goes through" } else { "is denied" };
        let head = format!("{} ({}) {word}: {} {plural}", operation.name, operation.calls, findings.len());
        let all: Vec<_> = findings.iter().map(|finding| render(finding, screen)).collect();
        screen.answer(&format!("{head}\n{}", all.join("\n")))?;
    }
    Ok(if allowed { Exit::Yes } else { Exit::No })
}
