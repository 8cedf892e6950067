//! Modes that differ from the bundle's for a while.
//!
//! The end is part of what the kernel holds, so it comes on time with the agent stopped or starved. They
//! are kept over a change of the bundle and forgotten when the agent ends.

use super::engine::{Engine, rfc3339};
use crate::api::types::{ModeRequest, ModeSet};
use crate::kernel::KernelError;
use crate::policy::{Compiled, Instant, Mode, Posture, Until};
use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime};

/// Why a subject's mode could not be set. It is what it was.
#[derive(Debug, thiserror::Error)]
pub enum ModeError {
    /// The live bundle has no such subject.
    #[error("the live bundle has no subject {0}: `guardctl status` lists them")]
    NoSubject(String),
    /// The kernel side failed.
    #[error("{0}")]
    Kernel(#[from] KernelError),
}

/// A mode, and when it ends.
pub(super) struct Temporary {
    pub(super) mode: Mode,
    /// By CLOCK_BOOTTIME.
    end: Instant,
    /// The same by the wall clock when it was set, for people.
    pub(super) until: SystemTime,
}

impl Temporary {
    /// Whether it still counts.
    pub(super) fn is_live(&self, now: Instant) -> bool {
        now < self.end
    }
}

impl Engine {
    /// Gives a subject another mode for a while, or the bundle's again.
    ///
    /// # Errors
    /// If there is no such subject, or the kernel side fails.
    pub fn set_mode(&mut self, request: &ModeRequest) -> Result<ModeSet, ModeError> {
        let now = boot_time()?;
        let unknown = || ModeError::NoSubject(request.subject.clone());
        let Some(live) = &mut self.live else { return Err(unknown()) };
        let subject = live.bundle.subjects().find(|subject| subject.name == request.subject);
        let bundle_mode = subject.ok_or_else(unknown)?.mode;
        let id = self.ids.get(&request.subject).ok_or_else(unknown)?;
        let length = Duration::from_secs(request.seconds);
        let next = request.mode.map(|mode| Temporary {
            mode,
            end: now.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)),
            until: SystemTime::now() + length,
        });
        let outcomes = live.compiled.outcomes(id, &posture(next.as_ref()), now).ok_or_else(unknown)?;
        self.kernel.set_outcomes(id, &outcomes)?;
        // What is live is what a failed change of the bundle goes back to.
        live.compiled.generation.set_outcomes(id, &outcomes);
        let answer = ModeSet {
            schema: "guard.mode/1".to_owned(),
            subject: request.subject.clone(),
            mode: next.as_ref().map_or(bundle_mode, |next| next.mode),
            until: next.as_ref().map(|next| rfc3339(next.until)),
            then: bundle_mode,
        };
        match next {
            Some(next) => self.modes.insert(request.subject.clone(), next),
            None => self.modes.remove(&request.subject),
        };
        Ok(answer)
    }

    /// Puts the modes that still count into tables that are about to be live.
    pub(super) fn keep_modes(&self, compiled: &mut Compiled) -> Result<(), KernelError> {
        let now = boot_time()?;
        for (name, temporary) in self.modes.iter().filter(|(_, temporary)| temporary.is_live(now)) {
            let Some(id) = self.ids.get(name) else { continue };
            // A bundle without the subject has no outcomes to change.
            if let Some(outcomes) = compiled.outcomes(id, &posture(Some(temporary)), now) {
                compiled.generation.set_outcomes(id, &outcomes);
            }
        }
        Ok(())
    }
}

fn posture(mode: Option<&Temporary>) -> Posture {
    Posture { mode: mode.map(|next| Until { value: next.mode, end: Some(next.end) }), ..Posture::default() }
}

/// Now, by the clock that deadlines are held against.
pub(super) fn boot_time() -> Result<Instant, KernelError> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(|errno| KernelError::System {
        call: "clock_gettime(CLOCK_BOOTTIME)",
        source: errno.into(),
    })?;
    Ok(u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX))
}
