//! Operations on sockets and pipes.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use guard_tests::raw;
use nix::libc;
use nix::sys::socket::{SockaddrIn, connect, setsockopt, sockopt};
use std::os::fd::AsRawFd;

use super::{BATCH, Work};
use crate::places::Places;

/// Ports of their own, since rules name them.
pub(crate) const PORTS: [u16; 2] = [7601, 7602];
const DATAGRAM: [u8; 64] = [b'x'; 64];

fn at(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

/// A socket that is gone when it is closed, so that thousands of connections leave nothing behind.
fn socket() -> io::Result<OwnedFd> {
    let socket = raw::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok(socket)
}

/// Takes all connections that wait.
fn drain<T>(mut accept: impl FnMut() -> io::Result<T>) -> io::Result<()> {
    loop {
        match accept() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Connects sockets that were made before, and closes them.
struct TcpConnect {
    listener: TcpListener,
    sockets: Vec<OwnedFd>,
    address: SockaddrIn,
}

pub(super) fn tcp_connect(_: &Places) -> io::Result<Box<dyn Work>> {
    let listener = TcpListener::bind(at(PORTS[0]))?;
    listener.set_nonblocking(true)?;
    let sockets = Vec::with_capacity(BATCH);
    Ok(Box::new(TcpConnect { listener, sockets, address: at(PORTS[0]).into() }))
}

impl Work for TcpConnect {
    fn prepare(&mut self, count: usize) -> io::Result<()> {
        self.sockets = (0..count).map(|_| socket()).collect::<io::Result<_>>()?;
        Ok(())
    }

    fn once(&mut self, _: usize) -> io::Result<()> {
        let socket = self.sockets.pop().ok_or(ErrorKind::NotFound)?;
        Ok(connect(socket.as_raw_fd(), &self.address)?)
    }

    fn clean(&mut self) -> io::Result<()> {
        drain(|| self.listener.accept())
    }
}

/// Accepts connections that were made before, and closes them.
struct Accept {
    listener: TcpListener,
    clients: Vec<OwnedFd>,
}

pub(super) fn accept(_: &Places) -> io::Result<Box<dyn Work>> {
    Ok(Box::new(Accept { listener: TcpListener::bind(at(PORTS[1]))?, clients: Vec::new() }))
}

impl Work for Accept {
    fn prepare(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let client = socket()?;
            connect(client.as_raw_fd(), &SockaddrIn::from(at(PORTS[1])))?;
            self.clients.push(client);
        }
        Ok(())
    }

    fn once(&mut self, _: usize) -> io::Result<()> {
        self.listener.accept().map(drop)
    }

    fn clean(&mut self) -> io::Result<()> {
        self.clients.clear();
        Ok(())
    }
}

/// Sends to a socket that is emptied in between.
struct UdpSend {
    sender: UdpSocket,
    receiver: UdpSocket,
    address: SocketAddr,
}

pub(super) fn udp_send(_: &Places) -> io::Result<Box<dyn Work>> {
    let (sender, receiver) = (UdpSocket::bind(at(0))?, UdpSocket::bind(at(0))?);
    receiver.set_nonblocking(true)?;
    let address = receiver.local_addr()?;
    Ok(Box::new(UdpSend { sender, receiver, address }))
}

impl Work for UdpSend {
    fn once(&mut self, _: usize) -> io::Result<()> {
        self.sender.send_to(&DATAGRAM, self.address).map(drop)
    }

    fn clean(&mut self) -> io::Result<()> {
        drain(|| self.receiver.recv(&mut [0; DATAGRAM.len()]))
    }
}

/// Connects to a name, and closes again.
struct UnixConnect {
    listener: UnixListener,
    path: PathBuf,
}

pub(super) fn unix_connect(places: &Places) -> io::Result<Box<dyn Work>> {
    let path = places.beside(&format!("socket-{}", std::process::id()));
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    Ok(Box::new(UnixConnect { listener, path }))
}

impl Work for UnixConnect {
    fn once(&mut self, _: usize) -> io::Result<()> {
        UnixStream::connect(&self.path).map(drop)
    }

    fn clean(&mut self) -> io::Result<()> {
        drain(|| self.listener.accept())
    }
}

impl Drop for UnixConnect {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Writes one byte to a pipe that is emptied in between.
struct PipeWrite {
    reader: PipeReader,
    writer: PipeWriter,
}

pub(super) fn pipe_write(_: &Places) -> io::Result<Box<dyn Work>> {
    let (reader, writer) = io::pipe()?;
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(reader.as_fd(), nix::fcntl::FcntlArg::F_SETFL(flags))?;
    Ok(Box::new(PipeWrite { reader, writer }))
}

impl Work for PipeWrite {
    fn once(&mut self, _: usize) -> io::Result<()> {
        self.writer.write_all(b"x")
    }

    fn clean(&mut self) -> io::Result<()> {
        drain(|| self.reader.read(&mut [0; BATCH]))
    }
}
