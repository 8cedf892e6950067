//! Units and cgroups: a unit's cgroup is known before anything can run in it.

use crate::bars;
use crate::generation::Generation;
use crate::maps::{BARRED, BARRED_UNITS, SELECT_CGROUP, SELECT_UNIT};
use crate::memory::{copy_string, read};
use crate::offsets::*;
use crate::record::{Report, send};
use crate::resource::Resource;
use crate::select::lookup_cgroup;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use guard_common::decide::Reason;
use guard_common::event::Verdict;
use guard_common::label::{NO_SUBJECT, UNIT_NAME_MAX, UnitName};
use guard_common::quarantine::{BY_CGROUP, BarKey};
use guard_common::tables::HAS_CONTAINERS;

/// `BPF_ANY`: insert or replace.
const ANY: u64 = 0;

/// A new cgroup gets the subject of its parent, or the one its name selects.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let _ = created(ctx.arg(0), ctx.arg(1));
    0
}

#[inline(always)]
fn created(cgroup: u64, path: u64) -> Result<(), Reason> {
    let node: u64 = read(cgroup, &CGROUP_KN)?;
    let id: u64 = read(node, &KERNFS_NODE_ID)?;
    let mut subject = NO_SUBJECT;
    let parent: u64 = read(cgroup, &CGROUP_PARENT)?;
    let mut barred = 0;
    let mut is_containers = is_of_container(node).unwrap_or(false);
    if parent != 0 {
        let parent_node: u64 = read(parent - get(&CGROUP_SELF), &CGROUP_KN)?;
        is_containers |= is_of_container(parent_node).unwrap_or(false);
        let parent_id: u64 = read(parent_node, &KERNFS_NODE_ID)?;
        subject = lookup_cgroup(parent_id);
        barred = bars::by_cgroup(parent_id);
    }
    for name in [read(node, &KERNFS_NODE_NAME)?, path] {
        let (selected, bound) = named(name)?;
        barred |= bound;
        if subject == NO_SUBJECT {
            subject = selected;
        }
    }
    if barred != 0 {
        let _ = BARRED.insert(BarKey { kind: BY_CGROUP, device: 0, value: id }, barred, ANY);
    }
    if subject != NO_SUBJECT {
        let _ = SELECT_CGROUP.insert(id, subject, ANY);
    } else if is_containers
        && let Some(generation) = Generation::live()
        && let Some(header) = generation.header()
        && header.flags & HAS_CONTAINERS != 0
    {
        // Only the container's engine knows whose it is; the agent looks.
        wake(&generation);
    }
    Ok(())
}

/// What the engine podman calls the cgroup of a container, before the container's id.
const CONTAINER: [u8; 8] = *b"libpod-\0";

/// Whether an engine gave a cgroup its name as that of a container.
#[inline(always)]
fn is_of_container(node: u64) -> Result<bool, Reason> {
    let mut name = [0u8; 8];
    // SAFETY: the size is the array's. A longer name is cut to seven bytes.
    unsafe { copy_string(name.as_mut_ptr(), 8, read(node, &KERNFS_NODE_NAME)?)? };
    Ok(u64::from_ne_bytes(name) == u64::from_ne_bytes(CONTAINER))
}

/// The subject that a unit's name or a cgroup's path selects, and the quarantines that are bound to it. Paths begin with a slash and names hold
/// none, so both are keys of one map.
#[inline(always)]
fn named(text: u64) -> Result<(u32, u32), Reason> {
    let mut name = UnitName { bytes: [0; UNIT_NAME_MAX + 1] };
    // SAFETY: the size is the array's.
    unsafe { copy_string(name.bytes.as_mut_ptr(), UNIT_NAME_MAX as u32 + 1, text)? };
    // SAFETY: each value is one aligned word.
    unsafe {
        Ok((
            SELECT_UNIT.get(name).copied().unwrap_or(NO_SUBJECT),
            BARRED_UNITS.get(name).copied().unwrap_or(0),
        ))
    }
}

/// Forgets a cgroup that is gone.
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    if let Ok(node) = read::<u64>(ctx.arg(0), &CGROUP_KN)
        && let Ok(id) = read::<u64>(node, &KERNFS_NODE_ID)
    {
        let _ = SELECT_CGROUP.remove(id);
        let _ = BARRED.remove(BarKey { kind: BY_CGROUP, device: 0, value: id });
    }
    0
}

/// A task was moved into a cgroup. Its next exec attaches the label; a task that keeps running is
/// labelled by the agent, which this event wakes. The service manager moves its own children here
/// before it has set up their sandbox, so the label cannot be attached at once. A quarantine covers it from here.
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
    let _ = moved(ctx.arg(0), ctx.arg(2));
    0
}

#[inline(always)]
fn moved(cgroup: u64, task: *mut task_struct) -> Result<(), Reason> {
    let node: u64 = read(cgroup, &CGROUP_KN)?;
    let id: u64 = read(node, &KERNFS_NODE_ID)?;
    let (subject, barred) = (lookup_cgroup(id), bars::by_cgroup(id));
    if barred != 0 {
        bars::cover(task, barred);
    }
    let Some(generation) = Generation::live() else { return Ok(()) };
    // Of several threads only the first is named.
    if subject != NO_SUBJECT || barred != 0 {
        wake(&generation);
    }
    Ok(())
}

/// Has the agent look at the cgroups and at what runs in them.
#[inline(always)]
fn wake(generation: &Generation) {
    let report = Report {
        verdict: Verdict::Attached,
        reason: Reason::Policy as u8,
        actions: 0,
        errno: 0,
        loosened: false,
        shadow: 0,
    };
    send(generation, core::ptr::null_mut(), &Resource::unknown(), &report);
}
