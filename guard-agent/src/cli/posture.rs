//! `guardctl posture`: facts that policy asks for.

use super::client::{Client, quoted};
use super::lease::{decode, encode, seconds};
use super::screen::Screen;
use super::{CliError, Exit};
use crate::api::types::{FactRequest, Facts};
use crate::events::escape::line;
use crate::events::time;
use crate::ledger::Fact;
use crate::policy::FactValue;
use clap::Subcommand;

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
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
}

impl Posture {
    /// Whether the answer is to be JSON.
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Set { json, .. } | Self::Get { json, .. } | Self::Unset { json, .. } => *json,
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
            Self::Unset { name, subject, .. } => {
                let subject = subject.map(|subject| format!("&subject={}", quoted(&subject)));
                client
                    .delete(&format!("/v1/facts?name={}{}", quoted(&name), subject.unwrap_or_default()))
                    .await?
            }
        };
        let mut facts: Facts = decode(&answer)?;
        facts.facts.retain(|fact| only.as_ref().is_none_or(|only| fact.name == *only));
        let is_there = !facts.facts.is_empty() || only.is_none();
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
    format!(
        "{} = {}  of {}  from {}, {} UTC  {}",
        line(&fact.name),
        line(&value),
        line(fact.subject.as_deref().unwrap_or("the host")),
        line(&fact.source),
        line(&time::people(&fact.observed)),
        line(&until)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_they_look_like() {
        assert_eq!(value_of("3"), FactValue::Long(3));
        assert_eq!(value_of("-3"), FactValue::Long(-3));
        assert_eq!(value_of("true"), FactValue::Bool(true));
        assert_eq!(value_of("office"), FactValue::String("office".to_owned()));
        assert_eq!(value_of("\"3\""), FactValue::String("3".to_owned()), "a text that looks like a number");
    }
}
