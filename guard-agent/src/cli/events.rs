//! `guardctl events`.

use super::client::Client;
use super::screen::{Reader, Screen};
use super::{CliError, Exit};
use crate::events::{Dropped, Lost, Missing, Record, escape, time};
use crate::policy;
use clap::{Args, ValueEnum};
use http_body_util::BodyExt;

/// Longest line that is taken for an event.
pub(super) const LINE_MAX: usize = 1 << 20;
/// Rows that are shown if nobody says how many.
const ROWS: usize = 1000;

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Show what happens, until interrupted. With --since, what is remembered comes first.
    #[arg(short, long)]
    follow: bool,
    /// How an event is written.
    #[arg(short, long, value_enum, default_value_t = Format::Compact)]
    pub(super) output: Format,
    /// Only of this subject.
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Only about this action, or one of this group.
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only with this verdict.
    #[arg(long, value_enum)]
    verdict: Option<Verdict>,
    /// Only what happened since: an age (90s, 30m, 2h, 7d) or a time (2026-05-04T03:02:01Z).
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// At most so many remembered ones, the newest.
    #[arg(long, value_name = "NUMBER", default_value_t = ROWS)]
    limit: usize,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One line of text for people.
    Compact,
    /// One line of JSON.
    Json,
    /// Everything that is known, on several lines.
    Long,
}

/// A verdict, as the command line spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verdict {
    /// The operation failed.
    Denied,
    /// It went on; monitor mode.
    WouldDeny,
    /// It went on; policy asked for a report.
    Audited,
    /// It went on; the shadow would have denied it.
    ShadowDeny,
}

impl Events {
    /// Prints what is asked for.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        let Self { follow, output, .. } = self;
        let limit = self.limit;
        let mut body = client.stream(&self.request(time::now())?).await?;
        let (mut pending, mut shown) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|error| CliError::unreachable(format!("the stream of events broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            pending.extend_from_slice(&data);
            for line in take_lines(&mut pending) {
                shown += 1;
                if screen.line(&render(&line, output, screen.colour, time::now()))? == Reader::Gone {
                    return Ok(Exit::Yes);
                }
            }
            if pending.len() > LINE_MAX {
                return Err(CliError::internal("the daemon sent a line without an end"));
            }
        }
        if follow {
            return Err(CliError::unreachable("the daemon ended the stream of events: it was stopped"));
        }
        if shown >= limit {
            super::screen::note(&format!("only the newest {limit}: --limit shows more"));
        }
        Ok(Exit::Yes)
    }

    fn request(&self, now: i64) -> Result<String, CliError> {
        let mut query = format!("/v1/events?follow={}&limit={}", self.follow, self.limit);
        let mut add = |name: &str, value: &str| {
            query.push_str(&format!("&{name}={}", super::client::quoted(value)));
        };
        if let Some(subject) = &self.subject {
            add("subject", subject);
        }
        if let Some(action) = &self.action {
            add("action", action);
        }
        if let Some(verdict) = self.verdict {
            add(
                "verdict",
                match verdict {
                    Verdict::Denied => "denied",
                    Verdict::WouldDeny => "would_deny",
                    Verdict::Audited => "audited",
                    Verdict::ShadowDeny => "shadow_deny",
                },
            );
        }
        if let Some(since) = &self.since {
            add("since", &time::rfc3339(instant(since, now)?));
        }
        Ok(query)
    }
}

/// The instant that an age or a time means, in nanoseconds since 1970.
pub(super) fn instant(text: &str, now: i64) -> Result<i64, CliError> {
    if let Some(age) = policy::duration(text) {
        let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        return Ok(now.saturating_sub(age));
    }
    time::parse(text).ok_or_else(|| {
        CliError::invalid(format!("{text:?} is no time: write an age like 2h, or 2026-05-04T03:02:01Z"))
    })
}

/// Takes the complete lines out of `pending`, without their ends.
pub(super) fn take_lines(pending: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
    let rest = pending.split_off(end + 1);
    let complete = std::mem::replace(pending, rest);
    complete.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

/// One line of the stream as the user wants it. What this version does not know is passed on.
fn render(line: &[u8], format: Format, colour: bool, now: i64) -> String {
    let text = String::from_utf8_lossy(line);
    if format == Format::Json {
        return escape::line(&text);
    }
    if let Ok(record) = Record::from_json_line(&text) {
        return if format == Format::Long { record.long(colour, now) } else { record.compact(colour) };
    }
    let schema = serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .and_then(|value| Some(value.get("schema")?.as_str()?.to_owned()));
    let gap = match schema.as_deref() {
        Some(Lost::SCHEMA) => serde_json::from_str::<Lost>(&text).map(|gap| gap.compact(colour)).ok(),
        Some(Dropped::SCHEMA) => serde_json::from_str::<Dropped>(&text).map(|gap| gap.compact(colour)).ok(),
        Some(Missing::SCHEMA) => serde_json::from_str::<Missing>(&text).map(|gap| gap.compact(colour)).ok(),
        _ => None,
    };
    gap.unwrap_or_else(|| escape::line(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        events: Events,
    }

    fn request(line: &str) -> Result<String, CliError> {
        let events = Line::try_parse_from(format!("events {line}").split_whitespace()).unwrap().events;
        events.request(time::parse("2026-05-04T03:00:00Z").unwrap())
    }

    #[test]
    fn lines_are_taken_whole() {
        let mut pending = b"one\n\ntwo\nthr".to_vec();
        assert_eq!(take_lines(&mut pending), [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(pending, b"thr");
        assert!(take_lines(&mut pending).is_empty());
        pending.extend_from_slice(b"ee\n");
        assert_eq!(take_lines(&mut pending), [b"three".to_vec()]);
        assert!(pending.is_empty());
    }

    #[test]
    fn gaps_are_shown_and_the_unknown_is_passed_on_harmless() {
        let compact = |line: &str| render(line.as_bytes(), Format::Compact, false, 0);
        assert!(
            compact(r#"{"schema":"guard.lost/1","cpu":1,"lost":3}"#).starts_with("LOST  3 events of CPU 1")
        );
        assert!(compact(r#"{"schema":"guard.dropped/1","dropped":4}"#).starts_with("LOST  4 events"));
        assert_eq!(
            compact(r#"{"schema":"guard.missing/1","lost":0,"not_stored":4}"#),
            "LOST  4 events not stored"
        );
        assert_eq!(compact(r#"{"schema":"guard.new/1"}"#), r#"{"schema":"guard.new/1"}"#);
        assert_eq!(compact("\x1b[2Jx"), "\\x1b[2Jx");
        let line = r#"{"schema":"guard.lost/1","cpu":1,"lost":3}"#;
        assert_eq!(render(line.as_bytes(), Format::Json, true, 0), line);
    }

    #[test]
    fn what_is_asked_for_becomes_a_request() {
        assert_eq!(request("").unwrap(), "/v1/events?follow=false&limit=1000");
        assert_eq!(
            request("-f --subject a/b&c --action net.out --verdict would-deny --since 2h --limit 5").unwrap(),
            "/v1/events?follow=true&limit=5&subject=a%2Fb%26c&action=net%2Eout&verdict=would%5Fdeny\
             &since=2026%2D05%2D04T01%3A00%3A00%2E000000Z"
        );
        let error = request("--since yesterday").unwrap_err();
        assert!(error.to_string().contains("yesterday"), "{error}");
    }
}
