//! One artifact list: a text that people can read, and its signature.
//!
//! ```text
//! guard-artifacts 1
//! key ed25519:BASE64
//! 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae  deployctl
//! signature BASE64
//! ```
//!
//! The lines of digests are those of sha256sum(1). What is signed is everything before the line `signature`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::bundle::{PrivateKey, PublicKey, hexadecimal};
use guard_common::label::DIGEST;

/// The first line: the one format.
const FORMAT: &str = "guard-artifacts 1";
const KEY: &str = "key ";
const SIGNATURE: &str = "signature ";
/// What is signed begins with this, so that a signature is good for nothing else.
const CONTEXT: &[u8] = b"guard artifact list 1\n";
/// Longest list, in bytes.
pub const MAX_LIST: usize = 4 << 20;
/// Artifacts in one list, at most.
const MAX_ARTIFACTS: usize = 1 << 15;
/// Longest name of an artifact, in bytes.
const MAX_NAME: usize = 512;

/// A file by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// SHA-256 of the content.
    pub digest: [u8; DIGEST],
    /// What it is called, for people.
    pub name: String,
}

/// Artifacts that one key signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactList {
    /// The key whose signature was checked.
    pub key: PublicKey,
    names: BTreeMap<[u8; DIGEST], String>,
}

/// Why a text is no artifact list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ListError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

fn wrong<T>(line: usize, why: impl Into<String>) -> Result<T, ListError> {
    Err(ListError { line, why: why.into() })
}

impl ArtifactList {
    /// Reads a list and checks its signature against the key that it names. Whether that key is trusted is another
    /// question.
    ///
    /// # Errors
    /// If the text is no list, or its signature is not that of its key.
    pub fn parse(bytes: &[u8]) -> Result<Self, ListError> {
        if bytes.len() > MAX_LIST {
            return wrong(1, format!("longer than {} MiB", MAX_LIST >> 20));
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return wrong(1, "not UTF-8 text") };
        let mut lines = text.split_inclusive('\n');
        let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        match first.strip_suffix('\n') {
            Some(FORMAT) => {}
            Some(other) if other.starts_with("guard-artifacts ") => {
                return wrong(1, format!("this version reads \"{FORMAT}\"; update Guard"));
            }
            _ => return wrong(1, format!("a list begins with \"{FORMAT}\"")),
        }
        let key = second.strip_prefix(KEY).and_then(|key| key.strip_suffix('\n'));
        let Some(key) = key else { return wrong(2, "here belongs \"key ed25519:BASE64\"") };
        let key: PublicKey = key.parse().or_else(|why: &str| wrong(2, why))?;
        let mut names = BTreeMap::new();
        let mut signed = first.len() + second.len();
        for (at, line) in lines.enumerate().map(|(at, line)| (at + 3, line)) {
            if let Some(encoded) = line.strip_prefix(SIGNATURE) {
                let rest = text.len() - signed - line.len();
                if rest != 0 {
                    return wrong(at + 1, "nothing may follow the signature");
                }
                let value: Option<[u8; 64]> =
                    STANDARD.decode(encoded.trim_end()).ok().and_then(|bytes| bytes.try_into().ok());
                let Some(value) = value else { return wrong(at, "a signature is 64 bytes in base64") };
                if !key.verifies(&message(&text[..signed]), &value) {
                    let key = key.fingerprint();
                    return wrong(at, format!("this is no signature of the key {key} over the lines above"));
                }
                return Ok(Self { key, names });
            }
            let Artifact { digest, name } = artifact(line.trim_end()).or_else(|why| wrong(at, why))?;
            if names.len() == MAX_ARTIFACTS {
                return wrong(at, format!("more than {MAX_ARTIFACTS} artifacts; write several lists"));
            }
            if names.insert(digest, name).is_some() {
                return wrong(at, "this digest is there twice");
            }
            signed += line.len();
        }
        wrong(text.lines().count() + 1, "here belongs \"signature BASE64\"")
    }

    /// The text of a list of these artifacts, signed by `key`. A digest that is there twice is listed once.
    ///
    /// # Errors
    /// If a name cannot be written, or there are too many.
    pub fn sign(artifacts: &[Artifact], key: &PrivateKey) -> Result<String, ListError> {
        let mut text = format!("{FORMAT}\n{KEY}{}\n", key.public());
        let mut names: BTreeMap<[u8; DIGEST], &str> = BTreeMap::new();
        for (at, one) in artifacts.iter().enumerate() {
            check_name(&one.name).or_else(|why| wrong(at + 3, why))?;
            names.entry(one.digest).or_insert(&one.name);
        }
        if names.len() > MAX_ARTIFACTS {
            return wrong(
                MAX_ARTIFACTS + 3,
                format!("more than {MAX_ARTIFACTS} artifacts; write several lists"),
            );
        }
        for (digest, name) in names {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}  {name}", hexadecimal(&digest));
        }
        let signature = STANDARD.encode(key.sign(&message(&text)));
        Ok(text + SIGNATURE + &signature + "\n")
    }

    /// The digests.
    pub fn digests(&self) -> impl Iterator<Item = &[u8; DIGEST]> {
        self.names.keys()
    }

    /// The artifacts, by digest.
    pub fn artifacts(&self) -> impl Iterator<Item = Artifact> {
        self.names.iter().map(|(digest, name)| Artifact { digest: *digest, name: name.clone() })
    }

    /// What the list calls a file with this digest; nothing if it does not have it.
    pub fn name_of(&self, digest: &[u8; DIGEST]) -> Option<&str> {
        self.names.get(digest).map(String::as_str)
    }
}

