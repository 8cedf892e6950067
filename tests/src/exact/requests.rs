//! Random requests: mostly what the literals of a bundle name, or just miss.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use guard_agent::policy::{Request, Resource, Spot};
use guard_common::action::{Action, TABLE};
use guard_common::class::{self, CAPABILITIES};
use guard_common::tables::Attributes;

use crate::generate::SUBJECTS;
use crate::kinds::Kind;
use crate::words::{Words, component};
use crate::world::{World, pick};

const FORMATS: [u64; 6] = [0o100000, 0o100000, 0o010000, 0o020000, 0o060000, 0o140000];
const DIRECTORY: u64 = 0o040000;
const SOCKET: u64 = 0o140000;
/// Protocol numbers that policy has names for, and others.
const PROTOCOLS: [u64; 8] = [6, 6, 17, 1, 132, 262, 0, 255];

/// A subject that no random bundle has.
pub(crate) const STRANGER: &str = "stranger";

/// A random request.
pub(crate) fn request(rng: &mut Rng, world: &World, words: &Words) -> Request {
    let actions: Vec<Action> = TABLE.iter().map(|row| row.action).collect();
    let common = [Action::FileRead, Action::FileWrite, Action::Exec, Action::NetConnect, Action::UnixConnect];
    let action = if rng.u8(0..3) == 0 { *pick(rng, &common) } else { *pick(rng, &actions) };
    let kind = *pick(rng, Kind::of(action));
    let (resource, attributes) = resource(rng, world, words, kind);
    Request {
        subject: pick(rng, &SUBJECTS).0.to_owned(),
        action: action.row().name.to_owned(),
        resource,
        attributes,
        listener: subject(rng),
        within: Vec::new(),
    }
}

fn resource(rng: &mut Rng, world: &World, words: &Words, kind: Kind) -> (Resource, Attributes) {
    let mut attributes = Attributes::default();
    let resource = match kind {
        Kind::File | Kind::Dir => {
            attributes.owner = owner(rng, words);
            attributes.kind = if kind == Kind::Dir { DIRECTORY } else { *pick(rng, &FORMATS) };
            attributes.set_id = rng.bool().into();
            attributes.fileless = (rng.u8(0..6) == 0).into();
            let spot = spot(rng, world, words, kind);
            if kind == Kind::Dir { Resource::Dir(spot) } else { Resource::File(spot) }
        }
        Kind::Unix => {
            attributes.kind = SOCKET;
            let spot = match rng.u8(0..4) {
                0 => Spot::Abstract(abstract_name(rng, words)),
                _ => spot(rng, world, words, kind),
            };
            attributes.abstract_name = matches!(spot, Spot::Abstract(_)).into();
            Resource::Unix(spot)
        }
        Kind::Endpoint => {
            attributes.protocol = *pick(rng, &PROTOCOLS);
            Resource::Endpoint(address(rng, &words.nets), port(rng, &words.ports))
        }
        Kind::Memory => Resource::Memory,
        Kind::Protocol => {
            let names = class::PROTOCOLS.map(|(_, name)| name);
            Resource::Protocol((*pick(rng, &[names.as_slice(), &["token-ring"]].concat())).to_owned())
        }
        Kind::Process => Resource::Process { id: rng.u32(1..9).to_string(), subject: subject(rng) },
        Kind::Capability => Resource::Capability((*pick(rng, &CAPABILITIES)).to_owned()),
        Kind::Machine => (*pick(rng, &[Resource::Machine, Resource::Kernel])).clone(),
    };
    (resource, attributes)
}

/// Whose label a process carries: none, that of a subject of the bundle, or of one it does not have.
fn subject(rng: &mut Rng) -> Option<String> {
    let names = [None, Some("web"), Some("web"), Some("other"), Some("third"), Some(STRANGER)];
    pick(rng, &names).map(str::to_owned)
}

fn owner(rng: &mut Rng, words: &Words) -> u64 {
    let owner = u64::from(*pick(rng, &words.owners));
    match rng.u8(0..4) {
        0 => owner.saturating_add(1),
        1 => owner.saturating_sub(1),
        _ => owner,
    }
}

fn spot(rng: &mut Rng, world: &World, words: &Words, kind: Kind) -> Spot {
    let builtins: &[u32] = match kind {
        Kind::File => &[
            class::OWN_ANONYMOUS,
            class::STDIO,
            class::TERMINAL,
            class::OWN_PROC,
            class::OWN_CGROUP,
            class::OWN_TMPFS,
        ],
        Kind::Dir => &[class::OWN_PROC, class::OWN_CGROUP, class::OWN_TMPFS],
        _ => &[class::OWN_ANONYMOUS, class::OWN_TMPFS],
    };
    let builtin = (rng.u8(0..8) == 0).then(|| *pick(rng, builtins));
    if let Some(class) = builtin.filter(|class| !class::WITH_NAMES.contains(class)) {
        return Spot::Builtin(class);
    }
    let path = path(rng, words, &|literal| world.follow(literal));
    if let Some(class) = builtin {
        return Spot::Inside { class, path };
    }
    match rng.u8(0..4) {
        // A place that perhaps no mount shows.
        0 => Spot::Place { device: world.device(rng), path },
        1 => {
            let (device, path) = world.locate(&path);
            Spot::Place { device, path }
        }
        _ => Spot::Path(path),
    }
}

