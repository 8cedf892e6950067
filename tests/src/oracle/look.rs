//! Where the paths of an operation lead at the moment before it, as the kernel would follow them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::libc;

use crate::operation::Operation;
use crate::tree::{INTERPRETER, depth, join};

/// How many symbolic links are followed, and how many interpreters.
const MANY: usize = 8;

/// What is at a place.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// `S_IFMT`.
    pub(crate) kind: u32,
    pub(crate) inode: u64,
    pub(crate) device: u64,
}

/// A place in a tree, with or without something there.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Without links, seen from the tree's root; the root itself is empty.
    pub(crate) path: String,
    /// Inodes of the directories above, the root first.
    pub(crate) above: Vec<u64>,
    pub(crate) object: Option<Object>,
}

impl Place {
    /// The directory that the place is in.
    pub(crate) fn directory(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(directory, _)| directory)
    }

    /// What kind of thing is here.
    pub(crate) fn kind(&self) -> Option<u32> {
        self.object.as_ref().map(|object| object.kind)
    }

    /// The same place as what lies in it sees it.
    pub(crate) fn inside(&self) -> Self {
        let mut above = self.above.clone();
        above.extend(self.object.as_ref().map(|object| object.inode));
        Self { path: join(&self.path, "#"), above, object: None }
    }
}

/// What an operation is about. A place is missing where a path leads nowhere, so that the kernel fails
/// before it asks anybody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// The path, or the first one of two.
    pub(crate) first: Option<Place>,
    /// The second path.
    pub(crate) second: Option<Place>,
    /// The programs that execute what is at the first path.
    pub(crate) interpreters: Vec<Place>,
}

impl Look {
    /// Looks at the tree at `root`.
    pub(crate) fn at(root: &Path, operation: &Operation) -> Self {
        let (first, second) = operation.paths();
        let follows = operation.follows();
        let first = first.and_then(|path| place(root, path, follows));
        let second = second.and_then(|path| place(root, path, false));
        let mut interpreters = Vec::new();
        if matches!(operation, Operation::Execute { .. }) {
            let mut now = first.clone();
            while let Some(place) = now.filter(|_| interpreters.len() < MANY) {
                now = interpreter(root, &place);
                interpreters.extend(now.clone());
            }
        }
        Self { first, second, interpreters }
    }
}

/// The interpreter that the program at a place asks for.
fn interpreter(root: &Path, program: &Place) -> Option<Place> {
    if program.kind() != Some(libc::S_IFREG) {
        return None;
    }
    let content = fs::read(root.join(&program.path)).ok()?;
    let name = INTERPRETER.as_bytes();
    let asks = content.starts_with(b"#!") || content.starts_with(b"\x7fELF");
    if asks && content.windows(name.len()).any(|part| part == name) {
        self::place(root, INTERPRETER, true)
    } else {
        None
    }
}

/// Follows a path from the root of a tree; nothing if it leads out of it.
fn place(root: &Path, path: &str, follow: bool) -> Option<Place> {
    let top = fs::symlink_metadata(root).ok()?.ino();
    let mut here = Place { path: String::new(), above: Vec::new(), object: None };
    let mut left: Vec<String> = path.rsplit('/').filter(|part| !part.is_empty()).map(Into::into).collect();
    // Inode of the directory that `here` is.
    let mut inodes = vec![top];
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == "." {
            continue;
        }
        if name == ".." {
            if inodes.len() == 1 {
                return None;
            }
            inodes.pop();
            here.path = here.directory().to_owned();
            continue;
        }
        let found = join(&here.path, &name);
        let data = fs::symlink_metadata(root.join(&found)).ok();
        let is_last = left.is_empty();
        if let Some(data) = &data {
            let kind = data.mode() & libc::S_IFMT;
            if kind == libc::S_IFLNK && (!is_last || follow) {
                links += 1;
                let target = fs::read_link(root.join(&found)).ok()?;
                let target = target.to_str().filter(|target| !target.starts_with('/') && links < MANY)?;
                left.extend(target.rsplit('/').filter(|part| !part.is_empty()).map(str::to_owned));
                continue;
            }
            if kind == libc::S_IFDIR && !is_last {
                inodes.push(data.ino());
                here.path = found;
                continue;
            }
        }
        if !is_last {
            return None;
        }
        let object = data.map(|data| Object {
            kind: data.mode() & libc::S_IFMT,
            inode: data.ino(),
            device: data.rdev(),
        });
        return Some(Place { path: found, above: inodes, object });
    }
    // It ended at a directory that was walked through.
    let inode = inodes.pop()?;
    let object = Some(Object { kind: libc::S_IFDIR, inode, device: 0 });
    debug_assert_eq!(inodes.len(), depth(&here.path));
    Some(Place { path: here.path, above: inodes, object })
}
