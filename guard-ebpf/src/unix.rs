//! Unix sockets: their names and their use: `unix_stream_connect`, `unix_may_send`, and what `socket_bind`, `path_mknod` and
//! `socket_accept` are for them.
//!
//! `socket_connect` sees only the bytes that the caller typed, which may be relative or lead over
//! symbolic links; here the kernel has found the socket, and with it the name it was bound to.

use crate::address::AF_UNIX;
use crate::agent;
use crate::memory::{member, read, read_at};
use crate::network::{SOCK_DGRAM, sock_of};
use crate::offsets::*;
use crate::own_root;
use crate::own_tmpfs;
use crate::path;
use crate::question::{
    self, ABSTRACT, NOT_DESCRIBED, SOCKET, UNNAMED, UNREADABLE, decided, decided_use, described, nth, put,
};
use crate::resource::Resource;
use crate::sockets;
use crate::stdio;
use crate::task::guarded;
use crate::verdict::use_class;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ffi::c_void;
use guard_common::action::Action;
use guard_common::class::{OWN_ANONYMOUS, UNKNOWN};
use guard_common::decide::Reason;
use guard_common::label::{Label, NO_SUBJECT, Question, SOCKET_ACCEPTED, SOCKET_CONNECTED};

/// `S_IFSOCK`, the kind of every unix socket.
const S_IFSOCK: u64 = 0o140000;
const S_IFMT: u64 = 0o170000;
/// Bytes of the longest address (`struct sockaddr_un` in include/uapi/linux/un.h).
const ADDRESS_MAX: u32 = 110;
/// Bytes of `sun_family` before the name in a socket address.
const FAMILY_BYTES: u32 = 2;

#[lsm(hook = "unix_stream_connect")]
pub fn unix_stream_connect(ctx: LsmContext) -> i32 {
    guarded(Action::UnixConnect.bit(), |label| {
        let other: *const c_void = ctx.arg(1);
        let listener = sockets::subject_of(other);
        let answer = decide(other as u64, listener, label, Action::UnixConnect)?;
        if answer == 0 {
            sockets::mark(ctx.arg(0), SOCKET_CONNECTED, listener)?;
        }
        Ok(answer)
    })
}

#[lsm(hook = "unix_may_send")]
pub fn unix_may_send(ctx: LsmContext) -> i32 {
    guarded(Action::UnixSend.bit(), |label| {
        let other = sock_of(ctx.arg(1));
        if other.is_null() {
            return Ok(0);
        }
        decide(other as u64, sockets::subject_of(other), label, Action::UnixSend)
    })
}

/// Decides the use of a unix socket, of which `file` is the kernel's open file. What is sent as datagrams is
/// decided by who gets each (`unix_may_send`).
#[inline(always)]
pub fn use_socket(sock: *const c_void, file: u64, sends: bool, label: *mut Label) -> Result<i32, Reason> {
    // SAFETY: a load of a member of what an argument of the program points to.
    let kind: u16 = unsafe { member(sock, &SOCK_TYPE) };
    let held = if sends { Action::FileWrite.bit() } else { Action::FileRead.bit() };
    if kind == SOCK_DGRAM {
        return Ok(if sends { 0 } else { use_class(label, OWN_ANONYMOUS, held) });
    }
    // SAFETY: the label of the running task.
    if unsafe { (*label).asked } != 0 && is_agents(sock as u64)? {
        return Ok(0);
    }
    let kept = sockets::find(sock);
    // SAFETY: a non-null result of the helper points to a whole value.
    let (flags, listener) =
        if kept.is_null() { (0, NO_SUBJECT) } else { unsafe { ((*kept).flags, (*kept).listener) } };
    if flags & SOCKET_ACCEPTED != 0 {
        return decide_use(sock as u64, own(label), label, Action::UnixAccept);
    }
    let peer: u64 = read(sock as u64, &UNIX_PEER)?;
    if flags & SOCKET_CONNECTED != 0 {
        // Without another end there is nothing to use.
        return if peer == 0 || is_gone(peer)? {
            Ok(0)
        } else {
            decide_use(peer, listener, label, Action::UnixConnect)
        };
    }
    if peer != 0 && is_gone(peer)? {
        // What is left to read was sent before.
        return Ok(0);
    }
    // Somebody else made it and handed it over, or it is one of a pair.
    if peer != 0 && !stdio::holds(label, file, sends)? {
        if is_named(peer)? {
            return decide_use(peer, NO_SUBJECT, label, Action::UnixConnect);
        }
        if is_named(sock as u64)? {
            return decide_use(sock as u64, NO_SUBJECT, label, Action::UnixAccept);
        }
    }
    Ok(use_class(label, OWN_ANONYMOUS, held))
}

