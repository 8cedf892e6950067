//! Who is trusted to sign on this host.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::keys::{KeyError, PublicKey};
use super::open::Opened;

/// `[trust]` of the daemon's configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TrustConfig {
    /// Directory of the trusted keys, `*.pub`.
    #[serde(default = "default_dir")]
    pub dir: PathBuf,
    /// How many of them must have signed. Without it: 1 if there is a key.
    pub threshold: Option<usize>,
    /// Whether unsigned bundles are accepted all the same.
    #[serde(default)]
    pub allow_local: bool,
}

fn default_dir() -> PathBuf {
    PathBuf::from("/etc/guard/trust.d")
}

impl Default for TrustConfig {
    fn default() -> Self {
        Self { dir: default_dir(), threshold: None, allow_local: false }
    }
}

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The directory or a file in it cannot be read.
    #[error("cannot read the trusted keys in {path}: {source}")]
    Read {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no key.
    #[error("{0}; until that is mended no bundle is accepted")]
    Key(#[from] KeyError),
    /// Somebody else could put a key there.
    #[error(
        "{0} may be changed by others than root, who could add a key of their own: chown root and chmod go-w"
    )]
    Open(PathBuf),
    /// More signatures are wanted than there are keys.
    #[error("trust.threshold is {threshold}, and {path} holds {keys} different keys (*.pub)")]
    Threshold {
        /// Signatures wanted.
        threshold: usize,
        /// Keys there are.
        keys: usize,
        /// The directory.
        path: PathBuf,
    },
}

/// Why a bundle that is whole is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It carries no signature.
    #[error("the bundle is not signed, and this host wants {threshold} signatures of the keys in {path}")]
    Unsigned {
        /// Signatures wanted.
        threshold: usize,
        /// Where the keys are.
        path: PathBuf,
    },
    /// It carries too few that count.
    #[error(
        "the bundle has {trusted} of {threshold} signatures of keys in {path}; signed by {by}, unknown here: {unknown}"
    )]
    TooFew {
        /// Signatures of trusted keys.
        trusted: usize,
        /// Signatures wanted.
        threshold: usize,
        /// Where the keys are.
        path: PathBuf,
        /// Names of the trusted keys that signed, or `nobody`.
        by: String,
        /// Fingerprints of the others that signed, or `none`.
        unknown: String,
    },
}

/// How a bundle came to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Enough trusted keys signed it; their names.
    Signed(Vec<String>),
    /// Nobody vouches for it but root, who applied it.
    Local,
}

impl Standing {
    /// Names of the trusted keys that signed it; none if it is local.
    pub fn signers(&self) -> &[String] {
        match self {
            Self::Signed(by) => by,
            Self::Local => &[],
        }
    }
}

/// The keys of this host.
#[derive(Debug)]
pub struct Trust {
    path: PathBuf,
    keys: Vec<(String, PublicKey)>,
    threshold: usize,
    allow_local: bool,
}

impl Trust {
    /// Reads the keys. A directory that does not exist holds none.
    ///
    /// # Errors
    /// If a key cannot be read or others than root could add one. With `owned` unset the latter is not
    /// looked at: that is for who only wants to know what a set of keys would say.
    pub fn read(config: &TrustConfig, owned: bool) -> Result<Self, TrustError> {
        let read = |path: &Path, source| TrustError::Read { path: path.to_owned(), source };
        let mut paths = Vec::new();
        match std::fs::read_dir(&config.dir) {
            Ok(entries) => {
                for entry in entries {
                    paths.push(entry.map_err(|source| read(&config.dir, source))?.path());
                }
                if owned {
                    closed(&config.dir)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(read(&config.dir, source)),
        }
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "pub"));
        paths.sort();
        let mut keys: Vec<(String, PublicKey)> = Vec::new();
        for path in paths {
            if owned {
                closed(&path)?;
            }
            let key = PublicKey::read(&path)?;
            // The same key under two names is one signer.
            if keys.iter().all(|(_, known)| *known != key) {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                keys.push((name, key));
            }
        }
        let threshold = config.threshold.unwrap_or(1);
        // A threshold that was asked for must not vanish with the keys.
        if config.threshold.is_some_and(|threshold| threshold == 0 || threshold > keys.len()) {
            return Err(TrustError::Threshold { threshold, keys: keys.len(), path: config.dir.clone() });
        }
        Ok(Self { path: config.dir.clone(), keys, threshold, allow_local: config.allow_local })
    }

    /// Whether unsigned bundles are accepted.
    pub fn accepts_local(&self) -> bool {
        self.allow_local || self.keys.is_empty()
    }

    /// How many keys there are, and how many must have signed.
    pub fn numbers(&self) -> (usize, usize) {
        (self.keys.len(), self.threshold)
    }

    /// Judges a bundle that is whole.
    ///
    /// # Errors
    /// If too few trusted keys signed it, and it may not be local.
    pub fn judge(&self, bundle: &Opened) -> Result<Standing, Refusal> {
        let signers: Vec<&PublicKey> = bundle.seal.iter().flat_map(|seal| seal.signatures.keys()).collect();
        let name =
            |key: &PublicKey| self.keys.iter().find(|(_, known)| known == key).map(|(name, _)| name.clone());
        let trusted: Vec<String> = signers.iter().filter_map(|key| name(key)).collect();
        if !self.keys.is_empty() && trusted.len() >= self.threshold {
            return Ok(Standing::Signed(trusted));
        }
        if self.accepts_local() {
            return Ok(Standing::Local);
        }
        let (threshold, path) = (self.threshold, self.path.clone());
        if signers.is_empty() {
            return Err(Refusal::Unsigned { threshold, path });
        }
        let unknown: Vec<String> =
            signers.iter().filter(|key| name(key).is_none()).map(|key| key.fingerprint()).collect();
        let or = |list: &[String], nothing: &str| {
            if list.is_empty() { nothing.to_owned() } else { list.join(", ") }
        };
        let (by, unknown) = (or(&trusted, "nobody"), or(&unknown, "none"));
        Err(Refusal::TooFew { trusted: trusted.len(), threshold, path, by, unknown })
    }
}

/// Only root, or the user that this runs as, may change it.
fn closed(path: &Path) -> Result<(), TrustError> {
    let metadata =
        std::fs::metadata(path).map_err(|source| TrustError::Read { path: path.to_owned(), source })?;
    let owner = metadata.uid() == 0 || metadata.uid() == nix::unistd::geteuid().as_raw();
    if owner && metadata.mode() & 0o022 == 0 { Ok(()) } else { Err(TrustError::Open(path.to_owned())) }
}
