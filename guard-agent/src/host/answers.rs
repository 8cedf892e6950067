//! What a compilation asked the host, and what it was told: if an answer changes, so may the tables.

use super::{Entry, Host, Lookup, RESOLVERS, read_resolvers};
use crate::artifact::{DIRECTORY, Lists};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Files that accounts are read from, as far as they are files of this host (nsswitch.conf(5)).
const ACCOUNTS: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// Questions about a host, with the answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    entries: BTreeMap<PathBuf, Option<Entry>>,
    users: BTreeMap<String, Option<u32>>,
    groups: BTreeMap<String, Option<u32>>,
    resolvers: Vec<IpAddr>,
    /// The artifact lists, if they count.
    artifacts: Option<Arc<Lists>>,
}

impl Answers {
    /// Every path that was asked for, and the files that the other answers are read from.
    pub fn paths(&self) -> BTreeSet<PathBuf> {
        let mut paths: BTreeSet<PathBuf> = self.entries.keys().cloned().collect();
        for file in self.files() {
            paths.insert(file.into());
            // One that is a symbolic link is written where it leads to.
            paths.extend(std::fs::canonicalize(file));
        }
        if self.artifacts.is_some() {
            paths.insert(DIRECTORY.into());
        }
        paths
    }

    /// Directories in which every name matters.
    pub fn directories(&self) -> BTreeSet<PathBuf> {
        self.artifacts.iter().map(|_| PathBuf::from(DIRECTORY)).collect()
    }

    /// The first question that this host answers differently now, in words. Who may change what a
    /// directory holds is not compared: that is judged when a bundle is applied.
    pub fn difference(&self) -> Option<String> {
        // A file that is being replaced has no answer.
        let resolvers = read_resolvers().unwrap_or_else(|_| self.resolvers.clone());
        self.difference_from(&super::Live, &resolvers).or_else(|| {
            let artifacts = self.artifacts.as_ref()?;
            (Lists::read(Path::new(DIRECTORY)) != **artifacts).then(|| DIRECTORY.to_owned())
        })
    }

    fn difference_from(&self, host: &dyn Lookup, resolvers: &[IpAddr]) -> Option<String> {
        let entry = self.entries.iter().find(|(path, was)| !same(was.as_ref(), host.entry(path).as_ref()));
        if let Some((path, _)) = entry {
            return Some(path.display().to_string());
        }
        if let Some((name, _)) = self.users.iter().find(|(name, was)| host.user(name) != **was) {
            return Some(format!("user {name}"));
        }
        if let Some((name, _)) = self.groups.iter().find(|(name, was)| host.group(name) != **was) {
            return Some(format!("group {name}"));
        }
        (resolvers != self.resolvers).then(|| RESOLVERS.to_owned())
    }

    fn files(&self) -> impl Iterator<Item = &'static str> + use<> {
        let accounts: &'static [&str] =
            if self.users.is_empty() && self.groups.is_empty() { &[] } else { &ACCOUNTS[..] };
        accounts.iter().copied().chain([RESOLVERS])
    }
}

/// Whether a path means the same by both answers. What is no link is judged by its name, so whether it is
/// there and what it is changes nothing.
fn same(a: Option<&Entry>, b: Option<&Entry>) -> bool {
    fn target(entry: Option<&Entry>) -> Option<&Path> {
        match entry {
            Some(Entry::Link { target, .. }) => Some(target),
            _ => None,
        }
    }
    target(a) == target(b)
}

/// A host that writes down what it is asked.
pub(crate) struct Asked {
    host: Arc<dyn Lookup>,
    answers: Mutex<Answers>,
}

impl Asked {
    pub(crate) fn new(host: &Host) -> Self {
        let answers = Answers { resolvers: host.resolvers.clone(), ..Answers::default() };
        Self { host: Arc::clone(&host.lookup), answers: Mutex::new(answers) }
    }

