//! `guardctl posture`: facts that policy asks for.

use super::client::{Client, quoted};
use super::events::{LINE_MAX, take_lines};
use super::lease::{decode, encode, seconds};
use super::screen::{Reader, Screen};
use super::{CliError, Exit};
use crate::api::types::{FactChange, FactChangeKind, FactRequest, Facts};
use crate::events::escape::{self, line};
use crate::events::time;
use crate::ledger::Fact;
use crate::policy::FactValue;
use clap::Subcommand;
use http_body_util::BodyExt;

#[derive(Debug, Subcommand)]
pub(super) enum Posture {
    /// Say what is true, until somebody says otherwise or it is over
    Set {
        /// NAME=VALUE: a whole number, true, false, or a text.
        #[arg(value_name = "FACT")]
        fact: String,
        /// Of which subject; without it, of the host.
        #[arg(long, value_name = "SUBJECT")]
        subject: Option<String>,
        /// For how long: a number and s, m, h or d. What the bundle says is the longest.
        #[arg(long = "for", value_name = "DURATION")]
        length: Option<String>,
        /// Where it comes from.
        #[arg(long, value_name = "NAME", default_value = "operator")]
        source: String,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
    /// Show what is known
    Get {
        /// One fact.
        name: Option<String>,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
    /// Take a fact back: it is absent from then on
    Unset {
        /// The fact.
        name: String,
        /// Of which subject; without it, of the host.
        #[arg(long, value_name = "SUBJECT")]
        subject: Option<String>,
        /// Only what this source said; without it, what anybody did.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
    /// Show what is known, and then every change, until interrupted
    Watch {
        /// One fact.
        name: Option<String>,
        /// One line of JSON for each.
        #[arg(long)]
        json: bool,
    },
}

impl Posture {
    /// Whether the answer is to be JSON.
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Set { json, .. }
            | Self::Get { json, .. }
            | Self::Unset { json, .. }
            | Self::Watch { json, .. } => *json,
        }
    }

    /// Does it and says what is known.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        let json = self.json();
        let mut only = None;
        let answer = match self {
            Self::Set { fact, subject, length, source, .. } => {
                let (name, value) = fact
                    .split_once('=')
                    .ok_or_else(|| CliError::invalid(format!("{fact:?} says nothing: write NAME=VALUE")))?;
                let body = FactRequest {
                    name: name.to_owned(),
                    subject,
                    value: value_of(value),
                    source,
                    seconds: seconds(length.as_deref())?,
                };
                client.post("/v1/facts", encode(&body)?).await?
            }
            Self::Get { name, .. } => {
                only = name;
                client.get("/v1/facts").await?
            }
            Self::Unset { name, subject, source, .. } => {
                let mut path = format!("/v1/facts?name={}", quoted(&name));
                for (key, value) in [("subject", subject), ("source", source)] {
                    path.extend(value.map(|value| format!("&{key}={}", quoted(&value))));
                }
                client.delete(&path).await?
            }
            Self::Watch { name, .. } => return watch(client, screen, name.as_deref(), json).await,
        };
        let mut facts: Facts = decode(&answer)?;
        facts.facts.retain(|fact| only.as_ref().is_none_or(|only| fact.name == *only));
        let is_there = only.is_none() || facts.facts.iter().any(|fact| fact.ignored.is_none());
        if json {
            let text = serde_json::to_string(&facts);
            screen.answer(&text.map_err(|error| CliError::internal(error.to_string()))?)?;
        } else if facts.facts.is_empty() {
            screen.answer("no facts: what policy asks for is absent")?;
        } else {
            screen.answer(&facts.facts.iter().map(describe).collect::<Vec<_>>().join("\n"))?;
        }
        Ok(if is_there { Exit::Yes } else { Exit::No })
    }
}

/// Prints changes as they come, of one fact or of all.
async fn watch(client: &Client, screen: &Screen, only: Option<&str>, json: bool) -> Result<Exit, CliError> {
    let mut body = client.stream("/v1/facts?follow=true").await?;
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| CliError::unreachable(format!("the stream of facts broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        for line in take_lines(&mut pending) {
            let change: FactChange = decode(&line)?;
            if only.is_some_and(|only| change.fact.name != only) {
                continue;
            }
            let text =
                if json { escape::line(&String::from_utf8_lossy(&line)) } else { describe_change(&change) };
            if screen.line(&text)? == Reader::Gone {
                return Ok(Exit::Yes);
            }
        }
        if pending.len() > LINE_MAX {
            return Err(CliError::internal("the daemon sent a line without an end"));
        }
    }
    Err(CliError::unreachable("the daemon ended the stream of facts: it was stopped"))
}

/// `2026-05-04 03:02:01  new      trust = 3  of the host …`
fn describe_change(change: &FactChange) -> String {
    let kind = match change.change {
        FactChangeKind::Known => "known",
        FactChangeKind::New => "new",
        FactChangeKind::Changed => "changed",
        FactChangeKind::Gone => "gone",
    };
    format!("{}  {kind:<7}  {}", line(&time::people(&change.at)), describe(&change.fact))
}

/// What somebody types: a number and a truth value are what they look like.
fn value_of(text: &str) -> FactValue {
    match (text.parse(), text) {
        (Ok(number), _) => FactValue::Long(number),
        (_, "true") => FactValue::Bool(true),
        (_, "false") => FactValue::Bool(false),
        _ => FactValue::String(text.trim_matches('"').to_owned()),
    }
}

fn describe(fact: &Fact) -> String {
    let value = serde_json::to_string(&fact.value).unwrap_or_default();
    let until =
        fact.until.as_ref().map_or("no end".to_owned(), |until| format!("until {} UTC", time::people(until)));
    let ignored = fact.ignored.as_ref().map(|why| format!("  does not count: {}", line(why)));
    format!(
        "{} = {}  of {}  from {}, {} UTC  {}{}",
        line(&fact.name),
        line(&value),
        line(fact.subject.as_deref().unwrap_or("the host")),
        line(&fact.source),
        line(&time::people(&fact.observed)),
        line(&until),
        ignored.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_count_says_why_and_no_fact_can_look_like_another() {
        let fact = Fact {
            ignored: Some("desk says otherwise".to_owned()),
            ..Fact::found("trust", &FactValue::String("a\nb".into()), "edr", 0)
        };
        let change = FactChange {
            schema: FactChange::SCHEMA.to_owned(),
            at: "2026-01-02T03:04:05.000000Z".to_owned(),
            change: FactChangeKind::Changed,
            fact,
        };
        assert_eq!(
            describe_change(&change),
            "2026-01-02 03:04:05  changed  trust = \"a\\nb\"  of the host  from edr, 1970-01-01 00:00:00 UTC  no end  \
             does not count: desk says otherwise"
        );
    }

    #[test]
    fn values_are_what_they_look_like() {
        assert_eq!(value_of("3"), FactValue::Long(3));
        assert_eq!(value_of("-3"), FactValue::Long(-3));
        assert_eq!(value_of("true"), FactValue::Bool(true));
        assert_eq!(value_of("office"), FactValue::String("office".to_owned()));
        assert_eq!(value_of("\"3\""), FactValue::String("3".to_owned()), "a text that looks like a number");
    }
}
