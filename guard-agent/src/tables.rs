//! One generation in user space: what the compiler produces and the kernel module loads.

use guard_common::decide;
use guard_common::path::{EdgeKey, Node, Pattern};
use guard_common::tables::{AttributeTest, Header, Masks, Net4, Net6, Outcome, Ports, SubjectRow};

/// Which running and starting processes a subject's label is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Real, effective and saved user id all are this one.
    User(u32),
    /// Real or effective group id at exec is this one.
    Group(u32),
    /// The cgroup with this name as the last component of its path, and everything below it.
    Unit(String),
    /// The cgroup at this path below the cgroup2 mount, and everything below it.
    Cgroup(String),
}

/// A complete, immutable compiled policy. Executable selectors are part of `nodes`.
#[derive(Clone, Debug, Default)]
pub struct Generation {
    /// Head; its counts agree with the vectors below. `header.generation` is set at load.
    pub header: Header,
    /// Rows by subject id.
    pub subjects: Vec<SubjectRow>,
    /// `subjects[s].cells + class` → outcome number.
    pub cells: Vec<u32>,
    /// Outcomes.
    pub outcomes: Vec<Outcome>,
    /// Truth tables of the outcomes.
    pub masks: Vec<Masks>,
    /// Trie edges, file-system roots, names at any depth, abstract socket names.
    pub edges: Vec<(EdgeKey, u32)>,
    /// Trie nodes; index = node number.
    pub nodes: Vec<Node>,
    /// IPv4 ranges, ascending, the first begins at 0.
    pub net4: Vec<Net4>,
    /// IPv6 ranges, ascending, the first begins at 0.
    pub net6: Vec<Net6>,
    /// Port ranges, ascending, the first begins at 0.
    pub ports: Vec<Ports>,
    /// Attribute tests.
    pub attributes: Vec<AttributeTest>,
    /// Patterns on the last component.
    pub patterns: Vec<Pattern>,
    /// Selectors and the subject id each attaches.
    pub selectors: Vec<(Selector, u32)>,
}

impl decide::Tables for Generation {
    fn subject(&self, id: u32) -> Option<SubjectRow> {
        self.subjects.get(id as usize).copied()
    }
    fn cell(&self, index: u32) -> Option<u32> {
        self.cells.get(index as usize).copied()
    }
    fn outcome(&self, id: u32) -> Option<Outcome> {
        self.outcomes.get(id as usize).copied()
    }
    fn masks(&self, index: u32) -> Option<Masks> {
        self.masks.get(index as usize).copied()
    }
}
