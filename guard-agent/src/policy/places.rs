//! From a path literal to its place: a file system and the names from its root.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use guard_common::path::OWN_ROOT;

use super::formula::Atom;
use crate::host::{Entry, Host, Lookup, Mount};

/// Where a path lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    /// Device number of the file system.
    pub(super) device: u32,
    /// Path from the file system's root.
    pub(super) path: PathBuf,
}

/// Where roots of subjects' own lie among the paths of the host: nowhere, so no path of the host begins like
/// this.
pub(super) const OWN_ROOT_POINT: &str = "/guard:own-root";

/// What an atom means for a subject with a root of its own.
pub(super) fn in_own_root(atom: Atom) -> Atom {
    let moved = |path: String| format!("{OWN_ROOT_POINT}{}", path.strip_suffix('/').unwrap_or(&path));
    match atom {
        Atom::At(path) => Atom::At(moved(path)),
        Atom::Below(path) => Atom::Below(moved(path)),
        other => other,
    }
}

/// The path from the root of its own that a literal of such a subject means; nothing for one of the host's.
pub(super) fn own_path(literal: &str) -> Option<PathBuf> {
    let rest = literal.strip_prefix(OWN_ROOT_POINT)?;
    Some(if rest.is_empty() { PathBuf::from("/") } else { PathBuf::from(rest) })
}

/// The host as a subject with a root of its own sees it: one file system, of which nothing is known. Symbolic
/// links are what the container makes of them, so none is followed.
pub(super) fn own_host(host: &Host) -> Host {
    struct Blind(Arc<dyn Lookup>);
    impl Lookup for Blind {
        fn entry(&self, _: &Path) -> Option<Entry> {
            None
        }
        fn user(&self, name: &str) -> Option<u32> {
            self.0.user(name)
        }
        fn group(&self, name: &str) -> Option<u32> {
            self.0.group(name)
        }
    }
    let root = PathBuf::from("/");
    let kind = String::new();
    Host {
        mounts: vec![Mount { id: 1, parent: 1, device: OWN_ROOT, root: root.clone(), point: root, kind }],
        resolvers: host.resolvers.clone(),
        protected: host.protected.clone(),
        undecided: host.undecided,
        artifacts: Arc::clone(&host.artifacts),
        lookup: Arc::new(Blind(Arc::clone(&host.lookup))),
    }
}

/// The mounts of the agent's mount namespace, ready for look-ups.
pub(super) struct Mounts<'a> {
    mounts: &'a [Mount],
    root: Option<usize>,
    /// (mount it is on, where) → the mount on top.
    on: HashMap<(u32, &'a Path), usize>,
}

impl<'a> Mounts<'a> {
    pub(super) fn new(mounts: &'a [Mount]) -> Self {
        let mut on = HashMap::new();
        for (index, mount) in mounts.iter().enumerate() {
            // Of two mounts on the same place the later one is on top.
            on.insert((mount.parent, mount.point.as_path()), index);
        }
        let known = |id: u32| mounts.iter().any(|mount| mount.id == id);
        let root = mounts
            .iter()
            .position(|mount| {
                mount.point == Path::new("/") && (mount.parent == mount.id || !known(mount.parent))
            })
            .or_else(|| mounts.iter().position(|mount| mount.point == Path::new("/")));
        Self { mounts, root, on }
    }

    /// The mount that `path` lies on.
    fn mount(&self, path: &Path) -> Option<usize> {
        let mut current = self.stacked(self.root?, Path::new("/"));
        let mut passed = PathBuf::from("/");
        for component in path.components().filter(|component| *component != Component::RootDir) {
            passed.push(component);
            current = self.stacked(current, &passed);
        }
        Some(current)
    }

    /// The mount on top of everything that is mounted at `point`, which lies on `mount`.
    fn stacked(&self, mut mount: usize, point: &Path) -> usize {
        for _ in 0..self.mounts.len() {
            match self.on.get(&(self.mounts[mount].id, point)) {
                Some(next) if *next != mount => mount = *next,
                _ => break,
            }
        }
        mount
    }

    /// The place of `path`, which holds no symbolic links. It need not exist.
    pub(super) fn locate(&self, path: &Path) -> Option<Place> {
        let mount = &self.mounts[self.mount(path)?];
        let rest = path.strip_prefix(&mount.point).ok()?;
        let path = if rest.as_os_str().is_empty() { mount.root.clone() } else { mount.root.join(rest) };
        Some(Place { device: mount.device, path })
    }

    /// The mounts that can be reached: those that nothing hides.
    pub(super) fn visible(&self) -> impl Iterator<Item = &'a Mount> {
        self.mounts
            .iter()
            .enumerate()
            .filter(|(index, mount)| self.mount(&mount.point) == Some(*index))
            .map(|(_, mount)| mount)
    }

    /// Device numbers of all file systems that are mounted anywhere, hidden ones included.
    pub(super) fn devices(&self) -> impl Iterator<Item = u32> {
        self.mounts.iter().map(|mount| mount.device)
    }
}

/// What became of a literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// The path without symbolic links.
    pub(super) path: PathBuf,
    /// The links that were followed.
    pub(super) links: Vec<PathBuf>,
}

