//! `/v1/policy/shadow`: a bundle whose verdicts are compared and not enforced.

use super::extract::{Body, Parameters};
use super::policy::{caller, refused, run};
use super::server::{Peer, answer, failure, invalid};
use super::types::ApplyRequest;
use crate::daemon::{ShadowReportError, Shared};
use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use std::path::Path;

/// Lines of a report if nobody says how many.
const LINES: usize = 100;
/// Most of them.
const MAX_LINES: usize = 5_000;

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/policy/shadow", get(report).post(begin))
        .route("/v1/policy/shadow/promote", post(promote))
        .route("/v1/policy/shadow/stop", post(stop))
}

async fn begin(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(request): Body<ApplyRequest>,
) -> Response {
    if !request.directory.starts_with('/') {
        return invalid("directory must be an absolute path");
    }
    let by = caller(&peer);
    run(move || shared.apply_shadow(Path::new(&request.directory), &by, request.dry_run)).await
}

async fn promote(State(shared): State<Shared>, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    let by = caller(&peer);
    run(move || shared.promote_shadow(&by)).await
}

async fn stop(State(shared): State<Shared>, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    let by = caller(&peer);
    run(move || shared.stop_shadow(&by)).await
}

/// Query of `GET /v1/policy/shadow`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    /// At most so many lines, the newest.
    limit: Option<usize>,
}

async fn report(State(shared): State<Shared>, Parameters(query): Parameters<Query>) -> Response {
    let limit = query.limit.unwrap_or(LINES).min(MAX_LINES);
    match tokio::task::spawn_blocking(move || shared.shadow_report(limit)).await {
        Ok(Ok(report)) => answer(report),
        Ok(Err(ShadowReportError::Apply(error))) => refused(&error),
        Ok(Err(error)) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}
