//! `GET /v1/coverage`: what is decided on this kernel.

use super::route::{Answer, Routes};
use super::server::{blocking, internal};
use super::types::CoverageReport;
use crate::daemon::Shared;
use crate::policy::verbs::Verb;
use axum::extract::State;
use std::convert::Infallible;

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new().get("/v1/coverage", Verb::View, coverage)
}

async fn coverage(State(shared): State<Shared>) -> Answer<CoverageReport> {
    blocking(move || Ok::<_, Infallible>(shared.coverage()), internal).await
}
