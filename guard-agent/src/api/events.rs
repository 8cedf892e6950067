//! `GET /v1/events`: what is remembered, what happens, or the one and then the other.

use super::extract::Parameters;
use super::route::{Lines, Routes};
use super::server::{internal, invalid};
use crate::daemon::Shared;
use crate::events::{Dropped, Lost, Missing, Record, time};
use crate::policy::verbs::Verb;
use crate::store::Filter;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use guard_common::action::expand;
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// Most rows in one answer, and how many it has if nobody says.
const MAX_ROWS: usize = 100_000;

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new().get("/v1/events", Verb::View, events)
}

/// One line of the answer.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "EventLine"))]
#[cfg_attr(test, schemars(untagged))]
#[expect(dead_code, reason = "lines are written as text; this says what they are")]
enum Line {
    /// An event.
    Event(Box<Record>),
    /// Events that the kernel had no room for.
    Lost(Lost),
    /// Events that this reader was too slow for.
    Dropped(Dropped),
    /// What the memory lacks.
    Missing(Missing),
}

/// Query of `GET /v1/events`.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Query {
    /// Go on with what happens until the client leaves. What is remembered comes before it only if
    /// `since` is given.
    #[serde(default)]
    follow: bool,
    /// Name of a subject.
    subject: Option<String>,
    /// An action or a group of actions.
    action: Option<String>,
    /// `denied`, `would_deny`, `audited` or `shadow_deny`.
    verdict: Option<String>,
    /// RFC 3339.
    since: Option<String>,
    /// At most so many remembered ones, the newest.
    limit: Option<usize>,
}

impl Query {
    fn filter(&self) -> Result<Filter, String> {
        let actions = match &self.action {
            None => None,
            Some(name) => Some(expand(name).ok_or_else(|| format!("there is no action or group {name}"))?),
        };
        let verdict = match self.verdict.as_deref() {
            None | Some("denied" | "would_deny" | "audited" | "shadow_deny") => self.verdict.clone(),
            Some(other) => {
                return Err(format!("{other} is no verdict: denied, would_deny, audited or shadow_deny"));
            }
        };
        let since = match &self.since {
            None => None,
            Some(text) => Some(time::parse(text).ok_or_else(|| format!("{text} is not an RFC 3339 time"))?),
        };
        let limit = Some(self.limit.unwrap_or(MAX_ROWS).min(MAX_ROWS));
        Ok(Filter { subject: self.subject.clone(), actions, verdict, since, limit, ..Filter::default() })
    }
}

async fn events(
    State(shared): State<Shared>,
    Parameters(query): Parameters<Query>,
) -> Result<Lines<Line>, Response> {
    let filter = match query.filter() {
        Ok(filter) => filter,
        Err(why) => return Err(invalid(&why)),
    };
    // Before the past is read, so that nothing falls between the two.
    let receiver = query.follow.then(|| shared.subscribe());
    let past = if query.follow && filter.since.is_none() {
        Vec::new()
    } else {
        let wanted = filter.clone();
        match tokio::task::spawn_blocking(move || shared.store().query(&wanted)).await {
            Ok(Ok((found, missing))) => {
                // Newest last, as they happen.
                let mut lines: Vec<String> =
                    found.iter().rev().map(|row| row.record.to_json_line()).collect();
                if !missing.is_nothing() {
                    lines.push(missing.to_json_line());
                }
                lines
            }
            Ok(Err(error)) => return Err(internal(&error)),
            Err(error) => return Err(internal(&error)),
        }
    };
    let live = stream::iter(receiver).flat_map(move |receiver| live(receiver, filter.clone()));
    let lines = stream::iter(past).chain(live);
    let body = lines.map(|line| Ok::<_, Infallible>(Bytes::from(line + "\n")));
    let response = ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body));
    Ok(Lines::new(response.into_response()))
}

/// What happens from now on and passes the filter, and what this reader missed of it.
fn live(receiver: Receiver<Arc<str>>, filter: Filter) -> impl Stream<Item = String> {
    stream::unfold((Box::new(receiver), filter), |(mut receiver, filter)| async move {
        loop {
            let line = match receiver.recv().await {
                Ok(line) if passes(&line, &filter) => line.to_string(),
                Ok(_) => continue,
                Err(RecvError::Lagged(missed)) => Dropped::new(missed).to_json_line(),
                Err(RecvError::Closed) => return None,
            };
            return Some((line, (receiver, filter)));
        }
    })
}

/// Whether a line is wanted. What is no event, such as a gap, always is.
fn passes(line: &str, filter: &Filter) -> bool {
    let Filter { subject: None, actions: None, verdict: None, .. } = filter else {
        return Record::from_json_line(line).map_or(true, |record| filter.takes(&record));
    };
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> Query {
        Query { follow: false, subject: None, action: None, verdict: None, since: None, limit: None }
    }

    #[test]
    fn a_query_becomes_a_filter_or_says_what_is_wrong() {
        let filter = Query { action: Some("net.out".into()), limit: Some(5), ..query() }.filter().unwrap();
        assert_eq!((filter.actions.map(u64::count_ones), filter.limit), (Some(2), Some(5)));
        for (query, word) in [
            (Query { action: Some("file.raed".into()), ..query() }, "file.raed"),
            (Query { verdict: Some("allowed".into()), ..query() }, "would_deny"),
            (Query { since: Some("yesterday".into()), ..query() }, "RFC 3339"),
        ] {
            let error = query.filter().unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_gap_passes_every_filter() {
        let filter = Filter { subject: Some("x".into()), ..Filter::default() };
        assert!(passes(r#"{"schema":"guard.lost/1","cpu":1,"lost":3}"#, &filter));
        assert!(passes("", &Filter::default()));
    }
}
