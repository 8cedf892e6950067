//! The admin API: HTTP and JSON over a unix socket.

mod events;
mod extract;
mod policy;
mod server;
pub mod types;

pub use server::{bind, serve};
