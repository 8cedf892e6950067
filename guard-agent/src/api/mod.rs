//! The APIs: HTTP and JSON over unix sockets, one for administrators and one for everybody.

mod access;
mod codes;
mod coverage;
mod disarm;
mod events;
mod extract;
mod facts;
mod leases;
mod mode;
#[cfg(test)]
mod openapi;
mod own;
mod own_quarantine;
mod own_requests;
mod policy;
mod quarantine;
mod report;
mod route;
mod selftest;
mod server;
mod sessions;
mod shadow;
pub mod types;
mod users;
mod why;

pub use own::{bind as bind_own, serve as serve_own};
pub use server::{bind, serve};
