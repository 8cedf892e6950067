//! What subjects do with internet addresses: `socket_connect`, `socket_sendmsg`, `socket_bind`,
//! `socket_listen`.

use crate::address::{AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, Address, SocketAddress};
use crate::connection::{use_internet, use_socket};
use crate::families;
use crate::generation::Generation;
use crate::memory::{member, read, read_at};
use crate::offsets::*;
use crate::resource::Resource;
use crate::sockets;
use crate::task::guarded;
use crate::verdict::{conclude, deny_undecided, live, of_use, query, ruled};
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ffi::c_void;
use guard_common::action::{Action, EACCES};
use guard_common::class::{SOURCE_ROUTE, UNKNOWN};
use guard_common::decide::{Decision, Reason};
use guard_common::label::{Endpoint, Label, SOCKET_CONNECTED, SOCKET_LISTENS};
use guard_common::path::Walk;
use guard_common::tables::Attributes;

// include/linux/net.h, include/linux/socket.h, include/uapi/linux/in.h.
pub const SOCK_STREAM: u16 = 1;
pub const SOCK_DGRAM: u16 = 2;
/// States of sockets (include/net/tcp_states.h).
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
const MSG_FASTOPEN: u32 = 0x2000_0000;
pub const IPPROTO_TCP: u16 = 6;
pub const IPPROTO_MPTCP: u16 = 262;
pub const IPPROTO_SCTP: u16 = 132;
/// `enum sctp_cmsg_type` (include/uapi/linux/sctp.h).
const SCTP_DSTADDRV4: u32 = 7;
const SCTP_DSTADDRV6: u32 = 8;
const SOL_IP: u32 = 0;
/// The options of one message (include/uapi/linux/in.h); IPv6 uses the names of setsockopt(2).
const IP_RETOPTS: u32 = 7;

/// The internet socket behind a `struct socket`, which may have none any more.
#[inline(always)]
pub fn sock_of(socket: *const c_void) -> *const c_void {
    // SAFETY: an argument of the program.
    unsafe { member(socket, &SOCKET_SK) }
}

#[lsm(hook = "socket_connect")]
pub fn socket_connect(ctx: LsmContext) -> i32 {
    guarded(Action::NetConnect.bit(), |label| {
        let length: u64 = ctx.arg(2);
        connect(ctx.arg(0), ctx.arg(1), length as u32, label)
    })
}

#[inline(always)]
fn connect(socket: *const c_void, address: u64, length: u32, label: *mut Label) -> Result<i32, Reason> {
    let given = SocketAddress::read(address, length)?;
    // Dissolves an association; unix sockets have hooks of their own.
    if given.family == AF_UNSPEC || given.family == AF_UNIX {
        return Ok(0);
    }
    let sock = sock_of(socket);
    if sock.is_null() {
        return Ok(0);
    }
    if given.family == AF_INET || given.family == AF_INET6 {
        let far = given.address(given.family == AF_INET6);
        let answer = decide_far(sock as u64, far, Action::NetConnect, label);
        return if answer == 0 { connected(sock) } else { Ok(answer) };
    }
    let class = families::class_of(sock);
    if class == UNKNOWN { Ok(0) } else { families::decide(class, label) }
}

/// Notes that the running task makes a connection: it may be used for as long as it may be made.
#[inline(always)]
fn connected(sock: *const c_void) -> Result<i32, Reason> {
    // SAFETY: loads of members of what an argument of the program points to.
    let (kind, state): (u16, u8) = unsafe { (member(sock, &SOCK_TYPE), member(sock, &SOCK_STATE)) };
    // In every other state the call fails, and the connection that there is stays what it is.
    if kind == SOCK_STREAM && state == TCP_CLOSE {
        sockets::mark(sock, SOCKET_CONNECTED, 0)?;
    }
    Ok(0)
}

/// Decides the use of a connection to `peer`: one of `actions`, if there are two, must be allowed.
#[inline(always)]
pub fn decide_use(sock: u64, peer: Address, actions: u64, label: *mut Label) -> i32 {
    ask(sock, peer, actions, USE, label)
}

/// Decides `action` on the far end `far` of a socket.
#[inline(always)]
pub fn decide_far(sock: u64, far: Address, action: Action, label: *mut Label) -> i32 {
    decide(sock, far, action, FAR, label)
}

/// Decides `action` on an address that means itself.
#[inline(always)]
pub fn decide_at(sock: u64, address: Address, action: Action, label: *mut Label) -> i32 {
    decide(sock, address, action, 0, label)
}

/// The same, of which only a denial is recorded: the operation was recorded before.
#[inline(always)]
pub fn refuse_at(sock: u64, address: Address, action: Action, label: *mut Label) -> i32 {
    decide(sock, address, action, AGAIN, label)
}

