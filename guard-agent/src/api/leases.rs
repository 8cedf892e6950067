//! `/v1/leases` and `/v1/requests`: what was granted, what is asked for.

use super::access::{self, Asking};
use super::extract::{Body, Parameters};
use super::policy::MAX_REASON;
use super::route::{Answer, Routes};
use super::server::{self, failure, internal, invalid};
use super::types::{
    ApproveRequest, DenyRequest, LeaseAnswer, LeaseRequest, Leases, RenewRequest, RequestAnswer, Requests,
};
use crate::daemon::{ApartError, By, LeaseError, Shared};
use crate::policy::On;
use crate::policy::verbs::Verb;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/v1/leases", Verb::View, leases)
        .post_each("/v1/leases", Verb::Lease, grant)
        .post_each("/v1/leases/{id}/renew", Verb::Lease, renew)
        .post_each("/v1/leases/{id}/revoke", Verb::Lease, revoke)
        .get("/v1/requests", Verb::View, requests)
        .get("/v1/requests/{id}", Verb::View, request)
        .post_each("/v1/requests/{id}/approve", Verb::Approve, approve)
        .post_each("/v1/requests/{id}/deny", Verb::Approve, deny)
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct All {
    /// Also those that do not count any more.
    #[serde(default)]
    all: bool,
}

/// Does what blocks, and says what came of it.
pub(super) async fn blocking<T: Send + 'static>(
    action: impl FnOnce() -> Result<T, LeaseError> + Send + 'static,
) -> Answer<T> {
    server::blocking(action, refused).await
}

/// An error in the API's words.
pub(super) fn refused(error: &LeaseError) -> Response {
    let (status, code) = match error {
        LeaseError::Access(error) => return access::refused(error),
        LeaseError::NoSubject(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unknown-subject"),
        LeaseError::NoSession | LeaseError::Session(ApartError::NoSession(..)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "unknown-subject")
        }
        LeaseError::NoLease(..) | LeaseError::Useless { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "unknown-lease")
        }
        LeaseError::Beside { .. } => (StatusCode::CONFLICT, "decided"),
        LeaseError::NoFact(..)
        | LeaseError::Type { .. }
        | LeaseError::Source { .. }
        | LeaseError::TooOld(_)
        | LeaseError::LongText { .. }
        | LeaseError::Collected(_)
        | LeaseError::Provided(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unknown-fact"),
        LeaseError::TooLong { .. } | LeaseError::Absurd(_) | LeaseError::Uses { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "too-long")
        }
        LeaseError::NotApprover { .. }
        | LeaseError::Requester(_)
        | LeaseError::Labelled(_)
        | LeaseError::NoLabel
        | LeaseError::ByRequest { .. }
        | LeaseError::Unknown(_) => (StatusCode::FORBIDDEN, "not-permitted"),
        LeaseError::Nothing(_) => (StatusCode::NOT_FOUND, "not-found"),
        LeaseError::Decided { .. } => (StatusCode::CONFLICT, "decided"),
        LeaseError::HeldBack
        | LeaseError::TooMany
        | LeaseError::NoPlace
        | LeaseError::Sources { .. }
        | LeaseError::Flood(_) => (StatusCode::TOO_MANY_REQUESTS, "too-many"),
        LeaseError::Ledger(_) | LeaseError::Kernel(_) | LeaseError::Session(_) => return internal(error),
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

async fn leases(State(shared): State<Shared>, Parameters(query): Parameters<All>) -> Answer<Leases> {
    blocking(move || Ok(Leases { schema: Leases::SCHEMA.to_owned(), leases: shared.leases(query.all)? }))
        .await
}

/// Whether whoever asks may have a lease of this name granted, changed or ended, and who that is.
fn about_lease(asking: &Asking, name: &str) -> Result<By, LeaseError> {
    Ok(asking.on(&On::Approval(name.to_owned()))?)
}

async fn grant(
    State(shared): State<Shared>,
    asking: Asking,
    Body(request): Body<LeaseRequest>,
) -> Answer<LeaseAnswer> {
    if request.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return Err(invalid("a reason has at most 1000 bytes"));
    }
    let grant = move || {
        let by = about_lease(&asking, &request.name)?;
        Ok(lease(shared.grant(&request, &by.person)?))
    };
    blocking(grant).await
}

async fn renew(
    State(shared): State<Shared>,
    asking: Asking,
    Path(id): Path<i64>,
    Body(request): Body<RenewRequest>,
) -> Answer<LeaseAnswer> {
    let renew = move || {
        let by = about_lease(&asking, &shared.lease(id)?.name)?;
        Ok(lease(shared.renew(id, request.seconds, &by.person)?))
    };
    blocking(renew).await
}

async fn revoke(State(shared): State<Shared>, asking: Asking, Path(id): Path<i64>) -> Answer<LeaseAnswer> {
    let revoke = move || {
        let by = about_lease(&asking, &shared.lease(id)?.name)?;
        Ok(lease(shared.revoke(id, &by.person)?))
    };
    blocking(revoke).await
}

async fn requests(State(shared): State<Shared>, Parameters(query): Parameters<All>) -> Answer<Requests> {
    let list =
        move || Ok(Requests { schema: Requests::SCHEMA.to_owned(), requests: shared.requests(query.all)? });
    blocking(list).await
}

async fn request(State(shared): State<Shared>, Path(id): Path<i64>) -> Answer<RequestAnswer> {
    blocking(move || Ok(request_answer(shared.request(id)?))).await
}

async fn approve(
    State(shared): State<Shared>,
    asking: Asking,
    Path(id): Path<i64>,
    Body(body): Body<ApproveRequest>,
) -> Answer<RequestAnswer> {
    if body.shown.len() > 16 * MAX_REASON {
        return Err(invalid("what was shown is too long"));
    }
    let approve = move || {
        let by = about_lease(&asking, &shared.request(id)?.lease)?;
        Ok(request_answer(shared.approve(id, &by.person, &body.shown)?))
    };
    blocking(approve).await
}

async fn deny(
    State(shared): State<Shared>,
    asking: Asking,
    Path(id): Path<i64>,
    Body(body): Body<DenyRequest>,
) -> Answer<RequestAnswer> {
    if body.note.as_ref().is_some_and(|note| note.len() > MAX_REASON) {
        return Err(invalid("a note has at most 1000 bytes"));
    }
    let deny = move || {
        let by = about_lease(&asking, &shared.request(id)?.lease)?;
        Ok(request_answer(shared.deny(id, &by.person, body.note.as_deref())?))
    };
    blocking(deny).await
}
