//! How often leases can still be used: counts that programs count down.

use super::error::KernelError;
use super::load::Kernel;
use super::mapped::Mapped;
use guard_common::tables::{USES_PLACES, USES_WORDS, uses_left};
use std::sync::atomic::Ordering;

/// The counts, in memory that outlives the agent where the programs do.
pub struct Uses(Mapped<u64>);

impl Kernel {
    /// The counts.
    ///
    /// # Errors
    /// If the map cannot be mapped.
    pub fn uses(&self) -> Result<Uses, KernelError> {
        const NAME: &str = "USES";
        let words = Mapped::new(self.maps.array(NAME)?, USES_WORDS).map_err(KernelError::map("map", NAME))?;
        Ok(Uses(words))
    }
}

impl Uses {
    /// The places that there are.
    pub fn places() -> std::ops::Range<u32> {
        1..USES_PLACES
    }

    /// Puts a count at a place that no masks name.
    pub fn put(&self, place: u32, lease: u64, left: u32) {
        let at = uses_left(place) as usize;
        // In this order: whoever finds the number of a lease finds no uses of another one.
        self.0.word(at).store(0, Ordering::Release);
        self.0.word(at - 1).store(lease, Ordering::Release);
        self.0.word(at).store(left.into(), Ordering::Release);
    }

    /// How many uses of a lease are left; nothing if its count is not there.
    pub fn left(&self, place: u32, lease: u64) -> Option<u32> {
        let at = uses_left(place) as usize;
        let left = self.0.word(at).load(Ordering::Acquire).cast_signed();
        (self.0.word(at - 1).load(Ordering::Acquire) == lease)
            .then(|| u32::try_from(left.max(0)).unwrap_or(u32::MAX))
    }
}
