//! Labels processes that run already: a BPF iterator over all tasks.
//!
//! The agent repeats it until a pass labels nothing: a child that was forked by a labelled task has
//! the label from `task_alloc` or `task_newtask`, and one whose parent was labelled too late for
//! both is found by the next pass.

use crate::identity::irrevocable;
use crate::maps::REQUESTS;
use crate::memory::read;
use crate::offsets::*;
use crate::record::count;
use crate::select::lookup_cgroup;
use crate::task::{self, Lookup};
use aya_ebpf::bindings::task_struct;
use core::ffi::c_void;
use guard_common::decide::Reason;
use guard_common::event::Counter;
use guard_common::label::NO_SUBJECT;

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

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn label_running(ctx: *mut IteratorContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let task = unsafe { (*ctx).task };
    if task.is_null() {
        return 0;
    }
    let (subject, session) = match wanted(task as u64) {
        Ok(found) => found,
        Err(_) => return 0,
    };
    if subject == NO_SUBJECT {
        return 0;
    }
    match task::of(task) {
        Lookup::Unlabelled => {}
        _ => return 0,
    }
    let label = task::create(task);
    if !label.is_null() {
        // SAFETY: the helper returned a whole value. The session first: the subject makes it count.
        unsafe {
            (*label).session = session;
            core::ptr::write_volatile(&raw mut (*label).subject, subject);
        }
        count(Counter::Labelled);
    }
    0
}

/// Subject and session that a running task should carry.
#[inline(always)]
fn wanted(task: u64) -> Result<(u32, u64), Reason> {
    let flags: u32 = read(task, &TASK_FLAGS)?;
    let tgid: u32 = read(task, &TASK_TGID)?;
    if flags & PF_KTHREAD != 0 || tgid == 1 || tgid as u64 == get(&AGENT_TGID) {
        return Ok((NO_SUBJECT, 0));
    }
    // SAFETY: the agent does not change requests while the iterator runs.
    if let Some(request) = unsafe { REQUESTS.get(tgid) } {
        let leader: u64 = read(task, &TASK_GROUP_LEADER)?;
        let start: u64 = read(leader, &TASK_START_BOOTTIME)?;
        if start / TICK_NS == request.start_ticks {
            return Ok((request.subject, request.session));
        }
    }
    let groups: u64 = read(task, &TASK_CGROUPS)?;
    let cgroup: u64 = read(groups, &CSS_SET_CGROUP)?;
    let node: u64 = read(cgroup, &CGROUP_KN)?;
    let by_cgroup = lookup_cgroup(read(node, &KERNFS_NODE_ID)?);
    if by_cgroup != NO_SUBJECT {
        return Ok((by_cgroup, 0));
    }
    let cred: u64 = read(task, &TASK_CRED)?;
    Ok((irrevocable(cred)?, 0))
}
