//! File systems that subjects made.
//!
//! A super block belongs to the label of the task that was running when the kernel allocated it, which
//! is when it came into being: a mount of an existing file system allocates none, and neither does a
//! bind, a remount or a clone. Nothing is known of its type then, so every file system that a labelled
//! task makes is noted, and only a tmpfs counts.
//!
//! The note is keyed by the super block's address. It is removed by the hook that the kernel calls
//! before it gives the memory back, so while a note exists, a super block at that address is the one
//! that was noted.

use crate::atomic;
use crate::maps::{MADE, MAKERS};
use crate::memory::read;
use crate::offsets::*;
use crate::record::count;
use crate::resource::Resource;
use crate::task::{Lookup, label};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ptr::read_volatile;
use guard_common::class::{OWN_TMPFS, UNKNOWN};
use guard_common::decide::Reason;
use guard_common::event::Counter;
use guard_common::label::{Label, Maker};
use guard_common::path::{WALK_APART, Walk};

/// `BPF_ANY`: insert or replace.
const ANY: u64 = 0;
// include/uapi/linux/magic.h.
const TMPFS: u64 = 0x0102_1994;

/// Notes who makes a file system. Without a note it is known to no policy, which denies.
#[lsm(hook = "sb_alloc_security")]
pub fn sb_alloc_security(ctx: LsmContext) -> i32 {
    if let Lookup::Labelled(label) = label() {
        note(ctx.arg(0), label);
    }
    0
}

#[inline(always)]
fn note(superblock: u64, label: *mut Label) {
    let Some(made) = MADE.get_ptr_mut(0) else { return };
    // SAFETY: the label of the running task.
    let maker = unsafe { Maker { session: (*label).session, subject: (*label).subject, reserved: 0 } };
    // Counted before it is noted: while the count is 0 there are no notes.
    // SAFETY: the pointer comes from a map lookup; the word is changed atomically only.
    unsafe { atomic::add(made, 1) };
    if MAKERS.insert(superblock, maker, ANY).is_err() {
        // SAFETY: as above.
        unsafe { atomic::add(made, u64::MAX) };
        count(Counter::NotNoted);
    }
}

/// Forgets a file system that ends, before its memory can become another one's. Runs for every file
/// system on the host, so it looks at one word first.
#[lsm(hook = "sb_free_security")]
pub fn sb_free_security(ctx: LsmContext) -> i32 {
    let Some(made) = MADE.get_ptr_mut(0) else { return 0 };
    // SAFETY: the pointer comes from a map lookup; the word is changed atomically only.
    if unsafe { read_volatile(made) } == 0 {
        return 0;
    }
    let superblock: u64 = ctx.arg(0);
    if MAKERS.remove(superblock).is_ok() {
        // SAFETY: as above.
        unsafe { atomic::add(made, u64::MAX) };
    }
    0
}

/// Corrects the class that a walk to `dentry` found, if the dentry lies on a tmpfs of a subject's
/// making: to its maker it is that subject's own, wherever it is mounted, and to every other labelled
/// task it is known to no policy. What is not connected to its root has no names, and stays unknown.
#[inline(always)]
pub fn correct(
    dentry: u64,
    label: *mut Label,
    walk: *const Walk,
    resource: &mut Resource,
) -> Result<(), Reason> {
    let Some(made) = MADE.get_ptr(0) else { return Ok(()) };
    // SAFETY: the pointer comes from a map lookup.
    if unsafe { read_volatile(made) } == 0 {
        return Ok(());
    }
    let superblock: u64 = read(dentry, &DENTRY_SB)?;
    if read::<u64>(superblock, &SB_MAGIC)? != TMPFS {
        return Ok(());
    }
    let Some(maker) = MAKERS.get_ptr(superblock) else { return Ok(()) };
    // SAFETY: both pointers come from map lookups, of the note and of the running task's label with its
    // walk buffer. The note of a super block that is in use is not removed, and never changed.
    let is_own = unsafe {
        (*maker).subject == (*label).subject
            && (*maker).session == (*label).session
            && (*walk).flags & WALK_APART == 0
    };
    resource.class = if is_own { OWN_TMPFS } else { UNKNOWN };
    Ok(())
}
