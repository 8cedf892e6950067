//! Labels of this CPU, for whoever has none of its own to work with.

use crate::atomic;
use crate::fault::injected;
use crate::maps::{SHARED, SHARED_LABELS, SharedLabel};
use guard_common::decide::Reason;
use guard_common::fault;
use guard_common::label::Label;

/// Lends one of this CPU's labels to `work`. What it holds at first is left over from its last use.
#[inline(always)]
pub fn borrow<T>(work: impl FnOnce(*mut Label) -> Result<T, Reason>) -> Result<T, Reason> {
    if injected(fault::SHARED) {
        return Err(Reason::StorageBusy);
    }
    let mut index = 0;
    while index < SHARED_LABELS as u32 {
        let shared: *mut SharedLabel = SHARED.get_ptr_mut(index).ok_or(Reason::TableMiss)?;
        // SAFETY: the pointer comes from a map lookup; the flag is only used atomically.
        if unsafe { atomic::swap(&raw mut (*shared).busy, 1) } == 0 {
            break;
        }
        index += 1;
    }
    // Looked up again, so that the verifier checks what follows once and not once per label.
    let shared: *mut SharedLabel = SHARED.get_ptr_mut(index).ok_or(Reason::StorageBusy)?;
    // SAFETY: the label is in use by nobody else while `busy` is set.
    let result = work(unsafe { &raw mut (*shared).label });
    // SAFETY: as above.
    unsafe { atomic::swap(&raw mut (*shared).busy, 0) };
    result
}
