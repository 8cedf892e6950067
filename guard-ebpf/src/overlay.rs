//! What overlayfs does to the files of its layers on behalf of a task that was judged on the overlay.
//!
//! Names are changed through hooks that have a mount, which overlayfs does not call for its layers.
//! Attributes have no such hooks: a `chmod` on the overlay passes `inode_setattr` once for the
//! overlay's file and once for the layer's. The second is recognised by the credentials that it runs
//! under: overlayfs puts its mounter's in the place of the task's (`ovl_override_creds` in
//! fs/overlayfs/util.c), or a copy of them that belongs to one operation (`ovl_create_or_link`).
//!
//! A system call runs under other credentials than its task's only where the kernel itself replaced
//! them, with one exception: io_uring runs requests under credentials that were registered before. In a
//! task that has to do with io_uring, only the mounter's own count, which overlayfs keeps in its data
//! for as long as it is mounted, and which no task ever gets hold of.

use crate::file::OVERLAYFS;
use crate::memory::{read, read_at};
use crate::offsets::*;
use crate::task;
use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;
use guard_common::decide::Reason;
use guard_common::label::Label;

/// Words of `struct ovl_fs` (fs/overlayfs/ovl_entry.h) that are looked through: `creator_cred` is among
/// them and the structure is not shorter from 6.1 to 7.3. The types of a module are not in the kernel's
/// own type information, so the member's place is not known.
const WORDS: u32 = 24;

/// `PF_IO_WORKER` (include/linux/sched.h): a thread that works for an io_uring.
const IO_WORKER: u32 = 0x10;

/// Notes that something on this file system is judged, if it is an overlay.
#[inline(always)]
pub fn note(superblock: u64, magic: u64, label: *mut Label) {
    if magic == OVERLAYFS {
        // SAFETY: the label of the running task.
        unsafe { (*label).overlay = superblock };
    }
}

/// Whether the kernel acts for the running task under credentials that it put in the place of the task's own
/// by itself: what it then needs is not the task's doing.
#[inline(always)]
pub fn acts_for_itself(label: *mut Label) -> Result<bool, Reason> {
    let current = task::current() as u64;
    if read::<u64>(current, &TASK_CRED)? == read::<u64>(current, &TASK_REAL_CRED)? {
        return Ok(false);
    }
    if may_choose(current)? { is_at_work(label) } else { Ok(true) }
}

/// Whether a task may have chosen the credentials that it runs under, which io_uring lets it do.
#[inline(always)]
fn may_choose(task: u64) -> Result<bool, Reason> {
    let ring: u64 = read(task, &TASK_IO_URING)?;
    let flags: u32 = read(task, &TASK_FLAGS)?;
    Ok(ring != 0 || flags & IO_WORKER != 0)
}

/// Whether the running task is inside of overlayfs, at work on a layer of the overlay it was judged on.
#[inline(always)]
pub fn is_at_work(label: *mut Label) -> Result<bool, Reason> {
    // SAFETY: the label of the running task.
    let superblock = unsafe { (*label).overlay };
    if superblock == 0 {
        return Ok(false);
    }
    let current = task::current() as u64;
    let cred: u64 = read(current, &TASK_CRED)?;
    let own: u64 = read(current, &TASK_REAL_CRED)?;
    if cred == own {
        return Ok(false);
    }
    let magic: u64 = read(superblock, &SB_MAGIC)?;
    if magic != OVERLAYFS {
        return Ok(false);
    }
    if !may_choose(current)? {
        return Ok(true);
    }
    let info: u64 = read(superblock, &SB_FS_INFO)?;
    let mut state = State { info, cred, found: 0 };
    // SAFETY: the callback's context is `state`, which outlives the call.
    unsafe { bpf_loop(WORDS, compare as *mut c_void, (&raw mut state).cast(), 0) };
    Ok(state.found != 0)
}

struct State {
    info: u64,
    cred: u64,
    found: u64,
}

extern "C" fn compare(index: u32, state: *mut State) -> i64 {
    // SAFETY: the only caller passes a valid, exclusive pointer.
    let state = unsafe { &mut *state };
    match read_at::<u64>(state.info + index as u64 * 8) {
        Ok(word) => {
            if word == state.cred {
                state.found = 1;
            }
            (state.found != 0) as i64
        }
        Err(_) => 1,
    }
}
