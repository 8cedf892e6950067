//! Who may use the admin socket: root, and only without a label.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{UnixAddr, connect};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Uid, setresuid};

use crate::attempt::{Outcome, attempt};
use crate::bundle::{Bundle, one_of, permit};
use crate::case::Case;
use crate::daemon::BASE;
use crate::family::{Part, tests};
use crate::identity::{fork, in_child};
use crate::layout::{self, path};
use crate::lifecycle::{ends_with, output};
use crate::users::{AGENT, CI, FREE, Identity, ROOT, SETUID};
use crate::{http, raw};

pub(crate) const PART: Part = Part {
    name: "admin",
    bundle,
    prepare,
    tests: tests!(
        others: [
            other_users_cannot_use_the_admin_socket,
            root_with_a_label_cannot_use_the_admin_socket,
            the_client_says_that_its_caller_is_a_subject,
            a_caller_that_has_ended_cannot_use_the_admin_socket,
        ],
    ),
};

/// A copy of the client that makes whoever executes it the subject `operator`.
fn operators_client() -> PathBuf {
    path("selected/guardctl")
}

/// The admin socket of this family's daemon.
fn socket() -> PathBuf {
    Path::new(BASE).join(PART.name).join("run/admin.sock")
}

fn prepare() -> Result<()> {
    layout::create()?;
    let client = std::fs::read(layout::which("guardctl")?).context("read guardctl")?;
    layout::program(&operators_client(), &client)
}

/// `agent` and `operator` may connect to the socket as far as policy goes, `ci` may not.
fn bundle(bundle: Bundle) -> Result<Bundle> {
    let connect = format!("resource == Guard::Unix::\"{}\"", socket().display());
    let client = one_of(&[operators_client()]);
    let policy = permit("agent", "agent", &["unix.connect"], &connect)
        + &permit("operator", "operator", &["unix.connect"], &connect)
        + &permit("client", "operator", &["file.read", "exec.*"], &client)
        // Becoming root is not what is refused here.
        + &permit("agent-root", "agent", &["sys.setid", "sys.cap"], "true")
        + &permit("ci-root", "ci", &["sys.setid", "sys.cap"], "true");
    let exe = format!("exe = \"{}\"", operators_client().display());
    Ok(bundle
        .subject("agent", "user = \"agent\"")
        .subject("ci", "user = \"ci\"")
        .subject("operator", &exe)
        .policy("admin", policy))
}

/// Does something while file modes stand in nobody's way, so that only the daemon can refuse.
fn open_to_all(action: impl FnOnce() -> Result<()>) -> Result<()> {
    let socket = socket();
    let directory = socket.parent().context("the socket has a directory")?;
    layout::mode(directory, 0o755)?;
    layout::mode(&socket, 0o666)?;
    let result = action();
    layout::mode(directory, 0o711)?;
    layout::mode(&socket, 0o600)?;
    result
}

/// What an answer means for an attempt: 403 is EPERM.
fn meaning(answer: (u16, String), because: &str) -> io::Result<()> {
    match answer {
        (200, _) => Ok(()),
        (403, text) if text.contains(because) => Err(Errno::EPERM.into()),
        (status, text) => Err(io::Error::other(format!("{status}: {text}"))),
    }
}

/// Asks for the status; refused by the daemon with these words, or by the kernel.
fn ask(because: &str) -> io::Result<()> {
    meaning(http::exchange(UnixStream::connect(socket())?, "GET", "/v1/status", "")?, because)
}

/// The attempt must end like this.
fn meets(who: Identity, wanted: &Outcome, action: impl Fn() -> io::Result<()>) -> Result<()> {
    let found = attempt(who, action).with_context(|| format!("as {}", who.name))?;
    ensure!(found == *wanted, "{} should meet {wanted:?}: {found:?}", who.name);
    Ok(())
}

/// Refused by the kernel.
const BY_KERNEL: Outcome = Outcome::Failed(Errno::EACCES);
/// Refused by the daemon.
const BY_DAEMON: Outcome = Outcome::Failed(Errno::EPERM);

