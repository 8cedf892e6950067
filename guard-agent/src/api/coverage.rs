//! `GET /v1/coverage`: what is decided on this kernel.

use super::server::{answer, failure};
use crate::daemon::Shared;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/v1/coverage", get(coverage))
}

async fn coverage(State(shared): State<Shared>) -> Response {
    match tokio::task::spawn_blocking(move || shared.coverage()).await {
        Ok(report) => answer(report),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}
