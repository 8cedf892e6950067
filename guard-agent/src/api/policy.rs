//! `/v1/policy/…`: what changes the live bundle, and the history of it.

use super::access::Permitted;
use super::extract::Body;
use super::route::{Answer, Routes};
use super::server::{blocking, failure, invalid};
use super::shadow;
use super::types::{Applied, ApplyRequest, History, Released, RollbackRequest};
use crate::daemon::{ApplyError, Shared};
use crate::policy::verbs::Verb;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use std::path::Path;

/// Longest reason that is remembered, in bytes.
pub(super) const MAX_REASON: usize = 1000;
/// Longest hold: a year.
const MAX_HOLD: u64 = 366 * 24 * 60 * 60;

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new()
        .post("/v1/policy/apply", Verb::Apply, apply)
        .post("/v1/policy/rollback", Verb::Rollback, rollback)
        .post("/v1/policy/release-hold", Verb::Rollback, release_hold)
        .get("/v1/policy/history", Verb::View, history)
        .merge(shadow::routes())
}

async fn apply(
    State(shared): State<Shared>,
    Permitted(by): Permitted,
    Body(request): Body<ApplyRequest>,
) -> Answer<Applied> {
    if !request.directory.starts_with('/') {
        return Err(invalid("directory must be an absolute path"));
    }
    let (directory, dry_run) = (request.directory, request.dry_run);
    run(move || shared.apply(Path::new(&directory), &by.caller, by.text(), dry_run)).await
}

async fn rollback(
    State(shared): State<Shared>,
    Permitted(by): Permitted,
    Body(request): Body<RollbackRequest>,
) -> Answer<Applied> {
    if request.hold_seconds.is_some_and(|seconds| seconds == 0 || seconds > MAX_HOLD) {
        return Err(invalid("a hold lasts from a second to a year"));
    }
    if request.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return Err(invalid("a reason has at most 1000 bytes"));
    }
    run(move || shared.rollback(request, by.text())).await
}

async fn release_hold(State(shared): State<Shared>, Permitted(by): Permitted) -> Answer<Released> {
    run(move || {
        let changed = shared.release_hold()?;
        tracing::info!(by = by.text(), changed, "the hold on the live policy was released");
        Ok(Released { schema: "guard.released/1".to_owned(), changed })
    })
    .await
}

async fn history(State(shared): State<Shared>) -> Answer<History> {
    run(move || Ok(shared.history())).await
}

/// Runs what may take a compile, away from the tasks that serve.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApplyError> + Send + 'static,
) -> Answer<T> {
    blocking(work, refused).await
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
