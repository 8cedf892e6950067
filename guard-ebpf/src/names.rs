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

use crate::file::{S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};
use crate::memory::read;
use crate::offsets::*;
use crate::question::{self, MADE, REMOVED, RENAMED, WHITEOUT, ask, ask_all, made, put_place};
use crate::task::guarded;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use guard_common::action::Action;
use guard_common::decide::Reason;
use guard_common::label::Label;

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
    guarded(required, |label| create(ctx.arg(0), ctx.arg(1), mode, required, label))
}

#[lsm(hook = "path_mkdir")]
pub fn path_mkdir(ctx: LsmContext) -> i32 {
    let mode: u64 = ctx.arg(2);
    guarded(Action::DirCreate.bit(), |label| {
        create(ctx.arg(0), ctx.arg(1), mode as u16 & !S_IFMT | S_IFDIR, Action::DirCreate.bit(), label)
    })
}

#[lsm(hook = "path_symlink")]
pub fn path_symlink(ctx: LsmContext) -> i32 {
    guarded(Action::FileSymlink.bit(), |label| {
        create(ctx.arg(0), ctx.arg(1), S_IFLNK, Action::FileSymlink.bit(), label)
    })
}

#[lsm(hook = "path_unlink")]
pub fn path_unlink(ctx: LsmContext) -> i32 {
    guarded(Action::FileRemove.bit(), |label| remove(ctx.arg(0), ctx.arg(1), Action::FileRemove, label))
}

#[lsm(hook = "path_rmdir")]
pub fn path_rmdir(ctx: LsmContext) -> i32 {
    guarded(Action::DirRemove.bit(), |label| remove(ctx.arg(0), ctx.arg(1), Action::DirRemove, label))
}

#[inline(always)]
fn create(path: u64, dentry: u64, mode: u16, required: u64, label: *mut Label) -> Result<i32, Reason> {
    // `mknod(2)` takes no kind for a regular file.
    let mode = if mode & S_IFMT == 0 { mode | S_IFREG } else { mode };
    ask(label, question::at(path, question::new(dentry, mode, required)))
}

#[inline(always)]
fn remove(path: u64, dentry: u64, action: Action, label: *mut Label) -> Result<i32, Reason> {
    let inode: u64 = read(dentry, &DENTRY_INODE)?;
    ask(label, question::at(path, question::place(dentry, inode, action.bit())))
}

/// `link(2)`: `file.link` on the name that is there, `file.create` on the new one.
#[lsm(hook = "path_link")]
pub fn path_link(ctx: LsmContext) -> i32 {
    guarded(Action::FileLink.bit(), |label| link(ctx.arg(0), ctx.arg(1), ctx.arg(2), label))
}

#[inline(always)]
fn link(old: u64, directory: u64, new: u64, label: *mut Label) -> Result<i32, Reason> {
    let inode: u64 = read(old, &DENTRY_INODE)?;
    // SAFETY: the label of the running task.
    unsafe { (*label).questions.action = Action::FileLink.bit() };
    // The kernel links within one mount only, so the new name's is that of the old.
    let mount_at = directory + get(&PATH_MNT);
    put_place(label, 0, (old, inode, Action::FileLink.bit()), mount_at, (1, 0));
    put_place(label, 1, (new, inode, MADE), mount_at, (0, 1));
    ask_all(label, 2)
}

/// `rename(2)`: `file.rename` on the old name, what creates such a file on the new one, what removes the
/// file that is replaced. An exchange is two renames at once. A whiteout is a device node where the file was.
#[lsm(hook = "path_rename")]
pub fn path_rename(ctx: LsmContext) -> i32 {
    let flags: u64 = ctx.arg(4);
    guarded(Action::FileRename.bit(), |label| rename(ctx.arg(0), ctx.arg(1), ctx.arg(3), flags as u32, label))
}

#[inline(always)]
fn rename(directory: u64, old: u64, new: u64, flags: u32, label: *mut Label) -> Result<i32, Reason> {
    // The kernel renames within one mount only.
    let mount_at = directory + get(&PATH_MNT);
    let moved: u64 = read(old, &DENTRY_INODE)?;
    let other: u64 = read(new, &DENTRY_INODE)?;
    let exchange = flags & RENAME_EXCHANGE != 0 && other != 0;
    let whiteout = if flags & RENAME_WHITEOUT != 0 { WHITEOUT } else { 0 };
    // SAFETY: the label of the running task.
    unsafe { (*label).questions.action = RENAMED };
    put_place(label, 0, (old, moved, RENAMED | whiteout), mount_at, (1, 0));
    let mut count = 1;
    if exchange {
        put_place(label, 1, (old, other, MADE), mount_at, (2, 0));
        put_place(label, 2, (new, other, RENAMED), mount_at, (0, -2));
        count = 3;
    } else if other != 0 {
        put_place(label, 1, (new, other, REMOVED), mount_at, (0, 0));
        count = 2;
    }
    put_place(label, count, (new, moved, MADE), mount_at, (0, 1));
    ask_all(label, count + 1)
}
