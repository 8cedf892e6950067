//! `/v1/sessions`: who runs what as which subject.

use super::extract::Parameters;
use super::server::{answer, failure};
use super::types::Sessions;
use crate::daemon::Shared;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/v1/sessions", get(list))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    /// Also those that have ended.
    #[serde(default)]
    all: bool,
}

async fn list(State(shared): State<Shared>, Parameters(query): Parameters<Query>) -> Response {
    match tokio::task::spawn_blocking(move || shared.sessions(query.all)).await {
        Ok(Ok(sessions)) => answer(Sessions { schema: Sessions::SCHEMA.to_owned(), sessions }),
        Ok(Err(error)) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}
