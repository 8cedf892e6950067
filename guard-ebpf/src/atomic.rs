//! Atomic operations on map memory.

use core::intrinsics::{AtomicOrdering, atomic_and, atomic_or, atomic_xadd, atomic_xchg};

/// Adds `value` and returns what was there before.
///
/// # Safety
/// `target` must point to map memory that is only changed atomically.
#[inline(always)]
pub unsafe fn add(target: *mut u64, value: u64) -> u64 {
    // SAFETY: by the contract of this function.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(target, value) }
}

/// Stores `value` and returns what was there before.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn swap(target: *mut u64, value: u64) -> u64 {
    // SAFETY: by the contract of this function.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(target, value) }
}

/// Sets the bits of `value`.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn or(target: *mut u64, value: u64) {
    // SAFETY: by the contract of this function.
    unsafe { atomic_or::<u64, u64, { AtomicOrdering::SeqCst }>(target, value) };
}

/// Sets the bits of `value` in half a word.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn or_half(target: *mut u32, value: u32) {
    // SAFETY: by the contract of this function.
    unsafe { atomic_or::<u32, u32, { AtomicOrdering::SeqCst }>(target, value) };
}

/// Keeps only the bits of `value` in half a word.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn and_half(target: *mut u32, value: u32) {
    // SAFETY: by the contract of this function.
    unsafe { atomic_and::<u32, u32, { AtomicOrdering::SeqCst }>(target, value) };
}
