//! Change windows as the kernel wants them: instants of the clock that never steps.
//!
//! The kernel holds the next few instants of each subject and goes by them with the agent stopped or dead;
//! the agent tells it the ones after those. A window is told by the wall clock, so all are closed until
//! something has set that clock right, and from the moment on at which somebody sets it otherwise: the
//! kernel calls a clock that is set unsynchronised (`ntp_clear`, kernel/time/ntp.c).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::collectors::{self, Collected};
use super::engine::Engine;
use super::facts::Known;
use super::leases;
use super::modes::{Modes, Now};
use crate::api::types::WindowStatus;
use crate::kernel::{KernelError, clock_is_synchronised};
use crate::policy::{Bundle, Compiled, Instant, Opening, Posture, Schedule, Schedules};

/// Openings of each window that are computed ahead. The kernel holds fewer instants.
const AHEAD: usize = 4;

/// How long after a failure the kernel is told again, in nanoseconds.
const RETRY: Instant = 1_000_000_000;

/// A row of the tables, and whom it decides for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// The row.
    pub(super) row: u32,
    /// The subject.
    pub(super) subject: String,
    /// The session; 0 = all that have no row of their own.
    pub(super) session: u64,
}

/// When windows are open, by name.
pub(super) type Openings = BTreeMap<String, Vec<Opening>>;

/// When the windows of a bundle are open, as far ahead as is worth telling; none where the clock is not
/// known to be right.
fn openings(schedules: &Schedules, now: &Now, is_right: bool) -> Openings {
    let Some(wall) = known(now.wall, is_right) else { return Openings::new() };
    let boot = |at: Timestamp| -> Instant {
        let ahead = at.as_nanosecond() - wall.as_nanosecond();
        Instant::try_from(i128::from(now.boot) + ahead).unwrap_or(if ahead < 0 { 0 } else { Instant::MAX })
    };
    let of = |(name, schedule): (&String, &Schedule)| {
        let found = schedule.openings(wall, AHEAD).into_iter();
        (
            name.clone(),
            found.map(|(opens, closes)| Opening { opens: boot(opens), closes: boot(closes) }).collect(),
        )
    };
    schedules.iter().map(of).collect()
}

/// When the windows of a bundle are open from now on.
pub(super) fn from_now_on(bundle: &Bundle, now: &Now) -> Openings {
    openings(bundle.schedules(), now, is_right())
}

/// What is true of a subject by its mode, if one was set, and the open windows.
pub(super) fn posture(modes: &Modes, subject: &str, windows: &Openings, now: &Now) -> Posture {
    Posture { windows: windows.clone(), ..modes.posture(subject, now).unwrap_or_default() }
}

/// Those that are open at a wall-clock instant, in nanoseconds since 1970, if the clock is known to be right.
pub(super) fn open_at(schedules: &Schedules, wall: i64) -> BTreeSet<String> {
    let open = |at: Timestamp| schedules.iter().filter(move |(_, schedule)| schedule.is_open(at));
    known(wall, is_right()).into_iter().flat_map(open).map(|(name, _)| name.clone()).collect()
}

/// A reading of the wall clock, in nanoseconds since 1970, if the clock is right.
fn known(wall: i64, is_right: bool) -> Option<Timestamp> {
    Timestamp::from_nanosecond(wall.into()).ok().filter(|_| is_right)
}

fn is_right() -> bool {
    clock_is_synchronised() == Some(true)
}

/// What the agent waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Awaited {
    /// What nothing announces: whether the clock is right, and what else the agent finds out by itself.
    pub(super) polled: bool,
    /// The first instant of which the kernel knows.
    pub(super) until: Option<Instant>,
}

/// What the kernel was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Of which bundle, by its digest.
    bundle: String,
    /// Whether the clock was known to be right.
    is_right: bool,
    /// What the agent had found out by itself.
    pub(super) collected: Collected,
    /// The first instant of which it knows, or none.
    until: Option<Instant>,
}

impl Engine {
    /// When the windows of a bundle are open from now on, as the kernel is going to be told for all subjects.
    pub(super) fn tell(&mut self, bundle: &Bundle, now: &Now) -> Openings {
        let is_right = is_right();
        let found = openings(bundle.schedules(), now, is_right);
        let instants = found.values().flatten().flat_map(|opening| [opening.opens, opening.closes]);
        let collected = collectors::collect(bundle, &self.found);
        let next_end = Known { bundle, ledger: &self.ledger, collected: &collected }.next_end(now);
        let until = instants.filter(|at| *at > now.boot).chain(next_end).min();
        self.told = Told { bundle: bundle.digest.clone(), is_right, collected, until };
        found
    }

    /// Whether the live bundle has windows.
    pub(super) fn has_windows(&self) -> bool {
        self.live.as_ref().is_some_and(|live| !live.bundle.schedules().is_empty())
    }

    fn has_collectors(&self) -> bool {
        self.live.as_ref().is_some_and(|live| collectors::are_wanted(&live.bundle))
    }

    /// What was found out when the kernel was told last.
    pub(super) fn collected(&self) -> &Collected {
        &self.told.collected
    }

