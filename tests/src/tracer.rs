//! A process that traces the agent and can kill it before any system call by which it changes something.
//!
//! Killed before the call and not by time, so that each place in the agent's work is reached again and again. What
//! a call changes is memory of the kernel, a file, or what somebody is told; between two of these calls there is
//! nothing that a kill could leave half done, but for words that are stored to mapped memory.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use crate::raw::{self, SharedCounters};

/// What the tracing process tells, by its place in the memory that both share.
const ATTACHED: usize = 0;
const CALLS: usize = 1;
const KILLED: usize = 2;

/// `PTRACE_SYSCALL_INFO_ENTRY` (include/uapi/linux/ptrace.h).
const ENTRY: u8 = 1;

/// Traces an agent until it is asked what it saw.
pub(crate) struct Tracer {
    process: Pid,
    told: SharedCounters,
}

/// What a tracer saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Calls that change something, the one before which it was killed included.
    pub(crate) calls: u64,
    /// Whether it was killed.
    pub(crate) killed: bool,
}

impl Tracer {
    /// Traces a process with all its threads, from when this returns. It is killed before the call of this number,
    /// counted from 0, that changes something.
    pub(crate) fn attach(agent: Pid, at: Option<u64>) -> Result<Self> {
        let told = SharedCounters::new().context("share memory")?;
        // SAFETY: this program has one thread.
        match unsafe { nix::unistd::fork() }.context("fork")? {
            ForkResult::Child => {
                let ended = trace(agent, at, &told);
                raw::exit_now(i32::from(ended.is_err()))
            }
            ForkResult::Parent { child } => {
                let this = Self { process: child, told };
                while this.told.at(ATTACHED).load(Ordering::SeqCst) == 0 {
                    let ended = waitpid(child, Some(WaitPidFlag::WNOHANG)).context("look at the tracer")?;
                    ensure!(ended == WaitStatus::StillAlive, "process {agent} cannot be traced: {ended:?}");
                    std::thread::yield_now();
                }
                Ok(this)
            }
        }
    }

    /// Lets the agent go on untraced, if it was not killed.
    pub(crate) fn end(self) -> Result<Seen> {
        // Whoever it traces goes on when it has ended (ptrace(2), PTRACE_O_EXITKILL).
        let _ = kill(self.process, Signal::SIGKILL);
        waitpid(self.process, None).context("wait for the tracer")?;
        let of = |index: usize| self.told.at(index).load(Ordering::SeqCst);
        Ok(Seen { calls: of(CALLS), killed: of(KILLED) != 0 })
    }
}

/// Follows every thread until none is left.
fn trace(agent: Pid, at: Option<u64>, told: &SharedCounters) -> nix::Result<()> {
    attach(agent)?;
    told.at(ATTACHED).store(1, Ordering::SeqCst);
    loop {
        let stopped = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(stopped) => stopped,
            Err(Errno::ECHILD) => return Ok(()),
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error),
        };
        let (thread, signal) = match stopped {
            WaitStatus::PtraceSyscall(thread) => {
                let changes = raw::system_call(thread.as_raw()).is_ok_and(|info| changes_something(&info));
                if changes && told.at(CALLS).fetch_add(1, Ordering::SeqCst) + 1 == at.map_or(0, |at| at + 1) {
                    told.at(KILLED).store(1, Ordering::SeqCst);
                    kill(agent, Signal::SIGKILL)?;
                    continue;
                }
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => continue,
        };
        // It may have been killed meanwhile.
        match ptrace::syscall(thread, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Takes hold of every thread that there is; those that are made later are traced by themselves.
fn attach(agent: Pid) -> nix::Result<()> {
    let mut held = BTreeSet::new();
    loop {
        let before = held.len();
        for thread in fs::read_dir(format!("/proc/{agent}/task")).map_err(|_| Errno::ESRCH)?.flatten() {
            let Some(thread) = thread.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if !held.insert(thread) {
                continue;
            }
            let thread = Pid::from_raw(thread);
            let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
            match ptrace::seize(thread, options).and_then(|()| ptrace::interrupt(thread)) {
                // EPERM: it was made by a thread that is traced, and is traced already.
                Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
                Err(error) => return Err(error),
            }
        }
        if held.len() == before {
            return Ok(());
        }
    }
}

/// Whether a thread is about to change something that outlives it, or to tell somebody.
fn changes_something(info: &libc::ptrace_syscall_info) -> bool {
    if info.op != ENTRY {
        return false;
    }
    // SAFETY: `op` says that this is what the union holds.
    let call = unsafe { info.u.entry };
    let argument = |index: usize| call.args[index];
    match call.nr.cast_signed() {
        libc::SYS_write
        | libc::SYS_pwrite64
        | libc::SYS_writev
        | libc::SYS_pwritev
        | libc::SYS_pwritev2
        | libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg
        | libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_unlink
        | libc::SYS_unlinkat
        | libc::SYS_link
        | libc::SYS_linkat
        | libc::SYS_symlink
        | libc::SYS_symlinkat
        | libc::SYS_mkdir
        | libc::SYS_mkdirat
        | libc::SYS_rmdir
        | libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_ftruncate
        | libc::SYS_fallocate
        | libc::SYS_fchmod
        | libc::SYS_mount
        | libc::SYS_umount2
        | libc::SYS_pidfd_send_signal => true,
        libc::SYS_open => is_made(argument(1)),
        libc::SYS_openat => is_made(argument(2)),
        libc::SYS_bpf => !READS.contains(&argument(0)),
        _ => false,
    }
}

/// Whether an open makes a file or cuts it short.
fn is_made(flags: u64) -> bool {
    flags & (libc::O_CREAT | libc::O_TRUNC) as u64 != 0
}

/// Commands of bpf(2) that only look (`enum bpf_cmd`, include/uapi/linux/bpf.h): elements and keys of maps, objects
/// by name and number, information, batches of elements, iterators.
const READS: [u64; 16] = [1, 4, 7, 11, 12, 13, 14, 15, 16, 19, 20, 23, 24, 30, 31, 33];
