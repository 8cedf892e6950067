//! Processes that do what they are told, each as its own user.

use anyhow::{Context, Result};
use guard_tests::attempt::{self, Running};
use guard_tests::users::{AGENT, CI, FREE, Identity, WEBSRV};
use nix::sys::signal::{Signal, kill};

use super::call::Call;
use super::mailbox::Mailbox;

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
    /// One process for each subject.
    pub(super) fn labelled() -> Result<Vec<Self>> {
        LABELLED.into_iter().map(Self::start).collect()
    }

    /// A process that no policy is about.
    pub(super) fn unlabelled() -> Result<Self> {
        Self::start(FREE)
    }

    /// A process of this user.
    pub(super) fn start(who: Identity) -> Result<Self> {
        let mailbox = Mailbox::new().context("share memory")?;
        let running = attempt::start(who, || {
            loop {
                let answer = match serde_json::from_slice::<Call>(&mailbox.order()) {
                    Ok(call) => call.make(),
                    Err(_) => -1,
                };
                mailbox.answer(answer);
            }
        })?;
        Ok(Self { mailbox, running, user: who.uid })
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
