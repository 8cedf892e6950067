//! `guardctl policy suggest`: from a denial to the changes that would permit it.

use super::source::invalid;
use crate::bundle;
use crate::cli::client::Client;
use crate::cli::remembered::{Remembered, remembered};
use crate::cli::screen::Screen;
use crate::cli::{CliError, Exit};
use crate::events::escape::{block, line};
use crate::events::typed_id;
use crate::host::Host;
use crate::onboard::{Advice, SHIPPED, Suggestion, suggest};
use crate::policy;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The id of a denial, or of what would have been one: d-7K3F2Q.
    id: String,
    /// The bundle to be changed; without it, the live one.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Print only the diff of this suggestion, for patch(1).
    #[arg(long, value_name = "NUMBER")]
    only: Option<usize>,
    /// Answer with one JSON value.
    #[arg(long, conflicts_with = "only")]
    pub(super) json: bool,
}

/// What was found out about one action of the denied operation.
struct Finding {
    action: String,
    on: String,
    advice: Advice,
}

/// Finds the event, asks what would permit it and prints the diffs.
pub(super) async fn run(client: &Client, screen: &Screen, args: &Args) -> Result<Exit, CliError> {
    let event = find(client, &args.id).await?;
    let record = &event.record;
    let Some(subject) = record.subject.clone() else {
        return Err(CliError::invalid(format!(
            "{}: the live policy does not know its subject any more",
            args.id
        )));
    };
    if record.reason != "policy" {
        return Err(CliError::invalid(format!(
            "{}: no policy decided it ({}), so none would permit it\n  what that means: docs/events.md",
            args.id, record.reason
        )));
    }
    let directory = match &args.bundle {
        Some(directory) => directory.clone(),
        None => super::source::directory(client).await?,
    };
    let opened = bundle::open(&directory).map_err(invalid)?;
    let bundle = policy::parse(&opened).map_err(invalid)?;
    if !bundle.subjects().any(|known| known.name == subject) {
        return Err(CliError::invalid(format!(
            "the bundle {} has no subject {subject}",
            directory.display()
        )));
    }
    let host = Host::read().map_err(|error| CliError::internal(error.to_string()))?;
    let mut findings = Vec::new();
    for seen in event.operations() {
        let advice = suggest(&opened, &bundle, &host, &subject, &seen, &SHIPPED).map_err(invalid)?;
        findings.push(Finding { action: seen.action.clone(), on: seen.thing.text(), advice });
    }
    let any = findings
        .iter()
        .any(|finding| matches!(&finding.advice, Advice::Suggestions(list, _) if !list.is_empty()));
    if let Some(number) = args.only {
        return one(screen, &findings, number);
    }
    if args.json {
        let findings: Vec<_> = findings.iter().map(Finding::json).collect();
        let body =
            json!({ "schema": "guard.suggest/1", "id": args.id, "subject": subject, "findings": findings });
        screen.answer(&body.to_string())?;
    } else {
        let mut number = 0;
        let mut lines: Vec<String> =
            findings.iter().flat_map(|one| one.render(&subject, &mut number)).collect();
        if any {
            let given = line(&directory.display().to_string());
            lines.push(String::new());
            lines.push("Nothing was changed. To take one:".to_owned());
            lines.push(format!(
                "  guardctl policy suggest {} --only NUMBER | patch -p1 -d {given}",
                line(&args.id)
            ));
        }
        screen.answer(&lines.join("\n"))?;
    }
    Ok(if any { Exit::Yes } else { Exit::No })
}

/// The kind of event with this id.
async fn find(client: &Client, id: &str) -> Result<Remembered, CliError> {
    let id = typed_id(id)
        .ok_or_else(|| CliError::invalid(format!("{id} is no id of an event: d-7K3F2Q is one")))?;
    let all = remembered(client, "follow=false").await?;
    all.into_iter().rev().find(|one| one.record.id == id).ok_or_else(|| {
        CliError::invalid(format!("the daemon remembers no event {id}\n  what it remembers: guardctl events"))
    })
}

/// Only the diff with this number.
fn one(screen: &Screen, findings: &[Finding], number: usize) -> Result<Exit, CliError> {
    let all: Vec<&Suggestion> = findings.iter().flat_map(Finding::suggestions).collect();
    match number.checked_sub(1).and_then(|index| all.get(index)) {
        Some(suggestion) => {
            screen.answer(suggestion.diff.trim_end())?;
            Ok(Exit::Yes)
        }
        None => Err(CliError::invalid(format!("there is no suggestion {number}: there are {}", all.len()))),
    }
}

impl Finding {
    fn suggestions(&self) -> &[Suggestion] {
        match &self.advice {
            Advice::Suggestions(list, _) => list,
            _ => &[],
        }
    }

    fn json(&self) -> serde_json::Value {
        let (verdict, by, missing): (_, &[String], &[String]) = match &self.advice {
            Advice::Permitted => ("permitted", &[], &[]),
            Advice::Forbidden(by) => ("forbidden", by, &[]),
            Advice::Secret => ("secret", &[], &[]),
            Advice::Unclear(why) => ("unclear", &[], std::slice::from_ref(why)),
            Advice::Suggestions(_, missing) => ("default", &[], missing),
        };
        let list = self.suggestions().iter();
        let list: Vec<_> =
            list.map(|one| json!({ "title": one.title, "allows": one.allows, "diff": one.diff })).collect();
        json!({
            "action": self.action, "on": self.on, "decided": verdict, "by": by, "suggestions": list, "not_suggested": missing,
        })
    }

    fn render(&self, subject: &str, number: &mut usize) -> Vec<String> {
        let what = format!("{}  {}  {}", line(subject), line(&self.action), line(&self.on));
        let head = |why: &str| format!("{what}  {why}");
        match &self.advice {
            Advice::Permitted => vec![head("is permitted by the bundle as it is now: apply it")],
            Advice::Forbidden(by) => vec![
                head(&format!("is forbidden by {}", line(&by.join(", ")))),
                "  no permit lifts a forbid: change that policy, or leave it".to_owned(),
            ],
            Advice::Secret => vec![
                head("is on the list of secrets, for which Guard proposes nothing"),
                "  find out who asks for it; if it must be, write the permit yourself".to_owned(),
            ],
            Advice::Unclear(why) => vec![head("cannot be named by a policy"), format!("  {}", line(why))],
            Advice::Suggestions(list, missing) => {
                let mut lines = vec![head("is denied by default: no policy permits it")];
                for one in list {
                    *number += 1;
                    lines.push(String::new());
                    lines.push(format!("{number}  {}", line(&one.title)));
                    lines.extend(one.allows.iter().map(|text| format!("   allows  {}", line(text))));
                    lines.extend(block(one.diff.trim_end()).split('\n').map(|text| format!("   {text}")));
                }
                if !missing.is_empty() {
                    lines.push(String::new());
                    lines.extend(missing.iter().map(|why| format!("-  {}", line(why))));
                }
                lines
            }
        }
    }
}
