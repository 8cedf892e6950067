//! Random rule sets, and what they allow where.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use guard_tests::landlock::Ruleset;
use guard_tests::raw;
use nix::sys::stat::fstat;

use crate::look::Place;
use crate::rights::{
    BIND_TCP, CONNECT_TCP, FILES, OF_FILES, READ_FILE, REFER, Rights, known, names, of_network,
};
use crate::tree::{Kind, Thing};

/// TCP ports that operations use. None of them is one that the kernel gives to a socket without a port.
pub(crate) const PORTS: [u16; 6] = [0, 21001, 21002, 21003, 21004, 21005];

/// One rule for a directory and what is below it, or for something that is no directory.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Seen from the tree's root.
    pub(crate) path: String,
    pub(crate) is_directory: bool,
    pub(crate) rights: Rights,
    /// The object in the tree that Landlock judges, once it is known.
    pub(crate) object: Option<Arc<OwnedFd>>,
}

impl Rule {
    /// The inode number of the object, which on an overlay is another one after a copy-up.
    fn inode(&self) -> Option<u64> {
        fstat(self.object.as_ref()?.as_fd()).ok().map(|data| data.st_ino)
    }
}

/// A rule set.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// What is denied where no rule allows it.
    pub(crate) handled: Rights,
    pub(crate) rules: Vec<Rule>,
    pub(crate) ports: Vec<(u16, Rights)>,
}

/// How many of the possible rights a rule gives.
const PERCENT: [u8; 5] = [20, 50, 75, 90, 100];

/// What a rule set is about: what is always handled, so that there is something to see of every set, and a
/// random part of the rest.
pub(crate) fn handled(rng: &mut Rng, version: u32) -> Rights {
    // Moving to another directory is always denied unless a rule allows it.
    random_part(rng, known(version), 85) | READ_FILE | REFER
}

fn random_part(rng: &mut Rng, rights: Rights, percent: u8) -> Rights {
    (0..64)
        .map(|bit| 1 << bit)
        .filter(|bit| rights & bit != 0 && rng.u8(0..100) < percent)
        .fold(0, |all, bit| all | bit)
}

/// Rules for ports.
pub(crate) fn ports(rng: &mut Rng, handled: Rights) -> Vec<(u16, Rights)> {
    let rights = handled & (BIND_TCP | CONNECT_TCP);
    PORTS
        .into_iter()
        .map(|port| (port, random_part(rng, rights, 50)))
        .filter(|(_, rights)| *rights != 0)
        .collect()
}

/// Rules for a tree.
pub(crate) fn paths(rng: &mut Rng, handled: Rights, things: &[Thing]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for number in 0..rng.usize(3..9) {
        let (path, is_directory) = match rng.usize(..=things.len()) {
            _ if number == 0 => (String::new(), true),
            0 => (String::new(), true),
            // What a link leads to would be meant.
            index if matches!(things[index - 1].kind, Kind::Link(_)) => continue,
            index => (things[index - 1].path.clone(), matches!(things[index - 1].kind, Kind::Directory)),
        };
        let possible = handled & FILES & if is_directory { FILES } else { OF_FILES };
        let percent = PERCENT[rng.usize(..PERCENT.len())];
        let rights = random_part(rng, possible, percent);
        if rights != 0 && rules.iter().all(|rule| rule.path != path) {
            rules.push(Rule { path, is_directory, rights, object: None });
        }
    }
    rules
}

impl Rules {
    /// Notes which objects of the tree at `root` the rules are about.
    pub(crate) fn find(&mut self, root: &Path) -> io::Result<()> {
        for rule in &mut self.rules {
            rule.object = Some(Arc::new(raw::open_path(&root.join(&rule.path))?));
        }
        Ok(())
    }

    /// Puts this process under the rules for the tree at `root`.
    pub(crate) fn restrict(&self, root: &Path) -> io::Result<()> {
        let set = Ruleset::new(self.handled & FILES, of_network(self.handled))?;
        for rule in &self.rules {
            set.allow_beneath(raw::open_path(&root.join(&rule.path))?.as_fd(), rule.rights)?;
        }
        for (port, rights) in &self.ports {
            set.allow_port(*port, of_network(*rights))?;
        }
        set.restrict_self()
    }

    /// Rights on what lies in the directory of a place, by the object that each rule was made for.
    pub(crate) fn beside(&self, place: &Place) -> Rights {
        self.sum(|rule| rule.inode().is_some_and(|inode| place.above.contains(&inode)))
    }

    /// Rights on what is at a place, likewise.
    pub(crate) fn at(&self, place: &Place) -> Rights {
        self.beside(place) | self.of(place)
    }

    /// What a rule gives to the very object at a place, likewise.
    pub(crate) fn of(&self, place: &Place) -> Rights {
        let inode = place.object.as_ref().map(|object| object.inode);
        self.sum(|rule| inode.is_some() && rule.inode() == inode)
    }

    /// Rights on what lies in the directory of a place, by the names in the rules.
    pub(crate) fn named_beside(&self, path: &str) -> Rights {
        self.sum(|rule| rule.is_directory && is_above(&rule.path, path))
    }

    /// Rights on what is at a place, likewise.
    pub(crate) fn named_at(&self, path: &str) -> Rights {
        self.named_beside(path) | self.sum(|rule| rule.path == path)
    }

    /// Rights on a port.
    pub(crate) fn port(&self, port: u16) -> Rights {
        self.ports
            .iter()
            .filter(|(number, _)| *number == port)
            .fold(!self.handled, |all, (_, more)| all | more)
    }

    fn sum(&self, counts: impl Fn(&Rule) -> bool) -> Rights {
        self.rules.iter().filter(|rule| counts(rule)).fold(!self.handled, |all, rule| all | rule.rights)
    }

    /// On a screen.
    pub(crate) fn lines(&self) -> String {
        let rules = self.rules.iter().map(|rule| {
            let path = if rule.path.is_empty() { "." } else { &rule.path };
            format!("  {path} #{}: {}\n", rule.inode().unwrap_or(0), names(rule.rights))
        });
        let ports = self.ports.iter().map(|(port, rights)| format!("  port {port}: {}\n", names(*rights)));
        format!("  handled: {}\n{}", names(self.handled), rules.chain(ports).collect::<String>())
    }
}

/// Whether one path is a directory above the other.
pub(crate) fn is_above(directory: &str, path: &str) -> bool {
    match path.strip_prefix(directory) {
        Some("") => false,
        Some(rest) => directory.is_empty() || rest.starts_with('/'),
        None => false,
    }
}
