//! The files of a bundle in memory, and the limits they keep.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::policy::{Diagnostic, Source};

/// Files in one bundle, at most.
pub const MAX_FILES: usize = 4096;
/// Bytes of all files of one bundle together, at most.
pub const MAX_BYTES: usize = 64 << 20;
/// Bytes of a file's name with its directories, at most: what a tar header without extensions holds.
pub const MAX_NAME: usize = 100;

/// Files by name. A name is relative, in UTF-8, with `/` between its components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    origin: String,
    files: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Files {
    /// No files yet. `origin` is the directory or archive, as the user would name it.
    pub fn new(origin: &Path) -> Self {
        Self { origin: origin.display().to_string(), files: BTreeMap::new(), bytes: 0 }
    }

    /// The directory or archive they come from, as the user would name it.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Adds a file.
    ///
    /// # Errors
    /// If the name cannot be one of a bundle or is there already, or a limit is passed.
    pub fn insert(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), Diagnostic> {
        check_name(name).map_err(|why| self.error("name", format!("{name:?} {why}")))?;
        if self.files.contains_key(name) {
            return Err(self.error("name", format!("{name} is there twice")));
        }
        let within = self.room().filter(|room| bytes.len() <= *room);
        if within.is_none() {
            return Err(self.too_large());
        }
        self.bytes += bytes.len();
        self.files.insert(name.to_owned(), bytes);
        Ok(())
    }

    /// Adds a file, or gives it other contents.
    ///
    /// # Errors
    /// As for [`Files::insert`].
    pub fn replace(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), Diagnostic> {
        if let Some(old) = self.files.remove(name) {
            self.bytes -= old.len();
        }
        self.insert(name, bytes)
    }

    /// Bytes that may still be added; nothing if there are as many files as there may be.
    pub(super) fn room(&self) -> Option<usize> {
        (self.files.len() < MAX_FILES).then_some(MAX_BYTES - self.bytes)
    }

    /// The error of a bundle that passes a limit.
    pub(super) fn too_large(&self) -> Diagnostic {
        self.error(
            "limit",
            format!("this is too large: more than {MAX_FILES} files or {} MiB", MAX_BYTES >> 20),
        )
        .help("split it: a bundle is policy, not data")
    }

    /// The bytes of a file.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// Names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Names and bytes in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// What a diagnostic calls a file.
    pub fn display(&self, name: &str) -> String {
        format!("{}/{name}", self.origin)
    }

    /// A file as text.
    ///
    /// # Errors
    /// If it is not there or not UTF-8.
    pub fn source(&self, name: &str) -> Result<Source, Diagnostic> {
        let cannot =
            |why: String| Diagnostic::error("read", format!("cannot read {}: {why}", self.display(name)));
        let bytes = self.get(name).ok_or_else(|| cannot("no such file in the bundle".into()))?;
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            cannot(format!("it is not UTF-8 text (line {line})"))
        })?;
        Ok(Source::new(self.display(name), text))
    }

    /// An error about the whole.
    pub(super) fn error(&self, code: &'static str, message: impl std::fmt::Display) -> Diagnostic {
        Diagnostic::error(code, format!("{}: {message}", self.origin))
    }
}

/// The SHA-256 digest of some bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Two digits a byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a name stays inside the bundle and can be written by every tool.
fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("is empty");
    }
    if name.len() > MAX_NAME {
        return Err("is longer than 100 bytes");
    }
    if name.starts_with('/') {
        return Err("is absolute: names count from the bundle");
    }
    if name.contains(|c: char| c.is_control() || c == '\\') {
        return Err("has a control character or backslash in it");
    }
    for component in name.split('/') {
        match component {
            ".." => return Err("leads out of the bundle"),
            "" | "." => return Err("has an empty component or a dot: write names plainly"),
            _ => {}
        }
    }
    Ok(())
}