// Bits of `Endpoint::flags`.
/// An IPv4 address.
const V4: u32 = 1;
/// The far end as a caller gives it.
const FAR: u32 = 2;
/// Only a denial is recorded.
const AGAIN: u32 = 4;
/// A use of a connection that was made before, by one of the rights that are asked for.
const USE: u32 = 8;

#[inline(always)]
fn decide(sock: u64, address: Address, action: Action, flags: u32, label: *mut Label) -> i32 {
    ask(sock, address, action.bit(), flags, label)
}

#[inline(always)]
fn ask(sock: u64, address: Address, required: u64, flags: u32, label: *mut Label) -> i32 {
    // SAFETY: the label that is decided for.
    unsafe {
        let flags = if address.is_v4 { flags | V4 } else { flags };
        let (high, low, port) = (address.high, address.low, address.port);
        (*label).endpoint = Endpoint {
            sock,
            high,
            low,
            required,
            flags,
            port,
            protocol: 0,
            features: 0,
            class: UNKNOWN,
            reserved: 0,
        };
        let failed = describe_endpoint(label);
        if failed != 0 {
            deny_undecided(label, required, failed)
        } else if flags & USE != 0 {
            decide_connection(label)
        } else {
            decide_endpoint(label)
        }
    }
}

/// Describes the endpoint in a label. Returns 0 or the number of the reason why it could not.
///
/// This and the next are global functions with their arguments in map memory: the verifier checks them once
/// for each program, and the hooks need little of the stack.
///
/// # Safety
/// The label must be a whole one, and in use by this program only; the verifier checks the first.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn describe_endpoint(label: *mut Label) -> u32 {
    if label.is_null() {
        return Reason::Unreadable as u32;
    }
    match describe(label) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

#[inline(always)]
fn describe(label: *mut Label) -> Result<(), Reason> {
    let (generation, header) = live()?;
    generation.keep(label);
    // SAFETY: the label that is decided for.
    let (asked, walk) = unsafe { (&mut (*label).endpoint, &raw mut (*label).walk) };
    let address = given(asked);
    asked.protocol = read(asked.sock, &SOCK_PROTOCOL)?;
    let attributes = Attributes { protocol: asked.protocol as u64, ..Attributes::default() };
    let meant = if asked.flags & FAR != 0 { address.routed(asked.sock)? } else { address };
    (asked.class, asked.features) = meant.classify(&generation, header, walk, &attributes)?;
    Ok(())
}

/// The address that is asked about, as it was given.
#[inline(always)]
fn given(asked: &Endpoint) -> Address {
    Address { is_v4: asked.flags & V4 != 0, high: asked.high, low: asked.low, port: asked.port }
}

/// Decides about the endpoint in a label: 0 or a negative error number.
///
/// # Safety
/// As for [`describe_endpoint`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn decide_endpoint(label: *mut Label) -> i32 {
    if label.is_null() {
        return -EACCES;
    }
    // SAFETY: the label that is decided for.
    let asked = unsafe { &(*label).endpoint };
    let (generation, resource, decision) = decide_asked(label, asked);
    if asked.flags & AGAIN != 0 && decision.denied == 0 {
        return 0;
    }
    conclude(&generation, label, &resource, asked.required, decision)
}

/// Decides about the use of the connection to the endpoint in a label: 0 or a negative error number.
///
/// # Safety
/// As for [`describe_endpoint`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn decide_connection(label: *mut Label) -> i32 {
    if label.is_null() {
        return -EACCES;
    }
    // SAFETY: the label that is decided for.
    let asked = unsafe { &(*label).endpoint };
    let (generation, resource, all) = decide_asked(label, asked);
    let (connect, accept) = (Action::NetConnect.bit(), Action::NetAccept.bit());
    let (required, mut decision) =
        if asked.required == connect | accept { all.either(connect, accept) } else { (asked.required, all) };
    of_use(label, &generation, &mut decision);
    conclude(&generation, label, &resource, required, decision)
}

#[inline(always)]
fn decide_asked(label: *mut Label, asked: &Endpoint) -> (Generation, Resource, Decision) {
    let generation = Generation::kept(label);
    let mut resource = Resource::of_class(asked.class);
    resource.features = asked.features;
    resource.protocol = asked.protocol;
    given(asked).name(&mut resource);
    let query = query(label, &resource, asked.required);
    let decision = ruled(&generation, label, &query);
    (generation, resource, decision)
}

