//! What comes in: binding, listening, connections by their peer, datagrams by their sender.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6, AF_UNSPEC, SO_SNDTIMEO, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET};

use crate::bundle::{Bundle, permit};
use crate::case::{Case, NotHere, refusal};
use crate::family::{Part, tests};
use crate::network::{BAD, GOOD, bytes};
use crate::users::{AGENT, FREE};
use crate::{layout, raw, uring};

pub(crate) const PART: Part = Part {
    name: "listening",
    bundle,
    prepare: layout::create,
    tests: tests!(
        smoke: [binding_a_port_outside_the_permitted_ones_is_refused],
        others: [
            binding_is_refused_in_every_form_of_the_address,
            binding_any_port_is_decided_as_port_zero,
            listening_is_decided_apart_from_binding,
            listening_without_binding_is_refused,
            binding_and_listening_by_io_uring_are_refused,
            a_peer_outside_the_permitted_network_does_not_connect,
            a_request_is_decided_for_whoever_listens,
            what_waited_at_an_inherited_socket_is_refused_on_first_use,
            a_datagram_from_outside_the_permitted_network_is_not_received,
            a_datagram_of_a_connection_is_received,
            a_socket_inherited_for_datagrams_becomes_that_of_who_receives,
        ],
    ),
};

/// May be bound and listened at.
const OPEN: u16 = 7021;
/// May be bound, and not listened at.
const QUIET: u16 = 7022;
/// May not be bound.
const SHUT: u16 = 7023;
/// Where sockets wait that unlabelled processes made.
const INHERITED: u16 = 7024;
/// Where peers come from.
const SOURCE: u16 = 7025;

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let port = |port: u16| format!("resource.port == {port}");
    let good = "resource in Guard::Net::\"127.10.0.0/16\"";
    let policy = permit("bind", "agent", &["net.bind"], &format!("{} || {}", port(OPEN), port(QUIET)))
        + &permit("listen", "agent", &["net.listen"], &port(OPEN))
        + &permit("peers", "agent", &["net.accept", "net.receive"], good)
        // The other ends of these tests.
        + &permit("sources", "agent", &["net.bind"], &format!("{} || {}", port(SOURCE), port(0)))
        + &permit("reach", "agent", &["net.connect", "net.send"], &port(OPEN));
    Ok(bundle.policy("listening", policy))
}

fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

fn socket(address: SocketAddr, kind: i32) -> io::Result<OwnedFd> {
    let socket = raw::socket(if address.is_ipv4() { AF_INET } else { AF_INET6 }, kind, 0)?;
    raw::set_option(socket.as_fd(), SOL_SOCKET, nix::libc::SO_REUSEADDR, &1i32.to_ne_bytes())?;
    Ok(socket)
}

fn bound(address: SocketAddr, kind: i32) -> io::Result<OwnedFd> {
    let socket = socket(address, kind)?;
    raw::bind(socket.as_fd(), &bytes(address))?;
    Ok(socket)
}

fn bind(address: SocketAddr, kind: i32) -> io::Result<()> {
    bound(address, kind).map(drop)
}

fn binding_a_port_outside_the_permitted_ones_is_refused(case: &Case<'_>) -> Result<()> {
    for kind in [SOCK_STREAM, SOCK_DGRAM] {
        let refused = refusal(AGENT, "net.bind").at(format!("{GOOD}:{SHUT}"));
        case.refused(refused, || bind(at(GOOD, SHUT), kind))?;
        case.allowed(AGENT, || bind(at(GOOD, OPEN), kind))?;
    }
    Ok(())
}

fn binding_is_refused_in_every_form_of_the_address(case: &Case<'_>) -> Result<()> {
    let refused = || refusal(AGENT, "net.bind");
    for ip in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()]
    {
        case.refused(refused().at(at(ip, SHUT).to_string()), || bind(at(ip, SHUT), SOCK_STREAM))?;
        case.allowed(AGENT, || bind(at(ip, OPEN), SOCK_STREAM))?;
    }
    let mapped = refused().at(format!("{GOOD}:{SHUT}"));
    case.refused(mapped, || bind(at(GOOD.to_ipv6_mapped(), SHUT), SOCK_STREAM))?;
    // Without a family, and with the unspecified address, it is one of IPv4 (`inet_bind`).
    let no_family = |port| {
        let mut bytes = bytes(at(Ipv4Addr::UNSPECIFIED, port));
        bytes[..2].copy_from_slice(&(AF_UNSPEC as u16).to_ne_bytes());
        raw::bind(socket(at(GOOD, port), SOCK_DGRAM)?.as_fd(), &bytes)
    };
    case.refused(refused().at(format!("0.0.0.0:{SHUT}")), || no_family(SHUT))?;
    case.allowed(AGENT, || no_family(OPEN))
}

