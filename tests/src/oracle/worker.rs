//! Processes that make the operations of a round: one without restrictions, one under Landlock, one with a
//! label of Guard. They are told which operation is next through memory that they share with this one, so
//! that nothing is involved that either could refuse.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use guard_tests::attempt::{self, Running};
use guard_tests::raw::{SharedPages, futex_wait, futex_wake};
use guard_tests::users::Identity;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};

use crate::operation::{Answer, Operation};

/// How long an operation may take in a busy guest, in seconds.
const PATIENCE: u32 = 60;
/// Nobody waits.
const IDLE: u32 = 0;
/// There is an order.
const ORDER: u32 = 1;
/// There is an answer.
const ANSWER: u32 = 2;
/// Words of the shared page.
const STATE: usize = 0;
const INDEX: usize = 1;
const RESULT: usize = 2;
/// Instead of an operation: open the probe.
const PROBE: u32 = u32::MAX;

/// One process.
pub(crate) struct Worker {
    pages: SharedPages,
    running: Running,
}

impl Worker {
    /// A process of this user in the tree at `root`, which first does what `restrict` does. `probe` is a
    /// file outside of all trees.
    pub(crate) fn start(
        who: Identity,
        root: &Path,
        operations: &[Operation],
        probe: &Path,
        restrict: impl Fn() -> io::Result<()>,
    ) -> Result<Self> {
        let pages = SharedPages::new(4096).context("share memory")?;
        let running = attempt::start(who, || {
            umask(Mode::empty());
            std::env::set_current_dir(root)?;
            // Nobody waits for how this ends.
            restrict().inspect_err(|error| eprintln!("oracle: {}: {error}", who.name))?;
            loop {
                let order = next(&pages);
                let answer = match operations.get(order as usize) {
                    Some(operation) => operation.make(),
                    None => [
                        fs::File::open(probe).err().and_then(|error| error.raw_os_error()).unwrap_or(0),
                        0,
                        0,
                    ],
                };
                for (index, number) in answer.into_iter().enumerate() {
                    pages.word(RESULT + index).store(number.cast_unsigned(), Ordering::Relaxed);
                }
                pages.word(STATE).store(ANSWER, Ordering::Release);
                futex_wake(pages.word(STATE));
            }
        })?;
        Ok(Self { pages, running })
    }

    /// Has it make operation `index`.
    pub(crate) fn make(&self, index: usize) -> Result<Answer> {
        self.ask(u32::try_from(index).context("a round is not that long")?)
    }

    /// The error number with which it fails to read the probe, or 0.
    pub(crate) fn probe(&self) -> Result<i32> {
        Ok(self.ask(PROBE)?[0])
    }

    fn ask(&self, order: u32) -> Result<Answer> {
        let state = self.pages.word(STATE);
        self.pages.word(INDEX).store(order, Ordering::Relaxed);
        state.store(ORDER, Ordering::Release);
        futex_wake(state);
        let mut waited = 0;
        while state.load(Ordering::Acquire) == ORDER {
            if !futex_wait(state, ORDER, true) {
                waited += 1;
                ensure!(waited < PATIENCE, "process {} does not answer", self.running.pid());
            }
        }
        state.store(IDLE, Ordering::Relaxed);
        Ok([0, 1, 2].map(|index| self.pages.word(RESULT + index).load(Ordering::Relaxed).cast_signed()))
    }
}

fn next(pages: &SharedPages) -> u32 {
    let state = pages.word(STATE);
    loop {
        let now = state.load(Ordering::Acquire);
        if now == ORDER {
            return pages.word(INDEX).load(Ordering::Relaxed);
        }
        futex_wait(state, now, false);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = kill(self.running.pid(), Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.running.pid(), None);
    }
}