fn other_users_cannot_use_the_admin_socket(case: &Case<'_>) -> Result<()> {
    let Some(daemon) = case.daemon() else { return Ok(()) };
    // What is asked is answered.
    meets(ROOT, &Outcome::Worked, || ask(""))?;
    for who in [FREE, AGENT, CI] {
        meets(who, &BY_KERNEL, || ask(""))?;
    }
    let mut client = daemon.control(&["status"]);
    ends_with(&output(client.uid(FREE.uid).gid(FREE.uid))?, 5)?;
    open_to_all(|| {
        meets(FREE, &BY_DAEMON, || ask("is for root"))?;
        meets(AGENT, &BY_DAEMON, || ask("itself subject to policy"))?;
        meets(ROOT, &Outcome::Worked, || ask(""))
    })
}

/// Becomes root again, with the label of the user it was.
fn become_root() -> io::Result<()> {
    let root = Uid::from_raw(0);
    Ok(setresuid(root, root, root)?)
}

fn root_with_a_label_cannot_use_the_admin_socket(case: &Case<'_>) -> Result<()> {
    let Some(daemon) = case.daemon() else { return Ok(()) };
    let [agent, ci, free] = [AGENT, CI, FREE].map(|who| who.with(SETUID));
    let as_root = || {
        become_root()?;
        ask("itself subject to policy")
    };
    // An unlabelled process takes the same way and is root like any other.
    meets(free, &Outcome::Worked, as_root)?;
    // Policy permits this one the socket, so it is the daemon that refuses.
    meets(agent, &BY_DAEMON, as_root)?;
    // Without such a permit the kernel refuses before.
    meets(ci, &BY_KERNEL, as_root)?;
    // Whatever is asked, and with modes in nobody's way.
    let before = daemon.status()?;
    let directory = Bundle::new("empty").version(2).write(&daemon.directory().join("empty"))?;
    let body = serde_json::json!({ "directory": directory }).to_string();
    open_to_all(|| {
        for (method, path) in [
            ("POST", "/v1/policy/apply"),
            ("POST", "/v1/policy/rollback"),
            ("GET", "/v1/policy/history"),
            ("GET", "/v1/events?follow=false"),
            ("GET", "/nowhere"),
        ] {
            meets(agent, &BY_DAEMON, || {
                become_root()?;
                let answer = http::exchange(UnixStream::connect(socket())?, method, path, &body)?;
                meaning(answer, "itself subject to policy")
            })
            .context(path)?;
        }
        Ok(())
    })?;
    let after = daemon.status()?;
    ensure!(after["generation"] == before["generation"], "something was changed: {after}");
    Ok(())
}

fn the_client_says_that_its_caller_is_a_subject(case: &Case<'_>) -> Result<()> {
    if case.daemon().is_none() {
        return Ok(());
    }
    let arguments = ["--socket".into(), socket().into_os_string(), "status".into()];
    let result = output(Command::new(operators_client()).args(arguments))?;
    ends_with(&result, 5)?;
    let text = String::from_utf8_lossy(&result.stderr);
    ensure!(text.contains("subject to policy"), "it does not say why: {text}");
    Ok(())
}

/// A connection to the socket, made by a child that has ended since.
fn made_by_an_ended_child() -> io::Result<OwnedFd> {
    let connection = raw::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
    in_child(fork, || {
        let address = UnixAddr::new(&socket())?;
        Ok(connect(connection.as_raw_fd(), &address)?)
    })?;
    // It has answered; now it has ended.
    match wait()? {
        WaitStatus::Exited(..) => Ok(connection),
        other => Err(io::Error::other(format!("the child that connects: {other:?}"))),
    }
}

fn a_caller_that_has_ended_cannot_use_the_admin_socket(case: &Case<'_>) -> Result<()> {
    // The number of the process that connected may by then be another's, even an unlabelled root's.
    if case.daemon().is_none() {
        return Ok(());
    }
    for who in [AGENT.with(SETUID), FREE.with(SETUID)] {
        meets(who, &BY_DAEMON, || {
            become_root()?;
            let connection = UnixStream::from(made_by_an_ended_child()?);
            meaning(http::exchange(connection, "GET", "/v1/status", "")?, "cannot be identified")
        })?;
    }
    Ok(())
}
