//! What daemons of tests share is left without a policy after each test, so that the next one begins on a host
//! on which nothing is enforced.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_agent::kernel;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::bundle::Bundle;
use crate::daemon::{Daemon, PINS};
use crate::{bpf, raw};

/// How long processes that a test has killed may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// Takes off what the last daemon enforced. The programs stay for the next one, unless that fails or processes
/// carry labels still: their numbers would mean other subjects. Without an error, nothing is enforced by them.
pub(crate) fn reset() -> Result<()> {
    if !kernel::is_armed(Path::new(PINS)) {
        return Ok(());
    }
    if let Err(error) = enforce_nothing() {
        eprintln!("guard-tests: the programs that tests share are loaded anew: {error:#}");
        kernel::disarm(Path::new(PINS)).context("detach the programs that tests share")?;
        ensure!(!kernel::is_armed(Path::new(PINS)), "the programs that tests share are pinned still");
    }
    Ok(())
}

/// A daemon without a subject removes every selector.
fn enforce_nothing() -> Result<()> {
    let status = Daemon::start("reset", &Bundle::new("nothing"))?.stop()?;
    ensure!(status.success(), "the daemon that enforces nothing ended with {status}");
    let labels = bpf::Labels::pinned(&Path::new(PINS).join("current/maps/LABELS"))?;
    end_attempts(&labels)?;
    let deadline = Instant::now() + GRACE;
    loop {
        let left = labels.all()?;
        let Some((pid, command)) = left.first_key_value() else { return Ok(()) };
        let patience = deadline.saturating_duration_since(Instant::now());
        ensure!(!patience.is_zero(), "{} processes are labelled, such as {command} ({pid})", left.len());
        ended(*pid, patience)?;
    }
}

/// Kills attempts that nobody has waited for.
fn end_attempts(labels: &bpf::Labels) -> Result<()> {
    let own = fs::canonicalize("/proc/self/exe").context("find this program")?;
    for pid in labels.all()?.into_keys() {
        if fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == own) {
            // It may have ended meanwhile.
            let _ = raw::pidfd_signal(pid, libc::SIGKILL);
        }
    }
    Ok(())
}

/// Waits until a process has ended, or for so long.
fn ended(pid: i32, patience: Duration) -> Result<()> {
    let Ok(process) = raw::pidfd(pid) else { return Ok(()) };
    let timeout = PollTimeout::try_from(patience).context("time-out")?;
    poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout).context("poll").map(drop)
}
