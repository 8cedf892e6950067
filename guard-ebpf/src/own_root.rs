//! Subjects whose paths count from a root of their own: that of their container.
//!
//! The directory that is a task's root when its label is attached is noted under its inode's address, with a
//! number that is never given again, and the label keeps dentry, inode and number. `inode_free_security`
//! removes the note before the inode's memory is given back. So while the note has the label's number, the
//! inode at that address is the noted directory, and a dentry that has this inode is that directory's. Nothing
//! is held: a root that is gone leads to nothing, and then every file lies outside of it.
//!
//! A walk for such a subject goes from the file up to that directory, through the points where file systems are
//! mounted, as `d_path` does. Only tasks without a label can have mounted them: mounting is forbidden to
//! subjects with a root of their own, whatever their policy says (`guard-agent`'s generated policy). What is
//! outside of the root, or leads to it by no mount, is known to no policy.

use crate::atomic;
use crate::file::S_IFMT;
use crate::generation::Generation;
use crate::maps::{HOST_ROOT, ROOT_COUNTS, ROOTS};
use crate::memory::{read, read_at};
use crate::offsets::*;
use crate::path::{HOST, HOST_UNREMEMBERED, OWN, ended, walk_up_and_down};
use crate::question::{self, DESCRIBED, NOT_DESCRIBED, UNREADABLE, nth, undescribed};
use crate::record::count;
use crate::shared;
use crate::task;
use crate::verdict::live;
use aya_ebpf::bindings::task_struct;
use core::ptr::read_volatile;
use guard_common::class::GUARDS_OWN;
use guard_common::decide::{Reason, Tables};
use guard_common::event::Counter;
use guard_common::label::{Label, OwnRoot};
use guard_common::path::{NODE_GUARDS_OWN, WALK_APART, Walk};
use guard_common::tables::{HAS_OWN_ROOTS, Header, SUBJECT_OWN_ROOT};

/// `BPF_NOEXIST`: insert, and replace nothing.
const NEW: u64 = 1;
/// Entry of [`ROOT_COUNTS`]: the last number that was given.
const LAST: u32 = 0;
/// Entry of [`ROOT_COUNTS`]: how many notes there are, at least.
const NOTES: u32 = 1;

/// Whether the row that decides for a label counts paths from a root of its own.
#[inline(always)]
fn has_own_root(generation: &Generation, row: u32) -> bool {
    match generation.subject(row) {
        Some(row) => row.flags & SUBJECT_OWN_ROOT != 0,
        None => false,
    }
}

/// Keeps the root of `task` in the label that is attached to it, if the label's subject has one of its own.
#[inline(always)]
pub fn keep(task: *mut task_struct, label: *mut Label, row: u32) {
    // SAFETY: a label is a whole value. The task is passed in it: a global function takes no pointer that is a
    // number to it.
    unsafe {
        core::ptr::write_volatile(&raw mut (*label).root.dentry, task as u64);
        keep_root(label, row);
    }
}

/// What `keep` does, as a global function, which the verifier checks by itself.
///
/// # Safety
/// The label must be a whole one; the verifier checks it.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn keep_root(label: *mut Label, row: u32) -> u32 {
    if label.is_null() {
        return 0;
    }
    // SAFETY: by the contract of this function.
    let task = unsafe { read_volatile(&raw const (*label).root.dentry) };
    let root = match live() {
        Ok((generation, header)) if header.flags & HAS_OWN_ROOTS != 0 && has_own_root(&generation, row) => {
            // Without a root everything is denied.
            noted(task).unwrap_or_default()
        }
        _ => OwnRoot::default(),
    };
    // SAFETY: as above.
    unsafe { (*label).root = root };
    0
}

/// The root of a task, with a note of it.
#[inline(always)]
fn noted(task: u64) -> Result<OwnRoot, Reason> {
    let (dentry, inode) = root_of(task)?;
    let number = note(inode);
    // Another thread may have changed the root meanwhile. If it is the same, it is in use, so that the note
    // was made before the directory ends.
    if number == 0 || root_of(task)? != (dentry, inode) {
        return Err(Reason::NoMemory);
    }
    Ok(OwnRoot { dentry, inode, number })
}

/// Dentry and inode of a task's root.
#[inline(always)]
fn root_of(task: u64) -> Result<(u64, u64), Reason> {
    let fs: u64 = read(task, &TASK_FS)?;
    if fs == 0 {
        return Err(Reason::Unreadable);
    }
    let dentry: u64 = read(fs, &FS_ROOT_DENTRY)?;
    let inode: u64 = read(dentry, &DENTRY_INODE)?;
    if inode == 0 || read::<u64>(task, &TASK_FS)? != fs || read::<u64>(fs, &FS_ROOT_DENTRY)? != dentry {
        return Err(Reason::Unreadable);
    }
    Ok((dentry, inode))
}

