//! `guardctl policy rollback`, `history` and `release-hold`.

use super::apply::tell;
use super::client::Client;
use super::screen::{Screen, short};
use super::{CliError, Exit};
use crate::api::types::{History, Released, RollbackRequest};
use crate::bundle::{Ended, Entry, How};
use crate::daemon::{Disarm, ModeChange};
use crate::events::escape::line;
use crate::policy::{self, Mode};
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// Refuse every other bundle for so long: a number and s, m, h or d.
    #[arg(long, value_name = "DURATION")]
    hold: Option<String>,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

impl Rollback {
    /// Goes back and says to what.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        let seconds = |text: String| {
            let wrong = || CliError::invalid(format!("{text:?} is not a duration: write 30m or 2h"));
            policy::duration(&text).map(|hold| hold.as_secs()).ok_or_else(wrong)
        };
        let hold_seconds = self.hold.map(seconds).transpose()?;
        let request = RollbackRequest { hold_seconds, reason: self.reason };
        let body = serde_json::to_vec(&request)
            .map_err(|error| CliError::internal(format!("cannot write the request: {error}")))?;
        let answer = client.post("/v1/policy/rollback", body).await?;
        tell(screen, &answer, "back to", self.json)
    }
}

/// Prints the history, newest last.
pub(super) async fn run(client: &Client, screen: &Screen, json: bool) -> Result<Exit, CliError> {
    let answer = client.get("/v1/policy/history").await?;
    let history: History = serde_json::from_slice(&answer)
        .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))?;
    if json {
        screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
    } else {
        screen.answer(&render(&history))?;
    }
    Ok(Exit::Yes)
}

/// Ends the hold.
pub(super) async fn release_hold(client: &Client, screen: &Screen, json: bool) -> Result<Exit, CliError> {
    let answer = client.post("/v1/policy/release-hold", b"{}".to_vec()).await?;
    let released: Released = serde_json::from_slice(&answer)
        .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))?;
    if json {
        screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
    } else {
        screen.answer(if released.changed { "the hold is released" } else { "nothing was held" })?;
    }
    Ok(Exit::Yes)
}

fn render(history: &History) -> String {
    let mut dated: Vec<(&str, String)> =
        history.entries.iter().map(|entry| (entry.at.as_str(), describe(entry))).collect();
    if let Some((_, last)) = dated.last_mut() {
        last.push_str("  (live)");
    }
    dated.extend(history.modes.iter().map(|change| (change.at.as_str(), mode(change))));
    dated.extend(history.shadows.iter().map(|ended| (ended.ended.as_str(), shadow(ended))));
    dated.extend(history.disarms.iter().map(|ended| (ended.at.as_str(), disarm(ended))));
    // Times of the same form, so their order is that of the text.
    dated.sort_by(|(one, _), (other, _)| seconds(one).cmp(seconds(other)));
    let mut lines: Vec<String> = dated.into_iter().map(|(_, text)| text).collect();
    if let Some(shadow) = &history.shadow {
        lines.push(format!(
            "shadow {} version {} ({}…) since {} by {}",
            line(&shadow.name),
            shadow.version,
            line(&short(&shadow.digest)),
            line(&shadow.at),
            line(&shadow.by)
        ));
    }
    if let Some(hold) = &history.hold {
        let why = hold.reason.as_ref().map(|reason| format!(": {}", line(reason))).unwrap_or_default();
        lines.push(format!("held until {} by {}{why}", line(&hold.until), line(&hold.by)));
    }
    if lines.is_empty() { "nothing was live on this host yet".to_owned() } else { lines.join("\n") }
}

/// A time in UTC without the fraction of its second.
fn seconds(time: &str) -> &str {
    time.split(['.', 'Z']).next().unwrap_or(time)
}

fn mode(change: &ModeChange) -> String {
    let what = change.mode.map_or("back to its bundle's mode", Mode::name);
    let until =
        change.until.as_ref().map_or(String::new(), |until| format!(" until {}Z", line(seconds(until))));
    let reason = change.reason.as_ref().map(|reason| format!("  \"{}\"", line(reason))).unwrap_or_default();
    format!(
        "   -  {}Z  mode  {}: {what}{until}  by {}{reason}",
        line(seconds(&change.at)),
        line(&change.subject),
        line(&change.by)
    )
}

/// The end of enforcement.
fn disarm(disarm: &Disarm) -> String {
    format!(
        "   -  {}Z  disarmed{}  by {}  \"{}\"",
        line(seconds(&disarm.at)),
        if disarm.offline { " offline" } else { "" },
        line(&disarm.by),
        line(&disarm.reason)
    )
}

