//! `/v1/disarm`: the end of enforcement.

use super::extract::Body;
use super::policy::{MAX_REASON, caller};
use super::server::{Peer, answer, failure, invalid};
use super::types::{DisarmRequest, Disarmed};
use crate::daemon::Shared;
use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/v1/disarm", post(disarm))
}

async fn disarm(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(request): Body<DisarmRequest>,
) -> Response {
    if request.reason.trim().is_empty() {
        return invalid("say why enforcement ends");
    }
    if request.reason.len() > MAX_REASON {
        return invalid("a reason has at most 1000 bytes");
    }
    let by = caller(&peer);
    match tokio::task::spawn_blocking(move || shared.disarm(&request.reason, &by)).await {
        Ok(Ok(disarm)) => answer(Disarmed { schema: Disarmed::SCHEMA.to_owned(), disarm }),
        Ok(Err(error)) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}