    /// What was asked until now.
    pub(crate) fn answers(&self) -> Answers {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The artifact lists were asked for.
    pub(crate) fn artifacts(&self, artifacts: &Arc<Lists>) {
        self.note(|answers| answers.artifacts = Some(Arc::clone(artifacts)));
    }

    fn note(&self, note: impl FnOnce(&mut Answers)) {
        note(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Lookup for Asked {
    fn entry(&self, path: &Path) -> Option<Entry> {
        let answer = self.host.entry(path);
        self.note(|answers| drop(answers.entries.insert(path.to_owned(), answer.clone())));
        answer
    }

    fn user(&self, name: &str) -> Option<u32> {
        let answer = self.host.user(name);
        self.note(|answers| {
            answers.users.insert(name.to_owned(), answer);
        });
        answer
    }

    fn group(&self, name: &str) -> Option<u32> {
        let answer = self.host.group(name);
        self.note(|answers| {
            answers.groups.insert(name.to_owned(), answer);
        });
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Fixed;

    fn link(target: &str) -> Entry {
        Entry::Link { target: target.into(), root_owned: true }
    }

    fn asked(fixed: &Fixed) -> Answers {
        let lookup: Arc<dyn Lookup> = Arc::new(fixed.clone());
        let host = Host {
            mounts: Vec::new(),
            resolvers: Vec::new(),
            protected: Vec::new(),
            undecided: 0,
            artifacts: Arc::default(),
            lookup,
        };
        let asked = Asked::new(&host);
        for path in ["/usr/bin/python3", "/usr/bin", "/opt/tool"] {
            asked.entry(Path::new(path));
        }
        asked.user("deploy");
        asked.answers()
    }

    fn fixed() -> Fixed {
        let mut fixed = Fixed::default();
        fixed.entries.insert("/usr/bin".into(), Entry::Directory { root_only: true });
        fixed.entries.insert("/usr/bin/python3".into(), link("python3.11"));
        fixed
    }

    #[test]
    fn a_difference_is_what_paths_lead_to_and_who_accounts_are() {
        let before = fixed();
        let answers = asked(&before);
        let difference = |change: &dyn Fn(&mut Fixed)| {
            let mut after = before.clone();
            change(&mut after);
            answers.difference_from(&after, &[])
        };
        assert_eq!(difference(&|_| ()), None);
        let upgraded = difference(&|host| {
            host.entries.insert("/usr/bin/python3".into(), link("python3.12"));
        });
        assert_eq!(upgraded.as_deref(), Some("/usr/bin/python3"));
        let appeared = difference(&|host| {
            host.entries.insert("/opt/tool".into(), link("/opt/tool-2"));
        });
        assert_eq!(appeared.as_deref(), Some("/opt/tool"));
        let made = difference(&|host| {
            host.entries.insert("/opt/tool".into(), Entry::Other);
        });
        assert_eq!(made, None, "a literal counts before the file exists");
        let created = difference(&|host| {
            host.users.insert("deploy".into(), 1001);
        });
        assert_eq!(created.as_deref(), Some("user deploy"));
        let opened = difference(&|host| {
            host.entries.insert("/usr/bin".into(), Entry::Directory { root_only: false });
        });
        assert_eq!(opened, None);
        let elsewhere = answers.difference_from(&before, &["10.0.0.53".parse().unwrap()]);
        assert_eq!(elsewhere.as_deref(), Some(RESOLVERS));
    }

    #[test]
    fn only_names_that_were_asked_for_concern() {
        let answers = asked(&fixed());
        let paths = answers.paths();
        for directory in ["/usr/bin", "/usr", "/opt", "/etc"] {
            let below = |path: &PathBuf| path.parent() == Some(Path::new(directory));
            assert!(paths.iter().any(below), "{directory}");
        }
        let concern = |directory: &str, name: &str| paths.contains(&Path::new(directory).join(name));
        assert!(concern("/usr/bin", "python3"));
        assert!(concern("/usr", "bin"));
        assert!(concern("/etc", "passwd"));
        assert!(!concern("/usr/bin", "perl"));
        assert!(!concern("/etc", "shadow"));
    }
}
