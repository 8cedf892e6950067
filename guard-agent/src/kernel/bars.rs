//! Quarantines that are bound to no subject: what each denies, and what it is bound to.

use super::error::KernelError;
use super::load::Kernel;
use super::mapped::Mapped;
use super::pod::Wire;
use super::selectors::{entries, unit_key, unit_name};
use aya::maps::{HashMap as Table, MapData, MapError};
use guard_common::label::UnitName;
use guard_common::quarantine::{BARS, BARS_WORDS, BY_CGROUP, BarKey, Level, NO_END};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// The map of keys.
const BY_KEY: &str = "BARRED";
/// The map of names of cgroups.
const BY_NAME: &str = "BARRED_UNITS";

/// What each denies, in memory that outlives the agent where the programs do.
pub struct Bars(Mapped<u64>);

/// Which of them are bound to what: their bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// By what processes can come to have.
    pub by_key: BTreeMap<BarKey, u32>,
    /// By the name of a unit, or the path of a cgroup.
    pub by_name: BTreeMap<String, u32>,
}

impl Kernel {
    /// What each denies.
    ///
    /// # Errors
    /// If the map cannot be mapped.
    pub fn bars(&self) -> Result<Bars, KernelError> {
        const NAME: &str = "BARS";
        let words = Mapped::new(self.maps.array(NAME)?, BARS_WORDS).map_err(KernelError::map("map", NAME))?;
        Ok(Bars(words))
    }

    /// Makes them bound to exactly these. Cgroups that are made later below those are found by the kernel itself:
    /// `find` is called after the known ones were listed, so that one that it finds meanwhile is not forgotten.
    ///
    /// # Errors
    /// If a map cannot be changed.
    pub fn set_bar_keys(&mut self, find: impl Fn() -> Keys) -> Result<(), KernelError> {
        let known = entries::<Wire<BarKey>>(&self.maps, BY_KEY)?;
        let known_names = entries::<Wire<UnitName>>(&self.maps, BY_NAME)?;
        // Names first, then what is there: a cgroup that is made meanwhile is found by its name.
        let names = find();
        let mut by_name = self.table::<Wire<UnitName>>(BY_NAME)?;
        for (name, bits) in &names.by_name {
            if let Some(key) = unit_key(name) {
                by_name.insert(Wire(key), *bits, 0).map_err(KernelError::map("add to", BY_NAME))?;
            }
        }
        for (key, _) in known_names.iter().filter(|(key, _)| !names.by_name.contains_key(&unit_name(&key.0)))
        {
            by_name.remove(key).or_else(gone).map_err(KernelError::map("remove from", BY_NAME))?;
        }
        let keys = find();
        let mut by_key = self.table::<Wire<BarKey>>(BY_KEY)?;
        for (key, bits) in &keys.by_key {
            by_key.insert(Wire(*key), *bits, 0).map_err(KernelError::map("add to", BY_KEY))?;
        }
        for (key, _) in known.iter().filter(|(key, _)| !keys.by_key.contains_key(&key.0)) {
            by_key.remove(key).or_else(gone).map_err(KernelError::map("remove from", BY_KEY))?;
        }
        Ok(())
    }

    fn table<K: aya::Pod>(&mut self, name: &'static str) -> Result<Table<&mut MapData, K, u32>, KernelError> {
        Table::try_from(self.maps.get_mut(name)?).map_err(KernelError::map("open", name))
    }
}

/// Whoever removes it first, it is gone.
fn gone(error: MapError) -> Result<(), MapError> {
    match error {
        MapError::KeyNotFound => Ok(()),
        MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(()),
        other => Err(other),
    }
}

impl Bars {
    /// Word of the level of one; the end follows it.
    fn at(place: usize) -> usize {
        assert!(place < BARS, "a quarantine beyond the last");
        2 + 2 * place
    }

    /// Says what one denies, and until when.
    pub fn put(&self, place: usize, level: Level, until: Option<u64>) {
        let at = Self::at(place);
        // In this order none is higher than it was or is to be for longer than it was or is to be.
        let end = until.unwrap_or(NO_END).min(NO_END);
        self.0.word(at + 1).store(end, Ordering::Release);
        self.0.word(at).store(level as u64, Ordering::Release);
    }

    /// One denies nothing any more.
    pub fn clear(&self, place: usize) {
        self.0.word(Self::at(place)).store(0, Ordering::Release);
    }

    /// Says which bits mean something; all others are taken from labels at the next pass.
    pub fn set_used(&self, bits: u32) {
        self.0.word(0).store(bits.into(), Ordering::Release);
    }

    /// Says whether some are bound to what processes can come to have.
    pub fn set_keyed(&self, keyed: bool) {
        self.0.word(1).store(keyed.into(), Ordering::Release);
    }
}

impl Keys {
    /// Binds quarantines to something.
    pub fn bind(&mut self, kind: u32, device: u32, value: u64, bits: u32) {
        *self.by_key.entry(BarKey { kind, device, value }).or_default() |= bits;
    }

    /// Binds them to a cgroup.
    pub fn bind_cgroup(&mut self, id: u64, bits: u32) {
        self.bind(BY_CGROUP, 0, id, bits);
    }

    /// Binds them to the name of a unit, or the path of a cgroup.
    pub fn bind_name(&mut self, name: &str, bits: u32) {
        *self.by_name.entry(name.to_owned()).or_default() |= bits;
    }
}
