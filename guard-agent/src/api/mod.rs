//! The APIs: HTTP and JSON over unix sockets, one for administrators and one for everybody.

mod coverage;
mod disarm;
mod events;
mod extract;
mod facts;
mod leases;
mod mode;
mod own;
mod own_requests;
mod policy;
mod report;
mod selftest;
mod server;
mod sessions;
mod shadow;
pub mod types;
mod why;

pub use own::{bind as bind_own, serve as serve_own};
pub use server::{bind, serve};
