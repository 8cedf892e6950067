//! Paths as names from a file system's root: keys of the trie and the state of a walk.
//!
//! A literal compiles to edges `(node, component) → node`. A component longer than a chunk is a
//! chain of edges, so that keys have one small size and every comparison is exact: there is no
//! hashing of names that could collide.

use zerocopy::{Immutable, IntoBytes};

/// Bytes of a component that one edge can hold.
pub const CHUNK: usize = 24;
/// Components, counted from the file system's root, that the trie looks at. A literal with more
/// is a compile error; a file that lies deeper is judged by its first `MAX_COMPONENTS`.
pub const MAX_COMPONENTS: usize = 64;
/// Ancestors a walk follows before it gives up and denies.
pub const MAX_ANCESTORS: u32 = 4096;

/// Set in [`EdgeKey::tag`] when the component goes on in another chunk.
pub const TAG_MORE: u32 = 1 << 8;

/// Tag of the edges that say what a subject becomes by executing the file of a node. The bytes are the
/// number of the subject in native byte order; the value is the successor's, with [`SUCCESSOR_WIDENS`] and
/// [`SUCCESSOR_SECURE`]. No name has this tag.
pub const TAG_SUCCESSOR: u32 = 1 << 9;
/// The successor may do what the subject may not.
pub const SUCCESSOR_WIDENS: u32 = 1 << 31;
/// The program is told that it must not trust its environment (`AT_SECURE`).
pub const SUCCESSOR_SECURE: u32 = 1 << 30;

/// The node whose edges are file systems: the chunk is `s_dev` in native byte order.
pub const NODE_FILE_SYSTEMS: u32 = 0;
/// The node whose edges are the names that policy asks for at any depth. The value of a complete
/// component is the index of its feature bit, not a node.
pub const NODE_NAMES: u32 = 1;
/// The node whose edges are abstract unix socket names, without the leading zero byte.
pub const NODE_ABSTRACT: u32 = 2;
/// First node the compiler may use.
pub const FIRST_NODE: u32 = 3;

/// In the place of a device number: the root that a task had when its label was attached, of which
/// literals of subjects with a root of their own count. No device has this number, because the kernel has
/// no major number that is all ones.
pub const OWN_ROOT: u32 = u32::MAX;

/// Key of an edge.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, IntoBytes, Immutable)]
pub struct EdgeKey {
    /// The node the edge leaves.
    pub node: u32,
    /// Number of bytes used in `bytes`, plus [`TAG_MORE`].
    pub tag: u32,
    /// The bytes, padded with zeros.
    pub bytes: [u8; CHUNK],
}

impl EdgeKey {
    /// The key of what `subject` becomes by executing the file of `node`.
    #[inline(always)]
    pub const fn successor(node: u32, subject: u32) -> Self {
        let mut bytes = [0; CHUNK];
        let number = subject.to_ne_bytes();
        bytes[0] = number[0];
        bytes[1] = number[1];
        bytes[2] = number[2];
        bytes[3] = number[3];
        Self { node, tag: TAG_SUCCESSOR, bytes }
    }
}

/// One remembered dentry of a walk.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Step {
    /// Address of the dentry.
    pub dentry: u64,
    /// Its sequence count when its parent was read (`dentry.d_seq`).
    pub sequence: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
}

