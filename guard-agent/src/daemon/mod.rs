//! The daemon: prepares the host, proves enforcement, then serves until it is told to stop.

mod adopt;
mod canary;
mod candidate;
mod change;
mod containers;
mod engine;
mod labelling;
mod mode;
mod modes;
mod mounts;
mod names;
mod notify;
mod output;
mod pump;
mod recall;
mod serve;
mod sessions;
mod shadow;
mod shadow_report;
mod start;
mod trials;
mod unused;
mod windows;

pub use adopt::{AdoptError, Caller};
pub use canary::child as canary_child;
pub use engine::{ApplyError, Engine};
pub use mode::ModeError;
pub use modes::{Change as ModeChange, Setting as ModeSetting};
pub use recall::Asked;
pub use serve::Shared;
pub use sessions::Session;
pub use shadow::ShadowError;
pub use shadow_report::ShadowReportError;
pub use start::{StartError, run};
pub use trials::TrialError;
pub use unused::ReportError;
