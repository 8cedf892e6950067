//! Random system calls on the scene, mostly where the literals of the live bundle are.

use std::path::{Path, PathBuf};

use fastrand::Rng;
use nix::libc;

use super::call::{Call, Name, Socket, Transport};
use super::ground::{Kind, Thing};
use super::scene::{Scene, is_directory, is_program, is_socket};
use crate::requests;
use crate::words::Words;
use crate::world::pick;

/// A random call.
pub(super) fn call(rng: &mut Rng, scene: &Scene, words: &Words, paths: &[PathBuf], ground: &[Thing]) -> Call {
    if rng.u8(0..6) == 0 && !ground.is_empty() {
        let thing = pick(rng, ground);
        return on_ground(rng, thing);
    }
    match rng.u8(0..20) {
        0..=8 => open(rng, scene, words, paths),
        9 => Call::OpenMemfd { flags: flags(rng, Kind::File) },
        10 => Call::Map { path: name(rng, scene, words, paths, &|path| !is_directory(path)) },
        11 if rng.bool() => Call::MapAnonymous,
        11..=13 => Call::Exec { path: name(rng, scene, words, paths, &is_program) },
        14..=16 => Call::Connect {
            address: (requests::address(rng, &words.nets), requests::port(rng, &words.ports)).into(),
            transport: *pick(rng, &[Transport::Tcp, Transport::Udp]),
        },
        17 => Call::UnixConnect { socket: socket(rng, scene, words, paths, false) },
        18 => Call::UnixSend { socket: socket(rng, scene, words, paths, true) },
        _ => Call::Netlink { route: rng.bool() },
    }
}

fn open(rng: &mut Rng, scene: &Scene, words: &Words, paths: &[PathBuf]) -> Call {
    let path = name(rng, scene, words, paths, &|path| !is_socket(path));
    let kind = match path.path() {
        path if is_directory(&path) => Kind::Directory,
        path if is_program(&path) => Kind::Program,
        _ => Kind::File,
    };
    Call::Open { flags: flags(rng, kind), path, detour: rng.u8(0..5) == 0 }
}

/// What can be done on ground of the process's own.
fn on_ground(rng: &mut Rng, thing: &Thing) -> Call {
    let path = Name::new(&thing.path);
    match thing.kind {
        Kind::Socket => Call::UnixConnect { socket: Socket::Path(path) },
        Kind::Program if rng.bool() => Call::Exec { path },
        Kind::File | Kind::Program if rng.u8(0..6) == 0 => Call::Map { path },
        kind => Call::Open { flags: flags(rng, kind), path, detour: rng.u8(0..5) == 0 },
    }
}

/// Any flags with which opening this works.
fn flags(rng: &mut Rng, kind: Kind) -> i32 {
    let mut flags = libc::O_NONBLOCK;
    if kind == Kind::Directory {
        return flags | if rng.bool() { libc::O_DIRECTORY } else { 0 };
    }
    flags |= *pick(rng, &[libc::O_RDONLY, libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_ACCMODE]);
    for flag in [libc::O_APPEND, libc::O_CREAT, libc::O_SYNC, libc::O_NOATIME] {
        // O_NOATIME is refused to everybody but the owner.
        if rng.u8(0..4) == 0 && flag != libc::O_NOATIME {
            flags |= flag;
        }
    }
    // What is executed must stay what it is.
    if rng.u8(0..4) == 0 && kind != Kind::Program {
        flags |= libc::O_TRUNC;
    }
    flags
}

/// The path of something that `fits`, by one of the ways to it.
fn name(
    rng: &mut Rng,
    scene: &Scene,
    words: &Words,
    paths: &[PathBuf],
    fits: &dyn Fn(&Path) -> bool,
) -> Name {
    let near = pick(rng, &words.paths).clone();
    let inside = rng.u8(0..3) > 0;
    let mut chosen: Option<PathBuf> = None;
    for _ in 0..40 {
        let path = pick(rng, paths);
        if fits(path) {
            chosen = Some(path.clone());
            if !inside || path.starts_with(&near) {
                break;
            }
        }
    }
    let path = chosen.unwrap_or_else(|| PathBuf::from("/dev/null"));
    let way = (rng.u8(0..3) == 0).then(|| scene.another_way(rng, &path)).flatten();
    Name::new(way.unwrap_or(path))
}

fn socket(rng: &mut Rng, scene: &Scene, words: &Words, paths: &[PathBuf], datagrams: bool) -> Socket {
    if rng.u8(0..3) == 0 {
        return Socket::Abstract((*pick(rng, Scene::abstract_names(datagrams))).to_owned());
    }
    Socket::Path(name(rng, scene, words, paths, &is_socket))
}