/// Symbolic links that are followed in one literal, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Follows the symbolic links of `path`. Only root can have made or replaced a link that is
/// followed; any other is an error, because whoever can point it elsewhere could choose what
/// policy means.
pub(super) fn resolve(host: &Host, path: &Path) -> Result<Resolved, (String, String)> {
    let mut links = Vec::new();
    let mut done = PathBuf::from("/");
    let mut root_only = matches!(host.lookup.entry(&done), None | Some(Entry::Directory { root_only: true }));
    let mut rest: Vec<std::ffi::OsString> = reversed(path);
    // Whether the directories so far can be changed by root only, to go back to on `..`.
    let mut history = Vec::new();
    while let Some(component) = rest.pop() {
        if component == ".." {
            done.pop();
            root_only = history.pop().unwrap_or(root_only);
            continue;
        }
        let next = done.join(&component);
        if next == Path::new("/proc/self") || next == Path::new("/proc/thread-self") {
            return Err((
                format!("{} is another directory for every process", next.display()),
                "write `resource in Guard::Dir::\"guard:own-proc\"`".into(),
            ));
        }
        match host.lookup.entry(&next) {
            Some(Entry::Link { target, root_owned }) => {
                if !(root_owned && root_only) {
                    return Err((
                        format!("{} is a symbolic link that others than root can change", next.display()),
                        format!("name what it leads to: {}", done.join(&target).display()),
                    ));
                }
                if links.len() == MAX_LINKS {
                    return Err((
                        format!("{} has too many symbolic links", path.display()),
                        "name what it leads to".into(),
                    ));
                }
                if target.is_absolute() {
                    done = PathBuf::from("/");
                    history.clear();
                    root_only =
                        matches!(host.lookup.entry(&done), None | Some(Entry::Directory { root_only: true }));
                }
                links.push(next);
                rest.extend(reversed(&target));
            }
            Some(Entry::Directory { root_only: here }) => {
                history.push(root_only);
                root_only &= here;
                done = next;
            }
            // What does not exist yet may be made by whoever may write to the directory; then it
            // is judged by its name, and it stays a plain name until the next compilation.
            Some(Entry::Other) | None => {
                history.push(root_only);
                done = next;
            }
        }
    }
    Ok(Resolved { path: done, links })
}

/// The named components of `path`, last first, with `..`.
fn reversed(path: &Path) -> Vec<std::ffi::OsString> {
    let mut components: Vec<_> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    components.reverse();
    components
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Fixed, parse_mounts};
    use std::sync::Arc;

    fn place(mounts: &[Mount], path: &str) -> (u32, String) {
        let place = Mounts::new(mounts).locate(Path::new(path)).unwrap();
        (place.device & 0xff, place.path.display().to_string())
    }

    #[test]
    fn the_top_mount_of_the_longest_point_holds_a_path() {
        let mounts = parse_mounts(
            b"1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /home rw - ext4 b rw\n3 1 0:1 /srv/data /mnt rw - ext4 a rw\n\
              4 2 0:4 / /home/x rw - tmpfs c rw\n5 2 0:5 / /home rw - tmpfs d rw\n",
        );
        assert_eq!(place(&mounts, "/etc/passwd"), (1, "/etc/passwd".into()));
        assert_eq!(place(&mounts, "/mnt/a"), (1, "/srv/data/a".into()));
        assert_eq!(place(&mounts, "/mnt"), (1, "/srv/data".into()));
        assert_eq!(place(&mounts, "/home/x/y"), (5, "/x/y".into()), "mount 5 hides 2 and 4");
        let visible: Vec<_> = Mounts::new(&mounts).visible().map(|mount| mount.id).collect();
        assert_eq!(visible, [1, 3, 5]);
    }

    fn host(entries: &[(&str, Entry)]) -> Host {
        let entries = entries.iter().map(|(path, entry)| (path.into(), entry.clone())).collect();
        Host {
            mounts: Vec::new(),
            resolvers: Vec::new(),
            protected: Vec::new(),
            undecided: 0,
            artifacts: Arc::default(),
            lookup: Arc::new(Fixed { entries, ..Fixed::default() }),
        }
    }

    #[test]
    fn only_links_that_root_controls_are_followed() {
        let dir = |root_only| Entry::Directory { root_only };
        let link = |target: &str, root_owned| Entry::Link { target: target.into(), root_owned };
        let host = host(&[
            ("/", dir(true)),
            ("/usr", dir(true)),
            ("/usr/bin", dir(true)),
            ("/bin", link("usr/bin", true)),
            ("/usr/bin/py", link("../bin/py3", true)),
            ("/home", dir(true)),
            ("/home/ann", dir(false)),
            ("/home/ann/link", link("/etc", true)),
            ("/tmp", dir(false)),
            ("/tmp/link", link("/etc", true)),
        ]);
        let resolved = resolve(&host, Path::new("/bin/py")).unwrap();
        assert_eq!(resolved.path, Path::new("/usr/bin/py3"));
        assert_eq!(resolved.links, [Path::new("/bin"), Path::new("/usr/bin/py")]);
        assert!(resolve(&host, Path::new("/home/ann/link/shadow")).is_err());
        assert!(resolve(&host, Path::new("/tmp/link")).is_err());
        assert_eq!(resolve(&host, Path::new("/srv/not/yet")).unwrap().path, Path::new("/srv/not/yet"));
        assert!(resolve(&host, Path::new("/proc/self/maps")).is_err());
    }
}
