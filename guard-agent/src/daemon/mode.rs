//! Setting a subject's mode: from the next operation on, and until its end with nobody's help.

use super::engine::Engine;
use super::facts::Known;
use super::leases;
use super::modes::{Modes, Now, Wanted};
use super::windows::{self, Holder};
use crate::api::types::{ModeRequest, ModeSet};
use crate::kernel::KernelError;
use crate::policy::{Bundle, Compiled};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Why a subject's mode was not set. It is what it was.
#[derive(Debug, thiserror::Error)]
pub enum ModeError {
    /// The live bundle has no such subject.
    #[error("the live bundle has no subject {0}: `guardctl status` lists them")]
    NoSubject(String),
    /// Less would be denied than before, and nobody says why.
    #[error("{0} would be denied less than now: say why with --reason TEXT")]
    NoReason(String),
    /// Less would be denied than before, and nobody said yes to that.
    #[error("{0} would be denied less than now")]
    Unconfirmed(String),
    /// It could not be remembered.
    #[error("cannot store the modes of subjects: {0}")]
    Store(#[from] io::Error),
    /// The kernel side failed.
    #[error("{0}")]
    Kernel(#[from] KernelError),
}

impl Engine {
    /// Gives a subject another mode for a while, or the bundle's again. On the disk before it counts.
    ///
    /// # Errors
    /// If there is no such subject, or less would be denied and reason or yes is missing, or it cannot
    /// be stored or made so.
    pub fn set_mode(&mut self, request: &ModeRequest, by: &str) -> Result<ModeSet, ModeError> {
        let now = Now::read();
        let unknown = || ModeError::NoSubject(request.subject.clone());
        let seats = self.sessions.seats();
        let Some(live) = &self.live else { return Err(unknown()) };
        let subject = live.bundle.subjects().find(|subject| subject.name == request.subject);
        let bundle_mode = subject.ok_or_else(unknown)?.mode;
        let id = self.ids.get(&request.subject).ok_or_else(unknown)?;
        let windows = windows::from_now_on(&live.bundle, &now);
        let wanted = Wanted {
            subject: request.subject.clone(),
            mode: request.mode.map(|mode| (mode, Duration::from_secs(request.seconds))),
            by: by.to_owned(),
            reason: request.reason.clone(),
        };
        if self.modes.widens(&wanted, bundle_mode, &now) {
            if wanted.reason.is_none() {
                return Err(ModeError::NoReason(wanted.subject));
            }
            if !request.confirmed {
                return Err(ModeError::Unconfirmed(wanted.subject));
            }
        }
        let before = self.modes.set(&wanted, &now)?;
        let bundle = Arc::clone(&live.bundle);
        // The sessions that have rows of their own are the subject as well.
        let Some(live) = &mut self.live else { return Err(unknown()) };
        let seated = seats.iter().filter(|seat| seat.subject == request.subject);
        let seated = seated.map(|seat| (seat.row, seat.session));
        let rows: Vec<(u32, u64)> =
            seated.filter(|(row, _)| live.compiled.has_row(*row)).chain([(id, 0)]).collect();
        let kernel = &mut self.kernel;
        let known = Known { bundle: &bundle, ledger: &self.ledger, collected: &self.told.collected };
        let mut put = |modes: &Modes| {
            rows.iter().try_for_each(|(row, session)| {
                let holder = (wanted.subject.as_str(), *session);
                let posture = leases::posture(modes, known, holder, &windows, &now);
                let outcomes = live.compiled.outcomes(*row, &posture, now.boot);
                let outcomes = outcomes.ok_or(KernelError::Outcomes { subject: *row })?;
                kernel.set_outcomes(*row, &outcomes)?;
                // What is live is what a failed change of the bundle goes back to.
                live.compiled.generation.set_outcomes(*row, &outcomes);
                Ok(())
            })
        };
        if let Err(error) = put(&self.modes) {
            if let Err(error) = self.modes.restore(before) {
                tracing::error!("the mode of {} is stored and not in force: {error}", wanted.subject);
            }
            if let Err(error) = put(&self.modes) {
                tracing::error!("some sessions of {} are in another mode than it: {error}", wanted.subject);
            }
            return Err(error);
        }
        let set = self.modes.get(&wanted.subject, &now);
        Ok(ModeSet {
            schema: "guard.mode/1".to_owned(),
            subject: wanted.subject,
            mode: set.map_or(bundle_mode, |set| set.mode),
            until: set.map(|set| set.until.clone()),
            then: bundle_mode,
        })
    }

    /// Puts the modes that still count, the open windows, leases, facts and quarantines into tables that are about to be live, so that
    /// there is no instant without them.
    pub(super) fn keep_posture(&mut self, bundle: &Bundle, compiled: &mut Compiled) {
        let now = Now::read();
        let windows = self.tell(bundle, &now);
        for Holder { row, subject, session } in self.rows(compiled) {
            let is_set = self.modes.get(&subject, &now).is_some()
                || self.ledger.quarantines().iter().any(|one| one.covers(&subject, session));
            if !is_set && !compiled.asks_for_posture(row) {
                continue;
            }
            let known = Known { bundle, ledger: &self.ledger, collected: &self.told.collected };
            let posture = leases::posture(&self.modes, known, (&subject, session), &windows, &now);
            if let Some(outcomes) = compiled.outcomes(row, &posture, now.boot) {
                compiled.generation.set_outcomes(row, &outcomes);
            }
        }
    }
}
