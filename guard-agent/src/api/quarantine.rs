//! `/v1/quarantines`: what responders do to subjects, and undo.

use super::extract::{Body, Parameters};
use super::leases::person;
use super::policy::MAX_REASON;
use super::server::{Peer, answer, failure, invalid};
use super::types::{QuarantineRequest, Quarantines, ReleaseRequest};
use crate::daemon::{Person, QuarantineError, Shared};
use axum::Router;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/quarantines", get(list).post(quarantine))
        .route("/v1/quarantines/{id}/release", post(release))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct All {
    /// Also those that are over.
    #[serde(default)]
    all: bool,
}

async fn blocking<T: Serialize + Send + 'static>(
    action: impl FnOnce() -> Result<T, QuarantineError> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(action).await {
        Ok(Ok(body)) => answer(body),
        Ok(Err(error)) => refused(&error),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}

async fn by_person<T: Serialize + Send + 'static>(
    peer: Peer,
    action: impl FnOnce(&Person) -> Result<T, QuarantineError> + Send + 'static,
) -> Response {
    match person(&peer) {
        Some(person) => blocking(move || action(&person)).await,
        None => failure(StatusCode::FORBIDDEN, "not-permitted", "the caller cannot be identified".to_owned()),
    }
}

fn refused(error: &QuarantineError) -> Response {
    let (status, code) = match error {
        QuarantineError::NoSubject(_) | QuarantineError::NoSession(..) | QuarantineError::NoLabel(_) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "unknown-subject")
        }
        QuarantineError::NoLevel(_) | QuarantineError::NotLower { .. } | QuarantineError::Target => {
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid")
        }
        QuarantineError::Nothing(_) => (StatusCode::NOT_FOUND, "not-found"),
        QuarantineError::Caller(_) => (StatusCode::FORBIDDEN, "not-permitted"),
        QuarantineError::Ledger(_) | QuarantineError::Kernel(_) | QuarantineError::Row(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "internal")
        }
    };
    failure(status, code, error.to_string())
}

/// What is wrong with a reason.
fn reason(text: &str) -> Option<Response> {
    if text.trim().is_empty() {
        return Some(invalid("say why"));
    }
    (text.len() > MAX_REASON).then(|| invalid("a reason has at most 1000 bytes"))
}

async fn list(State(shared): State<Shared>, Parameters(query): Parameters<All>) -> Response {
    let list = move || {
        let quarantines = shared.quarantines(query.all)?;
        Ok(Quarantines { schema: Quarantines::SCHEMA.to_owned(), quarantines })
    };
    blocking(list).await
}

async fn quarantine(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(request): Body<QuarantineRequest>,
) -> Response {
    if let Some(wrong) = reason(&request.reason) {
        return wrong;
    }
    by_person(peer, move |person| shared.quarantine(&request, person)).await
}

async fn release(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<i64>,
    Body(request): Body<ReleaseRequest>,
) -> Response {
    if let Some(wrong) = reason(&request.reason) {
        return wrong;
    }
    by_person(peer, move |person| shared.release_quarantine(id, &request, person)).await
}
