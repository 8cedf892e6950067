//! Opening a bundle, whatever form it has.

use std::path::Path;

use super::files::Files;
use super::manifest::{MANIFEST, Manifest};
use super::signatures::Signatures;
use super::{archive, directory};
use crate::policy::Diagnostics;

/// What holds a sealed bundle together. Every digest was compared and every signature checked.
#[derive(Debug)]
pub struct Seal {
    /// Its manifest.
    pub manifest: Manifest,
    /// Who signed the manifest.
    pub signatures: Signatures,
}

/// The files of a bundle.
#[derive(Debug)]
pub struct Opened {
    /// All of them.
    pub files: Files,
    /// Nothing for a plain directory.
    pub seal: Option<Seal>,
}

/// Opens the directory or archive at `path`.
///
/// # Errors
/// If it cannot be read, passes a limit, is malformed, or its seal is broken.
pub fn open(path: &Path) -> Result<Opened, Diagnostics> {
    if path.is_dir() {
        let files = directory::read(path)?;
        let seal = files.get(MANIFEST).is_some();
        return check(files, seal);
    }
    check(archive::read(path)?, true)
}

/// Opens the copy of a bundle that a host keeps in its state directory: an archive of what was
/// applied, which need not have been sealed.
///
/// # Errors
/// As for [`open`].
pub fn open_kept(path: &Path) -> Result<Opened, Diagnostics> {
    let files = archive::read(path)?;
    let sealed = files.get(MANIFEST).is_some();
    check(files, sealed)
}

/// Opens an archive in memory. `origin` is what diagnostics call it.
///
/// # Errors
/// As for [`open`].
pub fn open_archive(bytes: &[u8], origin: &Path) -> Result<Opened, Diagnostics> {
    check(archive::unpack(bytes, origin)?, true)
}

/// The rest of opening files that were read: if they are `sealed`, compares digests and checks signatures.
///
/// # Errors
/// If the seal is broken.
pub fn check(files: Files, sealed: bool) -> Result<Opened, Diagnostics> {
    if !sealed {
        return Ok(Opened { files, seal: None });
    }
    if files.get(MANIFEST).is_none() {
        let error = files.error("manifest", format!("there is no {MANIFEST} in this archive"));
        return Err(error.help("make archives with guardctl bundle build").into());
    }
    let manifest = Manifest::read(&files)?;
    let signatures = Signatures::read(&files)?;
    Ok(Opened { files, seal: Some(Seal { manifest, signatures }) })
}