fn binding_any_port_is_decided_as_port_zero(case: &Case<'_>) -> Result<()> {
    case.allowed(AGENT, || bind(at(GOOD, 0), SOCK_DGRAM))?;
    case.refused(refusal(crate::users::CI, "net.bind").at(format!("{GOOD}:0")), || {
        bind(at(GOOD, 0), SOCK_DGRAM)
    })
}

fn listening_is_decided_apart_from_binding(case: &Case<'_>) -> Result<()> {
    let listen = |ip: IpAddr, port| raw::listen(bound(at(ip, port), SOCK_STREAM)?.as_fd());
    for ip in [IpAddr::from(GOOD), Ipv6Addr::LOCALHOST.into(), GOOD.to_ipv6_mapped().into()] {
        let refused = refusal(AGENT, "net.listen").at(at(ip.to_canonical(), QUIET).to_string());
        case.refused(refused, || listen(ip, QUIET))?;
        case.allowed(AGENT, || listen(ip, OPEN))?;
    }
    Ok(())
}

fn listening_without_binding_is_refused(case: &Case<'_>) -> Result<()> {
    let listen = || raw::listen(raw::socket(AF_INET, SOCK_STREAM, 0)?.as_fd());
    case.refused(refusal(AGENT, "net.listen").at("0.0.0.0:0"), listen)
}

fn binding_and_listening_by_io_uring_are_refused(case: &Case<'_>) -> Result<()> {
    ensure!(uring::is_there()?, "this kernel has no io_uring, or it is switched off");
    let bind = |port| uring::bind(socket(at(GOOD, port), SOCK_STREAM)?.as_fd(), &bytes(at(GOOD, port)));
    if bind(0).is_err_and(|error| error.raw_os_error() == Some(Errno::EINVAL as i32)) {
        return Err(NotHere("io_uring binds no sockets on this kernel (new in 6.11)".to_owned()).into());
    }
    case.refused(refusal(AGENT, "net.bind").at(format!("{GOOD}:{SHUT}")), || bind(SHUT))?;
    case.allowed(AGENT, || bind(OPEN))?;
    let listen = |port| uring::listen(bound(at(GOOD, port), SOCK_STREAM)?.as_fd());
    case.refused(refusal(AGENT, "net.listen").at(format!("{GOOD}:{QUIET}")), || listen(QUIET))?;
    case.allowed(AGENT, || listen(OPEN))
}

/// How long a connection is tried: as the kernel drops the request, there is no answer to wait for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connects from an address, and gives up with EINPROGRESS.
pub(crate) fn connect_from(source: SocketAddr, to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = bound(source, SOCK_STREAM)?;
    let patience = nix::libc::timeval { tv_sec: PATIENCE.as_secs() as i64, tv_usec: 0 };
    let words = [patience.tv_sec.to_ne_bytes(), patience.tv_usec.to_ne_bytes()].concat();
    raw::set_option(socket.as_fd(), SOL_SOCKET, SO_SNDTIMEO, &words)?;
    raw::connect(socket.as_fd(), &bytes(to))?;
    Ok(socket)
}

fn a_peer_outside_the_permitted_network_does_not_connect(case: &Case<'_>) -> Result<()> {
    let here: [IpAddr; 2] = [GOOD.into(), GOOD.to_ipv6_mapped().into()];
    for ip in here {
        let connect = |source: Ipv4Addr| {
            let listener = bound(at(ip, OPEN), SOCK_STREAM)?;
            raw::listen(listener.as_fd())?;
            let connected = connect_from(at(source, 0), at(GOOD, OPEN))?;
            raw::accept(listener.as_fd())?;
            drop(connected);
            Ok(())
        };
        let refused = refusal(AGENT, "net.accept").heard_as(Errno::EINPROGRESS);
        case.refused(refused, || connect(BAD)).with_context(|| ip.to_string())?;
        case.allowed(AGENT, || connect(GOOD)).with_context(|| ip.to_string())?;
    }
    Ok(())
}

/// A listener of this program, to be inherited by attempts, with a connection of each source waiting.
fn waiting(port: u16, sources: &[Ipv4Addr]) -> Result<(TcpListener, Vec<OwnedFd>)> {
    let listener = TcpListener::bind((GOOD, port)).context("listen")?;
    let connect = |source: &Ipv4Addr| connect_from(at(*source, 0), at(GOOD, port)).context("connect");
    let waiting = sources.iter().map(connect).collect::<Result<_>>()?;
    Ok((listener, waiting))
}

