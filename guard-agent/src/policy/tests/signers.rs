//! Who signed what.

use guard_common::tables::SUBJECT_ASKS_SIGNERS;

use super::*;
use crate::artifact::{Artifact, ArtifactList, Lists};
use crate::bundle::PrivateKey;

const DIGEST: [u8; 32] = [7; 32];

/// A bundle whose subject may execute what `release` signed, and read what anybody may.
fn bundle(key: &PrivateKey, cedar: &str, more: &[(&str, &str)]) -> Directory {
    let toml = format!(
        "{TOML}[signers]\nrelease = {{ key = \"{}\"{} }}\n[subjects.web]\nselector = {{ user = \"web\" }}\n\
         governs = [\"*\"]\n[subjects.other]\nselector = {{ user = \"ci\" }}\ngoverns = [\"*\"]\n",
        key.public(),
        if more.is_empty() { "" } else { ", digests = \"release.artifacts\"" },
    );
    let mut files = vec![("guard.toml", toml.as_str()), ("web.cedar", cedar)];
    files.extend(more);
    Directory::new(&files)
}

fn list(key: &PrivateKey) -> String {
    ArtifactList::sign(&[Artifact { digest: DIGEST, name: "tool".into() }], key).unwrap()
}

/// A host on which this list lies.
fn with_list(text: &str) -> Host {
    let lists = vec![("/etc/guard/artifacts.d/x".into(), ArtifactList::parse(text.as_bytes()).unwrap())];
    Host { artifacts: Arc::new(Lists { lists, refused: Vec::new() }), ..host() }
}

fn compiled_on(directory: &Directory, host: &Host) -> Compiled {
    let bundle = load(&directory.0).unwrap_or_else(|errors| panic!("{errors}"));
    compile(&bundle, host, &mut SubjectIds::default()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Whether `web` may do this to a file whose content has this digest.
fn may(compiled: &Compiled, action: &str, digest: [u8; 32]) -> bool {
    let mut found = walk(compiled, "/opt/tool", &file(0, false));
    let signers = compiled.generation.signers.iter().find(|(known, _)| *known == digest);
    found.features |= signers.map_or(0, |(_, features)| *features);
    ask(compiled, "web", action, found).denied == 0
}

const SIGNED: &str = "@id(\"p\") permit (principal == Guard::Subject::\"web\", action == Guard::Action::\"exec\", resource) \
     when { resource.signed_by.contains(\"release\") };";

#[test]
fn who_signed_is_told_of_what_is_executed_only() {
    let key = PrivateKey::generate().unwrap();
    let everything = "@id(\"p\") permit (principal == Guard::Subject::\"web\", action in [Guard::Action::\"exec.*\", \
         Guard::Action::\"read\"], resource) when { resource is Guard::File && resource.signed_by.contains(\"release\") };";
    for cedar in [SIGNED, everything] {
        let compiled = compiled_on(&bundle(&key, cedar, &[]), &with_list(&list(&key)));
        assert!(may(&compiled, "exec", DIGEST) && !may(&compiled, "exec", [8; 32]));
        assert!(!may(&compiled, "file.read", DIGEST) && !may(&compiled, "exec.map", DIGEST));
    }
    let forbid = "@id(\"all\") permit (principal, action, resource); \
         @id(\"f\") forbid (principal, action, resource is Guard::File) when { resource.signed_by.contains(\"release\") };";
    let compiled = compiled_on(&bundle(&key, forbid, &[]), &with_list(&list(&key)));
    assert!(!may(&compiled, "exec", DIGEST) && may(&compiled, "exec", [8; 32]));
    assert!(!may(&compiled, "file.read", DIGEST) && !may(&compiled, "file.read", [8; 32]));
}

#[test]
fn only_who_asks_for_signers_has_digests_taken() {
    let key = PrivateKey::generate().unwrap();
    let compiled = compiled_on(&bundle(&key, SIGNED, &[]), &with_list(&list(&key)));
    let asks = |subject: &str| {
        let row = compiled.generation.subjects[number(&compiled, subject) as usize];
        row.flags & SUBJECT_ASKS_SIGNERS != 0
    };
    assert!(asks("web") && !asks("other"));
    assert_eq!(compiled.generation.header.signers.count_ones(), 1);
    let plain = "@id(\"p\") permit (principal, action == Guard::Action::\"exec\", resource);";
    let compiled = compiled_on(&bundle(&key, plain, &[]), &with_list(&list(&key)));
    assert_eq!((compiled.generation.header.signers, compiled.generation.signers.len()), (0, 0));
}

#[test]
fn a_list_counts_for_the_key_that_signed_it() {
    let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let directory = bundle(&key, SIGNED, &[]);
    assert!(!may(&compiled_on(&directory, &with_list(&list(&other))), "exec", DIGEST));
    assert!(!may(&compiled_on(&directory, &host()), "exec", DIGEST), "no list");
    let loaded = load(&directory.0).unwrap();
    assert_eq!(loaded.signers_of(&with_list(&list(&key)), &DIGEST), ["release".to_owned()].into());
    assert!(loaded.signers_of(&with_list(&list(&other)), &DIGEST).is_empty());
}

#[test]
fn a_list_can_be_part_of_the_bundle_and_must_be_what_it_says() {
    let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let text = list(&key);
    let directory = bundle(&key, SIGNED, &[("release.artifacts", text.as_str())]);
    assert!(may(&compiled_on(&directory, &host()), "exec", DIGEST));
    let digest = load(&directory.0).unwrap().digest;
    let without =
        bundle(&key, SIGNED, &[("release.artifacts", ArtifactList::sign(&[], &key).unwrap().as_str())]);
    assert_ne!(load(&without.0).unwrap().digest, digest, "another list is another bundle");
    let theirs = list(&other);
    for (broken, says) in [
        (theirs.as_str(), "signed by another key"),
        ("guard-artifacts 1\n", "no artifact list"),
        ("\u{0}", "no artifact list"),
    ] {
        let errors = errors(&bundle(&key, SIGNED, &[("release.artifacts", broken)]));
        assert!(errors.contains(says), "{errors}");
    }
}

#[test]
fn whether_anybody_signed_can_be_asked() {
    let key = PrivateKey::generate().unwrap();
    let cedar = "@id(\"p\") permit (principal == Guard::Subject::\"web\", action == Guard::Action::\"exec\", resource) \
         unless { resource.signed_by.isEmpty() };";
    let compiled = compiled_on(&bundle(&key, cedar, &[]), &with_list(&list(&key)));
    assert!(may(&compiled, "exec", DIGEST) && !may(&compiled, "exec", [8; 32]));
}

#[test]
fn a_key_is_one_signers_only_and_must_be_a_key() {
    let key = PrivateKey::generate().unwrap();
    let twice = format!("{TOML}[signers]\na = {{ key = \"{0}\" }}\nb = {{ key = \"{0}\" }}\n", key.public());
    assert!(errors(&Directory::new(&[("guard.toml", &twice)])).contains("the key of a as well"));
    let none = format!("{TOML}[signers]\na = {{ key = \"ed25519:BASE64\" }}\n");
    assert!(errors(&Directory::new(&[("guard.toml", &none)])).contains("not a key"));
}
