//! What a system call should give: which decisions it is, and what Cedar says to each.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use guard_agent::policy::{Diagnostics, Oracle, Request, Resource, Spot};
use guard_common::action::{Action, Coverage};
use guard_common::class;
use guard_common::tables::{Attributes, DEVICE_MINORS, DEVICE_PATHS};
use guard_tests::raw;
use nix::libc;
use nix::unistd::Pid;

use super::call::{Call, Socket, Transport};
use super::ground;
use super::worker::Worker;

/// One decision: everything in `actions` on one resource, or at least one of them if `either`.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    actions: Vec<Action>,
    either: bool,
    resource: Resource,
    attributes: Attributes,
}

/// What should come of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// The error number of a refusal.
    pub(super) refused: Option<i32>,
    /// How many decisions would be denied by the candidate policy set.
    pub(super) would_deny: u64,
}

const DIRECTORY: u64 = 0o040000;
const SOCKET: u64 = 0o140000;
const REGULAR: u64 = 0o100000;
const CHARACTER: u64 = 0o020000;

/// A file as the kernel sees it, found by a path.
#[derive(Clone)]
struct Seen {
    /// Where it is, or where the device usually is, if it is judged by what it is.
    spot: Spot,
    attributes: Attributes,
}

/// Follows `path` as open(2) does for a process with this number.
fn look(path: &Path, pid: Pid) -> Option<Seen> {
    let outside = ground::seen_from_outside(path, pid);
    let file = File::from(raw::open_path(outside.as_deref().unwrap_or(path)).ok()?);
    let data = file.metadata().ok()?;
    let spot = match ground::spot(path, pid) {
        Some(spot) => spot,
        None => Spot::Path(std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?),
    };
    let mode = u64::from(data.mode());
    let attributes = Attributes {
        owner: data.uid().into(),
        kind: mode & 0o170000,
        set_id: (mode & 0o6000 != 0).into(),
        fileless: (data.nlink() == 0).into(),
        ..Attributes::default()
    };
    let number = (nix::sys::stat::major(data.rdev()), nix::sys::stat::minor(data.rdev()));
    let known = DEVICE_MINORS.iter().position(|minor| number == (1, u64::from(*minor)));
    let device = known.filter(|_| attributes.kind == CHARACTER).map(|index| DEVICE_PATHS[index]);
    Some(Seen { spot: device.map_or(spot, |device| Spot::Path(device.into())), attributes })
}

impl Seen {
    fn decision(self, actions: &[Action], either: bool) -> Decision {
        let directory = self.attributes.kind == DIRECTORY;
        let resource = if directory { Resource::Dir(self.spot) } else { Resource::File(self.spot) };
        Decision { actions: actions.to_vec(), either, resource, attributes: self.attributes }
    }

    fn is_directory(&self) -> bool {
        self.attributes.kind == DIRECTORY
    }
}

/// The actions of each decision of an open with these flags: of opening, then of cutting the file short.
fn opening(flags: i32, kind: u64) -> Vec<Vec<Action>> {
    let mut decisions = vec![access(flags, kind)];
    if flags & libc::O_TRUNC != 0 && kind == REGULAR {
        decisions.push(vec![Action::FileTruncate]);
    }
    decisions
}

/// The actions of opening with these flags.
fn access(flags: i32, kind: u64) -> Vec<Action> {
    let access = flags & libc::O_ACCMODE;
    if access == libc::O_ACCMODE {
        return vec![Action::FileIoctl];
    }
    if kind == DIRECTORY {
        return vec![Action::DirList];
    }
    let mut actions = Vec::new();
    if access != libc::O_WRONLY {
        actions.push(Action::FileRead);
    }
    if access != libc::O_RDONLY {
        actions.push(if flags & libc::O_APPEND != 0 { Action::FileAppend } else { Action::FileWrite });
    }
    actions
}

