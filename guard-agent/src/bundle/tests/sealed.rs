//! What sealing, signing and trust promise.

use super::*;
use crate::policy;

/// What is wrong, how it comes to be, and what is said about it.
type Case = (&'static str, fn(&str) -> String, &'static str);

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

/// The first line of what the files are refused with.
fn broken(files: &Files) -> String {
    refused(&packed(files)).lines().next().unwrap_or_default().to_owned()
}

/// The files with one of them changed.
fn with(name: &str, change: impl FnOnce(&str) -> String) -> Files {
    let mut files = sealed(&[&key()]);
    let text = String::from_utf8(files.get(name).unwrap_or_default().to_vec()).unwrap();
    files.replace(name, change(&text).into_bytes()).unwrap();
    files
}

#[test]
fn a_sealed_bundle_holds_what_the_directory_holds_and_the_includes_it_uses() {
    let directory = plain();
    let before = policy::load(&directory.0).unwrap();
    let sealed = build(&directory.0).unwrap();
    let after = policy::parse(&sealed).unwrap();
    assert!(before.policy_ids().eq(after.policy_ids()));
    let copy = sealed.files.source("includes/guard/base.cedar").unwrap();
    assert!(copy.text.contains("base/devices") && !copy.text.contains("base/terminal"), "{}", copy.text);
    // Nothing that the agent ships is used: without the copy the include is not there.
    let mut files = sealed.files.clone();
    files.replace("includes/guard/base.cedar", b"// nothing\n".to_vec()).unwrap();
    let opened = Opened { files, seal: sealed.seal };
    assert!(policy::parse(&opened).unwrap_err().to_string().contains("there is no include \"base/devices\""));
}

#[test]
fn the_same_directory_makes_the_same_archive_in_memory_and_on_disk() {
    let (a, b) = (packed(&sealed(&[])), packed(&sealed(&[])));
    assert_eq!(a, b);
    let out = Directory::new(&[]);
    let path = out.0.join("x.tar.zst");
    write_archive(&sealed(&[]), &path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), a);
    assert_eq!(std::fs::read_dir(&out.0).unwrap().count(), 1, "nothing temporary is left");
    assert_eq!(open(&path).unwrap().files.get("web.cedar"), Some(CEDAR.as_bytes()));
}

#[test]
fn a_sealed_directory_is_as_good_as_its_archive() {
    let directory = Directory::new(&[]);
    let files = sealed(&[&key()]);
    for (name, bytes) in files.iter() {
        directory.write(name, bytes);
    }
    let (from_directory, from_archive) = (open(&directory.0).unwrap(), opened(&packed(&files)).unwrap());
    let digest = |opened: &Opened| policy::parse(opened).unwrap().digest;
    assert_eq!(digest(&from_directory), digest(&from_archive));
    directory.write("stray.cedar", b"");
    let error = open(&directory.0).unwrap_err().to_string();
    assert!(error.contains("stray.cedar is not listed in bundle.toml"), "{error}");
}

#[test]
fn every_change_after_sealing_is_found_and_named() {
    let changed = with("web.cedar", |text| text.replace("/srv", "/"));
    assert_eq!(broken(&changed), "error[digest]: web.cedar was changed after it was sealed");
    let added = with("more.cedar", |_| CEDAR.to_owned());
    assert_eq!(broken(&added), "error[digest]: x.tar.zst: more.cedar is not listed in bundle.toml");
    let renamed = with("bundle.toml", |text| text.replace("\"web.cedar\"", "\"other.cedar\""));
    assert_eq!(broken(&renamed), "error[digest]: other.cedar is missing");
    let manifest = with("bundle.toml", |text| format!("{text}\n"));
    assert!(
        broken(&manifest).starts_with("error[signature]: this is no signature of the key"),
        "{}",
        broken(&manifest)
    );
    // A manifest that says something else than guard.toml is refused even if it is signed.
    let mut files = with("bundle.toml", |text| text.replace("version = 3", "version = 4"));
    let mut signatures = Signatures::default();
    signatures.sign(&files, &key()).unwrap();
    files.replace(SIGNATURES, signatures.to_text().into_bytes()).unwrap();
    let error = policy::parse(&opened(&packed(&files)).unwrap()).unwrap_err().to_string();
    assert!(error.contains("bundle.toml and guard.toml differ"), "{error}");
}

