//! `guardctl mode`.

use super::client::Client;
use super::screen::Screen;
use super::{CliError, Exit};
use crate::api::types::{ModeRequest, ModeSet};
use crate::events::escape::line;
use crate::policy::{self, Mode};
use clap::{Args, ValueEnum};

/// What a subject's mode can be set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// Deny what policy does not permit.
    Enforce,
    /// Allow everything, and report what would be denied.
    Monitor,
    /// What the bundle says, at once.
    Bundle,
}

#[derive(Debug, Args)]
pub(super) struct SetMode {
    #[arg(value_name = "MODE")]
    mode: Wanted,
    /// The subject.
    #[arg(value_name = "SUBJECT")]
    subject: String,
    /// For how long: a number and s, m, h or d. Then the bundle's mode counts again, by itself.
    #[arg(long = "for", value_name = "DURATION")]
    length: Option<String>,
    /// Why, for the log of the agent. Needed for monitor, which lets everything through.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

impl SetMode {
    /// Sets the mode and says until when.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        let mode = match self.mode {
            Wanted::Enforce => Some(Mode::Enforce),
            Wanted::Monitor => Some(Mode::Monitor),
            Wanted::Bundle => None,
        };
        if mode == Some(Mode::Monitor) && self.reason.is_none() {
            return Err(CliError::invalid("monitor lets everything through: say why with --reason TEXT"));
        }
        let seconds = match (&self.length, mode) {
            (Some(text), Some(_)) => {
                let wrong = || CliError::invalid(format!("{text:?} is not a duration: write 30m or 2h"));
                policy::duration(text).ok_or_else(wrong)?.as_secs()
            }
            (None, Some(_)) => return Err(CliError::invalid("for how long? add --for 1h")),
            (_, None) => 0,
        };
        let request = ModeRequest { subject: self.subject, mode, seconds, reason: self.reason };
        let body = serde_json::to_vec(&request)
            .map_err(|error| CliError::internal(format!("cannot write the request: {error}")))?;
        let answer = client.post("/v1/mode", body).await?;
        let set: ModeSet = serde_json::from_slice(&answer)
            .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))?;
        if self.json {
            screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
        } else {
            screen.answer(&say(&set))?;
        }
        Ok(Exit::Yes)
    }
}

fn say(set: &ModeSet) -> String {
    let subject = line(&set.subject);
    match &set.until {
        Some(until) => {
            format!("{subject}: {} until {}, then {}", word(set.mode), line(until), word(set.then))
        }
        None => format!("{subject}: {}, as the bundle says", word(set.mode)),
    }
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_what_comes_after() {
        let set = ModeSet {
            schema: "guard.mode/1".to_owned(),
            subject: "nginx".to_owned(),
            mode: Mode::Enforce,
            until: Some("2026-05-04T03:02:01Z".to_owned()),
            then: Mode::Monitor,
        };
        assert_eq!(say(&set), "nginx: enforce until 2026-05-04T03:02:01Z, then monitor");
        let back = ModeSet { mode: Mode::Monitor, until: None, ..set };
        assert_eq!(say(&back), "nginx: monitor, as the bundle says");
    }
}
