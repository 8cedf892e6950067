//! The kernel side of the agent: load, attach, switch generations, label, read events.
//!
//! All `unsafe` code of the agent is in this module, each block with its argument.

mod as_user;
mod barrier;
mod bars;
mod btf;
mod clock;
mod diagnostics;
mod elements;
mod error;
mod events;
mod inner;
mod labels;
mod live;
mod load;
mod mapped;
mod maps;
mod outcomes;
mod pins;
mod pod;
mod probe;
mod programs;
mod running;
mod selectors;
mod slot;
mod symbols;
mod takeover;
mod uses;

pub use as_user::as_user;
pub use bars::{Bars, Keys};
pub use clock::{ClockWatch, clock_is_synchronised};
pub use diagnostics::Diagnostics;
pub use error::KernelError;
pub use events::{EventStream, Seen};
pub(crate) use labels::pidfd;
pub use labels::{Carried, LabelReader, has_ended, peer_groups, peer_process, send_signal};
pub use load::{Kernel, ProgramInfo};
pub use pins::{PinError, Pins, disarm, is_armed};
pub use probe::probe;
pub use uses::Uses;
