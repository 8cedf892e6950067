//! A command that the agent runs and does not trust: no shell, no environment, no input, an end in time, and only so
//! much output. It blocks, so it has a thread of its own.

use crate::kernel::pidfd;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Where it finds other programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of what it says on standard error that are kept.
const MAX_WORDS: usize = 500;
/// Bytes that are read at once.
const PIECE: usize = 16 << 10;

/// What is run, and how.
#[derive(Clone, Debug)]
pub(super) struct Program<'a> {
    /// The executable, by its whole path.
    pub(super) path: &'a Path,
    pub(super) arguments: &'a [String],
    /// User and group to be, without any other group; nothing: the agent's own.
    pub(super) user: Option<(u32, u32)>,
    /// How long it may take.
    pub(super) patience: Duration,
    /// Bytes that it may print.
    pub(super) longest: usize,
}

/// Why it has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("cannot start {0}: {1}")]
    Start(String, io::Error),
    #[error("cannot hear from it: {0}")]
    Read(io::Error),
    #[error("it did not end within {} s and was killed", .0.as_secs())]
    TooSlow(Duration),
    #[error("it printed more than {0} bytes and was killed")]
    TooLong(usize),
    #[error("it failed, {0}{1}")]
    Failed(ExitStatus, String),
}

/// Runs a command and returns what it printed. Nothing of its process group is left when this returns.
///
/// # Errors
/// If it cannot be started, takes too long, prints too much, or does not succeed.
pub(super) fn run(program: &Program<'_>) -> Result<Vec<u8>, CommandError> {
    let mut command = Command::new(program.path);
    command
        .args(program.arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some((uid, gid)) = program.user {
        // The standard library gives up supplementary groups with the user.
        command.uid(uid).gid(gid);
    }
    let started = command.spawn();
    let child = started.map_err(|error| CommandError::Start(program.path.display().to_string(), error))?;
    Running { child, has_ended: false }.answer(program)
}

/// The command, until it was waited for.
struct Running {
    child: Child,
    has_ended: bool,
}

impl Running {
    /// Reads until it has ended and both pipes have.
    fn answer(mut self, program: &Program<'_>) -> Result<Vec<u8>, CommandError> {
        let deadline = Instant::now() + program.patience;
        // What makes the kernel spare the agent when memory is short is handed on, and is not meant for what it runs.
        // One that has ended already needs nothing.
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", self.child.id()), "0");
        let process = pidfd(self.child.id().cast_signed()).map_err(CommandError::Read)?;
        let mut output = Pipe::new(self.child.stdout.take().map(OwnedFd::from));
        let mut words = Pipe::new(self.child.stderr.take().map(OwnedFd::from));
        while !self.has_ended || output.is_open() || words.is_open() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CommandError::TooSlow(program.patience));
            }
            let process = (!self.has_ended).then(|| process.as_fd());
            let [ended, printed, said] =
                wait([process, output.end(), words.end()], left).map_err(CommandError::Read)?;
            if ended {
                // What it left behind has no business any more, and holds the pipes. The process itself was not
                // waited for, so the number of its group is still its own.
                self.end();
            }
            if printed {
                output.read().map_err(CommandError::Read)?;
            }
            if said {
                words.read().map_err(CommandError::Read)?;
            }
            if output.bytes.len() > program.longest {
                return Err(CommandError::TooLong(program.longest));
            }
            words.bytes.truncate(MAX_WORDS);
        }
        let status = self.child.wait().map_err(CommandError::Read)?;
        if status.success() {
            return Ok(output.bytes);
        }
        let words = String::from_utf8_lossy(&words.bytes);
        let words = words.trim();
        Err(CommandError::Failed(status, if words.is_empty() { String::new() } else { format!(": {words}") }))
    }

    /// Kills all that is left of its process group.
    fn end(&mut self) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        // Without anybody to kill there is nothing to do.
        let _ = killpg(group, Signal::SIGKILL);
        self.has_ended = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end();
        }
        let _ = self.child.wait();
    }
}

/// One end of a pipe, until the other end is closed.
struct Pipe {
    end: Option<OwnedFd>,
    bytes: Vec<u8>,
}

impl Pipe {
    fn new(end: Option<OwnedFd>) -> Self {
        Self { end, bytes: Vec::new() }
    }

    fn is_open(&self) -> bool {
        self.end.is_some()
    }

    fn end(&self) -> Option<BorrowedFd<'_>> {
        self.end.as_ref().map(AsFd::as_fd)
    }

    /// Reads what is there.
    fn read(&mut self) -> io::Result<()> {
        let Some(end) = &self.end else { return Ok(()) };
        let mut piece = vec![0; PIECE];
        match nix::unistd::read(end, &mut piece) {
            Ok(0) => self.end = None,
            Ok(length) => self.bytes.extend_from_slice(&piece[..length]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}

/// Waits until one of them has something to say, or so long. Says which have.
fn wait(all: [Option<BorrowedFd<'_>>; 3], left: Duration) -> io::Result<[bool; 3]> {
    // Rounded up: less than a millisecond is no reason to look again and again.
    let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    let mut watched: Vec<PollFd<'_>> =
        all.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut watched, timeout) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok([false; 3]),
        Err(errno) => return Err(errno.into()),
    }
    let mut answers = watched.iter().map(|fd| fd.any().unwrap_or_default());
    Ok(all.map(|fd| fd.is_some() && answers.next().unwrap_or_default()))
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
