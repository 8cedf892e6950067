//! Random operations on a tree.

use fastrand::Rng;
use nix::libc::{self, c_int};

use crate::operation::{EXCHANGE, Node, Operation, Then};
use crate::rules::PORTS;
use crate::tree::{INTERPRETER, Kind, NAMES, Thing, join};

/// Paths that operations are made on: what was planned, and what earlier operations may have made.
struct Known {
    directories: Vec<String>,
    others: Vec<String>,
    /// Devices of the plan.
    devices: Vec<String>,
    /// How many of `others` were planned.
    planned: usize,
}

/// So many random operations, of all kinds.
pub(crate) fn operations(rng: &mut Rng, things: &[Thing], count: usize) -> Vec<Operation> {
    let directories = vec![String::new()];
    let mut known = Known { directories, others: Vec::new(), devices: Vec::new(), planned: 0 };
    for Thing { path, kind } in things {
        let list = if matches!(kind, Kind::Directory) { &mut known.directories } else { &mut known.others };
        list.push(path.clone());
        if matches!(kind, Kind::Screen | Kind::Full) {
            known.devices.push(path.clone());
        }
    }
    known.planned = known.others.len();
    (0..count).map(|_| known.operation(rng)).collect()
}

fn pick<T: Clone>(rng: &mut Rng, list: &[T]) -> Option<T> {
    (!list.is_empty()).then(|| list[rng.usize(..list.len())].clone())
}

impl Known {
    /// A path with something there, most of the time.
    fn some(&self, rng: &mut Rng) -> String {
        match rng.u8(0..20) {
            0..=2 => self.directory(rng),
            3..=11 => pick(rng, &self.others[..self.planned]).unwrap_or_default(),
            12..=17 => pick(rng, &self.others).unwrap_or_default(),
            _ => self.place(rng),
        }
    }

    fn directory(&self, rng: &mut Rng) -> String {
        let mut path = pick(rng, &self.directories).unwrap_or_default();
        if path.is_empty() && rng.bool() {
            path = pick(rng, &self.directories).unwrap_or_default();
        }
        if path.is_empty() { ".".to_owned() } else { path }
    }

    /// A path in a directory, with something there or not.
    fn place(&self, rng: &mut Rng) -> String {
        let directory = pick(rng, &self.directories).unwrap_or_default();
        join(&directory, NAMES[rng.usize(..NAMES.len())])
    }

    /// The path of something new.
    fn new_thing(&mut self, rng: &mut Rng) -> String {
        let path = self.place(rng);
        self.others.push(path.clone());
        path
    }

    fn new_directory(&mut self, rng: &mut Rng) -> String {
        let path = self.place(rng);
        if path.matches('/').count() < 4 {
            self.directories.push(path.clone());
        }
        path
    }