/// Decides what is sent to an address that comes with it. What is sent without one goes where the socket
/// is connected to, and is a use of that connection.
#[lsm(hook = "socket_sendmsg")]
pub fn socket_sendmsg(ctx: LsmContext) -> i32 {
    guarded(Action::NetSend.bit(), |label| send(ctx.arg(0), ctx.arg(1), label))
}

#[inline(always)]
fn send(socket: *const c_void, message: *const c_void, label: *mut Label) -> Result<i32, Reason> {
    let sock = sock_of(socket);
    if sock.is_null() {
        return Ok(0);
    }
    // SAFETY: loads of members of arguments of the program.
    let (name, family, kind, protocol) = unsafe {
        (
            member::<u64>(message, &MESSAGE_NAME),
            member::<u16>(sock, &SOCK_FAMILY),
            member::<u16>(sock, &SOCK_TYPE),
            member::<u16>(sock, &SOCK_PROTOCOL),
        )
    };
    if family == AF_UNIX {
        return use_socket(socket, true, label);
    }
    let is_internet = family == AF_INET || family == AF_INET6;
    if is_internet && (kind == SOCK_DGRAM || protocol == IPPROTO_SCTP) && routes(message, label)? {
        let answer = families::decide(SOURCE_ROUTE, label)?;
        if answer != 0 {
            return Ok(answer);
        }
    }
    if name == 0 {
        return use_socket(socket, true, label);
    }
    // SAFETY: as above.
    let (length, flags) =
        unsafe { (member::<u32>(message, &MESSAGE_NAME_LEN), member::<u32>(message, &MESSAGE_FLAGS)) };
    if !is_internet || kind != SOCK_STREAM && kind != SOCK_DGRAM {
        let class = families::class_of(sock);
        return if class == UNKNOWN { Ok(0) } else { families::decide(class, label) };
    }
    let mut action = Action::NetSend;
    if kind == SOCK_STREAM {
        // The address of what is sent over a connection is ignored, unless it makes the connection.
        if flags & MSG_FASTOPEN == 0 || protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP {
            return use_internet(sock, true, label);
        }
        action = Action::NetConnect;
    }
    let given = SocketAddress::read(name, length)?;
    if given.family == AF_UNSPEC && kind == SOCK_STREAM {
        return use_internet(sock, true, label);
    }
    // Without a family it is an IPv4 address, to UDP over IPv4. IPv6 ignores it then, but a socket can be
    // turned from one into the other at any time (IPV6_ADDRFORM), so it counts there too.
    if given.family != AF_UNSPEC && given.family != AF_INET && given.family != AF_INET6 {
        return Ok(0);
    }
    let far = given.address(given.family == AF_INET6);
    // SAFETY: as above.
    if far.is_unspecified() && unsafe { member::<u64>(message, &MESSAGE_CONTROL_LEN) } != 0 {
        // It means the local address that the message itself may choose (IP_PKTINFO).
        return Err(Reason::Unreadable);
    }
    let answer = decide_far(sock as u64, far, action, label);
    if answer == 0 && kind == SOCK_STREAM { connected(sock) } else { Ok(answer) }
}

/// Control messages that are looked at; with more, the message is denied.
const MAX_CONTROLS: u32 = 8192;
/// `struct cmsghdr` (include/linux/socket.h): length, level, type; the next one is aligned to eight bytes.
const CONTROL_BYTES: u64 = 16;

/// Whether the control messages of `message` say by way of which hosts it goes, or to which others: SCTP
/// connects to them without another question (`sctp_sendmsg_new_asoc`, `net/sctp/socket.c`).
#[inline(always)]
fn routes(message: *const c_void, label: *mut Label) -> Result<bool, Reason> {
    // SAFETY: loads of members of an argument of the program.
    let length: u64 = unsafe { member(message, &MESSAGE_CONTROL_LEN) };
    if length < CONTROL_BYTES {
        return Ok(false);
    }
    // SAFETY: as above; the walk buffer is that of the running task's own label.
    unsafe {
        let mut walk = &raw mut (*label).walk;
        (*walk).name = member(message, &MESSAGE_CONTROL);
        (*walk).sequence_at = (*walk).name + length;
        (*walk).state = SCANNING;
        bpf_loop(MAX_CONTROLS, control as *mut c_void, (&raw mut walk).cast(), 0);
        match (*walk).state {
            PLAIN => Ok(false),
            ROUTES => Ok(true),
            _ => Err(Reason::Unreadable),
        }
    }
}

const SCANNING: u32 = 0;
const PLAIN: u32 = 1;
const ROUTES: u32 = 2;
const BROKEN: u32 = 3;

