//! Selectors, evaluated in the kernel at the moment a task becomes a subject.

use crate::agent;
use crate::bars;
use crate::generation::Generation;
use crate::maps::{SELECT_CGROUP, SELECT_GROUP, SELECT_USER};
use crate::memory::read;
use crate::offsets::*;
use crate::own_root;
use crate::path::{HOST, classify};
use crate::record::{Report, count, send};
use crate::resource::Resource;
use crate::shared;
use crate::task;
use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use guard_common::action::{Action, EAGAIN};
use guard_common::decide::Reason;
use guard_common::event::{Counter, Verdict};
use guard_common::label::{IN_CONTAINER, Label, NO_SUBJECT, QUARANTINE_SUBJECT};
use guard_common::path::NODE_NEVER_SELECTS;
use guard_common::quarantine::RESCUED;
use guard_common::tables::HAS_EXEC_SELECTORS;

/// Prepares the label that this exec of an unlabelled task will attach. The label counts when the
/// exec can no longer fail (`identity::bprm_committed_creds`).
#[inline(always)]
pub fn at_exec(bprm: u64) -> i32 {
    let Some(generation) = Generation::live() else { return 0 };
    let tgid = agent::running();
    if tgid == 1 || agent::is_agent(tgid) {
        return 0;
    }
    // SAFETY: the helper has no requirements.
    let by_cgroup =
        by_cgroup(
            lookup_cgroup(unsafe { bpf_get_current_cgroup_id() }),
            |_| Ok(own_root::runs_inside() != 0),
        );
    let by_credentials = credentials(task::current() as u64).unwrap_or(NO_SUBJECT);
    let has_exec_selectors = match generation.header() {
        Some(header) => header.flags & HAS_EXEC_SELECTORS != 0,
        None => false,
    };
    let mut subject = if by_cgroup != NO_SUBJECT { by_cgroup } else { by_credentials };
    let mut barred = bars::keyed_now();
    if by_cgroup != NO_SUBJECT || barred != 0 || has_exec_selectors {
        match executable(&generation, bprm) {
            Ok(Executable { never_selects: true, .. }) => {
                subject = NO_SUBJECT;
                barred = 0;
            }
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
    if subject == NO_SUBJECT && barred == 0 {
        return forget_prepared();
    }
    let label = task::create(task::current());
    if label.is_null() {
        return refuse(&generation, Reason::NoMemory);
    }
    bars::mark(label, barred);
    if subject == NO_SUBJECT && barred & RESCUED == 0 && !bars::is_rescued(label) && !bars::is_free(label) {
        subject = QUARANTINE_SUBJECT;
    }
    // SAFETY: the storage of the running task.
    unsafe { (*label).prepared = subject };
    if subject > QUARANTINE_SUBJECT {
        own_root::keep(task::current(), label, subject);
    }
    0
}

/// The exec must not go on, because it might have to attach a label and cannot.
#[inline(always)]
fn refuse(generation: &Generation, reason: Reason) -> i32 {
    count(Counter::InternalDenied);
    let report = Report {
        verdict: Verdict::Denied,
        reason: reason as u8,
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

/// The subject that the running task gets from what a cgroup selects. What a container's cgroup selects
/// counts only where `is_inside` says so of the task.
#[inline(always)]
pub fn by_cgroup(selected: u32, is_inside: impl FnOnce(u64) -> Result<bool, Reason>) -> u32 {
    of_cgroup(selected, task::current() as u64, is_inside)
}

/// The same of any task.
#[inline(always)]
pub fn of_cgroup(selected: u32, task: u64, is_inside: impl FnOnce(u64) -> Result<bool, Reason>) -> u32 {
    if selected & IN_CONTAINER == 0 || is_inside(task).unwrap_or(false) {
        selected & !IN_CONTAINER
    } else {
        NO_SUBJECT
    }
}

/// What a cgroup selects: a subject, and [`IN_CONTAINER`]; or [`NO_SUBJECT`].
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
/// CPU's is borrowed.
#[inline(always)]
fn executable(generation: &Generation, bprm: u64) -> Result<Executable, Reason> {
    shared::borrow(|label| executable_with(generation, bprm, label))
}

#[inline(always)]
fn executable_with(generation: &Generation, bprm: u64, label: *mut Label) -> Result<Executable, Reason> {
    let header = generation.header().ok_or(Reason::TableMiss)?;
    let file: u64 = read(bprm, &BPRM_FILE)?;
    let dentry: u64 = read(file, &FILE_DENTRY)?;
    let mut resource = Resource::unknown();
    // SAFETY: the buffer was borrowed.
    let walk = unsafe { &raw mut (*label).walk };
    // SAFETY: as above.
    unsafe { (*walk).way = HOST };
    classify(generation, header, dentry, walk, &mut resource)?;
    // SAFETY: as above.
    let walk = unsafe { &*walk };
    Ok(Executable { subject: walk.exec_subject, never_selects: walk.flags & NODE_NEVER_SELECTS != 0 })
}
