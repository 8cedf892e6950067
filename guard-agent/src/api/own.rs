//! The self-service socket: what anybody may ask for itself, a session, or as a subject a lease.
//!
//! Everybody can connect, labelled processes as far as their policy permits. So a connection answers one
//! request within bounds of time and size, and each user has a share of connections and of sessions in a
//! minute.

use super::server::{bind_with, caller, failure, internal, invalid};
use super::types::AdoptRequest;
use super::users::{Counted, Limits, SharedUsers, Users, lock};
use super::{access, own_quarantine, own_requests};
use crate::daemon::{AdoptError, Caller, Shared};
use crate::policy::verbs::Verb;
use axum::Json;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::UnixListener;

/// Shares of users.
const LIMITS: Limits = Limits { connections: 128, of_user: 16, burst: 30.0, refill: 2.0 };
/// Bytes of a request's body, at most.
const MAX_BODY: usize = 64 << 10;
/// How long a request may take to arrive, and a connection to be answered.
const ARRIVAL: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(90);
/// Bounds on what is remembered of a session.
pub(super) const MAX_REASON: usize = 1000;
const MAX_VARIABLES: usize = 64;

/// Makes the socket, open to everybody. It appears under its name with its mode.
///
/// # Errors
/// If the socket cannot be made.
pub fn bind(path: &Path, private: &Path) -> io::Result<UnixListener> {
    bind_with(path, private, 0o666)
}

/// Serves until the daemon ends.
///
/// # Errors
/// If the listener fails for good.
pub async fn serve(listener: UnixListener, shared: Shared) -> io::Result<()> {
    let users: SharedUsers = Arc::new(Mutex::new(Users::new(LIMITS)));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // For want of descriptors, say: others may be given back.
                tracing::warn!("cannot accept a connection of the self-service socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(credentials) = stream.peer_cred() else { continue };
        let uid = credentials.uid();
        let Some(counted) = Counted::open(&users, uid) else { continue };
        let caller = caller(&stream);
        let shared = shared.clone();
        tokio::spawn(async move {
            let users = Arc::clone(&counted.users);
            let service = service_fn(|request| {
                let (shared, caller, users) = (shared.clone(), caller.clone(), Arc::clone(&users));
                async move { Ok::<_, Infallible>(route(request, shared, caller, uid, &users).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(ARRIVAL)
                .keep_alive(false)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), service);
            // Who breaks off or takes too long has no answer.
            let _ = tokio::time::timeout(PATIENCE, connection).await;
            drop(counted);
        });
    }
}

/// What the socket answers to, with the action that each asks for: in a session's process of its subject, elsewhere of
/// the account.
pub(super) const ROUTES: &[(&str, &str, Verb)] = &[
    ("POST", ADOPT, Verb::Adopt),
    ("POST", own_requests::PATH, Verb::Request),
    ("GET", "/v1/requests/{id}", Verb::View),
    ("GET", own_requests::DENIAL, Verb::View),
    ("POST", own_quarantine::PATH, Verb::Quarantine),
];

/// Where a session is opened.
pub(super) const ADOPT: &str = "/v1/adopt";

async fn route(
    request: Request<Incoming>,
    shared: Shared,
    caller: Option<Caller>,
    uid: u32,
    users: &SharedUsers,
) -> Response<Body> {
    let path = request.uri().path();
    let there: Vec<_> = ROUTES.iter().filter(|(_, known, _)| is_at(known, path)).collect();
    if there.is_empty() {
        return failure(
            StatusCode::NOT_FOUND,
            "invalid-request",
            format!("the self-service socket has no {path}"),
        );
    }
    if there.iter().all(|(method, _, _)| *method != request.method().as_str()) {
        let message = format!("{path} does not answer to {}", request.method());
        return failure(StatusCode::METHOD_NOT_ALLOWED, "invalid-request", message);
    }
    let adopts = path == ADOPT;
    if !lock(users).take(uid, Instant::now()) {
        let message = "you ask for too much: try again in a few seconds".to_owned();
        return failure(StatusCode::TOO_MANY_REQUESTS, "too-many", message);
    }
    let Some(caller) = caller else {
        return failure(StatusCode::FORBIDDEN, "not-permitted", "the caller cannot be identified".to_owned());
    };
    if path == own_quarantine::PATH {
        return own_quarantine::route(request, shared, caller).await;
    }
    if !adopts {
        return own_requests::route(request, shared, caller).await;
    }
    let body = match body(request).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refusal,
    };
    let request: AdoptRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return invalid(&error.to_string()),
    };
    if request.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return invalid("a reason has at most 1000 bytes");
    }
    if request.variables.len() > MAX_VARIABLES {
        return invalid("a session has at most 64 variables");
    }
    match tokio::task::spawn_blocking(move || shared.adopt(&caller, &request)).await {
        Ok(Ok(adopted)) => Json(adopted).into_response(),
        Ok(Err(error)) => refused(&error),
        Err(error) => internal(&error),
    }
}

/// Whether a path is that of a route, whose `{id}` is a number.
fn is_at(route: &str, path: &str) -> bool {
    match route.strip_suffix("{id}") {
        Some(before) => path.strip_prefix(before).is_some_and(|id| id.parse::<i64>().is_ok()),
        None => route == path,
    }
}

/// The body of a request, within bounds of time and size.
pub(super) async fn body(request: Request<Incoming>) -> Result<bytes::Bytes, Response<Body>> {
    match tokio::time::timeout(ARRIVAL, Limited::new(request.into_body(), MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(invalid("the body is too long, or did not arrive")),
        Err(_) => Err(invalid("the body did not arrive in time")),
    }
}

fn refused(error: &AdoptError) -> Response<Body> {
    let (status, code) = match error {
        AdoptError::Access(error) => return access::refused(error),
        AdoptError::NotPermitted(_)
        | AdoptError::Labelled(..)
        | AdoptError::Threads
        | AdoptError::Wider(..)
        | AdoptError::Unknown(_) => (StatusCode::FORBIDDEN, "not-permitted"),
        AdoptError::Variable(_)
        | AdoptError::Named { .. }
        | AdoptError::NoPlace(_)
        | AdoptError::Begins(_) => (StatusCode::UNPROCESSABLE_ENTITY, "session-variable"),
        AdoptError::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "too-many"),
        AdoptError::Changed => (StatusCode::CONFLICT, "policy-changed"),
        AdoptError::Store(_) | AdoptError::Apply(_) | AdoptError::Kernel(_) | AdoptError::NotLabelled => {
            (StatusCode::INTERNAL_SERVER_ERROR, "internal")
        }
    };
    failure(status, code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_that_of_one_route() {
        let at = |path: &str| ROUTES.iter().filter(|(_, route, _)| is_at(route, path)).count();
        for (path, count) in [
            ("/v1/adopt", 1),
            ("/v1/requests", 1),
            ("/v1/requests/7", 1),
            ("/v1/denials/last", 1),
            ("/v1/quarantines", 1),
            ("/v1/quarantines/7/release", 0),
            ("/v1/requests/", 0),
            ("/v1/requests/x", 0),
            ("/v1/requests/7/approve", 0),
            ("/v1/status", 0),
        ] {
            assert_eq!(at(path), count, "{path}");
        }
    }
}
