//! Asking the kernel over rtnetlink(7), and hearing of changes.
//!
//! Both sockets are connected to the kernel, which keeps messages of other processes away (`netlink_getsockbyportid`,
//! net/netlink/af_netlink.c); who sent one is looked at all the same.

use super::surroundings::{Surroundings, address_of};
use crate::host;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Longest datagram: the kernel fills at most 32 KiB for a reader that has room for them.
const DATAGRAM: usize = 64 << 10;
/// Bytes of a header, and what messages are aligned to (netlink(7)).
const HEADER: usize = 16;
const ALIGNED: usize = 4;
/// How often a dump is begun that a change interrupted.
const TRIES: usize = 5;
/// The kernel answers at once; this keeps a thread from waiting for ever.
const PATIENCE: i64 = 5;
/// Bytes of announcements that wait. What does not fit is lost, and that is announced.
const WAITING: usize = 1 << 20;

/// Why it is not known how the network looks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    /// A system call failed.
    #[error("{call}: {errno}")]
    System {
        /// Which.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The kernel refuses an answer.
    #[error("the kernel refuses to list {what}: {errno}")]
    Refused {
        /// Of what.
        what: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The answer cannot be understood.
    #[error("what the kernel tells of {what} is not understood: {why}")]
    Unknown {
        /// What it is about.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It changed as often as it was read.
    #[error("{0} change faster than they can be read")]
    Restless(&'static str),
    /// The name servers cannot be read.
    #[error("cannot read the name servers: {0}")]
    Resolvers(io::Error),
}

fn system(call: &'static str) -> impl Fn(Errno) -> NetlinkError {
    move |errno| NetlinkError::System { call, errno }
}

/// Reads what the host sees of its network now.
///
/// # Errors
/// If a part of it cannot be read: then nothing is known.
pub(crate) fn read() -> Result<Surroundings, NetlinkError> {
    let mut around = Surroundings::default();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        around = dump("routes", &request(Ask::Routes, family), &around)?;
        around = dump("neighbours", &request(Ask::Neighbours, family), &around)?;
        around = dump("addresses", &request(Ask::Addresses, family), &around)?;
    }
    let resolvers = host::used_resolvers().map_err(NetlinkError::Resolvers)?;
    Ok(around.with_resolvers(resolvers))
}

#[derive(Clone, Copy)]
enum Ask {
    Routes,
    Neighbours,
    Addresses,
}

fn request(ask: Ask, family: AddressFamily) -> Vec<u8> {
    let message = match ask {
        Ask::Routes => {
            let mut route = RouteMessage::default();
            route.header.address_family = family;
            RouteNetlinkMessage::GetRoute(route)
        }
        Ask::Neighbours => {
            let mut neighbour = NeighbourMessage::default();
            neighbour.header.family = family;
            RouteNetlinkMessage::GetNeighbour(neighbour)
        }
        Ask::Addresses => {
            let mut address = AddressMessage::default();
            address.header.family = family;
            RouteNetlinkMessage::GetAddress(address)
        }
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = 1;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// A socket to the kernel that hears these groups.
fn open(groups: u32, flags: SockFlag) -> Result<OwnedFd, NetlinkError> {
    let kind = SockFlag::SOCK_CLOEXEC | flags;
    let socket =
        socket::socket(socket::AddressFamily::Netlink, SockType::Raw, kind, SockProtocol::NetlinkRoute)
            .map_err(system("socket(AF_NETLINK)"))?;
    socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(system("bind(AF_NETLINK)"))?;
    socket::connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(system("connect(AF_NETLINK)"))?;
    Ok(socket)
}

/// One datagram of the kernel; of anybody else, nothing.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let (length, sender) = socket::recvfrom::<NetlinkAddr>(socket.as_raw_fd(), buffer)?;
    let is_kernel = sender.is_some_and(|sender| sender.pid() == 0);
    Ok(&buffer[..if is_kernel { length } else { 0 }])
}

/// What was known, and what a dump adds.
fn dump(what: &'static str, request: &[u8], known: &Surroundings) -> Result<Surroundings, NetlinkError> {
    for _ in 0..TRIES {
        let socket = open(0, SockFlag::empty())?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE))
            .map_err(system("setsockopt"))?;
        socket::send(socket.as_raw_fd(), request, MsgFlags::empty()).map_err(system("send(AF_NETLINK)"))?;
        let mut around = known.clone();
        let mut buffer = vec![0; DATAGRAM];
        let mut is_whole = true;
        let done = loop {
            let datagram = receive(&socket, &mut buffer).map_err(system("recv(AF_NETLINK)"))?;
            match take(datagram, &mut around) {
                Ok(Taken::More { is_consistent }) => is_whole &= is_consistent,
                Ok(Taken::Last { is_consistent }) => break is_whole && is_consistent,
                Ok(Taken::Refused(errno)) => return Err(NetlinkError::Refused { what, errno }),
                Err(why) => return Err(NetlinkError::Unknown { what, why }),
            }
        };
        if done {
            return Ok(around);
        }
    }
    Err(NetlinkError::Restless(what))
}

/// What a datagram of a dump was.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// There is more to come.
    More {
        /// Nothing changed while it was made.
        is_consistent: bool,
    },
    /// That was all.
    Last {
        /// Nothing changed while it was made.
        is_consistent: bool,
    },
    /// The kernel says no.
    Refused(Errno),
}

