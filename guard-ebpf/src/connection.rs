//! The use of sockets: what is sent and received over those that are connected.
//!
//! A connection may be used for as long as it might be made: by `net.connect` or `unix.connect` on its other
//! end where the subject connected, by `net.accept` or `unix.accept` where it accepted. Which of the two is
//! noted with the socket (`SocketLabel::flags`) by the hook that decided it. Of one that somebody else made and
//! handed over that is not known, and either right is enough.

use crate::address::{AF_INET, AF_INET6, AF_UNIX};
use crate::memory::member;
use crate::network::{self, IPPROTO_MPTCP, IPPROTO_TCP, SOCK_DGRAM, SOCK_STREAM, decide_use, sock_of};
use crate::offsets::*;
use crate::sockets;
use crate::unix;
use crate::verdict::unless_barred;
use core::ffi::c_void;
use guard_common::action::{Action, EACCES};
use guard_common::decide::Reason;
use guard_common::label::{Label, SOCKET_ACCEPTED, SOCKET_CONNECTED, SOCKET_REFUSED};

// include/net/tcp_states.h.
const TCP_ESTABLISHED: u8 = 1;

/// Decides that the running task sends over `socket`, or receives. The socket is an argument of the program,
/// or what a helper gave.
#[inline(always)]
pub fn use_socket(socket: *const c_void, sends: bool, label: *mut Label) -> Result<i32, Reason> {
    let sock = sock_of(socket);
    if sock.is_null() {
        return Ok(0);
    }
    // SAFETY: a load of a member of what an argument of the program points to.
    let family: u16 = unsafe { member(sock, &SOCK_FAMILY) };
    match family {
        AF_UNIX => {
            // SAFETY: as above.
            let file: u64 = unsafe { member(socket, &SOCKET_FILE) };
            unix::use_socket(sock, file, sends, label)
        }
        AF_INET | AF_INET6 => use_internet(sock, sends, label),
        _ => Ok(unless_barred(label, Action::NetRaw.bit())),
    }
}

/// The same of an internet socket.
#[inline(always)]
pub fn use_internet(sock: *const c_void, sends: bool, label: *mut Label) -> Result<i32, Reason> {
    // SAFETY: loads of members of what an argument of the program points to.
    let (kind, protocol, state): (u16, u16, u8) =
        unsafe { (member(sock, &SOCK_TYPE), member(sock, &SOCK_PROTOCOL), member(sock, &SOCK_STATE)) };
    let flags = sockets::flags_of(sock);
    if flags & SOCKET_REFUSED != 0 && kind == SOCK_STREAM {
        return Ok(-EACCES);
    }
    let (connect, accept) = (Action::NetConnect.bit(), Action::NetAccept.bit());
    let required = if kind == SOCK_DGRAM && state == TCP_ESTABLISHED {
        connect
    } else if kind == SOCK_STREAM && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP) {
        if flags & SOCKET_CONNECTED != 0 {
            connect
        } else if flags & SOCKET_ACCEPTED != 0 {
            accept
        } else {
            connect | accept
        }
    } else {
        0
    };
    if required != 0 {
        let peer = network::peer(sock)?;
        if kind == SOCK_DGRAM || peer.port != 0 {
            return Ok(decide_use(sock as u64, peer, required, label));
        }
    }
    let action = if sends { Action::NetSend } else { Action::NetReceive };
    Ok(unless_barred(label, action.bit()))
}
