//! Sealing a plain bundle: the includes it uses are copied into it, and a manifest is written.

use std::collections::BTreeMap;
use std::path::Path;

use super::manifest::{MANIFEST, Manifest};
use super::open::{Opened, Seal, open};
use super::signatures::Signatures;
use crate::policy::{self, Diagnostic, Diagnostics};

/// Why a bundle cannot be sealed.
pub type BuildError = Diagnostics;

/// Seals the plain directory at `dir`: what comes out is whole, means the same to every agent that
/// accepts it whatever includes that agent ships, and is not signed yet.
///
/// # Errors
/// If the directory is no valid bundle, or is sealed already.
pub fn build(dir: &Path) -> Result<Opened, BuildError> {
    let mut opened = open(dir)?;
    if opened.seal.is_some() {
        let error = opened.files.error("manifest", "this bundle is sealed already");
        return Err(error
            .help("sign it with guardctl bundle sign, or build from the directory it was made of")
            .into());
    }
    let bundle = policy::parse(&opened)?;
    let mut copies: BTreeMap<String, String> = BTreeMap::new();
    for (file, text) in bundle.shipped_templates() {
        let copy = copies.entry(format!("includes/guard/{file}")).or_insert_with(|| {
            format!("// Copied from Guard {} by guardctl bundle build.\n", env!("CARGO_PKG_VERSION"))
        });
        copy.push('\n');
        copy.push_str(text);
        copy.push('\n');
    }
    for (name, text) in copies {
        opened.files.insert(&name, text.into_bytes())?;
    }
    let manifest =
        Manifest::write(&bundle.name, bundle.version, bundle.profile, &bundle.release, &opened.files);
    opened.files.insert(MANIFEST, manifest.into_bytes())?;
    let seal = Seal { manifest: Manifest::read(&opened.files)?, signatures: Signatures::default() };
    let sealed = Opened { seal: Some(seal), files: opened.files };
    // Nobody should learn on another host that the copy does not stand alone.
    let again = policy::parse(&sealed)?;
    if again.policy_ids().ne(bundle.policy_ids()) {
        return Err(Diagnostic::error("internal", "the sealed bundle does not hold the same policies").into());
    }
    Ok(sealed)
}
