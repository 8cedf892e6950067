//! The word that names the live generation, in memory shared with the kernel.

use super::KernelError;
use super::mapped::Mapped;
use super::maps::Maps;
use aya::maps::{Array, Map, MapData, MapError};
use guard_common::tables::live_number;
use std::path::Path;
use std::sync::atomic::Ordering;

/// The mapped word.
pub(super) struct LiveWord {
    word: Mapped<u64>,
}

impl LiveWord {
    /// Maps the word.
    pub(super) fn map(maps: &Maps) -> Result<Self, KernelError> {
        let word =
            Mapped::new(maps.array("LIVE")?, 1).map_err(KernelError::system("mmap of the live word"))?;
        Ok(Self { word })
    }

    /// The word as it is.
    pub(super) fn load(&self) -> u64 {
        self.word.word(0).load(Ordering::SeqCst)
    }

    /// Makes a generation live: one store.
    pub(super) fn store(&self, word: u64) {
        self.word.word(0).store(word, Ordering::SeqCst);
    }
}

/// The number of the generation that is live by a live word that is pinned.
pub(super) fn pinned(path: &Path) -> Result<u64, KernelError> {
    let read = || -> Result<u64, MapError> {
        let map: Array<MapData, u64> = Map::from_map_data(MapData::from_pin(path)?)?.try_into()?;
        map.get(&0, 0)
    };
    read().map(live_number).map_err(KernelError::map("read", "LIVE"))
}