/// The number of the note about a directory, made if there is none; 0 if there is no room.
#[inline(always)]
fn note(inode: u64) -> u64 {
    if let Some(number) = number(inode) {
        return number;
    }
    let (Some(last), Some(notes)) = (ROOT_COUNTS.get_ptr_mut(LAST), ROOT_COUNTS.get_ptr_mut(NOTES)) else {
        return 0;
    };
    // Counted before it is noted: while the count is 0 there are no notes.
    // SAFETY: the pointers come from map lookups; the words are changed atomically only.
    let new = unsafe {
        atomic::add(notes, 1);
        atomic::add(last, 1) + 1
    };
    if ROOTS.insert(inode, new, NEW).is_ok() {
        return new;
    }
    // SAFETY: as above.
    unsafe { atomic::add(notes, u64::MAX) };
    // Another CPU may have been faster.
    match number(inode) {
        Some(number) => number,
        None => {
            count(Counter::NotNoted);
            0
        }
    }
}

#[inline(always)]
fn number(inode: u64) -> Option<u64> {
    // SAFETY: the value is one aligned word.
    unsafe { ROOTS.get(inode) }.copied()
}

/// Forgets a directory that ends, before its memory can become another one's.
#[inline(always)]
pub fn forget(inode: u64) {
    let Some(notes) = ROOT_COUNTS.get_ptr_mut(NOTES) else { return };
    // SAFETY: the pointer comes from a map lookup; the word is changed atomically only.
    if unsafe { read_volatile(notes) } == 0 {
        return;
    }
    if ROOTS.remove(inode).is_ok() {
        // SAFETY: as above.
        unsafe { atomic::add(notes, u64::MAX) };
    }
}

/// Prepares the description of question `index`, for a subject whose root is its own. Returns
/// [`NOT_DESCRIBED`], or what the description would.
///
/// Everything that is decided then is decided by the generation that is kept here.
#[inline(always)]
pub fn prepare(label: *mut Label, index: u32) -> u32 {
    // SAFETY: the label of the running task with its walk buffer.
    unsafe {
        if (*label).root.number == 0 {
            (*label).walk.way = HOST;
            NOT_DESCRIBED
        } else {
            prepare_own(label, index)
        }
    }
}

/// What `prepare` does for a label with a root. A global function: see `question.rs`.
///
/// # Safety
/// The label must be a whole one, and that of the running task; the verifier checks the first.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn prepare_own(label: *mut Label, index: u32) -> u32 {
    if label.is_null() {
        return UNREADABLE;
    }
    match begin(label, index) {
        Ok(described) => described,
        Err(reason) => undescribed(reason),
    }
}

#[inline(always)]
fn begin(label: *mut Label, index: u32) -> Result<u32, Reason> {
    let (generation, _) = live()?;
    generation.keep(label);
    // SAFETY: the label of the running task with its walk buffer.
    let (row, walk, question) = unsafe { ((*label).row, &raw mut (*label).walk, &*nth(label, index)) };
    // SAFETY: as above.
    unsafe { (*walk).way = HOST };
    if !question::is_named(question) || !has_own_root(&generation, row) {
        return Ok(NOT_DESCRIBED);
    }
    // SAFETY: as above.
    let (dentry, inode, kept) = unsafe { ((*label).root.dentry, (*label).root.inode, (*label).root.number) };
    let anchor = if number(inode) == Some(kept) { dentry } else { 0 };
    let superblock: u64 = read(question.dentry, &DENTRY_SB)?;
    if anchor == 0 || read::<u64>(superblock, &SB_ROOT)? != anchor {
        // It lies on no file system of which the root is the whole: it may be the host's, under a name of the
        // container's. What Guard protects stays protected.
        // SAFETY: as above.
        unsafe {
            (*walk).way = HOST_UNREMEMBERED;
            (*walk).leaf = question.dentry;
            (*walk).generation = generation.number;
            (*walk).slot = generation.slot;
            (*walk).names = 0;
            (*walk).patterns = 0;
            ended(walk_up_and_down(walk))?;
            if (*walk).flags & NODE_GUARDS_OWN != 0 {
                let described = &mut (*label).questions.described;
                described.features = 0;
                described.kind = if question.inode == 0 {
                    (question.mode as u16 & S_IFMT) as u64
                } else {
                    (read::<u16>(question.inode, &INODE_MODE)? & S_IFMT) as u64
                };
                described.class = GUARDS_OWN;
                described.has_path = 1;
                return Ok(DESCRIBED);
            }
        }
    }
    let mount = if question.mount_at == 0 { 0 } else { mount_of(read_at(question.mount_at)?) };
    // SAFETY: as above.
    unsafe {
        (*walk).way = OWN;
        (*walk).anchor = anchor;
        (*walk).anchor_inode = inode;
        (*walk).first_mount = mount;
    }
    Ok(NOT_DESCRIBED)
}

