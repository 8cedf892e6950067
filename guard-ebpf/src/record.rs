//! Events and counters. Nothing here changes a verdict.

use crate::atomic;
use crate::generation::Generation;
use crate::maps::{COUNTERS, EVENTS, SEQUENCE};
use crate::memory::{copy, copy_string, read};
use crate::offsets::DENTRY_NAME;
use crate::path;
use crate::resource::Resource;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, bpf_loop,
};
use core::ffi::c_void;
use guard_common::decide::Reason;
use guard_common::event::{
    Counter, Event, FLAG_ABSTRACT, FLAG_PATH, FLAG_PATH_CUT, FLAG_WOULD_ALLOW, PATH_MAX, Verdict,
};
use guard_common::label::Label;
use guard_common::path::{MAX_COMPONENTS, Walk};

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the pointer comes from a map lookup; a program that preempts this one adds
        // atomically as well.
        unsafe { atomic::add(value, 1) };
    }
}

/// What an event says besides the resource.
pub struct Report {
    pub verdict: Verdict,
    pub reason: Reason,
    pub actions: u64,
    pub errno: i32,
    /// The candidate set would allow what is denied.
    pub loosened: bool,
    /// The actions for which a shadow would have it end otherwise.
    pub shadow: u64,
}

/// Sends one event. `label` may be null for a task without one.
#[inline(always)]
pub fn send(generation: &Generation, label: *mut Label, resource: &Resource, report: &Report) {
    let Some(sequence) = SEQUENCE.get_ptr_mut(0) else { return };
    // SAFETY: as in `count`.
    let sequence = unsafe { atomic::add(sequence, 1) } + 1;
    let Some(mut entry) = EVENTS.reserve_untyped::<Event>(0) else {
        count(Counter::Lost);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is exclusive to this program and large enough for an event; every field of
    // the fixed part is written before the entry is submitted, and of the path as much as
    // `path_len` says. The helpers have no requirements.
    unsafe {
        let ids = bpf_get_current_pid_tgid();
        (*event).boot_ns = bpf_ktime_get_boot_ns();
        (*event).generation = generation.number;
        (*event).cgroup = bpf_get_current_cgroup_id();
        (*event).sequence = sequence;
        (*event).actions = report.actions;
        (*event).features = resource.features;
        (*event).shadow = report.shadow;
        (*event).tgid = (ids >> 32) as u32;
        (*event).tid = ids as u32;
        (*event).uid = bpf_get_current_uid_gid() as u32;
        (*event).cpu = bpf_get_smp_processor_id();
        (*event).class = resource.class;
        (*event).verdict = report.verdict as u8;
        (*event).reason = report.reason as u8;
        (*event).errno = report.errno as u8;
        (*event).family = resource.family;
        (*event).port = resource.port;
        (*event).protocol = resource.protocol;
        (*event).address = resource.address;
        (*event).path_len = 0;
        (*event).flags = if report.loosened { FLAG_WOULD_ALLOW } else { 0 };
        (*event).device = 0;
        (*event).subject = 0;
        (*event).session = 0;
        bpf_get_current_comm((&raw mut (*event).comm).cast(), 16);
        if !label.is_null() {
            (*event).subject = (*label).subject;
            (*event).session = (*label).session;
            if resource.has_path {
                (*event).device = (*label).walk.device;
                path::gather(&raw mut (*label).walk);
                write_path(event, &raw mut (*label).walk);
            }
        }
        if resource.abstract_name != 0 {
            write_abstract(event, resource);
        }
    }
    entry.submit(0);
    count(Counter::Sent);
}

struct PathState {
    event: *mut Event,
    walk: *mut Walk,
}

const RING: u32 = MAX_COMPONENTS as u32;

/// Writes the names of the last walk, from the root, as far as they are remembered and fit.
#[inline(always)]
unsafe fn write_path(event: *mut Event, walk: *mut Walk) {
    // The walk is over, so its loop state is free for this loop: `length` is the path's.
    // SAFETY: by the caller, both point to whole values; the callback's context outlives the call.
    unsafe {
        (*walk).remaining = (*walk).count;
        (*walk).floor = (*walk).count.saturating_sub(RING);
        (*walk).length = 0;
        (*walk).state = ((*walk).floor != 0) as u32;
        let mut state = PathState { event, walk };
        bpf_loop(RING, append as *mut c_void, (&raw mut state).cast(), 0);
        (*event).flags |= FLAG_PATH | if (*walk).state != 0 { FLAG_PATH_CUT } else { 0 };
        (*event).path_len = (*walk).length as u16;
    }
}

extern "C" fn append(_: u32, state: *mut PathState) -> i64 {
    // SAFETY: the only caller passes a valid pointer to valid buffers.
    let (walk, path) = unsafe { (&mut *(*state).walk, (&raw mut (*(*state).event).path).cast::<u8>()) };
    if walk.remaining <= walk.floor {
        return 1;
    }
    if walk.length >= PATH_MAX as u32 - 1 {
        walk.state = 1;
        return 1;
    }
    walk.remaining -= 1;
    let at = (walk.length as usize) & (PATH_MAX - 1);
    // SAFETY: the index is masked to the ring; `at` is below PATH_MAX, and the path has room for
    // one more component behind that.
    let written = unsafe {
        let step = walk.steps.get_unchecked((walk.remaining as usize) & (MAX_COMPONENTS - 1));
        *path.add(at) = b'/';
        match read::<u64>(step.dentry, &DENTRY_NAME) {
            Ok(name) => copy_string(path.add(at + 1), 256, name).unwrap_or(1),
            Err(_) => 1,
        }
    };
    // The string's terminating zero is counted in `written` and not kept: with the slash, that is
    // the number of new bytes.
    let length = walk.length + (written & 0x1ff);
    if length > PATH_MAX as u32 {
        walk.length = PATH_MAX as u32;
        walk.state = 1;
    } else {
        walk.length = length;
    }
    0
}

/// Writes an abstract socket name.
#[inline(always)]
unsafe fn write_abstract(event: *mut Event, resource: &Resource) {
    // A unix socket's name has at most 108 bytes (`include/uapi/linux/un.h`).
    let len = resource.abstract_len;
    // SAFETY: by the caller, the event is whole; the path is longer than 127 bytes.
    unsafe {
        if copy::<127>((&raw mut (*event).path).cast(), len, resource.abstract_name).is_ok() {
            (*event).path_len = len as u16;
            (*event).flags |= FLAG_ABSTRACT;
        }
    }
}
