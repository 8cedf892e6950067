//! `/v1/leases` and `/v1/requests`: what was granted, what is asked for.

use super::extract::{Body, Parameters};
use super::policy::{MAX_REASON, caller};
use super::server::{Peer, answer, failure, invalid};
use super::types::{
    ApproveRequest, DenyRequest, LeaseAnswer, LeaseRequest, Leases, RenewRequest, RequestAnswer, Requests,
};
use crate::daemon::{LeaseError, Person, Shared, human, terminal_of};
use axum::Router;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/leases", get(leases).post(grant))
        .route("/v1/leases/{id}/renew", post(renew))
        .route("/v1/leases/{id}/revoke", post(revoke))
        .route("/v1/requests", get(requests))
        .route("/v1/requests/{id}", get(request))
        .route("/v1/requests/{id}/approve", post(approve))
        .route("/v1/requests/{id}/deny", post(deny))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct All {
    /// Also those that do not count any more.
    #[serde(default)]
    all: bool,
}

/// Who is at the other end, as it is written down.
fn person(peer: &Peer) -> Option<Person> {
    let (uid, pid) = (peer.uid?, peer.pid?);
    let login = human(pid);
    let tty = terminal_of(pid);
    let text = tty.map_or_else(|| caller(peer), |tty| format!("{} on {tty}", caller(peer)));
    Some(Person { uid, login, pid, text })
}

/// Does what blocks, and says what came of it.
pub(super) async fn blocking<T: Serialize + Send + 'static>(
    action: impl FnOnce() -> Result<T, LeaseError> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(action).await {
        Ok(Ok(body)) => answer(body),
        Ok(Err(error)) => refused(&error),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}

/// The same for whoever has to be known.
async fn by_person<T: Serialize + Send + 'static>(
    peer: Peer,
    action: impl FnOnce(&Person) -> Result<T, LeaseError> + Send + 'static,
) -> Response {
    match person(&peer) {
        Some(person) => blocking(move || action(&person)).await,
        None => failure(StatusCode::FORBIDDEN, "not-permitted", "the caller cannot be identified".to_owned()),
    }
}

/// An error in the API's words.
pub(super) fn refused(error: &LeaseError) -> Response {
    let (status, code) = match error {
        LeaseError::NoSubject(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unknown-subject"),
        LeaseError::NoLease(..) | LeaseError::Useless { .. } | LeaseError::Uses(_) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "unknown-lease")
        }
        LeaseError::NoFact(..)
        | LeaseError::Type { .. }
        | LeaseError::Source { .. }
        | LeaseError::TooOld(_)
        | LeaseError::LongText { .. }
        | LeaseError::Collected(_)
        | LeaseError::Provided(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unknown-fact"),
        LeaseError::TooLong { .. } | LeaseError::Absurd(_) => (StatusCode::UNPROCESSABLE_ENTITY, "too-long"),
        LeaseError::NotApprover { .. }
        | LeaseError::Requester(_)
        | LeaseError::Labelled(_)
        | LeaseError::NoLabel
        | LeaseError::ByRequest { .. }
        | LeaseError::Unknown(_) => (StatusCode::FORBIDDEN, "not-permitted"),
        LeaseError::Nothing(_) => (StatusCode::NOT_FOUND, "not-found"),
        LeaseError::Decided { .. } => (StatusCode::CONFLICT, "decided"),
        LeaseError::HeldBack | LeaseError::TooMany | LeaseError::Sources { .. } | LeaseError::Flood(_) => {
            (StatusCode::TOO_MANY_REQUESTS, "too-many")
        }
        LeaseError::Ledger(_) | LeaseError::Kernel(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    };
    failure(status, code, error.to_string())
}

fn lease(lease: crate::ledger::Lease) -> LeaseAnswer {
    LeaseAnswer { schema: LeaseAnswer::SCHEMA.to_owned(), lease }
}

/// A request as the answer to a question about it.
pub(super) fn request_answer(request: crate::ledger::Request) -> RequestAnswer {
    RequestAnswer { schema: RequestAnswer::SCHEMA.to_owned(), request }
}

async fn leases(State(shared): State<Shared>, Parameters(query): Parameters<All>) -> Response {
    let list = move || Ok(Leases { schema: Leases::SCHEMA.to_owned(), leases: shared.leases(query.all)? });
    blocking(list).await
}

async fn grant(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(request): Body<LeaseRequest>,
) -> Response {
    if request.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return invalid("a reason has at most 1000 bytes");
    }
    by_person(peer, move |person| Ok(lease(shared.grant(&request, person)?))).await
}

async fn renew(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<i64>,
    Body(request): Body<RenewRequest>,
) -> Response {
    by_person(peer, move |person| Ok(lease(shared.renew(id, request.seconds, person)?))).await
}

async fn revoke(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<i64>,
) -> Response {
    by_person(peer, move |person| Ok(lease(shared.revoke(id, person)?))).await
}

async fn requests(State(shared): State<Shared>, Parameters(query): Parameters<All>) -> Response {
    let list =
        move || Ok(Requests { schema: Requests::SCHEMA.to_owned(), requests: shared.requests(query.all)? });
    blocking(list).await
}

async fn request(State(shared): State<Shared>, Path(id): Path<i64>) -> Response {
    blocking(move || Ok(request_answer(shared.request(id)?))).await
}

async fn approve(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<i64>,
    Body(body): Body<ApproveRequest>,
) -> Response {
    if body.shown.len() > 16 * MAX_REASON {
        return invalid("what was shown is too long");
    }
    by_person(peer, move |person| Ok(request_answer(shared.approve(id, person, &body.shown)?))).await
}

async fn deny(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<i64>,
    Body(body): Body<DenyRequest>,
) -> Response {
    if body.note.as_ref().is_some_and(|note| note.len() > MAX_REASON) {
        return invalid("a note has at most 1000 bytes");
    }
    by_person(peer, move |person| Ok(request_answer(shared.deny(id, person, body.note.as_deref())?))).await
}