fn a_request_is_decided_for_whoever_listens(case: &Case<'_>) -> Result<()> {
    let (listener, _waiting) = waiting(INHERITED, &[GOOD])?;
    let again = || connect_from(at(BAD, 0), at(GOOD, INHERITED));
    again().context("a socket that nobody with a label listens at is open to all")?;
    case.allowed(AGENT, || raw::accept(listener.as_fd()).map(drop))?;
    let now = again();
    match case.daemon() {
        None => now.map(drop).context("without Guard"),
        Some(_) => {
            let error = now.err().context("a subject accepts on this socket, and no peer from here")?;
            ensure!(error.raw_os_error() == Some(Errno::EINPROGRESS as i32), "{error}");
            connect_from(at(GOOD, 0), at(GOOD, INHERITED)).map(drop).context("a permitted peer")
        }
    }
}

fn what_waited_at_an_inherited_socket_is_refused_on_first_use(case: &Case<'_>) -> Result<()> {
    let uses: [fn(TcpStream) -> io::Result<()>; 2] = [
        |mut connection| io::Read::read(&mut connection, &mut [0]).map(drop),
        |mut connection| io::Write::write(&mut connection, b"x").map(drop),
    ];
    for one in uses {
        let (listener, mut waiting) = waiting(INHERITED, &[BAD, BAD])?;
        for connection in &mut waiting {
            let mut stream = TcpStream::from(connection.try_clone().context("duplicate")?);
            io::Write::write_all(&mut stream, b"x").context("send")?;
        }
        let accept = || one(TcpStream::from(raw::accept(listener.as_fd())?));
        case.refused(refusal(AGENT, "net.accept"), accept)?;
    }
    let (listener, mut waiting) = waiting(INHERITED, &[GOOD])?;
    let mut stream = TcpStream::from(waiting.remove(0));
    io::Write::write_all(&mut stream, b"x").context("send")?;
    case.allowed(AGENT, || uses[0](TcpStream::from(raw::accept(listener.as_fd())?)))
}

fn receiving(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::from(bound(address, SOCK_DGRAM)?);
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn a_datagram_from_outside_the_permitted_network_is_not_received(case: &Case<'_>) -> Result<()> {
    let here: [IpAddr; 2] = [GOOD.into(), GOOD.to_ipv6_mapped().into()];
    for ip in here {
        let receive = |source: Ipv4Addr| {
            let socket = receiving(at(ip, OPEN))?;
            let sender = bound(at(source, SOURCE), SOCK_DGRAM)?;
            raw::send_to(sender.as_fd(), b"x", 0, &bytes(at(GOOD, OPEN)))?;
            socket.recv(&mut [0]).map(drop)
        };
        let refused = refusal(AGENT, "net.receive").at(format!("{BAD}:{SOURCE}")).heard_as(Errno::EAGAIN);
        case.refused(refused, || receive(BAD)).with_context(|| ip.to_string())?;
        case.allowed(AGENT, || receive(GOOD)).with_context(|| ip.to_string())?;
    }
    Ok(())
}

fn a_datagram_of_a_connection_is_received(case: &Case<'_>) -> Result<()> {
    // From 127.11.0.0/16, which may be connected to, nothing may be received otherwise.
    let there = Ipv4Addr::new(127, 11, 0, 1);
    let server = UdpSocket::bind((there, INHERITED)).context("bind")?;
    let receive = |is_connected: bool| {
        let socket = receiving(at(GOOD, OPEN))?;
        if is_connected {
            raw::connect(socket.as_fd(), &bytes(at(there, INHERITED)))?;
        }
        raw::send_to(server.as_fd(), b"x", 0, &bytes(at(GOOD, OPEN)))?;
        socket.recv(&mut [0]).map(drop)
    };
    let refused = refusal(AGENT, "net.receive").at(format!("{there}:{INHERITED}")).heard_as(Errno::EAGAIN);
    case.refused(refused, || receive(false))?;
    case.allowed(AGENT, || receive(true))
}

fn a_socket_inherited_for_datagrams_becomes_that_of_who_receives(case: &Case<'_>) -> Result<()> {
    let socket = receiving(at(GOOD, INHERITED)).context("bind")?;
    let send = |source: Ipv4Addr| -> Result<()> {
        let sender = UdpSocket::bind((source, 0)).context("bind")?;
        sender.send_to(b"x", (GOOD, INHERITED)).map(drop).context("send")
    };
    let receive = || socket.recv(&mut [0]).map(drop);
    send(GOOD)?;
    case.allowed(AGENT, receive)?;
    send(BAD)?;
    match case.daemon() {
        None => case.allowed(AGENT, receive),
        Some(_) => {
            let outcome = crate::attempt::attempt(AGENT, receive)?;
            ensure!(
                outcome == crate::attempt::Outcome::Failed(Errno::EAGAIN),
                "it was received: {outcome:?}"
            );
            send(GOOD)?;
            case.allowed(AGENT, receive)?;
            send(GOOD)?;
            case.allowed(FREE, receive)
        }
    }
}