/// The decisions of a call by this process, in the order in which they are made; nothing if it cannot be
/// told.
pub(super) fn decisions(call: &Call, worker: &Worker) -> Option<Vec<Decision>> {
    let look = |path: &Path| look(path, worker.pid());
    let of = |actions: &[Action], resource: Resource, attributes: Attributes| Decision {
        actions: actions.to_vec(),
        either: false,
        resource,
        attributes,
    };
    Some(match call {
        Call::Quit => return None,
        Call::Open { path, flags, .. } => {
            let seen = look(&path.path())?;
            let decisions = opening(*flags, seen.attributes.kind);
            decisions.iter().map(|actions| seen.clone().decision(actions, false)).collect()
        }
        Call::OpenMemfd { flags } => {
            let owner = worker.user.into();
            let attributes =
                Attributes { owner, kind: REGULAR, set_id: 0, fileless: 1, ..Attributes::default() };
            let resource = Resource::File(Spot::Builtin(class::OWN_ANONYMOUS));
            let decisions = opening(*flags, REGULAR);
            decisions.iter().map(|actions| of(actions, resource.clone(), attributes)).collect()
        }
        Call::Map { path } => {
            let seen = look(&path.path()).filter(|seen| !seen.is_directory())?;
            let map = seen.decision(&[Action::ExecMap], false);
            vec![Decision { actions: vec![Action::FileRead], ..map.clone() }, map]
        }
        Call::MapAnonymous => vec![of(&[Action::ExecMap], Resource::Memory, Attributes::default())],
        Call::Exec { path } => {
            let path = path.path();
            let program = look(&path)?;
            let either = [Action::Exec, Action::ExecMap];
            let exec = |seen: Seen| {
                let opened = seen.decision(&either, true);
                let decided = Decision { actions: vec![Action::Exec], either: false, ..opened.clone() };
                [opened, decided]
            };
            let mut all = exec(program).to_vec();
            match interpreter(&ground::seen_from_outside(&path, worker.pid()).unwrap_or(path))? {
                Interpreter::None => {}
                Interpreter::Script(path) => all.extend(exec(look(&path)?)),
                Interpreter::Elf(path) => all.push(look(&path)?.decision(&either, true)),
            }
            all
        }
        Call::Connect { address, transport } => {
            let protocol = if *transport == Transport::Tcp { 6 } else { 17 };
            let attributes = Attributes { protocol, ..Attributes::default() };
            let resource = Resource::Endpoint(routed(address.ip()), address.port());
            vec![of(&[Action::NetConnect], resource, attributes)]
        }
        Call::UnixConnect { socket } => vec![unix(socket, Action::UnixConnect, &look)?],
        Call::UnixSend { socket } => vec![unix(socket, Action::UnixSend, &look)?],
        Call::Netlink { route } => {
            let name = if *route { "netlink/route" } else { "netlink/kobject-uevent" };
            let one = of(&[Action::NetRaw], Resource::Protocol(name.to_owned()), Attributes::default());
            // To make it, and to connect it.
            vec![one.clone(), one]
        }
        Call::Send { address } => {
            // The kernel refuses to send to port 0 by itself, after it was decided.
            let attributes = Attributes { protocol: 17, ..Attributes::default() };
            vec![of(&[Action::NetSend], Resource::Endpoint(routed(address.ip()), address.port()), attributes)]
        }
        Call::Bind { address, transport } => {
            let protocol = if *transport == Transport::Tcp { 6 } else { 17 };
            let attributes = Attributes { protocol, ..Attributes::default() };
            let near = address.ip().to_canonical();
            vec![of(&[Action::NetBind], Resource::Endpoint(near, address.port()), attributes)]
        }
    })
}

