//! Which sockets can be made: of every family, type and protocol that the kernel has.

use std::io;
use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use guard_common::class::{self, UNKNOWN};
use nix::errno::Errno;
use nix::libc::{
    AF_ALG, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, IPPROTO_ICMP, SOCK_DGRAM, SOCK_RAW,
    SOCK_SEQPACKET, SOCK_STREAM,
};

use crate::attempt::{Outcome, attempt};
use crate::bundle::{Bundle, permit};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::raw::SharedPages;
use crate::users::{AGENT, FREE, Identity};
use crate::{layout, raw, uring};

pub(crate) const PART: Part = Part {
    name: "families",
    bundle,
    prepare: layout::create,
    tests: tests!(
        smoke: [a_raw_socket_is_refused],
        others: [
            every_socket_that_is_not_decided_by_its_address_is_refused,
            multipath_tcp_needs_a_right_of_its_own,
            leading_packets_by_way_of_other_hosts_is_refused,
            a_socket_made_by_io_uring_is_refused,
        ],
    ),
};

/// `CAP_NET_RAW` (include/uapi/linux/capability.h).
const NET_RAW: u64 = 1 << 13;
const IPPROTO_MPTCP: i32 = 262;
/// `NETLINK_AUDIT`.
const AUDIT: i32 = 9;

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let audit = "resource == Guard::Protocol::\"netlink/audit\"";
    Ok(bundle.policy("families", permit("audit", "agent", &["net.raw"], audit)))
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<()> {
    raw::socket(family, kind, protocol).map(drop)
}

fn a_raw_socket_is_refused(case: &Case<'_>) -> Result<()> {
    let refused = || refusal(AGENT.with(NET_RAW), "net.raw");
    case.refused(refused(), || socket(AF_INET, SOCK_RAW, IPPROTO_ICMP))?;
    case.refused(refused(), || socket(AF_INET6, SOCK_RAW, 255))?;
    case.refused(refused(), || socket(AF_PACKET, SOCK_RAW, 0))?;
    case.refused(refused(), || socket(AF_PACKET, SOCK_DGRAM, 0))?;
    // The old way to ask for packets (net/socket.c: `__sock_create`).
    case.refused(refused(), || socket(AF_INET, 10, 0x300))?;
    case.refused(refusal(AGENT, "net.raw"), || socket(AF_ALG, SOCK_SEQPACKET, 0))?;
    case.refused(refusal(AGENT, "net.raw"), || socket(AF_NETLINK, SOCK_RAW, 16))?;
    case.allowed(AGENT, || socket(AF_NETLINK, SOCK_RAW, AUDIT))?;
    case.allowed(AGENT, || socket(AF_INET, SOCK_STREAM, 0))?;
    case.allowed(AGENT, || socket(AF_INET6, SOCK_DGRAM, 0))?;
    case.allowed(AGENT, || socket(AF_UNIX, SOCK_SEQPACKET, 0))
}

/// One more than the highest family (include/linux/socket.h, 6.18), and some room.
const FAMILIES: i32 = 48;
/// The types of sockets, among them those that only one family has.
const KINDS: [i32; 7] = [SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, 4, SOCK_SEQPACKET, 6, 10];
/// Protocols of the internet families, by number: those that Linux has sockets for, and some that it has not.
const INTERNET: [i32; 16] = [0, 1, 2, 6, 17, 33, 41, 47, 50, 58, 115, 132, 136, 255, 256, 262];
/// What other families call protocols.
const OTHERS: i32 = 24;

fn triples() -> Vec<(i32, i32, i32)> {
    let mut all = Vec::new();
    for family in 0..FAMILIES {
        for kind in KINDS {
            if family == AF_INET || family == AF_INET6 {
                all.extend(INTERNET.map(|protocol| (family, kind, protocol)));
            } else {
                all.extend((0..OTHERS).map(|protocol| (family, kind, protocol)));
            }
        }
    }
    all
}

/// Tries every triple as `who`; the error numbers, with 0 for those that work. Families that the kernel
/// does not have are tried once.
fn try_all(who: Identity) -> Result<Vec<i32>> {
    let triples = triples();
    let shared = SharedPages::new(triples.len() * 4).context("share memory")?;
    let outcome = attempt(who, || {
        let mut missing = None;
        for (index, (family, kind, protocol)) in triples.iter().enumerate() {
            let number = if missing == Some(*family) {
                Errno::EAFNOSUPPORT as i32
            } else {
                match socket(*family, *kind, *protocol) {
                    Ok(()) => 0,
                    Err(error) => error.raw_os_error().unwrap_or(-1),
                }
            };
            if number == Errno::EAFNOSUPPORT as i32 && *kind == KINDS[0] && *protocol == 0 {
                missing = Some(*family);
            }
            shared.word(index).store(number as u32, std::sync::atomic::Ordering::SeqCst);
        }
        Ok(())
    })?;
    ensure!(outcome == Outcome::Worked, "{} should try every socket: {outcome:?}", who.name);
    let read = |index| shared.word(index).load(std::sync::atomic::Ordering::SeqCst) as i32;
    Ok((0..triples.len()).map(read).collect())
}

