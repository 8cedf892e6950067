//! Unix sockets: `unix_stream_connect`, `unix_may_send`, and what `socket_bind`, `path_mknod` and
//! `socket_accept` are for them.
//!
//! `socket_connect` sees only the bytes that the caller typed, which may be relative or lead over
//! symbolic links; here the kernel has found the socket, and with it the name it was bound to.

use crate::address::AF_UNIX;
use crate::generation::Generation;
use crate::memory::{member, read, read_at};
use crate::network::sock_of;
use crate::offsets::*;
use crate::own_tmpfs;
use crate::path;
use crate::resource::Resource;
use crate::sockets;
use crate::task::guarded;
use crate::verdict::{judge, live};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ffi::c_void;
use guard_common::action::Action;
use guard_common::class::{OWN_ANONYMOUS, UNKNOWN};
use guard_common::decide::Reason;
use guard_common::label::{Label, NO_SUBJECT};
use guard_common::tables::Header;

/// `S_IFSOCK`, the kind of every unix socket.
const S_IFSOCK: u64 = 0o140000;
const S_IFMT: u64 = 0o170000;
/// Bytes of the longest address (`struct sockaddr_un` in include/uapi/linux/un.h).
const ADDRESS_MAX: u32 = 110;
/// Bytes of `sun_family` before the name in a socket address.
const FAMILY_BYTES: u32 = 2;

#[lsm(hook = "unix_stream_connect")]
pub fn unix_stream_connect(ctx: LsmContext) -> i32 {
    guarded(Action::UnixConnect.bit(), |label| decide(ctx.arg(1), label, Action::UnixConnect))
}

#[lsm(hook = "unix_may_send")]
pub fn unix_may_send(ctx: LsmContext) -> i32 {
    guarded(Action::UnixSend.bit(), |label| {
        let other = sock_of(ctx.arg(1));
        if other.is_null() {
            return Ok(0);
        }
        decide(other, label, Action::UnixSend)
    })
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
    let (generation, header) = live()?;
    let mut resource = Resource::of_class(UNKNOWN);
    resource.attributes.kind = S_IFSOCK;
    // With a family only, the kernel makes up an abstract name. It then counts as one that no policy has.
    abstract_name(&generation, address, length, &mut resource)?;
    resource.add_attribute_features(&generation, header);
    Ok(judge(&generation, label, &resource, Action::UnixBind.bit()))
}

/// Puts the abstract name in the socket address at `address` into `resource`.
#[inline(always)]
fn abstract_name(
    generation: &Generation,
    address: u64,
    length: u32,
    resource: &mut Resource,
) -> Result<(), Reason> {
    resource.attributes.abstract_name = 1;
    // The name follows the family and the zero byte that makes it abstract.
    resource.abstract_name = address + FAMILY_BYTES as u64 + 1;
    resource.abstract_len = if length > FAMILY_BYTES { length - FAMILY_BYTES - 1 } else { 0 };
    resource.class = path::abstract_class(generation, resource.abstract_name, resource.abstract_len)?;
    Ok(())
}

/// Decides where the node of a socket is made: by bind(2), and by mknod(2) of a socket.
#[lsm(hook = "path_mknod")]
pub fn unix_bind_path(ctx: LsmContext) -> i32 {
    let mode: u64 = ctx.arg(2);
    if mode & S_IFMT != S_IFSOCK {
        return 0;
    }
    guarded(Action::UnixBind.bit(), |label| bind_at(ctx.arg(1), label))
}

/// Decides `unix.bind` at the place of `dentry`, where nothing is yet.
#[inline(always)]
pub fn bind_at(dentry: u64, label: *mut Label) -> Result<i32, Reason> {
    let (generation, header) = live()?;
    let mut resource = Resource::of_class(UNKNOWN);
    resource.attributes.kind = S_IFSOCK;
    resource.attributes.abstract_name = 0;
    at(&generation, header, dentry, label, &mut resource)?;
    resource.add_attribute_features(&generation, header);
    Ok(judge(&generation, label, &resource, Action::UnixBind.bit()))
}

#[inline(always)]
fn at(
    generation: &Generation,
    header: &Header,
    dentry: u64,
    label: *mut Label,
    resource: &mut Resource,
) -> Result<(), Reason> {
    // SAFETY: the walk buffer of the running task's own label.
    let walk = unsafe { &raw mut (*label).walk };
    path::classify(generation, header, dentry, walk, resource)?;
    own_tmpfs::correct(dentry, label, walk, resource)
}

/// Decides accepting connections on the socket `sock`, by its own name.
#[inline(always)]
pub fn accept(sock: *const c_void, label: *mut Label) -> Result<i32, Reason> {
    decide(sock, label, Action::UnixAccept)
}

#[inline(always)]
fn decide(sock: *const c_void, label: *mut Label, action: Action) -> Result<i32, Reason> {
    let (generation, header) = live()?;
    let mut resource = Resource::of_class(UNKNOWN);
    resource.attributes.kind = S_IFSOCK;
    let listener = sockets::subject_of(sock);
    if listener != NO_SUBJECT {
        resource.attributes.listener = listener as u64;
        resource.peer = listener;
    }
    // SAFETY: the label of the running task.
    resource.attributes.own = unsafe { (*label).subject } as u64;
    let dentry: u64 = read(sock as u64, &UNIX_DENTRY)?;
    if dentry != 0 {
        resource.attributes.abstract_name = 0;
        at(&generation, header, dentry, label, &mut resource)?;
    } else {
        let address: u64 = read(sock as u64, &UNIX_ADDR)?;
        let length: u32 = if address == 0 { 0 } else { read(address, &UNIX_ADDRESS_LEN)? };
        if length <= FAMILY_BYTES + 1 {
            // Without a name only the two ends of a socket pair know each other.
            resource.class = OWN_ANONYMOUS;
        } else {
            abstract_name(&generation, address + get(&UNIX_ADDRESS_NAME), length, &mut resource)?;
        }
    }
    resource.add_attribute_features(&generation, header);
    Ok(judge(&generation, label, &resource, action.bit()))
}
