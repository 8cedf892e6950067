//! `/v1/quarantines`: what responders do to subjects, and undo.

use super::access::{self, Asking};
use super::extract::{Body, Parameters};
use super::policy::MAX_REASON;
use super::route::{Answer, Routes};
use super::server::{self, failure, internal, invalid};
use super::types::{QuarantineAnswer, QuarantineRequest, Quarantines, ReleaseRequest};
use crate::daemon::{ApartError, QuarantineError, Shared};
use crate::policy::On;
use crate::policy::verbs::Verb;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/v1/quarantines", Verb::View, list)
        .post_each("/v1/quarantines", Verb::Quarantine, quarantine)
        .post_each("/v1/quarantines/{id}/release", Verb::Release, release)
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct All {
    /// Also those that are over.
    #[serde(default)]
    all: bool,
}

async fn blocking<T: Send + 'static>(
    action: impl FnOnce() -> Result<T, QuarantineError> + Send + 'static,
) -> Answer<T> {
    server::blocking(action, refused).await
}

pub(super) fn refused(error: &QuarantineError) -> Response {
    let (status, code) = match error {
        QuarantineError::Access(error) => return access::refused(error),
        QuarantineError::NoSubject(_)
        | QuarantineError::Session(ApartError::NoSession(..))
        | QuarantineError::NoLabel(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unknown-subject"),
        QuarantineError::NoLevel(_) | QuarantineError::NotLower { .. } | QuarantineError::Target => {
            (StatusCode::UNPROCESSABLE_ENTITY, "unknown-level")
        }
        QuarantineError::Nothing(_) => (StatusCode::NOT_FOUND, "not-found"),
        QuarantineError::Caller(_) | QuarantineError::Oneself(_) => (StatusCode::FORBIDDEN, "not-permitted"),
        QuarantineError::Ledger(_) | QuarantineError::Kernel(_) | QuarantineError::Session(_) => {
            return internal(error);
        }
    };
    failure(status, code, error.to_string())
}

/// What is wrong with a reason.
pub(super) fn wrong_with(reason: &str) -> Option<Response> {
    if reason.trim().is_empty() {
        return Some(invalid("say why"));
    }
    (reason.len() > MAX_REASON).then(|| invalid("a reason has at most 1000 bytes"))
}

async fn list(State(shared): State<Shared>, Parameters(query): Parameters<All>) -> Answer<Quarantines> {
    let list = move || {
        let quarantines = shared.quarantines(query.all)?;
        Ok(Quarantines { schema: Quarantines::SCHEMA.to_owned(), quarantines })
    };
    blocking(list).await
}

async fn quarantine(
    State(shared): State<Shared>,
    asking: Asking,
    Body(request): Body<QuarantineRequest>,
) -> Answer<QuarantineAnswer> {
    if let Some(wrong) = wrong_with(&request.reason) {
        return Err(wrong);
    }
    let quarantine = move || {
        let target = shared.quarantine_target(&request)?;
        let by = asking.on(&On::Subject(target.subject.clone()))?;
        shared.quarantine(&target, &request, &by.person)
    };
    blocking(quarantine).await
}

async fn release(
    State(shared): State<Shared>,
    asking: Asking,
    Path(id): Path<i64>,
    Body(request): Body<ReleaseRequest>,
) -> Answer<QuarantineAnswer> {
    if let Some(wrong) = wrong_with(&request.reason) {
        return Err(wrong);
    }
    let release = move || {
        let by = asking.on(&On::Subject(shared.found_quarantine(id)?.subject))?;
        shared.release_quarantine(id, &request, &by.person)
    };
    blocking(release).await
}
