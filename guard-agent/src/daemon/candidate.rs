//! Bundles that could become the live one, and which of them the daemon starts with.

use super::adopt::Caller;
use super::disarms::{self, Disarm};
use super::engine::{ApplyError, compile};
use super::modes::{Modes, Now};
use super::sessions::Sessions;
use crate::bundle::{self, Effect, Entry, Opened, Proposed, Record, Shelf, Standing, Trust, TrustConfig};
use crate::kernel::as_user;
use crate::ledger::Ledger;
use crate::policy::{self, Bundle, Compiled, SubjectIds};
use jiff::Timestamp;
use std::path::{Path, PathBuf};

/// What the state directory holds.
pub(super) struct Stored {
    pub(super) ids: SubjectIds,
    pub(super) ids_file: PathBuf,
    pub(super) shelf: Shelf,
    pub(super) modes: Modes,
    pub(super) sessions: Sessions,
    pub(super) disarms: Vec<Disarm>,
    pub(super) ledger: Ledger,
}

impl Stored {
    /// Reads the state directory.
    ///
    /// # Errors
    /// If the numbers of subjects or the record cannot be read: a number must never come to mean
    /// another subject, and a hold must not be forgotten.
    pub(super) fn read(state_dir: &Path) -> Result<Self, ApplyError> {
        let ids_file = state_dir.join("subjects.json");
        let store = |source| ApplyError::Store { path: ids_file.clone(), source };
        let ids = match std::fs::read(&ids_file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| store(error.into()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => SubjectIds::default(),
            Err(error) => return Err(store(error)),
        };
        let shelf = Shelf::open(state_dir)?;
        let now = Now::read();
        let sessions = Sessions::read(state_dir, &now.boot_id, now.wall);
        let disarms = disarms::read(state_dir).unwrap_or_else(|error| {
            tracing::error!("when enforcement was ended before is not known: {error}");
            Vec::new()
        });
        let ledger = Ledger::open(state_dir)?;
        Ok(Self { ids, ids_file, shelf, modes: Modes::read(state_dir), sessions, disarms, ledger })
    }
}

/// A bundle that was read, verified and parsed.
pub(super) struct Candidate {
    pub(super) opened: Opened,
    pub(super) bundle: Bundle,
    pub(super) standing: Standing,
    /// The directory or archive it was read from.
    pub(super) source: PathBuf,
}

impl Candidate {
    /// Reads the bundle at `path`: it is whole and enough trusted keys vouch for it before it is parsed
    /// as policy. Files are opened with the rights of `reader`, if that is not root: what is wrong with a bundle is
    /// shown, and the agent must not show anybody what they cannot read.
    pub(super) fn read(
        path: &Path,
        reader: Option<&Caller>,
        trust: &TrustConfig,
    ) -> Result<Self, ApplyError> {
        let trust = Trust::read(trust, true)?;
        let opened = match reader.filter(|reader| reader.uid != 0) {
            Some(Caller { uid, gid, groups, .. }) => {
                as_user(*uid, *gid, groups, || bundle::open(path)).map_err(ApplyError::Reader)?
            }
            None => bundle::open(path),
        };
        let opened = opened.map_err(ApplyError::Invalid)?;
        let standing = trust.judge(&opened)?;
        let bundle = policy::parse(&opened).map_err(ApplyError::Invalid)?;
        Ok(Self { opened, bundle, standing, source: path.to_owned() })
    }

    /// Reads the copy that was kept when `entry` was live. It was verified then, and who can change the
    /// copy can change everything.
    pub(super) fn kept(shelf: &Shelf, entry: &Entry) -> Result<Self, ApplyError> {
        let (opened, bundle) = shelf.get(&entry.digest).map_err(ApplyError::Invalid)?;
        let standing = match entry.signed_by.as_slice() {
            [] => Standing::Local,
            by => Standing::Signed(by.to_vec()),
        };
        Ok(Self { opened, bundle, standing, source: PathBuf::from(&entry.source) })
    }

    /// What making it live would do.
    pub(super) fn admit(
        &self,
        record: &Record,
        live: Option<&str>,
        now: Timestamp,
    ) -> Result<Effect, ApplyError> {
        Ok(record.admit(self.proposed(), live, now)?)
    }

    /// What the record is asked about.
    pub(super) fn proposed(&self) -> Proposed<'_> {
        Proposed {
            name: &self.bundle.name,
            version: self.bundle.version,
            digest: &self.bundle.digest,
            standing: &self.standing,
        }
    }
}

/// Why the daemon started with a kept bundle.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// In one sentence.
    pub(super) why: String,
    /// The configured bundle is at fault, not the history.
    pub(super) broken: bool,
}

/// What the daemon starts with, compiled.
pub(super) struct Start {
    pub(super) candidate: Candidate,
    pub(super) compiled: Compiled,
    pub(super) ids: SubjectIds,
    pub(super) kept: Option<Kept>,
}

