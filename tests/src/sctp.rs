//! SCTP: addresses that come by its own calls, by messages and by their attachments, and who connects.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6, SO_SNDTIMEO, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET};

use crate::bundle::{Bundle, permit};
use crate::case::{Case, NotHere, refusal};
use crate::family::{Part, tests};
use crate::network::{BAD6, GOOD6, bytes};
use crate::raw::Message;
use crate::users::{AGENT, Identity};
use crate::{layout, raw};

pub(crate) const PART: Part = Part {
    name: "sctp",
    bundle,
    prepare,
    tests: tests!(
        smoke: [an_sctp_association_outside_the_permitted_network_is_refused],
        others: [
            several_addresses_in_one_call_are_refused,
            an_address_that_a_socket_gets_besides_is_decided,
            a_message_that_begins_an_association_is_decided,
            addresses_attached_to_a_message_are_decided,
            a_peer_outside_the_permitted_network_has_no_association,
        ],
    ),
};

/// May use SCTP.
const USER: Identity = Identity::new("sctp-user", 2430);

/// The accounts of this part.
pub(crate) const ACCOUNTS: [Identity; 1] = [USER];

const IPPROTO_SCTP: i32 = 132;
/// SCTP wants an address to be one of an interface, and nobody else needs these.
const GOOD: Ipv4Addr = Ipv4Addr::new(127, 10, 9, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 10, 9, 2);
const BAD: Ipv4Addr = Ipv4Addr::new(127, 20, 9, 1);
/// Where everybody may connect who may use SCTP.
const PORT: u16 = 7041;
/// Where the tests listen.
const OPEN: u16 = 7042;
// include/uapi/linux/sctp.h.
const BINDX_ADD: i32 = 100;
const CONNECTX_OLD: i32 = 107;
const CONNECTX: i32 = 110;
const DSTADDRV4: i32 = 7;
const DSTADDRV6: i32 = 8;

fn prepare() -> Result<()> {
    layout::create()?;
    for address in [GOOD6, BAD6] {
        layout::run("ip", &["-6", "addr", "replace", &format!("{address}/128"), "dev", "lo", "nodad"])?;
    }
    for address in [GOOD, SECOND, BAD] {
        layout::run("ip", &["addr", "replace", &format!("{address}/32"), "dev", "lo"])?;
    }
    let Ok(server) = raw::socket(AF_INET6, SOCK_SEQPACKET, IPPROTO_SCTP) else { return Ok(()) };
    raw::bind(server.as_fd(), &bytes(SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)))).context("bind")?;
    raw::listen(server.as_fd()).context("listen")?;
    std::mem::forget(server);
    Ok(())
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let sctp = "resource.protocol == \"sctp\"";
    let good = "(resource in Guard::Net::\"127.10.0.0/16\" || resource in Guard::Net::\"fd00:0:0:10::/64\")";
    let policy = permit("sctp", USER.name, &["net.raw"], "resource == Guard::Protocol::\"sctp\"")
            + &permit("sctp-far", USER.name, &["net.connect", "net.send", "net.accept"], &format!("{good} && {sctp}"))
            // The other ends of these tests are made by the same process.
            + &permit("sctp-near", USER.name, &["net.bind"], &format!("{sctp} && ({good} || resource.port == 0)"))
            + &permit("sctp-listen", USER.name, &["net.listen"], &format!("{good} && {sctp}"));
    let selector = format!("user = \"{}\"", USER.name);
    Ok(bundle.subject(USER.name, &selector).policy("sctp", policy))
}

fn is_here() -> Result<()> {
    let made = raw::socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP);
    made.map(drop).map_err(|error| NotHere(format!("this kernel has no SCTP: {error}")).into())
}

fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

fn socket(address: SocketAddr, kind: i32) -> io::Result<OwnedFd> {
    raw::socket(if address.is_ipv4() { AF_INET } else { AF_INET6 }, kind, IPPROTO_SCTP)
}

/// Both kinds of socket: for one association and for many.
const KINDS: [i32; 2] = [SOCK_STREAM, SOCK_SEQPACKET];

fn pairs() -> [(SocketAddr, SocketAddr); 2] {
    [(at(BAD, PORT), at(GOOD, PORT)), (at(BAD6, PORT), at(GOOD6, PORT))]
}

type Connect = fn(&OwnedFd, SocketAddr) -> io::Result<()>;

