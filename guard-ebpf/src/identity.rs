//! How a label starts and spreads: fork, credential changes, the end of an exec.
//!
//! A labelled task keeps its label whatever it does, but for the exec that makes it a successor
//! (`successor.rs`); the hooks here only ever add one.

use crate::agent;
use crate::atomic;
use crate::bars;
use crate::machine;
use crate::memory::read;
use crate::offsets::*;
use crate::own_root;
use crate::record::count;
use crate::select::{by_cgroup, credentials, lookup_cgroup, lookup_user};
use crate::stdio;
use crate::successor;
use crate::task::{self, Lookup};
use crate::verdict::level;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_send_signal};
use aya_ebpf::macros::{btf_tracepoint, lsm};
use aya_ebpf::programs::{BtfTracePointContext, LsmContext};
use aya_log_ebpf::{error, warn};
use guard_common::action::EAGAIN;
use guard_common::decide::Reason;
use guard_common::event::Counter;
use guard_common::label::{IN_CONTAINER, Label, NO_SUBJECT};
use guard_common::quarantine::Level;

const SIGKILL: u32 = 9;
/// `LSM_SETID_FS` (include/linux/security.h): a change of the file-system ids only.
const LSM_SETID_FS: u64 = 8;

/// Copies the label to a new task. A child that cannot get it is not created, nor is one of a task in
/// quarantine.
#[lsm(hook = "task_alloc", sleepable)]
pub fn task_alloc(ctx: LsmContext) -> i32 {
    match task::label() {
        Lookup::Unlabelled => {
            bars::exempt_child(ctx.arg(0));
            0
        }
        Lookup::Labelled(parent) => {
            if level(parent) >= Level::Full as u32 {
                -EAGAIN
            } else if inherit(ctx.arg(0), parent) {
                0
            } else {
                warn!(&ctx, "no memory to label a new task: the fork is refused");
                -EAGAIN
            }
        }
        Lookup::Busy => -EAGAIN,
    }
}

/// Copies the label again once the new task can be seen. A parent that was labelled between the two
/// (by an iteration over running tasks) would otherwise have an unlabelled child.
#[btf_tracepoint(function = "task_newtask")]
pub fn task_newtask(ctx: BtfTracePointContext) -> i32 {
    let child: *mut task_struct = ctx.arg(0);
    match task::label() {
        Lookup::Labelled(parent) => {
            inherit(child, parent);
        }
        Lookup::Unlabelled => bars::exempt_child(child),
        Lookup::Busy => {}
    }
    0
}

#[inline(always)]
fn inherit(child: *mut task_struct, parent: *mut Label) -> bool {
    let label = task::create(child);
    if label.is_null() {
        return false;
    }
    // SAFETY: both point to whole values; the child does not run yet.
    unsafe {
        // An iterator may have found the child before its parent.
        atomic::or_half(&raw mut (*label).barred, (*parent).barred);
        (*label).session = (*parent).session;
        (*label).row = (*parent).row;
        (*label).root = (*parent).root;
        (*label).stdio = (*parent).stdio;
        (*label).subject = (*parent).subject;
    }
    true
}

/// Labels a task whose real, effective and saved user id all become a subject's: it cannot go
/// back. A change of some of them (seteuid, setfsuid) is what sshd and sudo do for a moment. For a
/// labelled task it is decided whether it may change its ids.
#[lsm(hook = "task_fix_setuid")]
pub fn task_fix_setuid(ctx: LsmContext) -> i32 {
    let new: u64 = ctx.arg(0);
    let is_open = match task::label() {
        Lookup::Unlabelled => true,
        other => {
            let answer = machine::set_user(new, ctx.arg(1));
            if answer != 0 {
                return answer;
            }
            matches!(other, Lookup::Labelled(label) if bars::is_free(label))
        }
    };
    if !bars::cover_user(new) {
        return -EAGAIN;
    }
    if !is_open {
        return 0;
    }
    let flags: u64 = ctx.arg(2);
    if flags & 0xffff_ffff == LSM_SETID_FS {
        return 0;
    }
    match irrevocable(new) {
        Ok(NO_SUBJECT) | Err(_) => 0,
        Ok(subject) => {
            if attach(subject) {
                0
            } else {
                -EAGAIN
            }
        }
    }
}

