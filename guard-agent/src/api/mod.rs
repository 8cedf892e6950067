//! The admin API: HTTP and JSON over a unix socket.

mod server;
pub mod types;

pub use server::{bind, serve};
