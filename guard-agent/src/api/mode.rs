//! `/v1/mode`: another mode than the bundle's, for a while.

use super::extract::Body;
use super::policy::{MAX_REASON, caller};
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
    if request.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return invalid("a reason has at most 1000 bytes");
    }
    let by = caller(&peer);
    let result = tokio::task::spawn_blocking(move || {
        let set = shared.set_mode(&request, &by);
        if let Ok(set) = &set {
            tracing::warn!(
                subject = set.subject,
                mode = set.mode.name(),
                until = set.until,
                by,
                reason = request.reason,
                "the mode of a subject was set"
            );
        }
        set
    });
    let (status, code, message) = match result.await {
        Ok(Ok(set)) => return answer(set),
        Ok(Err(error)) => {
            let (status, code) = match error {
                ModeError::NoSubject(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unknown-subject"),
                ModeError::NoReason(_) => (StatusCode::UNPROCESSABLE_ENTITY, "no-reason"),
                ModeError::Unconfirmed(_) => (StatusCode::UNPROCESSABLE_ENTITY, ModeRequest::UNCONFIRMED),
                _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            };
            (status, code, error.to_string())
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    };
    failure(status, code, message)
}
