//! Whose directory of a procfs a path lies in.

use crate::memory::{read, read_at};
use crate::offsets::*;
use crate::task::{self, Lookup};
use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;
use core::mem::offset_of;
use guard_common::decide::Reason;
use guard_common::label::Label;
use guard_common::path::{MAX_COMPONENTS, Walk};

/// Local storages of one task that are looked through. Each BPF map of that kind adds one at most; a
/// label that lies behind more is not found.
const STORAGES: u32 = 16;

/// Whether the path of the last walk, on a procfs, lies in the directory of the running process or of
/// a task with its label.
///
/// Which process a directory is about is kept in the directory's inode, so neither its name nor the
/// PID namespace of the mount matters.
#[inline(always)]
pub fn is_own(walk: *mut Walk) -> Result<bool, Reason> {
    // SAFETY: the walk buffer of the running task.
    let (count, inside) = unsafe { ((*walk).count, (*walk).inside) };
    // Names above the point where the procfs is mounted are not its own.
    let count = if inside < count { inside } else { count };
    if count == 0 || count > MAX_COMPONENTS as u32 {
        return Ok(false);
    }
    // SAFETY: the index is masked to the ring.
    let top = unsafe { (*walk).steps[((count - 1) as usize) & (MAX_COMPONENTS - 1)].dentry };
    let inode: u64 = read(top, &DENTRY_INODE)?;
    if inode == 0 {
        return Ok(false);
    }
    // Every inode of a procfs lies in a `struct proc_inode`; outside of processes its pid is null.
    let pid: u64 = read(inode - get(&PROC_INODE_VFS), &PROC_INODE_PID)?;
    if pid == 0 {
        return Ok(false);
    }
    // The first list of `pid.tasks` (PIDTYPE_PID) holds the one task with this number; it is linked by
    // the first of its `pid_links`.
    let link: u64 = read(pid, &PID_TASKS)?;
    if link == 0 {
        return Ok(false);
    }
    let task = link - get(&TASK_PID_LINKS);
    let own: u64 = read(task::current() as u64, &TASK_GROUP_LEADER)?;
    if read::<u64>(task, &TASK_GROUP_LEADER)? == own {
        return Ok(true);
    }
    has_own_label(task)
}

/// Whether a task carries the label of the running one. The helper that finds a label takes only
/// tasks that the verifier trusts, so the task's storages are looked through by hand; they are freed
/// after a grace period, which cannot end while this program runs.
#[inline(always)]
fn has_own_label(task: u64) -> Result<bool, Reason> {
    let own = match task::label() {
        Lookup::Labelled(own) => own,
        _ => return Ok(false),
    };
    let storage: u64 = read(task, &TASK_BPF_STORAGE)?;
    if storage == 0 {
        return Ok(false);
    }
    // A value has a pointer to its map before it.
    let map: u64 = read(own as u64 - get(&STORAGE_DATA_VALUE), &STORAGE_DATA_MAP)?;
    let mut search = Search { node: read(storage, &STORAGE_LIST)?, map, label: 0 };
    // SAFETY: the callback's context is `search`, which outlives the call.
    unsafe { bpf_loop(STORAGES, look as *mut c_void, (&raw mut search).cast(), 0) };
    if search.label == 0 {
        return Ok(false);
    }
    let subject: u32 = read_at(search.label + offset_of!(Label, subject) as u64)?;
    let session: u64 = read_at(search.label + offset_of!(Label, session) as u64)?;
    // SAFETY: the label of the running task.
    Ok(unsafe { subject == (*own).subject && session == (*own).session })
}

struct Search {
    node: u64,
    map: u64,
    label: u64,
}

/// Looks whether the storage at `node` is a label. One that cannot be read ends the search.
extern "C" fn look(_: u32, search: *mut Search) -> i64 {
    // SAFETY: the only caller passes a valid, exclusive pointer.
    let search = unsafe { &mut *search };
    if search.node == 0 {
        return 1;
    }
    let data = search.node - get(&STORAGE_ELEMENT_NODE) + get(&STORAGE_ELEMENT_DATA);
    match read::<u64>(data, &STORAGE_DATA_MAP) {
        Ok(map) if map == search.map => {
            search.label = data + get(&STORAGE_DATA_VALUE);
            return 1;
        }
        Ok(_) => {}
        Err(_) => return 1,
    }
    // `hlist_node.next` is its first member.
    match read_at(search.node) {
        Ok(next) => search.node = next,
        Err(_) => return 1,
    }
    0
}
