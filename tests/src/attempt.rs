//! One attempt: a closure in a forked process that became someone else.
//!
//! The test program has one thread, so the child may use everything the closure needs. Whatever the
//! closure returns comes back through a pipe that was open before the label was attached.

use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, setgroups, setresgid, setresuid};

use crate::raw;
use crate::users::Identity;

/// How long an attempt may take, in a guest that is emulated and busy.
const DEADLINE: Duration = Duration::from_secs(120);

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
    // SAFETY: this program has one thread.
    match unsafe { nix::unistd::fork() }.context("fork")? {
        ForkResult::Parent { child } => Ok(Running { pid: child, result: reader }),
        ForkResult::Child => {
            drop(reader);
            let outcome = match become_identity(who) {
                Ok(()) => catch_unwind(AssertUnwindSafe(|| Outcome::of(action())))
                    .unwrap_or_else(|_| Outcome::Broke("the attempt panicked".to_owned())),
                Err(errno) => Outcome::Broke(format!("cannot become {}: {errno}", who.name)),
            };
            send(writer, &outcome);
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
        let mut text = Vec::new();
        self.result.read_to_end(&mut text).context("read the outcome")?;
        let status = waitpid(self.pid, None).context("wait for the attempt")?;
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

fn send(mut writer: PipeWriter, outcome: &Outcome) {
    let text = match outcome {
        Outcome::Worked => "w".to_owned(),
        Outcome::Failed(errno) => format!("f{}", *errno as i32),
        Outcome::Broke(message) => format!("b{message}"),
    };
    // Without an answer the parent reports how this process ended.
    let _ = writer.write_all(text.as_bytes());
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