extern "C" fn control(_: u32, walk: *mut *mut Walk) -> i64 {
    // SAFETY: the only caller passes a valid pointer to a valid buffer.
    let walk = unsafe { &mut **walk };
    if walk.name + CONTROL_BYTES > walk.sequence_at {
        walk.state = PLAIN;
        return 1;
    }
    let Ok([length, kind]) = read_at::<[u64; 2]>(walk.name) else {
        walk.state = BROKEN;
        return 1;
    };
    let (level, name) = (kind as u32, (kind >> 32) as u32);
    let is_peer = level == IPPROTO_SCTP as u32 && matches!(name, SCTP_DSTADDRV4 | SCTP_DSTADDRV6);
    if is_peer || level == SOL_IP && name == IP_RETOPTS || level != SOL_IP && families::routes(level, name) {
        walk.state = ROUTES;
        return 1;
    }
    // The kernel refuses what is shorter than its own head (`CMSG_OK`).
    if length < CONTROL_BYTES || length > walk.sequence_at - walk.name {
        walk.state = PLAIN;
        return 1;
    }
    walk.name += (length + 7) & !7;
    0
}

/// Decides the near end of a socket.
#[lsm(hook = "socket_bind")]
pub fn socket_bind(ctx: LsmContext) -> i32 {
    guarded(Action::NetBind.bit(), |label| {
        let length: u64 = ctx.arg(2);
        bind(ctx.arg(0), ctx.arg(1), length as u32, label)
    })
}

#[inline(always)]
fn bind(socket: *const c_void, address: u64, length: u32, label: *mut Label) -> Result<i32, Reason> {
    let sock = sock_of(socket);
    if sock.is_null() {
        return Ok(0);
    }
    // SAFETY: a load of a member of what an argument of the program points to.
    let family: u16 = unsafe { member(sock, &SOCK_FAMILY) };
    if family == AF_UNIX {
        // Has a program of its own (`unix_bind_abstract`): both in one need more stack than there is.
        return Ok(0);
    }
    let class = families::class_of(sock);
    if class != UNKNOWN {
        return families::decide(class, label);
    }
    let given = SocketAddress::read(address, length)?;
    // No family is as good as IPv4 to IPv4 (`inet_bind_sk`); others the kernel refuses.
    if given.family != AF_UNSPEC && given.family != AF_INET && given.family != AF_INET6 {
        return Ok(0);
    }
    Ok(decide_at(sock as u64, given.address(given.family == AF_INET6), Action::NetBind, label))
}

/// Decides where connections may be waited for, and notes for whom.
#[lsm(hook = "socket_listen")]
pub fn socket_listen(ctx: LsmContext) -> i32 {
    guarded(Action::NetListen.bit(), |label| listen(ctx.arg(0), label))
}

#[inline(always)]
fn listen(socket: *const c_void, label: *mut Label) -> Result<i32, Reason> {
    let sock = sock_of(socket);
    if sock.is_null() {
        return Ok(0);
    }
    // SAFETY: a load of a member of what an argument of the program points to.
    let family: u16 = unsafe { member(sock, &SOCK_FAMILY) };
    if family == AF_INET || family == AF_INET6 {
        let answer = decide_at(sock as u64, near(sock as u64, family)?, Action::NetListen, label);
        if answer != 0 {
            return Ok(answer);
        }
    } else if family != AF_UNIX {
        let class = families::class_of(sock);
        return if class == UNKNOWN { Ok(0) } else { families::decide(class, label) };
    }
    sockets::claim(sock, label)?;
    // SAFETY: as above.
    let state: u8 = unsafe { member(sock, &SOCK_STATE) };
    if state == TCP_CLOSE || state == TCP_LISTEN {
        sockets::mark(sock, SOCKET_LISTENS, 0)?;
    }
    Ok(0)
}

/// The other end of a connected socket, which is an argument of the program or a load of one.
#[inline(always)]
pub fn peer(sock: *const c_void) -> Result<Address, Reason> {
    // SAFETY: by the contract of this function.
    let family: u16 = unsafe { member(sock, &SOCK_FAMILY) };
    let port = u16::from_be(read(sock as u64, &SOCK_PEER_PORT)?);
    if family == AF_INET6 {
        Address::read_v6(sock as u64, &SOCK_V6_PEER, port)
    } else {
        Ok(Address::v4(u32::from_be(read(sock as u64, &SOCK_PEER)?), port))
    }
}

/// The address that a socket is bound to.
#[inline(always)]
pub fn near(sock: u64, family: u16) -> Result<Address, Reason> {
    let port: u16 = read(sock, &SOCK_PORT)?;
    if family == AF_INET6 {
        Address::read_v6(sock, &SOCK_V6_BOUND, port)
    } else {
        Ok(Address::v4(u32::from_be(read(sock, &SOCK_BOUND)?), port))
    }
}
