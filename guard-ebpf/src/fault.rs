//! Failures on demand, for tests; see `guard_common::fault`.

use crate::maps::FAULTS;
use crate::offsets::{CAN_BE_MADE_TO_FAIL, get};

/// Whether this is to fail now.
#[inline(always)]
pub fn injected(fault: u64) -> bool {
    if get(&CAN_BE_MADE_TO_FAIL) == 0 {
        return false;
    }
    // SAFETY: the pointer comes from a map lookup; tests write the word with one store.
    FAULTS.get_ptr(0).is_some_and(|word| unsafe { core::ptr::read_volatile(word) } & fault != 0)
}
