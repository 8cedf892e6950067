//! Labels processes that run already: BPF iterators over all tasks.
//!
//! The agent repeats one until a pass labels nothing: a child that was forked by a labelled task has
//! the label from `task_alloc` or `task_newtask`, and one whose parent was labelled too late for
//! both is found by the next pass.
//!
//! [`inherit_labels`] is repeated alike when these programs take the place of others.
//!
//! [`cover_running`] has quarantines that are bound to no subject cover who runs, and lets go of whom they do not cover
//! any more.
//!
//! Of all other programs only [`label_requested`] exchanges a label for another one, for a process that enters
//! a successor of its subject, and only where the request names the label that it carries.

use crate::agent;
use crate::atomic;
use crate::bars;
use crate::identity::irrevocable;
use crate::maps::{LABELS_BEFORE, REQUESTS};
use crate::memory::read;
use crate::offsets::*;
use crate::own_root;
use crate::record::count;
use crate::select::{lookup_cgroup, of_cgroup};
use crate::stdio;
use crate::task::{self, Lookup};
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_task_storage_get;
use core::ffi::c_void;
use core::ptr::{read_volatile, write_volatile};
use guard_common::decide::Reason;
use guard_common::event::Counter;
use guard_common::label::{LabelHead, LabelRequest, NO_SUBJECT, QUARANTINE_SUBJECT};
use guard_common::quarantine::RESCUED;

/// `PF_KTHREAD` (include/linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;
/// Nanoseconds in a clock tick of `/proc/PID/stat` (`USER_HZ` is 100).
const TICK_NS: u64 = 10_000_000;

/// `struct bpf_iter__task` (kernel/bpf/task_iter.c).
#[repr(C)]
pub struct IteratorContext {
    meta: *mut c_void,
    task: *mut task_struct,
}

/// Labels whatever the selectors or a request cover.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn label_running(ctx: *mut IteratorContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let task = unsafe { (*ctx).task };
    if task.is_null() {
        return 0;
    }
    if let Ok(Some(request)) = wanted(task as u64) {
        fulfil(task, &request);
    }
    0
}

/// Labels what a request covers, and nothing else.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn label_requested(ctx: *mut IteratorContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let task = unsafe { (*ctx).task };
    if task.is_null() {
        return 0;
    }
    if let Ok(Some(request)) = requested(task as u64) {
        fulfil(task, &request);
    }
    0
}

/// Gives a task the label that it carries by the programs that these take the place of. What those did last
/// counts: they are still attached, before these at every hook.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn inherit_labels(ctx: *mut IteratorContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let task = unsafe { (*ctx).task };
    if task.is_null() {
        return 0;
    }
    // SAFETY: the map is a task storage map and `task` a trusted task pointer.
    let before: *const LabelHead =
        unsafe { bpf_task_storage_get(LABELS_BEFORE.as_ptr(), task, core::ptr::null_mut(), 0) }.cast();
    if before.is_null() {
        return 0;
    }
    // SAFETY: a non-null result of the helper points to a whole value, which other programs change by whole
    // stores.
    let (subject, prepared, row, barred) = unsafe {
        (
            read_volatile(&raw const (*before).subject),
            read_volatile(&raw const (*before).prepared),
            read_volatile(&raw const (*before).row),
            read_volatile(&raw const (*before).barred),
        )
    };
    if subject == NO_SUBJECT && prepared == NO_SUBJECT && barred == 0 {
        return 0;
    }
    let label = task::create(task);
    if label.is_null() {
        return 0;
    }
    // SAFETY: as above; the subject last, it makes a new label count.
    unsafe {
        if (*label).subject == subject
            && (*label).prepared == prepared
            && (*label).row == row
            && (*label).barred == barred
        {
            return 0;
        }
        write_volatile(&raw mut (*label).barred, barred);
        (*label).session = (*before).session;
        (*label).root = (*before).root;
        (*label).stdio = (*before).stdio;
        write_volatile(&raw mut (*label).row, row);
        write_volatile(&raw mut (*label).prepared, prepared);
        write_volatile(&raw mut (*label).subject, subject);
    }
    count(Counter::Inherited);
    0
}

/// Has quarantines cover every task that they are to cover, and no other.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn cover_running(ctx: *mut IteratorContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let task = unsafe { (*ctx).task };
    if task.is_null() {
        return 0;
    }
    if let Ok(Some(barred)) = to_be_barred(task as u64) {
        settle(task, barred & bars::used());
    }
    0
}

/// The quarantines that are to cover a task, besides those that do; nothing for one that none may cover.
#[inline(always)]
fn to_be_barred(task: u64) -> Result<Option<u32>, Reason> {
    let flags: u32 = read(task, &TASK_FLAGS)?;
    let tgid: u32 = read(task, &TASK_TGID)?;
    if flags & PF_KTHREAD != 0 || tgid == 1 || agent::is_agent(tgid) {
        return Ok(None);
    }
    let asked = requested(task)?.map_or(0, |request| request.barred);
    Ok(Some(asked | bars::keyed(task) | bars::by_program(task)))
}

