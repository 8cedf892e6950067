//! Operations on a tree and on TCP ports, and how a process makes them.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use guard_tests::raw;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::libc::{self, c_int};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{LinkatFlags, ftruncate, linkat, read, truncate, write};

use crate::tree::{block, full, screen};

/// What is done with what was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    Nothing,
    Read,
    Write,
    Truncate(i64),
    Control(u32),
}

/// What a new node is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Node {
    File,
    Fifo,
    Socket,
    Screen,
    Full,
    Block,
}

/// One operation. Paths are seen from the tree's root.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Open { path: String, flags: c_int, then: Then },
    Truncate { path: String, length: i64 },
    List { path: String },
    MakeDirectory { path: String },
    RemoveDirectory { path: String },
    Unlink { path: String },
    Symlink { target: String, path: String },
    MakeNode { path: String, node: Node },
    BindUnix { path: String },
    Link { old: String, new: String, follow: bool },
    Rename { old: String, new: String, flags: u32 },
    Execute { path: String },
    BindTcp { port: u16, v6: bool },
    ConnectTcp { port: u16, v6: bool },
}

/// What an operation gives: the error number of the call, or 0; that of what was done then, or
/// [`NOT_DONE`]; and whether there is something at the path of an open that creates.
pub(crate) type Answer = [i32; 3];

/// The second call was not made.
pub(crate) const NOT_DONE: i32 = -1;
/// Something failed that no error number describes: a program that was killed.
const KILLED: i32 = 1000;

/// `include/uapi/linux/fs.h`.
pub(crate) const EXCHANGE: u32 = libc::RENAME_EXCHANGE;

impl Operation {
    /// Kinds of operations, in the order of the summary.
    pub(crate) const KINDS: [&str; 14] = [
        "open",
        "truncate",
        "readdir",
        "mkdir",
        "rmdir",
        "unlink",
        "symlink",
        "mknod",
        "unix bind",
        "link",
        "rename",
        "exec",
        "tcp bind",
        "tcp connect",
    ];

    /// Which of [`Self::KINDS`] it is.
    pub(crate) fn kind(&self) -> usize {
        match self {
            Self::Open { .. } => 0,
            Self::Truncate { .. } => 1,
            Self::List { .. } => 2,
            Self::MakeDirectory { .. } => 3,
            Self::RemoveDirectory { .. } => 4,
            Self::Unlink { .. } => 5,
            Self::Symlink { .. } => 6,
            Self::MakeNode { .. } => 7,
            Self::BindUnix { .. } => 8,
            Self::Link { .. } => 9,
            Self::Rename { .. } => 10,
            Self::Execute { .. } => 11,
            Self::BindTcp { .. } => 12,
            Self::ConnectTcp { .. } => 13,
        }
    }

    /// The paths it is about.
    pub(crate) fn paths(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Open { path, .. }
            | Self::Truncate { path, .. }
            | Self::List { path }
            | Self::MakeDirectory { path }
            | Self::RemoveDirectory { path }
            | Self::Unlink { path }
            | Self::Symlink { path, .. }
            | Self::MakeNode { path, .. }
            | Self::BindUnix { path }
            | Self::Execute { path } => (Some(path), None),
            Self::Link { old, new, .. } | Self::Rename { old, new, .. } => (Some(old), Some(new)),
            Self::BindTcp { .. } | Self::ConnectTcp { .. } => (None, None),
        }
    }

    /// Whether a link at the end of the first path is followed.
    pub(crate) fn follows(&self) -> bool {
        match self {
            Self::Open { flags, .. } => {
                flags & libc::O_NOFOLLOW == 0 && (flags & libc::O_CREAT == 0 || flags & libc::O_EXCL == 0)
            }
            Self::Truncate { .. } | Self::List { .. } | Self::Execute { .. } => true,
            Self::Link { follow, .. } => *follow,
            _ => false,
        }
    }

    /// Whether it can change a tree.
    pub(crate) fn changes(&self) -> bool {
        match self {
            Self::Open { flags, then, .. } => {
                flags & (libc::O_CREAT | libc::O_TRUNC) != 0
                    || matches!(then, Then::Write | Then::Truncate(_))
            }
            Self::List { .. } | Self::Execute { .. } | Self::BindTcp { .. } | Self::ConnectTcp { .. } => {
                false
            }
            _ => true,
        }
    }

    /// Makes it, in the tree that is the working directory.
    pub(crate) fn make(&self) -> Answer {
        let (call, then) = self.attempt();
        let there = match self {
            Self::Open { path, flags, .. } if flags & libc::O_CREAT != 0 => {
                i32::from(fs::metadata(path).is_ok())
            }
            _ => 0,
        };
        [call, then, there]
    }

    fn attempt(&self) -> (i32, i32) {
        let result = match self {
            Self::Open { path, flags, then } => return opened(path, *flags, *then),
            Self::List { path } => return listed(path),
            Self::Truncate { path, length } => truncate(path.as_str(), *length),
            Self::MakeDirectory { path } => {
                nix::unistd::mkdir(path.as_str(), Mode::from_bits_truncate(0o777))
            }
            Self::RemoveDirectory { path } => number(fs::remove_dir(path)),
            Self::Unlink { path } => nix::unistd::unlink(path.as_str()),
            Self::Symlink { target, path } => number(std::os::unix::fs::symlink(target, path)),
            Self::MakeNode { path, node } => make_node(path, *node),
            Self::BindUnix { path } => number(UnixListener::bind(path).map(drop)),
            Self::Link { old, new, follow } => {
                let flags = if *follow { LinkatFlags::AT_SYMLINK_FOLLOW } else { LinkatFlags::empty() };
                linkat(AT_FDCWD, old.as_str(), AT_FDCWD, new.as_str(), flags)
            }
            Self::Rename { old, new, flags } => number(raw::rename(Path::new(old), Path::new(new), *flags)),
            Self::Execute { path } => number(raw::vfork_exec(Path::new(path))),
            Self::BindTcp { port, v6 } => tcp(*v6).and_then(|socket| {
                setsockopt(&socket, sockopt::ReuseAddr, &true)?;
                bind(socket.as_raw_fd(), &address(*port, *v6))
            }),
            Self::ConnectTcp { port, v6 } => {
                tcp(*v6).and_then(|socket| connect(socket.as_raw_fd(), &address(*port, *v6)))
            }
        };
        (error(result), NOT_DONE)
    }
}

