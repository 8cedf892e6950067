//! Classes: which literals cover a resource.

use std::collections::HashMap;
use std::sync::Arc;

use guard_common::class::{self, Class};

use super::formula::{Atom, AtomId, Atoms, Formula};
use super::kind::Kind;
use super::places::OWN_ROOT_POINT;
use guard_common::tables::Attribute;

/// What people read where a path counts from the root of a subject's own.
const OWN_ROOT_WORDS: &str = "own root:";

/// What sort of thing a class holds: which types its resources can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sort {
    /// Never asked about; everything is denied.
    Unused,
    /// Named by a path.
    Path,
    /// Files, directories and sockets without a path that policy could mean.
    Pathless,
    /// Executable memory.
    Memory,
    /// Protocols.
    Protocol,
    /// Unix sockets with an abstract name.
    Abstract,
    /// Addresses.
    Net,
    /// Processes.
    Process,
    /// One capability.
    Capability,
    /// The host.
    Machine,
}

impl Sort {
    /// The types a resource of this class can have.
    pub(super) fn admits(self, kind: Kind) -> bool {
        match self {
            Self::Unused => false,
            Self::Path | Self::Pathless => kind.has_path(),
            Self::Memory => kind == Kind::Memory,
            Self::Protocol => kind == Kind::Protocol,
            Self::Abstract => kind == Kind::Unix,
            Self::Net => kind == Kind::Endpoint,
            Self::Process => kind == Kind::Process,
            Self::Capability => kind == Kind::Capability,
            Self::Machine => kind == Kind::Machine,
        }
    }
}

/// A class.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClassInfo {
    pub(super) sort: Sort,
    /// The place atoms, and the names at any depth, that hold for the whole class; ascending.
    pub(super) cover: Arc<[AtomId]>,
}

/// Classes by number, and numbers by cover.
#[derive(Clone, Debug)]
pub(super) struct Classes {
    list: Vec<ClassInfo>,
    numbers: HashMap<ClassInfo, Class>,
}

impl Classes {
    /// The built-in classes; `builtin` gives the atoms that hold for each.
    pub(super) fn new(builtin: impl Fn(Class) -> Vec<AtomId>) -> Self {
        let list = (0..class::FIRST_COMPILED)
            .map(|number| ClassInfo {
                sort: match number {
                    class::OWN_ANONYMOUS | class::UNNAMED_UNIX => Sort::Pathless,
                    number if class::WITH_NAMES.contains(&number) => Sort::Path,
                    class::ANONYMOUS_MEMORY => Sort::Memory,
                    class::PROCESS => Sort::Process,
                    class::MACHINE | class::KERNEL => Sort::Machine,
                    number if class::is_capability(number) => Sort::Capability,
                    class::OTHER_PROTOCOL => Sort::Protocol,
                    number if class::protocol_name(number).is_some() => Sort::Protocol,
                    _ => Sort::Unused,
                },
                cover: sorted(builtin(number)),
            })
            .collect();
        Self { list, numbers: HashMap::new() }
    }

    /// The class of this sort with exactly this cover.
    pub(super) fn intern(&mut self, sort: Sort, cover: Vec<AtomId>) -> Class {
        let info = ClassInfo { sort, cover: sorted(cover) };
        if let Some(number) = self.numbers.get(&info) {
            return *number;
        }
        let number = self.list.len() as Class;
        self.list.push(info.clone());
        self.numbers.insert(info, number);
        number
    }

    pub(super) fn list(&self) -> &[ClassInfo] {
        &self.list
    }

    /// Whether a class stands for paths, as opposed to built-in classes.
    pub(super) fn is_compiled_path(&self, number: Class) -> bool {
        number >= class::FIRST_COMPILED && self.list[number as usize].sort == Sort::Path
    }

    /// What falls into each class, for people.
    pub(super) fn describe(&self, atoms: &Atoms) -> Vec<String> {
        self.describe_by(atoms, AtomId::MAX)
    }

    /// The same, by the first `own` atoms only: classes that only the others tell apart are called the
    /// same.
    pub(super) fn describe_by(&self, atoms: &Atoms, own: AtomId) -> Vec<String> {
        let literal = |id: &AtomId| match atoms.get(*id) {
            Atom::At(path) => path.replacen(OWN_ROOT_POINT, OWN_ROOT_WORDS, 1),
            Atom::Below(path) => format!("{}/**", path.replacen(OWN_ROOT_POINT, OWN_ROOT_WORDS, 1)),
            Atom::Builtin(class::MACHINE) => "the machine".to_owned(),
            Atom::Builtin(class::KERNEL) => "the kernel".to_owned(),
            Atom::Builtin(number) => class::BUILTINS
                .iter()
                .find(|builtin| builtin.class == *number)
                .map(|builtin| builtin.id)
                .or_else(|| class::capability_name(*number))
                .map_or_else(|| number.to_string(), str::to_owned),
            Atom::Net(text) | Atom::Dns(text) => text.clone(),
            Atom::Abstract(name) => format!("@{name}"),
            Atom::Name(name) => format!("**/{name}/**"),
            other => format!("{other:?}"),
        };
        self.list
            .iter()
            .enumerate()
            .map(|(number, info)| match number as Class {
                class::UNKNOWN => "a file system that is not classified".to_owned(),
                class::OTHER_PROTOCOL => "other protocols".to_owned(),
                class::UNNAMED_UNIX => "unix sockets without a name".to_owned(),
                class::PROCESS => "processes".to_owned(),
                class::MACHINE => "the machine".to_owned(),
                class::KERNEL => "the kernel".to_owned(),
                number if class::is_capability(number) => class::capability_name(number).map_or_else(
                    || "a capability without a name".to_owned(),
                    |name| format!("the capability {name}"),
                ),
                number if number < class::FIRST_COMPILED => class::BUILTINS
                    .iter()
                    .find(|builtin| builtin.class == number)
                    .map_or_else(String::new, |builtin| builtin.id.to_owned()),
                _ => {
                    let cover: Vec<_> = info.cover.iter().filter(|id| **id < own).map(literal).collect();
                    match (info.sort, cover.is_empty()) {
                        (Sort::Net, true) => "other addresses".to_owned(),
                        (Sort::Abstract, true) => "other abstract sockets".to_owned(),
                        (_, true) => "other paths".to_owned(),
                        (_, false) => cover.join(" and "),
                    }
                }
            })
            .collect()
    }
}

fn sorted(mut cover: Vec<AtomId>) -> Arc<[AtomId]> {
    cover.sort_unstable();
    cover.dedup();
    cover.into()
}

/// What is left of an atom once the class is known.
pub(super) fn substitute(atoms: &Atoms, info: &ClassInfo, id: AtomId) -> Formula {
    let covered = info.cover.binary_search(&id).is_ok();
    match atoms.get(id) {
        _ if covered => Formula::TRUE,
        atom if atom.is_place() => Formula::FALSE,
        Atom::Name(_) | Atom::Pattern { .. } if info.sort != Sort::Path => Formula::FALSE,
        Atom::Attribute(attribute, value) if *attribute == Attribute::Abstract as u32 => {
            Formula::Const((info.sort == Sort::Abstract) == (*value == 1))
        }
        _ => Formula::Atom(id),
    }
}