/// The configured bundle, unless it is broken, or this host has had a newer one or holds another: then
/// the one that was live last, or the last before it whose copy is whole.
///
/// # Errors
/// What is wrong with the configured bundle, if nothing was kept.
pub(super) fn choose(configured: &Path, trust: &TrustConfig, stored: &Stored) -> Result<Start, ApplyError> {
    let (record, now) = (stored.shelf.record(), Timestamp::now());
    let last = record.live().map(|entry| entry.digest.as_str());
    let first = Candidate::read(configured, None, trust).and_then(|candidate| {
        candidate.admit(record, last, now)?;
        let (compiled, ids) = compile(&candidate.bundle, &stored.ids)?;
        Ok(Start { candidate, compiled, ids, kept: None })
    });
    let error = match first {
        Ok(start) => return Ok(start),
        Err(error) => error,
    };
    let broken = !matches!(error, ApplyError::Denied(_));
    for entry in record.history().iter().rev() {
        let start = Candidate::kept(&stored.shelf, entry).and_then(|mut candidate| {
            let (compiled, ids) = compile(&candidate.bundle, &stored.ids)?;
            let what = format!("{} version {}", candidate.bundle.name, candidate.bundle.version);
            let why = format!(
                "{what} is enforced, which was live before, because the configured bundle cannot be: {error}"
            );
            if broken {
                // So that a reload takes it once it is mended.
                candidate.source = configured.to_owned();
            }
            Ok(Start { candidate, compiled, ids, kept: Some(Kept { why, broken }) })
        });
        match start {
            Ok(start) => return Ok(start),
            Err(other) => tracing::error!("the copy of change {} cannot be used: {other}", entry.number),
        }
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{How, PrivateKey, SIGNATURES, Signatures, build, write_archive};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A host: its configured bundle, its keys and its state, in a directory that is removed at the end.
    struct Site {
        dir: PathBuf,
        trust: TrustConfig,
    }

    impl Drop for Site {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }

    impl Site {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let dir = std::env::temp_dir().join(format!("guard-start-{}-{number}", std::process::id()));
            for name in ["policy", "state", "trust.d"] {
                std::fs::create_dir_all(dir.join(name)).unwrap();
            }
            let trust = TrustConfig { dir: dir.join("trust.d"), ..TrustConfig::default() };
            Self { dir, trust }
        }

        /// Writes the plain bundle at `policy`; the file names `/srv/LETTER`.
        fn plain(&self, version: u64, letter: char) -> PathBuf {
            let dir = self.dir.join("policy");
            let toml = format!(
                "[bundle]\nname = \"web\"\nversion = {version}\nprofile = 1\n\
                 [subjects.web]\nselector = {{ user = \"65533\" }}\ngoverns = [\"*\"]\n"
            );
            let cedar =
                format!("@id(\"x\") permit (principal, action, resource == Guard::File::\"/srv/{letter}\");");
            std::fs::write(dir.join("guard.toml"), toml).unwrap();
            std::fs::write(dir.join("web.cedar"), cedar).unwrap();
            dir
        }

        /// The same, sealed and signed.
        fn signed(&self, version: u64, letter: char, key: &PrivateKey) -> PathBuf {
            let mut files =
                build(&self.plain(version, letter)).unwrap_or_else(|errors| panic!("{errors}")).files;
            let mut signatures = Signatures::default();
            signatures.sign(&files, key).unwrap();
            files.insert(SIGNATURES, signatures.to_text().into_bytes()).unwrap();
            let path = self.dir.join(format!("{version}{letter}.tar.zst"));
            write_archive(&files, &path).unwrap();
            path
        }

        fn trusts(&self, key: &PrivateKey) {
            std::fs::write(self.dir.join("trust.d/release.pub"), key.public().to_string()).unwrap();
        }

        fn stored(&self) -> Stored {
            Stored::read(&self.dir.join("state")).unwrap()
        }

        /// Remembers a bundle as the daemon does when it made one live.
        fn lived(&self, path: &Path) -> String {
            let candidate =
                Candidate::read(path, None, &self.trust).unwrap_or_else(|error| panic!("{error}"));
            let mut stored = self.stored();
            let digest = candidate.bundle.digest.clone();
            stored.shelf.keep(&candidate.opened, &digest).unwrap();
            let signed_by = if let Standing::Signed(by) = candidate.standing { by } else { Vec::new() };
            let entry = Entry {
                number: 0,
                how: How::Apply,
                at: "2026-01-01T00:00:00Z".into(),
                name: candidate.bundle.name,
                version: candidate.bundle.version,
                digest: digest.clone(),
                source: path.display().to_string(),
                signed_by,
                by: "uid 0".into(),
                reason: None,
                back_to: None,
            };
            stored.shelf.change(|record| record.push(entry)).unwrap();
            digest
        }

        fn start(&self, configured: &Path) -> Result<Start, ApplyError> {
            choose(configured, &self.trust, &self.stored())
        }

        /// Digest of what it starts with, and why it is a kept one.
        fn starts_with(&self, configured: &Path) -> (String, Option<Kept>) {
            let start = self.start(configured).unwrap_or_else(|error| panic!("{error}"));
            (start.candidate.bundle.digest, start.kept)
        }
    }

    #[test]
    fn a_broken_bundle_is_replaced_by_what_was_live_last_and_nothing_by_nothing() {
        let site = Site::new();
        let policy = site.plain(1, 'a');
        std::fs::write(policy.join("web.cedar"), "permit (nonsense").unwrap();
        assert!(matches!(site.start(&policy), Err(ApplyError::Invalid(_))), "nothing was live yet");
        let good = site.lived(&site.plain(1, 'a'));
        for breakage in ["permit (nonsense", "\u{0}", "permit (principal, action, resource);"] {
            std::fs::write(policy.join("web.cedar"), breakage).unwrap();
            let (digest, kept) = site.starts_with(&policy);
            let kept = kept.unwrap();
            assert!(digest == good && kept.broken, "{breakage}: {kept:?}");
            assert!(
                kept.why.contains("web version 1 is enforced") && kept.why.contains("web.cedar"),
                "{kept:?}"
            );
        }
        std::fs::remove_dir_all(&policy).unwrap();
        let start = site.start(&policy).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(start.candidate.bundle.digest, good);
        assert_eq!(start.candidate.source, policy, "a reload reads the configured one once it is back");
    }

    #[test]
    fn a_copy_that_rotted_is_passed_over_for_the_one_before() {
        let site = Site::new();
        let first = site.lived(&site.plain(1, 'a'));
        let second = site.lived(&site.plain(2, 'b'));
        let policy = site.plain(3, 'c');
        std::fs::write(policy.join("guard.toml"), "").unwrap();
        assert_eq!(site.starts_with(&policy).0, second);
        std::fs::write(site.dir.join(format!("state/bundles/{second}.tar.zst")), "rot").unwrap();
        assert_eq!(site.starts_with(&policy).0, first);
    }

    #[test]
    fn a_local_bundle_that_was_edited_meanwhile_is_the_configured_one() {
        let site = Site::new();
        site.lived(&site.plain(2, 'a'));
        let (_, kept) = site.starts_with(&site.plain(1, 'b'));
        assert!(kept.is_none());
    }

    #[test]
    fn a_restart_is_no_way_to_an_older_or_unsigned_or_changed_bundle() {
        let site = Site::new();
        let key = PrivateKey::generate().unwrap();
        site.trusts(&key);
        let old = site.signed(1, 'a', &key);
        let new = site.lived(&site.signed(2, 'b', &key));
        let (digest, kept) = site.starts_with(&old);
        assert!(digest == new && kept.as_ref().is_some_and(|kept| !kept.broken), "{kept:?}");
        assert!(kept.unwrap().why.contains("older than version 2"));
        let conflict = site.signed(2, 'c', &key);
        assert!(site.starts_with(&conflict).1.unwrap().why.contains("with other contents"));
        let unsigned = site.plain(3, 'd');
        let kept = site.starts_with(&unsigned).1.unwrap();
        assert!(kept.broken && kept.why.contains("not signed"), "{kept:?}");
        let stranger = site.signed(3, 'e', &PrivateKey::generate().unwrap());
        assert!(site.starts_with(&stranger).1.unwrap().why.contains("0 of 1 signatures"));
        let newer = site.signed(3, 'f', &key);
        assert!(site.starts_with(&newer).1.is_none());
    }

    #[test]
    fn a_hold_outlives_a_restart() {
        let site = Site::new();
        let held = site.lived(&site.plain(1, 'a'));
        let hold =
            crate::bundle::Hold { until: "9999-01-01T00:00:00Z".into(), by: "uid 0".into(), reason: None };
        site.stored()
            .shelf
            .change(|record| {
                record.set_hold(Some(hold));
            })
            .unwrap();
        let (digest, kept) = site.starts_with(&site.plain(2, 'b'));
        assert!(digest == held && kept.as_ref().is_some_and(|kept| !kept.broken), "{kept:?}");
    }

    #[test]
    fn state_that_is_not_understood_stops_the_start() {
        let site = Site::new();
        std::fs::write(site.dir.join("state/policy.json"), "{}").unwrap();
        assert!(matches!(Stored::read(&site.dir.join("state")), Err(ApplyError::Shelf(_))));
        std::fs::remove_file(site.dir.join("state/policy.json")).unwrap();
        std::fs::write(site.dir.join("state/subjects.json"), "{").unwrap();
        assert!(matches!(Stored::read(&site.dir.join("state")), Err(ApplyError::Store { .. })));
    }
}
