//! In which network the host is: names that the agent's configuration gives to networks by how they look from inside.
//!
//! `signature` is how a network looks, `surroundings` what the host sees now, read by `netlink`. Nothing of this is
//! authenticated: whoever runs a network can make it look like another one, down to the gateway's hardware address.

mod netlink;
mod signature;
mod surroundings;

pub(crate) use netlink::{Changes, NetlinkError, read};
pub(crate) use signature::{Located, locate};
pub use signature::{Mac, Prefix, Signature};
pub(crate) use surroundings::Surroundings;

use std::collections::BTreeMap;

/// The networks that the configuration describes, by name.
pub type Networks = BTreeMap<String, Signature>;
