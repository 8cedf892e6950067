//! A bundle: the files of one directory, parsed and validated.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::diagnostics::{Diagnostic, Diagnostics, Source};
use super::manifest::{self, FailMode, SelectorDefinition};

/// Whether denials are enforced or only reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Deny.
    Enforce,
    /// Allow, and report what would be denied.
    Monitor,
}

/// One subject as the bundle defines it.
#[derive(Clone, Debug)]
pub struct SubjectDefinition {
    /// Its name: the Cedar entity id.
    pub name: String,
    /// Enforce or monitor.
    pub mode: Mode,
    /// The groups it belongs to.
    pub groups: Vec<String>,
    /// Bits of the actions it governs.
    pub governs: u64,
    /// What it gets when its posture is stale.
    pub fail_mode: FailMode,
    /// The includes linked for it.
    pub include: Vec<String>,
    /// Its selectors.
    pub selectors: Vec<SelectorDefinition>,
}

/// A parsed and validated bundle.
#[derive(Debug)]
pub struct Bundle {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 over its files, in hexadecimal.
    pub digest: String,
    /// What was noticed while loading; holds no errors.
    pub notes: Vec<Diagnostic>,
    pub(super) subjects: Vec<SubjectDefinition>,
}

impl Bundle {
    /// The subjects, by name.
    pub fn subjects(&self) -> impl Iterator<Item = &SubjectDefinition> {
        self.subjects.iter()
    }
}

/// Reads, parses and validates the bundle in `dir`.
pub fn load(dir: &Path) -> Result<Bundle, Diagnostics> {
    let path = dir.join("guard.toml");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Diagnostic::error("read", format!("cannot read {}: {error}", path.display()))
            .help("a bundle is a directory with a guard.toml and *.cedar files")
    })?;
    let source = Source::new(path.display().to_string(), text);
    let manifest = manifest::parse(&source)?;
    Ok(Bundle {
        name: manifest.bundle.name.into_inner(),
        version: manifest.bundle.version,
        digest: format!("{:x}", Sha256::digest(source.text.as_bytes())),
        notes: Vec::new(),
        subjects: Vec::new(),
    })
}
