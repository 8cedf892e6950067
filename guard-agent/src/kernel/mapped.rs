//! Arrays in memory that the agent and the kernel share.

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::{Immutable, IntoBytes};

const PAGE: usize = 4096;

/// The elements of an array map that was made with `BPF_F_MMAPABLE`.
pub(super) struct Mapped<T> {
    start: NonNull<T>,
    len: usize,
    bytes: NonZeroUsize,
}

// SAFETY: the mapping is owned by this value and has no thread affinity.
unsafe impl<T: Send> Send for Mapped<T> {}
// SAFETY: through a shared reference the memory is only accessed atomically.
unsafe impl<T: Sync> Sync for Mapped<T> {}

impl<T: IntoBytes + Immutable + Copy> Mapped<T> {
    /// The kernel rounds elements up to eight bytes; ours need no rounding.
    const WHOLE_WORDS: () = assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8);

    /// Maps the `len` elements of an array.
    pub(super) fn new(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        const { Self::WHOLE_WORDS };
        let bytes = (len * size_of::<T>()).next_multiple_of(PAGE);
        let bytes = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new shared mapping at an address the kernel picks cannot alias anything that Rust
        // knows of. The kernel refuses a length beyond the array's.
        let start = unsafe { mmap(None, bytes, flags, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { start: start.cast(), len, bytes })
    }

    /// Copies `values` to the elements from `at` on. No program may read them meanwhile.
    pub(super) fn write(&mut self, at: usize, values: &[T]) {
        let end = at.checked_add(values.len());
        assert!(end.is_some_and(|end| end <= self.len), "elements beyond the array");
        // SAFETY: the range lies within the mapping, which is exclusively borrowed; the elements are
        // plain bytes, and by the contract of this function no program reads them.
        unsafe { self.start.add(at).as_ptr().copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    }

    /// The first eight bytes of an element, which programs may access at the same time.
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len, "an element beyond the array");
        // SAFETY: the element lies within the mapping, has at least eight bytes and is aligned to
        // eight, because the array starts at a page and its elements are whole words. Programs change
        // such words by single stores and atomic operations only.
        unsafe { AtomicU64::from_ptr(self.start.add(index).as_ptr().cast()) }
    }

    /// Every word of an array of words, as it is now.
    pub(super) fn words(&self) -> Vec<u64> {
        (0..self.len).map(|index| self.word(index).load(Ordering::Relaxed)).collect()
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the address and size are those of the mapping made in `new`, which nobody uses after
        // this.
        let _ = unsafe { munmap(self.start.cast(), self.bytes.get()) };
    }
}
