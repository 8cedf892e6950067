//! The Cedar entity types that the kernel decides about, and the actions taken on them.

use guard_common::action::{Resource, TABLE};

/// Entity type of the resource of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    File,
    Dir,
    Unix,
    Endpoint,
    Memory,
    Protocol,
    Process,
    Capability,
    Machine,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::File,
        Self::Dir,
        Self::Unix,
        Self::Endpoint,
        Self::Memory,
        Self::Protocol,
        Self::Process,
        Self::Capability,
        Self::Machine,
    ];

    /// The Cedar type.
    pub(super) fn entity_type(self) -> &'static str {
        match self {
            Self::File => "Guard::File",
            Self::Dir => "Guard::Dir",
            Self::Unix => "Guard::Unix",
            Self::Endpoint => "Guard::Endpoint",
            Self::Memory => "Guard::Memory",
            Self::Protocol => "Guard::Protocol",
            Self::Process => "Guard::Process",
            Self::Capability => "Guard::Capability",
            Self::Machine => "Guard::Machine",
        }
    }

    /// Bits of the actions whose resource has this type.
    pub(super) fn actions(self) -> u64 {
        let fits = |resource: Resource| match resource {
            Resource::File => self == Self::File,
            Resource::Dir => self == Self::Dir,
            Resource::FileOrMemory => self == Self::File || self == Self::Memory,
            Resource::Endpoint => self == Self::Endpoint,
            Resource::Protocol => self == Self::Protocol,
            Resource::Unix => self == Self::Unix,
            Resource::Process => self == Self::Process,
            Resource::Capability => self == Self::Capability,
            Resource::Machine => self == Self::Machine,
        };
        TABLE.iter().filter(|row| fits(row.resource)).fold(0, |bits, row| bits | row.action.bit())
    }

    /// Whether the resource has a path.
    pub(super) fn has_path(self) -> bool {
        matches!(self, Self::File | Self::Dir | Self::Unix)
    }
}
