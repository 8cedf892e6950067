//! What the self-test works on: a directory of its own, with sockets.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket};
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

/// A small program that every host has and that does nothing.
const PROGRAM: &str = "/bin/true";

/// It, held open.
pub(super) struct Ground {
    directory: PathBuf,
    code: Vec<u8>,
    tcp: TcpListener,
    tcp6: Option<TcpListener>,
    datagrams: UdpSocket,
    sender: UdpSocket,
    udp: UdpSocket,
    listener: OwnedFd,
    abstract_name: UnixAddress,
    /// Kept so that somebody is there.
    _sockets: (UnixListener, UnixListener, UnixDatagram),
}

impl Ground {
    /// Makes it in an empty directory. Mounts of this process are its own from here on.
    pub(super) fn make(directory: &Path) -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let at = |name: &str| directory.join(name);
        fs::write(at("file"), b"content\n")?;
        File::create_new(at("spare"))?;
        fs::create_dir(at("spare-directory"))?;
        let code = fs::read(PROGRAM)?;
        fs::copy(PROGRAM, at("copy"))?;
        let abstract_name =
            UnixAddress::from_abstract_name(format!("guard-selftest-{}", std::process::id()))?;
        let listener = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))?;
        Ok(Self {
            code,
            tcp: TcpListener::bind("127.0.0.1:0")?,
            // A host may have no IPv6.
            tcp6: TcpListener::bind("[::1]:0").ok(),
            datagrams: UdpSocket::bind("127.0.0.1:0")?,
            sender: UdpSocket::bind("127.0.0.1:0")?,
            udp: UdpSocket::bind("127.0.0.1:0")?,
            listener,
            _sockets: (
                UnixListener::bind(at("stream"))?,
                UnixListener::bind_addr(&abstract_name)?,
                UnixDatagram::bind(at("datagram"))?,
            ),
            abstract_name,
            directory: directory.to_owned(),
        })
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.directory.clone()
    }

    /// A file with content.
    pub(super) fn file(&self) -> PathBuf {
        self.directory.join("file")
    }

    /// A name that nothing has yet.
    pub(super) fn unused(&self) -> PathBuf {
        self.directory.join("new")
    }

    /// A file that may go.
    pub(super) fn spare(&self) -> PathBuf {
        self.directory.join("spare")
    }

    /// A directory that may go.
    pub(super) fn spare_directory(&self) -> PathBuf {
        self.directory.join("spare-directory")
    }

    /// A program of the host.
    pub(super) fn program(&self) -> PathBuf {
        PROGRAM.into()
    }

    /// A copy of it.
    pub(super) fn copy(&self) -> PathBuf {
        self.directory.join("copy")
    }

    /// Its bytes.
    pub(super) fn code(&self) -> &[u8] {
        &self.code
    }

    pub(super) fn tcp(&self) -> SocketAddr {
        self.tcp.local_addr().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 9)))
    }

    pub(super) fn tcp6(&self) -> Option<SocketAddr> {
        self.tcp6.as_ref()?.local_addr().ok()
    }

    /// A socket that receives datagrams.
    pub(super) fn datagrams(&self) -> SocketAddr {
        self.datagrams.local_addr().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 9)))
    }

    /// One that sends them without being connected.
    pub(super) fn sender(&self) -> &UdpSocket {
        &self.sender
    }

    /// One to be connected.
    pub(super) fn udp(&self) -> &UdpSocket {
        &self.udp
    }

    /// A TCP socket that has its address and does not listen yet.
    pub(super) fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// A unix socket that listens.
    pub(super) fn stream(&self) -> PathBuf {
        self.directory.join("stream")
    }

    /// One without a file.
    pub(super) fn abstract_name(&self) -> UnixAddress {
        self.abstract_name.clone()
    }

    /// One that receives datagrams.
    pub(super) fn datagram(&self) -> PathBuf {
        self.directory.join("datagram")
    }
}
