//! A supervisor of system calls by seccomp user notification that lets every one go on.
//!
//! It is asked about the calls that name something: what they open, change, execute or connect to. A use of
//! what is open passes the filter alone, as it does under such supervisors. Letting a call go on is not safe
//! where the caller can change the memory that was looked at; that is not measured here.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use guard_tests::raw;
use nix::libc::{self, c_int, c_long, c_ulong, sock_filter, sock_fprog};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};

// include/uapi/linux/seccomp.h: _IOWR('!', 0, struct seccomp_notif), _IOWR('!', 1, struct seccomp_notif_resp).
const RECEIVE: c_ulong = 0xc050_2100;
const SEND: c_ulong = 0xc018_2101;

/// The calls that it is asked about.
const CALLS: [c_long; 17] = [
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_creat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_connect,
    libc::SYS_bind,
];

/// The process of the supervisor, until dropped.
pub(crate) struct Supervisor(Pid);

impl Supervisor {
    /// Puts this process and its children under a supervisor, which is a process of its own.
    pub(crate) fn start() -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: this program has one thread.
        let this = match unsafe { nix::unistd::fork() }? {
            ForkResult::Parent { child } => Self(child),
            ForkResult::Child => {
                drop(ours);
                raw::exit_now(match take(&theirs).and_then(|listener| supervise(&listener)) {
                    Ok(()) => 0,
                    Err(_) => 1,
                })
            }
        };
        let listener = filter()?;
        let fds = [listener.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(b"x")], &message, MsgFlags::empty(), None)?;
        Ok(this)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

/// Installs the filter; returns where its questions arrive.
fn filter() -> io::Result<OwnedFd> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let instruction = |code, jt, k| sock_filter { code, jt, jf: 0, k };
    // The number is the first member of `struct seccomp_data`.
    let mut program = vec![instruction(LOAD, 0, 0)];
    for (index, call) in CALLS.iter().enumerate() {
        // Over the comparisons that are left, and the return that allows.
        program.push(instruction(JUMP_IF_EQUAL, (CALLS.len() - index) as u8, *call as u32));
    }
    program.push(instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    program.push(instruction(RETURN, 0, libc::SECCOMP_RET_USER_NOTIF));
    nix::sys::prctl::set_no_new_privs()?;
    let program = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program and its length belong together, and outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Receives the descriptor where questions arrive.
fn take(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let (mut byte, mut space) = ([0], nix::cmsg_space!(RawFd));
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let [fd] = fds[..]
        {
            // SAFETY: a new descriptor that nobody else owns.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Answers every question until nobody is left who could ask.
fn supervise(listener: &OwnedFd) -> io::Result<()> {
    loop {
        // SAFETY: for this structure of numbers, all zeros is a value, and what the kernel wants.
        let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure that this command fills.
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut question) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let answer = libc::seccomp_notif_resp { id: question.id, val: 0, error: 0, flags };
        // SAFETY: the structure that this command reads.
        if unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const answer) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
}
