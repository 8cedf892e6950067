//! Tools on small bundles, on a host made of plain data.

mod diff;
mod lint;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::host::{Entry, Fixed, Host, parse_mounts};
use crate::policy::{self, Bundle};

/// A directory that is removed when it goes out of scope.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A bundle of these files.
fn bundle(files: &[(&str, &str)]) -> Bundle {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("guard-analysis-test-{}-{number}", std::process::id()));
    let directory = Directory(path);
    for (name, text) in files {
        let file = directory.0.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    policy::load(&directory.0).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The subject `web`, which governs everything, and its policies.
fn web(cedar: &str) -> Bundle {
    bundle(&[("guard.toml", WEB), ("web.cedar", cedar)])
}

const WEB: &str = "[bundle]\nname = \"test\"\nversion = 1\nprofile = 1\n\
    [subjects.web]\nselector = { user = \"web\" }\nowner = \"web@example.org\"\ngoverns = [\"*\"]\n";

fn load(path: &str) -> Bundle {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    policy::load(&path).unwrap_or_else(|errors| panic!("{errors}"))
}

fn host() -> Host {
    let directory = |path: &str| (PathBuf::from(path), Entry::Directory { root_only: true });
    let link = |path: &str, target: &str| {
        (PathBuf::from(path), Entry::Link { target: target.into(), root_owned: true })
    };
    let file = |path: &str| (PathBuf::from(path), Entry::Other);
    let entries = BTreeMap::from([
        directory("/"),
        directory("/usr"),
        directory("/usr/bin"),
        directory("/srv"),
        directory("/srv/app"),
        link("/srv/app/current", "releases/2026-11-25"),
        link("/usr/bin/python3", "python3.11"),
        file("/usr/bin/python3.11"),
        file("/etc/hostname"),
    ]);
    let users = BTreeMap::from([("root".to_owned(), 0), ("web".to_owned(), 33), ("db".to_owned(), 70)]);
    Host {
        mounts: parse_mounts(
            b"1 0 8:1 / / rw - ext4 a rw\n2 1 0:20 / /proc rw - proc p rw\n3 1 8:2 / /data rw - ext4 b rw\n",
        ),
        resolvers: vec!["10.0.0.53".parse().unwrap()],
        protected: Vec::new(),
        undecided: 0,
        artifacts: Arc::default(),
        lookup: Arc::new(Fixed { entries, users, groups: BTreeMap::new() }),
    }
}
