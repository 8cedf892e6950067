//! `guardctl events`.

use super::client::Client;
use super::screen::{Reader, Screen};
use super::{CliError, Exit, Format};
use crate::events::{Lost, Record, escape};
use http_body_util::BodyExt;
use serde::Deserialize;

/// Longest line that is taken for an event.
const LINE_MAX: usize = 1 << 20;

/// Events that the daemon could not hand on because this client read too slowly.
#[derive(Deserialize)]
struct Dropped {
    dropped: u64,
}

/// Prints the daemon's events as they come.
pub(super) async fn run(
    client: &Client,
    screen: &Screen,
    follow: bool,
    format: Format,
) -> Result<Exit, CliError> {
    let mut body = client.stream(&format!("/v1/events?follow={follow}")).await?;
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| CliError::unreachable(format!("the stream of events broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        for line in take_lines(&mut pending) {
            if screen.line(&render(&line, format, screen.colour))? == Reader::Gone {
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
    Ok(Exit::Yes)
}

/// Takes the complete lines out of `pending`, without their ends.
fn take_lines(pending: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
    let rest = pending.split_off(end + 1);
    let complete = std::mem::replace(pending, rest);
    complete.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

/// One line of the stream as the user wants it. What this version does not know is passed on.
fn render(line: &[u8], format: Format, colour: bool) -> String {
    let text = String::from_utf8_lossy(line);
    if format == Format::Compact {
        if let Ok(record) = Record::from_json_line(&text) {
            return record.compact(colour);
        }
        if let Ok(lost) = serde_json::from_str::<Lost>(&text) {
            return lost.compact(colour);
        }
        if let Ok(Dropped { dropped }) = serde_json::from_str(&text) {
            return format!("LOST  {dropped} events: this reader was too slow");
        }
    }
    escape::line(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let compact = |line: &str| render(line.as_bytes(), Format::Compact, false);
        assert!(
            compact(r#"{"schema":"guard.lost/1","cpu":1,"lost":3}"#).starts_with("LOST  3 events of CPU 1")
        );
        assert!(compact(r#"{"schema":"guard.dropped/1","dropped":4}"#).starts_with("LOST  4 events"));
        assert_eq!(compact(r#"{"schema":"guard.new/1"}"#), r#"{"schema":"guard.new/1"}"#);
        assert_eq!(compact("\x1b[2Jx"), "\\x1b[2Jx");
        let line = r#"{"schema":"guard.lost/1","cpu":1,"lost":3}"#;
        assert_eq!(render(line.as_bytes(), Format::Json, true), line);
    }
}
