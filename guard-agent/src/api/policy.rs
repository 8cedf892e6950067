//! `/v1/policy/…`: what changes the live bundle, and the history of it.

use super::extract::Body;
use super::server::{Peer, answer, failure, invalid};
use super::shadow;
use super::types::{ApplyRequest, Released, RollbackRequest};
use crate::daemon::{ApplyError, Shared, human};
use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Serialize;
use std::path::Path;

/// Longest reason that is remembered, in bytes.
pub(super) const MAX_REASON: usize = 1000;
/// Longest hold: a year.
const MAX_HOLD: u64 = 366 * 24 * 60 * 60;

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/policy/apply", post(apply))
        .route("/v1/policy/rollback", post(rollback))
        .route("/v1/policy/release-hold", post(release_hold))
        .route("/v1/policy/history", get(history))
        .merge(shadow::routes())
}

async fn apply(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(request): Body<ApplyRequest>,
) -> Response {
    if !request.directory.starts_with('/') {
        return invalid("directory must be an absolute path");
    }
    let by = caller(&peer);
    run(move || shared.apply(Path::new(&request.directory), &by, request.dry_run)).await
}

async fn rollback(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(request): Body<RollbackRequest>,
) -> Response {
    if request.hold_seconds.is_some_and(|seconds| seconds == 0 || seconds > MAX_HOLD) {
        return invalid("a hold lasts from a second to a year");
    }
    if request.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return invalid("a reason has at most 1000 bytes");
    }
    let by = caller(&peer);
    run(move || shared.rollback(request, &by)).await
}

async fn release_hold(State(shared): State<Shared>, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    let by = caller(&peer);
    run(move || {
        let changed = shared.release_hold()?;
        tracing::info!(by, changed, "the hold on the live policy was released");
        Ok(Released { schema: "guard.released/1".to_owned(), changed })
    })
    .await
}

async fn history(State(shared): State<Shared>) -> Response {
    run(move || Ok(shared.history())).await
}

/// Runs what may take a compile, away from the tasks that serve.
pub(super) async fn run<T: Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, ApplyError> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => answer(done),
        Ok(Err(error)) => refused(&error),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}

/// The answer to what was not done.
pub(super) fn refused(error: &ApplyError) -> Response {
    match (error, error.refusal()) {
        (ApplyError::Invalid(diagnostics), _) => {
            failure(StatusCode::UNPROCESSABLE_ENTITY, "invalid-policy", diagnostics.to_string())
        }
        (_, Some(code)) => failure(StatusCode::CONFLICT, code, error.to_string()),
        (_, None) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}

/// Who asks, for the history: the user, and the one who had logged in, whom sudo does not change.
pub(super) fn caller(peer: &Peer) -> String {
    let uid = peer.uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("uid {uid}"));
    match peer.pid.and_then(human) {
        Some(login) => format!("{uid}, logged in as uid {login}"),
        None => uid,
    }
}