/// Keeps the kernel from looking for modules while it lives: that takes a process for each of hundreds of
/// protocols that this kernel has not. What is built in or loaded is left.
struct WithoutModules {
    loader: String,
}

const LOADER: &str = "/proc/sys/kernel/modprobe";

impl WithoutModules {
    fn new() -> Result<Self> {
        let loader = std::fs::read_to_string(LOADER).context("read the path of modprobe")?;
        std::fs::write(LOADER, "\n").context("clear the path of modprobe")?;
        Ok(Self { loader })
    }
}

impl Drop for WithoutModules {
    fn drop(&mut self) {
        let _ = std::fs::write(LOADER, &self.loader);
    }
}

fn every_socket_that_is_not_decided_by_its_address_is_refused(case: &Case<'_>) -> Result<()> {
    let _without = WithoutModules::new()?;
    let free = try_all(FREE.with(NET_RAW))?;
    let triples = triples();
    case.tried(triples.len() as u64);
    let worked = free.iter().filter(|number| **number == 0).count();
    ensure!(worked > 40, "an unlabelled process should be able to make sockets of many kinds, not {worked}");
    if case.daemon().is_none() {
        return Ok(());
    }
    let labelled = try_all(AGENT.with(NET_RAW))?;
    let permitted = [class::NETLINK_ROUTE, class::NETLINK_AUDIT];
    for ((triple, free), labelled) in triples.iter().zip(free).zip(labelled) {
        let (family, kind, protocol) = *triple;
        // The kernel takes this type of the internet family for the family of packets.
        let family = if kind == 10 && family == AF_INET { AF_PACKET } else { family };
        let class = class::of_socket(family as u32, kind as u32, protocol as u32);
        if class == UNKNOWN || permitted.contains(&class) {
            ensure!(labelled == free, "{triple:?} ends with {labelled}, and {free} without a label");
        } else if free == 0 {
            ensure!(labelled == Errno::EACCES as i32, "{triple:?} should be refused: {labelled}");
        } else {
            ensure!(labelled != 0, "{triple:?} works only with a label");
        }
    }
    Ok(())
}

fn multipath_tcp_needs_a_right_of_its_own(case: &Case<'_>) -> Result<()> {
    // The kernel opens further connections to addresses that the peer names, and asks nobody.
    for family in [AF_INET, AF_INET6] {
        case.refused(refusal(AGENT, "net.raw"), || socket(family, SOCK_STREAM, IPPROTO_MPTCP))?;
    }
    Ok(())
}

fn leading_packets_by_way_of_other_hosts_is_refused(case: &Case<'_>) -> Result<()> {
    const SOL_IP: i32 = 0;
    const SOL_IPV6: i32 = 41;
    const IP_OPTIONS: i32 = 4;
    const IP_RETOPTS: i32 = 7;
    const IPV6_RTHDR: i32 = 57;
    // A loose source route by way of 127.20.0.1 (RFC 791, 3.1), and the end of the options.
    let route = [0x83, 7, 4, 127, 20, 0, 1, 0];
    // For which current kernels want a capability by themselves.
    let refused = || refusal(AGENT.with(NET_RAW), "net.raw");
    for kind in [SOCK_STREAM, SOCK_DGRAM] {
        case.refused(refused(), || {
            raw::set_option(raw::socket(AF_INET, kind, 0)?.as_fd(), SOL_IP, IP_OPTIONS, &route)
        })
        .context("IPv4")?;
        case.refused(refused(), || {
            raw::set_option(raw::socket(AF_INET6, kind, 0)?.as_fd(), SOL_IPV6, IPV6_RTHDR, &[])
        })
        .context("IPv6")?;
    }
    let address = crate::network::bytes(std::net::SocketAddr::from(([127, 10, 0, 1], 9)));
    let control = |level: i32, name: i32| {
        let head = [&24u64.to_ne_bytes()[..], &level.to_ne_bytes(), &name.to_ne_bytes()].concat();
        [head, route.to_vec()].concat()
    };
    let send = |control: &[u8]| {
        let socket = raw::socket(AF_INET, SOCK_DGRAM, 0)?;
        raw::Message::new(b"x", &address, control).send(socket.as_fd(), 0)
    };
    case.refused(refused(), || send(&control(SOL_IP, IP_RETOPTS))).context("with a message")?;
    // The same behind another one: the time to live.
    let before =
        [&20u64.to_ne_bytes()[..], &0i32.to_ne_bytes(), &2i32.to_ne_bytes(), &9i32.to_ne_bytes(), &[0; 4]];
    case.refused(refused(), || send(&[before.concat(), control(SOL_IP, IP_RETOPTS)].concat()))
        .context("behind another one")?;
    case.allowed(AGENT, || send(&before.concat()[..24]))?;
    case.allowed(AGENT, || send(&[]))
}

fn a_socket_made_by_io_uring_is_refused(case: &Case<'_>) -> Result<()> {
    ensure!(uring::is_there()?, "this kernel has no io_uring, or it is switched off");
    case.refused(refusal(AGENT, "net.raw"), || uring::socket(AF_ALG, SOCK_SEQPACKET, 0).map(drop))?;
    case.allowed(AGENT, || uring::socket(AF_INET, SOCK_STREAM, 0).map(drop))
}