/// The dentries of the last walk, and the state of the loop that is walking.
///
/// Loop state lives here, in map memory, and not on the stack: the verifier follows the values of
/// the stack through every iteration, while it takes map memory for anything and so checks the
/// body of a loop once.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Walk {
    /// The ring: entry `i % MAX_COMPONENTS` is the `i`-th dentry from the leaf.
    pub steps: [Step; MAX_COMPONENTS],
    /// First bytes of the last component, for patterns.
    pub front: [u64; 4],
    /// Last bytes of the last component, right-aligned in the first 24; the rest is room for the
    /// verifier's bound.
    pub back: [u64; 8],
    /// The dentry to look at next.
    pub dentry: u64,
    /// Its parent.
    pub parent: u64,
    /// Address of the name that is being followed.
    pub name: u64,
    /// Address of the sequence count that must not change meanwhile.
    pub sequence_at: u64,
    /// Features that the names of the directories give, so far.
    pub features: u64,
    /// Features that the last component gives.
    pub leaf_features: u64,
    /// The dentry whose name is the last component.
    pub leaf: u64,
    /// The dentry that the walk begins with: `leaf`, or what is mounted there.
    pub first: u64,
    /// The kernel's `struct mount` that the walk begins on, or 0 if the hook does not say; for a walk to
    /// the label's own root.
    pub first_mount: u64,
    /// The mount that the walk is on, or 0.
    pub mount: u64,
    /// Dentry of the root that the walk is to end at, and that directory's inode; 0 = none.
    pub anchor: u64,
    /// See `anchor`.
    pub anchor_inode: u64,
    /// The generation whose trie is followed.
    pub generation: u64,
    /// The directory it lies in, and that directory's inode.
    pub directory: u64,
    /// See `directory`.
    pub directory_inode: u64,
    /// How many inodes of directories had been freed when the walk began.
    pub freed: u64,
    /// How many dentries were passed, the root of the file system not counted.
    pub count: u32,
    /// Device number of the file system (`super_block.s_dev`).
    pub device: u32,
    /// Node reached, possibly in the middle of a component.
    pub node: u32,
    /// Node reached at the end of a component.
    pub complete: u32,
    /// Node of the directory; 0 = the trie ends above it or there.
    pub directory_node: u32,
    /// The kernel's count of renames when the walk began.
    pub renames: u32,
    /// What the walk has to do with remembered directories; the meaning belongs to the walking program.
    pub memory: u32,
    /// Components not yet followed; 0 after the walk: the path ends at a node, so policy names it or
    /// something below it.
    pub remaining: u32,
    /// Value of `remaining` at which the ring has no more components.
    pub floor: u32,
    /// Length of the name that is being followed.
    pub length: u32,
    /// How much of it was followed.
    pub offset: u32,
    /// Value of the sequence count when the parent was read.
    pub sequence: u32,
    /// Where the walk stands; the meaning belongs to the walking program.
    pub state: u32,
    /// Class of the path, once the walk is over.
    pub class: u32,
    /// Subject that executing the file attaches, once the walk is over.
    pub exec_subject: u32,
    /// `NODE_*` flags of the file itself or [`WALK_APART`], once the walk is over.
    pub flags: u32,
    /// Times that this walk began anew because something was renamed.
    pub attempts: u32,
    /// First entry that a binary search still considers.
    pub found: u32,
    /// Distance of the next entry that a binary search tries.
    pub step: u32,
    /// Slot of the generation's tables.
    pub slot: u32,
    /// Whether policy asks for names at any depth; 0 = no.
    pub names: u32,
    /// How many patterns of last components there are.
    pub patterns: u32,
    /// Where the walk ends; the meaning belongs to the walking program.
    pub way: u32,
    /// The kernel's count of changes to mounts when the walk began.
    pub mounts: u32,
    /// Components that lie on the file system of the file itself, where the walk went on above it; else
    /// `u32::MAX`.
    pub inside: u32,
    /// Mount points that the walk passed.
    pub crossed: u32,
}

/// What is remembered of one directory: where the trie stands after its last name.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Directory {
    /// 1 while the entry is written.
    pub busy: u64,
    /// How often it was written.
    pub version: u64,
    /// Address of the dentry.
    pub dentry: u64,
    /// Address of its inode.
    pub inode: u64,
    /// Number of the generation whose trie was followed.
    pub generation: u64,
    /// How many inodes of directories had been freed before the walk.
    pub freed: u64,
    /// Features that the names on the way give, that of the directory included.
    pub features: u64,
    /// The kernel's count of renames before the walk.
    pub renames: u32,
    /// The node reached; 0 = the trie ends before.
    pub node: u32,
    /// Class of what lies below and has no node of its own.
    pub class: u32,
    /// Subject that executing such a file attaches; 0 = none.
    pub exec_subject: u32,
    /// Device number of the file system.
    pub device: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
}

/// A trie node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
pub struct Node {
    /// Class of the path that ends at this node.
    pub exact: u32,
    /// Class of every path below this node that has no node of its own.
    pub below: u32,
    /// Subject attached by executing this very file; 0 = none.
    pub exec_subject: u32,
    /// Subject attached by executing a file below this directory; 0 = none.
    pub exec_subject_below: u32,
    /// `NODE_*` flags of the path that ends at this node.
    pub flags: u32,
    /// `NODE_*` flags of every path below this node that has no node of its own.
    pub flags_below: u32,
}

/// Executing this file never attaches a label: the service manager and its helper set up the
/// sandbox of a unit inside the unit's cgroup, before the unit's own program runs.
pub const NODE_NEVER_SELECTS: u32 = 1;
/// A flag of a node: executing exactly this file makes some subject another one, see [`TAG_SUCCESSOR`].
pub const NODE_SUCCESSORS: u32 = 2;
/// The place belongs to Guard itself, or is one that Guard protects on every host: it is nothing for a
/// subject with a root of its own, whatever that calls it.
pub const NODE_GUARDS_OWN: u32 = 4;

/// Among the flags of a walk: the file is not connected to its file system's root, so its names say
/// nothing.
pub const WALK_APART: u32 = 1 << 31;

/// Longest prefix or suffix of a name pattern, in bytes.
pub const PATTERN_MAX: usize = 24;

/// A pattern over the last component: `prefix*suffix`, either part may be empty.
///
/// Bytes are compared as little-endian words under a mask, the prefix from the front of the name,
/// the suffix from its end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
pub struct Pattern {
    /// Wanted bytes at the front.
    pub prefix: [u64; 3],
    /// Which of them count.
    pub prefix_mask: [u64; 3],
    /// Wanted bytes at the end, right-aligned in 24 bytes.
    pub suffix: [u64; 3],
    /// Which of them count.
    pub suffix_mask: [u64; 3],
    /// Shortest name that can match: prefix plus suffix.
    pub min_len: u32,
    /// Longest name that can match: equal to `min_len` for an exact name, else `u32::MAX`.
    pub max_len: u32,
    /// Index of the feature bit that a match sets.
    pub bit: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
}

