//! `guardctl list`.

use super::answer::place;
use super::source::{Source, host, invalid};
use crate::analysis::list::{Right, Rights, list};
use crate::cli::client::Client;
use crate::cli::screen::Screen;
use crate::cli::{CliError, Exit};
use crate::events::escape::line;
use crate::events::wrapped;
use crate::policy::{EffectiveSet, Facts, Mode};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The subject.
    #[arg(long = "as", value_name = "SUBJECT")]
    subject: String,
    #[command(flatten)]
    source: Source,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

/// Prints what the policy permits and forbids the subject, and under which lease.
pub(super) async fn run(client: &Client, screen: &Screen, args: &Args) -> Result<Exit, CliError> {
    let bundle = args.source.load(client).await?;
    let host = host()?;
    let set = EffectiveSet::new(&bundle, &host, &Facts::default()).map_err(invalid)?;
    let Some(rights) = list(&bundle, &set, &args.subject) else {
        let known: Vec<_> = bundle.subjects().map(|subject| subject.name.as_str()).collect();
        return Err(CliError::invalid(format!(
            "the bundle has no subject {}\n  it has: {}",
            args.subject,
            known.join(" ")
        )));
    };
    if args.json {
        let mut body = serde_json::json!({ "schema": "guard.list/1" });
        super::merge(&mut body, &rights)?;
        screen.answer(&body.to_string())?;
    } else {
        screen.answer(&render(&rights))?;
    }
    Ok(Exit::Yes)
}

fn render(rights: &Rights) -> String {
    let mode = if rights.mode == Mode::Monitor { "monitor: nothing is denied" } else { "enforce" };
    let mut lines = vec![format!("{}  {mode}", line(&rights.subject))];
    for (title, all) in [
        ("forbidden, whatever permits it", &rights.forbidden),
        ("permitted", &rights.permitted),
        ("permitted under a lease or in a change window", &rights.conditional),
    ] {
        if all.is_empty() {
            continue;
        }
        lines.push(title.to_owned());
        for right in all {
            lines.extend(render_right(right));
        }
    }
    if !rights.never.is_empty() {
        lines.push(format!("never permit, as things are: {}", line(&rights.never.join(" "))));
    }
    if !rights.not_governed.is_empty() {
        lines.push("not governed: permitted unless forbidden".to_owned());
        lines.push(format!("  {}", wrapped(&rights.not_governed, 2, 100)));
    }
    lines.join("\n")
}

fn render_right(right: &Right) -> Vec<String> {
    let monitor = if right.monitor { "  (monitor)" } else { "" };
    let mut lines = vec![format!(
        "  {:<40}  {:<32}  {}{monitor}",
        line(&right.actions),
        line(&right.resource),
        place(&right.policy)
    )];
    if let Some(condition) = &right.condition {
        lines.push(format!("      when {}", line(condition)));
    }
    for (what, names) in [("lease", &right.leases), ("change window", &right.windows)] {
        if !names.is_empty() {
            lines.push(format!("      {what} {}", line(&names.join(", "))));
        }
    }
    lines
}
