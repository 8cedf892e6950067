//! What programs leave to those that take their place, and the agent to the one after it.
//!
//! Programs and maps outlive the agent where they are pinned. An agent with the same programs takes them over as
//! they are. One with others attaches its own beside them, and takes over the maps of [`KEPT`] and, task by
//! task, the beginning of every label ([`crate::label::LabelHead`]).

/// What stands where in the directory of pins, [`KEPT`], and [`crate::label::LabelHead`]. Raised when one of
/// them changes; programs of another number are not taken over.
pub const FORMAT: u32 = 3;

/// How the values of [`KEPT`] are laid out, of events as well. Raised when one of these types changes; the maps
/// of another number are not taken over, but labels are.
pub const LAYOUT: u32 = 2;

/// Maps that stay when other programs take over.
pub const KEPT: [&str; 12] = [
    "COUNTERS",
    "EVENTS",
    "HOST_ROOT",
    "MADE",
    "MAKERS",
    "OWNERS",
    "ROOTS",
    "ROOT_COUNTS",
    "SEEN",
    "SEQUENCE",
    "SOCKETS",
    "USES",
];

/// Counters that there is room for; a new one takes the next place and changes no layout.
pub const COUNTER_PLACES: usize = 64;

/// CPUs of which it is kept how far their events were read.
pub const SEEN_PLACES: usize = 4096;

const _: () = assert!(crate::event::COUNTERS as usize <= COUNTER_PLACES);