/// The generation that describes and decides: the one that was kept where `prepare` found a root. A subject
/// with a root of its own whose label has none gets an error, and is denied everything.
#[inline(always)]
pub fn generation(label: *mut Label) -> Result<(Generation, &'static Header), Reason> {
    // SAFETY: the label of the running task.
    let (number, row) = unsafe { ((*label).root.number, (*label).row) };
    if number != 0 {
        let generation = Generation::kept(label);
        let header = generation.header().ok_or(Reason::TableMiss)?;
        return Ok((generation, header));
    }
    let (generation, header) = live()?;
    generation.keep(label);
    if header.flags & HAS_OWN_ROOTS != 0 && has_own_root(&generation, row) {
        return Err(Reason::Unreadable);
    }
    Ok((generation, header))
}

/// The mount that a `struct vfsmount` is part of; 0 stays 0.
#[inline(always)]
fn mount_of(vfsmount: u64) -> u64 {
    if vfsmount == 0 { 0 } else { vfsmount - get(&MOUNT_MNT) }
}

/// Entry of [`HOST_ROOT`]: the root's inode.
const ROOT: u32 = 0;
/// Entry of [`HOST_ROOT`]: the mount namespace.
const NAMESPACE: u32 = 1;

/// Remembers the agent's root and mount namespace, which are the host's. Called for the agent's own task.
#[inline(always)]
pub fn remember_host(task: u64) {
    if let (Ok((_, inode)), Some(host)) = (root_of(task), HOST_ROOT.get_ptr_mut(ROOT)) {
        // SAFETY: the pointer comes from a map lookup; only the iterator writes the word.
        unsafe { core::ptr::write_volatile(host, inode) };
    }
    if let (Ok(namespace), Some(host)) = (namespace_of(task), HOST_ROOT.get_ptr_mut(NAMESPACE)) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(host, namespace) };
    }
}

/// A task's mount namespace.
#[inline(always)]
fn namespace_of(task: u64) -> Result<u64, Reason> {
    let proxy: u64 = read(task, &TASK_NSPROXY)?;
    if proxy == 0 { Ok(0) } else { read(proxy, &NSPROXY_MNT) }
}

/// Whether a mount namespace is the host's, or the host's is not known.
#[inline(always)]
pub fn is_hosts(namespace: u64) -> bool {
    let Some(host) = HOST_ROOT.get_ptr(NAMESPACE) else { return true };
    // SAFETY: the pointer comes from a map lookup.
    let host = unsafe { read_volatile(host) };
    host == 0 || host == namespace
}

/// Whether the root of the running task is another one than the host's. A global function: an exec has little
/// stack to spare.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn runs_inside() -> u32 {
    is_inside(task::current() as u64).unwrap_or(false) as u32
}

/// Whether the root of a task is another one than the host's, which is not known until the agent has looked
/// at running tasks for the first time.
#[inline(always)]
pub fn is_inside(task: u64) -> Result<bool, Reason> {
    let Some(host) = HOST_ROOT.get_ptr(ROOT) else { return Ok(false) };
    // SAFETY: the pointer comes from a map lookup.
    let host = unsafe { read_volatile(host) };
    let (_, inode) = root_of(task)?;
    Ok(host != 0 && inode != host)
}

/// Whether a task executes a program of its own root, which is not the host's. A container's runtime goes to
/// the container's root while it still executes itself, and must not be labelled then.
#[inline(always)]
pub fn has_begun(task: u64) -> Result<bool, Reason> {
    if !is_inside(task)? {
        return Ok(false);
    }
    let (root, inode) = root_of(task)?;
    let memory: u64 = read(task, &TASK_MM)?;
    if memory == 0 {
        return Ok(false);
    }
    let file: u64 = read(memory, &MM_EXE_FILE)?;
    if file == 0 {
        return Ok(false);
    }
    let dentry: u64 = read(file, &FILE_DENTRY)?;
    let mount = mount_of(read(file, &FILE_MNT)?);
    let (generation, _) = live()?;
    shared::borrow(|label| {
        // SAFETY: the label was borrowed.
        unsafe {
            let walk: *mut Walk = &raw mut (*label).walk;
            (*walk).way = OWN;
            (*walk).anchor = root;
            (*walk).anchor_inode = inode;
            (*walk).first_mount = mount;
            (*walk).leaf = dentry;
            (*walk).generation = generation.number;
            (*walk).slot = generation.slot;
            (*walk).names = 0;
            (*walk).patterns = 0;
            ended(walk_up_and_down(walk))?;
            Ok((*walk).flags & WALK_APART == 0)
        }
    })
}
