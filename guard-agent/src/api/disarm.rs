//! `/v1/disarm`: the end of enforcement.

use super::access::Permitted;
use super::extract::Body;
use super::policy::MAX_REASON;
use super::route::{Answer, Routes};
use super::server::{blocking, internal, invalid};
use super::types::{DisarmRequest, Disarmed};
use crate::daemon::Shared;
use crate::policy::verbs::Verb;
use axum::extract::State;

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new().post("/v1/disarm", Verb::Disarm, disarm)
}

async fn disarm(
    State(shared): State<Shared>,
    Permitted(by): Permitted,
    Body(request): Body<DisarmRequest>,
) -> Answer<Disarmed> {
    if request.reason.trim().is_empty() {
        return Err(invalid("say why enforcement ends"));
    }
    if request.reason.len() > MAX_REASON {
        return Err(invalid("a reason has at most 1000 bytes"));
    }
    let disarm = move || {
        let disarm = shared.disarm(&request.reason, by.text())?;
        Ok::<_, crate::daemon::DisarmError>(Disarmed { schema: Disarmed::SCHEMA.to_owned(), disarm })
    };
    blocking(disarm, internal).await
}
