//! Tests of the whole way from files to decisions.

mod effective;
mod errors;
mod gate;
mod includes;
mod oracle;
mod own_root;
mod posture;
mod reference;
mod rewrites;
mod scale;
mod seats;
mod semantics;
mod shadow;
mod signers;
mod successors;
mod survey;
mod unenforceable;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use guard_common::action::Action;
use guard_common::class;
use guard_common::decide::{Decision, Query, decide};
use guard_common::tables::{ABSENT, Attributes};

use super::walk::{Found, Walker};
use super::*;
use crate::host::{Entry, Fixed, Host, parse_mounts};

/// A directory that is removed when it goes out of scope.
struct Directory(PathBuf);

impl Directory {
    /// A bundle directory with these files.
    fn new(files: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("guard-policy-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        for (name, text) in files {
            std::fs::write(path.join(name), text).unwrap();
        }
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const MOUNTS: &[u8] = b"1 0 8:1 / / rw - ext4 a rw\n\
    2 1 0:20 / /proc rw - proc p rw\n\
    3 1 0:21 / /dev rw - devtmpfs d rw\n\
    4 3 0:22 / /dev/shm rw - tmpfs t rw\n\
    5 1 8:2 / /data rw - ext4 b rw\n\
    6 1 8:1 /srv/www /mnt/www rw - ext4 a rw\n\
    7 5 0:23 / /data/deep/mount rw - tmpfs t rw\n\
    8 1 0:24 / /home/ann/.ssh rw - tmpfs t rw\n";

fn host() -> Host {
    let directory = |path: &str| (PathBuf::from(path), Entry::Directory { root_only: true });
    let link = |path: &str, target: &str| {
        (PathBuf::from(path), Entry::Link { target: target.into(), root_owned: true })
    };
    let entries = BTreeMap::from([
        directory("/"),
        directory("/usr"),
        directory("/usr/bin"),
        link("/bin", "usr/bin"),
        link("/usr/bin/python", "python3.11"),
        directory("/home"),
        (PathBuf::from("/home/ann"), Entry::Directory { root_only: false }),
        (PathBuf::from("/home/ann/link"), Entry::Link { target: "/etc".into(), root_owned: false }),
    ]);
    let users = BTreeMap::from([("root".to_owned(), 0), ("ci".to_owned(), 990), ("web".to_owned(), 33)]);
    let groups = BTreeMap::from([("root".to_owned(), 0), ("www-data".to_owned(), 33)]);
    Host {
        mounts: parse_mounts(MOUNTS),
        resolvers: vec!["10.0.0.53".parse().unwrap()],
        protected: vec![
            ("/usr/lib/systemd/systemd".into(), "the service manager"),
            ("/opt/guard/bin/guard-agent".into(), "the Guard agent"),
        ],
        undecided: 0,
        artifacts: Arc::default(),
        lookup: Arc::new(Fixed { entries, users, groups }),
    }
}

/// Attributes of an ordinary file.
fn file(owner: u64, set_id: bool) -> Attributes {
    Attributes { owner, kind: 0o100000, set_id: set_id.into(), fileless: 0, ..Attributes::default() }
}

/// The place of a path on [`host`], whether or not a link leads there.
fn place(path: &str) -> (u32, PathBuf) {
    let host = host();
    let place = super::places::Mounts::new(&host.mounts).locate(Path::new(path)).unwrap();
    (place.device, place.path)
}

fn walk(compiled: &Compiled, path: &str, attributes: &Attributes) -> Found {
    let (device, path) = place(path);
    Walker::new(&compiled.generation).path(device, &path, attributes)
}

fn number(compiled: &Compiled, subject: &str) -> u32 {
    *compiled.names.subjects.iter().find(|(_, name)| *name == subject).unwrap().0
}

fn ask(compiled: &Compiled, subject: &str, action: &str, found: Found) -> Decision {
    let required = Action::from_name(action).unwrap().bit();
    let query = Query {
        subject: number(compiled, subject),
        session: 0,
        class: found.class,
        features: found.features,
        required,
    };
    decide(&compiled.generation, &query, || 0)
}

fn allowed(compiled: &Compiled, subject: &str, action: &str, path: &str) -> bool {
    ask(compiled, subject, action, walk(compiled, path, &file(1000, false))).denied == 0
}

/// A process with the label of the subject with this number, as `asker` meets it.
fn processes(compiled: &Compiled, asker: &str, subject: Option<u32>) -> Found {
    let attributes = Attributes {
        subject: subject.map_or(ABSENT, u64::from),
        own: number(compiled, asker).into(),
        ..Attributes::default()
    };
    Walker::new(&compiled.generation).builtin(class::PROCESS, &attributes)
}

const TOML: &str = "[bundle]\nname = \"test\"\nversion = 1\nprofile = 1\n";

/// A bundle with one subject `web` that governs everything.
fn web(cedar: &str) -> Directory {
    let toml = format!("{TOML}[subjects.web]\nselector = {{ user = \"web\" }}\ngoverns = [\"*\"]\n");
    Directory::new(&[("guard.toml", &toml), ("web.cedar", cedar)])
}

fn compiled(directory: &Directory) -> Compiled {
    let bundle = load(&directory.0).unwrap_or_else(|errors| panic!("{errors}"));
    compile(&bundle, &host(), &mut SubjectIds::default()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The errors of a bundle, with the directory's name cut off.
fn errors(directory: &Directory) -> String {
    let found = match load(&directory.0) {
        Err(errors) => errors,
        Ok(bundle) => match compile(&bundle, &host(), &mut SubjectIds::default()) {
            Err(errors) => errors,
            Ok(_) => return String::new(),
        },
    };
    let errors: String = found
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    errors.replace(&format!("{}/", directory.0.display()), "")
}

/// Panics unless the effective set, as text, parses and validates, and keeps its names.
fn valid(bundle: &Bundle, set: &EffectiveSet) {
    let text = set.text(bundle, None).unwrap_or_else(|error| panic!("{error}"));
    let source = super::diagnostics::Source::new("effective", text.as_str());
    let again =
        super::bundle::parse_again(bundle, &source).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let names: Vec<&str> = set.policies.iter().map(|policy| policy.id.as_str()).collect();
    assert_eq!(again, names, "{text}");
}
