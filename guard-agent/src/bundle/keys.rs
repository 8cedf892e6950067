//! Keys that sign bundles: Ed25519, one line of text each.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::directory::read_file;
use super::files::sha256;

const PUBLIC: &str = "ed25519:";
const PRIVATE: &str = "ed25519-private:";
/// Longest key file.
const MAX_KEY_FILE: usize = 4096;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text is no key.
    #[error("{what}: {why}")]
    Malformed {
        /// The file, or the text itself.
        what: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The system has no random numbers.
    #[error("cannot make a key: {0}")]
    Random(String),
}

/// A key that signatures are checked with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Whether it made this signature over `message`. Strict: there is one encoding of a signature.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }

    /// Sixteen hexadecimal digits that tell keys apart for people.
    pub fn fingerprint(&self) -> String {
        sha256(self.0.as_bytes()).chars().take(16).collect()
    }

    /// Reads `FILE.pub`.
    ///
    /// # Errors
    /// If it cannot be read or holds no key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        read_line(path)?.parse().map_err(|why| KeyError::Malformed { what: path.display().to_string(), why })
    }
}

impl FromStr for PublicKey {
    type Err = &'static str;

    /// `ed25519:` and the key in base64; a comment may follow after a space.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(encoded) = text.strip_prefix(PUBLIC) else {
            return Err(if text.starts_with(PRIVATE) {
                "this is a private key: it stays with who signs; here belongs the .pub file"
            } else {
                "not a public key: it begins with ed25519:"
            });
        };
        let key = VerifyingKey::from_bytes(&decode(encoded)?).map_err(|_| "not a point of the curve")?;
        if key.is_weak() {
            return Err("a weak key: anybody can sign with it");
        }
        Ok(Self(key))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", STANDARD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key that makes signatures. Its memory is wiped when it is dropped.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// A new key.
    ///
    /// # Errors
    /// If the kernel gives no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| KeyError::Random(error.to_string()))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// The key that checks its signatures.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// The line that its file holds. Whoever has it can sign.
    pub fn to_line(&self) -> String {
        format!("{PRIVATE}{}", STANDARD.encode(self.0.as_bytes()))
    }

    /// Reads `FILE.key`.
    ///
    /// # Errors
    /// If it cannot be read, holds no private key, or others may read it.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        use std::os::unix::fs::PermissionsExt;
        let malformed = |why| KeyError::Malformed { what: path.display().to_string(), why };
        let metadata = std::fs::metadata(path);
        if metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0) {
            return Err(malformed("others may read this private key: chmod 600, and ask who did"));
        }
        let line = read_line(path)?;
        let encoded = line.strip_prefix(PRIVATE);
        let encoded =
            encoded.ok_or_else(|| malformed("not a private key: it begins with ed25519-private:"))?;
        Ok(Self(SigningKey::from_bytes(&decode(encoded).map_err(malformed)?)))
    }
}

/// The first line of a small file.
fn read_line(path: &Path) -> Result<String, KeyError> {
    let bytes =
        read_file(path, MAX_KEY_FILE).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
    let text = String::from_utf8(bytes).map_err(|_| KeyError::Malformed {
        what: path.display().to_string(),
        why: "not a key: it is not text",
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Base64 of exactly 32 bytes, up to a space.
fn decode(encoded: &str) -> Result<[u8; 32], &'static str> {
    let encoded = encoded.split_whitespace().next().unwrap_or_default();
    let bytes = STANDARD.decode(encoded).map_err(|_| "not a key: it is not base64")?;
    bytes.try_into().map_err(|_| "not a key: it is not 32 bytes long")
}
