//! `/v1/facts`: what is known, how that is said and taken back, and how it changes.

use super::access::Asking;
use super::extract::{Body, Parameters};
use super::leases::blocking;
use super::route::{Answer, Lines, OrLines, Routes};
use super::server::invalid;
use super::types::{FactChange, FactChangeKind, FactRequest, Facts};
use crate::daemon::{By, LeaseError, Shared};
use crate::events::time;
use crate::ledger::Fact;
use crate::policy::On;
use crate::policy::verbs::Verb;
use axum::body::{Body as Stream, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;

/// Bytes of a name or a source, at most.
const MAX_NAME: usize = 200;

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/v1/facts", Verb::View, facts)
        .post_each("/v1/facts", Verb::Fact, set_fact)
        .delete_each("/v1/facts", Verb::Fact, unset_facts)
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Query {
    /// Go on with what changes until the client leaves, one line of JSON each.
    #[serde(default)]
    follow: bool,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Which {
    /// The fact.
    name: String,
    /// Of which subject; without it, of the host.
    subject: Option<String>,
    /// Whose word; without it, everybody's.
    source: Option<String>,
}

fn answer(facts: Vec<Fact>) -> Facts {
    Facts { schema: Facts::SCHEMA.to_owned(), facts }
}

async fn facts(
    State(shared): State<Shared>,
    Parameters(query): Parameters<Query>,
) -> Result<OrLines<Facts, FactChange>, Response> {
    if !query.follow {
        return Ok(OrLines::One(blocking(move || Ok(answer(shared.facts()))).await?));
    }
    // Before the first look, so that nothing falls between the two.
    let changes = shared.ledger_changes();
    let follower = Follower { shared, changes, known: None, lines: VecDeque::new() };
    let lines = stream::unfold(follower, |mut follower| async move {
        let line = follower.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(line + "\n")), follower))
    });
    let response = ([(header::CONTENT_TYPE, "application/x-ndjson")], Stream::from_stream(lines));
    Ok(OrLines::Lines(Lines::new(response.into_response())))
}

/// Whoever follows the facts.
struct Follower {
    shared: Shared,
    changes: watch::Receiver<u64>,
    /// What it was told; nothing before the first time.
    known: Option<Vec<Fact>>,
    lines: VecDeque<String>,
}

impl Follower {
    /// The next line; nothing when the daemon ends. What changed twice meanwhile is one line.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.known.is_some() {
                self.changes.changed().await.ok()?;
            }
            let shared = self.shared.clone();
            let facts = tokio::task::spawn_blocking(move || shared.facts()).await.ok()?;
            self.lines = differences(self.known.as_deref(), &facts, &time::rfc3339(time::now()));
            self.known = Some(facts);
        }
    }
}

/// What changed, one line for each fact and source.
fn differences(before: Option<&[Fact]>, now: &[Fact], at: &str) -> VecDeque<String> {
    let is_same = |a: &Fact, b: &Fact| a.which() == b.which();
    // When it was found out is no change: what the agent finds out is so at every look.
    let is_unchanged =
        |a: &Fact, b: &Fact| (&a.value, &a.until, &a.ignored) == (&b.value, &b.until, &b.ignored);
    let known = before.unwrap_or_default();
    let changed = now.iter().filter_map(|fact| {
        let kind = match known.iter().find(|other| is_same(other, fact)) {
            _ if before.is_none() => FactChangeKind::Known,
            None => FactChangeKind::New,
            Some(other) if is_unchanged(other, fact) => return None,
            Some(_) => FactChangeKind::Changed,
        };
        Some((kind, fact))
    });
    let gone = known.iter().filter(|fact| !now.iter().any(|other| is_same(other, fact)));
    let all = changed.chain(gone.map(|fact| (FactChangeKind::Gone, fact)));
    let line = |(change, fact): (FactChangeKind, &Fact)| {
        let schema = FactChange::SCHEMA.to_owned();
        serde_json::to_string(&FactChange { schema, at: at.to_owned(), change, fact: fact.clone() }).ok()
    };
    all.filter_map(line).collect()
}

/// Whether whoever asks may say something of a subject, or of the host, and who that is.
fn about_fact(asking: &Asking, subject: Option<&String>) -> Result<By, LeaseError> {
    Ok(asking.on(&subject.map_or(On::Machine, |subject| On::Subject(subject.clone())))?)
}

async fn set_fact(
    State(shared): State<Shared>,
    asking: Asking,
    Body(request): Body<FactRequest>,
) -> Answer<Facts> {
    if request.source.is_empty() || request.source.len() > MAX_NAME {
        return Err(invalid("a source has a name of at most 200 bytes"));
    }
    if request.seconds == Some(0) {
        return Err(invalid("a fact lasts for a second at least"));
    }
    let set = move || {
        let by = about_fact(&asking, request.subject.as_ref())?;
        Ok(answer(vec![shared.set_fact(&request, Duration::ZERO, by.text())?]))
    };
    blocking(set).await
}

async fn unset_facts(
    State(shared): State<Shared>,
    asking: Asking,
    Parameters(which): Parameters<Which>,
) -> Answer<Facts> {
    let unset = move || {
        let by = about_fact(&asking, which.subject.as_ref())?;
        let Which { name, subject, source } = &which;
        Ok(answer(shared.unset_facts(subject.as_deref(), name, source.as_deref(), by.text())?))
    };
    blocking(unset).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::FactValue;

    fn fact(name: &str, value: i64, observed: i64) -> Fact {
        Fact::found(name, &FactValue::Long(value), "edr", observed)
    }

    fn told(before: Option<&[Fact]>, now: &[Fact]) -> Vec<(FactChangeKind, String, FactValue)> {
        let lines = differences(before, now, "2026-01-02T03:04:05.000000Z");
        let change = |line: String| {
            let change: FactChange = serde_json::from_str(&line).unwrap();
            (change.change, change.fact.name, change.fact.value)
        };
        lines.into_iter().map(change).collect()
    }

    #[test]
    fn what_is_known_comes_first_and_then_only_what_changes() {
        let long = FactValue::Long;
        let first = [fact("a", 1, 10), fact("b", 2, 10)];
        let known = |name: &str, value| (FactChangeKind::Known, name.to_owned(), long(value));
        assert_eq!(told(None, &first), [known("a", 1), known("b", 2)]);
        assert_eq!(told(Some(&first), &[fact("a", 1, 99), fact("b", 2, 99)]), []);
        let other = Fact { source: "desk".to_owned(), ..fact("a", 1, 10) };
        let next = [fact("a", 3, 10), other];
        assert_eq!(
            told(Some(&first), &next),
            [
                (FactChangeKind::Changed, "a".to_owned(), long(3)),
                (FactChangeKind::New, "a".to_owned(), long(1)),
                (FactChangeKind::Gone, "b".to_owned(), long(2)),
            ]
        );
        let disputed = Fact { ignored: Some("desk says otherwise".to_owned()), ..fact("a", 1, 10) };
        assert_eq!(told(Some(&first[..1]), &[disputed]).len(), 1);
        assert_eq!(told(None, &[]), []);
    }
}
