//! Changes of names: what is created, removed, linked and renamed.
//!
//! The `path_*` hooks are those that system calls pass, and no file system on its own behalf: overlayfs
//! changes the names of its layers without them. Where there is a new name, it is a dentry without an
//! inode, and is judged by its place like any other; its attributes are those that the file will have. A
//! device node is judged by its place as well, not by the device: the name changes, not what it leads to.
//!
//! Nothing may get more rights by getting another name: a file that is linked or renamed keeps at most
//! the rights that it had (`more_rights`). The answer is EXDEV, as for another file system, upon which
//! programs copy; a copy is decided as what it is.

use crate::file::{
    CGROUP2, S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, SET_ID, own_cgroup,
};
use crate::generation::Generation;
use crate::memory::read;
use crate::offsets::*;
use crate::overlay;
use crate::own_tmpfs;
use crate::path;
use crate::resource::Resource;
use crate::task::{current, guarded};
use crate::verdict::{answer, judge, live};
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_loop};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ffi::c_void;
use guard_common::action::Action;
use guard_common::class::OWN_CGROUP;
use guard_common::decide::{Query, Reason, Tables, combination, decide};
use guard_common::label::{Known, Label, QUESTIONS, Question};
use guard_common::tables::{ALL_ACTIONS, Header, MONITORED};

const S_IFIFO: u16 = 0o010000;
// include/uapi/linux/fcntl.h.
const RENAME_EXCHANGE: u32 = 2;
const RENAME_WHITEOUT: u32 = 4;
/// Instead of actions: what brings a file of its kind into being, or removes it.
const MADE: u64 = 1 << 62;
const REMOVED: u64 = 1 << 61;

/// `mknod(2)`, and `open(2)` where it creates; binding a unix socket to a path has its own action.
#[lsm(hook = "path_mknod")]
pub fn path_mknod(ctx: LsmContext) -> i32 {
    let mode: u64 = ctx.arg(2);
    let mode = mode as u16;
    if mode & S_IFMT == S_IFSOCK {
        return 0;
    }
    let required = made((mode & S_IFMT) as u64);
    guarded(required, |label| create(ctx.arg(1), mode, required, label))
}

#[lsm(hook = "path_mkdir")]
pub fn path_mkdir(ctx: LsmContext) -> i32 {
    let mode: u64 = ctx.arg(2);
    guarded(Action::DirCreate.bit(), |label| {
        create(ctx.arg(1), mode as u16 & !S_IFMT | S_IFDIR, Action::DirCreate.bit(), label)
    })
}

#[lsm(hook = "path_symlink")]
pub fn path_symlink(ctx: LsmContext) -> i32 {
    guarded(Action::FileSymlink.bit(), |label| create(ctx.arg(1), S_IFLNK, Action::FileSymlink.bit(), label))
}

#[lsm(hook = "path_unlink")]
pub fn path_unlink(ctx: LsmContext) -> i32 {
    guarded(Action::FileRemove.bit(), |label| remove(ctx.arg(1), Action::FileRemove, label))
}

#[lsm(hook = "path_rmdir")]
pub fn path_rmdir(ctx: LsmContext) -> i32 {
    guarded(Action::DirRemove.bit(), |label| remove(ctx.arg(1), Action::DirRemove, label))
}

/// The action that brings a file of this kind (`S_IFMT`) into being, as a bit.
#[inline(always)]
fn made(kind: u64) -> u64 {
    if kind == S_IFDIR as u64 {
        Action::DirCreate.bit()
    } else if kind == S_IFLNK as u64 {
        Action::FileSymlink.bit()
    } else if kind == S_IFCHR as u64 || kind == S_IFBLK as u64 || kind == S_IFIFO as u64 {
        Action::FileMknod.bit()
    } else {
        Action::FileCreate.bit()
    }
}

/// The action that removes a file of this kind, as a bit.
#[inline(always)]
fn removed(kind: u64) -> u64 {
    if kind == S_IFDIR as u64 { Action::DirRemove.bit() } else { Action::FileRemove.bit() }
}

#[inline(always)]
fn create(dentry: u64, mode: u16, required: u64, label: *mut Label) -> Result<i32, Reason> {
    let (generation, header) = live()?;
    let mut resource = Resource::unknown();
    locate(&generation, header, dentry, label, &mut resource)?;
    let cred: u64 = read(current() as u64, &TASK_CRED)?;
    let owner: u32 = read(cred, &CRED_FSUID)?;
    // `mknod(2)` takes no kind for a regular file.
    let kind = if mode & S_IFMT == 0 { S_IFREG } else { mode & S_IFMT };
    resource.attributes.owner = owner as u64;
    resource.attributes.kind = kind as u64;
    resource.attributes.set_id = (mode & SET_ID != 0) as u64;
    resource.attributes.fileless = 0;
    resource.add_attribute_features(&generation, header);
    Ok(judge(&generation, label, &resource, required))
}

