//! `/v1/mode`: another mode than the bundle's, for a while.

use super::extract::Body;
use super::policy::caller;
use super::server::{Peer, answer, failure, invalid};
use super::types::ModeRequest;
use crate::daemon::{ModeError, Shared};
use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;

/// Longest time that a mode can be set for: thirty days.
const LONGEST: u64 = 30 * 24 * 60 * 60;

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/v1/mode", post(set))
}

async fn set(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(request): Body<ModeRequest>,
) -> Response {
    if request.mode.is_some() && !(1..=LONGEST).contains(&request.seconds) {
        return invalid("a mode is set for a second to thirty days");
    }
    let by = caller(&peer);
    let result = tokio::task::spawn_blocking(move || {
        let set = shared.set_mode(&request);
        if let Ok(set) = &set {
            tracing::warn!(
                subject = set.subject,
                mode = ?set.mode,
                until = set.until,
                by,
                reason = request.reason,
                "the mode of a subject was set"
            );
        }
        set
    });
    match result.await {
        Ok(Ok(set)) => answer(set),
        Ok(Err(error @ ModeError::NoSubject(_))) => {
            failure(StatusCode::UNPROCESSABLE_ENTITY, "unknown-subject", error.to_string())
        }
        Ok(Err(error)) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}