/// Adds quarantines to those that cover a task, and takes away those that are over.
#[inline(always)]
fn settle(task: *mut task_struct, barred: u32) {
    let mut label = task::storage(task);
    if label.is_null() {
        if barred == 0 {
            return;
        }
        label = task::create(task);
        if label.is_null() {
            return;
        }
    }
    // SAFETY: a label is a whole value, of which the word is changed atomically: the task itself may add to it.
    let changed = unsafe {
        let before = read_volatile(&raw const (*label).barred);
        let both = (before | barred) & bars::used();
        let after = if both & RESCUED != 0 { RESCUED } else { both };
        if after & !before != 0 {
            atomic::or_half(&raw mut (*label).barred, after & !before);
        }
        if before & !after != 0 {
            atomic::and_half(&raw mut (*label).barred, after | !before);
        }
        let subject = read_volatile(&raw const (*label).subject);
        if after & !RESCUED != 0 {
            bars::hold(label);
        } else if subject == QUARANTINE_SUBJECT {
            write_volatile(&raw mut (*label).subject, NO_SUBJECT);
        }
        before != after || subject != read_volatile(&raw const (*label).subject)
    };
    if changed {
        count(Counter::Covered);
    }
}

/// Gives a task the label of a request, if it carries the one that the request replaces, or none.
#[inline(always)]
fn fulfil(task: *mut task_struct, request: &LabelRequest) {
    if request.subject == NO_SUBJECT {
        return;
    }
    let label = match task::of(task) {
        Lookup::Unlabelled if request.replaces == NO_SUBJECT => task::create(task),
        // SAFETY: a label that was found is a whole value.
        Lookup::Labelled(label) if unsafe { (*label).subject } == request.replaces => {
            // SAFETY: as above.
            if unsafe { (*label).row == request.row && (*label).session == request.session }
                && request.subject == request.replaces
            {
                // Another pass has done it.
                return;
            }
            label
        }
        // Nobody's, but for the quarantine that covers it and goes on doing so.
        Lookup::Labelled(label) if request.replaces == NO_SUBJECT && bars::is_free(label) => label,
        _ => return,
    };
    if label.is_null() {
        return;
    }
    if request.replaces == NO_SUBJECT {
        // A successor keeps the root that its label has.
        own_root::keep(task, label, request.row);
        stdio::keep(task as u64, label);
    }
    // SAFETY: the helper returned a whole value. The subject last: it makes a new label count, and a pass
    // that finds it does nothing.
    unsafe {
        (*label).session = request.session;
        (*label).asked = 1;
        write_volatile(&raw mut (*label).row, request.row);
        write_volatile(&raw mut (*label).subject, request.subject);
    }
    count(Counter::Labelled);
}

/// The request that the agent made for the process of a task.
#[inline(always)]
fn requested(task: u64) -> Result<Option<LabelRequest>, Reason> {
    let flags: u32 = read(task, &TASK_FLAGS)?;
    let tgid: u32 = read(task, &TASK_TGID)?;
    if flags & PF_KTHREAD != 0 || tgid == 1 || agent::is_agent(tgid) {
        return Ok(None);
    }
    // SAFETY: the agent does not change requests while an iterator runs.
    let Some(request) = (unsafe { REQUESTS.get(tgid) }) else { return Ok(None) };
    let leader: u64 = read(task, &TASK_GROUP_LEADER)?;
    let start: u64 = read(leader, &TASK_START_BOOTTIME)?;
    Ok(if start / TICK_NS == request.start_ticks { Some(*request) } else { None })
}

/// The label that a running task should carry, as a request.
#[inline(always)]
fn wanted(task: u64) -> Result<Option<LabelRequest>, Reason> {
    let flags: u32 = read(task, &TASK_FLAGS)?;
    let tgid: u32 = read(task, &TASK_TGID)?;
    if tgid == agent::running() {
        agent::remember();
        own_root::remember_host(task);
        return Ok(None);
    }
    if flags & PF_KTHREAD != 0 || tgid == 1 {
        return Ok(None);
    }
    if let Some(request) = requested(task)? {
        return Ok(Some(request));
    }
    let groups: u64 = read(task, &TASK_CGROUPS)?;
    let cgroup: u64 = read(groups, &CSS_SET_CGROUP)?;
    let node: u64 = read(cgroup, &CGROUP_KN)?;
    let selected = lookup_cgroup(read(node, &KERNFS_NODE_ID)?);
    let mut subject = of_cgroup(selected, task, own_root::has_begun);
    if subject == NO_SUBJECT {
        let cred: u64 = read(task, &TASK_CRED)?;
        subject = irrevocable(cred)?;
    }
    Ok(Some(LabelRequest::attach(0, subject)))
}
