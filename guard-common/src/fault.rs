//! What tests can make fail inside of the programs, as bits of one word that the test writes.
//!
//! The agent decides when it loads the programs whether they look at the word at all. Where they do not,
//! which is everywhere but in tests, the verifier removes what is behind it.

/// The kernel does not hand out the storage of a task that has one.
pub const STORAGE: u64 = 1;
/// The kernel has no memory for the storage of a task.
pub const NO_MEMORY: u64 = 1 << 1;
/// A walk reaches its bound.
pub const WALK: u64 = 1 << 2;
/// No generation is live, or its tables lack what must be there.
pub const TABLES: u64 = 1 << 3;
/// The ring of events is full.
pub const RING: u64 = 1 << 4;
/// All labels of this CPU for whoever has none of its own are in use.
pub const SHARED: u64 = 1 << 5;
