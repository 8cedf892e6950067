//! Who calls the admin socket, and whether policy lets them: asked before anything of a request is read.

use super::server::failure;
use super::types::Failure;
use super::users::{SharedUsers, lock};
use crate::daemon::{AccessError, By, Caller, Shared, Who};
use crate::policy::On;
use crate::policy::verbs::Verb;
use axum::Json;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::time::Instant;

/// The process at the other end of a connection; nothing if nobody can tell which it is.
#[derive(Clone, Debug)]
pub(super) struct Peer(pub(super) Option<Caller>);

/// What a request is checked with.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) shared: Shared,
    pub(super) users: SharedUsers,
}

/// Finds out who calls; whoever cannot be known, or has a label, gets no further.
pub(super) async fn known(door: Door, mut request: Request, next: Next) -> Response {
    let Some(Peer(Some(caller))) = request.extensions().get::<Peer>().cloned() else {
        return refused(&AccessError::Unidentified("it has ended".to_owned()));
    };
    let shared = door.shared.clone();
    match tokio::task::spawn_blocking(move || shared.identify(caller)).await {
        Ok(Ok(who)) => {
            request.extensions_mut().insert(who);
            request.extensions_mut().insert(door);
            next.run(request).await
        }
        Ok(Err(error)) => refused(&error),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}

/// Lets a request through to its handler if its action is permitted: on the machine, or with `each` on something, and
/// then the handler asks again.
pub(super) async fn check(verb: Verb, each: bool, mut request: Request, next: Next) -> Response {
    let changes = request.method() != Method::GET;
    let Some((door, who)) = parts(&request) else { return unchecked() };
    let (shared, asker) = (door.shared.clone(), who.clone());
    let decided = tokio::task::spawn_blocking(move || {
        if each {
            shared.could(&asker, verb).map(|()| None)
        } else {
            shared.may(&asker, verb, &On::Machine).map(Some)
        }
    });
    let by = match decided.await {
        Ok(Ok(by)) => by,
        Ok(Err(error)) => {
            // Not of those without a role: anybody could fill the log with these.
            if who.has_a_role() {
                tracing::warn!(pid = who.caller.pid, "refused at the admin socket: {error}");
            }
            return refused(&error);
        }
        Err(error) => return failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    };
    let uid = who.caller.uid;
    if changes && uid != 0 && !lock(&door.users).take(uid, Instant::now()) {
        let message = "you change too much: 20 requests at once and one more each second; try again then";
        return failure(StatusCode::TOO_MANY_REQUESTS, "too-many", message.to_owned());
    }
    match by {
        Some(by) => request.extensions_mut().insert(Permitted(by)).map_or((), drop),
        None => request.extensions_mut().insert(Asking { shared: door.shared, who, verb }).map_or((), drop),
    }
    next.run(request).await
}

/// Whether somebody may be told that a path or a method does not exist.
pub(super) async fn may_look((door, who): (Door, Who)) -> Result<(), Response> {
    let may = move || door.shared.may(&who, Verb::View, &On::Machine).map(drop);
    match tokio::task::spawn_blocking(may).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(refused(&error)),
        Err(error) => Err(failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())),
    }
}

/// What a request was found out to be.
pub(super) fn parts(request: &Request) -> Option<(Door, Who)> {
    request.extensions().get::<Door>().cloned().zip(request.extensions().get::<Who>().cloned())
}

/// A request that came past the check. There is no such way.
pub(super) fn unchecked() -> Response {
    failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", "nobody checked who asks".to_owned())
}

/// A refusal in the API's words. The connection ends with it, so that whoever has nothing to ask here holds nothing.
pub(super) fn refused(error: &AccessError) -> Response {
    let (action, roles) = match error.missing() {
        Some((action, roles)) => (Some(action.to_owned()), roles.to_vec()),
        None => (None, Vec::new()),
    };
    let body = Failure {
        schema: Failure::SCHEMA.to_owned(),
        code: "not-permitted".to_owned(),
        message: error.to_string(),
        action,
        roles,
    };
    let mut response = (StatusCode::FORBIDDEN, Json(body)).into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What a handler of a route on the machine is given: who does it.
#[derive(Clone)]
pub(super) struct Permitted(pub(super) By);

impl FromRequestParts<Shared> for Permitted {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Response> {
        parts.extensions.get::<Self>().cloned().ok_or_else(unchecked)
    }
}

/// What a handler is given that finds out what it is asked on: it asks with it, and only then knows who to write down.
#[derive(Clone)]
pub(super) struct Asking {
    shared: Shared,
    who: Who,
    verb: Verb,
}

impl Asking {
    /// Whether the action of this route is permitted on something. Blocks.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn on(&self, on: &On) -> Result<By, AccessError> {
        self.shared.may(&self.who, self.verb, on)
    }
}

impl FromRequestParts<Shared> for Asking {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Response> {
        parts.extensions.get::<Self>().cloned().ok_or_else(unchecked)
    }
}