/// A path that a literal names, or one nearby.
pub(crate) fn path(rng: &mut Rng, words: &Words, follow: &dyn Fn(&str) -> String) -> PathBuf {
    let literal: &String = pick(rng, &words.paths);
    let mut path = PathBuf::from(follow(literal));
    for _ in 0..*pick(rng, &[0, 0, 1, 1, 1, 2]) {
        step(rng, words, &mut path);
    }
    path
}

/// Moves a path a little.
fn step(rng: &mut Rng, words: &Words, path: &mut PathBuf) {
    let pattern = pick(rng, &words.patterns).clone();
    let last = path.file_name().unwrap_or_default().as_bytes().to_vec();
    match rng.u8(0..11) {
        0 | 1 => path.push(component(rng)),
        2 | 3 => path.push(pick(rng, &words.names)),
        4 | 5 => path.push(OsStr::from_bytes(&matching(rng, &pattern))),
        6 if path.parent().is_some_and(|parent| parent != Path::new("/")) => {
            path.pop();
        }
        7 if !last.is_empty() => path.set_file_name(OsStr::from_bytes(&[&last[..], b"x"].concat())),
        8 if last.len() > 1 => path.set_file_name(OsStr::from_bytes(&last[..last.len() - 1])),
        9 => {
            // Another name in the middle.
            let mut other = PathBuf::from("/");
            let count = path.components().count().saturating_sub(1);
            let at = rng.usize(0..=count);
            for (index, part) in path.components().skip(1).enumerate() {
                if index == at {
                    other.push(pick(rng, &words.names));
                }
                other.push(part);
            }
            *path = other;
        }
        10 if rng.u8(0..8) == 0 => {
            for _ in 0..70 {
                path.push("d");
            }
            path.push(component(rng));
        }
        10 if rng.u8(0..4) == 0 => path.push(OsStr::from_bytes(b"\xff\xfe.pem")),
        _ => path.push("x"),
    }
}

/// A component that the pattern matches, or nearly.
pub(crate) fn matching(rng: &mut Rng, pattern: &str) -> Vec<u8> {
    let (prefix, suffix) = pattern.split_once('*').unwrap_or((pattern, ""));
    let between = *pick(rng, &["", "", "-", "abc", "a-long-part-in-the-middle-of-it"]);
    let mut name = [prefix, between, suffix].concat().into_bytes();
    if rng.u8(0..3) == 0 && name.len() > 1 {
        name.remove(rng.usize(0..name.len()));
    }
    name.retain(|byte| *byte != b'/' && *byte != 0);
    if name.is_empty() || name == b"." || name == b".." { b"n".to_vec() } else { name }
}

fn abstract_name(rng: &mut Rng, words: &Words) -> String {
    let name = pick(rng, &words.abstracts).clone();
    match rng.u8(0..4) {
        0 => format!("{name}x"),
        1 if name.len() > 1 => name[..name.len() - 1].to_owned(),
        _ => name,
    }
}

/// The first or last address of a network, one of its neighbours, or one inside.
pub(crate) fn address(rng: &mut Rng, nets: &[String]) -> IpAddr {
    let parsed = pick(rng, nets)
        .split_once('/')
        .and_then(|(address, length)| Some((address.parse::<IpAddr>().ok()?, length.parse::<u32>().ok()?)));
    let Some((address, length)) = parsed else { return Ipv4Addr::LOCALHOST.into() };
    match address {
        IpAddr::V4(v4) => {
            let first = u32::from(v4);
            let last = first | u32::MAX.checked_shr(length).unwrap_or(0);
            let inside = rng.u32(first..=last);
            let near = [first, last, first.wrapping_sub(1), last.wrapping_add(1), inside];
            let v4 = Ipv4Addr::from(*pick(rng, &near));
            if rng.u8(0..4) == 0 { v4.to_ipv6_mapped().into() } else { v4.into() }
        }
        IpAddr::V6(v6) => {
            let first = u128::from(v6);
            let last = first | u128::MAX.checked_shr(length).unwrap_or(0);
            let inside = rng.u128(first..=last);
            let near = [first, last, first.wrapping_sub(1), last.wrapping_add(1), inside];
            Ipv6Addr::from(*pick(rng, &near)).into()
        }
    }
}

/// A port or one of its neighbours.
pub(crate) fn port(rng: &mut Rng, ports: &[u16]) -> u16 {
    let port = *pick(rng, ports);
    *pick(rng, &[port, port, port.saturating_sub(1), port.saturating_add(1)])
}
