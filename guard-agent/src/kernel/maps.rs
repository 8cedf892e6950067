//! The maps of the programs, by name.

use super::KernelError;
use super::pins::PinError;
use aya::Ebpf;
use aya::maps::{Map, MapData};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A map that only the programs themselves know: their constants.
fn is_internal(name: &str) -> bool {
    name.starts_with('.')
}

/// The maps.
pub(super) struct Maps(HashMap<String, Map>);

impl Maps {
    /// Those of a loaded object.
    pub(super) fn of(ebpf: &mut Ebpf) -> Self {
        let names: Vec<String> = ebpf.maps().map(|(name, _)| name.to_owned()).collect();
        let taken = names.into_iter().filter_map(|name| Some((name.clone(), ebpf.take_map(&name)?)));
        Self(taken.collect())
    }

    /// Those that are pinned in a directory.
    pub(super) fn pinned(directory: &Path) -> Result<Self, PinError> {
        let mut maps = HashMap::new();
        for path in super::pins::entries(directory)? {
            let broken = |cause: aya::maps::MapError| PinError::object("open", &path, &cause);
            let map = MapData::from_pin(&path).and_then(Map::from_map_data).map_err(broken)?;
            if let Some(name) = path.file_name() {
                maps.insert(name.to_string_lossy().into_owned(), map);
            }
        }
        Ok(Self(maps))
    }

    /// Pins them in a directory, without those that `but` names.
    pub(super) fn pin(&self, directory: &Path, but: &str) -> Result<(), PinError> {
        for (name, map) in self.0.iter().filter(|(name, _)| !is_internal(name) && *name != but) {
            let path = directory.join(name);
            map.pin(&path).map_err(|cause| PinError::object("pin", &path, &cause))?;
        }
        Ok(())
    }

    /// Holds a map no longer.
    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn get(&self, name: &'static str) -> Result<&Map, KernelError> {
        self.0.get(name).ok_or_else(|| missing(name))
    }

    pub(super) fn get_mut(&mut self, name: &'static str) -> Result<&mut Map, KernelError> {
        self.0.get_mut(name).ok_or_else(|| missing(name))
    }

    /// A descriptor of a map of its own, of a ring or of a kind that aya does not know.
    pub(super) fn duplicate(&self, name: &'static str) -> Result<OwnedFd, KernelError> {
        match self.get(name)? {
            Map::RingBuf(map) | Map::Unsupported(map) => {
                map.fd().as_fd().try_clone_to_owned().map_err(KernelError::system("dup of a map"))
            }
            _ => Err(KernelError::Object(format!("the map {name} is of another kind"))),
        }
    }

    /// The array `name`.
    pub(super) fn array(&self, name: &'static str) -> Result<BorrowedFd<'_>, KernelError> {
        match self.get(name)? {
            Map::Array(map) => Ok(map.fd().as_fd()),
            _ => Err(KernelError::Object(format!("the map {name} is no array"))),
        }
    }

    /// The map of maps `name`.
    pub(super) fn outer(&self, name: &'static str) -> Result<BorrowedFd<'_>, KernelError> {
        match self.get(name)? {
            Map::ArrayOfMaps(map) => Ok(map.fd().as_fd()),
            _ => Err(KernelError::Object(format!("the map {name} is no map of maps"))),
        }
    }
}

fn missing(name: &str) -> KernelError {
    KernelError::Object(format!("the object has no map {name}"))
}
