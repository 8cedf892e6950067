//! Which sockets there can be: `socket_create`, `socket_post_create`, `socket_setsockopt`.
//!
//! Everything that reaches somebody without an address that policy can name is `net.raw` on the protocol,
//! when the socket is made and when it is given an address. What is left are the sockets whose every
//! operation is decided by its address or name.

use crate::memory::member;
use crate::offsets::*;
use crate::sockets;
use crate::task::guarded;
use crate::verdict::judge_class;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ffi::c_void;
use guard_common::action::Action;
use guard_common::class::{Class, RAW, SCTP, SOURCE_ROUTE, UNKNOWN, of_socket};
use guard_common::decide::Reason;
use guard_common::label::Label;

// include/linux/socket.h, include/linux/net.h, include/uapi/linux/in.h, include/uapi/linux/in6.h.
const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const SOL_IP: u32 = 0;
const SOL_IPV6: u32 = 41;
const IP_OPTIONS: u32 = 4;
const IPV6_2292PKTOPTIONS: u32 = 6;
const IPV6_2292RTHDR: u32 = 5;
const IPV6_RTHDR: u32 = 57;

/// Decides whether a socket may be made at all. What the kernel makes for itself is not the caller's.
#[lsm(hook = "socket_create")]
pub fn socket_create(ctx: LsmContext) -> i32 {
    let of_kernel: u64 = ctx.arg(3);
    if of_kernel as u32 != 0 {
        return 0;
    }
    let (family, kind, protocol): (u64, u64, u64) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    guarded(Action::NetRaw.bit(), |label| {
        let class = of_socket(family as u32, kind as u32, protocol as u32);
        if class == UNKNOWN { Ok(0) } else { decide(class, label) }
    })
}

/// Notes whose a socket for datagrams is, and a socket of the kernel's own that may listen for one of the
/// caller's (a subflow of multipath TCP). Without a note, what arrives could not be decided, so then there
/// is no socket.
#[lsm(hook = "socket_post_create")]
pub fn socket_post_create(ctx: LsmContext) -> i32 {
    let (family, kind): (u64, u64) = (ctx.arg(1), ctx.arg(2));
    let (protocol, of_kernel): (u64, u64) = (ctx.arg(3), ctx.arg(4));
    let (family, kind) = (family as u32, kind as u32);
    if family != AF_INET && family != AF_INET6 && family != AF_UNIX {
        return 0;
    }
    if kind == SOCK_STREAM {
        let is_subflow = of_kernel as u32 != 0 && family != AF_UNIX && protocol as u32 == IPPROTO_TCP;
        if !is_subflow && of_socket(family, kind, protocol as u32) != SCTP {
            return 0;
        }
    } else if of_kernel as u32 != 0 {
        return 0;
    }
    guarded(Action::NetReceive.bit(), |label| {
        let socket: *const c_void = ctx.arg(0);
        // SAFETY: an argument of this program.
        let sock: *const c_void = unsafe { member(socket, &SOCKET_SK) };
        if sock.is_null() {
            return Ok(0);
        }
        sockets::claim(sock, label)?;
        Ok(0)
    })
}

/// Decides whether packets may be led by way of other hosts. The value is not known here, so it makes no
/// difference where they lead.
#[lsm(hook = "socket_setsockopt")]
pub fn socket_setsockopt(ctx: LsmContext) -> i32 {
    let (level, name): (u64, u64) = (ctx.arg(1), ctx.arg(2));
    if !routes(level as u32, name as u32) {
        return 0;
    }
    guarded(Action::NetRaw.bit(), |label| decide(SOURCE_ROUTE, label))
}

/// Whether an option, of a socket or of one message, says by way of which hosts packets go.
#[inline(always)]
pub fn routes(level: u32, name: u32) -> bool {
    if level == SOL_IPV6 {
        name == IPV6_RTHDR || name == IPV6_2292RTHDR || name == IPV6_2292PKTOPTIONS
    } else {
        level == SOL_IP && name == IP_OPTIONS
    }
}

/// Decides `net.raw` on a protocol.
#[inline(always)]
pub fn decide(class: Class, label: *mut Label) -> Result<i32, Reason> {
    Ok(judge_class(label, class, Action::NetRaw.bit()))
}

/// The class of a socket that exists, by its family, type and protocol; [`UNKNOWN`] as in [`of_socket`].
#[inline(always)]
pub fn class_of(sock: *const c_void) -> Class {
    // SAFETY: an argument of the program, or a load of one.
    unsafe {
        let family: u16 = member(sock, &SOCK_FAMILY);
        let kind: u16 = member(sock, &SOCK_TYPE);
        let protocol: u16 = member(sock, &SOCK_PROTOCOL);
        let class = of_socket(family as u32, kind as u32, protocol as u32);
        // Their addresses are decided.
        if family as u32 == AF_INET || family as u32 == AF_INET6 {
            if class == RAW { RAW } else { UNKNOWN }
        } else {
            class
        }
    }
}