/// Takes what the messages of a datagram tell.
fn take(datagram: &[u8], around: &mut Surroundings) -> Result<Taken, String> {
    let mut is_consistent = true;
    for message in messages(datagram) {
        let message = message?;
        is_consistent &= message.flags & NLM_F_DUMP_INTR == 0;
        match message.kind {
            NLMSG_DONE => return Ok(Taken::Last { is_consistent }),
            NLMSG_ERROR => {
                let code = message.bytes.get(HEADER..HEADER + 4).and_then(|code| code.try_into().ok());
                let code = code.map_or(0, i32::from_ne_bytes);
                return Ok(Taken::Refused(Errno::from_raw(code.saturating_neg())));
            }
            _ if message.matters() => around.add(message.bytes).map_err(|error| error.to_string())?,
            _ => {}
        }
    }
    Ok(Taken::More { is_consistent })
}

/// One message, whole.
struct Message<'a> {
    kind: u16,
    flags: u16,
    bytes: &'a [u8],
}

impl Message<'_> {
    /// Whether it tells what is asked about: of routes, only the default ones do. What else lies in a table can be of
    /// kinds that the library does not know.
    fn matters(&self) -> bool {
        let is_route = matches!(self.kind, libc::RTM_NEWROUTE | libc::RTM_DELROUTE);
        // `rtm_dst_len`, the second byte of `struct rtmsg` (rtnetlink(7)).
        !is_route || self.bytes.get(HEADER + 1) == Some(&0)
    }
}

/// Cuts a datagram into its messages.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message<'_>, String>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = |at: usize| rest.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
        let length = rest.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
        let length =
            length.and_then(|length| usize::try_from(length).ok()).filter(|length| *length >= HEADER);
        let whole = length.and_then(|length| rest.get(..length)).zip(field(4)).zip(field(6));
        let Some(((bytes, kind), flags)) = whole else {
            rest = &[];
            return Some(Err("a message is cut short".to_owned()));
        };
        rest = rest.get(bytes.len().next_multiple_of(ALIGNED)..).unwrap_or_default();
        Some(Ok(Message { kind, flags, bytes }))
    })
}

/// The groups in which the kernel announces what matters (`RTMGRP_*`, include/uapi/linux/rtnetlink.h). Links are among
/// them because the kernel does not announce every route that goes with one (`fib_sync_down_dev`, net/ipv4/fib_semantics.c).
const GROUPS: i32 = libc::RTMGRP_LINK
    | libc::RTMGRP_NEIGH
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE;

/// Announcements of changes.
pub(crate) struct Changes(OwnedFd);

impl Changes {
    /// Begins to hear them. What changes from here on is announced.
    ///
    /// # Errors
    /// If the kernel gives no such socket.
    pub(crate) fn subscribe() -> Result<Self, NetlinkError> {
        let socket = open(GROUPS.cast_unsigned(), SockFlag::SOCK_NONBLOCK)?;
        setsockopt(&socket, sockopt::RcvBuf, &WAITING).map_err(system("setsockopt"))?;
        Ok(Self(socket))
    }

    /// Waits until something changed that matters, where these are the gateways, or so long.
    ///
    /// # Errors
    /// If the socket fails.
    pub(crate) fn wait(&self, gateways: &[IpAddr], patience: Option<Duration>) -> Result<(), NetlinkError> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            let left = match deadline {
                None => PollTimeout::NONE,
                // Rounded up: less than a millisecond is no reason to look again and again.
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
                }
            };
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], left) {
                Ok(0) => return Ok(()),
                Ok(_) if self.drain(gateways)? => return Ok(()),
                Ok(_) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(system("poll(AF_NETLINK)")(errno)),
            }
        }
    }

    /// Reads all that waits. Says whether something of it matters.
    fn drain(&self, gateways: &[IpAddr]) -> Result<bool, NetlinkError> {
        let mut buffer = vec![0; DATAGRAM];
        let mut matters = false;
        loop {
            match receive(&self.0, &mut buffer) {
                Ok(datagram) => matters = matters || concerns(datagram, gateways),
                Err(Errno::EAGAIN) => return Ok(matters),
                Err(Errno::EINTR) => {}
                // Some were lost: anything may have happened.
                Err(Errno::ENOBUFS) => matters = true,
                Err(errno) => return Err(system("recv(AF_NETLINK)")(errno)),
            }
        }
    }
}

/// Whether a datagram announces something that matters. Entries of other neighbours than gateways come and go all the
/// time; what is not understood matters.
fn concerns(datagram: &[u8], gateways: &[IpAddr]) -> bool {
    messages(datagram).any(|message| {
        let Ok(message) = message else { return true };
        if !matches!(message.kind, libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH) {
            return message.matters();
        }
        let parsed = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message.bytes);
        match parsed.map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewNeighbour(neighbour) | RouteNetlinkMessage::DelNeighbour(neighbour),
            )) => address_of(&neighbour).is_some_and(|address| gateways.contains(&address)),
            _ => true,
        }
    })
}

#[cfg(test)]
#[path = "netlink_tests.rs"]
mod tests;
