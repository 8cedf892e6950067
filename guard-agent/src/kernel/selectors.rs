//! The selector maps: which users, groups, units and cgroups become which subject.

use super::pod::Wire;
use super::{Kernel, KernelError};
use crate::tables::Selector;
use aya::maps::{HashMap, MapData, MapError};
use guard_common::label::{UNIT_NAME_MAX, UnitName};
use std::collections::HashSet;

/// What the maps hold now, to know what a new generation no longer wants.
#[derive(Default)]
pub(crate) struct Installed {
    users: HashSet<u32>,
    groups: HashSet<u32>,
    units: HashSet<String>,
}

impl Kernel {
    /// Installs the selectors of a generation beside those that are there.
    pub(super) fn add_selectors(&mut self, selectors: &[(Selector, u32)]) -> Result<(), KernelError> {
        for (selector, subject) in selectors {
            match selector {
                Selector::User(id) => {
                    self.insert("SELECT_USER", *id, *subject)?;
                    self.selectors.users.insert(*id);
                }
                Selector::Group(id) => {
                    self.insert("SELECT_GROUP", *id, *subject)?;
                    self.selectors.groups.insert(*id);
                }
                Selector::Unit(name) => {
                    if let Some(key) = unit_key(name) {
                        self.insert("SELECT_UNIT", Wire(key), *subject)?;
                        self.selectors.units.insert(name.clone());
                    }
                }
                Selector::Cgroup(path) => {
                    if let Some(key) = unit_key(&absolute(path)) {
                        self.insert("SELECT_UNIT", Wire(key), *subject)?;
                        self.selectors.units.insert(absolute(path));
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes the selectors that `wanted` does not have.
    pub(super) fn remove_selectors(&mut self, wanted: &[(Selector, u32)]) -> Result<(), KernelError> {
        let is_wanted = |selector: &Selector| wanted.iter().any(|(other, _)| other == selector);
        let stale: Vec<u32> =
            self.selectors.users.iter().copied().filter(|id| !is_wanted(&Selector::User(*id))).collect();
        for id in stale {
            self.remove("SELECT_USER", id)?;
            self.selectors.users.remove(&id);
        }
        let stale: Vec<u32> =
            self.selectors.groups.iter().copied().filter(|id| !is_wanted(&Selector::Group(*id))).collect();
        for id in stale {
            self.remove("SELECT_GROUP", id)?;
            self.selectors.groups.remove(&id);
        }
        let stale: Vec<String> =
            self.selectors.units.iter().filter(|name| !names(wanted, name)).cloned().collect();
        for name in stale {
            if let Some(key) = unit_key(&name) {
                self.remove("SELECT_UNIT", Wire(key))?;
            }
            self.selectors.units.remove(&name);
        }
        Ok(())
    }

    /// Tells the kernel which existing cgroups belong to which subject, and forgets all others.
    /// Cgroups made later are found by the kernel itself; `find` is called after the known ones were
    /// listed, so one that the kernel finds meanwhile is not forgotten.
    ///
    /// # Errors
    /// If the map cannot be changed.
    pub fn set_cgroups(&mut self, find: impl FnOnce() -> Vec<(u64, u32)>) -> Result<(), KernelError> {
        const NAME: &str = "SELECT_CGROUP";
        let known: Vec<u64> = self
            .hash::<u64>(NAME)?
            .keys()
            .collect::<Result<_, MapError>>()
            .map_err(KernelError::map("list", NAME))?;
        let cgroups = find();
        for (id, subject) in &cgroups {
            self.insert(NAME, *id, *subject)?;
        }
        for id in known {
            if !cgroups.iter().any(|(wanted, _)| *wanted == id) {
                self.remove(NAME, id)?;
            }
        }
        Ok(())
    }

    fn insert<K: aya::Pod>(&mut self, name: &'static str, key: K, subject: u32) -> Result<(), KernelError> {
        self.hash::<K>(name)?.insert(key, subject, 0).map_err(KernelError::map("add to", name))
    }

    fn remove<K: aya::Pod>(&mut self, name: &'static str, key: K) -> Result<(), KernelError> {
        match self.hash::<K>(name)?.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) =>
            {
                Ok(())
            }
            Err(cause) => Err(KernelError::map("remove from", name)(cause)),
        }
    }

    fn hash<K: aya::Pod>(
        &mut self,
        name: &'static str,
    ) -> Result<HashMap<&mut MapData, K, u32>, KernelError> {
        let map = self
            .ebpf
            .map_mut(name)
            .ok_or_else(|| KernelError::Object(format!("the object has no map {name}")))?;
        HashMap::try_from(map).map_err(KernelError::map("open", name))
    }
}

/// Whether a selector of `wanted` has this unit name or cgroup path.
fn names(wanted: &[(Selector, u32)], name: &str) -> bool {
    wanted.iter().any(|(selector, _)| match selector {
        Selector::Unit(unit) => unit == name,
        Selector::Cgroup(path) => absolute(path) == name,
        Selector::User(_) | Selector::Group(_) => false,
    })
}

/// A cgroup's path as the kernel writes it.
fn absolute(path: &str) -> String {
    format!("/{}", path.trim_matches('/'))
}

/// The key of a unit name or cgroup path; `None` if it is too long to be one.
fn unit_key(name: &str) -> Option<UnitName> {
    let mut bytes = [0; UNIT_NAME_MAX + 1];
    bytes[..UNIT_NAME_MAX - 1].get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    Some(UnitName { bytes })
}
