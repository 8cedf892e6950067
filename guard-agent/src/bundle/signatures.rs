//! The signatures of a sealed bundle: `bundle.sig`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use toml::Spanned;

use super::files::Files;
use super::keys::{PrivateKey, PublicKey};
use super::manifest::MANIFEST;
use crate::policy::{Diagnostic, Diagnostics};

/// Name of the file of signatures.
pub const SIGNATURES: &str = "bundle.sig";
/// Signatures of one bundle, at most.
const MAX_SIGNATURES: usize = 64;
/// The one format of signature files.
const FORMAT: u32 = 1;
/// What is signed begins with this, so that a signature is good for nothing else.
const CONTEXT: &[u8] = b"guard bundle manifest 1\n";

/// Signatures over a manifest, each checked against the key it names. Whether that key is trusted is
/// another question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signatures(Vec<(PublicKey, [u8; 64])>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: Spanned<u32>,
    #[serde(default)]
    signature: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: Spanned<String>,
    value: Spanned<String>,
}

impl Signatures {
    /// Reads the signatures of `files`; none if there is no such file.
    ///
    /// # Errors
    /// If the file is malformed, a key is there twice, or a signature is not over this manifest.
    pub(super) fn read(files: &Files) -> Result<Self, Diagnostics> {
        if files.get(SIGNATURES).is_none() {
            return Ok(Self::default());
        }
        let source = files.source(SIGNATURES)?;
        let text: Text = crate::policy::toml(&source, "signature")?;
        let error = |span, message: String| source.error("signature", span, message);
        if *text.format.get_ref() != FORMAT {
            let message = format!("this agent reads format {FORMAT}, not {}", text.format.get_ref());
            return Err(error(text.format.span(), message).help("update Guard").into());
        }
        if text.signature.len() > MAX_SIGNATURES {
            let at = text.signature[MAX_SIGNATURES].key.span();
            return Err(error(at, format!("more than {MAX_SIGNATURES} signatures")).into());
        }
        let message = message(files);
        let mut signatures = Self::default();
        for entry in &text.signature {
            let key: PublicKey =
                entry.key.get_ref().parse().map_err(|why: &str| error(entry.key.span(), why.to_owned()))?;
            let value = STANDARD.decode(entry.value.get_ref()).ok().and_then(|bytes| bytes.try_into().ok());
            let value: [u8; 64] =
                value.ok_or_else(|| error(entry.value.span(), "a signature is 64 bytes in base64".into()))?;
            if signatures.0.iter().any(|(known, _)| *known == key) {
                return Err(error(entry.key.span(), "this key has signed twice".into()).into());
            }
            if !key.verifies(&message, &value) {
                let why = format!("this is no signature of the key {} over {MANIFEST}", key.fingerprint());
                let help = "get the bundle again, or sign it again";
                return Err(error(entry.value.span(), why).help(help).into());
            }
            signatures.0.push((key, value));
        }
        Ok(signatures)
    }

    /// Adds the signature of `key` over the manifest of `files`, in the place of an earlier one.
    ///
    /// # Errors
    /// If there are too many.
    pub fn sign(&mut self, files: &Files, key: &PrivateKey) -> Result<(), Diagnostic> {
        let public = key.public();
        self.0.retain(|(known, _)| *known != public);
        if self.0.len() == MAX_SIGNATURES {
            return Err(files.error("signature", format!("it has {MAX_SIGNATURES} signatures already")));
        }
        self.0.push((public, key.sign(&message(files))));
        Ok(())
    }

    /// The keys that signed.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let entries = self.0.iter().map(|(key, value)| {
            format!("\n[[signature]]\nkey = \"{key}\"\nvalue = \"{}\"\n", STANDARD.encode(value))
        });
        std::iter::once(format!("format = {FORMAT}\n")).chain(entries).collect()
    }
}

/// What is signed.
fn message(files: &Files) -> Vec<u8> {
    [CONTEXT, files.get(MANIFEST).unwrap_or_default()].concat()
}
