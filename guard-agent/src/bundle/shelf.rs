//! The state directory's side of bundles: copies of what was live, and the record of it.
//!
//! Every write replaces a whole file in one step and is on the disk before it returns, and a copy is
//! there before the record names it. So a crash at any instant leaves the state before or after.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::open::{Opened, open_kept};
use super::record::Record;
use super::shadow::Shadows;
use super::write::{pack, replace, set_aside};
use crate::policy::{self, Bundle, Diagnostic, Diagnostics};

/// What cannot be kept or read back.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
pub struct ShelfError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Copies and record of one state directory.
#[derive(Debug)]
pub struct Shelf {
    copies: PathBuf,
    file: PathBuf,
    record: Record,
    shadows_file: PathBuf,
    shadows: Shadows,
    /// Why the file of shadows could not be used.
    pub lost: Option<String>,
}

impl Shelf {
    /// The shelf of `state_dir`; made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made, or there is a record that is not understood: without it holds and the
    /// versions of signed bundles would be forgotten.
    pub fn open(state_dir: &Path) -> Result<Self, ShelfError> {
        let (copies, file) = (state_dir.join("bundles"), state_dir.join("policy.json"));
        fs::create_dir_all(&copies).map_err(|source| ShelfError {
            action: "create",
            path: copies.clone(),
            source,
        })?;
        let wrong = |source| ShelfError { action: "read", path: file.clone(), source };
        let record = match fs::read(&file) {
            Ok(bytes) => Record::parse(&bytes).map_err(|why| {
                wrong(io::Error::other(format!(
                    "{why}; if it is lost, remove it: history, holds and known versions are forgotten then"
                )))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) => return Err(wrong(error)),
        };
        let shadows_file = state_dir.join("shadows.json");
        let (shadows, lost) = shadows(&shadows_file);
        Ok(Self { copies, file, record, shadows_file, shadows, lost })
    }

    /// What is remembered.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The shadow, and those before it.
    pub fn shadows(&self) -> &Shadows {
        &self.shadows
    }

    /// Changes what is remembered of shadows. Once this returns, the change is on the disk; if it fails,
    /// nothing changed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn change_shadows(&mut self, change: impl FnOnce(&mut Shadows)) -> Result<(), ShelfError> {
        let mut shadows = self.shadows.clone();
        change(&mut shadows);
        let write = serde_json::to_vec_pretty(&shadows)
            .map_err(io::Error::from)
            .and_then(|bytes| replace(&self.shadows_file, &bytes, 0o600));
        let path = self.shadows_file.clone();
        write.map_err(|source| ShelfError { action: "write", path, source })?;
        self.shadows = shadows;
        self.lost = None;
        Ok(())
    }

    /// Keeps a copy of a bundle under its digest.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&self, bundle: &Opened, digest: &str) -> Result<(), ShelfError> {
        let path = self.copy(digest);
        if path.exists() {
            // It was on the disk before it had this name.
            return Ok(());
        }
        let write = pack(&bundle.files).and_then(|bytes| replace(&path, &bytes, 0o600));
        write.map_err(|source| ShelfError { action: "write", path, source })
    }

    /// Reads a copy back.
    ///
    /// # Errors
    /// If it is not there, or not what was kept.
    pub fn get(&self, digest: &str) -> Result<(Opened, Bundle), Diagnostics> {
        self.copies().get(digest)
    }

    /// The copies, to be read without the shelf.
    pub fn copies(&self) -> Copies {
        Copies(self.copies.clone())
    }

    /// Changes the record. Once this returns, the change is on the disk; if it fails, nothing changed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn change(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), ShelfError> {
        let mut record = self.record.clone();
        change(&mut record);
        let write = serde_json::to_vec_pretty(&record)
            .map_err(io::Error::from)
            .and_then(|bytes| replace(&self.file, &bytes, 0o600));
        write.map_err(|source| ShelfError { action: "write", path: self.file.clone(), source })?;
        self.record = record;
        Ok(())
    }

    /// Removes copies that neither the record nor a shadow names. A copy that cannot be removed only takes space.
    pub fn prune(&self) {
        let named: BTreeSet<PathBuf> = self
            .record
            .history()
            .iter()
            .map(|entry| entry.digest.as_str())
            .chain(self.shadows.digests())
            .map(|digest| self.copy(digest))
            .collect();
        for entry in fs::read_dir(&self.copies).into_iter().flatten().flatten() {
            if !named.contains(&entry.path())
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!("cannot remove {}: {error}", entry.path().display());
            }
        }
    }

    /// Where the copy of a bundle is, whether or not there is one.
    pub fn copy(&self, digest: &str) -> PathBuf {
        self.copies().path(digest)
    }
}

