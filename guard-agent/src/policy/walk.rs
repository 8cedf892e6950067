//! The kernel's way from a resource to its class and features, in user space.
//!
//! The programs do the same with dentries; tests and `policy check` use this one.

use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use guard_common::class::{Class, UNKNOWN};
use guard_common::decide::Search;
use guard_common::path::{
    CHUNK, EdgeKey, MAX_COMPONENTS, NODE_ABSTRACT, NODE_FILE_SYSTEMS, NODE_NAMES, Node, chunks, name_words,
};
use guard_common::tables::Attributes;

use crate::tables::Generation;

/// Class and features of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The class.
    pub class: Class,
    /// The features.
    pub features: u64,
}

/// A generation with an index over its edges.
pub struct Walker<'a> {
    generation: &'a Generation,
    edges: std::collections::HashMap<EdgeKey, u32>,
}

impl<'a> Walker<'a> {
    /// Prepares walks through `generation`.
    pub fn new(generation: &'a Generation) -> Self {
        Self { generation, edges: generation.edges.iter().copied().collect() }
    }

    /// Class and features of the path `path` from the root of the file system `device`.
    pub fn path(&self, device: u32, path: &Path, attributes: &Attributes) -> Found {
        let names: Vec<&[u8]> = path
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(name.as_bytes()),
                _ => None,
            })
            .collect();
        Found { class: self.path_class(device, &names), features: self.features(&names, attributes) }
    }

    /// Class and features of what has this path on its file system and is of a built-in class.
    pub fn inside(&self, class: Class, path: &Path, attributes: &Attributes) -> Found {
        let names: Vec<&[u8]> = super::trie::names(path).collect();
        Found { class, features: self.features(&names, attributes) }
    }

    fn features(&self, names: &[&[u8]], attributes: &Attributes) -> u64 {
        let mut features = self.attributes(attributes);
        for name in names {
            if let Some(bit) = self.follow(NODE_NAMES, name) {
                features |= 1 << (bit & 63);
            }
        }
        // The kernel calls the root of a file system "/".
        let last = names.last().copied().unwrap_or(b"/");
        let (front, back) = name_words(last);
        for pattern in &self.generation.patterns {
            if pattern.matches(&front, &back, last.len() as u32) {
                features |= 1 << (pattern.bit & 63);
            }
        }
        features
    }

    /// Class of a device's usual path, and the features of its names.
    pub fn device(&self, device: u32, path: &Path) -> (Class, u64) {
        let attributes = Attributes::default();
        let found = self.path(device, path, &attributes);
        (found.class, found.features & !self.attributes(&attributes))
    }

    fn path_class(&self, device: u32, names: &[&[u8]]) -> Class {
        let Some((node, exact)) = self.deepest(device, names) else {
            return UNKNOWN;
        };
        if exact { node.exact } else { node.below }
    }

    /// The subject that executing this path attaches; 0 = none.
    pub fn exec_subject(&self, device: u32, path: &Path) -> u32 {
        let names: Vec<&[u8]> = super::trie::names(path).collect();
        match self.deepest(device, &names) {
            Some((node, true)) => node.exec_subject,
            Some((node, false)) => node.exec_subject_below,
            None => 0,
        }
    }

    /// What `subject` becomes by executing this path, as the tables say it (`TAG_SUCCESSOR`); 0 = nothing.
    pub fn successor(&self, device: u32, path: &Path, subject: u32) -> u32 {
        let names: Vec<&[u8]> = super::trie::names(path).collect();
        let found = self.deepest_node(device, &names).filter(|(_, exact)| *exact);
        found.and_then(|(node, _)| self.edges.get(&EdgeKey::successor(node, subject))).copied().unwrap_or(0)
    }

    /// The deepest node on the path, and whether the path ends there.
    fn deepest(&self, device: u32, names: &[&[u8]]) -> Option<(&'a Node, bool)> {
        let (node, exact) = self.deepest_node(device, names)?;
        self.generation.nodes.get(node as usize).map(|found| (found, exact))
    }

    fn deepest_node(&self, device: u32, names: &[&[u8]]) -> Option<(u32, bool)> {
        let mut bytes = [0; CHUNK];
        bytes[..4].copy_from_slice(&device.to_ne_bytes());
        let mut node = *self.edges.get(&EdgeKey { node: NODE_FILE_SYSTEMS, tag: 4, bytes })?;
        let mut passed = 0;
        for name in names.iter().take(MAX_COMPONENTS) {
            match self.follow(node, name) {
                Some(next) => node = next,
                None => break,
            }
            passed += 1;
        }
        Some((node, passed == names.len()))
    }

    fn follow(&self, node: u32, name: &[u8]) -> Option<u32> {
        chunks(name)
            .try_fold(node, |node, (tag, bytes)| self.edges.get(&EdgeKey { node, tag, bytes }).copied())
    }

    fn attributes(&self, attributes: &Attributes) -> u64 {
        self.generation.attributes.iter().fold(0, |features, test| features | test.feature(attributes))
    }

    /// Class and features of an abstract socket name, without its leading zero byte.
    pub fn abstract_name(&self, name: &[u8], attributes: &Attributes) -> Found {
        let class = match self.follow(NODE_ABSTRACT, name) {
            Some(node) => self.generation.nodes.get(node as usize).map(|node| node.exact),
            None => self.generation.nodes.get(NODE_ABSTRACT as usize).map(|node| node.below),
        };
        Found { class: class.unwrap_or(UNKNOWN), features: self.attributes(attributes) }
    }

    /// Class and features of an address and port.
    pub fn endpoint(&self, address: IpAddr, port: u16, attributes: &Attributes) -> Found {
        let address = match address {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        let generation = self.generation;
        let class = match address {
            IpAddr::V4(v4) => {
                let found = Search::new().run(&generation.net4.as_slice(), generation.header.net4, v4.into());
                generation.net4.get(found as usize).map(|range| range.class)
            }
            IpAddr::V6(v6) => {
                let bits = u128::from(v6);
                let key = ((bits >> 64) as u64, bits as u64);
                let found = Search::new().run(&generation.net6.as_slice(), generation.header.net6, key);
                generation.net6.get(found as usize).map(|range| range.class)
            }
        };
        let found = Search::new().run(&generation.ports.as_slice(), generation.header.ports, port.into());
        let ports = generation.ports.get(found as usize).map_or(0, |range| range.features);
        Found { class: class.unwrap_or(UNKNOWN), features: ports | self.attributes(attributes) }
    }

    /// Class and features of a resource of a built-in class.
    pub fn builtin(&self, class: Class, attributes: &Attributes) -> Found {
        Found { class, features: self.attributes(attributes) }
    }
}
