//! Sessions whose variables are literals of their own.

use std::collections::BTreeMap;

/// A session with variables: it is decided by a row of its own, in which `${session.NAME}` has a value.
///
/// It is part of a generation like a subject, with the same policies. Its literals lie in the same
/// tries and classes; only its own rules mention them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Number of its row among the subjects.
    pub row: u32,
    /// The session.
    pub session: u64,
    /// The subject whose policies apply.
    pub subject: String,
    /// Values of its variables, by name.
    pub variables: BTreeMap<String, String>,
}
