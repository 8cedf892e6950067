//! A host made of data: mounts, symbolic links, resolvers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fastrand::Rng;
use guard_agent::host::{Entry, Fixed, Host, Mount};

/// A place: a device number and a path from the root of its file system.
pub(crate) type Place = (u32, PathBuf);

/// One mount: which part of which file system is seen where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The file system.
    pub(crate) device: u32,
    /// Its part.
    pub(crate) root: String,
    /// Where.
    pub(crate) point: String,
}

/// A host.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// Mounts, oldest first; the first is the root.
    pub(crate) mounts: Vec<Seen>,
    /// Symbolic links, which only root can change.
    pub(crate) links: Vec<(String, String)>,
    /// Resolvers.
    pub(crate) resolvers: Vec<IpAddr>,
}

/// Device numbers of the file systems that mounts are made of.
const DEVICES: [u32; 4] = [8 << 20 | 1, 8 << 20 | 2, 20, 21];
/// Parts of a file system that a mount shows.
const ROOTS: [&str; 7] = ["/", "/", "/", "/srv", "/srv/www", "/data", "/home/.ssh"];
/// Where mounts are put. The same point can be taken twice, and one can hide another.
const POINTS: [&str; 10] = [
    "/data",
    "/data/deep",
    "/data/deep/mount",
    "/mnt",
    "/mnt/www",
    "/home/ann/.ssh",
    "/dev",
    "/proc",
    "/sys/fs/cgroup",
    "/srv/www/.git",
];
/// Links, none of which lies behind a name that paths are made of.
const LINKS: [(&str, &str); 5] = [
    ("/bin", "usr/bin"),
    ("/usr/bin/python", "python3.11"),
    ("/link", "/srv/www"),
    ("/srv/up", "../data/deep"),
    ("/hop", "/link/.git"),
];

impl World {
    /// A random one.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let root = Seen { device: DEVICES[0], root: "/".into(), point: "/".into() };
        let mut mounts = vec![root];
        for _ in 0..rng.usize(0..9) {
            mounts.push(Seen {
                device: *pick(rng, &DEVICES),
                root: (*pick(rng, &ROOTS)).into(),
                point: (*pick(rng, &POINTS)).into(),
            });
        }
        let links = LINKS.iter().map(|(path, target)| ((*path).into(), (*target).into())).collect();
        let resolvers = ["10.0.0.53", "fd00::53", "::ffff:10.2.0.53"];
        let resolvers = resolvers.iter().filter(|_| rng.bool()).filter_map(|one| one.parse().ok()).collect();
        Self { mounts, links, resolvers }
    }

    /// The mounts as the kernel would list them.
    fn table(&self) -> Vec<Mount> {
        let mut table: Vec<Mount> = Vec::new();
        for (seen, id) in self.mounts.iter().zip(1..) {
            let point = PathBuf::from(&seen.point);
            let parent = covering(&table, &point).map_or(0, |index| table[index].id);
            table.push(Mount {
                id,
                parent,
                device: seen.device,
                root: seen.root.as_str().into(),
                point,
                kind: "x".into(),
            });
        }
        table
    }

    /// The place of a path without symbolic links.
    pub(crate) fn locate(&self, path: &Path) -> Place {
        let table = self.table();
        let mount = &table[covering(&table, path).unwrap_or(0)];
        let rest = path.strip_prefix(&mount.point).unwrap_or(Path::new(""));
        let root = mount.root.clone();
        (mount.device, if rest.as_os_str().is_empty() { root } else { root.join(rest) })
    }

    /// Where a literal leads, links followed.
    pub(crate) fn follow(&self, literal: &str) -> String {
        let mut path = literal.to_owned();
        for _ in 0..8 {
            let found = self.links.iter().find(|(link, _)| Path::new(&path).starts_with(link));
            let Some((link, target)) = found else { break };
            let above = Path::new(link).parent().unwrap_or(Path::new("/"));
            let rest = path.strip_prefix(link.as_str()).unwrap_or_default();
            path = plain(&format!("{}{rest}", above.join(target).display()));
        }
        path
    }

    /// The host that the compiler sees.
    pub(crate) fn host(&self) -> Host {
        let mut entries: BTreeMap<PathBuf, Entry> =
            BTreeMap::from([("/".into(), Entry::Directory { root_only: true })]);
        for (link, target) in &self.links {
            entries.insert(link.into(), Entry::Link { target: target.into(), root_owned: true });
        }
        Host {
            mounts: self.table(),
            resolvers: self.resolvers.clone(),
            protected: Vec::new(),
            undecided: 0,
            artifacts: Arc::default(),
            lookup: Arc::new(Fixed { entries, ..Fixed::default() }),
        }
    }

    /// A file system of this host.
    pub(crate) fn device(&self, rng: &mut Rng) -> u32 {
        pick(rng, &self.mounts).device
    }
}

/// The mount that a path lies on: from the root on, whatever is mounted on top at each step.
fn covering(table: &[Mount], path: &Path) -> Option<usize> {
    let mut current = 0;
    table.first()?;
    let mut steps: Vec<&Path> = path.ancestors().collect();
    steps.reverse();
    for step in steps {
        while let Some(top) =
            table.iter().rposition(|mount| mount.parent == table[current].id && mount.point == step)
        {
            current = top;
        }
    }
    Some(current)
}

/// A path without `..`.
fn plain(path: &str) -> String {
    let mut done: Vec<&str> = Vec::new();
    for component in path.split('/').filter(|component| !component.is_empty()) {
        if component == ".." {
            done.pop();
        } else {
            done.push(component);
        }
    }
    format!("/{}", done.join("/"))
}

/// One of some.
pub(crate) fn pick<'a, T>(rng: &mut Rng, items: &'a [T]) -> &'a T {
    &items[rng.usize(0..items.len())]
}
