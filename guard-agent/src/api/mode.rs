//! `/v1/mode`: another mode than the bundle's, for a while.

use super::access::{self, Asking};
use super::extract::Body;
use super::policy::MAX_REASON;
use super::route::{Answer, Routes};
use super::server::{blocking, failure, internal, invalid};
use super::types::{ModeRequest, ModeSet};
use crate::daemon::{AccessError, ModeError, Shared};
use crate::policy::On;
use crate::policy::verbs::Verb;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

/// Longest time that a mode can be set for: thirty days.
const LONGEST: u64 = 30 * 24 * 60 * 60;

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new().post_each("/v1/mode", Verb::Mode, set)
}

/// Why it was not set.
enum Refused {
    Access(AccessError),
    Mode(ModeError),
}

async fn set(
    State(shared): State<Shared>,
    asking: Asking,
    Body(request): Body<ModeRequest>,
) -> Answer<ModeSet> {
    if request.mode.is_some() && !(1..=LONGEST).contains(&request.seconds) {
        return Err(invalid("a mode is set for a second to thirty days"));
    }
    if request.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return Err(invalid("a reason has at most 1000 bytes"));
    }
    let set = move || {
        let by = asking.on(&On::Subject(request.subject.clone())).map_err(Refused::Access)?;
        let set = shared.set_mode(&request, by.text()).map_err(Refused::Mode)?;
        tracing::warn!(
            subject = set.subject,
            mode = set.mode.name(),
            until = set.until,
            by = by.text(),
            reason = request.reason,
            "the mode of a subject was set"
        );
        Ok(set)
    };
    blocking(set, refused).await
}

fn refused(error: &Refused) -> Response {
    let error = match error {
        Refused::Access(error) => return access::refused(error),
        Refused::Mode(error) => error,
    };
    let text = error.to_string();
    match error {
        ModeError::NoSubject(_) => failure(StatusCode::UNPROCESSABLE_ENTITY, "unknown-subject", text),
        ModeError::NoReason(_) => failure(StatusCode::UNPROCESSABLE_ENTITY, "no-reason", text),
        ModeError::Unconfirmed(_) => {
            failure(StatusCode::UNPROCESSABLE_ENTITY, ModeRequest::UNCONFIRMED, text)
        }
        _ => internal(error),
    }
}
