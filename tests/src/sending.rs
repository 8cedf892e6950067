//! Datagrams with an address, and connections that begin with data: whatever system call sends them, over
//! sockets of either family, in every form an address can have.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::libc::{AF_INET, AF_INET6, AF_UNSPEC, MSG_FASTOPEN, SOCK_DGRAM, SOCK_STREAM};

use crate::bundle::{Bundle, permit};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::network::{BAD, BAD6, GOOD, GOOD6, PORT, bytes};
use crate::raw::Message;
use crate::users::AGENT;
use crate::{layout, raw, uring};

pub(crate) const PART: Part = Part {
    name: "sending",
    bundle,
    prepare,
    tests: tests!(
        smoke: [a_datagram_outside_the_permitted_network_is_refused],
        others: [
            a_datagram_is_refused_by_whatever_call_it_is_sent,
            an_address_without_a_family_is_judged_as_the_ipv4_address_it_is,
            a_connected_socket_sends_elsewhere_only_where_it_may,
            an_answer_on_a_connection_needs_no_right_to_send,
            a_datagram_to_the_unspecified_address_is_judged_as_loopback,
            turning_a_socket_into_ipv4_meanwhile_lets_nothing_through,
            fast_open_is_judged_as_a_connection,
        ],
    ),
};

/// Where datagrams are received, on every address.
const DATAGRAMS: u16 = 7011;

fn prepare() -> Result<()> {
    layout::create()?;
    for address in [GOOD6, BAD6] {
        layout::run("ip", &["-6", "addr", "replace", &format!("{address}/128"), "dev", "lo", "nodad"])?;
    }
    std::mem::forget(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, DATAGRAMS)).context("bind")?);
    // Clients and servers of fast open, with no cookie needed (Documentation/networking/ip-sysctl.rst).
    std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1543").context("switch on fast open")?;
    Ok(())
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let good = "(resource in Guard::Net::\"127.10.0.0/16\" || resource in Guard::Net::\"fd00:0:0:10::/64\")";
    let policy = permit("good", "agent", &["net.send"], &format!("{good} && resource.protocol == \"udp\""));
    Ok(bundle.policy("sending", policy))
}

fn udp(family: i32) -> io::Result<OwnedFd> {
    raw::socket(family, SOCK_DGRAM, 0)
}

/// The address without its family.
fn without_family(address: SocketAddr) -> Vec<u8> {
    let mut bytes = bytes(address);
    bytes[..2].copy_from_slice(&(AF_UNSPEC as u16).to_ne_bytes());
    bytes
}

fn at(ip: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(ip.into(), DATAGRAMS)
}

fn a_datagram_outside_the_permitted_network_is_refused(case: &Case<'_>) -> Result<()> {
    let send = |ip: Ipv4Addr| raw::send_to(udp(AF_INET)?.as_fd(), b"x", 0, &bytes(at(ip)));
    case.refused(refusal(AGENT, "net.send").at(format!("{BAD}:{DATAGRAMS}")), || send(BAD))?;
    case.allowed(AGENT, || send(GOOD))
}

