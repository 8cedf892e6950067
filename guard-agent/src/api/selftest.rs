//! `/v1/selftest`: a process has itself labelled as the canary, and another asks what was denied to it.

use super::access::Permitted;
use super::extract::Parameters;
use super::route::{Answer, Routes};
use super::server::{blocking, failure, internal, invalid};
use super::types::{Denials, TrialBegun};
use crate::daemon::{Shared, TrialError};
use crate::policy::verbs::Verb;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use guard_common::action::{Action, TABLE};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long the kernel's reports may take to arrive. Nothing depends on it but what is said of them.
const PATIENCE: Duration = Duration::from_secs(10);

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new().get("/v1/selftest", Verb::Selftest, denials).post("/v1/selftest", Verb::Selftest, begin)
}

async fn begin(State(shared): State<Shared>, Permitted(by): Permitted) -> Answer<TrialBegun> {
    let refused = |error: &TrialError| match error {
        TrialError::NotEnforcing => failure(StatusCode::CONFLICT, "not-enforcing", error.to_string()),
        error => internal(error),
    };
    let begin = move || {
        let session = shared.begin_trial(by.caller.process.as_fd(), by.caller.pid)?;
        Ok(TrialBegun { schema: TrialBegun::SCHEMA.to_owned(), session })
    };
    blocking(begin, refused).await
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Query {
    /// The number that the process got.
    session: u64,
    /// What it must have been denied: `file.read:2,exec:1`.
    expect: String,
}

async fn denials(State(shared): State<Shared>, Parameters(query): Parameters<Query>) -> Answer<Denials> {
    let Some(expected) = expected(&query.expect) else {
        return Err(invalid("what is expected is a list of actions with counts: file.read:2,exec:1"));
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
            Ok(Json(Denials { schema: Denials::SCHEMA.to_owned(), denied }))
        }
        None => Err(failure(StatusCode::NOT_FOUND, "unknown-session", "there is no such trial".to_owned())),
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
