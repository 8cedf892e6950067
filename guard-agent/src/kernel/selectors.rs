//! The selector maps: which users, groups, units and cgroups become which subject.

use super::maps::Maps;
use super::pod::Wire;
use super::{Kernel, KernelError};
use crate::fault;
use crate::tables::Selector;
use aya::maps::{HashMap as Table, MapData, MapError};
use guard_common::label::{IN_CONTAINER, UNIT_NAME_MAX, UnitName};
use std::collections::HashMap;
use std::hash::Hash;

/// What the maps hold now, to know what a new generation no longer wants.
#[derive(Clone, Default)]
pub(crate) struct Installed {
    users: HashMap<u32, u32>,
    groups: HashMap<u32, u32>,
    units: HashMap<String, u32>,
}

impl Installed {
    /// What the maps hold.
    pub(super) fn read(maps: &Maps) -> Result<Self, KernelError> {
        let units = entries::<Wire<UnitName>>(maps, "SELECT_UNIT")?;
        Ok(Self {
            users: entries(maps, "SELECT_USER")?.into_iter().collect(),
            groups: entries(maps, "SELECT_GROUP")?.into_iter().collect(),
            units: units.into_iter().map(|(name, subject)| (unit_name(&name.0), subject)).collect(),
        })
    }

    /// What a generation wants the maps to hold.
    fn of(selectors: &[(Selector, u32)]) -> Self {
        let mut wanted = Self::default();
        for (selector, subject) in selectors {
            match selector {
                Selector::User(id) => wanted.users.insert(*id, *subject),
                Selector::Group(id) => wanted.groups.insert(*id, *subject),
                Selector::Unit(name) => wanted.units.insert(name.clone(), *subject),
                Selector::Cgroup(path) => wanted.units.insert(absolute(path), *subject),
                Selector::Container(path) => wanted.units.insert(absolute(path), *subject | IN_CONTAINER),
                // Its cgroups are known by numbers that podman gives.
                Selector::Podman(_) => None,
            };
        }
        wanted
    }
}

impl Kernel {
    /// Installs the selectors of a generation and removes all others. If that fails, the maps hold
    /// again what they held before.
    pub(super) fn select(&mut self, selectors: &[(Selector, u32)]) -> Result<(), KernelError> {
        let before = self.selectors.clone();
        let result = self.install(&Installed::of(selectors));
        if result.is_err()
            && let Err(error) = self.install(&before)
        {
            tracing::error!(
                "selectors of the policy that was not switched to may still attach labels: {error}"
            );
        }
        result
    }

    /// Makes the maps hold `wanted`, additions first.
    fn install(&mut self, wanted: &Installed) -> Result<(), KernelError> {
        let before = self.selectors.clone();
        for (id, subject) in missing(&wanted.users, &before.users) {
            self.insert("SELECT_USER", id, subject)?;
            self.selectors.users.insert(id, subject);
        }
        for (id, subject) in missing(&wanted.groups, &before.groups) {
            self.insert("SELECT_GROUP", id, subject)?;
            self.selectors.groups.insert(id, subject);
        }
        for (name, subject) in missing(&wanted.units, &before.units) {
            if let Some(key) = unit_key(&name) {
                self.insert("SELECT_UNIT", Wire(key), subject)?;
            }
            self.selectors.units.insert(name, subject);
        }
        for id in before.users.keys().filter(|id| !wanted.users.contains_key(id)) {
            self.remove("SELECT_USER", *id)?;
            self.selectors.users.remove(id);
        }
        for id in before.groups.keys().filter(|id| !wanted.groups.contains_key(id)) {
            self.remove("SELECT_GROUP", *id)?;
            self.selectors.groups.remove(id);
        }
        for name in before.units.keys().filter(|name| !wanted.units.contains_key(*name)) {
            if let Some(key) = unit_key(name) {
                self.remove("SELECT_UNIT", Wire(key))?;
            }
            self.selectors.units.remove(name);
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
        fault::at(name).map_err(KernelError::system(name))?;
        self.hash::<K>(name)?.insert(key, subject, 0).map_err(KernelError::map("add to", name))
    }

    fn remove<K: aya::Pod>(&mut self, name: &'static str, key: K) -> Result<(), KernelError> {
        fault::at("remove a selector").map_err(KernelError::system(name))?;
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

    fn hash<K: aya::Pod>(&mut self, name: &'static str) -> Result<Table<&mut MapData, K, u32>, KernelError> {
        Table::try_from(self.maps.get_mut(name)?).map_err(KernelError::map("open", name))
    }
}

/// Everything in a map.
pub(super) fn entries<K: aya::Pod>(maps: &Maps, name: &'static str) -> Result<Vec<(K, u32)>, KernelError> {
    let table: Table<&MapData, K, u32> =
        Table::try_from(maps.get(name)?).map_err(KernelError::map("open", name))?;
    table.iter().collect::<Result<_, _>>().map_err(KernelError::map("list", name))
}

/// The name in a key.
pub(super) fn unit_name(key: &UnitName) -> String {
    let end = key.bytes.iter().position(|byte| *byte == 0).unwrap_or(key.bytes.len());
    String::from_utf8_lossy(&key.bytes[..end]).into_owned()
}

/// What `wanted` has and `present` has not, or for another subject.
fn missing<K: Clone + Eq + Hash>(wanted: &HashMap<K, u32>, present: &HashMap<K, u32>) -> Vec<(K, u32)> {
    wanted
        .iter()
        .filter(|(key, subject)| present.get(*key) != Some(*subject))
        .map(|(key, subject)| (key.clone(), *subject))
        .collect()
}

/// A cgroup's path as the kernel writes it.
fn absolute(path: &str) -> String {
    format!("/{}", path.trim_matches('/'))
}

/// The key of a unit name or cgroup path; `None` if it is too long to be one.
pub(super) fn unit_key(name: &str) -> Option<UnitName> {
    let mut bytes = [0; UNIT_NAME_MAX + 1];
    bytes[..UNIT_NAME_MAX - 1].get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    Some(UnitName { bytes })
}
