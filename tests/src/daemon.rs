//! The daemon under test, started as a child and waited for until it says it is ready.
//!
//! Loading the programs takes nearly all of the time of a start, so daemons share them: they are pinned in
//! [`PINS`] by the first one and adopted by every later one, whose state directories have the same identity.
//! What a daemon enforced goes on when it has ended, until the next one, or until the runner of the tests takes
//! it off. Tests of loading, of what a first start is and of what ends with a daemon have theirs
//! [`Programs::Apart`].

use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bundle::Bundle;
use crate::events::Events;
use crate::http;

/// Loading, verifying and attaching under emulation, on the slowest series and beside other guests. Whoever waits so
/// long waits for nothing.
const START: Duration = Duration::from_secs(600);
/// The daemon has nothing to do when it stops but to close its files.
const STOP: Duration = Duration::from_secs(120);

/// Lines of the log that say why it ended.
const LOG_LINES: usize = 8;

/// Where fixtures keep what the daemon reads and writes.
pub const BASE: &str = "/run/guard-tests";

/// Where the programs are pinned that daemons share. One daemon at a time holds it.
pub const PINS: &str = "/sys/fs/bpf/guard-tests";

/// The identity of every state directory that goes with [`PINS`].
const IDENTITY: &str = "9a6f1d0e-52c3-4b7a-8e14-7c0d3b5f2a61";

/// Which programs a fixture's daemon enforces with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programs {
    /// Those of the daemons before it, if there were any.
    Shared,
    /// Its own, which end with it.
    Apart,
}

impl Programs {
    /// The line about them in the configuration of a fixture, whose state directory gets what they need.
    pub fn configured(self, directory: &Path) -> Result<String> {
        match self {
            Self::Shared => {
                let state = directory.join("state");
                DirBuilder::new().recursive(true).mode(0o700).create(&state).context("make the state")?;
                fs::write(state.join("identity"), IDENTITY).context("write the identity")?;
                Ok(format!("pins = \"{PINS}\"\n"))
            }
            Self::Apart => Ok("pins = \"none\"\n".to_owned()),
        }
    }
}

/// A file of the fixture that names the step which the daemon's debug build makes fail, or leaves out.
pub const FAULT: &str = "fault";

/// A daemon that enforces.
pub struct Daemon {
    child: Child,
    directory: PathBuf,
    /// What it prints.
    pub events: Events,
}

/// A daemon that may still refuse to start.
pub struct Starting {
    child: Child,
    directory: PathBuf,
    ready: UnixDatagram,
}

/// The configuration and the bundle of a fixture, on disk.
pub fn configure(name: &str, bundle: &Bundle) -> Result<PathBuf> {
    configure_with(Programs::Shared, name, bundle)
}

/// The same for a daemon that loads programs of its own.
pub fn configure_apart(name: &str, bundle: &Bundle) -> Result<PathBuf> {
    configure_with(Programs::Apart, name, bundle)
}

fn configure_with(programs: Programs, name: &str, bundle: &Bundle) -> Result<PathBuf> {
    let directory = Path::new(BASE).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    bundle.write(&directory.join("bundle"))?;
    let text = "bundle = \"bundle\"\nrun_dir = \"run\"\nstate_dir = \"state\"\n".to_owned();
    fs::write(directory.join("agent.toml"), text + &programs.configured(&directory)?)
        .context("write agent.toml")?;
    Ok(directory)
}

/// Starts the daemon on a directory of [`configure`] without waiting for it.
pub fn spawn(directory: &Path) -> Result<Starting> {
    spawn_in(&[], directory)
}

/// The same through a program that changes something and then executes its further arguments.
pub fn spawn_in(host: &[&str], directory: &Path) -> Result<Starting> {
    let socket = directory.join("notify.sock");
    let _ = fs::remove_file(&socket);
    let ready = UnixDatagram::bind(&socket).context("bind the notification socket")?;
    let events = File::options()
        .create(true)
        .append(true)
        .open(directory.join("events.jsonl"))
        .context("create the events file")?;
    let log =
        File::options().create(true).append(true).open(directory.join("log")).context("create the log")?;
    let words: Vec<&str> = host.iter().copied().chain(["guard-agent", "run"]).collect();
    let child = Command::new(words[0])
        .args(&words[1..])
        .arg("--config")
        .arg(directory.join("agent.toml"))
        .env("NOTIFY_SOCKET", &socket)
        .env("GUARD_TEST_FAULT", directory.join(FAULT))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(events)
        .stderr(log)
        .spawn()
        .context("start guard-agent")?;
    Ok(Starting { child, directory: directory.to_owned(), ready })
}

impl Starting {
    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Waits until it is ready, or has ended.
    pub fn ready(self) -> Result<Daemon> {
        let directory = self.directory.clone();
        self.ready_or_ended()?
            .map_err(|status| anyhow!("the daemon ended with {status}: {}", log(&directory)))
    }

