//! `/v1/sessions`: who runs what as which subject.

use super::extract::Parameters;
use super::route::{Answer, Routes};
use super::server::{blocking, internal};
use super::types::Sessions;
use crate::daemon::Shared;
use crate::kernel::KernelError;
use crate::policy::verbs::Verb;
use axum::extract::State;
use serde::Deserialize;

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new().get("/v1/sessions", Verb::View, list)
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Query {
    /// Also those that have ended.
    #[serde(default)]
    all: bool,
}

async fn list(State(shared): State<Shared>, Parameters(query): Parameters<Query>) -> Answer<Sessions> {
    let list = move || {
        let sessions = shared.sessions(query.all)?;
        Ok::<_, KernelError>(Sessions { schema: Sessions::SCHEMA.to_owned(), sessions })
    };
    blocking(list, internal).await
}
