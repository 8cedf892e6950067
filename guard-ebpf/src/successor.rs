//! Successors by exec: a labelled task that executes a declared file becomes another subject.
//!
//! The exec is decided by the policy of the subject that executes. If the walk to the file ended at a node
//! where successors begin, the pair of subject and node is looked up; every other exec pays one test of a
//! flag. The label is prepared then and exchanged when the exec can no longer fail, like the first one.
//!
//! A successor with more rights is what a set-user-id program is: it begins only where the kernel would let
//! such a program gain anything, from a file that nobody but root can have made, and never by a script,
//! whose content is read by name after the decision. The kernel holds `cred_guard_mutex` from before
//! `check_unsafe_exec` until the end of the exec, so nobody begins to trace the task in between.

use crate::file::{S_IFMT, S_IFREG};
use crate::generation::Generation;
use crate::maps::{MADE, MAKERS};
use crate::memory::read;
use crate::offsets::*;
use crate::path;
use crate::record::count;
use crate::resource::Resource;
use crate::task::current;
use crate::verdict::{conclude, level};
use aya_ebpf::bindings::linux_binprm;
use aya_ebpf::helpers::generated::bpf_bprm_opts_set;
use aya_ebpf::programs::LsmContext;
use core::ptr::read_volatile;
use guard_common::action::{Action, EACCES};
use guard_common::decide::{Decision, Reason};
use guard_common::event::Counter;
use guard_common::label::{Label, NO_SUBJECT, PREPARED_WIDENS};
use guard_common::path::{NODE_SUCCESSORS, SUCCESSOR_SECURE, SUCCESSOR_WIDENS};

/// `BPF_F_BPRM_SECUREEXEC` (include/uapi/linux/bpf.h).
const SECUREEXEC: u64 = 1;
/// `S_IWGRP | S_IWOTH` (include/uapi/linux/stat.h).
const WRITTEN_BY_OTHERS: u16 = 0o022;

const _: () = assert!(PREPARED_WIDENS == SUCCESSOR_WIDENS);

/// Forgets what an exec that failed has prepared.
#[inline(always)]
pub fn forget(label: *mut Label) {
    // SAFETY: the label of the running task.
    unsafe { (*label).prepared = NO_SUBJECT };
}

/// Prepares the label of the successor that begins with the file of this exec, which was allowed just now.
/// The walk buffer and what was described are about that file. Returns 0 or a negative error number.
#[inline(always)]
pub fn prepare(ctx: &LsmContext, inode: u64, label: *mut Label) -> Result<i32, Reason> {
    // SAFETY: the label of the running task with its walk buffer.
    let (walk, has_path, subject) =
        unsafe { (&raw const (*label).walk, (*label).questions.described.has_path, (*label).subject) };
    // SAFETY: as above.
    if has_path == 0 || unsafe { (*walk).flags } & NODE_SUCCESSORS == 0 {
        return Ok(0);
    }
    let Some(found) = path::successor(walk, subject) else { return Ok(0) };
    if level(label) != 0 {
        // It would be another subject, of which the quarantine says nothing.
        return Ok(refuse(label, Reason::Quarantine));
    }
    if found & SUCCESSOR_WIDENS != 0 {
        let bprm: u64 = ctx.arg(0);
        if is_unsafe(bprm)? {
            return Ok(refuse(label, Reason::UnsafeExec));
        }
        if !is_trusted(inode)? {
            return Ok(refuse(label, Reason::UntrustedFile));
        }
    }
    if found & SUCCESSOR_SECURE != 0 {
        let bprm: *mut linux_binprm = ctx.arg(0);
        // SAFETY: the argument of this program.
        if unsafe { bpf_bprm_opts_set(bprm, SECUREEXEC) } != 0 {
            return Ok(refuse(label, Reason::UnsafeExec));
        }
    }
    // SAFETY: the label of the running task.
    unsafe { (*label).prepared = found & !SUCCESSOR_SECURE };
    Ok(0)
}

