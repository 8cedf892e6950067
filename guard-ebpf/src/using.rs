//! The use of files that are open: `file_permission`.
//!
//! The kernel asks this before every read and write, by whatever call (`rw_verify_area`, fs/read_write.c):
//! read(2) and its relatives, splice, sendfile, copy_file_range, io_uring; and for getdents(2), fallocate(2)
//! and cloning. It is decided like the open that such a use would need now: by the name that the file has
//! now, whoever opened it, when, and however the descriptor came here.
//!
//! Of an allowed use nothing is told; what policy would deny in monitor mode is told once in a row.

use crate::answers;
use crate::connection;
use crate::file::{FMODE_EXEC, S_IFDIR, S_IFMT, S_IFSOCK, named};
use crate::memory::read;
use crate::offsets::*;
use crate::question::{self, HELD, ask_use};
use crate::stdio;
use crate::task::guarded;
use aya_ebpf::bindings::file;
use aya_ebpf::helpers::generated::bpf_sock_from_file;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use guard_common::action::Action;
use guard_common::decide::Reason;
use guard_common::label::{Label, Question};

/// `MAY_WRITE` (include/linux/fs.h).
const MAY_WRITE: u32 = 2;

#[lsm(hook = "file_permission")]
pub fn file_permission(ctx: LsmContext) -> i32 {
    let mask: u64 = ctx.arg(1);
    let writes = mask as u32 & MAY_WRITE != 0;
    let undecided = if writes { Action::FileWrite.bit() } else { Action::FileRead.bit() };
    // Inlined, because a frame of its own would be too much for the stack.
    guarded(
        undecided,
        #[inline(always)]
        |label| use_any(&ctx, writes, label),
    )
}

#[inline(always)]
fn use_any(ctx: &LsmContext, writes: bool, label: *mut Label) -> Result<i32, Reason> {
    if answers::uses(ctx.arg(0), writes, label) {
        return Ok(0);
    }
    let file: u64 = ctx.arg(0);
    let inode: u64 = read(file, &FILE_INODE)?;
    let mode: u16 = read(inode, &INODE_MODE)?;
    if mode & S_IFMT == S_IFSOCK {
        // What is sent and received by other calls has hooks of its own; splice has not.
        let file: *mut file = ctx.arg(0);
        // SAFETY: the argument of this program.
        let socket = unsafe { bpf_sock_from_file(file) };
        return if socket.is_null() { Ok(0) } else { connection::use_socket(socket.cast(), writes, label) };
    }
    use_file(file, mode & S_IFMT, writes, label)
}

#[inline(always)]
fn use_file(file: u64, kind: u16, writes: bool, label: *mut Label) -> Result<i32, Reason> {
    let flags: u32 = read(file, &FILE_FLAGS)?;
    if flags & FMODE_EXEC != 0 {
        // The kernel reads a program to execute it, which was decided.
        return Ok(0);
    }
    let Some((dentry, inode)) = named(file)? else { return Ok(0) };
    let required = answers::used(flags, kind == S_IFDIR, writes);
    let question = question::open(file, dentry, inode, required);
    let held = kind != S_IFDIR && stdio::holds(label, file, writes)?;
    ask_use(label, Question { about: if held { HELD } else { question.about }, ..question })
}
