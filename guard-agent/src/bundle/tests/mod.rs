//! Tests of everything between the bytes of a bundle and its policy.

mod deep;
mod hostile;
mod large;
mod sealed;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::write::zstd;
use super::*;
use crate::policy::Diagnostics;

/// A directory that is removed when it goes out of scope.
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    /// A directory with these files.
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("guard-bundle-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let directory = Self(path);
        for (name, text) in files {
            directory.write(name, text.as_bytes());
        }
        directory
    }

    /// Writes a file, and the directories above it.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A subject with an include that Guard ships.
pub(super) const TOML: &str = "[bundle]\nname = \"web\"\nversion = 3\nprofile = 1\n\
    [subjects.web]\nselector = { user = \"web\" }\ngoverns = [\"*\"]\ninclude = [\"base/devices\"]\n";
/// One permit for it.
pub(super) const CEDAR: &str = "@id(\"site\")\npermit (principal, action in Guard::Action::\"read\", resource in Guard::Dir::\"/srv\");\n";

/// A plain bundle.
pub(super) fn plain() -> Directory {
    Directory::new(&[("guard.toml", TOML), ("web.cedar", CEDAR)])
}

/// The sealed files of [`plain`], signed by these keys.
pub(super) fn sealed(keys: &[&PrivateKey]) -> Files {
    let mut opened = build(&plain().0).unwrap_or_else(|errors| panic!("{errors}"));
    let mut signatures = Signatures::default();
    for key in keys {
        signatures.sign(&opened.files, key).unwrap();
    }
    if !keys.is_empty() {
        opened.files.insert(SIGNATURES, signatures.to_text().into_bytes()).unwrap();
    }
    opened.files
}

/// The archive of some files.
pub(super) fn packed(files: &Files) -> Vec<u8> {
    write::pack(files).unwrap()
}

/// Opens an archive that is called `x.tar.zst`.
pub(super) fn opened(bytes: &[u8]) -> Result<Opened, Diagnostics> {
    open_archive(bytes, Path::new("x.tar.zst"))
}

/// What an archive is refused with.
pub(super) fn refused(bytes: &[u8]) -> String {
    opened(bytes).map(|_| ()).unwrap_err().to_string()
}