/// Whether the other end of a socket is one that the agent listens at: the process that the kernel notes at
/// connect(2) as the peer's (`copy_peercred`, net/unix/af_unix.c).
#[inline(always)]
fn is_agents(sock: u64) -> Result<bool, Reason> {
    let pid: u64 = read(sock, &SOCK_PEER_PID)?;
    // The first of `struct upid` begins with the number in the initial namespace.
    Ok(pid != 0 && agent::is_agent(read(pid, &PID_NUMBERS)?))
}

/// Whether a socket was bound to a path and is closed: its place is given back then (`unix_release_sock`).
#[inline(always)]
fn is_gone(sock: u64) -> Result<bool, Reason> {
    let address: u64 = read(sock, &UNIX_ADDR)?;
    if address == 0 || read::<u64>(sock, &UNIX_DENTRY)? != 0 {
        return Ok(false);
    }
    let path = read_at::<u8>(address + get(&UNIX_ADDRESS_NAME) + FAMILY_BYTES as u64)?;
    Ok(path != 0)
}

/// Whether a unix socket was bound to a name.
#[inline(always)]
fn is_named(sock: u64) -> Result<bool, Reason> {
    Ok(read::<u64>(sock, &UNIX_ADDR)? != 0)
}

/// Decides the name that a socket is to be bound to, if it is abstract. One with a path is decided where
/// its place is known (`unix_bind_path`).
#[lsm(hook = "socket_bind")]
pub fn unix_bind_abstract(ctx: LsmContext) -> i32 {
    guarded(Action::UnixBind.bit(), |label| {
        let sock = sock_of(ctx.arg(0));
        if sock.is_null() {
            return Ok(0);
        }
        // SAFETY: a load of a member of what an argument of the program points to.
        let family: u16 = unsafe { member(sock, &SOCK_FAMILY) };
        let length: u64 = ctx.arg(2);
        if family == AF_UNIX { bind(ctx.arg(1), length as u32, label) } else { Ok(0) }
    })
}

#[inline(always)]
fn bind(address: u64, length: u32, label: *mut Label) -> Result<i32, Reason> {
    if (length as i32) < FAMILY_BYTES as i32 || length > ADDRESS_MAX {
        // The kernel refuses this itself.
        return Ok(0);
    }
    if length > FAMILY_BYTES && read_at::<u8>(address + FAMILY_BYTES as u64)? != 0 {
        return Ok(0);
    }
    // With a family only, the kernel makes up an abstract name. It then counts as one that no policy has.
    let question = abstract_name(address, length, Action::UnixBind);
    ask(label, Question { peer: own(label), ..question })
}

/// Asks about the abstract name in the socket address at `address`.
#[inline(always)]
fn abstract_name(address: u64, length: u32, action: Action) -> Question {
    // The name follows the family and the zero byte that makes it abstract.
    let name = address + FAMILY_BYTES as u64 + 1;
    let length = if length > FAMILY_BYTES { length - FAMILY_BYTES - 1 } else { 0 };
    Question { about: ABSTRACT, length, ..question::file(name, 0, action.bit()) }
}

/// Decides where the node of a socket is made: by bind(2), and by mknod(2) of a socket.
#[lsm(hook = "path_mknod")]
pub fn unix_bind_path(ctx: LsmContext) -> i32 {
    let mode: u64 = ctx.arg(2);
    if mode & S_IFMT != S_IFSOCK {
        return 0;
    }
    guarded(Action::UnixBind.bit(), |label| bind_at(ctx.arg(0), ctx.arg(1), label))
}

/// Decides `unix.bind` at the place of `dentry` in the directory `path`, where nothing is yet.
#[inline(always)]
pub fn bind_at(path: u64, dentry: u64, label: *mut Label) -> Result<i32, Reason> {
    let question = question::file(dentry, 0, Action::UnixBind.bit());
    ask(label, question::at(path, Question { about: SOCKET, peer: own(label), ..question }))
}

