//! Reading a bundle from a directory.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use serde::Deserialize;

use super::files::Files;
use super::manifest::MANIFEST;
use crate::policy::Diagnostic;

/// Directories inside a sealed bundle may be nested this deep.
const MAX_DEPTH: usize = 4;

/// Directories below a plain bundle whose files belong to it, and the extensions that count there.
const BELOW: [(&str, &[&str]); 2] = [("includes", &["cedar"]), ("tests", &["toml", "json"])];

/// Reads the directory: all of it if it is sealed, otherwise what a bundle is made of, so that an
/// editor's leavings and version control do not matter.
pub(super) fn read(dir: &Path) -> Result<Files, Diagnostic> {
    let mut files = Files::new(dir);
    if dir.join(MANIFEST).symlink_metadata().is_ok() {
        everything(&mut files, dir, "", 0)?;
        return Ok(files);
    }
    file(&mut files, &dir.join("guard.toml"), "guard.toml")
        .map_err(|error| error.help("a bundle is a directory with a guard.toml and *.cedar files"))?;
    for name in names(dir)? {
        if has_extension(&name, &["cedar"]) {
            file(&mut files, &dir.join(&name), &name)?;
        }
    }
    for (below, extensions) in BELOW {
        let dir = dir.join(below);
        if !dir.is_dir() {
            continue;
        }
        for name in names(&dir)?.iter().filter(|name| has_extension(name, extensions)) {
            file(&mut files, &dir.join(name), &format!("{below}/{name}"))?;
        }
    }
    for name in named(&files) {
        // A name that is no file of this directory is reported by who reads guard.toml.
        if files.get(&name).is_none() && !name.contains('/') && dir.join(&name).exists() {
            file(&mut files, &dir.join(&name), &name)?;
        }
    }
    Ok(files)
}

/// The files that guard.toml names: schemas and artifact lists. If it does not parse, its reader says why.
fn named(files: &Files) -> Vec<String> {
    #[derive(Deserialize)]
    struct Toml {
        bundle: Head,
        #[serde(default)]
        signers: BTreeMap<String, Signer>,
    }
    #[derive(Deserialize)]
    struct Signer {
        digests: Option<String>,
    }
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        schema: Vec<String>,
    }
    let text = files.get("guard.toml").and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    let Ok(toml) = toml::from_str::<Toml>(text) else { return Vec::new() };
    let lists = toml.signers.into_values().filter_map(|signer| signer.digests);
    toml.bundle.schema.into_iter().chain(lists).collect()
}

fn everything(files: &mut Files, dir: &Path, prefix: &str, depth: usize) -> Result<(), Diagnostic> {
    if depth > MAX_DEPTH {
        return Err(files.error("name", format!("{prefix} is nested too deep")));
    }
    for name in names(dir)? {
        let path = dir.join(&name);
        let inside = format!("{prefix}{name}");
        let kind = path.symlink_metadata().map_err(|error| cannot(&path, &error))?.file_type();
        if kind.is_dir() {
            everything(files, &path, &format!("{inside}/"), depth + 1)?;
        } else if kind.is_file() {
            file(files, &path, &inside)?;
        } else {
            return Err(files
                .error("name", format!("{inside} is neither a file nor a directory"))
                .help("a sealed bundle holds files only; build it again"));
        }
    }
    Ok(())
}

/// The names in a directory, in order.
fn names(dir: &Path) -> Result<Vec<String>, Diagnostic> {
    let cannot =
        |error: io::Error| Diagnostic::error("read", format!("cannot list {}: {error}", dir.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        match name.into_string() {
            Ok(name) => names.push(name),
            Err(name) => {
                let message = format!("the name {:?} in {} is not UTF-8", name, dir.display());
                return Err(Diagnostic::error("name", message).help("rename or remove it"));
            }
        }
    }
    names.sort();
    Ok(names)
}

fn has_extension(name: &str, wanted: &[&str]) -> bool {
    // A leading dot hides a file, as editors do with their leavings.
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    !name.starts_with('.') && extension.is_some_and(|extension| wanted.contains(&extension))
}

fn file(files: &mut Files, path: &Path, name: &str) -> Result<(), Diagnostic> {
    let room = files.room().ok_or_else(|| files.too_large())?;
    let bytes = read_file(path, room).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => files.too_large(),
        _ => cannot(path, &error),
    })?;
    files.insert(name, bytes)
}

/// Reads a regular file of at most `limit` bytes; longer ones are [`io::ErrorKind::FileTooLarge`].
/// A named pipe would block the reader for ever, so only files are read; and none of /proc, where what a link to
/// `/proc/self` shows is the reader's own.
pub(crate) fn read_file(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || fstatfs(&file)?.filesystem_type() == PROC_SUPER_MAGIC {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(limit).min(limit));
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn cannot(path: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic::error("read", format!("cannot read {}: {error}", path.display()))
}
