//! Quarantines that are bound to no subject: which of them cover a task, and what they deny.
//!
//! A task that one covers has its bit in its label, and so have all that it makes. Who carries no label gets one of
//! [`QUARANTINE_SUBJECT`], which is allowed whatever the quarantine does not deny; to be selected by a policy later
//! ends that, and the bits stay. They count in every decision, before what policy says.
//!
//! Whoever comes to have what a quarantine is bound to is covered by the hooks where that happens: an exec, a change
//! of all user ids, the move to a cgroup. Who runs already is covered by an iterator (`running::cover_running`).

use crate::atomic;
use crate::maps::{BARRED, BARS};
use crate::memory::read;
use crate::offsets::*;
use crate::task;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_ktime_get_boot_ns};
use core::ptr::{read_volatile, write_volatile};
use guard_common::decide::Reason;
use guard_common::label::{Label, NO_SUBJECT, OwnRoot, QUARANTINE_SUBJECT};
use guard_common::quarantine::{
    BARS as COUNT, BY_CGROUP, BY_HOST, BY_PROGRAM, BY_USER, Bar, BarKey, Bars, RESCUED, level_of,
};

/// The number of the highest level of these quarantines that covers the holder of a label; 0 = none.
#[inline(always)]
pub fn level(label: *mut Label) -> u64 {
    // SAFETY: a label is a whole value. The compiler sees into the function, knows its results and would drop the
    // bounds that the verifier needs, to which they are unknown, without the volatile read.
    unsafe { read_volatile(&barred_at(label)) as u64 }
}

/// What `level` does. A global function, which the verifier checks once for each program.
///
/// # Safety
/// The label must be a whole one; the verifier checks it.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn barred_at(label: *mut Label) -> u32 {
    if label.is_null() {
        return 0;
    }
    // SAFETY: by the contract of this function. The helper has no requirements.
    let (barred, now) = unsafe {
        let barred = read_volatile(&raw const (*label).barred);
        if barred == 0 || barred & RESCUED != 0 {
            return 0;
        }
        (barred, bpf_ktime_get_boot_ns())
    };
    let Some(bars) = all() else { return 0 };
    // SAFETY: the pointer comes from a map lookup; the index is below the length of the array. The agent writes
    // whole words: whoever reads between two finds a level for too long or too short by one read of the clock.
    level_of(barred, now, |index| unsafe {
        let bar = (&raw const (*bars).bars).cast::<Bar>().add(index);
        Bar { level: read_volatile(&raw const (*bar).level), until: read_volatile(&raw const (*bar).until) }
    }) as u32
}

#[inline(always)]
fn all() -> Option<*const Bars> {
    const { assert!(COUNT == 31) };
    BARS.get_ptr(0)
}

/// The bits that mean something.
#[inline(always)]
pub fn used() -> u32 {
    // SAFETY: the pointer comes from a map lookup; the word is written by whole stores.
    all().map_or(0, |bars| unsafe { read_volatile(&raw const (*bars).used) } as u32)
}

/// Whether processes can come to be covered by what they are.
#[inline(always)]
fn are_keyed() -> bool {
    // SAFETY: as above.
    all().is_some_and(|bars| unsafe { read_volatile(&raw const (*bars).keyed) } != 0)
}

/// What is bound to a key.
#[inline(always)]
fn bound(kind: u32, device: u32, value: u64) -> u32 {
    // SAFETY: the value is one aligned word.
    unsafe { BARRED.get(BarKey { kind, device, value }) }.copied().unwrap_or(0)
}

/// What is bound to a cgroup.
#[inline(always)]
pub fn by_cgroup(id: u64) -> u32 {
    if are_keyed() { bound(BY_CGROUP, 0, id) } else { 0 }
}

/// What is bound to the user that all ids of `cred` name.
#[inline(always)]
pub fn by_user(cred: u64) -> u32 {
    if !are_keyed() {
        return 0;
    }
    let ids = || -> Result<u32, Reason> {
        let real: u32 = read(cred, &CRED_UID)?;
        if read::<u32>(cred, &CRED_EUID)? != real || read::<u32>(cred, &CRED_SUID)? != real {
            return Ok(0);
        }
        Ok(bound(BY_USER, 0, real as u64))
    };
    ids().unwrap_or(0)
}

/// What is bound to the program that the running task runs.
#[inline(always)]
pub fn by_program_now() -> u32 {
    // SAFETY: the function has no requirements.
    unsafe { barred_by_program() }
}

/// What `by_program_now` does. A global function, which the verifier checks once for each program; it finds the task
/// by itself, since such a function takes no pointer for a number.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn barred_by_program() -> u32 {
    // SAFETY: the helper has no requirements.
    by_program(unsafe { bpf_get_current_task() })
}

