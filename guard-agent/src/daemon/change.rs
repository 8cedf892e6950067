//! How the live bundle changes: applying, reading again, going back, holding.
//!
//! The order is the same for all: verify, compile, keep a copy, switch, record, answer. A copy is on
//! the disk before the kernel has the tables, and the record before anybody is told. A crash between
//! two steps leaves the bundle before or the one after, each whole.

use super::adopt::Caller;
use super::candidate::{Candidate, Start};
use super::engine::{ApplyError, Built, Engine, Live, Next, compile, rfc3339};
use super::shadow::Beside;
use crate::api::types::{Applied, BundleStatus, History, RollbackRequest};
use crate::bundle::{Effect, Entry, Hold, How, Record, Standing};
use crate::events::BundleRecord;
use crate::policy::Bundle;
use jiff::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Who asked for a change of its own accord, and how it is remembered.
pub(super) struct Cause<'a> {
    pub(super) how: How,
    pub(super) by: &'a str,
    pub(super) reason: Option<String>,
    pub(super) back_to: Option<u64>,
    pub(super) hold: Option<Hold>,
}

impl Engine {
    /// Makes the bundle live that the daemon starts with.
    ///
    /// # Errors
    /// If the kernel refuses a table, or the start cannot be recorded.
    pub(super) fn begin(&mut self, start: Start) -> Result<Applied, ApplyError> {
        let started = Instant::now();
        let Start { candidate, compiled, ids, kept } = start;
        let known = self.shelf.record().live().is_some_and(|live| live.digest == candidate.bundle.digest);
        let again = kept.is_some() || known;
        self.kept = kept;
        self.know_what_was_live();
        let cause =
            Cause { how: How::Start, by: "the configuration", reason: None, back_to: None, hold: None };
        self.restore_shadow();
        // Sessions of subjects that this bundle is the first to have do not exist.
        let mut numbers = ids;
        self.resumed = self.sessions.resume(&mut numbers);
        self.number(numbers)?;
        let built = if self.shadow.is_some() || !self.sessions.seats().is_empty() {
            self.build(&candidate.bundle)?
        } else {
            Built { compiled, ids: self.ids.clone(), beside: Beside::Nothing, unseated: Vec::new() }
        };
        let labelled = self.make_live(candidate, built, (!again).then_some(cause))?;
        self.resumed.clear();
        self.end_shadow_that_is_live(How::Start, "the start");
        Ok(self.applied(true, started, labelled))
    }

    /// Says which bundle the generation is of that an agent before this one left: its last events are still to
    /// be read.
    fn know_what_was_live(&self) {
        let before = self.kernel.next_generation() - 1;
        if let (1.., Some(live)) = (before, self.shelf.record().live()) {
            let (name, version, digest) = (live.name.clone(), live.version, live.digest.clone());
            self.store.generation(before, BundleRecord { name, version, digest }, None);
        }
    }

    /// Makes the bundle at `path` live, unless this very bundle is: what `reader` finds there. With `dry_run` only says what would
    /// happen.
    ///
    /// # Errors
    /// If the bundle is invalid or refused, or the kernel refuses a table; the live bundle is
    /// untouched.
    pub fn apply(
        &mut self,
        path: &Path,
        reader: &Caller,
        by: &str,
        dry_run: bool,
    ) -> Result<Applied, ApplyError> {
        let started = Instant::now();
        let (candidate, effect) = self.candidate(path, Some(reader))?;
        if dry_run {
            let (compiled, _) = compile(&candidate.bundle, &self.ids)?;
            return Ok(Applied {
                dry_run: true,
                bundle: described(&candidate.bundle, path),
                notes: compiled.notes.iter().map(ToString::to_string).collect(),
                ..self.applied(effect == Effect::Changed, started, 0)
            });
        }
        if effect == Effect::Unchanged {
            if let Some(live) = &mut self.live {
                // Reading again means the place that was named last.
                live.directory = candidate.source;
            }
            return Ok(self.applied(false, started, 0));
        }
        let labelled = self.accept(candidate, by)?;
        Ok(self.applied(true, started, labelled))
    }

    /// Reads the live bundle again from where it came, and switches to what it says now, for the host
    /// as it is now.
    ///
    /// # Errors
    /// As for [`Engine::apply`].
    pub fn reload(&mut self) -> Result<Applied, ApplyError> {
        let started = Instant::now();
        let Some(live) = &self.live else { return Ok(self.applied(false, started, 0)) };
        let (candidate, effect) = self.candidate(&live.directory.clone(), None)?;
        let labelled = match effect {
            Effect::Changed => self.accept(candidate, "a reload")?,
            Effect::Unchanged => {
                let built = self.build(&candidate.bundle)?;
                self.kept = None;
                self.make_live(candidate, built, None)?
            }
        };
        Ok(self.applied(true, started, labelled))
    }

    /// Goes back to the bundle that was live before this one, and holds it if asked to.
    ///
    /// # Errors
    /// If there is none, its copy cannot be used, or the kernel refuses a table.
    pub fn rollback(&mut self, request: RollbackRequest, by: &str) -> Result<Applied, ApplyError> {
        let started = Instant::now();
        let before = self.shelf.record().before()?.clone();
        let candidate = Candidate::kept(&self.shelf, &before)?;
        let built = self.build(&candidate.bundle)?;
        let RollbackRequest { hold_seconds, reason } = request;
        let hold = hold_seconds.map(|seconds| Hold {
            until: rfc3339(SystemTime::now() + Duration::from_secs(seconds)),
            by: by.to_owned(),
            reason: reason.clone(),
        });
        let cause = Cause { how: How::Rollback, by, reason, back_to: Some(before.number), hold };
        self.kept = None;
        let labelled = self.make_live(candidate, built, Some(cause))?;
        Ok(self.applied(true, started, labelled))
    }

