//! Labels in task storage.
//!
//! A label cannot be lost, by construction:
//!
//! - It lies in the storage of the task itself, which the kernel frees with the task and not before
//!   (`bpf_task_storage_free`, from `__put_task_struct`). No program here deletes from that map, and the
//!   agent never does.
//! - Every task is made by `copy_process`, whatever asked for it (fork, clone with any flags, vfork, a thread,
//!   an io_uring worker). It calls `security_task_alloc` before the child can run, and gives up if that
//!   fails; so there is no child without the label that its maker had then. Whoever was labelled between
//!   that and the child's becoming visible is caught by `task_newtask`, and by the iterator's next pass.
//! - Exec, changes of credentials, namespaces and cgroups keep the task, and with it the storage. An exec by
//!   another thread than the leader keeps the executing task, which takes over the leader's id.
//! - Only these write a subject into a task: `inherit`, for a child that does not run yet; `attach` and
//!   `bprm_committed_creds`, for a task that has none; and two that exchange one for a declared successor:
//!   `successor::begin`, at the end of an exec, and `running::fulfil`, for the one that the agent names.
//! - Quarantines give whoever carries none a label that allows what they do not deny (`bars.rs`). It ends with them
//!   (`running::cover_running`), or by becoming that of a subject.

use crate::fault::injected;
use crate::maps::LABELS;
use crate::memory::{read, read_at};
use crate::offsets::{
    self, STORAGE_DATA_MAP, STORAGE_ELEMENT_DATA, STORAGE_ELEMENT_NODE, STORAGE_LIST, STORAGE_MAY_BE_BUSY,
    TASK_BPF_STORAGE,
};
use crate::verdict::fail;
use aya_ebpf::bindings::{BPF_LOCAL_STORAGE_GET_F_CREATE, task_struct};
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_storage_get};
use guard_common::decide::{Decision, Reason};
use guard_common::fault;
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

/// `MAX_ERRNO` (include/linux/err.h).
const MAX_ERRNO: i32 = 4095;

/// The running task.
#[inline(always)]
pub fn current() -> *mut task_struct {
    // SAFETY: the helper has no requirements.
    unsafe { bpf_get_current_task_btf() }
}

/// Whether `task` has any BPF storage. A null pointer means that it certainly has no label; this
/// one read is all that an unlabelled task pays.
#[inline(always)]
pub fn has_storage(task: *mut task_struct) -> bool {
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
    if injected(fault::NO_MEMORY) {
        return core::ptr::null_mut();
    }
    let flags = BPF_LOCAL_STORAGE_GET_F_CREATE as u64;
    // SAFETY: as in `storage`; a null initial value asks for zeros.
    unsafe { bpf_task_storage_get(LABELS.as_ptr(), task, core::ptr::null_mut(), flags).cast() }
}

/// The label of the running task.
#[inline(always)]
pub fn label() -> Lookup {
    of(current())
}

/// Lets `decide` answer for a labelled task; an unlabelled one is let through. `required` is what is
/// denied where Guard cannot decide.
///
/// The answer may be an `i64` as well: an error and an `i32` share one register, of which an error leaves
/// half unwritten, and in a large function the compiler may move that half around, which the verifier
/// refuses.
#[inline(always)]
pub fn guarded<A: Into<i64>>(required: u64, decide: impl FnOnce(*mut Label) -> Result<A, Reason>) -> i32 {
    let label = match label() {
        Lookup::Unlabelled => return 0,
        Lookup::Labelled(label) => label,
        Lookup::Busy => return Decision::deny_all(required, Reason::StorageBusy).answer(),
    };
    bounded(match decide(label) {
        Ok(answer) => answer.into() as i32,
        Err(reason) => fail(label, required, reason),
    })
}

/// The same number, of which the verifier then knows that a hook may return it. The compiler, which sees
/// into functions that the verifier takes for unknown, would drop the comparison without the volatile read.
#[inline(always)]
pub fn bounded(answer: i32) -> i32 {
    // SAFETY: a reference is valid for reads.
    unsafe { core::ptr::read_volatile(&answer) }.clamp(-MAX_ERRNO, 0)
}

/// Storages of one task that are looked through, one of each BPF map.
const STORAGES: u32 = 8;

/// Whether a label is among the storages of a task, which are of other tools as well, and of programs that these
/// take the place of; 1 if that cannot be seen. A function of its own, which needs no stack of its callers.
#[inline(never)]
fn may_have_label(task: u64) -> u32 {
    let Ok(storage) = read::<u64>(task, &TASK_BPF_STORAGE) else { return 1 };
    if storage == 0 {
        return 0;
    }
    let Ok(mut node) = read::<u64>(storage, &STORAGE_LIST) else { return 1 };
    let mut left = STORAGES;
    while left > 0 {
        if node == 0 {
            return 0;
        }
        let data = node - offsets::get(&STORAGE_ELEMENT_NODE) + offsets::get(&STORAGE_ELEMENT_DATA);
        match read::<u64>(data, &STORAGE_DATA_MAP) {
            // A local storage map begins with its `struct bpf_map`.
            Ok(map) if map != LABELS.as_ptr() as u64 => {}
            _ => return 1,
        }
        // `hlist_node.next` is its first member.
        let Ok(next) = read_at(node) else { return 1 };
        node = next;
        left -= 1;
    }
    1
}

/// The label of `task`.
#[inline(always)]
pub fn of(task: *mut task_struct) -> Lookup {
    if !has_storage(task) {
        return Lookup::Unlabelled;
    }
    if injected(fault::STORAGE) {
        return Lookup::Busy;
    }
    let mut label = storage(task);
    if label.is_null() && offsets::get(&STORAGE_MAY_BE_BUSY) != 0 {
        // Before 6.2 the lookup itself gives up when another task was preempted inside one on this
        // CPU; once more, then the caller must deny.
        label = storage(task);
        if label.is_null() && may_have_label(task as u64) != 0 {
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
