//! Processes that do what they are told, each as its own user.

use std::io;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, ensure};
use guard_tests::attempt::{self, Running};
use guard_tests::users::{AGENT, CI, FREE, Identity, WEBSRV};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::call::Call;
use super::ground;
use super::mailbox::Mailbox;

/// The answer of a process whose ground could not be made.
const NO_GROUND: i32 = -2;
/// How long a call may take in a busy guest, in seconds.
const PATIENCE: u32 = 60;

/// One process.
pub(super) struct Worker {
    mailbox: Mailbox,
    running: Running,
    /// Its user.
    pub(super) user: u32,
}

/// Who is labelled; the users of [`crate::generate::SUBJECTS`], in that order.
const LABELLED: [Identity; 3] = [AGENT, CI, WEBSRV];

impl Worker {
    /// One process for each subject, on ground of its own.
    pub(super) fn labelled(seed: u64) -> Result<Vec<Self>> {
        LABELLED.into_iter().map(|who| Self::grounded(who, seed)).collect()
    }

    /// A process that no policy is about, on ground of its own.
    pub(super) fn unlabelled_grounded(seed: u64) -> Result<Self> {
        Self::grounded(FREE, seed)
    }

    /// A process that no policy is about.
    pub(super) fn unlabelled() -> Result<Self> {
        Self::start(FREE)
    }

    /// A process of this user.
    pub(super) fn start(who: Identity) -> Result<Self> {
        Self::start_on(who, || Ok(Vec::new()))
    }

    fn grounded(who: Identity, seed: u64) -> Result<Self> {
        let worker = Self::start_on(who, || ground::make(seed))?;
        // It answers once its ground is there.
        let answer = worker.make(&Call::MapAnonymous)?;
        ensure!(answer != NO_GROUND, "user {} cannot make ground of its own", who.uid);
        Ok(worker)
    }

    fn start_on(who: Identity, ground: impl Fn() -> io::Result<Vec<UnixListener>>) -> Result<Self> {
        let mailbox = Mailbox::new().context("share memory")?;
        let running = attempt::start(who, || {
            let ground = ground();
            if let Err(error) = &ground {
                eprintln!("exact: user {}: {error}", who.uid);
            }
            loop {
                let answer = match (serde_json::from_slice::<Call>(&mailbox.order()), &ground) {
                    (_, Err(_)) => NO_GROUND,
                    (Ok(call), _) => call.make(),
                    (Err(_), _) => -1,
                };
                mailbox.answer(answer);
            }
        })?;
        Ok(Self { mailbox, running, user: who.uid })
    }

    /// Its number.
    pub(super) fn pid(&self) -> Pid {
        self.running.pid()
    }

    /// Has it make a call; 0 or the error number.
    pub(super) fn make(&self, call: &Call) -> Result<i32> {
        let order = serde_json::to_vec(call).context("write an order")?;
        self.mailbox
            .ask(&order, PATIENCE)
            .with_context(|| format!("user {} does not answer to {call:?}", self.user))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = kill(self.running.pid(), Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.running.pid(), None);
    }
}