/// Who listens where the running task binds: itself.
#[inline(always)]
fn own(label: *mut Label) -> u32 {
    // SAFETY: the label of the running task.
    unsafe { (*label).subject }
}

/// Decides accepting connections on the socket `sock`, by its own name.
#[inline(always)]
pub fn accept(sock: *const c_void, label: *mut Label) -> Result<i32, Reason> {
    decide(sock as u64, sockets::subject_of(sock), label, Action::UnixAccept)
}

/// Decides `action` on the name of the socket at `sock`, at which `peer` listens, or nobody who is known.
#[inline(always)]
fn decide(sock: u64, peer: u32, label: *mut Label, action: Action) -> Result<i32, Reason> {
    put(label, 0, Question { peer, ..named(sock, action)? });
    let failed = describe_first(label);
    decided(label, 0, failed)
}

/// The same for the use of a connection.
#[inline(always)]
fn decide_use(sock: u64, peer: u32, label: *mut Label, action: Action) -> Result<i32, Reason> {
    put(label, 0, Question { peer, ..named(sock, action)? });
    let failed = describe_first(label);
    decided_use(label, 0, failed)
}

/// Asks about the name of the socket at `sock`.
#[inline(always)]
fn named(sock: u64, action: Action) -> Result<Question, Reason> {
    let dentry: u64 = read(sock, &UNIX_DENTRY)?;
    Ok(if dentry != 0 {
        let mount_at = sock + get(&UNIX_MNT);
        Question { about: SOCKET, mount_at, ..question::file(dentry, 0, action.bit()) }
    } else {
        let address: u64 = read(sock, &UNIX_ADDR)?;
        let length: u32 = if address == 0 { 0 } else { read(address, &UNIX_ADDRESS_LEN)? };
        if length <= FAMILY_BYTES + 1 {
            Question { about: UNNAMED, ..question::file(0, 0, action.bit()) }
        } else {
            abstract_name(address + get(&UNIX_ADDRESS_NAME), length, action)
        }
    })
}

#[inline(always)]
fn ask(label: *mut Label, question: Question) -> Result<i32, Reason> {
    put(label, 0, question);
    let failed = describe_first(label);
    decided(label, 0, failed)
}

#[inline(always)]
fn describe_first(label: *mut Label) -> u32 {
    let failed = own_root::prepare(label, 0);
    // SAFETY: the label of the running task.
    if failed == NOT_DESCRIBED { unsafe { describe_socket(label) } } else { failed }
}

/// Describes the unix socket that the first question of a label is about. A global function as in
/// `question.rs`, and returns the same.
///
/// # Safety
/// The label must be a whole one, and that of the running task; the verifier checks the first.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn describe_socket(label: *mut Label) -> u32 {
    if label.is_null() {
        return UNREADABLE;
    }
    let mut resource = Resource::of_class(UNKNOWN);
    let result = describe(label, &mut resource);
    described(label, result, &resource)
}

#[inline(always)]
fn describe(label: *mut Label, resource: &mut Resource) -> Result<(), Reason> {
    let (generation, header) = own_root::generation(label)?;
    // SAFETY: the label of the running task.
    let (question, own) = unsafe { (&*nth(label, 0), (*label).subject) };
    let about = question.about;
    resource.attributes.kind = S_IFSOCK;
    if question.peer != NO_SUBJECT {
        resource.attributes.listener = question.peer as u64;
    }
    resource.attributes.own = own as u64;
    if about == SOCKET {
        resource.attributes.abstract_name = 0;
        let dentry = question.dentry;
        // SAFETY: the walk buffer of the running task's own label.
        let walk = unsafe { &raw mut (*label).walk };
        path::classify(&generation, header, dentry, walk, resource)?;
        own_tmpfs::correct(dentry, label, walk, resource)?;
    } else if about == ABSTRACT {
        resource.attributes.abstract_name = 1;
        resource.class = path::abstract_class(&generation, question.dentry, question.length)?;
    } else {
        // Without a name only the two ends of a socket pair know each other.
        resource.class = OWN_ANONYMOUS;
    }
    resource.add_attribute_features(&generation, header);
    Ok(())
}
