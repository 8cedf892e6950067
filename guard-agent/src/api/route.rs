//! Routes of the admin socket: each names the action that it asks for, and nothing is routed otherwise.
//!
//! What goes in and out of a route is read off the types of its handler, which `docs/openapi.json` is generated from.

use super::access::{self, Asking, Permitted};
use super::extract::{Body, Parameters};
use crate::daemon::Shared;
use crate::policy::verbs::Verb;
use axum::extract::{Path, Request, State};
use axum::handler::Handler;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use axum::{Json, Router};
use serde::Serialize;

/// What a handler answers: this, or a refusal.
pub(super) type Answer<T> = Result<Json<T>, Response>;

/// JSON Lines, each of them a `T`.
pub(super) struct Lines<T> {
    response: Response,
    of: std::marker::PhantomData<T>,
}

impl<T> Lines<T> {
    /// A response whose body is such lines.
    pub(super) fn new(response: Response) -> Self {
        Self { response, of: std::marker::PhantomData }
    }
}

impl<T> IntoResponse for Lines<T> {
    fn into_response(self) -> Response {
        self.response
    }
}

/// One `T`, or lines for whoever follows.
pub(super) enum OrLines<T, L> {
    One(Json<T>),
    Lines(Lines<L>),
}

impl<T: Serialize, L> IntoResponse for OrLines<T, L> {
    fn into_response(self) -> Response {
        match self {
            Self::One(one) => one.into_response(),
            Self::Lines(lines) => lines.into_response(),
        }
    }
}

/// One route, for those who document it.
#[cfg(test)]
pub(super) struct Listed {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) verb: Verb,
    /// Whether the handler finds out what it is asked on, and has that decided.
    pub(super) each: bool,
    pub(super) describe: fn(&mut super::openapi::Operation),
}

/// Routes, and the list of them.
pub(super) struct Routes {
    router: Router<Shared>,
    #[cfg(test)]
    pub(super) listed: Vec<Listed>,
}

impl Routes {
    pub(super) fn new() -> Self {
        Self {
            router: Router::new(),
            #[cfg(test)]
            listed: Vec::new(),
        }
    }

    /// `GET path`, on the machine: it is decided before the handler runs.
    pub(super) fn get<M: 'static, H: Handler<M, Shared> + Described<M>>(
        self,
        path: &'static str,
        verb: Verb,
        handler: H,
    ) -> Self {
        self.add((MethodFilter::GET, "GET"), path, (verb, false), handler)
    }

    /// `POST path`, on the machine.
    pub(super) fn post<M: 'static, H: Handler<M, Shared> + Described<M>>(
        self,
        path: &'static str,
        verb: Verb,
        handler: H,
    ) -> Self {
        self.add((MethodFilter::POST, "POST"), path, (verb, false), handler)
    }

    /// `POST path`, on what the handler finds out. It has an [`Asking`], which alone gives it a name to write down.
    pub(super) fn post_each<M: 'static, H: Handler<M, Shared> + Described<M>>(
        self,
        path: &'static str,
        verb: Verb,
        handler: H,
    ) -> Self {
        self.add((MethodFilter::POST, "POST"), path, (verb, true), handler)
    }

    /// `DELETE path`, on what the handler finds out.
    pub(super) fn delete_each<M: 'static, H: Handler<M, Shared> + Described<M>>(
        self,
        path: &'static str,
        verb: Verb,
        handler: H,
    ) -> Self {
        self.add((MethodFilter::DELETE, "DELETE"), path, (verb, true), handler)
    }

    /// These and those.
    pub(super) fn merge(self, others: Self) -> Self {
        Self {
            router: self.router.merge(others.router),
            #[cfg(test)]
            listed: self.listed.into_iter().chain(others.listed).collect(),
        }
    }

    /// The router of all of them.
    pub(super) fn into_router(self) -> Router<Shared> {
        self.router
    }

    fn add<M: 'static, H: Handler<M, Shared> + Described<M>>(
        self,
        (filter, method): (MethodFilter, &'static str),
        path: &'static str,
        (verb, each): (Verb, bool),
        handler: H,
    ) -> Self {
        tracing::trace!(method, path, action = verb.name(), "a route");
        let check = move |request: Request, next: Next| access::check(verb, each, request, next);
        let route = on(filter, handler).route_layer(middleware::from_fn(check));
        #[cfg(test)]
        let listed = Listed { method, path, verb, each, describe: <H as Described<M>>::describe };
        Self {
            router: self.router.route(path, route),
            #[cfg(test)]
            listed: self.listed.into_iter().chain([listed]).collect(),
        }
    }
}

/// What has a schema. Only tests make it.
#[cfg(test)]
pub(super) use schemars::JsonSchema as Documented;

/// What has a schema. Only tests make it.
#[cfg(not(test))]
pub(super) trait Documented {}

#[cfg(not(test))]
impl<T> Documented for T {}

/// Part of a request or an answer.
pub(super) trait Piece {
    /// Adds it to the description of its route.
    #[cfg(test)]
    fn describe(to: &mut super::openapi::Operation);
}

/// A handler whose parts say what they are.
pub(super) trait Described<M> {
    /// Describes the route.
    #[cfg(test)]
    fn describe(to: &mut super::openapi::Operation);
}

macro_rules! described {
    ($($piece:ident)*; $last:ident) => {
        impl<F, Future, Output, M, $($piece,)* $last> Described<(M, $($piece,)* $last,)> for F
        where
            F: FnOnce($($piece,)* $last) -> Future,
            Future: std::future::Future<Output = Output>,
            Output: Piece,
            $($piece: Piece,)*
            $last: Piece,
        {
            #[cfg(test)]
            fn describe(to: &mut super::openapi::Operation) {
                $($piece::describe(to);)*
                $last::describe(to);
                Output::describe(to);
            }
        }
    };
}

described!(; A);
described!(A; B);
described!(A B; C);
described!(A B C; D);

impl<T> Piece for State<T> {
    #[cfg(test)]
    fn describe(_: &mut super::openapi::Operation) {}
}

impl Piece for Permitted {
    #[cfg(test)]
    fn describe(_: &mut super::openapi::Operation) {}
}

impl Piece for Asking {
    #[cfg(test)]
    fn describe(to: &mut super::openapi::Operation) {
        to.asks = true;
    }
}

impl Piece for Path<i64> {
    #[cfg(test)]
    fn describe(to: &mut super::openapi::Operation) {
        to.number();
    }
}

impl<T: Documented> Piece for Parameters<T> {
    #[cfg(test)]
    fn describe(to: &mut super::openapi::Operation) {
        to.query::<T>();
    }
}

impl<T: Documented> Piece for Body<T> {
    #[cfg(test)]
    fn describe(to: &mut super::openapi::Operation) {
        to.body::<T>();
    }
}

impl<T: Documented> Piece for Answer<T> {
    #[cfg(test)]
    fn describe(to: &mut super::openapi::Operation) {
        to.answer::<T>("application/json");
    }
}

impl<T: Documented> Piece for Result<Lines<T>, Response> {
    #[cfg(test)]
    fn describe(to: &mut super::openapi::Operation) {
        to.answer::<T>("application/x-ndjson");
    }
}

impl<T: Documented, L: Documented> Piece for Result<OrLines<T, L>, Response> {
    #[cfg(test)]
    fn describe(to: &mut super::openapi::Operation) {
        to.answer::<T>("application/json");
        to.answer::<L>("application/x-ndjson");
    }
}
