//! bpf(2) commands on the elements of maps, where aya has none or takes one element at a time.

use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use zerocopy::{Immutable, IntoBytes};

// include/uapi/linux/bpf.h
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_UPDATE_BATCH: libc::c_int = 26;

/// The part of `union bpf_attr` for commands on one element.
#[repr(C)]
struct ElementAttribute {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` for commands on many elements.
#[repr(C)]
struct BatchAttribute {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

fn bpf<T>(command: libc::c_int, attribute: &mut T) -> io::Result<()> {
    // SAFETY: the attribute has the kernel's layout for the command, as its callers in this file see
    // to, outlives the call and is given with its size; what it points to is theirs to argue.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size_of::<T>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Looks up `key` and has the kernel write the value to `value`.
///
/// # Safety
/// `key` and `value` must be valid for as many bytes as the map's keys and values have.
pub(super) unsafe fn lookup(map: BorrowedFd<'_>, key: *const u8, value: *mut u8) -> io::Result<()> {
    let mut attribute = ElementAttribute {
        map_fd: map.as_raw_fd() as u32,
        reserved: 0,
        key: key as u64,
        value: value as u64,
        flags: 0,
    };
    bpf(MAP_LOOKUP_ELEM, &mut attribute)
}

/// Puts `inner` into a map of maps. Returns when no program that cannot sleep and was running at the
/// time of the call still runs (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c).
pub(super) fn put_inner(outer: BorrowedFd<'_>, slot: u32, inner: BorrowedFd<'_>) -> io::Result<()> {
    let inner = inner.as_raw_fd() as u32;
    let mut attribute = ElementAttribute {
        map_fd: outer.as_raw_fd() as u32,
        reserved: 0,
        key: (&raw const slot) as u64,
        value: (&raw const inner) as u64,
        flags: 0,
    };
    // Keys and values of an array of maps are four bytes each; both outlive the call.
    bpf(MAP_UPDATE_ELEM, &mut attribute)
}

/// Adds elements with as few calls as possible. `keys` and `values` must be what the map was made for.
pub(super) fn insert_all<K, V>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()>
where
    K: IntoBytes + Immutable,
    V: IntoBytes + Immutable,
{
    let (keys_left, values_left) = (keys, values);
    if keys_left.is_empty() {
        return Ok(());
    }
    let mut attribute = BatchAttribute {
        in_batch: 0,
        out_batch: 0,
        keys: keys_left.as_ptr() as u64,
        values: values_left.as_ptr() as u64,
        count: keys_left.len().min(values_left.len()) as u32,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // Both slices outlive the call and hold `count` elements without padding.
    bpf(MAP_UPDATE_BATCH, &mut attribute)
}
