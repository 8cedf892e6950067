//! Connections of processes: what they are, and how they are ended.
//!
//! The process table lists those of each network namespace (proc_net_tcp(5)); sock_diag(7) ends them, where the kernel
//! can (`CONFIG_INET_DIAG_DESTROY`): both ends learn of it, and whoever waits for data wakes up.

use crate::events::escape::line;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Connections that are looked at, at most.
const MAX: usize = 4096;

// include/net/tcp_states.h.
const LISTEN: u8 = 10;
const STATES: [&str; 12] = [
    "unknown",
    "established",
    "syn-sent",
    "syn-received",
    "fin-wait-1",
    "fin-wait-2",
    "time-wait",
    "close",
    "close-wait",
    "last-ack",
    "listen",
    "closing",
];

/// One socket of a process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connection {
    /// A process that has it open.
    pub pid: i32,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The near end.
    pub local: String,
    /// The far end; null if there is none.
    pub remote: Option<String>,
    /// As TCP calls it: `established`, `listen`.
    pub state: String,
}

/// What the kernel tells of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    protocol: Protocol,
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    inode: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// `IPPROTO_*`.
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// A socket with the process that was found to have it, and the number of its network namespace.
struct Owned {
    pid: i32,
    namespace: String,
    listed: Listed,
}

/// Those of some processes.
pub(super) fn of(pids: &[i32]) -> Vec<Connection> {
    owned(pids).iter().map(describe).collect()
}

/// Ends the connections of some processes, and says how many, and why others were not. Sockets without a far end stay:
/// nothing passes over them, and nobody could open them again.
pub(super) fn end(pids: &[i32]) -> (usize, Option<String>) {
    let mut by_namespace: BTreeMap<String, Vec<Owned>> = BTreeMap::new();
    for one in owned(pids).into_iter().filter(|one| is_connected(&one.listed)) {
        by_namespace.entry(one.namespace.clone()).or_default().push(one);
    }
    let own = namespace("self").unwrap_or_default();
    let (mut ended, mut why) = (0, None);
    for (name, those) in by_namespace {
        let result = if name == own { end_here(&those) } else { end_there(&those) };
        match result {
            Ok((count, failed)) => {
                ended += count;
                why = why.or(failed.map(|errno| errno.to_string()));
            }
            Err(error) => why = Some(error.to_string()),
        }
    }
    // What has ended by itself meanwhile is no failure.
    let left = owned(pids).iter().any(|one| is_connected(&one.listed));
    (ended, why.filter(|_| left))
}

fn owned(pids: &[i32]) -> Vec<Owned> {
    let mut found = Vec::new();
    let mut tables: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for pid in pids {
        let inodes = sockets(*pid);
        let Some(namespace) = namespace(&pid.to_string()).filter(|_| !inodes.is_empty()) else { continue };
        let table = tables.entry(namespace.clone()).or_insert_with(|| list(*pid));
        for listed in table.iter().filter(|one| inodes.contains(&one.inode)) {
            if found.len() < MAX && seen.insert(listed.inode) {
                found.push(Owned { pid: *pid, namespace: namespace.clone(), listed: *listed });
            }
        }
    }
    found
}

fn namespace(pid: &str) -> Option<String> {
    fs::read_link(format!("/proc/{pid}/ns/net")).ok().map(|link| link.to_string_lossy().into_owned())
}

/// The inodes of the sockets that a process has open.
pub(super) fn sockets(pid: i32) -> BTreeSet<u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let inode = |path: &Path| {
        let target = fs::read_link(path).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    descriptors.filter_map(|entry| inode(&entry.path())).collect()
}

/// All of the network namespace that a process is in.
fn list(pid: i32) -> Vec<Listed> {
    let mut found = Vec::new();
    for (file, protocol) in
        [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)]
    {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
        found.extend(text.lines().skip(1).filter_map(|line| parse(line, protocol)));
    }
    found
}

/// One line: number, near end, far end, state, and after six more fields the inode.
fn parse(line: &str, protocol: Protocol) -> Option<Listed> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    Some(Listed {
        protocol,
        local: address(fields.get(1)?)?,
        remote: address(fields.get(2)?)?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// `0100007F:1F90`: words of the address as this machine reads them from network order, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word =
        |at: usize| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            bytes.copy_from_slice(words.as_flattened());
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn is_connected(listed: &Listed) -> bool {
    listed.state != LISTEN && listed.remote.port() != 0
}

fn describe(one: &Owned) -> Connection {
    let Listed { protocol, local, remote, state, .. } = &one.listed;
    Connection {
        pid: one.pid,
        protocol: protocol.name().to_owned(),
        local: line(&local.to_string()),
        remote: is_connected(&one.listed).then(|| line(&remote.to_string())),
        state: STATES.get(usize::from(*state)).unwrap_or(&STATES[0]).to_string(),
    }
}

/// Ends some of another network namespace: a thread enters it, which ends with that.
fn end_there(those: &[Owned]) -> io::Result<(usize, Option<Errno>)> {
    let Some(first) = those.first() else { return Ok((0, None)) };
    let namespace = File::open(format!("/proc/{}/ns/net", first.pid))?;
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            end_here(those)
        });
        ended.join().unwrap_or_else(|_| Err(io::Error::other("the thread ended")))
    })
}