    fn operation(&mut self, rng: &mut Rng) -> Operation {
        match rng.u8(0..100) {
            0..=24 => self.open(rng),
            25..=27 => Operation::Open {
                path: pick(rng, &self.devices).unwrap_or_else(|| self.some(rng)),
                flags: libc::O_NONBLOCK | [libc::O_RDONLY, libc::O_RDWR][rng.usize(..2)],
                then: Then::Control(CONTROLS[rng.usize(..CONTROLS.len())]),
            },
            28..=31 => Operation::Truncate { path: self.some(rng), length: rng.i64(0..40) },
            32..=37 => {
                Operation::List { path: if rng.u8(0..6) == 0 { self.some(rng) } else { self.directory(rng) } }
            }
            38..=41 => Operation::MakeDirectory { path: self.new_directory(rng) },
            42..=44 => Operation::RemoveDirectory {
                path: if rng.u8(0..5) == 0 { self.some(rng) } else { self.directory(rng) },
            },
            45..=50 => Operation::Unlink { path: self.some(rng) },
            51..=53 => {
                let target = if rng.bool() {
                    NAMES[rng.usize(..NAMES.len())].to_owned()
                } else {
                    format!("../{}", self.some(rng))
                };
                Operation::Symlink { target, path: self.new_thing(rng) }
            }
            54..=60 => {
                let nodes = [Node::File, Node::Fifo, Node::Socket, Node::Screen, Node::Full, Node::Block];
                let path = self.new_thing(rng);
                Operation::MakeNode { path, node: nodes[rng.usize(..nodes.len())] }
            }
            61..=62 => Operation::BindUnix { path: self.new_thing(rng) },
            63..=69 => {
                let (old, follow) = (self.some(rng), rng.u8(0..4) == 0);
                Operation::Link { new: self.beside(rng, &old), old, follow }
            }
            70..=86 => {
                let old = if rng.u8(0..5) == 0 { self.directory(rng) } else { self.some(rng) };
                match rng.u8(0..10) {
                    0..=2 => Operation::Rename { new: self.some(rng), old, flags: EXCHANGE },
                    3 => {
                        Operation::Rename { new: self.beside(rng, &old), old, flags: libc::RENAME_NOREPLACE }
                    }
                    _ => Operation::Rename { new: self.beside(rng, &old), old, flags: 0 },
                }
            }
            87..=91 => Operation::Execute {
                path: if rng.u8(0..8) == 0 { INTERPRETER.to_owned() } else { self.some(rng) },
            },
            92..=95 => Operation::BindTcp { port: PORTS[rng.usize(..PORTS.len())], v6: rng.u8(0..3) == 0 },
            _ => Operation::ConnectTcp { port: PORTS[rng.usize(..PORTS.len())], v6: rng.u8(0..3) == 0 },
        }
    }

    /// Where something goes: often another name in its directory.
    fn beside(&mut self, rng: &mut Rng, old: &str) -> String {
        let path = match old.rsplit_once('/') {
            Some((directory, _)) if rng.u8(0..3) == 0 => join(directory, NAMES[rng.usize(..NAMES.len())]),
            _ => self.place(rng),
        };
        self.others.push(path.clone());
        path
    }

    fn open(&mut self, rng: &mut Rng) -> Operation {
        if rng.u8(0..14) == 0 {
            let flags = libc::O_TMPFILE | if rng.bool() { libc::O_RDWR } else { libc::O_WRONLY };
            return Operation::Open { path: self.directory(rng), flags, then: Then::Write };
        }
        let mut flags = libc::O_NONBLOCK
            | [libc::O_RDONLY, libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_ACCMODE][match rng
                .u8(0..20)
            {
                0 => 4,
                number => usize::from(number) % 4,
            }];
        let rare = |rng: &mut Rng, flag: c_int, one_in: u8| if rng.u8(0..one_in) == 0 { flag } else { 0 };
        flags |= rare(rng, libc::O_TRUNC, 5) | rare(rng, libc::O_APPEND, 5) | rare(rng, libc::O_NOFOLLOW, 8);
        flags |= rare(rng, libc::O_DIRECTORY, 20) | rare(rng, libc::O_PATH, 25);
        let path = if rng.u8(0..3) == 0 && flags & libc::O_PATH == 0 {
            flags |= libc::O_CREAT | rare(rng, libc::O_EXCL, 4);
            if rng.bool() { self.new_thing(rng) } else { self.some(rng) }
        } else {
            self.some(rng)
        };
        let then = match rng.u8(0..10) {
            0..=1 => Then::Read,
            2..=3 => Then::Write,
            4 => Then::Truncate(rng.i64(0..40)),
            5..=7 => Then::Control(CONTROLS[rng.usize(..CONTROLS.len())]),
            _ => Then::Nothing,
        };
        Operation::Open { path, flags, then }
    }
}

/// Commands of ioctl(2): one that no device of ours knows (twice), FIONBIO, and TCGETS, which only asks.
const CONTROLS: [u32; 4] = [0x7a01, 0x7a01, 0x5421, ASKS];
/// TCGETS (include/uapi/asm-generic/ioctls.h): it asks a terminal for its settings.
pub(crate) const ASKS: u32 = 0x5401;
/// The command above that belongs to the descriptor and not to the device.
pub(crate) const OF_THE_DESCRIPTOR: u32 = 0x5421;
