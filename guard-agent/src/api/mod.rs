//! The admin API: HTTP and JSON over a unix socket.

mod coverage;
mod events;
mod extract;
mod mode;
mod policy;
mod report;
mod server;
mod shadow;
pub mod types;
mod why;

pub use server::{bind, serve};