/// What is signed.
fn message(text: &str) -> Vec<u8> {
    [CONTEXT, text.as_bytes()].concat()
}

/// One line of sha256sum(1): digest, two characters, name.
fn artifact(line: &str) -> Result<Artifact, &'static str> {
    let Some((encoded, name)) = line.split_at_checked(2 * DIGEST) else {
        return Err("here belongs a digest of 64 hexadecimal digits and a name");
    };
    let mut digest = [0; DIGEST];
    for (byte, pair) in digest.iter_mut().zip(encoded.as_bytes().chunks(2)) {
        let number =
            std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|c| c.is_ascii_hexdigit()));
        *byte = number
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .ok_or("here belongs a digest of 64 hexadecimal digits")?;
    }
    let name = name.strip_prefix("  ").or_else(|| name.strip_prefix(" *")).unwrap_or(name);
    check_name(name)?;
    Ok(Artifact { digest, name: name.to_owned() })
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.len() > MAX_NAME {
        return Err("a name has at most 512 bytes");
    }
    if name.contains(char::is_control) { Err("a name has no control characters") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifacts() -> Vec<Artifact> {
        vec![
            Artifact { digest: [7; DIGEST], name: "deployctl".into() },
            Artifact { digest: [9; DIGEST], name: "/opt/a tool".into() },
        ]
    }

    #[test]
    fn what_was_signed_is_read_back() {
        let key = PrivateKey::generate().unwrap();
        let text = ArtifactList::sign(&artifacts(), &key).unwrap();
        let list = ArtifactList::parse(text.as_bytes()).unwrap();
        assert_eq!((list.key.clone(), list.artifacts().collect::<Vec<_>>()), (key.public(), artifacts()));
        assert_eq!(list.name_of(&[9; DIGEST]), Some("/opt/a tool"));
        assert_eq!(list.name_of(&[8; DIGEST]), None);
        let empty = ArtifactList::sign(&[], &key).unwrap();
        assert_eq!(ArtifactList::parse(empty.as_bytes()).unwrap().digests().count(), 0);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let key = PrivateKey::generate().unwrap();
        let text = ArtifactList::sign(&artifacts(), &key).unwrap().into_bytes();
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            // A final line end is no part of what the text says.
            let harmless = at == text.len() - 1;
            assert_eq!(ArtifactList::parse(&changed).is_ok(), harmless, "byte {at}");
        }
    }

    #[test]
    fn the_signature_of_another_key_or_over_something_else_does_not_count() {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let text = ArtifactList::sign(&artifacts(), &key).unwrap();
        let named = text.replace(&key.public().to_string(), &other.public().to_string());
        assert!(ArtifactList::parse(named.as_bytes()).unwrap_err().why.contains("no signature"));
        let body = text.split("signature ").next().unwrap();
        let bare = STANDARD.encode(key.sign(body.as_bytes()));
        let error = ArtifactList::parse(format!("{body}signature {bare}\n").as_bytes()).unwrap_err();
        assert!(error.why.contains("no signature"), "a signature over the text alone: {error}");
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_line() {
        let key = PrivateKey::generate().unwrap();
        let text = ArtifactList::sign(&artifacts(), &key).unwrap();
        let digest = "07".repeat(DIGEST);
        for (broken, line) in [
            (String::new(), 1),
            ("\u{0}".to_owned(), 1),
            (text.replace("artifacts 1", "artifacts 2"), 1),
            (text.replace("key ed25519:", "key rsa:"), 2),
            (text.replace(&digest, "07"), 3),
            (text.replace(&digest, &"0x".repeat(DIGEST)), 3),
            (text.replace(&digest, &"09".repeat(DIGEST)), 4),
            (text.split("signature ").next().unwrap().to_owned(), 5),
            (text.clone() + "more\n", 6),
            (text.replace("signature ", "signature x"), 5),
        ] {
            assert_eq!(ArtifactList::parse(broken.as_bytes()).unwrap_err().line, line, "{broken}");
        }
        assert!(ArtifactList::parse(&vec![b'0'; MAX_LIST + 1]).unwrap_err().why.contains("longer"));
        assert!(ArtifactList::parse(b"guard-artifacts 1\n\xff\n").is_err());
    }
}
