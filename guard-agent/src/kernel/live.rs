//! The word that names the live generation, in memory shared with the kernel.

use super::KernelError;
use aya::Ebpf;
use aya::maps::Map;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Size of the mapping: the map has one element, which the kernel rounds up to a page.
const PAGE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// The mapped word.
pub(super) struct LiveWord {
    page: NonNull<AtomicU64>,
}

// SAFETY: the mapping is owned by this value, has no thread affinity, and is only accessed
// atomically.
unsafe impl Send for LiveWord {}
// SAFETY: as above.
unsafe impl Sync for LiveWord {}

impl LiveWord {
    /// Maps the word of a loaded object.
    pub(super) fn map(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let Some(Map::Array(map)) = ebpf.map("LIVE") else {
            return Err(KernelError::Object("the object has no array map LIVE".to_owned()));
        };
        let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new shared mapping of a file at an address the kernel picks cannot alias
        // anything that Rust knows of.
        let page = unsafe { mmap(None, PAGE, flags, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) }
            .map_err(|errno| KernelError::System { call: "mmap of the live word", source: errno.into() })?;
        Ok(Self { page: page.cast() })
    }

    /// Makes a generation live: one store.
    pub(super) fn store(&self, word: u64) {
        // SAFETY: the mapping is a page, aligned and alive as long as `self`; the kernel only reads
        // the word, and every access here is atomic.
        unsafe { self.page.as_ref() }.store(word, Ordering::SeqCst);
    }
}

impl Drop for LiveWord {
    fn drop(&mut self) {
        // SAFETY: the address and size are those of the mapping made in `map`, which nobody uses
        // after this.
        let _ = unsafe { munmap(self.page.cast(), PAGE.get()) };
    }
}