    /// Ends the hold. Says whether there was one.
    ///
    /// # Errors
    /// If that cannot be recorded; the hold stays then.
    pub fn release_hold(&mut self) -> Result<bool, ApplyError> {
        let held = self.shelf.record().hold(Timestamp::now()).is_some();
        self.shelf.change(|record| {
            record.set_hold(None);
        })?;
        Ok(held)
    }

    /// What was live on this host, and the hold.
    pub fn history(&self) -> History {
        let record = self.shelf.record();
        History {
            schema: "guard.history/1".to_owned(),
            entries: record.history().to_vec(),
            hold: record.hold(Timestamp::now()).cloned(),
            modes: self.modes.changes().to_vec(),
            shadow: self.shelf.shadows().current().cloned(),
            shadows: self.shelf.shadows().ended().to_vec(),
            disarms: self.disarms.clone(),
        }
    }

    /// Reads a bundle and finds out what making it live would do.
    fn candidate(&self, path: &Path, reader: Option<&Caller>) -> Result<(Candidate, Effect), ApplyError> {
        let now = Timestamp::now();
        let candidate = Candidate::read(path, reader, &self.trust)?;
        if let Some(expired) = candidate.bundle.release.expired(now) {
            return Err(ApplyError::Expired(expired));
        }
        let live = self.live.as_ref().map(|live| live.bundle.digest.as_str());
        let effect = candidate.admit(self.shelf.record(), live, now)?;
        Ok((candidate, effect))
    }

    fn accept(&mut self, candidate: Candidate, by: &str) -> Result<usize, ApplyError> {
        let built = self.build(&candidate.bundle)?;
        let cause = Cause { how: How::Apply, by, reason: None, back_to: None, hold: None };
        let labelled = self.make_live(candidate, built, Some(cause))?;
        self.kept = None;
        Ok(labelled)
    }

    /// Keeps a copy, switches, and records the change if it is one. If it cannot be recorded, what was
    /// live before is live again.
    pub(super) fn make_live(
        &mut self,
        candidate: Candidate,
        built: Built,
        cause: Option<Cause<'_>>,
    ) -> Result<usize, ApplyError> {
        let Candidate { opened, bundle, standing, source } = candidate;
        self.shelf.keep(&opened, &bundle.digest)?;
        let asked = cause.as_ref().map(|cause| (cause.how, cause.by.to_owned()));
        let entry = cause.map(|cause| (entry(&bundle, &source, &standing, &cause), cause.hold));
        let next = Next { bundle: Arc::new(bundle), directory: source, standing, built };
        let (labelled, before) = self.switch(next)?;
        if let Some((entry, hold)) = entry {
            let change = |record: &mut Record| {
                record.push(entry);
                if hold.is_some() {
                    record.set_hold(hold);
                }
            };
            if let Err(error) = self.shelf.change(change) {
                self.undo(before);
                return Err(error.into());
            }
            if let Some((how, by)) = asked {
                self.end_shadow_that_is_live(how, &by);
            }
            self.shelf.prune();
        }
        Ok(labelled)
    }

    /// Makes live again what was live before a change that could not be recorded.
    pub(super) fn undo(&mut self, before: Option<Live>) {
        let Some(before) = before else { return };
        match self.swap(&before.bundle, &before.compiled, &before.beside) {
            Ok(generation) => self.live = Some(Live { generation, ..before }),
            Err(error) => tracing::error!("the change is live and not recorded: cannot switch back: {error}"),
        }
        // The windows that were told last are those of the other bundle.
        if let Err(error) = self.tell_posture() {
            tracing::error!("windows, leases and facts are as they were told before: {error}");
        }
        if let Err(error) = self.label_running() {
            tracing::error!("cannot label running tasks: {error}");
        }
    }

    pub(super) fn applied(&self, changed: bool, started: Instant, labelled: usize) -> Applied {
        let notes =
            self.live.as_ref().map(|live| live.compiled.notes.iter().map(ToString::to_string).collect());
        Applied {
            schema: "guard.applied/1".to_owned(),
            changed,
            dry_run: false,
            generation: self.live.as_ref().map_or(0, |live| live.generation),
            bundle: self.bundle_status(),
            milliseconds: started.elapsed().as_secs_f64() * 1000.0,
            labelled,
            notes: notes.unwrap_or_default(),
        }
    }
}

fn entry(bundle: &Bundle, source: &Path, standing: &Standing, cause: &Cause<'_>) -> Entry {
    Entry {
        number: 0,
        how: cause.how,
        at: rfc3339(SystemTime::now()),
        name: bundle.name.clone(),
        version: bundle.version,
        digest: bundle.digest.clone(),
        source: source.display().to_string(),
        signed_by: standing.signers().to_vec(),
        by: cause.by.to_owned(),
        reason: cause.reason.clone(),
        back_to: cause.back_to,
    }
}

fn described(bundle: &Bundle, path: &Path) -> BundleStatus {
    BundleStatus {
        name: bundle.name.clone(),
        version: bundle.version,
        digest: bundle.digest.clone(),
        directory: path.display().to_string(),
        copy: String::new(),
    }
}
