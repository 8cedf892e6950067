//! Selectors, evaluated in the kernel at the moment a task becomes a subject.

use crate::atomic;
use crate::generation::Generation;
use crate::maps::{SELECT_CGROUP, SELECT_GROUP, SELECT_USER, SHARED_WALKS, SharedWalk, WALKS};
use crate::memory::read;
use crate::offsets::*;
use crate::path::classify;
use crate::record::{Report, count, send};
use crate::resource::Resource;
use crate::task;
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid};
use guard_common::action::{Action, EAGAIN};
use guard_common::decide::Reason;
use guard_common::event::{Counter, Verdict};
use guard_common::label::NO_SUBJECT;
use guard_common::path::NODE_NEVER_SELECTS;
use guard_common::tables::HAS_EXEC_SELECTORS;

/// Prepares the label that this exec of an unlabelled task will attach. The label counts when the
/// exec can no longer fail (`identity::bprm_committed_creds`).
#[inline(always)]
pub fn at_exec(bprm: u64) -> i32 {
    let Some(generation) = Generation::live() else { return 0 };
    // SAFETY: the helper has no requirements.
    let tgid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    if tgid == 1 || tgid as u64 == get(&AGENT_TGID) {
        return 0;
    }
    // SAFETY: the helper has no requirements.
    let by_cgroup = lookup_cgroup(unsafe { bpf_get_current_cgroup_id() });
    let by_credentials = credentials(task::current() as u64).unwrap_or(NO_SUBJECT);
    let has_exec_selectors = match generation.header() {
        Some(header) => header.flags & HAS_EXEC_SELECTORS != 0,
        None => false,
    };
    let mut subject = if by_cgroup != NO_SUBJECT { by_cgroup } else { by_credentials };
    if by_cgroup != NO_SUBJECT || has_exec_selectors {
        match executable(&generation, bprm) {
            Ok(Executable { never_selects: true, .. }) => subject = NO_SUBJECT,
            Ok(Executable { subject: by_executable, .. }) => {
                if subject == NO_SUBJECT {
                    subject = by_executable;
                }
            }
            // The path cannot be read right now. A subject known otherwise is attached all the
            // same; without one the caller may try again, as for any shortage.
            Err(reason) if subject == NO_SUBJECT => return refuse(&generation, reason),
            Err(_) => {}
        }
    }
    if subject == NO_SUBJECT {
        return forget_prepared();
    }
    let label = task::create(task::current());
    if label.is_null() {
        return refuse(&generation, Reason::NoMemory);
    }
    // SAFETY: the storage of the running task.
    unsafe { (*label).prepared = subject };
    0
}

/// The exec must not go on, because it might have to attach a label and cannot.
#[inline(always)]
fn refuse(generation: &Generation, reason: Reason) -> i32 {
    count(Counter::InternalDenied);
    let report = Report {
        verdict: Verdict::Denied,
        reason,
        actions: Action::Exec.bit(),
        errno: EAGAIN,
        loosened: false,
        shadow: 0,
    };
    send(generation, core::ptr::null_mut(), &Resource::unknown(), &report);
    -EAGAIN
}

/// An earlier exec that failed may have left a prepared label.
#[inline(always)]
fn forget_prepared() -> i32 {
    let label = task::storage(task::current());
    if !label.is_null() {
        // SAFETY: the storage of the running task.
        unsafe { (*label).prepared = NO_SUBJECT };
    }
    0
}

/// The subject of a cgroup, or [`NO_SUBJECT`].
#[inline(always)]
pub fn lookup_cgroup(id: u64) -> u32 {
    // SAFETY: the value is one aligned word.
    unsafe { SELECT_CGROUP.get(id) }.copied().unwrap_or(NO_SUBJECT)
}

/// The subject of a user, or [`NO_SUBJECT`].
#[inline(always)]
pub fn lookup_user(id: u32) -> u32 {
    // SAFETY: the value is one aligned word.
    unsafe { SELECT_USER.get(id) }.copied().unwrap_or(NO_SUBJECT)
}

/// The subject that the credentials of `task` select at an exec: by real or effective user, then
/// by real or effective group.
#[inline(always)]
pub fn credentials(task: u64) -> Result<u32, Reason> {
    let cred: u64 = read(task, &TASK_CRED)?;
    let mut subject = lookup_user(read(cred, &CRED_UID)?);
    if subject == NO_SUBJECT {
        subject = lookup_user(read(cred, &CRED_EUID)?);
    }
    if subject == NO_SUBJECT {
        subject = lookup_group(read(cred, &CRED_GID)?);
    }
    if subject == NO_SUBJECT {
        subject = lookup_group(read(cred, &CRED_EGID)?);
    }
    Ok(subject)
}

#[inline(always)]
fn lookup_group(id: u32) -> u32 {
    // SAFETY: the value is one aligned word.
    unsafe { SELECT_GROUP.get(id) }.copied().unwrap_or(NO_SUBJECT)
}

struct Executable {
    subject: u32,
    never_selects: bool,
}

/// What the executed file says. An unlabelled task has no walk buffer of its own, so one of this
/// CPU's is claimed.
#[inline(always)]
fn executable(generation: &Generation, bprm: u64) -> Result<Executable, Reason> {
    let mut index = 0;
    while index < SHARED_WALKS as u32 {
        let shared: *mut SharedWalk = WALKS.get_ptr_mut(index).ok_or(Reason::TableMiss)?;
        // SAFETY: the pointer comes from a map lookup; the flag is only used atomically.
        if unsafe { atomic::swap(&raw mut (*shared).busy, 1) } == 0 {
            break;
        }
        index += 1;
    }
    // Looked up again, so that the verifier checks what follows once and not once per buffer.
    let shared: *mut SharedWalk = WALKS.get_ptr_mut(index).ok_or(Reason::StorageBusy)?;
    let result = executable_with(generation, bprm, shared);
    // SAFETY: as above.
    unsafe { atomic::swap(&raw mut (*shared).busy, 0) };
    result
}

#[inline(always)]
fn executable_with(
    generation: &Generation,
    bprm: u64,
    shared: *mut SharedWalk,
) -> Result<Executable, Reason> {
    let header = generation.header().ok_or(Reason::TableMiss)?;
    let file: u64 = read(bprm, &BPRM_FILE)?;
    let dentry: u64 = read(file, &FILE_DENTRY)?;
    let mut resource = Resource::unknown();
    // SAFETY: the buffer was claimed.
    let walk = unsafe { &raw mut (*shared).walk };
    classify(generation, header, dentry, walk, &mut resource)?;
    // SAFETY: as above.
    let walk = unsafe { &*walk };
    Ok(Executable { subject: walk.exec_subject, never_selects: walk.flags & NODE_NEVER_SELECTS != 0 })
}
