//! The artifact lists of this host.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::list::{ArtifactList, MAX_LIST};
use crate::bundle::{PublicKey, read_file};
use guard_common::label::DIGEST;

/// Where the lists of a host lie, `*.artifacts`.
pub const DIRECTORY: &str = "/etc/guard/artifacts.d";
/// Ending of their names.
const EXTENSION: &str = "artifacts";
/// Lists that are read, at most.
const MAX_LISTS: usize = 256;

/// The lists of a directory, and what in it is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// By file.
    pub lists: Vec<(PathBuf, ArtifactList)>,
    /// What does not count, and why.
    pub refused: Vec<Refused>,
}

/// A file that does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The file, or the directory.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl Lists {
    /// Reads every list in `directory`. One that cannot be used is told and left out: it names nothing, so nothing
    /// is permitted for its sake.
    pub fn read(directory: &Path) -> Self {
        let mut this = Self::default();
        let names = match names(directory) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return this,
            Err(error) => {
                this.refuse(directory, error.to_string());
                return this;
            }
        };
        if !fs::metadata(directory).is_ok_and(|data| is_closed(&data)) {
            this.refuse(directory, OPEN);
            return this;
        }
        for (number, path) in names.into_iter().enumerate() {
            if number == MAX_LISTS {
                this.refuse(
                    directory,
                    format!("it holds more than {MAX_LISTS} lists; the others are not read"),
                );
                break;
            }
            match read(&path) {
                Ok(list) => this.lists.push((path, list)),
                Err(why) => this.refuse(&path, why),
            }
        }
        this
    }

    fn refuse(&mut self, path: &Path, why: impl Into<String>) {
        self.refused.push(Refused { path: path.to_owned(), why: why.into() });
    }

    /// The lists that `key` signed.
    pub fn of<'a>(&'a self, key: &'a PublicKey) -> impl Iterator<Item = &'a ArtifactList> {
        self.lists.iter().map(|(_, list)| list).filter(move |list| list.key == *key)
    }
}

const OPEN: &str =
    "it may be changed by others than root, who could put an older list there: chown root and chmod go-w";

fn read(path: &Path) -> Result<ArtifactList, String> {
    let bytes = read_file(path, MAX_LIST).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => format!("longer than {} MiB", MAX_LIST >> 20),
        _ => error.to_string(),
    })?;
    if !fs::metadata(path).is_ok_and(|data| is_closed(&data)) {
        return Err(OPEN.to_owned());
    }
    ArtifactList::parse(&bytes).map_err(|error| error.to_string())
}

fn names(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension() == Some(OsStr::new(EXTENSION)) && !hidden {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Only root, or the user that this runs as, may change it.
fn is_closed(data: &Metadata) -> bool {
    (data.uid() == 0 || data.uid() == nix::unistd::geteuid().as_raw()) && data.mode() & 0o022 == 0
}

/// The SHA-256 digest of a file's content.
///
/// # Errors
/// If it cannot be read, or is no regular file.
pub fn digest_of(path: &Path) -> io::Result<[u8; DIGEST]> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            length => hash.update(&buffer[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Artifact;
    use crate::bundle::PrivateKey;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_no_list_is_told_and_the_others_count() {
        let directory = std::env::temp_dir().join(format!("guard-artifacts-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        assert_eq!(Lists::read(&directory), Lists::default(), "no directory, no lists");
        fs::create_dir(&directory).unwrap();
        let key = PrivateKey::generate().unwrap();
        let one = Artifact { digest: [1; DIGEST], name: "tool".into() };
        let text = ArtifactList::sign(&[one], &key).unwrap();
        let write = |name: &str, text: &[u8], mode: u32| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("good.artifacts", text.as_bytes(), 0o644);
        write("changed.artifacts", text.replace("tool", "tool2").as_bytes(), 0o644);
        write("garbage.artifacts", &[0xff; 100], 0o644);
        write("open.artifacts", text.as_bytes(), 0o666);
        write("huge.artifacts", &vec![b'0'; MAX_LIST + 1], 0o644);
        write(".good.artifacts.swp", b"", 0o644);
        write("README", b"", 0o644);
        nix::unistd::mkfifo(&directory.join("pipe.artifacts"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let found = Lists::read(&directory);
        assert_eq!(found.lists.len(), 1);
        assert_eq!(found.of(&key.public()).count(), 1);
        assert_eq!(found.of(&PrivateKey::generate().unwrap().public()).count(), 0);
        let refused: Vec<_> = found.refused.iter().map(|one| one.path.file_stem().unwrap()).collect();
        assert_eq!(refused, ["changed", "garbage", "huge", "open", "pipe"]);
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Lists::read(&directory).lists.is_empty(), "a directory that anybody can write to");
        fs::remove_dir_all(&directory).unwrap();
    }
}
