//! What the self-test tries: ways of the catalogue that harm nothing and that need no more than a
//! directory, some sockets and a process of its own.

use super::ground::Ground;
use guard_common::action::Action;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{getppid, truncate};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;

/// One way.
pub(super) struct Way {
    /// The entry of docs/bypasses.md that it belongs to.
    pub(super) entry: &'static str,
    /// What is tried.
    pub(super) what: &'static str,
    /// The action that must be denied.
    pub(super) action: Action,
    /// Tries it. What it changes it changes back.
    pub(super) attempt: fn(&Ground) -> io::Result<()>,
}

const fn way(
    entry: &'static str,
    what: &'static str,
    action: Action,
    attempt: fn(&Ground) -> io::Result<()>,
) -> Way {
    Way { entry, what, action, attempt }
}

/// All of them, in the order in which they are tried.
pub(super) const WAYS: &[Way] = &[
    way("FS-2", "open a file to read", Action::FileRead, |ground| File::open(ground.file()).map(drop)),
    way("FS-2", "open it by openat2", Action::FileRead, |ground| {
        let how = OpenHow::new().flags(OFlag::O_RDONLY).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        Ok(openat2(AT_FDCWD, &ground.file(), how).map(drop)?)
    }),
    way("FS-3", "open a path descriptor again", Action::FileRead, |ground| {
        let path = OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(ground.file())?;
        File::open(format!("/proc/self/fd/{}", path.as_raw_fd())).map(drop)
    }),
    way("FS-2", "open it to write", Action::FileWrite, |ground| {
        OpenOptions::new().write(true).open(ground.file()).map(drop)
    }),
    way("FS-2", "open it to append", Action::FileAppend, |ground| {
        OpenOptions::new().append(true).open(ground.file()).map(drop)
    }),
    way("FS-20", "cut it short", Action::FileTruncate, |ground| Ok(truncate(&ground.file(), 0)?)),
    way("FS-22", "change its mode", Action::FileSetattr, |ground| {
        fs::set_permissions(ground.file(), Permissions::from_mode(0o640))
    }),
    way("FS-5", "link it elsewhere", Action::FileLink, |ground| {
        fs::hard_link(ground.file(), ground.unused())?;
        fs::remove_file(ground.unused())
    }),
    way("FS-6", "rename it", Action::FileRename, |ground| {
        fs::rename(ground.file(), ground.unused())?;
        fs::rename(ground.unused(), ground.file())
    }),
    way("FS-2", "make a file", Action::FileCreate, |ground| {
        File::create_new(ground.unused())?;
        fs::remove_file(ground.unused())
    }),
    way("EX-1", "make a file without a name", Action::FileCreate, |ground| {
        let flags = OFlag::O_TMPFILE.bits();
        OpenOptions::new().write(true).custom_flags(flags).open(ground.directory()).map(drop)
    }),
    way("FS-2", "make a symbolic link", Action::FileSymlink, |ground| {
        symlink("x", ground.unused())?;
        fs::remove_file(ground.unused())
    }),
    way("FS-27", "make a pipe with a name", Action::FileMknod, |ground| {
        mknod(&ground.unused(), SFlag::S_IFIFO, Mode::S_IRUSR, 0)?;
        fs::remove_file(ground.unused())
    }),
    way("FS-2", "remove a file", Action::FileRemove, |ground| {
        fs::remove_file(ground.spare())?;
        File::create_new(ground.spare()).map(drop)
    }),
    way("FS-2", "list a directory", Action::DirList, |ground| fs::read_dir(ground.directory()).map(drop)),
    way("FS-2", "make a directory", Action::DirCreate, |ground| {
        fs::create_dir(ground.unused())?;
        fs::remove_dir(ground.unused())
    }),
    way("FS-2", "remove a directory", Action::DirRemove, |ground| {
        fs::remove_dir(ground.spare_directory())?;
        fs::create_dir(ground.spare_directory())
    }),
    way("EX-16", "execute a program", Action::Exec, |ground| execute(&ground.program())),
    way("EX-10", "execute a copy of it", Action::Exec, |ground| execute(&ground.copy())),
    way("EX-12", "execute it by a link in /proc", Action::Exec, |ground| {
        let path = OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(ground.program())?;
        execute(format!("/proc/self/fd/{}", path.as_raw_fd()).as_ref())
    }),
    way("EX-1", "execute what only memory holds", Action::Exec, |ground| {
        let mut memory = File::from(memfd_create(c"program", MFdFlags::MFD_CLOEXEC)?);
        memory.write_all(ground.code())?;
        execute(format!("/proc/self/fd/{}", memory.as_raw_fd()).as_ref())
    }),
    way("NE-1", "connect by TCP", Action::NetConnect, |ground| TcpStream::connect(ground.tcp()).map(drop)),
    way("NE-2", "connect by TCP over IPv6", Action::NetConnect, |ground| match ground.tcp6() {
        Some(address) => TcpStream::connect(address).map(drop),
        None => Err(Errno::EAFNOSUPPORT.into()),
    }),
    way("NE-1", "connect by UDP", Action::NetConnect, |ground| ground.udp().connect(ground.tcp())),
    way("NE-3", "send a datagram without connecting", Action::NetSend, |ground| {
        ground.sender().send_to(b"x", ground.datagrams()).map(drop)
    }),
    way("NE-14", "bind a port", Action::NetBind, |_| UdpSocket::bind("127.0.0.1:0").map(drop)),
    way("NE-14", "listen", Action::NetListen, |ground| Ok(listen(ground.listener(), Backlog::new(1)?)?)),
    way("NE-5", "open a raw socket", Action::NetRaw, |_| {
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp).map(drop)?)
    }),
    way("NE-11", "connect to a unix socket", Action::UnixConnect, |ground| {
        UnixStream::connect(ground.stream()).map(drop)
    }),
    way("NE-12", "connect to one with an abstract name", Action::UnixConnect, |ground| {
        UnixStream::connect_addr(&ground.abstract_name()).map(drop)
    }),
    way("NE-12", "send to a unix socket", Action::UnixSend, |ground| {
        UnixDatagram::unbound()?.send_to(b"x", ground.datagram()).map(drop)
    }),
    way("NE-12", "bind an abstract name", Action::UnixBind, |_| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let one = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let name = format!("guard-selftest-{}-bound", std::process::id());
        Ok(bind(one.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?)
    }),
    // Its default is to be ignored.
    way("DP-7", "signal another process", Action::ProcSignal, |_| Ok(kill(getppid(), Signal::SIGWINCH)?)),
    way("FS-7", "bind-mount a directory", Action::SysMount, |ground| {
        let (from, flags) = (ground.directory(), MsFlags::MS_BIND);
        mount(Some(&from), &ground.spare_directory(), None::<&str>, flags, None::<&str>)?;
        Ok(umount(&ground.spare_directory())?)
    }),
    way("ID-5", "make a namespace of its own", Action::SysCap, |_| Ok(unshare(CloneFlags::CLONE_NEWUTS)?)),
];

fn execute(program: &std::path::Path) -> io::Result<()> {
    Command::new(program).status().map(drop)
}
