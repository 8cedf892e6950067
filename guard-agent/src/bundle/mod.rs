//! Bundles as files: where they are read from, what holds them together, and who vouches for them.
//!
//! A bundle is a directory that somebody edits (*plain*), or what `guardctl bundle build` made of
//! one (*sealed*): the same files with a manifest that lists their digests, and signatures over the
//! manifest, as a directory or in a `.tar.zst`. Everything is read into memory once, within fixed
//! limits, and checked before anything in it is parsed as policy; what it says is the matter of
//! [`policy`](crate::policy).
#![forbid(unsafe_code)]

mod archive;
mod build;
mod directory;
mod files;
mod keys;
mod manifest;
mod open;
mod record;
mod release;
mod shadow;
mod shelf;
mod signatures;
#[cfg(test)]
mod tests;
mod trust;
mod write;

pub use build::{BuildError, build};
pub(crate) use directory::read_file;
pub(crate) use files::hexadecimal;
pub use files::{Files, MAX_BYTES, MAX_FILES, MAX_NAME};
pub use keys::{KeyError, PrivateKey, PublicKey};
pub(crate) use manifest::disagreement;
pub use manifest::{MANIFEST, Manifest};
pub use open::{Opened, Seal, check as open_files, open, open_archive, open_kept};
pub use record::{Denied, Effect, Entry, Hold, How, Proposed, Record};
pub use release::{Halt, Release, Rollout};
pub use shadow::{End, Ended, Shadow, Shadows};
pub use shelf::{Copies, Shelf, ShelfError};
pub use signatures::{SIGNATURES, Signatures};
pub use trust::{Refusal, Standing, Trust, TrustConfig, TrustError};
pub use write::{WriteError, write_archive};
pub(crate) use write::{replace, set_aside};
