//! `guardctl mode`.

use super::client::Client;
use super::screen::{Screen, confirm};
use super::{CliError, Exit};
use crate::api::types::{ModeRequest, ModeSet};
use crate::events::escape::line;
use crate::events::time;
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
    /// Why, for the history. Needed for what denies less than now.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask before what denies less than now.
    #[arg(short, long)]
    yes: bool,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

impl SetMode {
    /// Sets the mode and says until when. The daemon knows what denies less than now, and refuses it
    /// unless it is confirmed.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        let mut request = self.request()?;
        let answer = match post(client, &request).await {
            Err(refused) if refused.code() == ModeRequest::UNCONFIRMED => {
                confirmed(&refused)?;
                request.confirmed = true;
                post(client, &request).await?
            }
            answer => answer?,
        };
        let set: ModeSet = serde_json::from_slice(&answer)
            .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))?;
        if self.json {
            screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
        } else {
            screen.answer(&say(&set, time::now()))?;
        }
        Ok(Exit::Yes)
    }

    fn request(&self) -> Result<ModeRequest, CliError> {
        let mode = match self.mode {
            Wanted::Enforce => Some(Mode::Enforce),
            Wanted::Monitor => Some(Mode::Monitor),
            Wanted::Bundle => None,
        };
        let seconds = match (&self.length, mode) {
            (Some(text), Some(_)) => {
                let wrong = || CliError::invalid(format!("{text:?} is not a duration: write 30m or 2h"));
                policy::duration(text).ok_or_else(wrong)?.as_secs()
            }
            (None, Some(_)) => return Err(CliError::invalid("for how long? add --for 1h")),
            (Some(_), None) => {
                return Err(CliError::invalid("the bundle's mode has no end: leave out --for"));
            }
            (None, None) => 0,
        };
        let (subject, reason) = (self.subject.clone(), self.reason.clone());
        Ok(ModeRequest { subject, mode, seconds, reason, confirmed: self.yes })
    }
}

async fn post(client: &Client, request: &ModeRequest) -> Result<bytes::Bytes, CliError> {
    let body = serde_json::to_vec(request)
        .map_err(|error| CliError::internal(format!("cannot write the request: {error}")))?;
    client.post("/v1/mode", body).await
}

/// Asks whether it is meant, if there is a terminal to ask on.
fn confirmed(refused: &CliError) -> Result<(), CliError> {
    let what = line(&refused.to_string());
    match confirm(&format!("{what}. Continue?")) {
        Some(true) => Ok(()),
        Some(false) => Err(CliError::no("nothing was changed")),
        None => Err(CliError::invalid(format!("{what}: add --yes, there is no terminal to ask on"))),
    }
}

fn say(set: &ModeSet, now: i64) -> String {
    match &set.until {
        Some(end) => until(&set.subject, set.mode.name(), end, set.then.name(), now),
        None => format!("{}: {}, as the bundle says", line(&set.subject), set.mode.name()),
    }
}

/// `nginx: enforce until 2026-05-04 04:02:01 UTC (60 min), then monitor`
pub(super) fn until(subject: &str, mode: &str, end: &str, then: &str, now: i64) -> String {
    // To the nearest second: what was set for an hour a moment ago lasts for an hour.
    let left = |end: i64| format!(" ({})", time::span(end.saturating_sub(now).saturating_add(500_000_000)));
    let left = time::parse(end).map_or(String::new(), left);
    format!(
        "{}: {} until {} UTC{left}, then {}",
        line(subject),
        line(mode),
        line(&time::people(end)),
        line(then)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: SetMode,
    }

    fn request(text: &str) -> Result<ModeRequest, CliError> {
        Line::try_parse_from(format!("mode {text}").split_whitespace()).unwrap().args.request()
    }

    #[test]
    fn a_mode_lasts_for_a_time_and_the_bundles_does_not() {
        let hour = request("enforce nginx --for 1h --reason x").unwrap();
        assert_eq!((hour.mode, hour.seconds), (Some(Mode::Enforce), 3600));
        assert_eq!((hour.reason.as_deref(), hour.confirmed), (Some("x"), false));
        assert!(request("monitor nginx --for 1h --reason x --yes").unwrap().confirmed);
        assert_eq!(request("bundle nginx").unwrap().mode, None);
        for wrong in ["enforce nginx", "enforce nginx --for soon", "bundle nginx --for 1h"] {
            assert_eq!(request(wrong).unwrap_err().exit(), Exit::Invalid, "{wrong}");
        }
    }

    #[test]
    fn the_answer_says_what_comes_after() {
        let now = time::parse("2026-05-04T02:02:01Z").unwrap();
        let set = ModeSet {
            schema: "guard.mode/1".to_owned(),
            subject: "nginx".to_owned(),
            mode: Mode::Enforce,
            until: Some("2026-05-04T03:02:01.000000Z".to_owned()),
            then: Mode::Monitor,
        };
        assert_eq!(say(&set, now), "nginx: enforce until 2026-05-04 03:02:01 UTC (60 min), then monitor");
        let back = ModeSet { mode: Mode::Monitor, until: None, ..set };
        assert_eq!(say(&back, now), "nginx: monitor, as the bundle says");
    }
}
