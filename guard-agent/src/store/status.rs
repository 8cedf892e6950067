//! How the memory is doing.

use serde::{Deserialize, Serialize};

/// How the memory is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct StoreStatus {
    /// Kinds of events that are remembered.
    pub kinds: u64,
    /// Bytes in use in the file.
    pub bytes: u64,
    /// Events since the start that were not stored: too many kinds at once, or the file could not be
    /// written.
    pub not_stored: u64,
    /// Rows since the start that were removed to make room, or for their age.
    pub forgotten: u64,
    /// Why nothing is stored now.
    pub broken: Option<String>,
    /// What happened to a file that could not be used.
    pub set_aside: Option<String>,
}
