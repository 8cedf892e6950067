//! The daemon: prepares the host, proves enforcement, then serves until it is told to stop.

mod canary;
mod candidate;
mod change;
mod engine;
mod labelling;
mod modes;
mod mounts;
mod names;
mod notify;
mod output;
mod pump;
mod recall;
mod serve;
mod start;

pub use canary::child as canary_child;
pub use engine::{ApplyError, Engine};
pub use modes::ModeError;
pub use recall::Asked;
pub use serve::Shared;
pub use start::{StartError, run};
