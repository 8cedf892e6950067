//! Signed artifacts: which key signed a file with which content.
//!
//! An *artifact list* names SHA-256 digests of files and carries the signature of one key. A bundle names the keys
//! (`[signers]`), and may hold lists; others lie on the host, in [`DIRECTORY`], where who delivers the files puts
//! them. A list counts for the key that signed it, whoever put it where it is; which key that must be, the
//! bundle alone says.
#![forbid(unsafe_code)]

mod list;
mod shelf;

pub use list::{Artifact, ArtifactList, ListError, MAX_LIST};
pub use shelf::{DIRECTORY, Lists, Refused, digest_of};
