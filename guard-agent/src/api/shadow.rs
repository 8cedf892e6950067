//! `/v1/policy/shadow`: a bundle whose verdicts are compared and not enforced.

use super::access::Permitted;
use super::extract::{Body, Parameters};
use super::policy::{refused, run};
use super::route::{Answer, Routes};
use super::server::{blocking, internal, invalid};
use super::types::{Applied, ApplyRequest, ShadowReport, ShadowSet};
use crate::daemon::{ShadowReportError, Shared};
use crate::policy::verbs::Verb;
use axum::extract::State;
use serde::Deserialize;
use std::path::Path;

/// Lines of a report if nobody says how many.
const LINES: usize = 100;
/// Most of them.
const MAX_LINES: usize = 5_000;

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/v1/policy/shadow", Verb::View, report)
        .post("/v1/policy/shadow", Verb::Shadow, begin)
        .post("/v1/policy/shadow/promote", Verb::Apply, promote)
        .post("/v1/policy/shadow/stop", Verb::Shadow, stop)
}

async fn begin(
    State(shared): State<Shared>,
    Permitted(by): Permitted,
    Body(request): Body<ApplyRequest>,
) -> Answer<ShadowSet> {
    if !request.directory.starts_with('/') {
        return Err(invalid("directory must be an absolute path"));
    }
    let (directory, dry_run) = (request.directory, request.dry_run);
    run(move || shared.apply_shadow(Path::new(&directory), &by.caller, by.text(), dry_run)).await
}

async fn promote(State(shared): State<Shared>, Permitted(by): Permitted) -> Answer<Applied> {
    run(move || shared.promote_shadow(by.text())).await
}

async fn stop(State(shared): State<Shared>, Permitted(by): Permitted) -> Answer<ShadowSet> {
    run(move || shared.stop_shadow(by.text())).await
}

/// Query of `GET /v1/policy/shadow`.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Query {
    /// At most so many lines, the newest.
    limit: Option<usize>,
}

async fn report(State(shared): State<Shared>, Parameters(query): Parameters<Query>) -> Answer<ShadowReport> {
    let limit = query.limit.unwrap_or(LINES).min(MAX_LINES);
    let why = |error: &ShadowReportError| match error {
        ShadowReportError::Apply(error) => refused(error),
        error => internal(error),
    };
    blocking(move || shared.shadow_report(limit), why).await
}
