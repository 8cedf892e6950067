//! What comes in from the network: `inet_conn_request`, `sock_graft`, `socket_accept`, `socket_recvmsg`,
//! `socket_sock_rcv_skb`.
//!
//! A connection is decided by its peer when the peer asks for it: a request that policy does not let in is
//! dropped, as by a packet filter, so that there is no connection and nothing of it to read. It is decided
//! for the label of the socket that listens, since whoever runs then has nothing to do with it. Requests
//! that came before a labelled process took over an inherited socket are decided when it accepts them:
//! they cannot be refused any more, so nothing passes over such a connection.
//!
//! A datagram is decided by its sender when it arrives, and dropped. What comes from the peer that a
//! socket is connected to belongs to the connection.

use crate::address::{AF_INET, AF_INET6, AF_UNIX, Address};
use crate::connection::{use_internet, use_socket};
use crate::memory::{member, read, read_at};
use crate::network::{IPPROTO_SCTP, SOCK_DGRAM, SOCK_STREAM, decide_at, near, peer, refuse_at, sock_of};
use crate::offsets::*;
use crate::record::count;
use crate::sockets;
use crate::task::{Lookup, guarded, label};
use crate::unix;
use crate::verdict::{fail, unless_barred};
use aya_ebpf::helpers::generated::bpf_send_signal;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ffi::c_void;
use guard_common::action::Action;
use guard_common::decide::Reason;
use guard_common::event::Counter;
use guard_common::label::{Label, SOCKET_ACCEPTED, SOCKET_LISTENS, SOCKET_REFUSED};

// include/net/tcp_states.h, include/uapi/linux/in.h, include/uapi/linux/icmpv6.h.
const TCP_ESTABLISHED: u8 = 1;
const IPPROTO_ICMP: u16 = 1;
const IPPROTO_UDP: u16 = 17;
const IPPROTO_ICMPV6: u16 = 58;
const IPPROTO_UDPLITE: u16 = 136;
/// Position of the first chunk's type in an SCTP packet, and the type that asks for an association
/// (RFC 9260, 3.1 and 3.2). Such a chunk is the only one of its packet.
const SCTP_CHUNK: u64 = 12;
const SCTP_INIT: u8 = 1;
const SIGKILL: u32 = 9;

/// Decides a request for a TCP connection, in the middle of whatever this processor is doing.
#[lsm(hook = "inet_conn_request")]
pub fn inet_conn_request(ctx: LsmContext) -> i32 {
    let sock: *const c_void = ctx.arg(0);
    sockets::guarded(sock, Action::NetAccept.bit(), |label| {
        let request: u64 = ctx.arg(2);
        // Of an IPv4 request too, where it is mapped (`sk_daddr_set`).
        let port = u16::from_be(read(request, &REQUEST_PEER_PORT)?);
        let peer = Address::read_v6(request, &REQUEST_V6_PEER, port)?;
        Ok(decide_at(sock as u64, peer, Action::NetAccept, label))
    })
}

/// Decides the peer of a connection that is being accepted, once more: policy, or who accepts, may have
/// changed since it asked. Reports denials only, as the request was reported.
#[lsm(hook = "sock_graft")]
pub fn sock_graft(ctx: LsmContext) -> i32 {
    let label = match label() {
        Lookup::Unlabelled => return 0,
        Lookup::Labelled(label) => label,
        Lookup::Busy => {
            refuse_connection(ctx.arg(0));
            return 0;
        }
    };
    let sock: *const c_void = ctx.arg(0);
    let refused = match may_accept(sock, label) {
        Ok(answer) => answer != 0,
        Err(reason) => fail(label, Action::NetAccept.bit(), reason) != 0,
    };
    if refused || !accepted(sock) {
        refuse_connection(sock);
    }
    0
}

/// Notes that the running task accepts a connection: it may be used for as long as it may be accepted. False
/// if there is no memory for that.
#[inline(always)]
fn accepted(sock: *const c_void) -> bool {
    // SAFETY: a load of a member of an argument of the program.
    let family: u16 = unsafe { member(sock, &SOCK_FAMILY) };
    !matches!(family, AF_INET | AF_INET6 | AF_UNIX) || sockets::mark(sock, SOCKET_ACCEPTED, 0).is_ok()
}

#[inline(always)]
fn may_accept(sock: *const c_void, label: *mut Label) -> Result<i32, Reason> {
    // SAFETY: loads of members of an argument of the program.
    let (family, state): (u16, u8) = unsafe { (member(sock, &SOCK_FAMILY), member(sock, &SOCK_STATE)) };
    if family != AF_INET && family != AF_INET6 {
        return Ok(0);
    }
    let peer = peer(sock)?;
    if peer.port == 0 && state != TCP_ESTABLISHED {
        // Not a connection at all, or reset before it was accepted: nothing passes over it.
        return Ok(0);
    }
    Ok(refuse_at(sock as u64, peer, Action::NetAccept, label))
}

/// Lets nothing pass over a connection. If that cannot be noted, whoever accepts it must not go on.
#[inline(always)]
fn refuse_connection(sock: *const c_void) {
    let kept = sockets::create(sock);
    if kept.is_null() {
        count(Counter::InternalDenied);
        // SAFETY: the helper has no requirements.
        unsafe { bpf_send_signal(SIGKILL) };
        return;
    }
    // SAFETY: a non-null result of the helper points to a whole value.
    unsafe { (*kept).flags = SOCKET_REFUSED };
}

