//! Reading kernel memory.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use core::mem::MaybeUninit;
use guard_common::decide::Reason;

/// Reads a `T` from kernel address `address + offset`.
#[inline(always)]
pub fn read<T: Copy>(address: u64, offset: &'static u32) -> Result<T, Reason> {
    read_at(address + crate::offsets::get(offset))
}

/// Reads a `T` from a kernel address.
#[inline(always)]
pub fn read_at<T: Copy>(address: u64) -> Result<T, Reason> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes exactly `size_of::<T>()` bytes or fails, and reports bad addresses.
    let failed = unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _)
    };
    if failed != 0 {
        return Err(Reason::Unreadable);
    }
    // SAFETY: the helper succeeded, so every byte is written; `T` is plain data.
    Ok(unsafe { value.assume_init() })
}

/// Copies `len` bytes from a kernel address to `to`. `len` is masked with `MASK`, one less than a
/// power of two, where the verifier can see it: it does not follow how the compiler derived the
/// length, and the compiler would drop a mask that it knows to change nothing.
///
/// # Safety
/// `to` must be valid for `MASK` bytes; the verifier checks it.
#[inline(always)]
pub unsafe fn copy<const MASK: u32>(to: *mut u8, len: u32, address: u64) -> Result<(), Reason> {
    // SAFETY: a reference is valid for reads.
    let len = unsafe { core::ptr::read_volatile(&len) } & MASK;
    // SAFETY: by the contract of this function.
    if unsafe { bpf_probe_read_kernel(to.cast(), len, address as *const _) } == 0 {
        Ok(())
    } else {
        Err(Reason::Unreadable)
    }
}

/// Copies a string of at most `len` bytes with its terminating zero, returns the bytes written.
///
/// # Safety
/// `to` must be valid for `len` bytes; the verifier checks it.
#[inline(always)]
pub unsafe fn copy_string(to: *mut u8, len: u32, address: u64) -> Result<u32, Reason> {
    // SAFETY: by the contract of this function.
    let written = unsafe { bpf_probe_read_kernel_str(to.cast(), len, address as *const _) };
    if written < 0 { Err(Reason::Unreadable) } else { Ok(written as u32) }
}