/// What is bound to the program that a task runs.
#[inline(always)]
pub fn by_program(task: u64) -> u32 {
    if !are_keyed() {
        return 0;
    }
    let found = || -> Result<u32, Reason> {
        let memory: u64 = read(task, &TASK_MM)?;
        if memory == 0 {
            return Ok(0);
        }
        let file: u64 = read(memory, &MM_EXE_FILE)?;
        if file == 0 {
            return Ok(0);
        }
        let inode: u64 = read(file, &FILE_INODE)?;
        let superblock: u64 = read(inode, &INODE_SB)?;
        Ok(bound(BY_PROGRAM, read(superblock, &SB_DEV)?, read(inode, &INODE_NUMBER)?))
    };
    found().unwrap_or(0)
}

/// What is bound to the host, and to the cgroup and the users of the running task.
#[inline(always)]
pub fn keyed_now() -> u32 {
    // SAFETY: the function has no requirements.
    unsafe { barred_otherwise() }
}

/// What `keyed_now` does, as a global function.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn barred_otherwise() -> u32 {
    // SAFETY: the helper has no requirements.
    keyed(unsafe { bpf_get_current_task() })
}

/// What is bound to the host, and to the cgroup and the users of a task.
#[inline(always)]
pub fn keyed(task: u64) -> u32 {
    if !are_keyed() {
        return 0;
    }
    let found = bound(BY_HOST, 0, 0);
    let cgroup = || -> Result<u32, Reason> {
        let groups: u64 = read(task, &TASK_CGROUPS)?;
        let cgroup: u64 = read(groups, &CSS_SET_CGROUP)?;
        let node: u64 = read(cgroup, &CGROUP_KN)?;
        Ok(bound(BY_CGROUP, 0, read(node, &KERNFS_NODE_ID)?))
    };
    let users = || -> Result<u32, Reason> {
        let cred: u64 = read(task, &TASK_REAL_CRED)?;
        let (real, effective, saved): (u32, u32, u32) =
            (read(cred, &CRED_UID)?, read(cred, &CRED_EUID)?, read(cred, &CRED_SUID)?);
        Ok(bound(BY_USER, 0, real as u64)
            | bound(BY_USER, 0, effective as u64)
            | bound(BY_USER, 0, saved as u64))
    };
    found | cgroup().unwrap_or(0) | users().unwrap_or(0)
}

/// Whether the label is that of a quarantine alone, whose holder is nobody's otherwise.
#[inline(always)]
pub fn is_free(label: *mut Label) -> bool {
    // SAFETY: a label is a whole value.
    unsafe { read_volatile(&raw const (*label).subject) == QUARANTINE_SUBJECT }
}

/// Whether no quarantine is to cover the holder of this storage.
#[inline(always)]
pub fn is_rescued(label: *const Label) -> bool {
    // SAFETY: a label is a whole value.
    unsafe { read_volatile(&raw const (*label).barred) & RESCUED != 0 }
}

/// Has these quarantines cover a task, or none. False if there is no memory.
#[inline(always)]
pub fn cover(task: *mut task_struct, barred: u32) -> bool {
    if barred == 0 {
        return true;
    }
    let label = task::create(task);
    if label.is_null() {
        return false;
    }
    mark(label, barred);
    if !is_rescued(label) {
        hold(label);
    }
    true
}

/// Adds quarantines to a label, or that none is to count.
#[inline(always)]
pub fn mark(label: *mut Label, barred: u32) {
    let marks = if barred & RESCUED != 0 { RESCUED } else { barred };
    // SAFETY: a label is a whole value, of which the word is changed atomically.
    unsafe { atomic::or_half(&raw mut (*label).barred, marks) };
}

/// Makes the bits of a label count, if it has no subject.
#[inline(always)]
pub fn hold(label: *mut Label) {
    // SAFETY: a label is a whole value. The row first: the subject makes it count.
    unsafe {
        if read_volatile(&raw const (*label).subject) == NO_SUBJECT {
            (*label).session = 0;
            (*label).root = OwnRoot::default();
            write_volatile(&raw mut (*label).row, QUARANTINE_SUBJECT);
            write_volatile(&raw mut (*label).subject, QUARANTINE_SUBJECT);
        }
    }
}

/// A change to a user that a quarantine is bound to: it covers even what was exempted as another user.
#[inline(always)]
pub fn cover_user(cred: u64) -> bool {
    let barred = by_user(cred);
    if barred == 0 {
        return true;
    }
    let label = task::create(task::current());
    if label.is_null() {
        return false;
    }
    // SAFETY: the storage of the running task, of which the word is changed atomically.
    unsafe {
        atomic::and_half(&raw mut (*label).barred, !RESCUED);
        atomic::or_half(&raw mut (*label).barred, barred & !RESCUED);
    }
    hold(label);
    true
}

/// Hands on to a new task that no quarantine is to cover it. Where there is no memory for that, one may.
#[inline(always)]
pub fn exempt_child(child: *mut task_struct) {
    if !task::has_storage(task::current()) {
        return;
    }
    let label = task::storage(task::current());
    if label.is_null() || !is_rescued(label) {
        return;
    }
    let new = task::create(child);
    if !new.is_null() {
        // SAFETY: the storage of the new task, of which the word is changed atomically.
        unsafe { atomic::or_half(&raw mut (*new).barred, RESCUED) };
    }
}
