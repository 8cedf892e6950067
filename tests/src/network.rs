//! Connections: addresses, ports and protocols, in every form an address can be written in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::libc::{AF_INET, AF_INET6, AF_NETLINK, AF_UNSPEC, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM};

use crate::bundle::{Bundle, forbid, permit};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::users::{AGENT, CI};
use crate::{layout, raw, uring};

pub(crate) const PART: Part = Part {
    name: "network",
    bundle,
    prepare,
    tests: tests!(
        smoke: [a_tcp_connection_outside_the_permitted_network_is_refused],
        others: [
            a_udp_connection_outside_the_permitted_network_is_refused,
            an_ipv6_connection_outside_the_permitted_network_is_refused,
            a_mapped_address_is_judged_as_the_ipv4_address_it_is,
            an_ipv4_address_on_an_ipv6_socket_is_judged,
            the_edges_of_a_network_are_exact,
            a_port_outside_the_permitted_ones_is_refused,
            a_protocol_outside_the_permitted_ones_is_refused,
            the_unspecified_address_is_not_a_way_to_loopback,
            forbidding_loopback_forbids_the_unspecified_address,
            dissolving_an_association_is_permitted_and_connects_nothing,
            a_netlink_protocol_outside_the_permitted_ones_is_refused,
            a_connection_by_io_uring_is_refused,
            opening_a_file_by_io_uring_is_refused,
        ],
    ),
};

/// Where the listeners are; every loopback address reaches them.
const PORT: u16 = 7001;
const OTHER_PORT: u16 = 7003;
const GOOD: Ipv4Addr = Ipv4Addr::new(127, 10, 0, 1);
const BAD: Ipv4Addr = Ipv4Addr::new(127, 20, 0, 1);
const GOOD6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0x10, 0, 0, 0, 1);
const BAD6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0x20, 0, 0, 0, 1);

fn prepare() -> Result<()> {
    layout::create()?;
    for address in [GOOD6, BAD6] {
        layout::run("ip", &["-6", "addr", "replace", &format!("{address}/128"), "dev", "lo", "nodad"])?;
    }
    for port in [PORT, OTHER_PORT] {
        // One listener for both families, for as long as this program runs.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).context("listen")?;
        std::mem::forget(listener);
    }
    Ok(())
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let connect = ["net.connect"];
    let within = |net: &str| format!("resource in Guard::Net::\"{net}\"");
    let policy = permit(
        "tcp",
        "agent",
        &connect,
        &format!(
            "{} && resource.port >= 7001 && resource.port <= 7002 && resource.protocol == \"tcp\"",
            within("127.10.0.0/16")
        ),
    ) + &permit(
        "tcp6",
        "agent",
        &connect,
        &format!("{} && resource.port == 7001", within("fd00:0:0:10::/64")),
    ) + &permit(
        "udp",
        "agent",
        &connect,
        &format!("{} && resource.protocol == \"udp\"", within("127.11.0.0/16")),
    ) + &permit("any-port", "agent", &connect, &within("127.12.0.0/17"));
    let anywhere = "resource in Guard::Net::\"0.0.0.0/0\" || resource in Guard::Net::\"::/0\"";
    let loopback = "(resource in Guard::Net::\"127.0.0.0/8\" || resource in Guard::Net::\"::1/128\")";
    let policy = policy
        + &permit("ci-anywhere", "ci", &connect, anywhere)
        + &forbid("ci-loopback", "ci", &connect, &format!("{loopback} && resource.port == {OTHER_PORT}"));
    Ok(bundle.policy("network", policy))
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
pub(crate) fn bytes(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => [&(AF_INET as u16).to_ne_bytes()[..], &port, &ip.octets(), &[0; 8]].concat(),
        IpAddr::V6(ip) => {
            [&(AF_INET6 as u16).to_ne_bytes()[..], &port, &[0; 4], &ip.octets(), &[0; 4]].concat()
        }
    }
}

fn socket(address: SocketAddr, kind: i32) -> io::Result<OwnedFd> {
    raw::socket(if address.is_ipv4() { AF_INET } else { AF_INET6 }, kind, 0)
}