#[inline(always)]
fn remove(dentry: u64, action: Action, label: *mut Label) -> Result<i32, Reason> {
    let (generation, header) = live()?;
    let inode: u64 = read(dentry, &DENTRY_INODE)?;
    let mut resource = Resource::unknown();
    put(&generation, header, dentry, inode, label, &mut resource)?;
    Ok(judge(&generation, label, &resource, action.bit()))
}

/// Finds class and names of the place `dentry`, whatever is or will be there.
#[inline(always)]
fn locate(
    generation: &Generation,
    header: &Header,
    dentry: u64,
    label: *mut Label,
    resource: &mut Resource,
) -> Result<(), Reason> {
    let superblock: u64 = read(dentry, &DENTRY_SB)?;
    let magic: u64 = read(superblock, &SB_MAGIC)?;
    overlay::note(superblock, magic, label);
    // SAFETY: the walk buffer of the running task's own label.
    let walk = unsafe { &raw mut (*label).walk };
    path::classify(generation, header, dentry, walk, resource)?;
    own_tmpfs::correct(dentry, label, walk, resource)?;
    if magic == CGROUP2 && own_cgroup(dentry)? {
        resource.class = OWN_CGROUP;
    }
    Ok(())
}

/// Makes `resource` the file `inode` at the place `dentry`.
#[inline(always)]
fn put(
    generation: &Generation,
    header: &Header,
    dentry: u64,
    inode: u64,
    label: *mut Label,
    resource: &mut Resource,
) -> Result<(), Reason> {
    locate(generation, header, dentry, label, resource)?;
    let mode: u16 = read(inode, &INODE_MODE)?;
    let owner: u32 = read(inode, &INODE_UID)?;
    resource.attributes.owner = owner as u64;
    resource.attributes.kind = (mode & S_IFMT) as u64;
    resource.attributes.set_id = (mode & SET_ID != 0) as u64;
    // It has a name, or will have one.
    resource.attributes.fileless = 0;
    resource.add_attribute_features(generation, header);
    Ok(())
}

/// `link(2)`: `file.link` on the name that is there, `file.create` on the new one.
#[lsm(hook = "path_link")]
pub fn path_link(ctx: LsmContext) -> i32 {
    guarded(Action::FileLink.bit(), |label| link(ctx.arg(0), ctx.arg(2), label))
}

#[inline(always)]
fn link(old: u64, new: u64, label: *mut Label) -> Result<i32, Reason> {
    let inode: u64 = read(old, &DENTRY_INODE)?;
    // SAFETY: the label of the running task.
    let names = unsafe { &mut (*label).names };
    names.action = Action::FileLink.bit();
    names.questions[0] = Question { dentry: old, inode, required: names.action, save: 1, compare: 0 };
    names.questions[1] = Question { dentry: new, inode, required: MADE, save: 0, compare: 1 };
    names.count = 2;
    ask_all(label)
}

/// `rename(2)`: `file.rename` on the old name, what creates such a file on the new one, what removes the
/// file that is replaced. An exchange is two renames at once. A whiteout is a device node where the file was.
#[lsm(hook = "path_rename")]
pub fn path_rename(ctx: LsmContext) -> i32 {
    let flags: u64 = ctx.arg(4);
    guarded(Action::FileRename.bit(), |label| rename(ctx.arg(1), ctx.arg(3), flags as u32, label))
}

#[inline(always)]
fn rename(old: u64, new: u64, flags: u32, label: *mut Label) -> Result<i32, Reason> {
    let moved: u64 = read(old, &DENTRY_INODE)?;
    let other: u64 = read(new, &DENTRY_INODE)?;
    let exchange = flags & RENAME_EXCHANGE != 0 && other != 0;
    let whiteout = if flags & RENAME_WHITEOUT != 0 { Action::FileMknod.bit() } else { 0 };
    // SAFETY: the label of the running task.
    let names = unsafe { &mut (*label).names };
    names.action = Action::FileRename.bit();
    let required = names.action | whiteout;
    names.questions[0] = Question { dentry: old, inode: moved, required, save: 1, compare: 0 };
    let arrives = Question { dentry: new, inode: moved, required: MADE, save: 0, compare: 1 };
    if exchange {
        names.questions[1] = Question { dentry: old, inode: other, required: MADE, save: 2, compare: 0 };
        names.questions[2] =
            Question { dentry: new, inode: other, required: Action::FileRename.bit(), save: 0, compare: -2 };
        names.questions[3] = arrives;
        names.count = 4;
    } else if other != 0 {
        names.questions[1] = Question { dentry: new, inode: other, required: REMOVED, save: 0, compare: 0 };
        names.questions[2] = arrives;
        names.count = 3;
    } else {
        names.questions[1] = arrives;
        names.count = 2;
    }
    ask_all(label)
}