    /// Waits until it is ready, or was killed.
    pub fn ready_unless_killed(self) -> Result<Option<Daemon>> {
        let directory = self.directory.clone();
        match self.ready_or_ended()? {
            Ok(daemon) => Ok(Some(daemon)),
            Err(status) if status.signal() == Some(libc::SIGKILL) => Ok(None),
            Err(status) => bail!("the daemon ended with {status}: {}", log(&directory)),
        }
    }

    fn ready_or_ended(mut self) -> Result<Result<Daemon, ExitStatus>> {
        let process = pidfd(&self.child)?;
        let deadline = Instant::now() + START;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut watched = [
                PollFd::new(self.ready.as_fd(), PollFlags::POLLIN),
                PollFd::new(process.as_fd(), PollFlags::POLLIN),
            ];
            let timeout = PollTimeout::try_from(left).context("time-out")?;
            if poll(&mut watched, timeout).context("poll")? == 0 {
                let _ = self.child.kill();
                let _ = self.child.wait();
                bail!("the daemon was not ready after {} s: {}", START.as_secs(), self.log());
            }
            let [message, end] = watched.map(|fd| fd.any().unwrap_or_default());
            if message {
                let mut buffer = [0; 4096];
                let length = self.ready.recv(&mut buffer).context("receive a notification")?;
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if text.lines().any(|line| line == "READY=1") {
                    let events = Events::watch(&self.directory.join("events.jsonl"))?;
                    return Ok(Ok(Daemon { child: self.child, directory: self.directory, events }));
                }
            } else if end {
                return Ok(Err(self.child.wait().context("wait for the daemon")?));
            }
        }
    }

    /// Waits for it to end without ever having been ready; returns its status and log.
    pub fn refused(mut self) -> Result<(ExitStatus, String)> {
        let process = pidfd(&self.child)?;
        let timeout = PollTimeout::try_from(START).context("time-out")?;
        if poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout).context("poll")? == 0 {
            let _ = self.child.kill();
            let _ = self.child.wait();
            bail!("the daemon neither ended nor said why: {}", self.log());
        }
        let status = self.child.wait().context("wait for the daemon")?;
        self.ready.set_nonblocking(true).context("look for a notification")?;
        let mut buffer = [0; 4096];
        while let Ok(length) = self.ready.recv(&mut buffer) {
            ensure!(
                !String::from_utf8_lossy(&buffer[..length]).contains("READY=1"),
                "the daemon said it was ready, then ended with {status}"
            );
        }
        Ok((status, self.log()))
    }

    fn log(&self) -> String {
        log(&self.directory)
    }
}

/// The end of the log: what went wrong is said last.
fn log(directory: &Path) -> String {
    let text = fs::read_to_string(directory.join("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

impl Daemon {
    /// Starts on a new directory and waits until ready.
    pub fn start(name: &str, bundle: &Bundle) -> Result<Self> {
        spawn(&configure(name, bundle)?)?.ready()
    }

    /// The same with programs of its own.
    pub fn start_apart(name: &str, bundle: &Bundle) -> Result<Self> {
        spawn(&configure_apart(name, bundle)?)?.ready()
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The fixture's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it logged.
    pub fn log(&self) -> String {
        log(&self.directory)
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for it to end by itself.
    pub fn ended(mut self) -> Result<ExitStatus> {
        self.wait()
    }

    /// Asks it to end and waits for it.
    pub fn stop(mut self) -> Result<ExitStatus> {
        kill(self.pid(), Signal::SIGTERM).context("signal the daemon")?;
        self.wait()
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let process = pidfd(&self.child)?;
        let timeout = PollTimeout::try_from(STOP).context("time-out")?;
        if poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout).context("poll")? == 0 {
            bail!("the daemon did not stop within {} s", STOP.as_secs());
        }
        self.child.wait().context("wait for the daemon")
    }

    /// Makes a bundle live without the help of `guardctl`, which takes longer to start.
    pub fn apply(&self, directory: &Path) -> Result<()> {
        let body = serde_json::json!({ "directory": directory }).to_string();
        let (status, answer) = self.request("POST", "/v1/policy/apply", &body)?;
        ensure!(status == 200, "the daemon answered {status}: {answer}");
        Ok(())
    }

    /// What the daemon says of itself.
    pub fn status(&self) -> Result<serde_json::Value> {
        let (status, answer) = self.request("GET", "/v1/status", "")?;
        ensure!(status == 200, "the daemon answered {status}: {answer}");
        serde_json::from_str(&answer).with_context(|| format!("the status is no JSON: {answer}"))
    }

    /// The socket for administrators.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("run/admin.sock")
    }

    /// One request at the socket for administrators; status and body of the answer.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let stream = UnixStream::connect(self.socket()).context("connect to the admin socket")?;
        http::exchange(stream, method, path, body).with_context(|| format!("{method} {path}"))
    }

    /// A `guardctl` command for this daemon.
    pub fn control(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("guardctl");
        command.arg("--socket").arg(self.socket()).args(arguments);
        command
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pidfd(child: &Child) -> Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    ensure!(fd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}