/// Reads what is remembered of shadows. A shadow decides nothing, so a file that cannot be used is set aside
/// and said, and stops nothing.
fn shadows(file: &Path) -> (Shadows, Option<String>) {
    let parsed = match fs::read(file) {
        Ok(bytes) => Shadows::parse(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (Shadows::default(), None),
        Err(error) => Err(error.to_string()),
    };
    match parsed {
        Ok(shadows) => (shadows, None),
        Err(why) => (Shadows::default(), Some(set_aside(file, &why, "no shadow is compared"))),
    }
}

/// The copies of a shelf.
#[derive(Clone, Debug)]
pub struct Copies(PathBuf);

impl Copies {
    /// Reads a copy back.
    ///
    /// # Errors
    /// If it is not there, or not what was kept.
    pub fn get(&self, digest: &str) -> Result<(Opened, Bundle), Diagnostics> {
        let path = self.path(digest);
        let opened = open_kept(&path)?;
        let bundle = policy::parse(&opened)?;
        if bundle.digest != digest {
            let message = format!("{} is not the bundle that was kept under this name", path.display());
            return Err(Diagnostic::error("digest", message).into());
        }
        Ok((opened, bundle))
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.0.join(format!("{digest}.tar.zst"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Directory, packed, plain, sealed};
    use super::*;
    use crate::bundle::open;
    use crate::bundle::record::{Entry, How};

    fn entry(digest: &str) -> Entry {
        Entry {
            number: 0,
            how: How::Apply,
            at: String::new(),
            name: "web".into(),
            version: 3,
            digest: digest.into(),
            source: "/x".into(),
            signed_by: Vec::new(),
            by: "uid 0".into(),
            reason: None,
            back_to: None,
        }
    }

    #[test]
    fn plain_and_sealed_bundles_come_back_as_they_were() {
        let state = Directory::new(&[]);
        let shelf = Shelf::open(&state.0).unwrap();
        let archive = Directory::new(&[]);
        archive.write("x.tar.zst", &packed(&sealed(&[])));
        for path in [plain().0.clone(), archive.0.join("x.tar.zst")] {
            let source = if path.is_dir() { plain() } else { Directory::new(&[]) };
            let path = if path.exists() { path } else { source.0.clone() };
            let opened = open(&path).unwrap();
            let bundle = policy::parse(&opened).unwrap();
            shelf.keep(&opened, &bundle.digest).unwrap();
            shelf.keep(&opened, &bundle.digest).unwrap();
            let (again, parsed) = shelf.get(&bundle.digest).unwrap();
            assert!(again.files.iter().eq(opened.files.iter()));
            assert_eq!((parsed.digest, again.seal.is_some()), (bundle.digest, opened.seal.is_some()));
        }
    }

    #[test]
    fn a_copy_that_rotted_or_was_swapped_is_refused() {
        let state = Directory::new(&[]);
        let shelf = Shelf::open(&state.0).unwrap();
        let source = plain();
        let opened = open(&source.0).unwrap();
        let digest = policy::parse(&opened).unwrap().digest;
        shelf.keep(&opened, &digest).unwrap();
        fs::copy(shelf.copy(&digest), shelf.copy("another")).unwrap();
        assert!(shelf.get("another").unwrap_err().to_string().contains("not the bundle that was kept"));
        fs::write(shelf.copy(&digest), b"rot").unwrap();
        assert!(shelf.get(&digest).unwrap_err().to_string().contains("error[archive]"));
        assert!(shelf.get("missing").unwrap_err().to_string().contains("cannot read"));
    }

    #[test]
    fn what_was_stored_is_there_after_a_crash_and_what_was_half_written_is_not() {
        let state = Directory::new(&[]);
        let mut shelf = Shelf::open(&state.0).unwrap();
        shelf.change(|record| record.push(entry("a"))).unwrap();
        // What a crash in the middle of the next change leaves behind.
        state.write(".policy.json.1.new", b"{\"form");
        state.write("bundles/.b.tar.zst.1.new", b"half");
        state.write("bundles/c.tar.zst", b"kept, but not recorded yet");
        state.write("bundles/a.tar.zst", b"recorded");
        let shelf = Shelf::open(&state.0).unwrap();
        assert_eq!(shelf.record().live().map(|entry| entry.digest.as_str()), Some("a"));
        shelf.prune();
        let left: Vec<_> =
            fs::read_dir(state.0.join("bundles")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["a.tar.zst"]);
    }

    #[test]
    fn a_record_that_cannot_be_written_or_read_changes_nothing() {
        let state = Directory::new(&[]);
        let mut shelf = Shelf::open(&state.0).unwrap();
        shelf.change(|record| record.push(entry("a"))).unwrap();
        shelf.file = state.0.join("nowhere/policy.json");
        assert!(shelf.change(|record| record.push(entry("b"))).is_err());
        assert_eq!(shelf.record().live().map(|entry| entry.digest.as_str()), Some("a"));
        state.write("policy.json", b"[]");
        let error = Shelf::open(&state.0).unwrap_err().to_string();
        assert!(error.contains("policy.json") && error.contains("remove it"), "{error}");
    }

    /// Makes one plain bundle after another live, and says the number of each change once it is
    /// acknowledged. Does nothing unless the test below starts it.
    #[test]
    fn changes_for_ever() {
        let Some(state) = std::env::var_os("GUARD_TEST_SHELF") else { return };
        let mut shelf = Shelf::open(Path::new(&state)).unwrap();
        let source = plain();
        loop {
            let number = shelf.record().live().map_or(1, |entry| entry.number + 1);
            source.write("web.cedar", format!("{}// {number}\n", super::super::tests::CEDAR).as_bytes());
            let opened = open(&source.0).unwrap();
            let digest = policy::parse(&opened).unwrap().digest;
            shelf.keep(&opened, &digest).unwrap();
            shelf.change(|record| record.push(entry(&digest))).unwrap();
            shelf.prune();
            println!("acknowledged {number}");
        }
    }

    #[test]
    fn a_kill_at_any_instant_loses_nothing_that_was_acknowledged() {
        use std::io::{BufRead, BufReader};
        use std::process::{Command, Stdio};
        let state = Directory::new(&[]);
        let mut acknowledged = 0;
        for round in 1..=10_u64 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "bundle::shelf::tests::changes_for_ever", "--nocapture"])
                .env("GUARD_TEST_SHELF", &state.0)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let goal = acknowledged + round;
            while acknowledged < goal {
                let line = lines.next().expect("the child goes on").unwrap();
                // The harness writes its own line before the first.
                if let Some((_, number)) = line.split_once("acknowledged ") {
                    acknowledged = number.parse().unwrap();
                }
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let shelf = Shelf::open(&state.0).unwrap();
            let live = shelf.record().live().unwrap();
            assert!(
                live.number >= acknowledged,
                "change {acknowledged} was acknowledged, {} is live",
                live.number
            );
            acknowledged = live.number;
            for entry in shelf.record().history() {
                shelf.get(&entry.digest).unwrap_or_else(|errors| panic!("{errors}"));
            }
        }
    }
}
