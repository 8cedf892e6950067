//! The word that names the live generation, in memory shared with the kernel.

use super::KernelError;
use super::mapped::Mapped;
use aya::Ebpf;
use aya::maps::Map;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

/// The mapped word.
pub(super) struct LiveWord {
    word: Mapped<u64>,
}

impl LiveWord {
    /// Maps the word of a loaded object.
    pub(super) fn map(ebpf: &Ebpf) -> Result<Self, KernelError> {
        let Some(Map::Array(map)) = ebpf.map("LIVE") else {
            return Err(KernelError::Object("the object has no array map LIVE".to_owned()));
        };
        let word = Mapped::new(map.fd().as_fd(), 1).map_err(KernelError::system("mmap of the live word"))?;
        Ok(Self { word })
    }

    /// Makes a generation live: one store.
    pub(super) fn store(&self, word: u64) {
        self.word.word(0).store(word, Ordering::SeqCst);
    }
}
