//! Changes of a file that need no open: owner, mode, times, extended attributes, access lists, flags,
//! length, and what a device is told by `ioctl`.
//!
//! Owner, mode and times have one hook for every system call, `inode_setattr`. Overlayfs calls it, and
//! those of extended attributes, again for the file of its layer (`overlay.rs`). The attributes of a
//! directory are asked about like those of a file of its name.

use crate::file::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFMT, S_IFREG, SB_KERNMOUNT, named};
use crate::memory::read;
use crate::offsets::*;
use crate::overlay;
use crate::question::{self, ask};
use crate::task::guarded;
use crate::verdict::judge_class;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use guard_common::action::Action;
use guard_common::class::FIRST_CAPABILITY;
use guard_common::decide::Reason;
use guard_common::label::{Label, Question};

// include/linux/fs.h; the same in 6.1 to 7.3.
const ATTR_SIZE: u32 = 1 << 3;
const ATTR_FORCE: u32 = 1 << 9;

/// Since 6.9: `inode_setattr(idmap, dentry, iattr)`.
#[lsm(hook = "inode_setattr")]
pub fn inode_setattr(ctx: LsmContext) -> i32 {
    guarded(Action::FileSetattr.bit(), |label| change_inode(ctx.arg(1), ctx.arg(2), label))
}

/// Before: `inode_setattr(dentry, iattr)`.
#[lsm(hook = "inode_setattr")]
pub fn inode_setattr_2(ctx: LsmContext) -> i32 {
    guarded(Action::FileSetattr.bit(), |label| change_inode(ctx.arg(0), ctx.arg(1), label))
}

#[inline(always)]
fn change_inode(dentry: u64, change: u64, label: *mut Label) -> Result<i32, Reason> {
    let valid: u32 = read(change, &IATTR_VALID)?;
    // A length has hooks of its own. What is forced is the kernel's own doing, such as the loss of a
    // set-user-id bit by a write (`file_remove_privs`).
    if valid & (ATTR_SIZE | ATTR_FORCE) != 0 {
        return Ok(0);
    }
    change_attribute(dentry, label)
}

#[lsm(hook = "inode_setxattr")]
pub fn inode_setxattr(ctx: LsmContext) -> i32 {
    guarded(Action::FileSetattr.bit(), |label| change_attribute(ctx.arg(1), label))
}

#[lsm(hook = "inode_removexattr")]
pub fn inode_removexattr(ctx: LsmContext) -> i32 {
    guarded(Action::FileSetattr.bit(), |label| change_attribute(ctx.arg(1), label))
}

/// Access lists, which were extended attributes like others before 6.2.
#[lsm(hook = "inode_set_acl")]
pub fn inode_set_acl(ctx: LsmContext) -> i32 {
    guarded(Action::FileSetattr.bit(), |label| change_attribute(ctx.arg(1), label))
}

#[lsm(hook = "inode_remove_acl")]
pub fn inode_remove_acl(ctx: LsmContext) -> i32 {
    guarded(Action::FileSetattr.bit(), |label| change_attribute(ctx.arg(1), label))
}

/// Flags of a file (`chattr`), which are an `ioctl` before 6.17.
#[lsm(hook = "inode_file_setattr")]
pub fn inode_file_setattr(ctx: LsmContext) -> i32 {
    guarded(Action::FileSetattr.bit(), |label| change_attribute(ctx.arg(0), label))
}

#[inline(always)]
fn change_attribute(dentry: u64, label: *mut Label) -> Result<i32, Reason> {
    if overlay::is_at_work(label)? {
        return Ok(0);
    }
    decide(dentry, 0, Action::FileSetattr, label)
}

/// Decides an action on the file at `dentry`. `mount_at` says where the kernel keeps the mount that it is seen
/// through; 0 if it does not say.
#[inline(always)]
fn decide(dentry: u64, mount_at: u64, action: Action, label: *mut Label) -> Result<i32, Reason> {
    let inode: u64 = read(dentry, &DENTRY_INODE)?;
    ask(label, Question { mount_at, ..question::file(dentry, inode, action.bit()) })
}

/// `truncate(2)`; before 6.2 also `ftruncate(2)` and `O_TRUNC`.
#[lsm(hook = "path_truncate")]
pub fn path_truncate(ctx: LsmContext) -> i32 {
    guarded(Action::FileTruncate.bit(), |label| {
        let path: u64 = ctx.arg(0);
        decide(read(path, &PATH_DENTRY)?, path + get(&PATH_MNT), Action::FileTruncate, label)
    })
}

/// `ftruncate(2)` and `O_TRUNC`, since 6.2.
#[lsm(hook = "file_truncate")]
pub fn file_truncate(ctx: LsmContext) -> i32 {
    guarded(Action::FileTruncate.bit(), |label| {
        let file: u64 = ctx.arg(0);
        decide(read(file, &FILE_DENTRY)?, file + get(&FILE_MNT), Action::FileTruncate, label)
    })
}