/// Decides accepting on a unix socket, by the socket's own name; on an internet socket that a labelled task
/// made listen, as listening. One that was listening before becomes that of who accepts on it.
#[lsm(hook = "socket_accept")]
pub fn socket_accept(ctx: LsmContext) -> i32 {
    guarded(Action::NetAccept.bit(), |label| accept(ctx.arg(0), label))
}

#[inline(always)]
fn accept(socket: *const c_void, label: *mut Label) -> Result<i32, Reason> {
    let sock = sock_of(socket);
    if sock.is_null() {
        return Ok(0);
    }
    // SAFETY: a load of a member of what an argument of the program points to.
    let family: u16 = unsafe { member(sock, &SOCK_FAMILY) };
    if family == AF_UNIX {
        return unix::accept(sock, label);
    }
    if family != AF_INET && family != AF_INET6 {
        return Ok(0);
    }
    sockets::claim_unclaimed(sock, label)?;
    if sockets::flags_of(sock) & SOCKET_LISTENS == 0 {
        // Whoever handed it over made it listen.
        return Ok(unless_barred(label, Action::NetAccept.bit()));
    }
    Ok(refuse_at(sock as u64, near(sock as u64, family)?, Action::NetListen, label))
}

/// Decides the use of a connection; an inherited socket for datagrams becomes that of who receives from it.
#[lsm(hook = "socket_recvmsg")]
pub fn socket_recvmsg(ctx: LsmContext) -> i32 {
    guarded(Action::NetReceive.bit(), |label| receive(ctx.arg(0), label))
}

#[inline(always)]
fn receive(socket: *const c_void, label: *mut Label) -> Result<i32, Reason> {
    let sock = sock_of(socket);
    if sock.is_null() {
        return Ok(0);
    }
    // SAFETY: loads of members of what an argument of the program points to.
    let (family, kind): (u16, u16) = unsafe { (member(sock, &SOCK_FAMILY), member(sock, &SOCK_TYPE)) };
    if family != AF_INET && family != AF_INET6 {
        return use_socket(socket, false, label);
    }
    if kind != SOCK_STREAM && !sockets::has_storage(sock) {
        sockets::claim(sock, label)?;
    }
    use_internet(sock, false, label)
}

/// Decides a datagram, or a request for an SCTP association, by who sent it, in the middle of whatever
/// this processor is doing.
#[lsm(hook = "socket_sock_rcv_skb")]
pub fn socket_sock_rcv_skb(ctx: LsmContext) -> i32 {
    let sock: *const c_void = ctx.arg(0);
    if !sockets::has_storage(sock) {
        return 0;
    }
    // SAFETY: loads of members of an argument of the program.
    let (family, kind, protocol, state): (u16, u16, u16, u8) = unsafe {
        (
            member(sock, &SOCK_FAMILY),
            member(sock, &SOCK_TYPE),
            member(sock, &SOCK_PROTOCOL),
            member(sock, &SOCK_STATE),
        )
    };
    if family != AF_INET && family != AF_INET6 {
        return 0;
    }
    if protocol == IPPROTO_SCTP {
        return sockets::guarded(sock, Action::NetAccept.bit(), |label| {
            let packet = Packet::read(ctx.arg(1))?;
            if read_at::<u8>(packet.transport + SCTP_CHUNK)? != SCTP_INIT {
                return Ok(0);
            }
            Ok(decide_at(sock as u64, packet.sender(true)?, Action::NetAccept, label))
        });
    }
    let has_ports = protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE;
    if kind != SOCK_DGRAM || !has_ports && protocol != IPPROTO_ICMP && protocol != IPPROTO_ICMPV6 {
        return 0;
    }
    // The kernel gives a connected socket nothing but what its peer sends, except echo replies.
    if has_ports && state == TCP_ESTABLISHED {
        return 0;
    }
    sockets::guarded(sock, Action::NetReceive.bit(), |label| {
        let packet = Packet::read(ctx.arg(1))?;
        Ok(decide_at(sock as u64, packet.sender(has_ports)?, Action::NetReceive, label))
    })
}

/// Where the heads of a packet are.
struct Packet {
    network: u64,
    transport: u64,
}

impl Packet {
    #[inline(always)]
    fn read(packet: *const c_void) -> Result<Self, Reason> {
        // SAFETY: loads of members of an argument of the program.
        let (head, network, transport) = unsafe {
            (
                member::<u64>(packet, &PACKET_HEAD),
                member::<u16>(packet, &PACKET_NETWORK),
                member::<u16>(packet, &PACKET_TRANSPORT),
            )
        };
        Ok(Self { network: head + network as u64, transport: head + transport as u64 })
    }

    /// Who sent it: the source addresses are at 12 of an IPv4 and at 8 of an IPv6 head (RFC 791, RFC 8200),
    /// the source port at the beginning of the next one.
    #[inline(always)]
    fn sender(&self, has_ports: bool) -> Result<Address, Reason> {
        let port = if has_ports { u16::from_be(read_at(self.transport)?) } else { 0 };
        let version: u8 = read_at(self.network)?;
        if version >> 4 == 6 {
            let halves: [u64; 2] = read_at(self.network + 8)?;
            Ok(Address::v6(u64::from_be(halves[0]), u64::from_be(halves[1]), port))
        } else {
            Ok(Address::v4(u32::from_be(read_at(self.network + 12)?), port))
        }
    }
}
