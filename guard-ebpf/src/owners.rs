//! Signals that a file sends by itself: SIGIO and what replaces it (`fcntl(F_SETSIG)`), SIGURG.
//!
//! A process names who gets them (`F_SETOWN`, `F_SETOWN_EX`, `FIOSETOWN`, `SIOCSPGRP`), and they are sent
//! by whoever makes the file ready. So whoever named the owner is kept by the address of the file, and each
//! signal is decided for that label, on the process that gets it.
//!
//! Nothing is removed when a file is freed, which would be paid for by everybody who closes one. What is
//! left over is never looked at: a signal needs an owner, and every change of the owner, also that of
//! another file which lies there later, comes through `file_set_fowner` first (`__f_setown`, `fs/fcntl.c`).

use crate::agent;
use crate::fault::injected;
use crate::maps::OWNERS;
use crate::memory::{read, read_at};
use crate::offsets::*;
use crate::process::{SIGNAL, process};
use crate::record::count;
use crate::sockets;
use crate::task::{Lookup, label};
use crate::verdict::fail;
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_get_current_uid_gid, bpf_send_signal};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use guard_common::decide::Reason;
use guard_common::event::Counter;
use guard_common::fault;
use guard_common::label::{Label, SocketLabel};

const SIGKILL: u32 = 9;

/// The owner of a file changes. The hook cannot refuse: who cannot be kept must not go on.
#[lsm(hook = "file_set_fowner")]
pub fn file_set_fowner(ctx: LsmContext) -> i32 {
    let Ok(file) = read_at::<u64>(ctx.as_ptr() as u64) else { return 0 };
    let kept = match label() {
        Lookup::Unlabelled => {
            let _ = OWNERS.remove(file);
            return 0;
        }
        Lookup::Labelled(label) => keep(file, label).map_err(|reason| fail(label, SIGNAL, reason)).is_ok(),
        Lookup::Busy => false,
    };
    if !kept {
        count(Counter::InternalDenied);
        // SAFETY: the helper has no requirements.
        unsafe { bpf_send_signal(SIGKILL) };
    }
    0
}

#[inline(always)]
fn keep(file: u64, label: *mut Label) -> Result<(), Reason> {
    if injected(fault::NO_MEMORY) {
        return Err(Reason::NoMemory);
    }
    // SAFETY: the label of the running task.
    let (subject, session, row) = unsafe { ((*label).subject, (*label).session, (*label).row) };
    let mut kept = SocketLabel { subject, session, row, ..SocketLabel::default() };
    // SAFETY: the helpers have no requirements but room for the name.
    unsafe {
        kept.process.tgid = agent::running();
        kept.process.uid = bpf_get_current_uid_gid() as u32;
        bpf_get_current_comm((&raw mut kept.process.comm).cast(), 16);
    }
    OWNERS.insert(file, kept, 0).map_err(|_| Reason::NoMemory)
}

/// A file sends its owner a signal, in the middle of whatever this processor is doing. What a process has
/// sent to itself is never governed.
#[lsm(hook = "file_send_sigiotask")]
pub fn file_send_sigiotask(ctx: LsmContext) -> i32 {
    let Ok(file) = file_of(&ctx) else { return 0 };
    let Some(kept) = OWNERS.get_ptr(file) else { return 0 };
    sockets::for_label(kept, SIGNAL, |label| {
        let target: *mut task_struct = ctx.arg(0);
        // SAFETY: the borrowed label.
        let owner = unsafe { (*label).process.tgid };
        if read::<u32>(target as u64, &TASK_TGID)? == owner {
            return Ok(0);
        }
        Ok(process(label, target, SIGNAL, true)? as i32)
    })
}

/// The file that an owner belongs to: a part of the file, or since 6.12 something of its own.
#[inline(always)]
fn file_of(ctx: &LsmContext) -> Result<u64, Reason> {
    let owner: u64 = read_at(ctx.as_ptr() as u64 + 8)?;
    if is_known(&OWNER_FILE) { read(owner, &OWNER_FILE) } else { Ok(owner - get(&FILE_OWNER)) }
}