/// Where an address leads: the unspecified one is loopback.
fn routed(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped() == Some(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn unix(socket: &Socket, action: Action, look: &dyn Fn(&Path) -> Option<Seen>) -> Option<Decision> {
    let (spot, name) = match socket {
        Socket::Path(path) => (look(&path.path())?.spot, 0),
        Socket::Abstract(name) => (Spot::Abstract(name.clone()), 1),
    };
    Some(Decision {
        actions: vec![action],
        either: false,
        resource: Resource::Unix(spot),
        attributes: Attributes { kind: SOCKET, abstract_name: name, ..Attributes::default() },
    })
}

enum Interpreter {
    None,
    Script(PathBuf),
    Elf(PathBuf),
}

/// What a program asks to be interpreted by; nothing if it cannot be executed.
fn interpreter(path: &Path) -> Option<Interpreter> {
    let bytes = std::fs::read(path).ok()?;
    if let Some(line) = bytes.strip_prefix(b"#!") {
        let line = String::from_utf8_lossy(line);
        return Some(Interpreter::Script(line.trim().into()));
    }
    if !bytes.starts_with(b"\x7fELF") {
        return None;
    }
    // The programs of the scene hold the name of their interpreter at the end, or none.
    let name = bytes.strip_suffix(b"\0").and_then(|rest| rest.rsplit(|byte| *byte == 0x05).next());
    match name.filter(|name| name.starts_with(b"/")) {
        Some(name) => Some(Interpreter::Elf(String::from_utf8_lossy(name).into_owned().into())),
        None => Some(Interpreter::None),
    }
}

/// Who listens at a resource: what is on a subject's own ground it made itself, and nobody with a label
/// made anything else.
fn listener(subject: &str, resource: &Resource) -> Option<String> {
    let own = matches!(resource, Resource::Unix(Spot::Inside { class: class::OWN_TMPFS, .. }));
    own.then(|| subject.to_owned())
}

/// What Cedar makes of the decisions of a call by `subject`.
pub(super) fn expected(
    oracle: &Oracle<'_>,
    subject: &str,
    decisions: &[Decision],
) -> Result<Expected, Diagnostics> {
    let mut expected = Expected::default();
    for decision in decisions {
        let (mut denied, mut reported, mut kept, mut count) = (0, 0, 0, 0);
        let mut refusals: Vec<(i32, bool)> = Vec::new();
        for action in &decision.actions {
            if matches!(action.row().coverage, Coverage::NotYet) {
                continue;
            }
            let verdict = oracle.decide(&Request {
                subject: subject.to_owned(),
                action: action.row().name.to_owned(),
                resource: decision.resource.clone(),
                attributes: decision.attributes,
                listener: listener(subject, &decision.resource),
                within: Vec::new(),
            })?;
            count += 1;
            reported += u32::from(verdict.would_deny());
            kept += u32::from(verdict.candidate.allow);
            if !verdict.allowed() {
                denied += 1;
                let quiet = action.quiet_errno().filter(|_| verdict.quiet);
                refusals.push((quiet.unwrap_or(action.errno()), quiet.is_some()));
            }
        }
        let enough = if decision.either { count } else { 1 };
        if count > 0 && denied >= enough {
            // Of two rights that are enough each, the first is the one that is missed; of several that are
            // needed, one that is refused aloud is heard.
            let loud = refusals.iter().find(|(_, quiet)| !quiet && !decision.either);
            expected.refused = loud.or(refusals.first()).map(|(errno, _)| *errno);
            return Ok(expected);
        }
        // Of two rights that are enough each, the candidate set would have to leave none.
        let would_deny = if decision.either { count > 0 && kept == 0 } else { reported > 0 };
        expected.would_deny += u64::from(would_deny);
    }
    Ok(expected)
}

impl std::fmt::Display for Decision {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let actions: Vec<&str> = self.actions.iter().map(|action| action.row().name).collect();
        let how = if self.either { " or " } else { " and " };
        let Attributes { owner, kind, set_id, fileless, .. } = self.attributes;
        write!(out, "{} on {:?}", actions.join(how), self.resource)?;
        write!(out, " owner={} kind={kind:o}", owner.cast_signed())?;
        write!(out, " set_id={} fileless={}", set_id.cast_signed(), fileless.cast_signed())
    }
}
