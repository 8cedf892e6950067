//! Trials of enforcement: processes that ask to be labelled as the canary, to whom every policy set denies
//! everything, and what the kernel reports of them.

use super::labelling;
use super::serve::Shared;
use crate::kernel::{KernelError, has_ended};
use guard_common::action::TABLE;
use guard_common::label::{CANARY_SUBJECT, LabelRequest};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Trials that are remembered; the oldest is forgotten for a new one.
const MAX: usize = 16;

/// How often each action was denied, in the order of their bits.
pub(super) type Denials = [u32; TABLE.len()];

/// Why a trial cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// Nothing is live that could be tried.
    #[error("no policy is live, so there is nothing to try")]
    NotEnforcing,
    /// The caller is gone.
    #[error("the caller cannot be identified: it has ended")]
    Gone,
    /// There are no random numbers.
    #[error("cannot read /dev/urandom: {0}")]
    Random(#[from] io::Error),
    /// The kernel side failed.
    #[error("{0}")]
    Kernel(#[from] KernelError),
    /// The label did not come out as it was asked for.
    #[error("the caller could not be labelled")]
    NotLabelled,
}

/// Those under way, by the session number in their label.
#[derive(Default)]
struct Running {
    trials: BTreeMap<u64, watch::Sender<Denials>>,
    /// Session numbers in the order in which they were given.
    order: VecDeque<u64>,
}

/// A handle on them.
#[derive(Clone, Default)]
pub(super) struct Trials(Arc<Mutex<Running>>);

impl Trials {
    fn begin(&self, session: u64) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.order.len() >= MAX
            && let Some(oldest) = running.order.pop_front()
        {
            running.trials.remove(&oldest);
        }
        running.order.push_back(session);
        running.trials.insert(session, watch::Sender::new([0; TABLE.len()]));
    }

    /// Counts denials of a canary, by the session in its label, if that belongs to a trial.
    pub(super) fn note(&self, session: u64, actions: u64) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(trial) = running.trials.get(&session) else { return };
        trial.send_modify(|denials| {
            for row in TABLE {
                denials[row.action as usize] += u32::from(actions & row.action.bit() != 0);
            }
        });
    }

    fn watch(&self, session: u64) -> Option<watch::Receiver<Denials>> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.trials.get(&session).map(watch::Sender::subscribe)
    }
}

impl Shared {
    /// Labels this process as a canary and returns the number by which its denials can be asked for.
    /// There is no way back: it should be one that ends soon.
    ///
    /// # Errors
    /// Why it is not labelled.
    pub fn begin_trial(&self, process: BorrowedFd<'_>, pid: i32) -> Result<u64, TrialError> {
        let mut bytes = [0; 8];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        // 0 means "no session". Whole numbers up to 2^53 are what every reader of JSON can hold.
        let session = (u64::from_ne_bytes(bytes) >> 11).max(1);
        let (_, start_ticks) = labelling::stat(pid).ok_or(TrialError::Gone)?;
        if has_ended(process)? {
            return Err(TrialError::Gone);
        }
        self.trials().begin(session);
        let mut engine = self.engine();
        if engine.live.is_none() {
            return Err(TrialError::NotEnforcing);
        }
        let request = LabelRequest::attach(start_ticks, CANARY_SUBJECT).with_session(session);
        engine.kernel.label_requested(&[(pid, request)])?;
        match self.label_reader().of(process)? {
            Some(label) if label == (CANARY_SUBJECT, session) => {
                tracing::info!(pid, "a trial of enforcement begins");
                Ok(session)
            }
            _ => Err(TrialError::NotLabelled),
        }
    }

    /// Waits until a trial was denied each action as often as `wanted` says, and returns how often it was;
    /// nothing if there is no such trial. It waits for ever if that does not happen.
    pub async fn denials(&self, session: u64, wanted: &[(usize, u32)]) -> Option<Vec<u32>> {
        let mut watch = self.trials().watch(session)?;
        let enough = |denials: &Denials| {
            wanted.iter().all(|(action, count)| denials.get(*action).is_some_and(|seen| seen >= count))
        };
        let denials = watch.wait_for(enough).await.ok()?;
        Some(denials.to_vec())
    }

    /// How often a trial was denied each action so far.
    pub fn denials_now(&self, session: u64) -> Option<Vec<u32>> {
        Some(self.trials().watch(session)?.borrow().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guard_common::action::Action;

    #[test]
    fn denials_are_counted_for_the_trial_they_belong_to() {
        let trials = Trials::default();
        trials.begin(7);
        trials.note(7, Action::FileRead.bit() | Action::FileWrite.bit());
        trials.note(7, Action::FileRead.bit());
        trials.note(8, Action::FileRead.bit());
        let seen = *trials.watch(7).unwrap().borrow();
        assert_eq!((seen[Action::FileRead as usize], seen[Action::FileWrite as usize]), (2, 1));
        assert!(trials.watch(8).is_none());
    }

    #[test]
    fn the_oldest_trial_is_forgotten() {
        let trials = Trials::default();
        (1..=MAX as u64 + 1).for_each(|session| trials.begin(session));
        assert!(trials.watch(1).is_none());
        assert!(trials.watch(2).is_some());
    }
}
