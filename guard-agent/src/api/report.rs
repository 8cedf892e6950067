//! `GET /v1/report/unused`: permits that were never used.

use super::extract::Parameters;
use super::route::{Answer, Routes};
use super::server::{blocking, internal, invalid};
use super::types::Report;
use crate::daemon::{ReportError, Shared};
use crate::policy::verbs::Verb;
use axum::extract::State;
use serde::Deserialize;

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new().get("/v1/report/unused", Verb::View, unused)
}

/// Query of `GET /v1/report/unused`.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Query {
    /// Only of this subject.
    subject: Option<String>,
}

async fn unused(State(shared): State<Shared>, Parameters(query): Parameters<Query>) -> Answer<Report> {
    let refused = |error: &ReportError| match error {
        ReportError::NoSubject(_) => invalid(&error.to_string()),
        _ => internal(error),
    };
    blocking(move || shared.unused(query.subject.as_deref()), refused).await
}
