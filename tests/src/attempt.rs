//! One attempt: a closure in a forked process that became someone else.
//!
//! The test program has one thread, so the child may use everything the closure needs. Whatever the
//! closure returns comes back in memory that both share, since whoever is refused everything cannot write to a
//! pipe either; a pipe that ends tells when.

use std::io::{self, PipeReader, Read, pipe};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, setgroups, setresgid, setresuid};

use crate::raw;
use crate::users::Identity;

/// How long an attempt may take, in a guest that is emulated and busy.
const DEADLINE: Duration = Duration::from_secs(300);

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It worked.
    Worked,
    /// A system call failed.
    Failed(Errno),
    /// It failed in another way.
    Broke(String),
}

impl Outcome {
    fn of(result: io::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Worked,
            Err(error) => match error.raw_os_error() {
                Some(number) => Self::Failed(Errno::from_raw(number)),
                None => Self::Broke(error.to_string()),
            },
        }
    }
}

/// An attempt under way.
pub struct Running {
    pid: Pid,
    result: PipeReader,
    /// Memory that both share: the length of the answer, and the answer.
    answer: *mut u8,
}

/// Makes an attempt as `who` and waits for its end.
pub fn attempt(who: Identity, action: impl Fn() -> io::Result<()>) -> Result<Outcome> {
    start(who, action)?.outcome()
}

/// Repeats a question until it is answered yes: what is waited for is the daemon's own doing.
pub fn eventually(what: &str, mut question: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !question()? {
        ensure!(begin.elapsed() < DEADLINE, "not within {} s: {what}", DEADLINE.as_secs());
        std::thread::yield_now();
    }
    Ok(())
}

/// Starts an attempt as `who`.
pub fn start(who: Identity, action: impl Fn() -> io::Result<()>) -> Result<Running> {
    let (reader, writer) = pipe().context("make a pipe")?;
    let answer = share().context("share memory")?;
    // SAFETY: this program has one thread.
    match unsafe { nix::unistd::fork() }.context("fork")? {
        ForkResult::Parent { child } => Ok(Running { pid: child, result: reader, answer }),
        ForkResult::Child => {
            drop(reader);
            let outcome = match become_identity(who) {
                Ok(()) => catch_unwind(AssertUnwindSafe(|| Outcome::of(action())))
                    .unwrap_or_else(|_| Outcome::Broke("the attempt panicked".to_owned())),
                Err(errno) => Outcome::Broke(format!("cannot become {}: {errno}", who.name)),
            };
            send(answer, &outcome);
            drop(writer);
            raw::exit_now(0)
        }
    }
}

impl Running {
    /// The process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for the end.
    pub fn outcome(mut self) -> Result<Outcome> {
        let timeout = PollTimeout::try_from(DEADLINE).context("deadline")?;
        if poll(&mut [PollFd::new(self.result.as_fd(), PollFlags::POLLIN)], timeout).context("poll")? == 0 {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
            bail!("the attempt did not end within {} s", DEADLINE.as_secs());
        }
        self.result.read_to_end(&mut Vec::new()).context("wait for the outcome")?;
        let status = waitpid(self.pid, None).context("wait for the attempt")?;
        // SAFETY: the process has ended, and the memory is as long as its first two bytes can say.
        let text = unsafe {
            let length = self.answer.cast::<u16>().read_volatile() as usize;
            let text = std::slice::from_raw_parts(self.answer.add(2), length.min(ANSWER - 2)).to_vec();
            libc::munmap(self.answer.cast(), ANSWER);
            text
        };
        match text.split_first() {
            Some((b'w', _)) => Ok(Outcome::Worked),
            Some((b'f', number)) => {
                let number = String::from_utf8_lossy(number).parse().context("parse the outcome")?;
                Ok(Outcome::Failed(Errno::from_raw(number)))
            }
            Some((_, message)) => Ok(Outcome::Broke(String::from_utf8_lossy(message).into_owned())),
            None => Ok(Outcome::Broke(format!("the process ended without an answer: {status:?}"))),
        }
    }
}

/// Bytes of the memory for an answer.
const ANSWER: usize = 4096;

fn share() -> io::Result<*mut u8> {
    let both = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: new memory.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), ANSWER, both, flags, -1, 0) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast()) }
}

fn send(answer: *mut u8, outcome: &Outcome) {
    let text = match outcome {
        Outcome::Worked => "w".to_owned(),
        Outcome::Failed(errno) => format!("f{}", *errno as i32),
        Outcome::Broke(message) => format!("b{message}"),
    };
    let length = text.len().min(ANSWER - 2);
    // SAFETY: the memory is that long, and the parent reads it when this process has ended.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), answer.add(2), length);
        answer.cast::<u16>().write_volatile(length as u16);
    }
}

/// Changes real, effective and saved ids for good, which is what attaches a user's label.
fn become_identity(who: Identity) -> nix::Result<()> {
    if who.uid == 0 {
        return Ok(());
    }
    if who.capabilities != 0 {
        nix::sys::prctl::set_keepcaps(true)?;
    }
    let (uid, gid) = (Uid::from_raw(who.uid), Gid::from_raw(who.uid));
    setgroups(&[gid])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    if who.capabilities != 0 {
        raw::set_capabilities(who.capabilities)?;
    }
    // The change of ids made /proc/self root's; a process that was started as this user owns its own.
    nix::sys::prctl::set_dumpable(true)
}
