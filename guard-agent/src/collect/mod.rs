//! What the agent reads off the host to find out facts by itself, and what commands say that it runs. Nothing here
//! decides anything, and nothing here guesses: what cannot be read is not known.

pub(crate) mod disk;
pub mod network;
pub mod provider;
pub(crate) mod unit;