// include/uapi/linux/netlink.h, sock_diag.h and inet_diag.h.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
/// Length of `struct nlmsghdr`, and of that with `struct inet_diag_req_v2`.
const HEAD: usize = 16;
const REQUEST: usize = HEAD + 56;
/// `INET_DIAG_NOCOOKIE`: the socket is told by its ends alone.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Ends some of the network namespace that this thread is in. Says how many, and the first error.
fn end_here(those: &[Owned]) -> io::Result<(usize, Option<Errno>)> {
    let diag = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    let (mut ended, mut failed) = (0, None);
    for one in those {
        send(diag.as_raw_fd(), &request(&one.listed), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let length = recv(diag.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        match error_of(answer.get(..length).unwrap_or_default()) {
            Some(0) => ended += 1,
            Some(error) => failed = failed.or(Some(Errno::from_raw(-error))),
            None => failed = failed.or(Some(Errno::EBADMSG)),
        }
    }
    Ok((ended, failed))
}

/// A request to end one.
fn request(listed: &Listed) -> [u8; REQUEST] {
    let mut message = [0; REQUEST];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        message[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&(REQUEST as u32).to_ne_bytes());
    put(&SOCK_DESTROY.to_ne_bytes());
    put(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    put(&[0; 8]);
    let (family, local, remote) = match (listed.local.ip(), listed.remote.ip()) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => (AddressFamily::Inet, padded(local), padded(remote)),
        (local, remote) => (AddressFamily::Inet6, wide(local), wide(remote)),
    };
    put(&[family as u8, listed.protocol.number(), 0, 0]);
    put(&u32::MAX.to_ne_bytes());
    put(&listed.local.port().to_be_bytes());
    put(&listed.remote.port().to_be_bytes());
    put(&local);
    put(&remote);
    put(&0u32.to_ne_bytes());
    put(&NO_COOKIE);
    message
}

fn padded(address: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&address.octets());
    bytes
}

fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The error number in an answer.
fn error_of(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(())?;
    Some(i32::from_ne_bytes(answer.get(HEAD..HEAD + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read() {
        let line =
            "   0: 0100007F:1BBD 0200000A:01BB 01 00000000:00000000 00:00000000 00000000  1000 0 4711 1 x";
        let one = parse(line, Protocol::Tcp).unwrap();
        assert_eq!(
            (one.local, one.remote),
            ("127.0.0.1:7101".parse().unwrap(), "10.0.0.2:443".parse().unwrap())
        );
        assert_eq!((one.state, one.inode, is_connected(&one)), (1, 4711, true));
        let six = address("B80D0120000000000000000001000000:0050").unwrap();
        assert_eq!(six, "[2001:db8::1]:80".parse().unwrap());
        assert!(address("00:1").is_none() && parse("sl", Protocol::Udp).is_none());
    }

    #[test]
    fn a_request_has_both_ends_in_network_order() {
        let listed = Listed {
            protocol: Protocol::Tcp,
            local: "127.0.0.1:258".parse().unwrap(),
            remote: "10.0.0.2:443".parse().unwrap(),
            state: 1,
            inode: 1,
        };
        let message = request(&listed);
        assert_eq!(message[HEAD..HEAD + 4], [2, 6, 0, 0]);
        assert_eq!(message[HEAD + 8..HEAD + 16], [1, 2, 1, 187, 127, 0, 0, 1]);
        assert_eq!(message[HEAD + 28..HEAD + 32], [10, 0, 0, 2]);
        assert_eq!(message[REQUEST - 8..], NO_COOKIE);
    }

    #[test]
    fn an_answer_says_what_failed() {
        let mut answer = [0u8; 36];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        answer[HEAD..HEAD + 4].copy_from_slice(&(-95i32).to_ne_bytes());
        assert_eq!(error_of(&answer), Some(-95));
        assert_eq!(error_of(&answer[..10]), None);
    }

    #[test]
    fn the_connections_of_a_process_are_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let found = of(&[std::process::id().cast_signed()]);
        let local = near.local_addr().unwrap().to_string();
        let one = found.iter().find(|one| one.local == local).unwrap();
        assert_eq!((one.protocol.as_str(), one.state.as_str()), ("tcp", "established"));
        assert!(found.iter().any(|one| one.state == "listen" && one.remote.is_none()));
    }
}
