//! Quarantines that a subject orders at the self-service socket.

use super::own::body;
use super::quarantine::{refused, wrong_with};
use super::server::{internal, invalid};
use super::types::QuarantineRequest;
use crate::daemon::{Caller, Shared};
use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::Request;
use hyper::body::Incoming;

/// Where they are ordered.
pub(super) const PATH: &str = "/v1/quarantines";

/// Answers a POST at [`PATH`].
pub(super) async fn route(request: Request<Incoming>, shared: Shared, caller: Caller) -> Response<Body> {
    let bytes = match body(request).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refusal,
    };
    let order: QuarantineRequest = match serde_json::from_slice(&bytes) {
        Ok(order) => order,
        Err(error) => return invalid(&error.to_string()),
    };
    if let Some(wrong) = wrong_with(&order.reason) {
        return wrong;
    }
    match tokio::task::spawn_blocking(move || shared.quarantine_as_subject(&caller, &order)).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(error)) => refused(&error),
        Err(error) => internal(&error),
    }
}
