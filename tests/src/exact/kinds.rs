//! Types of resources, and which of them an action can be about.

use guard_common::action::{self, Action, Resource, TABLE};

/// A type of resources that tables are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `Guard::File`
    File,
    /// `Guard::Dir`
    Dir,
    /// `Guard::Memory`
    Memory,
    /// `Guard::Endpoint`
    Endpoint,
    /// `Guard::Protocol`
    Protocol,
    /// `Guard::Unix`
    Unix,
    /// `Guard::Process`
    Process,
    /// `Guard::Capability`
    Capability,
    /// `Guard::Machine`
    Machine,
}

impl Kind {
    /// The Cedar type.
    pub(crate) fn entity_type(self) -> String {
        format!("Guard::{self:?}")
    }

    /// The types that this action can be about.
    pub(crate) fn of(action: Action) -> &'static [Self] {
        match action.row().resource {
            Resource::File => &[Self::File],
            Resource::Dir => &[Self::Dir],
            Resource::FileOrMemory => &[Self::File, Self::Memory],
            Resource::Endpoint => &[Self::Endpoint],
            Resource::Protocol => &[Self::Protocol],
            Resource::Unix => &[Self::Unix],
            Resource::Process => &[Self::Process],
            Resource::Capability => &[Self::Capability],
            Resource::Machine => &[Self::Machine],
        }
    }
}

/// The types that a scope of actions is about.
pub(crate) fn of_scope(names: &[&str]) -> Vec<Kind> {
    let bits = names.iter().filter_map(|name| action::expand(name)).fold(0, |all, bits| all | bits);
    let actions = TABLE.iter().map(|row| row.action).filter(|action| bits & action.bit() != 0);
    let mut kinds: Vec<Kind> = actions.flat_map(Kind::of).copied().collect();
    kinds.sort();
    kinds.dedup();
    kinds
}
