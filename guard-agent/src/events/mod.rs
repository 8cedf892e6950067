//! Events for people and programs: what the kernel reported, as records, JSON Lines and text.
//!
//! [`Renderer`] turns the kernel's event into a [`Record`]; the record is all that leaves the agent.
//! Everything that a process can choose (paths, its command name, socket names) is made harmless
//! here, before anyone prints it, and without losing a byte: see [`escape`].
#![forbid(unsafe_code)]

mod compact;
pub mod escape;
mod id;
mod long;
mod lost;
mod mounts;
mod record;
mod render;
pub mod time;
mod wrap;

pub use id::{Kind, typed_id};
pub use lost::{Dropped, Lost, Missing, SequenceTracker};
pub use mounts::{MountPoint, Mounts};
pub use record::{BundleRecord, ParseError, Record, ResourceRecord, Seen, ShadowRecord};
pub use render::{Renderer, errno_name};
pub use wrap::wrapped;
