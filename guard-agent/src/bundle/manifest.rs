//! The manifest of a sealed bundle: `bundle.toml`, which is what signatures are over.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::files::{Files, sha256};
use super::release::Release;
use super::signatures::SIGNATURES;
use crate::policy::{Diagnostic, Diagnostics, Source};

/// Name of the manifest. A directory that holds it is sealed.
pub const MANIFEST: &str = "bundle.toml";
/// The one format of manifests.
const FORMAT: u32 = 1;
const PREFIX: &str = "sha256:";

/// A parsed and checked manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: Spanned<u32>,
    /// Name of the bundle.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// The action set and schema it was written for.
    pub profile: u32,
    /// Where it may run.
    #[serde(default)]
    pub release: Release,
    /// Digest of every other file but the signatures.
    files: BTreeMap<Spanned<String>, Spanned<String>>,
}

impl Manifest {
    /// Reads the manifest of `files` and compares every file with its digest.
    ///
    /// # Errors
    /// If the manifest is malformed, a file is missing or has another digest, or is not listed.
    pub(super) fn read(files: &Files) -> Result<Self, Diagnostics> {
        let source = files.source(MANIFEST)?;
        let manifest: Self = crate::policy::toml(&source, "manifest")?;
        if *manifest.format.get_ref() != FORMAT {
            let message = format!("this agent reads format {FORMAT}, not {}", manifest.format.get_ref());
            return Err(source
                .error("manifest", manifest.format.span(), message)
                .help("update Guard")
                .into());
        }
        let mut found = Vec::new();
        manifest.release.check(&source, &mut found);
        for (name, wanted) in &manifest.files {
            let Some(digest) = wanted.get_ref().strip_prefix(PREFIX) else {
                let message = "this is not a digest: it begins with sha256:";
                found.push(source.error("manifest", wanted.span(), message).help("build the bundle again"));
                continue;
            };
            match files.get(name.get_ref()) {
                Some(bytes) if sha256(bytes) == digest => {}
                Some(_) => found.push(
                    source
                        .error(
                            "digest",
                            name.span(),
                            format!("{} was changed after it was sealed", name.get_ref()),
                        )
                        .help("get the bundle again, or build and sign it again if the change is meant"),
                ),
                None => found.push(
                    source
                        .error("digest", name.span(), format!("{} is missing", name.get_ref()))
                        .help("get the bundle again"),
                ),
            }
        }
        let listed: Vec<&str> = manifest.files.keys().map(|name| name.get_ref().as_str()).collect();
        for name in files.names().filter(|name| ![MANIFEST, SIGNATURES].contains(name)) {
            if !listed.contains(&name) {
                found.push(
                    files
                        .error("digest", format!("{name} is not listed in {MANIFEST}"))
                        .help("remove it, or build the bundle again with it"),
                );
            }
        }
        Diagnostics::refuse_if_errors(found)?;
        Ok(manifest)
    }

    /// The text of a manifest for these files.
    pub(super) fn write(name: &str, version: u64, profile: u32, release: &Release, files: &Files) -> String {
        let digests =
            files.iter().map(|(name, bytes)| (name.to_owned(), format!("{PREFIX}{}", sha256(bytes)).into()));
        let mut table = toml::Table::new();
        let release = release.plain();
        if !release.is_empty() {
            table.insert("release".to_owned(), toml::Value::Table(release));
        }
        table.insert("files".to_owned(), toml::Value::Table(digests.collect()));
        let name = toml::Value::from(name);
        format!(
            "# Written by guardctl bundle build; signatures are over every byte of it.\n\
             format = {FORMAT}\nname = {name}\nversion = {version}\nprofile = {profile}\n\n{table}"
        )
    }

    /// Whether it says of the bundle what the bundle's guard.toml says.
    pub fn agrees(&self, name: &str, version: u64, profile: u32, release: &Release) -> bool {
        self.name == name
            && self.version == version
            && self.profile == profile
            && self.release.plain() == release.plain()
    }
}

/// A diagnostic about the manifest as a whole.
pub(crate) fn disagreement(source: &Source) -> Diagnostic {
    source
        .error(
            "manifest",
            0..1,
            format!("{MANIFEST} and guard.toml differ in name, version, profile or [release]"),
        )
        .help("build the bundle again")
}