impl Pattern {
    /// Whether a name of `len` bytes with these 24 first and 24 last bytes matches. Bytes of
    /// `front` beyond the name and of `back` before it must be zero.
    #[inline(always)]
    pub fn matches(&self, front: &[u64; 3], back: &[u64; 3], len: u32) -> bool {
        if len < self.min_len || len > self.max_len {
            return false;
        }
        let mut difference = 0;
        difference |= (front[0] ^ self.prefix[0]) & self.prefix_mask[0];
        difference |= (front[1] ^ self.prefix[1]) & self.prefix_mask[1];
        difference |= (front[2] ^ self.prefix[2]) & self.prefix_mask[2];
        difference |= (back[0] ^ self.suffix[0]) & self.suffix_mask[0];
        difference |= (back[1] ^ self.suffix[1]) & self.suffix_mask[1];
        difference |= (back[2] ^ self.suffix[2]) & self.suffix_mask[2];
        difference == 0
    }

    /// The pattern `prefix*suffix`, or exactly `prefix` + `suffix` if `exact`. `None` if a part is
    /// longer than [`PATTERN_MAX`].
    pub fn new(prefix: &[u8], suffix: &[u8], exact: bool, bit: u32) -> Option<Self> {
        if prefix.len() > PATTERN_MAX || suffix.len() > PATTERN_MAX {
            return None;
        }
        let min_len = (prefix.len() + suffix.len()) as u32;
        let (prefix, prefix_mask) = words(prefix, 0);
        let (suffix, suffix_mask) = words(suffix, PATTERN_MAX - suffix.len());
        let max_len = if exact { min_len } else { u32::MAX };
        Some(Self { prefix, prefix_mask, suffix, suffix_mask, min_len, max_len, bit, reserved: 0 })
    }
}

/// `bytes` placed at `offset` in 24 bytes, as words, and the mask of the bytes in use.
fn words(bytes: &[u8], offset: usize) -> ([u64; 3], [u64; 3]) {
    let (mut value, mut mask) = ([0u64; 3], [0u64; 3]);
    for (index, byte) in bytes.iter().enumerate() {
        let (word, shift) = ((offset + index) / 8, (offset + index) % 8 * 8);
        value[word] |= u64::from(*byte) << shift;
        mask[word] |= 0xff << shift;
    }
    (value, mask)
}

/// The front and back words of a name, as [`Pattern::matches`] wants them.
pub fn name_words(name: &[u8]) -> ([u64; 3], [u64; 3]) {
    let front = &name[..name.len().min(PATTERN_MAX)];
    let back = &name[name.len() - front.len()..];
    (words(front, 0).0, words(back, PATTERN_MAX - back.len()).0)
}

/// The edge keys of one component that leaves `node`, given the nodes between its chunks.
pub fn chunks(component: &[u8]) -> impl Iterator<Item = (u32, [u8; CHUNK])> + '_ {
    let last = component.len().div_ceil(CHUNK).saturating_sub(1);
    component.chunks(CHUNK).enumerate().map(move |(index, part)| {
        let mut bytes = [0; CHUNK];
        bytes[..part.len()].copy_from_slice(part);
        (part.len() as u32 | if index < last { TAG_MORE } else { 0 }, bytes)
    })
}

const _: () = {
    assert!(size_of::<EdgeKey>() == 32);
    assert!(size_of::<Node>() == 24);
    assert!(size_of::<Pattern>() == 112);
    assert!(size_of::<Walk>() == 16 * MAX_COMPONENTS + 328);
    assert!(PATTERN_MAX == CHUNK);
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_component_splits_into_chunks_that_only_it_has() {
        let exactly: Vec<_> = chunks(&[b'a'; 24]).collect();
        assert_eq!(exactly, [(24, [b'a'; 24])]);
        let longer: Vec<_> = chunks(&[b'a'; 25]).map(|(tag, _)| tag).collect();
        assert_eq!(longer, [24 | TAG_MORE, 1]);
    }

    #[test]
    fn patterns_compare_bytes_at_both_ends() {
        let pattern = Pattern::new(b".env", b"", false, 0).unwrap();
        let hit = |pattern: &Pattern, name: &[u8]| {
            let (front, back) = name_words(name);
            pattern.matches(&front, &back, name.len() as u32)
        };
        assert!(hit(&pattern, b".env.local") && hit(&pattern, b".env"));
        assert!(!hit(&pattern, b".en") && !hit(&pattern, b"x.env"));
        let pattern = Pattern::new(b"key", b".pem", false, 0).unwrap();
        assert!(hit(&pattern, b"key-and-a-name-of-more-than-24-bytes.pem"));
        assert!(!hit(&pattern, b"ke.pem"));
        let pattern = Pattern::new(b"id_rsa", b"", true, 0).unwrap();
        assert!(hit(&pattern, b"id_rsa") && !hit(&pattern, b"id_rsa.pub"));
    }
}