/// Asks the questions of a label one after the other, until one is answered with no.
#[inline(always)]
fn ask_all(label: *mut Label) -> Result<i32, Reason> {
    let mut state = State { label, failed: NOT_FAILED };
    // SAFETY: the label of the running task; the callback's context is `state`, which outlives the call.
    unsafe {
        (*label).names.answer = 0;
        bpf_loop(QUESTIONS as u32, ask as *mut c_void, (&raw mut state).cast(), 0);
        match state.failed {
            NOT_FAILED => Ok((*label).names.answer),
            UNSTABLE => Err(Reason::PathUnstable),
            TOO_DEEP => Err(Reason::PathTooDeep),
            _ => Err(Reason::Unreadable),
        }
    }
}

struct State {
    label: *mut Label,
    failed: u64,
}

// Why a question could not be asked.
const NOT_FAILED: u64 = 0;
const UNSTABLE: u64 = 1;
const TOO_DEEP: u64 = 2;
const UNREADABLE: u64 = 3;

extern "C" fn ask(index: u32, state: *mut State) -> i64 {
    // SAFETY: the only caller passes a valid, exclusive pointer.
    let state = unsafe { &mut *state };
    let label = state.label;
    // SAFETY: the label of the running task.
    if index >= unsafe { (*label).names.count } {
        return 1;
    }
    match question(index, label) {
        Ok(answer) => {
            // SAFETY: as above.
            unsafe { (*label).names.answer = answer };
            (answer != 0) as i64
        }
        Err(reason) => {
            state.failed = match reason {
                Reason::PathUnstable => UNSTABLE,
                Reason::PathTooDeep => TOO_DEEP,
                _ => UNREADABLE,
            };
            1
        }
    }
}

#[inline(always)]
fn question(index: u32, label: *mut Label) -> Result<i32, Reason> {
    let (generation, header) = live()?;
    // SAFETY: the label of the running task; the index is masked to the list.
    let question = unsafe {
        &*(&raw const (*label).names.questions).cast::<Question>().add(index as usize & (QUESTIONS - 1))
    };
    let mut resource = Resource::unknown();
    put(&generation, header, question.dentry, question.inode, label, &mut resource)?;
    let mut required = question.required;
    if required == MADE {
        required = made(resource.attributes.kind);
    } else if required == REMOVED {
        required = removed(resource.attributes.kind);
    }
    // SAFETY: the label of the running task; the helper has no requirements.
    let (subject, now) = unsafe { ((*label).subject, || bpf_ktime_get_boot_ns()) };
    let query = Query { subject, class: resource.class, features: resource.features, required: u64::MAX };
    // One answer about everything: what was asked, and what the file's rights are here.
    let all = decide(&generation, &query, now);
    let mut decision = all.within(required);
    // SAFETY: the label of the running task with its walk buffer.
    let walk = unsafe { &(*label).walk };
    let here = Known {
        above: walk.features,
        last: walk.leaf_features,
        allow: !all.denied,
        candidate: !all.denied & !all.would_deny | all.would_allow,
        outcome: all.outcome,
        named: (walk.remaining == 0) as u32,
    };
    // SAFETY: the label of the running task; each index is 0 or 1.
    let known = unsafe { (&raw mut (*label).names.known).cast::<Known>() };
    if question.save != 0 {
        // SAFETY: as above.
        unsafe { *known.add(question.save as usize - 1 & 1) = here };
    }
    let there = question.compare;
    if there != 0 && decision.denied == 0 {
        // SAFETY: as above.
        let other = unsafe { &*known.add(there.unsigned_abs() as usize - 1 & 1) };
        let (before, after) = if there > 0 { (other, &here) } else { (&here, other) };
        let is_directory = resource.attributes.kind == S_IFDIR as u64;
        let (gained, candidate) = more_rights(&generation, is_directory, before, after);
        // SAFETY: as above.
        let action = unsafe { (*label).names.action };
        decision.refer(action, gained, candidate);
    }
    Ok(answer(&generation, label, &resource, required, decision))
}

/// Whether a new name gives a file rights which the old one does not give: by the enforced set, and by the
/// candidate set.
///
/// A directory must not even go to where policy may say otherwise of what lies in it: where it names one of
/// the two places or something below, or decides there by another table or other names of directories.
#[inline(always)]
fn more_rights(generation: &Generation, is_directory: bool, before: &Known, after: &Known) -> (bool, bool) {
    if is_directory {
        let same = before.named | after.named == 0 && is_same(generation, before, after);
        let monitored = before.allow & after.allow & MONITORED != 0;
        (!same && !monitored, !same)
    } else {
        (
            after.allow & !before.allow & ALL_ACTIONS != 0,
            after.candidate & !before.candidate & ALL_ACTIONS != 0,
        )
    }
}

/// Whether what lies in a directory is decided alike at both places, whatever its own name.
#[inline(always)]
fn is_same(generation: &Generation, before: &Known, after: &Known) -> bool {
    let Some(old) = generation.outcome(before.outcome) else { return false };
    let Some(new) = generation.outcome(after.outcome) else { return false };
    old.base == new.base
        && combination(&old, before.above) == combination(&old, after.above)
        && combination(&old, before.last) == combination(&old, after.last)
}