fn error<T>(result: nix::Result<T>) -> i32 {
    result.err().map_or(0, |errno| errno as i32)
}

fn number<T>(result: io::Result<T>) -> nix::Result<T> {
    result.map_err(|error| error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw))
}

fn opened(path: &str, flags: c_int, then: Then) -> (i32, i32) {
    let mode = Mode::from_bits_truncate(0o666);
    let fd = match open(path, OFlag::from_bits_retain(flags | libc::O_CLOEXEC), mode) {
        Ok(fd) => fd,
        Err(errno) => return (errno as i32, NOT_DONE),
    };
    let result = match then {
        Then::Nothing => return (0, NOT_DONE),
        Then::Read => error(read(&fd, &mut [0; 64])),
        Then::Write => error(write(&fd, b"written")),
        Then::Truncate(length) => error(ftruncate(&fd, length)),
        Then::Control(command) => error(number(raw::ioctl(fd.as_fd(), command, 0))),
    };
    (0, result)
}

fn listed(path: &str) -> (i32, i32) {
    match number(fs::read_dir(path)) {
        // Which names there are is what the comparison of trees is about.
        Ok(mut entries) => {
            let failed = entries.find_map(Result::err).map_or(Ok(()), Err);
            (0, error(number(failed)))
        }
        Err(errno) => (errno as i32, NOT_DONE),
    }
}

fn make_node(path: &str, node: Node) -> nix::Result<()> {
    let (kind, mode, device) = match node {
        Node::File => (SFlag::S_IFREG, 0o666, 0),
        Node::Fifo => (SFlag::S_IFIFO, 0o666, 0),
        Node::Socket => (SFlag::S_IFSOCK, 0o666, 0),
        Node::Screen => (SFlag::S_IFCHR, 0o666, screen()),
        Node::Full => (SFlag::S_IFCHR, 0o666, full()),
        Node::Block => (SFlag::S_IFBLK, 0, block()),
    };
    mknod(path, kind, Mode::from_bits_truncate(mode), device)
}

fn tcp(v6: bool) -> nix::Result<OwnedFd> {
    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
}

fn address(port: u16, v6: bool) -> SockaddrStorage {
    let address: IpAddr = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    SockaddrStorage::from(SocketAddr::from((address, port)))
}

/// An answer in words.
pub(crate) fn words(answer: Answer) -> String {
    let word = |number: i32| match number {
        0 => "works".to_owned(),
        number if number >= KILLED => "kills".to_owned(),
        number => format!("{:?}", Errno::from_raw(number)),
    };
    let [call, then, there] = answer;
    let then = if then == NOT_DONE { String::new() } else { format!(", then {}", word(then)) };
    format!("{}{then}{}", word(call), if there != 0 { ", and it is there" } else { "" })
}

/// The flags of open(2) that are used here.
const FLAGS: [(c_int, &str); 9] = [
    (libc::O_CREAT, "O_CREAT"),
    (libc::O_EXCL, "O_EXCL"),
    (libc::O_TRUNC, "O_TRUNC"),
    (libc::O_APPEND, "O_APPEND"),
    (libc::O_NOFOLLOW, "O_NOFOLLOW"),
    (libc::O_PATH, "O_PATH"),
    // It contains O_DIRECTORY.
    (libc::O_TMPFILE, "O_TMPFILE"),
    (libc::O_DIRECTORY, "O_DIRECTORY"),
    (libc::O_NONBLOCK, "O_NONBLOCK"),
];

fn flags(bits: c_int) -> String {
    let mut text = ["O_RDONLY", "O_WRONLY", "O_RDWR", "3"][(bits & libc::O_ACCMODE) as usize].to_owned();
    for (flag, name) in FLAGS {
        if bits & flag == flag {
            text.push('|');
            text.push_str(name);
        }
    }
    text
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, flags: bits, then } => match then {
                Then::Nothing => write!(f, "open {path:?} {}", flags(*bits)),
                then => write!(f, "open {path:?} {}, then {then:?}", flags(*bits)),
            },
            Self::Rename { old, new, flags: EXCHANGE } => write!(f, "exchange {old:?} {new:?}"),
            Self::Rename { old, new, flags } => write!(f, "rename {old:?} {new:?} flags {flags}"),
            other => write!(f, "{other:?}"),
        }
    }
}
