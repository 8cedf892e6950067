//! Reading a bundle from a `.tar.zst`.
//!
//! The bytes come from anywhere and are read before any signature can be checked, so nothing of tar
//! is accepted that a bundle does not need: no links, devices, extended headers or absolute names.

use std::io::{self, Read};
use std::path::Path;

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use tar::{Archive, EntryType};

use super::directory::read_file;
use super::files::{Files, MAX_BYTES, MAX_FILES};
use crate::policy::Diagnostic;

/// Bytes of an archive, at most.
pub(super) const MAX_ARCHIVE: usize = 16 << 20;
/// Bytes that the decoder may look back, at most; it allocates them before anything is checked.
const MAX_WINDOW: u64 = 8 << 20;
/// How much larger than the archive its contents may be, once they are larger than [`FREE_BYTES`].
const MAX_RATIO: usize = 200;
/// Contents of this size are accepted at any ratio.
const FREE_BYTES: usize = 1 << 20;
/// Bytes of headers and padding beside the contents, at most.
const OVERHEAD: usize = MAX_FILES * 1024 + (1 << 20);

/// Reads the archive at `path`.
pub(super) fn read(path: &Path) -> Result<Files, Diagnostic> {
    let bytes = read_file(path, MAX_ARCHIVE).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::FileTooLarge => format!("it is larger than {} MiB", MAX_ARCHIVE >> 20),
            _ => error.to_string(),
        };
        Diagnostic::error("read", format!("cannot read {}: {why}", path.display()))
    })?;
    unpack(&bytes, path)
}

/// Reads an archive in memory. `origin` is what the user calls it.
pub(super) fn unpack(bytes: &[u8], origin: &Path) -> Result<Files, Diagnostic> {
    let mut files = Files::new(origin);
    let contents = decompress(bytes).map_err(|why| files.error("archive", why))?;
    let mut archive = Archive::new(contents.as_slice());
    let entries = archive.entries().map_err(|error| files.error("archive", error))?;
    let mut end = 0;
    // Raw: extended headers are seen as what they are instead of being applied.
    for (index, entry) in entries.raw(true).enumerate() {
        let number = index + 1;
        let mut entry = entry.map_err(|error| files.error("archive", format!("entry {number}: {error}")))?;
        let name = entry.path_bytes().into_owned();
        let place = format!("entry {number} ({})", name.escape_ascii());
        let error = |files: &Files, why: &str| files.error("archive", format!("{place}: {why}"));
        let name = std::str::from_utf8(&name).map_err(|_| error(&files, "its name is not UTF-8"))?;
        let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
        if number > MAX_FILES || files.room().is_none_or(|room| size > room) {
            return Err(files.too_large());
        }
        match entry.header().entry_type() {
            EntryType::Regular => {}
            // `tar` writes these; a directory says nothing that its files do not.
            EntryType::Directory if size == 0 => {
                end = entry.raw_file_position();
                continue;
            }
            other => {
                let why = format!("{} is no part of a bundle", describe(other));
                return Err(error(&files, &why).help("make archives with guardctl bundle build"));
            }
        }
        let mut file = Vec::with_capacity(size.min(contents.len()));
        entry.read_to_end(&mut file).map_err(|why| error(&files, &why.to_string()))?;
        if file.len() != size {
            return Err(error(&files, &format!("it ends after {} of {size} bytes", file.len())));
        }
        end = entry.raw_file_position() + size.next_multiple_of(512) as u64;
        files.insert(name, file)?;
    }
    // What is behind the end would be in the file, but under no digest.
    match usize::try_from(end).ok().and_then(|end| contents.get(end..)) {
        Some(rest) if rest.iter().any(|byte| *byte != 0) => {
            Err(files.error("archive", "there is something behind its last entry"))
        }
        Some(rest) if rest.len() >= 1024 => Ok(files),
        _ => Err(files.error("archive", "it is cut off: the two empty blocks at its end are missing")),
    }
}

/// The contents of the one frame that the archive is.
fn decompress(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(MAX_WINDOW);
    let mut stream =
        StreamingDecoder::new_with_decoder(bytes, decoder).map_err(|error| format!("not zstd: {error}"))?;
    let mut contents = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut buffer).map_err(|error| format!("broken zstd: {error}"))?;
        if read == 0 {
            break;
        }
        contents.extend_from_slice(&buffer[..read]);
        if contents.len() > MAX_BYTES + OVERHEAD {
            return Err(format!("its contents are larger than {} MiB", (MAX_BYTES + OVERHEAD) >> 20));
        }
        if contents.len() > FREE_BYTES && contents.len() / MAX_RATIO > bytes.len() {
            return Err(format!("its contents are more than {MAX_RATIO} times larger than itself"));
        }
    }
    let (rest, decoder) = stream.into_parts();
    if !rest.is_empty() {
        return Err(format!("{} bytes follow the end of its zstd frame", rest.len()));
    }
    let (stored, calculated) = (decoder.get_checksum_from_data(), decoder.get_calculated_checksum());
    if stored.is_some() && stored != calculated {
        return Err("broken zstd: its checksum is wrong".into());
    }
    Ok(contents)
}

fn describe(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Directory => "a directory with contents",
        EntryType::Link => "a hard link",
        EntryType::Symlink => "a symbolic link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a named pipe",
        EntryType::XGlobalHeader | EntryType::XHeader => "a pax header",
        EntryType::GNULongName | EntryType::GNULongLink => "a long name",
        EntryType::GNUSparse => "a sparse file",
        _ => "an entry of this type",
    }
}
