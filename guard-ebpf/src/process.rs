//! Other processes: signals, tracing, and what else is done to a process from outside.
//!
//! The thread group of the caller is never governed: what a process does to itself needs no right. The
//! label of the other process is an attribute (`resource.subject`), because it can be attached at any
//! time; processes themselves have no name that policy could know.

use crate::agent::{self, is_agent};
use crate::bars;
use crate::memory::{read, read_at};
use crate::offsets::*;
use crate::resource::Resource;
use crate::task::{self, Lookup, bounded, guarded};
use crate::verdict::{fail, judge, live, probe};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use guard_common::action::Action;
use guard_common::class::PROCESS;
use guard_common::decide::Reason;
use guard_common::label::{AGENT_SUBJECT, Label, NO_SUBJECT};
use guard_common::tables::ABSENT;

/// `PTRACE_MODE_NOAUDIT` (`include/linux/ptrace.h`): the kernel asks how much to show, nobody is refused.
const NO_AUDIT: u64 = 0x04;

pub const SIGNAL: u64 = Action::ProcSignal.bit();
const TRACE: u64 = Action::ProcTrace.bit();

/// kill(2) and its relatives, signal 0 included: whether a process exists is an answer too. Signals
/// of the kernel itself do not come here (`check_kill_permission`).
#[lsm(hook = "task_kill")]
pub fn task_kill(ctx: LsmContext) -> i32 {
    guarded(SIGNAL, |label| {
        // The signal of a USB request that has completed (`kill_pid_usb_asyncio`): it goes to the process
        // that made the request, and the running task has nothing to do with it.
        // Read as a number: the verifier takes an argument for a pointer that is never null, and would
        // drop everything behind this test.
        let cred: u64 = read_at(ctx.as_ptr() as u64 + 3 * 8)?;
        if cred != 0 {
            return Ok(0i64);
        }
        other(ctx.arg(0), label, SIGNAL, true)
    })
}

// Scheduling, limits and placement of another process: whoever may change them can starve it, and a
// limit of processor time kills it, so they count as signals.

#[lsm(hook = "task_setnice")]
pub fn task_setnice(ctx: LsmContext) -> i32 {
    guarded(SIGNAL, |label| other(ctx.arg(0), label, SIGNAL, true))
}

#[lsm(hook = "task_setioprio")]
pub fn task_setioprio(ctx: LsmContext) -> i32 {
    guarded(SIGNAL, |label| other(ctx.arg(0), label, SIGNAL, true))
}

#[lsm(hook = "task_setscheduler")]
pub fn task_setscheduler(ctx: LsmContext) -> i32 {
    guarded(SIGNAL, |label| other(ctx.arg(0), label, SIGNAL, true))
}

#[lsm(hook = "task_setrlimit")]
pub fn task_setrlimit(ctx: LsmContext) -> i32 {
    guarded(SIGNAL, |label| other(ctx.arg(0), label, SIGNAL, true))
}

#[lsm(hook = "task_movememory")]
pub fn task_movememory(ctx: LsmContext) -> i32 {
    guarded(SIGNAL, |label| other(ctx.arg(0), label, SIGNAL, true))
}

/// ptrace(2), `process_vm_*`, `pidfd_getfd`, and the files of another process in a procfs that show or
/// change its memory, descriptors and directories.
#[lsm(hook = "ptrace_access_check")]
pub fn ptrace_access_check(ctx: LsmContext) -> i32 {
    guarded(TRACE, |label| {
        let mode: u64 = ctx.arg(1);
        other(ctx.arg(0), label, TRACE, mode & NO_AUDIT == 0)
    })
}

/// A process asks to be traced by its parent, so it is the parent that needs the right, and the
/// running task is what it needs it on.
#[lsm(hook = "ptrace_traceme")]
pub fn ptrace_traceme(ctx: LsmContext) -> i32 {
    let parent: *mut task_struct = ctx.arg(0);
    let tracer = match task::of(parent) {
        Lookup::Unlabelled => return 0,
        Lookup::Labelled(label) => label,
        Lookup::Busy => return guarded(TRACE, |_| Err::<i64, _>(Reason::StorageBusy)),
    };
    bounded(match process(tracer, task::current(), TRACE, true) {
        Ok(answer) => answer as i32,
        Err(reason) => fail(tracer, TRACE, reason),
    })
}

/// Decides what the running task does to `target`; its own thread group is its own affair. What is not
/// to be reported is a question of the kernel's.
#[inline(always)]
fn other(target: *mut task_struct, label: *mut Label, required: u64, reported: bool) -> Result<i64, Reason> {
    if read::<u32>(target as u64, &TASK_TGID)? == agent::running() {
        return Ok(0);
    }
    process(label, target, required, reported)
}

/// Decides what the holder of `label` does to `target`.
#[inline(always)]
pub fn process(
    label: *mut Label,
    target: *mut task_struct,
    required: u64,
    reported: bool,
) -> Result<i64, Reason> {
    let (generation, header) = live()?;
    let mut resource = Resource::of_class(PROCESS);
    resource.peer_tgid = read(target as u64, &TASK_TGID)?;
    resource.peer = match task::of(target) {
        Lookup::Unlabelled if is_agent(resource.peer_tgid) => AGENT_SUBJECT,
        Lookup::Unlabelled => NO_SUBJECT,
        Lookup::Labelled(other) if bars::is_free(other) => NO_SUBJECT,
        // SAFETY: the storage of a task that the kernel holds while it asks.
        Lookup::Labelled(other) => unsafe { (*other).subject },
        Lookup::Busy => return Err(Reason::StorageBusy),
    };
    // SAFETY: a label is a whole value.
    resource.attributes.own = unsafe { (*label).subject } as u64;
    resource.attributes.subject = if resource.peer == NO_SUBJECT { ABSENT } else { resource.peer as u64 };
    resource.add_attribute_features(&generation, header);
    let answer = if reported {
        judge(&generation, label, &resource, required)
    } else {
        probe(&generation, label, &resource, required)
    };
    Ok(answer.into())
}
