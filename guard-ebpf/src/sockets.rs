//! Whose a socket is.
//!
//! What arrives from the network is handled by whoever happens to run, so the label it is decided for is
//! kept with the socket: with sockets for datagrams from their creation on, with those for connections
//! from listen(2) on. An inherited socket, which an unlabelled process made, becomes that of the first
//! labelled one that listens, accepts or receives on it.
//!
//! The kernel frees the storage with the socket. Nothing is kept for sockets of unlabelled processes, and
//! one load tells that.

use crate::bars;
use crate::maps::SOCKETS;
use crate::memory::member;
use crate::offsets::SOCK_BPF_STORAGE;
use crate::record::count;
use crate::shared;
use crate::task::bounded;
use crate::verdict::fail;
use aya_ebpf::bindings::BPF_LOCAL_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_sk_storage_get,
};
use core::ffi::c_void;
use guard_common::decide::{Decision, Reason};
use guard_common::event::Counter;
use guard_common::label::{Label, NO_SUBJECT, SOCKET_REFUSED, SocketLabel};

/// Whether a socket has any BPF storage. `sock` is an argument of the program, or a load of one.
#[inline(always)]
pub fn has_storage(sock: *const c_void) -> bool {
    // SAFETY: by the contract of this function.
    let storage: u64 = unsafe { member(sock, &SOCK_BPF_STORAGE) };
    storage != 0
}

/// What is kept with a socket, or null.
#[inline(always)]
pub fn find(sock: *const c_void) -> *mut SocketLabel {
    if !has_storage(sock) {
        return core::ptr::null_mut();
    }
    // SAFETY: the map is a socket storage map; the verifier checks the type of `sock`.
    unsafe { bpf_sk_storage_get(SOCKETS.as_ptr(), sock.cast_mut(), core::ptr::null_mut(), 0).cast() }
}

/// The same, made if there is nothing yet; null if there is no memory.
#[inline(always)]
pub fn create(sock: *const c_void) -> *mut SocketLabel {
    let flags = BPF_LOCAL_STORAGE_GET_F_CREATE as u64;
    // SAFETY: as in `find`; a null initial value asks for zeros.
    unsafe { bpf_sk_storage_get(SOCKETS.as_ptr(), sock.cast_mut(), core::ptr::null_mut(), flags).cast() }
}

/// Notes by which right of the running task a socket is used, and who listens at the other end, if anybody who is
/// known; what was noted of another connection no longer counts, but that nothing may pass over it.
#[inline(always)]
pub fn mark(sock: *const c_void, flag: u32, listener: u32) -> Result<(), Reason> {
    let kept = create(sock);
    if kept.is_null() {
        return Err(Reason::NoMemory);
    }
    // SAFETY: a non-null result of the helper points to a whole value.
    unsafe {
        (*kept).listener = listener;
        core::ptr::write_volatile(&raw mut (*kept).flags, (*kept).flags & SOCKET_REFUSED | flag);
    }
    Ok(())
}

/// What was noted of a socket, see `mark`.
#[inline(always)]
pub fn flags_of(sock: *const c_void) -> u32 {
    let kept = find(sock);
    // SAFETY: a non-null result of the helper points to a whole value.
    if kept.is_null() { 0 } else { unsafe { (*kept).flags } }
}

/// The subject whose a socket is, or [`NO_SUBJECT`].
#[inline(always)]
pub fn subject_of(sock: *const c_void) -> u32 {
    let kept = find(sock);
    if kept.is_null() {
        return NO_SUBJECT;
    }
    // SAFETY: a non-null result of the helper points to a whole value.
    unsafe { core::ptr::read_volatile(&raw const (*kept).subject) }
}

/// Makes a socket that of the running task, which has this label.
#[inline(always)]
pub fn claim(sock: *const c_void, label: *mut Label) -> Result<(), Reason> {
    if bars::is_free(label) {
        // What arrives for it is nobody's affair; to receive it is decided when it does.
        return Ok(());
    }
    let kept = create(sock);
    if kept.is_null() {
        return Err(Reason::NoMemory);
    }
    // SAFETY: the storage of the socket and the label of the running task. Another processor that
    // decides meanwhile does so for the label before or for this one: a row of a session decides for no
    // other session, and the process is for the report only. The helpers have no requirements.
    unsafe {
        (*kept).session = (*label).session;
        core::ptr::write_volatile(&raw mut (*kept).row, (*label).row);
        (*kept).process.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*kept).process.uid = bpf_get_current_uid_gid() as u32;
        bpf_get_current_comm((&raw mut (*kept).process.comm).cast(), 16);
        core::ptr::write_volatile(&raw mut (*kept).subject, (*label).subject);
    }
    Ok(())
}

/// Makes a socket that of the running task if it is nobody's yet.
#[inline(always)]
pub fn claim_unclaimed(sock: *const c_void, label: *mut Label) -> Result<(), Reason> {
    let kept = find(sock);
    // SAFETY: a non-null result of the helper points to a whole value.
    if kept.is_null() || unsafe { (*kept).subject } == NO_SUBJECT { claim(sock, label) } else { Ok(()) }
}

/// Lets `decide` answer for the label that a socket has; what arrives at sockets of nobody is let through.
/// The frame of every hook that is about a socket and not about the running task.
#[inline(always)]
pub fn guarded(
    sock: *const c_void,
    required: u64,
    decide: impl FnOnce(*mut Label) -> Result<i32, Reason>,
) -> i32 {
    let kept = find(sock);
    if kept.is_null() {
        return 0;
    }
    for_label(kept, required, decide)
}

/// Lets `decide` answer for a label that is kept with something; `kept` points to a whole one.
#[inline(always)]
pub fn for_label(
    kept: *const SocketLabel,
    required: u64,
    decide: impl FnOnce(*mut Label) -> Result<i32, Reason>,
) -> i32 {
    // SAFETY: by the contract of this function.
    let subject = unsafe { core::ptr::read_volatile(&raw const (*kept).subject) };
    if subject == NO_SUBJECT {
        return 0;
    }
    let answer = shared::borrow(|label| {
        // SAFETY: the label is borrowed; what is kept is whole.
        unsafe {
            (*label).subject = subject;
            (*label).session = (*kept).session;
            (*label).row = (*kept).row;
            (*label).barred = 0;
            (*label).process = (*kept).process;
        }
        Ok(match decide(label) {
            Ok(answer) => answer,
            Err(reason) => fail(label, required, reason),
        })
    });
    match answer {
        Ok(answer) => bounded(answer),
        Err(_) => {
            count(Counter::InternalDenied);
            Decision::deny_all(required, Reason::StorageBusy).answer()
        }
    }
}