/// The subject of the user that all three ids of `cred` name.
#[inline(always)]
pub fn irrevocable(cred: u64) -> Result<u32, Reason> {
    let real: u32 = read(cred, &CRED_UID)?;
    if read::<u32>(cred, &CRED_EUID)? != real || read::<u32>(cred, &CRED_SUID)? != real {
        return Ok(NO_SUBJECT);
    }
    Ok(lookup_user(real))
}

/// Labels the running task. False if there is no memory.
#[inline(always)]
fn attach(subject: u32) -> bool {
    let tgid = agent::running();
    if tgid == 1 || agent::is_agent(tgid) {
        return true;
    }
    let label = task::create(task::current());
    if label.is_null() {
        return false;
    }
    own_root::keep(task::current(), label, subject);
    stdio::keep(task::current() as u64, label);
    // SAFETY: the storage of the running task. The row first: the subject makes it count.
    unsafe {
        (*label).row = subject;
        (*label).subject = subject;
    }
    count(Counter::Labelled);
    true
}

/// The exec cannot fail any more: the prepared label counts from here, that of a successor as well. A set-user-id program of a
/// subject's user becomes the subject now as well. Where there is no memory for a label, the task
/// is killed rather than run without.
#[lsm(hook = "bprm_committed_creds", sleepable)]
pub fn bprm_committed_creds(ctx: LsmContext) -> i32 {
    match task::label() {
        Lookup::Unlabelled => {}
        Lookup::Labelled(label) if bars::is_free(label) => {}
        Lookup::Labelled(label) => {
            // SAFETY: the label of the running task.
            unsafe { (*label).asked = 0 };
            successor::begin(label);
            bars::cover(task::current(), bars::keyed_now() | bars::by_program_now());
            return 0;
        }
        // It goes on with the rights by which the exec was decided.
        Lookup::Busy => return 0,
    }
    let barred = bars::by_program_now();
    if barred != 0 && !bars::cover(task::current(), barred) {
        return end(&ctx);
    }
    let label = task::storage(task::current());
    if !label.is_null() {
        // SAFETY: the storage of the running task.
        unsafe {
            if (*label).prepared != NO_SUBJECT {
                stdio::keep(task::current() as u64, label);
                (*label).row = (*label).prepared;
                (*label).subject = (*label).prepared;
                (*label).prepared = NO_SUBJECT;
                count(Counter::Labelled);
                return 0;
            }
        }
    }
    if crate::generation::Generation::live().is_none() {
        return 0;
    }
    // A container may have become known since the exec began.
    // SAFETY: the helper has no requirements.
    let selected = lookup_cgroup(unsafe { bpf_get_current_cgroup_id() });
    let mut subject = if selected & IN_CONTAINER != 0 {
        by_cgroup(selected, |_| Ok(own_root::runs_inside() != 0))
    } else {
        NO_SUBJECT
    };
    if subject == NO_SUBJECT {
        subject = set_id_subject().unwrap_or(NO_SUBJECT);
    }
    if subject != NO_SUBJECT && !attach(subject) {
        return end(&ctx);
    }
    0
}

/// Ends the running task, which must not go on without a label.
#[inline(always)]
fn end(ctx: &LsmContext) -> i32 {
    count(Counter::LabelFailed);
    error!(ctx, "no memory to label a program whose label is due: it is killed");
    // SAFETY: the helper has no requirements.
    unsafe { bpf_send_signal(SIGKILL) };
    0
}

/// The subject that the new credentials select, for an exec that changed the effective user.
#[inline(always)]
fn set_id_subject() -> Result<u32, Reason> {
    let cred: u64 = read(task::current() as u64, &TASK_CRED)?;
    if read::<u32>(cred, &CRED_UID)? == read::<u32>(cred, &CRED_EUID)? {
        return Ok(NO_SUBJECT);
    }
    credentials(task::current() as u64)
}
