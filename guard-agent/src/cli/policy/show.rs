//! `guardctl policy show`.

use super::source::{Source, host, invalid, refused};
use crate::analysis::can::Named;
use crate::cli::client::Client;
use crate::cli::screen::{Screen, short};
use crate::cli::{CliError, Exit};
use crate::events::escape::line;
use crate::policy::{EffectivePolicy, EffectiveSet, Facts};
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// As Cedar text that decides alike: includes linked, links followed, fail-closed rules written out.
    #[arg(long)]
    effective: bool,
    /// Only what can concern this subject.
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    #[command(flatten)]
    source: Source,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

/// Prints the policies of the bundle.
pub(super) async fn run(client: &Client, screen: &Screen, args: &Args) -> Result<Exit, CliError> {
    let bundle = args.source.load(client).await?;
    let subject = args.subject.as_deref();
    if let Some(name) = subject
        && !bundle.subjects().any(|known| known.name == name)
    {
        return Err(CliError::invalid(format!("the bundle has no subject {name}")));
    }
    let host = host()?;
    let set = EffectiveSet::new(&bundle, &host, &Facts::default()).map_err(invalid)?;
    let shown: Vec<&EffectivePolicy> = set
        .policies
        .iter()
        .filter(|policy| subject.is_none_or(|subject| policy.concerns(&bundle, subject)))
        .collect();
    if args.json {
        let policies: Vec<_> = shown
            .iter()
            .map(|policy| {
                json!({
                    "policy": Named::of(policy),
                    "effect": effect(policy),
                    "mode": mode(policy),
                    "actions": policy.actions_text(),
                    "resource": policy.resource_text(),
                    "condition": policy.condition_text(),
                    "rewritten": policy.rewritten,
                })
            })
            .collect();
        let body = json!({
            "schema": "guard.show/1",
            "bundle": { "name": bundle.name, "version": bundle.version, "digest": bundle.digest },
            "policies": policies,
            "cedar": set.text(&bundle, subject).map_err(refused)?,
        });
        screen.answer(&body.to_string())?;
    } else if args.effective {
        screen.answer(set.text(&bundle, subject).map_err(refused)?.trim_end())?;
    } else {
        let head =
            format!("{} version {} ({}…)", line(&bundle.name), bundle.version, line(&short(&bundle.digest)));
        let width = shown.iter().map(|policy| line(&policy.id).chars().count()).max().unwrap_or_default();
        let rows = shown.iter().map(|policy| {
            format!(
                "  {:width$}  {:<6}  {:<7}  {}",
                line(&policy.id),
                effect(policy),
                mode(policy),
                policy.origin.as_ref().map_or_else(
                    || "generated: actions that are not governed".to_owned(),
                    |origin| format!("{}:{}", line(origin.file()), origin.line())
                )
            )
        });
        screen.answer(&std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n"))?;
    }
    Ok(Exit::Yes)
}

fn effect(policy: &EffectivePolicy) -> &'static str {
    if policy.permit { "permit" } else { "forbid" }
}

fn mode(policy: &EffectivePolicy) -> &'static str {
    if policy.monitor { "monitor" } else { "enforce" }
}
