//! What a subject does at the self-service socket: it asks for a lease, waits for the answer, and hears why it was
//! denied something.

use super::leases::{blocking, refused, request_answer};
use super::own::{MAX_REASON, body};
use super::server::{failure, internal, invalid};
use super::types::AskRequest;
use crate::daemon::{Caller, OwnError, Shared};
use crate::ledger::RequestState;
use axum::Json;
use axum::body::Body;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::Request;
use hyper::body::Incoming;
use std::time::Duration;

/// How long an answer is waited for before whoever asks has to ask again.
const WAITS: Duration = Duration::from_secs(60);

/// Where they are.
pub(super) const PATH: &str = "/v1/requests";
/// Where a subject hears why it was denied something.
pub(super) const DENIAL: &str = "/v1/denials/last";

/// Answers what begins with [`PATH`], and [`DENIAL`].
pub(super) async fn route(request: Request<Incoming>, shared: Shared, caller: Caller) -> Response<Body> {
    if request.uri().path() == DENIAL && request.method() == Method::GET {
        return denial(shared, caller).await;
    }
    let rest = request.uri().path().strip_prefix(PATH).unwrap_or_default();
    let waits = request.uri().query() == Some("wait=true");
    match (request.method(), rest.strip_prefix('/').map(str::parse::<i64>)) {
        (&Method::POST, None) if rest.is_empty() => ask(request, shared, caller).await,
        (&Method::GET, Some(Ok(id))) => show(id, waits, shared, caller).await,
        _ => {
            let message =
                format!("the self-service socket has no {} {}", request.method(), request.uri().path());
            failure(StatusCode::NOT_FOUND, "invalid-request", message)
        }
    }
}

async fn denial(shared: Shared, caller: Caller) -> Response<Body> {
    match tokio::task::spawn_blocking(move || shared.own_denial(&caller)).await {
        Ok(Ok(denial)) => Json(denial).into_response(),
        Ok(Err(OwnError::Caller(error))) => refused(&error),
        Ok(Err(OwnError::Store(error))) => internal(&error),
        Err(error) => internal(&error),
    }
}

async fn ask(request: Request<Incoming>, shared: Shared, caller: Caller) -> Response<Body> {
    let bytes = match body(request).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refusal,
    };
    let asked: AskRequest = match serde_json::from_slice(&bytes) {
        Ok(asked) => asked,
        Err(error) => return invalid(&error.to_string()),
    };
    if asked.reason.trim().is_empty() || asked.reason.len() > MAX_REASON {
        return invalid("a request has a reason, of at most 1000 bytes");
    }
    let ask = move || {
        let request = shared.ask(&caller, &asked)?;
        Ok(request_answer(request))
    };
    blocking(ask).await.into_response()
}

/// Shows a request; one that waits is waited for, if that is asked for.
async fn show(id: i64, waits: bool, shared: Shared, caller: Caller) -> Response<Body> {
    let deadline = tokio::time::Instant::now() + WAITS;
    let mut changes = shared.ledger_changes();
    loop {
        let (again, asker) = (shared.clone(), caller.clone());
        let found = tokio::task::spawn_blocking(move || again.own_request(&asker, id)).await;
        match found {
            Ok(Ok(request)) if waits && request.state == RequestState::Open => {
                match tokio::time::timeout_at(deadline, changes.changed()).await {
                    Ok(Ok(())) => {}
                    _ => return Json(request_answer(request)).into_response(),
                }
            }
            Ok(Ok(request)) => return Json(request_answer(request)).into_response(),
            Ok(Err(error)) => return refused(&error),
            Err(error) => return internal(&error),
        }
    }
}