type Send = fn(BorrowedFd<'_>, &[u8], i32) -> io::Result<()>;

/// Every way to send bytes to an address.
const WAYS: [Send; 4] = [
    |fd, address, flags| raw::send_to(fd, b"x", flags, address),
    |fd, address, flags| Message::new(b"x", address, &[]).send(fd, flags),
    |fd, address, flags| Message::new(b"x", address, &[]).send_as_one_of_many(fd, flags),
    |fd, address, flags| uring::send(fd, &Message::new(b"x", address, &[]), flags),
];

fn a_datagram_is_refused_by_whatever_call_it_is_sent(case: &Case<'_>) -> Result<()> {
    ensure!(uring::is_there()?, "this kernel has no io_uring, or it is switched off");
    let forms: [(i32, IpAddr, IpAddr); 4] = [
        (AF_INET, BAD.into(), GOOD.into()),
        (AF_INET6, BAD6.into(), GOOD6.into()),
        (AF_INET6, BAD.to_ipv6_mapped().into(), GOOD.to_ipv6_mapped().into()),
        (AF_INET6, BAD.into(), GOOD.into()),
    ];
    for (family, bad, good) in forms {
        for (way, send) in WAYS.iter().enumerate() {
            let context = || format!("a socket of family {family}, {bad}, way {way}");
            let named = SocketAddr::new(bad.to_canonical(), DATAGRAMS).to_string();
            let refused = refusal(AGENT, "net.send").at(named);
            case.refused(refused, || send(udp(family)?.as_fd(), &bytes(at(bad)), 0)).with_context(context)?;
            case.allowed(AGENT, || send(udp(family)?.as_fd(), &bytes(at(good)), 0)).with_context(context)?;
        }
    }
    case.tried(2 * (forms.len() * WAYS.len()) as u64);
    Ok(())
}

fn an_address_without_a_family_is_judged_as_the_ipv4_address_it_is(case: &Case<'_>) -> Result<()> {
    for send in WAYS {
        let refused = || refusal(AGENT, "net.send").at(format!("{BAD}:{DATAGRAMS}"));
        case.refused(refused(), || send(udp(AF_INET)?.as_fd(), &without_family(at(BAD)), 0))?;
        case.allowed(AGENT, || send(udp(AF_INET)?.as_fd(), &without_family(at(GOOD)), 0))?;
        // IPv6 takes it for no address at all, so it goes where the socket is connected to, unless the
        // socket has become one of IPv4 meanwhile.
        let connected = |ip| {
            let socket = udp(AF_INET6)?;
            raw::connect(socket.as_fd(), &bytes(SocketAddr::new(GOOD6.into(), PORT)))?;
            send(socket.as_fd(), &without_family(at(ip)), 0)
        };
        case.refused(refused(), || connected(BAD))?;
        case.allowed(AGENT, || connected(GOOD))?;
    }
    Ok(())
}

fn a_connected_socket_sends_elsewhere_only_where_it_may(case: &Case<'_>) -> Result<()> {
    let send = |ip| {
        let socket = udp(AF_INET)?;
        raw::connect(socket.as_fd(), &bytes(SocketAddr::from(([127, 11, 0, 1], 53))))?;
        raw::send_to(socket.as_fd(), b"x", 0, &bytes(at(ip)))
    };
    case.refused(refusal(AGENT, "net.send").at(format!("{BAD}:{DATAGRAMS}")), || send(BAD))?;
    case.allowed(AGENT, || send(GOOD))
}

fn an_answer_on_a_connection_needs_no_right_to_send(case: &Case<'_>) -> Result<()> {
    // 127.11.0.0/16 may be connected to, and nothing may be sent there otherwise.
    let there = Ipv4Addr::new(127, 11, 0, 1);
    case.allowed(AGENT, || {
        let socket = udp(AF_INET)?;
        raw::connect(socket.as_fd(), &bytes(at(there)))?;
        UdpSocket::from(socket).send(b"x").map(drop)
    })?;
    let send = || raw::send_to(udp(AF_INET)?.as_fd(), b"x", 0, &bytes(at(there)));
    case.refused(refusal(AGENT, "net.send").at(format!("{there}:{DATAGRAMS}")), send)
}

fn a_datagram_to_the_unspecified_address_is_judged_as_loopback(case: &Case<'_>) -> Result<()> {
    let send = |ip: IpAddr| {
        let family = if ip.is_ipv4() { AF_INET } else { AF_INET6 };
        raw::send_to(udp(family)?.as_fd(), b"x", 0, &bytes(at(ip)))
    };
    case.refused(refusal(AGENT, "net.send"), || send(Ipv4Addr::UNSPECIFIED.into()))?;
    case.refused(refusal(AGENT, "net.send"), || send(Ipv6Addr::UNSPECIFIED.into()))
}

fn turning_a_socket_into_ipv4_meanwhile_lets_nothing_through(case: &Case<'_>) -> Result<()> {
    const IPV6_ADDRFORM: i32 = 1;
    const SOL_IPV6: i32 = 41;
    /// A port at which nobody else receives.
    const ALONE: u16 = 7012;
    let rounds = if case.full { 100_000 } else { 300 };
    let receiver = UdpSocket::bind((BAD, ALONE)).context("bind")?;
    receiver.set_nonblocking(true).context("receive without waiting")?;
    let bad = without_family(SocketAddr::new(BAD.into(), ALONE));
    let race = || -> io::Result<()> {
        for _ in 0..rounds {
            let socket = udp(AF_INET6)?;
            let peer = SocketAddr::new(Ipv4Addr::new(127, 11, 0, 1).to_ipv6_mapped().into(), 53);
            raw::connect(socket.as_fd(), &bytes(peer))?;
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    raw::set_option(socket.as_fd(), SOL_IPV6, IPV6_ADDRFORM, &AF_INET.to_ne_bytes())
                });
                for _ in 0..4 {
                    let _ = raw::send_to(socket.as_fd(), b"x", 0, &bad);
                }
            });
            // Now it is one of IPv4.
            let _ = raw::send_to(socket.as_fd(), b"x", 0, &bad);
        }
        Ok(())
    };
    case.tried(rounds);
    case.allowed(AGENT, race)?;
    let arrived = receiver.recv(&mut [0]);
    match case.daemon() {
        None => arrived.map(drop).context("without Guard, something should arrive"),
        Some(_) => {
            ensure!(arrived.is_err(), "a datagram arrived where nothing may be sent");
            Ok(())
        }
    }
}

fn fast_open_is_judged_as_a_connection(case: &Case<'_>) -> Result<()> {
    ensure!(uring::is_there()?, "this kernel has no io_uring, or it is switched off");
    let forms: [(i32, IpAddr, IpAddr); 3] = [
        (AF_INET, BAD.into(), GOOD.into()),
        (AF_INET6, BAD6.into(), GOOD6.into()),
        (AF_INET6, BAD.to_ipv6_mapped().into(), GOOD.to_ipv6_mapped().into()),
    ];
    for (family, bad, good) in forms {
        for (way, send) in WAYS.iter().enumerate() {
            let context = || format!("a socket of family {family}, {bad}, way {way}");
            let open = |ip: IpAddr| {
                let socket = raw::socket(family, SOCK_STREAM, 0)?;
                send(socket.as_fd(), &bytes(SocketAddr::new(ip, PORT)), MSG_FASTOPEN)
            };
            let named = SocketAddr::new(bad.to_canonical(), PORT).to_string();
            case.refused(refusal(AGENT, "net.connect").at(named), || open(bad)).with_context(context)?;
            case.allowed(AGENT, || open(good)).with_context(context)?;
        }
    }
    Ok(())
}