fn connect(ip: impl Into<IpAddr>, port: u16, kind: i32) -> io::Result<()> {
    let address = SocketAddr::new(ip.into(), port);
    raw::connect(socket(address, kind)?.as_fd(), &bytes(address))
}

fn a_tcp_connection_outside_the_permitted_network_is_refused(case: &Case<'_>) -> Result<()> {
    let refused = refusal(AGENT, "net.connect").at(format!("{BAD}:{PORT}"));
    case.refused(refused, || connect(BAD, PORT, SOCK_STREAM))?;
    case.allowed(AGENT, || connect(GOOD, PORT, SOCK_STREAM))
}

fn a_udp_connection_outside_the_permitted_network_is_refused(case: &Case<'_>) -> Result<()> {
    let refused = refusal(AGENT, "net.connect").at(format!("{BAD}:53"));
    case.refused(refused, || connect(BAD, 53, SOCK_DGRAM))?;
    case.allowed(AGENT, || connect([127, 11, 0, 1], 53, SOCK_DGRAM))
}

fn an_ipv6_connection_outside_the_permitted_network_is_refused(case: &Case<'_>) -> Result<()> {
    let refused = || refusal(AGENT, "net.connect").at(format!("{BAD6}:{PORT}"));
    case.refused(refused(), || connect(BAD6, PORT, SOCK_STREAM))?;
    case.refused(refused(), || connect(BAD6, PORT, SOCK_DGRAM))?;
    case.refused(refusal(AGENT, "net.connect"), || connect(Ipv6Addr::LOCALHOST, PORT, SOCK_STREAM))?;
    case.allowed(AGENT, || connect(GOOD6, PORT, SOCK_STREAM))?;
    case.allowed(AGENT, || connect(GOOD6, PORT, SOCK_DGRAM))
}

fn a_mapped_address_is_judged_as_the_ipv4_address_it_is(case: &Case<'_>) -> Result<()> {
    let refused = refusal(AGENT, "net.connect").at(format!("{BAD}:{PORT}"));
    case.refused(refused, || connect(BAD.to_ipv6_mapped(), PORT, SOCK_STREAM))?;
    case.allowed(AGENT, || connect(GOOD.to_ipv6_mapped(), PORT, SOCK_STREAM))
}

fn an_ipv4_address_on_an_ipv6_socket_is_judged(case: &Case<'_>) -> Result<()> {
    let connect = |ip: Ipv4Addr| {
        let socket = raw::socket(AF_INET6, SOCK_DGRAM, 0)?;
        raw::connect(socket.as_fd(), &bytes(SocketAddr::new(ip.into(), 53)))
    };
    case.refused(refusal(AGENT, "net.connect").at(format!("{BAD}:53")), || connect(BAD))?;
    case.allowed(AGENT, || connect(Ipv4Addr::new(127, 11, 0, 1)))
}

fn the_edges_of_a_network_are_exact(case: &Case<'_>) -> Result<()> {
    for inside in [[127, 12, 0, 0], [127, 12, 0, 1], [127, 12, 127, 255]] {
        case.allowed(AGENT, || connect(inside, 9, SOCK_DGRAM)).with_context(|| format!("{inside:?}"))?;
    }
    for outside in [[127, 11, 255, 255], [127, 12, 128, 0], [127, 13, 0, 0]] {
        // The first belongs to the network before this one, for UDP.
        let kind = if outside[1] == 11 { SOCK_STREAM } else { SOCK_DGRAM };
        case.refused(refusal(AGENT, "net.connect"), || connect(outside, PORT, kind))
            .with_context(|| format!("{outside:?}"))?;
    }
    Ok(())
}

fn a_port_outside_the_permitted_ones_is_refused(case: &Case<'_>) -> Result<()> {
    let refused = refusal(AGENT, "net.connect").at(format!("{GOOD}:{OTHER_PORT}"));
    case.refused(refused, || connect(GOOD, OTHER_PORT, SOCK_STREAM))?;
    case.refused(refusal(AGENT, "net.connect"), || connect(GOOD6, OTHER_PORT, SOCK_STREAM))?;
    case.allowed(AGENT, || connect(GOOD, PORT, SOCK_STREAM))
}