fn an_sctp_association_outside_the_permitted_network_is_refused(case: &Case<'_>) -> Result<()> {
    is_here()?;
    let ways: [(&str, Connect); 3] = [
        ("connect", |socket, to| raw::connect(socket.as_fd(), &bytes(to))),
        ("sctp_connectx", |socket, to| raw::set_option(socket.as_fd(), IPPROTO_SCTP, CONNECTX, &bytes(to))),
        ("sctp_connectx of before 2.6.32", |socket, to| {
            raw::set_option(socket.as_fd(), IPPROTO_SCTP, CONNECTX_OLD, &bytes(to))
        }),
    ];
    for (name, connect) in ways {
        for kind in KINDS {
            for (bad, good) in pairs() {
                let context = || format!("{name} {kind} {bad}");
                let refused = refusal(USER, "net.connect").at(bad.to_string());
                case.refused(refused, || connect(&socket(bad, kind)?, bad)).with_context(context)?;
                case.allowed(USER, || connect(&socket(good, kind)?, good)).with_context(context)?;
            }
        }
    }
    // Who may not make such a socket has none of this.
    case.refused(refusal(AGENT, "net.raw"), || socket(at(GOOD, PORT), SOCK_STREAM).map(drop))
}

fn several_addresses_in_one_call_are_refused(case: &Case<'_>) -> Result<()> {
    is_here()?;
    let both = |option: i32, first: Ipv4Addr, second: Ipv4Addr, port: u16| {
        let addresses = [bytes(at(first, port)), bytes(at(second, port))].concat();
        raw::set_option(socket(at(first, port), SOCK_STREAM)?.as_fd(), IPPROTO_SCTP, option, &addresses)
    };
    let refused = |action| refusal(USER, action).because("unreadable");
    case.refused(refused("net.connect"), || both(CONNECTX, GOOD, BAD, PORT))?;
    case.refused(refused("net.bind"), || both(BINDX_ADD, GOOD, BAD, OPEN))
}

fn an_address_that_a_socket_gets_besides_is_decided(case: &Case<'_>) -> Result<()> {
    is_here()?;
    let bind = |besides: Ipv4Addr| {
        let socket = socket(at(GOOD, OPEN), SOCK_SEQPACKET)?;
        raw::bind(socket.as_fd(), &bytes(at(GOOD, OPEN)))?;
        raw::set_option(socket.as_fd(), IPPROTO_SCTP, BINDX_ADD, &bytes(at(besides, OPEN)))
    };
    case.refused(refusal(USER, "net.bind").at(at(BAD, OPEN).to_string()), || bind(BAD))?;
    case.allowed(USER, || bind(SECOND))
}

fn a_message_that_begins_an_association_is_decided(case: &Case<'_>) -> Result<()> {
    is_here()?;
    for kind in KINDS {
        for (bad, good) in pairs() {
            let send = |to: SocketAddr| raw::send_to(socket(to, kind)?.as_fd(), b"x", 0, &bytes(to));
            let context = || format!("{kind} {bad}");
            case.refused(refusal(USER, "net.connect").at(bad.to_string()), || send(bad))
                .with_context(context)?;
            case.allowed(USER, || send(good)).with_context(context)?;
        }
    }
    Ok(())
}

/// A control message (`struct cmsghdr`).
fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    const HEAD: usize = 16;
    let length = (HEAD + data.len()) as u64;
    let mut bytes = [&length.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn addresses_attached_to_a_message_are_decided(case: &Case<'_>) -> Result<()> {
    is_here()?;
    for ((bad, good), kind) in pairs().into_iter().zip([DSTADDRV4, DSTADDRV6]) {
        let send = |attached: SocketAddr| {
            let address = match attached.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let control = control(IPPROTO_SCTP, kind, &address);
            Message::new(b"x", &bytes(good), &control).send(socket(good, SOCK_SEQPACKET)?.as_fd(), 0)
        };
        // Nobody is asked about such addresses one by one.
        case.refused(refusal(USER, "net.raw"), || send(bad)).with_context(|| bad.to_string())?;
    }
    Ok(())
}

/// How long an association is tried: as the kernel drops the request, there is no answer to wait for.
const PATIENCE_S: i64 = 2;

fn a_peer_outside_the_permitted_network_has_no_association(case: &Case<'_>) -> Result<()> {
    is_here()?;
    for kind in KINDS {
        let connect = |source: Ipv4Addr| {
            let here = at(GOOD, OPEN);
            let listener = socket(here, kind)?;
            raw::bind(listener.as_fd(), &bytes(here))?;
            raw::listen(listener.as_fd())?;
            let client = socket(here, SOCK_STREAM)?;
            raw::bind(client.as_fd(), &bytes(at(source, 0)))?;
            let patience = [PATIENCE_S.to_ne_bytes(), 0i64.to_ne_bytes()].concat();
            raw::set_option(client.as_fd(), SOL_SOCKET, SO_SNDTIMEO, &patience)?;
            raw::connect(client.as_fd(), &bytes(here))
        };
        let refused = refusal(USER, "net.accept").heard_as(Errno::EINPROGRESS);
        case.refused(refused, || connect(BAD)).with_context(|| kind.to_string())?;
        case.allowed(USER, || connect(GOOD)).with_context(|| kind.to_string())?;
    }
    Ok(())
}
