//! `/v1/selftest`: a process has itself labelled as the canary, and another asks what was denied to it.

use super::extract::Parameters;
use super::server::{Peer, answer, failure, invalid};
use super::types::{Denials, TrialBegun};
use crate::daemon::{Shared, TrialError};
use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use guard_common::action::{Action, TABLE};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long the kernel's reports may take to arrive. Nothing depends on it but what is said of them.
const PATIENCE: Duration = Duration::from_secs(10);

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/v1/selftest", get(denials).post(begin))
}

async fn begin(State(shared): State<Shared>, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    let (Some(pid), Some(process)) = (peer.pid, peer.process) else {
        return failure(StatusCode::FORBIDDEN, "not-permitted", "the caller cannot be identified".to_owned());
    };
    let begun = tokio::task::spawn_blocking(move || shared.begin_trial(process.as_fd(), pid));
    match begun.await {
        Ok(Ok(session)) => answer(TrialBegun { schema: TrialBegun::SCHEMA.to_owned(), session }),
        Ok(Err(error @ TrialError::NotEnforcing)) => {
            failure(StatusCode::CONFLICT, "not-enforcing", error.to_string())
        }
        Ok(Err(error)) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    /// The number that the process got.
    session: u64,
    /// What it must have been denied: `file.read:2,exec:1`.
    expect: String,
}

async fn denials(State(shared): State<Shared>, Parameters(query): Parameters<Query>) -> Response {
    let Some(expected) = expected(&query.expect) else {
        return invalid("what is expected is a list of actions with counts: file.read:2,exec:1");
    };
    let waited = tokio::time::timeout(PATIENCE, shared.denials(query.session, &expected)).await;
    let found = match waited {
        Ok(found) => found,
        Err(_) => shared.denials_now(query.session),
    };
    match found {
        Some(counts) => {
            let named = TABLE.iter().map(|row| row.name.to_owned()).zip(counts);
            let denied: BTreeMap<String, u32> = named.filter(|(_, count)| *count != 0).collect();
            answer(Denials { schema: Denials::SCHEMA.to_owned(), denied })
        }
        None => failure(StatusCode::NOT_FOUND, "unknown-session", "there is no such trial".to_owned()),
    }
}

/// Positions in the action table, with counts.
fn expected(text: &str) -> Option<Vec<(usize, u32)>> {
    text.split(',')
        .map(|one| {
            let (name, count) = one.split_once(':')?;
            Some((Action::from_name(name)? as usize, count.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_actions_with_counts() {
        let read = Action::FileRead as usize;
        assert_eq!(expected("file.read:2,exec:1").unwrap(), [(read, 2), (Action::Exec as usize, 1)]);
        for wrong in ["", "file.raed:1", "file.read", "file.read:x", "file.read:1,"] {
            assert!(expected(wrong).is_none(), "{wrong}");
        }
    }
}
