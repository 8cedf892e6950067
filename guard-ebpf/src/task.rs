//! Labels in task storage.
//!
//! A label cannot be lost: it is written by `task_alloc` before a child exists and again by
//! `task_newtask`, nothing deletes it, and the kernel frees it with the task.

use crate::maps::LABELS;
use crate::offsets::{self, STORAGE_MAY_BE_BUSY, TASK_BPF_STORAGE};
use aya_ebpf::bindings::{BPF_LOCAL_STORAGE_GET_F_CREATE, task_struct};
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_storage_get};
use guard_common::label::{Label, NO_SUBJECT};

/// What the storage of a task says.
pub enum Lookup {
    /// The task carries no label: leave.
    Unlabelled,
    /// The task carries this label. Its subject is never [`NO_SUBJECT`].
    Labelled(*mut Label),
    /// The task has storage, but the kernel did not hand it out.
    Busy,
}

/// The running task.
#[inline(always)]
pub fn current() -> *mut task_struct {
    // SAFETY: the helper has no requirements.
    unsafe { bpf_get_current_task_btf() }
}

/// Whether `task` has any BPF storage. A null pointer means that it certainly has no label; this
/// one read is all that an unlabelled task pays.
#[inline(always)]
fn has_storage(task: *mut task_struct) -> bool {
    // SAFETY: a trusted task pointer plus the offset of a pointer member is a typed field access.
    let storage: u64 = unsafe { *task.byte_add(offsets::get(&TASK_BPF_STORAGE) as usize).cast() };
    storage != 0
}

/// The raw storage of `task`, or null.
#[inline(always)]
pub fn storage(task: *mut task_struct) -> *mut Label {
    // SAFETY: the map is a task storage map and `task` a trusted task pointer.
    unsafe { bpf_task_storage_get(LABELS.as_ptr(), task, core::ptr::null_mut(), 0).cast() }
}

/// The storage of `task`, made if it has none; null if there is no memory.
#[inline(always)]
pub fn create(task: *mut task_struct) -> *mut Label {
    let flags = BPF_LOCAL_STORAGE_GET_F_CREATE as u64;
    // SAFETY: as in `storage`; a null initial value asks for zeros.
    unsafe { bpf_task_storage_get(LABELS.as_ptr(), task, core::ptr::null_mut(), flags).cast() }
}

/// The label of the running task.
#[inline(always)]
pub fn label() -> Lookup {
    of(current())
}

/// The label of `task`.
#[inline(always)]
pub fn of(task: *mut task_struct) -> Lookup {
    if !has_storage(task) {
        return Lookup::Unlabelled;
    }
    let mut label = storage(task);
    if label.is_null() && offsets::get(&STORAGE_MAY_BE_BUSY) != 0 {
        // Before 6.2 the lookup itself gives up when another task was preempted inside one on this
        // CPU; once more, then the caller must deny.
        label = storage(task);
        if label.is_null() {
            return Lookup::Busy;
        }
    }
    if label.is_null() {
        // Storage of another tool; since 6.2 a lookup does not fail for any other reason.
        return Lookup::Unlabelled;
    }
    // SAFETY: a non-null result of the helper points to a whole value.
    if unsafe { (*label).subject } == NO_SUBJECT { Lookup::Unlabelled } else { Lookup::Labelled(label) }
}
