//! The trie of path literals: edges from names to nodes, nodes with the classes of what ends at
//! them and below them.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use guard_common::class::Class;
use guard_common::path::{
    CHUNK, EdgeKey, FIRST_NODE, NODE_ABSTRACT, NODE_FILE_SYSTEMS, NODE_NAMES, NODE_SUCCESSORS, Node, chunks,
};

use super::classes::{Classes, Sort};
use super::formula::AtomId;
use super::places::Place;

/// A node while literals are added.
#[derive(Clone, Debug, Default)]
struct Draft {
    children: Vec<u32>,
    /// The node is the middle of a component that does not fit one edge.
    partial: bool,
    at: BTreeSet<AtomId>,
    below: BTreeSet<AtomId>,
    exec_subject: u32,
    exec_subject_below: u32,
    flags: u32,
    flags_below: u32,
}

/// The trie while it is built.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Draft>,
    edges: HashMap<EdgeKey, u32>,
    roots: HashMap<u32, u32>,
    /// What subjects become by executing files.
    successors: HashMap<EdgeKey, u32>,
}

impl Trie {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Draft::default(); FIRST_NODE as usize],
            edges: HashMap::new(),
            roots: HashMap::new(),
            successors: HashMap::new(),
        }
    }

    /// The node of a file system's root.
    pub(super) fn root(&mut self, device: u32) -> u32 {
        if let Some(node) = self.roots.get(&device) {
            return *node;
        }
        let mut bytes = [0; CHUNK];
        bytes[..4].copy_from_slice(&device.to_ne_bytes());
        let node = self.child(EdgeKey { node: NODE_FILE_SYSTEMS, tag: 4, bytes }, false);
        self.roots.insert(device, node);
        node
    }

    fn child(&mut self, key: EdgeKey, partial: bool) -> u32 {
        if let Some(node) = self.edges.get(&key) {
            return *node;
        }
        let node = self.nodes.len() as u32;
        self.nodes.push(Draft { partial, ..Draft::default() });
        self.nodes[key.node as usize].children.push(node);
        self.edges.insert(key, node);
        node
    }

    /// The node that one component leads to from `node`.
    fn component(&mut self, mut node: u32, component: &[u8]) -> u32 {
        for (tag, bytes) in chunks(component) {
            let partial = tag & guard_common::path::TAG_MORE != 0;
            node = self.child(EdgeKey { node, tag, bytes }, partial);
        }
        node
    }

    /// The node of a place.
    pub(super) fn node(&mut self, place: &Place) -> u32 {
        let mut node = self.root(place.device);
        for component in names(&place.path) {
            node = self.component(node, component);
        }
        node
    }

    /// `atom` holds for exactly this place.
    pub(super) fn cover_at(&mut self, place: &Place, atom: AtomId) {
        let node = self.node(place);
        self.nodes[node as usize].at.insert(atom);
    }

    /// `atom` holds for this place and everything below it.
    pub(super) fn cover_below(&mut self, place: &Place, atom: AtomId) {
        let node = self.node(place);
        self.nodes[node as usize].below.insert(atom);
    }

    /// An abstract socket name of its own.
    pub(super) fn cover_abstract(&mut self, name: &str, atom: AtomId) {
        let node = self.component(NODE_ABSTRACT, name.as_bytes());
        self.nodes[node as usize].at.insert(atom);
    }

    /// Executing `place`, or what lies below it, attaches `subject`. Returns another subject that
    /// already claims it.
    pub(super) fn select(&mut self, place: &Place, below: bool, subject: u32) -> Option<u32> {
        let node = self.node(place);
        let draft = &mut self.nodes[node as usize];
        let claim = if below { &mut draft.exec_subject_below } else { &mut draft.exec_subject };
        let before = std::mem::replace(claim, subject);
        (before != 0 && before != subject).then_some(before)
    }

    /// Executing `place` makes `subject` what `value` says (`TAG_SUCCESSOR`). False if it makes it something
    /// else already.
    pub(super) fn succeed(&mut self, place: &Place, subject: u32, value: u32) -> bool {
        let node = self.node(place);
        self.nodes[node as usize].flags |= NODE_SUCCESSORS;
        let before = self.successors.insert(EdgeKey::successor(node, subject), value);
        before.is_none_or(|before| before == value)
    }

    /// Sets flags of a node.
    pub(super) fn flag(&mut self, place: &Place, flags: u32) {
        let node = self.node(place);
        self.nodes[node as usize].flags |= flags;
    }

    /// Sets flags of a node and of everything below it.
    pub(super) fn flag_below(&mut self, place: &Place, flags: u32) {
        let node = self.node(place);
        self.nodes[node as usize].flags_below |= flags;
    }

    /// The classes of the finished trie. `names` are the names that policy asks for at any depth,
    /// with their feature bits.
    pub(super) fn finish(
        mut self,
        classes: &mut Classes,
        names: &[(String, u32)],
    ) -> (Vec<(EdgeKey, u32)>, Vec<Node>) {
        let mut finished = vec![Node::default(); self.nodes.len()];
        let other = classes.intern(Sort::Path, Vec::new());
        let abstracts = classes.intern(Sort::Abstract, Vec::new());
        finished[NODE_ABSTRACT as usize] = Node { exact: abstracts, below: abstracts, ..Node::default() };
        let mut pending: Vec<(u32, Above)> = Vec::new();
        let start = |sort, class| Above { cover: BTreeSet::new(), sort, class, exec_subject: 0, flags: 0 };
        pending.extend(
            self.nodes[NODE_FILE_SYSTEMS as usize]
                .children
                .iter()
                .map(|node| (*node, start(Sort::Path, other))),
        );
        pending.extend(
            self.nodes[NODE_ABSTRACT as usize]
                .children
                .iter()
                .map(|node| (*node, start(Sort::Abstract, abstracts))),
        );
        while let Some((number, mut above)) = pending.pop() {
            let draft = &self.nodes[number as usize];
            if !draft.below.is_empty() {
                above.cover.extend(&draft.below);
                above.class = classes.intern(above.sort, above.cover.iter().copied().collect());
            }
            let exact = if draft.at.is_empty() {
                above.class
            } else {
                classes.intern(above.sort, above.cover.union(&draft.at).copied().collect())
            };
            if draft.exec_subject_below != 0 {
                above.exec_subject = draft.exec_subject_below;
            }
            above.flags |= draft.flags_below;
            finished[number as usize] = Node {
                exact: if draft.partial { above.class } else { exact },
                below: above.class,
                exec_subject: if draft.exec_subject != 0 { draft.exec_subject } else { above.exec_subject },
                exec_subject_below: above.exec_subject,
                flags: draft.flags | above.flags,
                flags_below: above.flags,
            };
            pending.extend(draft.children.iter().map(|child| (*child, above.clone())));
        }
        self.nodes.clear();
        let mut edges: Vec<(EdgeKey, u32)> = self.edges.into_iter().collect();
        // Names at any depth have edges of their own; only the middle of a long name has a node.
        let mut middle: HashMap<EdgeKey, u32> = HashMap::new();
        for (name, bit) in names {
            let mut node = NODE_NAMES;
            for (tag, bytes) in chunks(name.as_bytes()) {
                let key = EdgeKey { node, tag, bytes };
                if tag & guard_common::path::TAG_MORE == 0 {
                    edges.push((key, *bit));
                } else {
                    node = *middle.entry(key).or_insert_with(|| {
                        finished.push(Node::default());
                        finished.len() as u32 - 1
                    });
                }
            }
        }
        edges.extend(middle);
        edges.extend(self.successors);
        edges.sort_by_key(|(key, _)| (key.node, key.tag, key.bytes));
        (edges, finished)
    }
}

/// What the nodes above hand down.
#[derive(Clone)]
struct Above {
    cover: BTreeSet<AtomId>,
    sort: Sort,
    class: Class,
    exec_subject: u32,
    flags: u32,
}

/// The named components of a path.
pub(super) fn names(path: &Path) -> impl Iterator<Item = &[u8]> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.as_bytes()),
        _ => None,
    })
}
