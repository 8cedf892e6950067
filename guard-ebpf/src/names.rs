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
use crate::verdict::{judge, live, refer};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use guard_common::action::Action;
use guard_common::class::OWN_CGROUP;
use guard_common::decide::{NO_OUTCOME, Reason, Rights, Tables, combination, rights};
use guard_common::label::Label;
use guard_common::tables::{ALL_ACTIONS, Header, MONITORED};

const S_IFIFO: u16 = 0o010000;
// include/uapi/linux/fcntl.h.
const RENAME_EXCHANGE: u32 = 2;
const RENAME_WHITEOUT: u32 = 4;

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
    let place = place(&generation, header, dentry, label, &mut resource)?;
    put(&generation, header, &place, inode, &mut resource)?;
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

/// A place, as far as it is needed after another one was looked at.
#[derive(Clone, Copy)]
struct Place {
    class: u32,
    /// The path ends at a node of the trie, so policy names it or something below it.
    named: u32,
    /// Features that the names of its directories give, which hold below it as well.
    above: u64,
    /// Features that its last component gives.
    last: u64,
}

#[inline(always)]
fn place(
    generation: &Generation,
    header: &Header,
    dentry: u64,
    label: *mut Label,
    resource: &mut Resource,
) -> Result<Place, Reason> {
    resource.features = 0;
    locate(generation, header, dentry, label, resource)?;
    // SAFETY: the walk buffer of the running task's own label.
    let walk = unsafe { &(*label).walk };
    Ok(Place {
        class: resource.class,
        named: (walk.remaining == 0) as u32,
        above: walk.features,
        last: walk.leaf_features,
    })
}

/// Makes `resource` the file `inode` at a place.
#[inline(always)]
fn put(
    generation: &Generation,
    header: &Header,
    place: &Place,
    inode: u64,
    resource: &mut Resource,
) -> Result<(), Reason> {
    let mode: u16 = read(inode, &INODE_MODE)?;
    let owner: u32 = read(inode, &INODE_UID)?;
    resource.class = place.class;
    resource.features = place.above | place.last;
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
    let (generation, header) = live()?;
    let inode: u64 = read(old, &DENTRY_INODE)?;
    let mut resource = Resource::unknown();
    let from = place(&generation, header, old, label, &mut resource)?;
    put(&generation, header, &from, inode, &mut resource)?;
    let answer = judge(&generation, label, &resource, Action::FileLink.bit());
    if answer != 0 {
        return Ok(answer);
    }
    let before = rights_of(&generation, label, &resource);
    let to = place(&generation, header, new, label, &mut resource)?;
    put(&generation, header, &to, inode, &mut resource)?;
    let answer = judge(&generation, label, &resource, made(resource.attributes.kind));
    if answer != 0 {
        return Ok(answer);
    }
    let after = rights_of(&generation, label, &resource);
    Ok(more_rights(&generation, label, &resource, Action::FileLink, before, after))
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
    let (generation, header) = live()?;
    let moved: u64 = read(old, &DENTRY_INODE)?;
    let other: u64 = read(new, &DENTRY_INODE)?;
    let exchange = flags & RENAME_EXCHANGE != 0;
    let mut resource = Resource::unknown();

    let from = place(&generation, header, old, label, &mut resource)?;
    put(&generation, header, &from, moved, &mut resource)?;
    let mut required = Action::FileRename.bit();
    if flags & RENAME_WHITEOUT != 0 {
        required |= Action::FileMknod.bit();
    }
    let answer = judge(&generation, label, &resource, required);
    if answer != 0 {
        return Ok(answer);
    }
    let before = rights_of(&generation, label, &resource);
    let mut other_after = Rights { allow: 0, candidate: 0, outcome: NO_OUTCOME };
    if exchange {
        put(&generation, header, &from, other, &mut resource)?;
        let answer = judge(&generation, label, &resource, made(resource.attributes.kind));
        if answer != 0 {
            return Ok(answer);
        }
        other_after = rights_of(&generation, label, &resource);
    }

    let to = place(&generation, header, new, label, &mut resource)?;
    if other != 0 {
        put(&generation, header, &to, other, &mut resource)?;
        let required =
            if exchange { Action::FileRename.bit() } else { removed(resource.attributes.kind) };
        let answer = judge(&generation, label, &resource, required);
        if answer != 0 {
            return Ok(answer);
        }
    }
    if exchange {
        let other_before = rights_of(&generation, label, &resource);
        let answer = if resource.attributes.kind == S_IFDIR as u64 {
            elsewhere(&generation, label, &resource, &to, &from, other_before, other_after)
        } else {
            more_rights(&generation, label, &resource, Action::FileRename, other_before, other_after)
        };
        if answer != 0 {
            return Ok(answer);
        }
    }
    put(&generation, header, &to, moved, &mut resource)?;
    let answer = judge(&generation, label, &resource, made(resource.attributes.kind));
    if answer != 0 {
        return Ok(answer);
    }
    let after = rights_of(&generation, label, &resource);
    Ok(if resource.attributes.kind == S_IFDIR as u64 {
        elsewhere(&generation, label, &resource, &from, &to, before, after)
    } else {
        more_rights(&generation, label, &resource, Action::FileRename, before, after)
    })
}

#[inline(always)]
fn rights_of(generation: &Generation, label: *mut Label, resource: &Resource) -> Rights {
    // SAFETY: the label of the running task; the helper has no requirements.
    unsafe {
        let row = ((*label).row, (*label).session);
        rights(generation, row, resource.class, resource.features, || bpf_ktime_get_boot_ns())
    }
}

/// Refuses a new name that gives a file rights which the old one does not give. Where only the candidate
/// set would refuse it, that is reported.
#[inline(always)]
fn more_rights(
    generation: &Generation,
    label: *mut Label,
    resource: &Resource,
    action: Action,
    before: Rights,
    after: Rights,
) -> i32 {
    let gained = after.allow & !before.allow & ALL_ACTIONS;
    let candidate = after.candidate & !before.candidate & ALL_ACTIONS;
    if gained | candidate == 0 {
        return 0;
    }
    refer(generation, label, resource, action, gained != 0, candidate != 0)
}

/// Refuses to move a directory to where policy may say otherwise of what lies in it: where it names one
/// of the two places or something below, or decides there by another table or other names of directories.
#[inline(always)]
fn elsewhere(
    generation: &Generation,
    label: *mut Label,
    resource: &Resource,
    from: &Place,
    to: &Place,
    before: Rights,
    after: Rights,
) -> i32 {
    if from.named | to.named == 0 && is_same(generation, from, to, before.outcome, after.outcome) {
        return 0;
    }
    let denied = before.allow & after.allow & MONITORED == 0;
    refer(generation, label, resource, Action::FileRename, denied, true)
}

/// Whether what lies in a directory is decided alike at both places, whatever its own name.
#[inline(always)]
fn is_same(generation: &Generation, from: &Place, to: &Place, before: u32, after: u32) -> bool {
    let Some(old) = generation.outcome(before) else { return false };
    let Some(new) = generation.outcome(after) else { return false };
    old.base == new.base
        && combination(&old, from.above) == combination(&old, to.above)
        && combination(&old, from.last) == combination(&old, to.last)
}