/// A shadow that ended.
fn shadow(ended: &Ended) -> String {
    let shadow = &ended.shadow;
    format!(
        "   -  {}Z  shadow {}  {} version {} ({}…), since {}  by {}",
        line(seconds(&ended.ended)),
        ended.how.name(),
        line(&shadow.name),
        shadow.version,
        line(&short(&shadow.digest)),
        line(&shadow.at),
        line(&ended.ended_by)
    )
}

fn describe(entry: &Entry) -> String {
    let how = match (entry.how, entry.back_to) {
        (How::Start, _) => "start".to_owned(),
        (How::Apply, _) => "apply".to_owned(),
        (How::Promote, _) => "promoted".to_owned(),
        (How::Rollback, Some(back_to)) => format!("rollback to {back_to}"),
        (How::Rollback, None) => "rollback".to_owned(),
    };
    let signed = match entry.signed_by.as_slice() {
        [] => "not signed".to_owned(),
        by => format!("signed by {}", line(&by.join(", "))),
    };
    let reason = entry.reason.as_ref().map(|reason| format!("  \"{}\"", line(reason))).unwrap_or_default();
    format!(
        "{:4}  {}  {how}  {} version {} ({}…)  {signed}  by {}{reason}",
        entry.number,
        line(&entry.at),
        line(&entry.name),
        entry.version,
        line(&short(&entry.digest)),
        line(&entry.by)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{End, Hold, Shadow};

    #[test]
    fn a_change_is_one_line_and_says_who_and_why() {
        let entry = Entry {
            number: 7,
            how: How::Rollback,
            at: "2026-01-02T03:04:05Z".into(),
            name: "web\x1b".into(),
            version: 3,
            digest: "0123456789abcdef".into(),
            source: "/x".into(),
            signed_by: vec!["release".into()],
            by: "uid 0, logged in as uid 1000".into(),
            reason: Some("INC-1".into()),
            back_to: Some(4),
        };
        let hold = Hold { until: "2026-01-02T05:04:05Z".into(), by: "uid 0".into(), reason: None };
        let change = ModeChange {
            at: "2026-01-02T03:04:04.999999Z".into(),
            subject: "nginx".into(),
            mode: Some(Mode::Enforce),
            until: Some("2026-01-02T04:04:04.999999Z".into()),
            by: "uid 0".into(),
            reason: None,
        };
        let beside = Shadow {
            began: 1,
            at: "2026-01-02T03:04:06Z".into(),
            name: "web".into(),
            version: 4,
            digest: "fedcba9876543210".into(),
            source: "/y".into(),
            signed_by: Vec::new(),
            by: "uid 0".into(),
        };
        let ended = Ended {
            shadow: Shadow { version: 2, at: "2026-01-01T00:00:00Z".into(), ..beside.clone() },
            ended: "2026-01-02T03:04:03Z".into(),
            how: End::Stopped,
            ended_by: "uid 0".into(),
        };
        let history = History {
            schema: String::new(),
            entries: vec![entry],
            hold: Some(hold),
            modes: vec![change],
            shadow: Some(beside.clone()),
            shadows: vec![ended],
            disarms: vec![Disarm {
                at: "2026-01-02T03:04:02Z".into(),
                by: "uid 0".into(),
                reason: "INC-0".into(),
                offline: true,
            }],
        };
        assert_eq!(
            render(&history),
            "   -  2026-01-02T03:04:02Z  disarmed offline  by uid 0  \"INC-0\"\n   -  2026-01-02T03:04:03Z  shadow stopped  web version 2 (fedcba987654…), since 2026-01-01T00:00:00Z  by uid 0\n   -  2026-01-02T03:04:04Z  mode  nginx: enforce until 2026-01-02T04:04:04Z  by uid 0\n   7  2026-01-02T03:04:05Z  rollback to 4  web\\x1b version 3 (0123456789ab…)  signed by release  \
             by uid 0, logged in as uid 1000  \"INC-1\"  (live)\nshadow web version 4 (fedcba987654…) since 2026-01-02T03:04:06Z by uid 0\nheld until 2026-01-02T05:04:05Z by uid 0"
        );
        let empty = History {
            entries: Vec::new(),
            hold: None,
            modes: Vec::new(),
            shadow: None,
            shadows: Vec::new(),
            disarms: Vec::new(),
            ..history
        };
        assert_eq!(render(&empty), "nothing was live on this host yet");
    }
}
