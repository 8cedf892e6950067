//! The Guard agent as a library.