fn a_protocol_outside_the_permitted_ones_is_refused(case: &Case<'_>) -> Result<()> {
    case.refused(refusal(AGENT, "net.connect"), || connect(GOOD, PORT, SOCK_DGRAM))?;
    case.refused(refusal(AGENT, "net.connect"), || connect([127, 11, 0, 1], PORT, SOCK_STREAM))?;
    case.allowed(AGENT, || connect([127, 12, 0, 1], PORT, SOCK_STREAM))?;
    case.allowed(AGENT, || connect([127, 12, 0, 1], PORT, SOCK_DGRAM))
}

fn the_unspecified_address_is_not_a_way_to_loopback(case: &Case<'_>) -> Result<()> {
    // The kernel connects 0.0.0.0 to 127.0.0.1 and :: to ::1.
    case.refused(refusal(AGENT, "net.connect"), || connect(Ipv4Addr::UNSPECIFIED, PORT, SOCK_STREAM))?;
    case.refused(refusal(AGENT, "net.connect"), || connect(Ipv6Addr::UNSPECIFIED, PORT, SOCK_STREAM))
}

fn forbidding_loopback_forbids_the_unspecified_address(case: &Case<'_>) -> Result<()> {
    for address in [IpAddr::from([127, 0, 0, 1]), Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
    {
        let context = || address.to_string();
        let refused = refusal(CI, "net.connect");
        case.refused(refused, || connect(address, OTHER_PORT, SOCK_STREAM)).with_context(context)?;
        case.allowed(CI, || connect(address, PORT, SOCK_STREAM)).with_context(context)?;
    }
    Ok(())
}

fn dissolving_an_association_is_permitted_and_connects_nothing(case: &Case<'_>) -> Result<()> {
    case.allowed(AGENT, || {
        let address = SocketAddr::new([127, 11, 0, 1].into(), 53);
        let socket = socket(address, SOCK_DGRAM)?;
        raw::connect(socket.as_fd(), &bytes(address))?;
        let mut unspecified = bytes(SocketAddr::new(BAD.into(), PORT));
        unspecified[..2].copy_from_slice(&(AF_UNSPEC as u16).to_ne_bytes());
        raw::connect(socket.as_fd(), &unspecified)?;
        match std::net::UdpSocket::from(socket).peer_addr() {
            Ok(peer) => Err(io::Error::other(format!("it is connected to {peer}"))),
            Err(_) => Ok(()),
        }
    })
}

fn a_netlink_protocol_outside_the_permitted_ones_is_refused(case: &Case<'_>) -> Result<()> {
    const ROUTE: i32 = 0;
    const SOCK_DIAG: i32 = 4;
    let connect = |protocol| {
        let socket = raw::socket(AF_NETLINK, SOCK_RAW, protocol)?;
        raw::connect(socket.as_fd(), &[&(AF_NETLINK as u16).to_ne_bytes()[..], &[0; 10]].concat())
    };
    case.refused(refusal(AGENT, "net.raw"), || connect(SOCK_DIAG))?;
    case.allowed(AGENT, || connect(ROUTE))
}

fn a_connection_by_io_uring_is_refused(case: &Case<'_>) -> Result<()> {
    ensure!(uring::is_there()?, "this kernel has no io_uring, or it is switched off");
    let connect = |ip: Ipv4Addr| {
        let address = SocketAddr::new(ip.into(), PORT);
        let socket = socket(address, SOCK_STREAM)?;
        uring::connect(socket.as_fd(), &bytes(address))
    };
    case.refused(refusal(AGENT, "net.connect").at(format!("{BAD}:{PORT}")), || connect(BAD))?;
    case.allowed(AGENT, || connect(GOOD))
}

fn opening_a_file_by_io_uring_is_refused(case: &Case<'_>) -> Result<()> {
    for force_async in [false, true] {
        let refused = refusal(AGENT, "file.read").at("shut/secret");
        case.refused(refused, || uring::open(&layout::canary(layout::ROOT), force_async))?;
        case.allowed(AGENT, || uring::open(&layout::path("open/notes"), force_async))?;
    }
    Ok(())
}
