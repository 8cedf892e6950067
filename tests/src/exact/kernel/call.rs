//! The system calls that processes make when they are told to.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use guard_tests::raw;
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrStorage, UnixAddr,
    connect, sendto, socket,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use serde::{Deserialize, Serialize};

/// The bytes of a name, which need not be text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name(Vec<u8>);

impl Name {
    pub(super) fn new(path: impl Into<OsString>) -> Self {
        Self(path.into().into_vec())
    }

    pub(super) fn path(&self) -> PathBuf {
        OsStr::from_bytes(&self.0).into()
    }
}

/// What kind of socket connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// The name of a unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Socket {
    Path(Name),
    Abstract(String),
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Call {
    /// End the process.
    Quit,
    /// `open` with these flags; through `/proc/self/fd` of a descriptor that was opened for reference
    /// only if `detour`.
    Open { path: Name, flags: c_int, detour: bool },
    /// The same of a memfd of one's own, which has no path.
    OpenMemfd { flags: c_int },
    /// `open` for reading, then `mmap` for execution.
    Map { path: Name },
    /// `mmap` of memory without a file for execution.
    MapAnonymous,
    /// `execve` in a child.
    Exec { path: Name },
    /// `connect` to an address.
    Connect { address: SocketAddr, transport: Transport },
    /// `connect` to a listening unix socket.
    UnixConnect { socket: Socket },
    /// `sendto` a unix datagram socket.
    UnixSend { socket: Socket },
    /// `connect` of a netlink socket.
    Netlink { route: bool },
}

/// Added to an error number that has nothing to do with what is tried.
pub(super) const BEFORE: i32 = 1 << 16;

impl Call {
    /// Does it; 0 or the error number.
    pub(super) fn make(&self) -> i32 {
        match self.attempt() {
            Ok(()) => 0,
            Err(Failure::There(errno)) => errno as i32,
            Err(Failure::Before(errno)) => BEFORE + errno as i32,
        }
    }

    /// The path that it is made on.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Open { path, .. } | Self::Map { path } | Self::Exec { path } => Some(path.path()),
            Self::UnixConnect { socket: Socket::Path(path) } => Some(path.path()),
            _ => None,
        }
    }

    fn attempt(&self) -> Result<(), Failure> {
        match self {
            Self::Quit => raw::exit_now(0),
            Self::Open { path, flags, detour: false } => there(raw::open(&path.path(), *flags)).map(drop),
            Self::Open { path, flags, detour: true } => {
                let reference = before(raw::open_path(&path.path()))?;
                there(raw::open(&through_proc(&reference), *flags)).map(drop)
            }
            Self::OpenMemfd { flags } => {
                let memory = memfd_create(c"memory", MFdFlags::MFD_CLOEXEC).map_err(Failure::Before)?;
                there(raw::open(&through_proc(&memory), *flags)).map(drop)
            }
            Self::Map { path } => {
                let file = there(raw::open(&path.path(), libc::O_RDONLY | libc::O_NONBLOCK))?;
                there(raw::map_page(Some(file.as_fd()), libc::PROT_READ | libc::PROT_EXEC))
            }
            Self::MapAnonymous => there(raw::map_page(None, libc::PROT_READ | libc::PROT_EXEC)),
            Self::Exec { path } => exec(&path.path()),
            Self::Connect { address, transport } => {
                let kind = if *transport == Transport::Tcp { SockType::Stream } else { SockType::Datagram };
                let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
                let socket = socket(family, kind, flags(), None).map_err(Failure::Before)?;
                connect(socket.as_raw_fd(), &SockaddrStorage::from(*address)).map_err(Failure::There)
            }
            Self::UnixConnect { socket: name } => {
                let socket = unix(SockType::Stream)?;
                connect(socket.as_raw_fd(), &name.address()?).map_err(Failure::There)
            }
            Self::UnixSend { socket: name } => {
                let socket = unix(SockType::Datagram)?;
                let address = name.address()?;
                sendto(socket.as_raw_fd(), b"x", &address, MsgFlags::empty())
                    .map(drop)
                    .map_err(Failure::There)
            }
            Self::Netlink { route } => {
                let protocol =
                    if *route { SockProtocol::NetlinkRoute } else { SockProtocol::NetlinkKObjectUEvent };
                let socket = socket(AddressFamily::Netlink, SockType::Raw, flags(), protocol)
                    .map_err(Failure::Before)?;
                connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(Failure::There)
            }
        }
    }
}

/// Which step failed.
enum Failure {
    /// What is tried.
    There(Errno),
    /// What has to come before it.
    Before(Errno),
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL))
}

fn there<T>(result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::There(errno(&error)))
}

fn before<T>(result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::Before(errno(&error)))
}

fn through_proc(fd: &OwnedFd) -> PathBuf {
    Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())
}

fn flags() -> SockFlag {
    SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK
}

fn unix(kind: SockType) -> Result<OwnedFd, Failure> {
    socket(AddressFamily::Unix, kind, flags(), None).map_err(Failure::Before)
}

impl Socket {
    fn address(&self) -> Result<UnixAddr, Failure> {
        match self {
            Self::Path(name) => UnixAddr::new(&name.path()),
            Self::Abstract(name) => UnixAddr::new_abstract(name.as_bytes()),
        }
        .map_err(Failure::Before)
    }
}

/// Added to the error number of an execve that failed, as an exit status: no program that is executed
/// here ends with one so high.
const FAILED: i32 = 100;

/// Executes a program in a child, which is what this process is by label.
fn exec(path: &Path) -> Result<(), Failure> {
    // SAFETY: this program has one thread.
    match unsafe { fork() }.map_err(Failure::Before)? {
        ForkResult::Child => {
            let error = raw::execve(path);
            raw::exit_now(FAILED + error.raw_os_error().unwrap_or(libc::EINVAL));
        }
        ForkResult::Parent { child } => match waitpid(child, None).map_err(Failure::Before)? {
            WaitStatus::Exited(_, status) if status > FAILED => {
                Err(Failure::There(Errno::from_raw(status - FAILED)))
            }
            WaitStatus::Exited(..) => Ok(()),
            _ => Err(Failure::There(Errno::EINTR)),
        },
    }
}