/// Whether the prepared successor has more rights, so that no interpreter may take the program's place.
#[inline(always)]
pub fn widens(label: *mut Label) -> bool {
    // SAFETY: the label of the running task.
    unsafe { (*label).prepared & PREPARED_WIDENS != 0 }
}

/// The exec cannot fail any more: the task is the successor from here, in the session that it was in. The
/// row is that of the subject itself: variables belong to the subject that the session was opened as.
#[inline(always)]
pub fn begin(label: *mut Label) {
    // SAFETY: the label of the running task. Its other threads have ended, and whoever reads the label
    // meanwhile finds an old or a new number in each word.
    unsafe {
        let successor = (*label).prepared & !PREPARED_WIDENS;
        if successor == NO_SUBJECT {
            return;
        }
        (*label).prepared = NO_SUBJECT;
        core::ptr::write_volatile(&raw mut (*label).row, successor);
        core::ptr::write_volatile(&raw mut (*label).subject, successor);
    }
    count(Counter::Labelled);
}

/// Whether somebody with fewer rights has a hand in the task or in what it sees: a tracer, a task that
/// shares its directories, a user namespace in which it could have mounted or changed its root.
#[inline(always)]
fn is_unsafe(bprm: u64) -> Result<bool, Reason> {
    // `LSM_UNSAFE_SHARE`, `LSM_UNSAFE_PTRACE`, `LSM_UNSAFE_NO_NEW_PRIVS` (include/linux/security.h).
    if read::<u32>(bprm, &BPRM_UNSAFE)? != 0 {
        return Ok(true);
    }
    let cred: u64 = read(current() as u64, &TASK_CRED)?;
    let namespace: u64 = read(cred, &CRED_USER_NS)?;
    Ok(read::<u32>(namespace, &USER_NS_LEVEL)? != 0)
}

/// Whether only root can have made the file what it is, under this name and no other.
#[inline(always)]
fn is_trusted(inode: u64) -> Result<bool, Reason> {
    let mode: u16 = read(inode, &INODE_MODE)?;
    if mode & S_IFMT != S_IFREG || mode & WRITTEN_BY_OTHERS != 0 {
        return Ok(false);
    }
    if read::<u32>(inode, &INODE_UID)? != 0 || read::<u32>(inode, &INODE_NLINK)? != 1 {
        return Ok(false);
    }
    Ok(!is_made(read(inode, &INODE_SB)?))
}

/// Whether a labelled task made a file system.
#[inline(always)]
pub fn is_made(superblock: u64) -> bool {
    let Some(made) = MADE.get_ptr(0) else { return true };
    // SAFETY: the pointer comes from a map lookup.
    unsafe { read_volatile(made) != 0 && MAKERS.get_ptr(superblock).is_some() }
}

/// Reports the refusal of an exec, about the file that was described last.
#[inline(always)]
pub fn refuse(label: *mut Label, reason: Reason) -> i32 {
    // SAFETY: a label is a whole value.
    unsafe { refuse_successor(label, reason as u32) }
}

/// What `refuse` does, as a global function: the verifier checks it by itself.
///
/// # Safety
/// The label must be a whole one, and that of the running task; the verifier checks the first.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn refuse_successor(label: *mut Label, reason: u32) -> i32 {
    if label.is_null() {
        return -EACCES;
    }
    // SAFETY: the label of the running task.
    let described = unsafe { &(*label).questions.described };
    let mut resource = Resource::of_class(described.class);
    resource.features = described.features;
    resource.has_path = described.has_path != 0;
    let reason = if reason == Reason::UntrustedFile as u32 {
        Reason::UntrustedFile
    } else if reason == Reason::Quarantine as u32 {
        Reason::Quarantine
    } else if reason == Reason::SignersUnknown as u32 {
        Reason::SignersUnknown
    } else {
        Reason::UnsafeExec
    };
    let required = Action::Exec.bit();
    conclude(&Generation::kept(label), label, &resource, required, Decision::deny_all(required, reason))
}