#[test]
fn a_malformed_manifest_is_refused_with_its_place() {
    let cases: [Case; 9] = [
        ("no TOML", |_| "format = ".into(), "error[manifest]"),
        ("empty", |_| String::new(), "error[manifest]: missing key `format`"),
        (
            "another format",
            |text| text.replace("format = 1", "format = 2"),
            "this agent reads format 1, not 2",
        ),
        ("an unknown key", |text| format!("extra = 1\n{text}"), "error[unknown-key]: unknown key `extra`"),
        ("a negative version", |text| text.replace("version = 3", "version = -3"), "error[manifest]"),
        (
            "a key twice",
            |text| text.replace("version = 3", "version = 3\nversion = 4"),
            "error[manifest]: duplicate key",
        ),
        ("no digest", |text| text.replace("sha256:", "md5:"), "this is not a digest"),
        ("short digest", |text| text.replace("sha256:", "sha256:0"), "was changed after it was sealed"),
        (
            "a release that cannot be",
            |text| text.replace("[files]", "[release]\nrequires = \"99.0.0\"\n[files]"),
            "this bundle needs agent 99.0.0 or later",
        ),
    ];
    for (what, change, wanted) in cases {
        let error = refused(&packed(&with("bundle.toml", change)));
        assert!(error.contains(wanted), "{what}: {error}");
        assert!(error.contains("x.tar.zst/bundle.toml"), "{what} has no place: {error}");
    }
    let mut files = Files::new(Path::new("x"));
    files.insert("guard.toml", TOML.into()).unwrap();
    assert!(refused(&packed(&files)).contains("there is no bundle.toml in this archive"));
}

#[test]
fn a_malformed_signature_is_refused_with_its_place() {
    let cases: [Case; 7] = [
        ("no TOML", |_| "]".into(), "error[signature]"),
        (
            "another format",
            |text| text.replace("format = 1", "format = 7"),
            "this agent reads format 1, not 7",
        ),
        ("no key", |text| text.replace("ed25519:", "rsa:"), "not a public key: it begins with ed25519:"),
        ("no base64", |text| text.replace("ed25519:", "ed25519:!"), "not a key: it is not base64"),
        (
            "no signature",
            |text| text.replace("value = \"", "value = \"AAAA"),
            "a signature is 64 bytes in base64",
        ),
        (
            "a key twice",
            |text| format!("{text}{}", &text[text.find("[[").unwrap()..]),
            "this key has signed twice",
        ),
        (
            "too many",
            |text| format!("format = 1\n{}", text[text.find("[[").unwrap()..].repeat(65)),
            "more than 64 signatures",
        ),
    ];
    for (what, change, wanted) in cases {
        let error = refused(&packed(&with("bundle.sig", change)));
        assert!(error.contains(wanted), "{what}: {error}");
        assert!(error.contains("x.tar.zst/bundle.sig"), "{what} has no place: {error}");
    }
}

#[test]
fn a_weak_key_that_everything_verifies_under_is_no_key() {
    // The neutral element of the curve.
    let error = "ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse::<PublicKey>().unwrap_err();
    assert!(error.contains("weak"), "{error}");
    let private = key();
    assert!(private.to_line().parse::<PublicKey>().unwrap_err().contains("private key"));
}

/// A directory of trusted keys.
fn trust(
    keys: &[(&str, &PrivateKey)],
    threshold: Option<usize>,
    allow_local: bool,
) -> (Directory, TrustConfig) {
    let directory = Directory::new(&[]);
    for (name, key) in keys {
        directory.write(&format!("{name}.pub"), format!("{} {name}\n", key.public()).as_bytes());
    }
    let dir = directory.0.clone();
    (directory, TrustConfig { dir, threshold, allow_local })
}

#[test]
fn k_of_n_different_trusted_keys_must_have_signed() {
    let (a, b, c, stranger) = (key(), key(), key(), key());
    let keys = [("a", &a), ("b", &b), ("c", &c), ("also-a", &a)];
    let (_directory, config) = trust(&keys, Some(2), false);
    let trust = Trust::read(&config, true).unwrap();
    assert_eq!(trust.numbers(), (3, 2), "a key under two names is one key");
    let judge = |keys: &[&PrivateKey]| trust.judge(&opened(&packed(&sealed(keys))).unwrap());
    assert_eq!(judge(&[&a, &c]), Ok(Standing::Signed(vec!["a".into(), "c".into()])));
    assert!(matches!(judge(&[&stranger, &b, &a]), Ok(Standing::Signed(by)) if by.len() == 2));
    assert!(matches!(judge(&[]), Err(Refusal::Unsigned { threshold: 2, .. })));
    let error = judge(&[&a, &stranger]).unwrap_err().to_string();
    assert!(error.contains("1 of 2 signatures"), "{error}");
    assert!(error.contains(&stranger.public().fingerprint()), "{error}");
    assert!(trust.judge(&open(&plain().0).unwrap()).is_err(), "a plain directory is not signed");
}

