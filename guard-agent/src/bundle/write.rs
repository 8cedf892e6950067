//! Writing a bundle as a `.tar.zst`, the same bytes for the same files, in one durable step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tar::{Builder, Header};

use super::files::Files;

/// Why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}")]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Writes the files as an archive.
///
/// # Errors
/// If the file cannot be written; what was there before is untouched then.
pub fn write_archive(files: &Files, path: &Path) -> Result<(), WriteError> {
    pack(files)
        .and_then(|bytes| replace(path, &bytes, 0o644))
        .map_err(|source| WriteError { path: path.to_owned(), source })
}

/// The archive in memory. Owners, times and modes are the same whoever builds it.
pub(crate) fn pack(files: &Files) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in files.iter() {
        let mut header = Header::new_ustar();
        header.set_path(name)?;
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        builder.append(&header, bytes)?;
    }
    Ok(zstd(&builder.into_inner()?))
}

/// One frame of zstd.
pub(crate) fn zstd(contents: &[u8]) -> Vec<u8> {
    compress_to_vec(contents, CompressionLevel::Fastest)
}

/// Renames a file that cannot be used, so that it is kept for whoever looks into it, and says so. `why` it
/// cannot be used, and what the `consequence` is; returns the whole sentence.
pub(crate) fn set_aside(file: &Path, why: &str, consequence: &str) -> String {
    let aside = file.with_extension("json.unusable");
    let kept = match fs::rename(file, &aside) {
        Ok(()) => format!("it is kept as {}", aside.display()),
        Err(error) => format!("it cannot be set aside: {error}"),
    };
    let lost = format!("{} cannot be used ({why}), {kept}: {consequence}", file.display());
    tracing::error!("{lost}");
    lost
}

/// Replaces a file in one step: whoever reads it sees the old bytes or the new ones, also after a
/// crash at any instant, and once this returns the new ones are on the disk.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = directory.join(temporary);
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary);
    let result = written
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(directory)?.sync_all());
    if result.is_err() {
        // It may not exist; the error that is told is the first one.
        let _ = fs::remove_file(&temporary);
    }
    result
}
