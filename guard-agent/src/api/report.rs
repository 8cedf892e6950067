//! `GET /v1/report/unused`: permits that were never used.

use super::extract::Parameters;
use super::server::{answer, failure, invalid};
use crate::daemon::{ReportError, Shared};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/v1/report/unused", get(unused))
}

/// Query of `GET /v1/report/unused`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    /// Only of this subject.
    subject: Option<String>,
}

async fn unused(State(shared): State<Shared>, Parameters(query): Parameters<Query>) -> Response {
    match tokio::task::spawn_blocking(move || shared.unused(query.subject.as_deref())).await {
        Ok(Ok(report)) => answer(report),
        Ok(Err(error @ ReportError::NoSubject(_))) => invalid(&error.to_string()),
        Ok(Err(error)) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}