#[test]
fn unsigned_bundles_are_local_where_nobody_is_trusted_or_local_is_allowed() {
    let a = key();
    let plain = plain();
    let plain = open(&plain.0).unwrap();
    for (keys, allow_local) in [(&[][..], false), (&[("a", &a)][..], true)] {
        let (_directory, config) = trust(keys, None, allow_local);
        assert_eq!(Trust::read(&config, true).unwrap().judge(&plain), Ok(Standing::Local));
    }
    let nowhere = TrustConfig { dir: "/nowhere/at/all".into(), ..TrustConfig::default() };
    assert!(Trust::read(&nowhere, true).unwrap().accepts_local());
}

#[test]
fn trust_that_cannot_be_relied_on_is_an_error_and_never_less_trust() {
    use std::os::unix::fs::PermissionsExt;
    let a = key();
    let (_directory, mut config) = trust(&[("a", &a)], Some(2), false);
    assert!(matches!(Trust::read(&config, true), Err(TrustError::Threshold { threshold: 2, keys: 1, .. })));
    config.threshold = Some(1);
    config.dir = "/nowhere/at/all".into();
    assert!(matches!(Trust::read(&config, true), Err(TrustError::Threshold { keys: 0, .. })));
    config.threshold = Some(0);
    assert!(Trust::read(&config, true).is_err());

    let (directory, config) = trust(&[("a", &a)], None, false);
    directory.write("b.pub", b"nonsense\n");
    let error = Trust::read(&config, true).unwrap_err().to_string();
    assert!(error.contains("b.pub") && error.contains("no bundle is accepted"), "{error}");
    std::fs::remove_file(directory.0.join("b.pub")).unwrap();
    std::fs::set_permissions(directory.0.join("a.pub"), PermissionsExt::from_mode(0o666)).unwrap();
    assert!(matches!(Trust::read(&config, true), Err(TrustError::Open(_))));
    assert!(Trust::read(&config, false).is_ok());
}

#[test]
fn a_release_is_checked_in_guard_toml_and_copied_into_the_manifest() {
    let release = "[release]\nrequires = \"0.1.0\"\nnot_after = \"2030-01-01T00:00:00Z\"\ntargets = [\"role=web\"]\n\
        trust_version = 2\n[release.rollout]\nstages = [1, 10, 100]\nsoak = \"1h\"\nhalt = { denials = 5, degraded = 1 }\n";
    let directory = Directory::new(&[("guard.toml", &format!("{TOML}{release}")), ("web.cedar", CEDAR)]);
    let sealed = build(&directory.0).unwrap();
    let manifest = &sealed.seal.as_ref().unwrap().manifest;
    assert_eq!(manifest.release.plain(), policy::load(&directory.0).unwrap().release.plain());
    assert_eq!(manifest.release.plain().len(), 5);
    let at = |text: &str| text.parse().unwrap();
    assert!(manifest.release.expired(at("2029-12-31T23:59:59Z")).is_none());
    assert!(manifest.release.expired(at("2030-01-01T00:00:01Z")).is_some());
    for (line, wanted) in [
        ("requires = \"1\"", "this is not a version"),
        ("requires = \"1.0.0\"", "needs agent 1.0.0 or later"),
        ("not_after = \"tomorrow\"", "this is not an instant"),
        ("targets = [\"web\"]", "this is not a label"),
        ("signers = [\"me\"]", "not a public key"),
        ("trust_version = 0", "versions count from 1"),
        ("rollout = { stages = [] }", "rise to 100"),
        ("rollout = { stages = [0, 100] }", "rise to 100"),
        ("rollout = { stages = [50, 50, 100] }", "rise to 100"),
        ("rollout = { stages = [100], soak = \"soon\" }", "this is not a duration"),
        ("rollout = { stages = [100], halt = { wrong = 1 } }", "unknown key"),
        ("other = 1", "unknown key"),
    ] {
        let toml = format!("{TOML}[release]\n{line}\n");
        let directory = Directory::new(&[("guard.toml", &toml), ("web.cedar", CEDAR)]);
        let error = policy::load(&directory.0).unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("guard.toml:10:"), "{line}: {error}");
    }
}