#[lsm(hook = "file_ioctl")]
pub fn file_ioctl(ctx: LsmContext) -> i32 {
    let command: u64 = ctx.arg(1);
    guarded(Action::FileIoctl.bit(), |label| control(ctx.arg(0), command as u32, label))
}

/// The same by a 32-bit program.
#[lsm(hook = "file_ioctl_compat")]
pub fn file_ioctl_compat(ctx: LsmContext) -> i32 {
    let command: u64 = ctx.arg(1);
    guarded(Action::FileIoctl.bit(), |label| control(ctx.arg(0), command as u32, label))
}

#[inline(always)]
fn control(file: u64, command: u32, label: *mut Label) -> Result<i32, Reason> {
    if only_asks(command) {
        return Ok(0);
    }
    if types_for_others(command) {
        let answer = judge_class(label, FIRST_CAPABILITY + CAP_SYS_ADMIN, Action::SysCap.bit());
        if answer != 0 {
            return Ok(answer);
        }
    }
    // Decided here, so that the verifier need not remember what the command is not.
    let required = if sets_attributes(command) { Action::FileSetattr.bit() } else { Action::FileIoctl.bit() };
    let inode: u64 = read(file, &FILE_INODE)?;
    let mode: u16 = read(inode, &INODE_MODE)?;
    let kind = mode & S_IFMT;
    if kind != S_IFREG && kind != S_IFDIR && kind != S_IFCHR && kind != S_IFBLK {
        // Pipes and sockets.
        return Ok(0);
    }
    let superblock: u64 = read(inode, &INODE_SB)?;
    let flags: u64 = read(superblock, &SB_FLAGS)?;
    if flags & SB_KERNMOUNT != 0 {
        // memfds and what else has no name anywhere.
        return Ok(0);
    }
    let Some((dentry, inode)) = named(file)? else { return Ok(0) };
    ask(label, question::open(file, dentry, inode, required))
}

/// Whether a command puts words into the mouth of whoever else uses a terminal: TIOCSTI, and TIOCLINUX,
/// which selects and pastes (include/uapi/asm-generic/ioctls.h). Whoever may use the terminal may not do
/// this for that; it takes the capability `sys_admin`, as kernels since 6.2 and 6.7 can be told to ask for.
#[inline(always)]
fn types_for_others(command: u32) -> bool {
    matches!(command, 0x5412 | 0x541c)
}

/// include/uapi/linux/capability.h.
const CAP_SYS_ADMIN: u32 = 21;

// include/uapi/linux/fs.h.
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_IOC32_SETFLAGS: u32 = 0x4004_6602;
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
const FS_IOC_SETVERSION: u32 = 0x4008_7602;
const FS_IOC32_SETVERSION: u32 = 0x4004_7602;

/// Whether a command changes what `chattr` changes.
#[inline(always)]
fn sets_attributes(command: u32) -> bool {
    matches!(
        command,
        FS_IOC_SETFLAGS | FS_IOC32_SETFLAGS | FS_IOC_FSSETXATTR | FS_IOC_SETVERSION | FS_IOC32_SETVERSION
    )
}

/// Whether a command only asks, or changes nothing but the descriptor: it is never governed. Cloning
/// is decided as a write to the one file and a read of the other.
#[inline(always)]
fn only_asks(command: u32) -> bool {
    matches!(
        command,
        // include/uapi/asm-generic/ioctls.h: TCGETS, TIOCGPGRP, TIOCOUTQ, TIOCGWINSZ, TIOCMGET,
        // TIOCINQ (FIONREAD), FIONBIO, TIOCGETD, TIOCGSID, TCGETS2, TIOCGPTN, TIOCGPTLCK, TIOCGEXCL,
        // FIONCLEX, FIOCLEX, FIOASYNC, FIOQSIZE.
        0x5401 | 0x540f | 0x5411 | 0x5413 | 0x5415 | 0x541b | 0x5421 | 0x5424 | 0x5429 | 0x802c_542a
            | 0x8004_5430 | 0x8004_5439 | 0x8004_5440 | 0x5450 | 0x5451 | 0x5452 | 0x5460
            // include/uapi/linux/fs.h: FIGETBSZ, FS_IOC_GETFLAGS, its 32-bit form, FS_IOC_GETVERSION, its
            // 32-bit form, FS_IOC_FSGETXATTR, FS_IOC_FIEMAP, FICLONE, FICLONERANGE, FIDEDUPERANGE.
            | 0x2 | 0x8008_6601 | 0x8004_6601 | 0x8008_7601 | 0x8004_7601 | 0x801c_581f | 0xc020_660b
            | 0x4004_9409 | 0x4020_940d | 0xc018_9436
            // BLKGETSIZE64, BLKSSZGET, BLKGETSIZE, BLKROGET.
            | 0x8008_1272 | 0x1268 | 0x1260 | 0x125e
    )
}