    /// What the agent waits for to tell the kernel more.
    pub(super) fn awaited(&self) -> Awaited {
        let polled = self.live.as_ref().is_some_and(|live| collectors::are_polled(&live.bundle));
        Awaited { polled: self.has_windows() || polled, until: self.told.until }
    }

    /// Whether the kernel should be told anew what holds: an instant it knew of is over, or the clock has become
    /// right, or is not any more, or it was told for a bundle that did not become live.
    pub(super) fn posture_is_due(&self) -> bool {
        let Some(live) = &self.live else { return false };
        let passed = |until: Instant| until <= Now::read().boot;
        let windows_are = self.has_windows()
            && (self.told.bundle != live.bundle.digest || self.told.is_right != is_right());
        let collected_are =
            self.has_collectors() && self.told.collected != collectors::collect(&live.bundle, &self.found);
        windows_are || collected_are || self.told.until.is_some_and(passed)
    }

    /// Tells the kernel what holds now, and the next instants at which that changes, for all subjects that have
    /// policies about it.
    ///
    /// # Errors
    /// If the kernel refuses. What it was told before counts then.
    pub(super) fn tell_posture(&mut self) -> Result<(), KernelError> {
        let now = Now::read();
        let Some(live) = &self.live else { return Ok(()) };
        let bundle = Arc::clone(&live.bundle);
        let mut rows = self.rows(&live.compiled);
        rows.retain(|holder| live.compiled.asks_for_posture(holder.row));
        let windows = self.tell(&bundle, &now);
        self.tell_rows(rows, &windows, &now)
    }

    /// The same for some rows.
    pub(super) fn tell_rows(
        &mut self,
        rows: Vec<Holder>,
        windows: &Openings,
        now: &Now,
    ) -> Result<(), KernelError> {
        let next_end = self.known().and_then(|known| known.next_end(now));
        self.told.until = self.told.until.into_iter().chain(next_end).min();
        let Some(live) = &mut self.live else { return Ok(()) };
        let bundle = Arc::clone(&live.bundle);
        for Holder { row, subject, session } in rows {
            let known = Known { bundle: &bundle, ledger: &self.ledger, collected: &self.told.collected };
            let posture = leases::posture(&self.modes, known, (&subject, session), windows, now);
            let Some(outcomes) = live.compiled.outcomes(row, &posture, now.boot) else { continue };
            if let Err(error) = self.kernel.set_outcomes(row, &outcomes) {
                // To be tried again.
                self.told = Told { until: Some(now.boot.saturating_add(RETRY)), ..Told::default() };
                return Err(error);
            }
            // What is live is what a failed change of the bundle goes back to.
            live.compiled.generation.set_outcomes(row, &outcomes);
        }
        Ok(())
    }

    /// What is to be said of the windows of the live bundle at a wall-clock instant.
    pub(super) fn windows(&self, wall: i64) -> Vec<WindowStatus> {
        let schedules = self.live.iter().flat_map(|live| live.bundle.schedules());
        let at = known(wall, is_right());
        let status = |(name, schedule): (&String, &Schedule)| {
            let next = at.and_then(|at| schedule.openings(at, 1).first().copied());
            let open = next.zip(at).is_some_and(|((opens, _), at)| opens <= at);
            let until = next.map(|(opens, closes)| if open { closes } else { opens });
            WindowStatus { name: name.clone(), open, until: until.map(|at| at.to_string()) }
        };
        schedules.map(status).collect()
    }

    /// Why windows that could be open are closed.
    pub(super) fn closed_for_want_of_a_clock(&self) -> Option<String> {
        (self.has_windows() && !is_right()).then(|| {
            "all change windows are closed: nothing has set the clock right (`timedatectl timesync-status`, `chronyc \
             tracking`)"
                .to_owned()
        })
    }

    /// The rows of tables: those of subjects, then those of sessions.
    pub(super) fn rows(&self, compiled: &Compiled) -> Vec<Holder> {
        let seated = self.sessions.seats().into_iter();
        let seated =
            seated.map(|seat| Holder { row: seat.row, subject: seat.subject, session: seat.session });
        let subjects = compiled.names.subjects.clone().into_iter();
        subjects.map(|(row, subject)| Holder { row, subject, session: 0 }).chain(seated).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_instants_of_the_clock_that_never_steps_and_closed_while_the_other_is_not_right() {
        let window = "{ days = [\"tue\"], from = \"09:00\", to = \"10:00\", zone = \"UTC\" }";
        let schedules = Schedules::from([("w".to_owned(), Schedule::of(window).unwrap())]);
        const SECOND: i64 = 1_000_000_000;
        let wall: Timestamp = "2026-12-01T09:30:00Z".parse().unwrap();
        let wall = i64::try_from(wall.as_nanosecond()).unwrap();
        let boot = 600 * SECOND.unsigned_abs();
        let now = Now { wall, boot, boot_id: String::new() };
        let found = openings(&schedules, &now, true);
        let first = found["w"][0];
        // It opened before the host was there, and closes in half an hour.
        assert_eq!((first.opens, first.closes), (0, boot + 1800 * SECOND.unsigned_abs()));
        assert!(openings(&schedules, &now, false).is_empty());
    }
}
