//! `[signers]` of `guard.toml`, and what they signed.

use std::collections::{BTreeMap, BTreeSet};

use guard_common::label::DIGEST;
use toml::Spanned;

use super::bundle::Bundle;
use super::diagnostics::{Diagnostic, Source};
use super::features::Features;
use super::manifest::{self, Table};
use crate::artifact::ArtifactList;
use crate::bundle::{Files, PublicKey};
use crate::host::Host;

/// Files that one generation knows by their digests, at most.
const MAX_DIGESTS: usize = 1 << 17;

/// A key that signs artifacts.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    pub(super) key: PublicKey,
    /// What it signed, as far as the bundle itself says so.
    list: Option<ArtifactList>,
}

/// Reads the keys, and the lists that are part of the bundle, whose texts come second.
pub(super) fn read(
    declared: &Table<manifest::Signer>,
    files: &Files,
    toml: &Source,
    found: &mut Vec<Diagnostic>,
) -> (BTreeMap<String, Signer>, Vec<Source>) {
    let (mut signers, mut sources) = (BTreeMap::<String, Signer>::new(), Vec::<Source>::new());
    for (name, signer) in declared {
        let key: PublicKey = match signer.key.get_ref().parse() {
            Ok(key) => key,
            Err(why) => {
                let error = toml.error("signer", signer.key.span(), why);
                found.push(error.help("write what `guardctl keys generate` has put into NAME.pub"));
                continue;
            }
        };
        if let Some((other, _)) = signers.iter().find(|(_, known)| known.key == key) {
            let message = format!("this is the key of {other} as well");
            found
                .push(toml.error("signer", signer.key.span(), message).help("give every signer its own key"));
            continue;
        }
        let list =
            signer.digests.as_ref().and_then(|file| list(file, &key, files, toml, &mut sources, found));
        signers.insert(name.get_ref().clone(), Signer { key, list });
    }
    (signers, sources)
}

/// A list of the bundle. One that is not what it should be is an error: the bundle would not mean what it says.
fn list(
    file: &Spanned<String>,
    key: &PublicKey,
    files: &Files,
    toml: &Source,
    sources: &mut Vec<Source>,
    found: &mut Vec<Diagnostic>,
) -> Option<ArtifactList> {
    let name = file.get_ref();
    let error = |message: String| toml.error("signer", file.span(), message);
    if name.contains('/') || name.starts_with('.') {
        found.push(
            error(format!("{name} is not a file of the bundle")).help("name a file in the same directory"),
        );
        return None;
    }
    let source = match files.source(name) {
        Ok(source) => source,
        Err(why) => {
            found.push(error(why.message));
            return None;
        }
    };
    let list = match ArtifactList::parse(source.text.as_bytes()) {
        Ok(list) if list.key == *key => list,
        Ok(list) => {
            let message = format!("{name} is signed by another key, {}", list.key.fingerprint());
            found.push(error(message).help("sign it with the key of this signer"));
            return None;
        }
        Err(why) => {
            let help = "make it with `guardctl artifact sign`";
            found.push(error(format!("{name} is no artifact list: {why}")).help(help));
            return None;
        }
    };
    sources.push(source);
    Some(list)
}

impl Bundle {
    /// Names of the keys that signed a file with this content, by the lists of the bundle and of `host`.
    pub fn signers_of(&self, host: &Host, digest: &[u8; DIGEST]) -> BTreeSet<String> {
        let signed = |signer: &Signer| lists(signer, host).any(|list| list.name_of(digest).is_some());
        self.signers.iter().filter(|(_, signer)| signed(signer)).map(|(name, _)| name.clone()).collect()
    }
}

/// What a key signed.
fn lists<'a>(signer: &'a Signer, host: &'a Host) -> impl Iterator<Item = &'a ArtifactList> {
    signer.list.iter().chain(host.artifacts.of(&signer.key))
}

/// The features that hold for each file that somebody signed.
pub(super) fn table(
    bundle: &Bundle,
    shadow: Option<&Bundle>,
    host: &Host,
    features: &Features,
    found: &mut Vec<Diagnostic>,
) -> Vec<([u8; DIGEST], u64)> {
    let mut table: BTreeMap<[u8; DIGEST], u64> = BTreeMap::new();
    if features.signers.is_empty() {
        return Vec::new();
    }
    for one in &host.artifacts.refused {
        let message = format!("{} does not count: {}", one.path.display(), one.why);
        found.push(Diagnostic::warning("artifacts", message));
    }
    let any = features
        .signers
        .iter()
        .filter(|(name, _)| name.is_none())
        .fold(0u64, |bits, (_, bit)| bits | 1u64 << bit);
    for (name, signer) in &bundle.signers {
        // Another key of the same name in a shadow would need a table of its own.
        if shadow.and_then(|shadow| shadow.signers.get(name)).is_some_and(|other| other.key != signer.key) {
            let message = format!("the shadow gives the signer {name} another key");
            found.push(Diagnostic::error("signer", message).help("apply the bundle; it cannot be compared"));
        }
        let asked = features.signers.iter().filter(|(asked, _)| asked.as_deref() == Some(name.as_str()));
        let bits = asked.fold(any, |bits, (_, bit)| bits | 1u64 << bit);
        if bits == 0 {
            continue;
        }
        for list in lists(signer, host) {
            for digest in list.digests() {
                *table.entry(*digest).or_default() |= bits;
            }
        }
    }
    for name in features.signers.iter().filter_map(|(name, _)| name.as_ref()) {
        if !bundle.signers.contains_key(name) {
            let message = format!("guard.toml declares no signer \"{name}\", so nothing is signed by it");
            found.push(Diagnostic::warning("unknown-signer", message).help("add its key to [signers]"));
        }
    }
    if table.len() > MAX_DIGESTS {
        let message = format!("the artifact lists name {} files, more than {MAX_DIGESTS}", table.len());
        found.push(Diagnostic::error("too-large", message).help("remove lists of what no longer runs"));
        return Vec::new();
    }
    table.into_iter().collect()
}
