//! Regions: the parts of the world that no literal divides further.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use guard_common::class::{self, Class, FIRST_COMPILED, UNKNOWN};
use guard_common::path::{EdgeKey, NODE_ABSTRACT, NODE_FILE_SYSTEMS, Node, TAG_MORE, TAG_SUCCESSOR};
use guard_common::tables::{Net4, Net6};

use crate::policy::classes::{Classes, Sort};
use crate::policy::kind::Kind;
use crate::policy::places::Place;
use crate::policy::trie::names;

/// Where a region lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// Exactly one path, by its file system's device number and the path from its root.
    At(u32, PathBuf),
    /// Everything below a path that is no other region.
    Below(u32, PathBuf),
    /// IPv4 addresses, first and last.
    V4(u32, u32),
    /// IPv6 addresses, first and last.
    V6(u128, u128),
    /// One abstract socket name.
    Abstract(String),
    /// Every other abstract socket name.
    OtherAbstract,
    /// A built-in class.
    Builtin(Class),
    /// A file system that no generation has classified.
    Unclassified,
}

/// One region and its class in the tables over all literals.
#[derive(Clone, Debug)]
pub(super) struct Region {
    pub(super) spot: Where,
    pub(super) class: Class,
}

impl Region {
    /// The types of resources that can lie there.
    pub(super) fn kinds(&self, sort: Sort) -> Vec<Kind> {
        let only: &[Kind] = match self.spot {
            Where::Builtin(class::STDIO | class::TERMINAL) => &[Kind::File],
            Where::Builtin(class::OWN_PROC | class::OWN_CGROUP) => &[Kind::File, Kind::Dir],
            Where::Builtin(class::OWN_TMPFS) => &[Kind::File, Kind::Dir, Kind::Unix],
            Where::Builtin(class::OWN_ANONYMOUS) => &[Kind::File, Kind::Unix],
            Where::Builtin(class::UNNAMED_UNIX) => &[Kind::Unix],
            _ => &Kind::ALL,
        };
        let sort = if self.spot == Where::Unclassified { Sort::Path } else { sort };
        only.iter().copied().filter(|kind| sort.admits(*kind)).collect()
    }

    /// The components on its path, and whether they are all: otherwise more follow.
    pub(super) fn components(&self) -> (Vec<&[u8]>, bool) {
        match &self.spot {
            Where::At(_, path) => (names(path).collect(), true),
            Where::Below(_, path) => (names(path).collect(), false),
            _ => (Vec::new(), false),
        }
    }

    /// The place of a region of paths, and whether it is everything below it.
    pub(super) fn place(&self) -> Option<(Place, bool)> {
        let place = |device: &u32, path: &Path| Place { device: *device, path: path.to_owned() };
        match &self.spot {
            Where::At(device, path) => Some((place(device, path), false)),
            Where::Below(device, path) => Some((place(device, path), true)),
            _ => None,
        }
    }
}

/// All regions: built-in classes, paths, abstract names, addresses.
pub(super) fn all(
    classes: &Classes,
    edges: &[(EdgeKey, u32)],
    nodes: &[Node],
    net4: &[Net4],
    net6: &[Net6],
) -> Vec<Region> {
    let mut found = vec![Region { spot: Where::Unclassified, class: UNKNOWN }];
    found.extend(
        (1..FIRST_COMPILED)
            .filter(|number| classes.list()[*number as usize].sort != Sort::Unused)
            .map(|class| Region { spot: Where::Builtin(class), class }),
    );
    paths(edges, nodes, &mut found);
    let ends = |start: Option<u128>, last: u128| start.map_or(last, |start| start - 1);
    for (index, range) in net4.iter().enumerate() {
        let end = ends(net4.get(index + 1).map(|next| next.start.into()), u32::MAX.into());
        found.push(Region { spot: Where::V4(range.start, end as u32), class: range.class });
    }
    let start = |range: &Net6| u128::from(range.high) << 64 | u128::from(range.low);
    for (index, range) in net6.iter().enumerate() {
        let end = ends(net6.get(index + 1).map(start), u128::MAX);
        found.push(Region { spot: Where::V6(start(range), end), class: range.class });
    }
    found
}

/// A node on the way down, and the bytes of the component that leads to it so far.
struct Step {
    node: u32,
    at: Option<(u32, PathBuf)>,
    component: Vec<u8>,
    partial: bool,
}

fn paths(edges: &[(EdgeKey, u32)], nodes: &[Node], found: &mut Vec<Region>) {
    let mut children: HashMap<u32, Vec<(&EdgeKey, u32)>> = HashMap::new();
    // What a subject becomes by executing a file is no name below it.
    for (key, node) in edges.iter().filter(|(key, _)| key.tag != TAG_SUCCESSOR) {
        children.entry(key.node).or_default().push((key, *node));
    }
    let start = |node| Step { node, at: None, component: Vec::new(), partial: true };
    if let Some(node) = nodes.get(NODE_ABSTRACT as usize) {
        found.push(Region { spot: Where::OtherAbstract, class: node.below });
    }
    let mut pending = vec![(start(NODE_ABSTRACT), true), (start(NODE_FILE_SYSTEMS), false)];
    while let Some((step, names_only)) = pending.pop() {
        let mut below: Vec<_> = children.get(&step.node).into_iter().flatten().collect();
        below.sort_by_key(|(key, _)| (key.tag, key.bytes));
        for (key, child) in below {
            let bytes = &key.bytes[..((key.tag & 0xff) as usize).min(key.bytes.len())];
            let mut component = if step.partial { step.component.clone() } else { Vec::new() };
            component.extend_from_slice(bytes);
            let partial = key.tag & TAG_MORE != 0;
            let at = match &step.at {
                _ if names_only => None,
                None => Some((device(bytes), PathBuf::from("/"))),
                Some(at) if partial => Some(at.clone()),
                Some((device, path)) => Some((*device, path.join(OsStr::from_bytes(&component)))),
            };
            let Some(node) = nodes.get(*child as usize) else { continue };
            match &at {
                _ if partial => {}
                Some((device, path)) => {
                    found.push(Region { spot: Where::At(*device, path.clone()), class: node.exact });
                    found.push(Region { spot: Where::Below(*device, path.clone()), class: node.below });
                }
                None => found.push(Region {
                    spot: Where::Abstract(String::from_utf8_lossy(&component).into_owned()),
                    class: node.exact,
                }),
            }
            pending.push((Step { node: *child, at, component, partial }, names_only));
        }
    }
}

fn device(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}
