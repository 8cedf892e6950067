//! A bundle on live traffic that decides nothing: what would be otherwise is reported.
//!
//! It is accepted like one that is to become live, kept like one, and compiled beside the live one: the
//! masks then also say where its verdict is another one. It stands until it is promoted or stopped, or until
//! the same bundle becomes live.

use super::adopt::Caller;
use super::candidate::Candidate;
use super::change::Cause;
use super::engine::{ApplyError, Built, Engine, Next, compile, compile_seated, rfc3339};
use crate::api::types::{Applied, ShadowSet, ShadowStatus};
use crate::bundle::{self, End, How, Standing, Trust};
use crate::events::{BundleRecord, time};
use crate::host::Host;
use crate::policy::{self, Bundle, Facts, Seat, SubjectIds};
use crate::store;
use guard_common::event::Counter;
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Why there is no shadow, or it cannot be what is asked for. What is live is untouched.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// There is none.
    #[error("there is no shadow: guardctl policy apply --shadow BUNDLE begins one")]
    None,
    /// It is what is live.
    #[error("{0} is the live bundle: nothing would differ")]
    Live(String),
    /// Both bundles together do not fit into the tables of one generation.
    #[error(
        "the shadow compiles by itself, and not together with the live policy: {0}\nthe live policy is \
         untouched; compare with guardctl policy diff, or make one of the two simpler"
    )]
    Together(String),
}

impl ShadowError {
    /// Stable name for tools.
    pub fn code(&self) -> &'static str {
        match self {
            Self::None => "no-shadow",
            Self::Live(_) => "shadow-is-live",
            Self::Together(_) => "too-large-together",
        }
    }
}

/// The shadow, read.
pub(super) struct Shadow {
    pub(super) entry: bundle::Shadow,
    pub(super) bundle: Arc<Bundle>,
    /// Operations that were decided before it was there, by the counter, and when it was there.
    decided: u64,
    counted: i64,
}

/// What stands beside a generation.
#[derive(Clone, Debug, Default)]
pub(super) enum Beside {
    /// Nothing.
    #[default]
    Nothing,
    /// The shadow that began then.
    Shadow(store::Beside),
    /// The shadow does not compile with it, or not on this host as it is; why.
    Paused(String),
}

impl Beside {
    /// The shadow, for the store.
    pub(super) fn shadow(&self) -> Option<&store::Beside> {
        match self {
            Self::Shadow(shadow) => Some(shadow),
            Self::Nothing | Self::Paused(_) => None,
        }
    }
}

impl Shadow {
    /// As the store knows it.
    fn beside(&self) -> Beside {
        let bundle = BundleRecord {
            name: self.bundle.name.clone(),
            version: self.bundle.version,
            digest: self.bundle.digest.clone(),
        };
        Beside::Shadow(store::Beside { began: self.entry.began, bundle })
    }
}

/// Compiles a bundle, and a shadow beside it, with the sessions that have variables. A shadow that does
/// not compile with it pauses: what is live must not depend on it.
pub(super) fn build(
    bundle: &Bundle,
    shadow: Option<&Shadow>,
    seats: &[Seat],
    ids: &SubjectIds,
) -> Result<Built, ApplyError> {
    let alone = |beside| {
        let (compiled, ids) = compile_seated(bundle, seats, ids)?;
        Ok(Built { compiled, ids, beside, unseated: Vec::new() })
    };
    let Some(shadow) = shadow.filter(|shadow| shadow.bundle.digest != bundle.digest) else {
        return alone(Beside::Nothing);
    };
    match together(bundle, shadow, seats, ids) {
        Ok(built) => Ok(built),
        Err(error) => {
            let built = alone(Beside::Paused(error.to_string()))?;
            tracing::warn!("the shadow is paused: {error}");
            Ok(built)
        }
    }
}

/// The same without the sessions that keep it from compiling: what is live must not depend on what a
/// session has named.
fn build_seated(
    bundle: &Bundle,
    shadow: Option<&Shadow>,
    seats: &[Seat],
    ids: &SubjectIds,
) -> Result<Built, ApplyError> {
    let error = match build(bundle, shadow, seats, ids) {
        Ok(built) => return Ok(built),
        Err(error) if seats.is_empty() => return Err(error),
        Err(error) => error,
    };
    let host = Host::read().map_err(ApplyError::Host)?;
    let (fitting, others): (Vec<Seat>, Vec<Seat>) = seats.iter().cloned().partition(|seat| seat.fits(&host));
    let (seated, unseated) = match build(bundle, shadow, &fitting, ids) {
        Ok(built) if !others.is_empty() => (built, others),
        // Together they are too many for the tables, or the bundle does not compile by itself.
        _ => (build(bundle, shadow, &[], ids)?, seats.to_vec()),
    };
    tracing::error!(sessions = unseated.len(), "sessions have no place in the tables: {error}");
    Ok(Built { unseated: unseated.iter().map(|seat| seat.session).collect(), ..seated })
}

fn together(bundle: &Bundle, shadow: &Shadow, seats: &[Seat], ids: &SubjectIds) -> Result<Built, ApplyError> {
    let host = Host::read().map_err(ApplyError::Host)?;
    let mut ids = ids.clone();
    let beside = (Some(&*shadow.bundle), seats);
    let compiled = policy::compile_seated(bundle, beside, &host, &Facts::default(), &mut ids)
        .map_err(|errors| ShadowError::Together(errors.to_string()))?;
    Ok(Built { compiled, ids, beside: shadow.beside(), unseated: Vec::new() })
}

impl Engine {
    /// Compiles a bundle with the shadow that stands and the sessions that last.
    pub(super) fn build(&self, bundle: &Bundle) -> Result<Built, ApplyError> {
        build_seated(bundle, self.shadow.as_ref(), &self.sessions.seats(), &self.ids)
    }

    /// Puts the bundle that `reader` finds at `path` beside the live one; another shadow ends with that. With `dry_run` only
    /// says whether it can.
    ///
    /// A hold does not refuse it: what is live stays.
    ///
    /// # Errors
    /// As [`Engine::apply`], or if both together do not compile.
    pub fn apply_shadow(
        &mut self,
        path: &Path,
        reader: &Caller,
        by: &str,
        dry_run: bool,
    ) -> Result<ShadowSet, ApplyError> {
        let started = Instant::now();
        let candidate = Candidate::read(path, Some(reader), &self.trust)?;
        if let Some(expired) = candidate.bundle.release.expired(Timestamp::now()) {
            return Err(ApplyError::Expired(expired));
        }
        self.shelf.record().known(candidate.proposed())?;
        let Some(live) = &self.live else { return Err(ShadowError::None.into()) };
        let what = format!("{} version {}", candidate.bundle.name, candidate.bundle.version);
        if live.bundle.digest == candidate.bundle.digest {
            return Err(ShadowError::Live(what).into());
        }
        if let Some(known) = &self.shadow
            && known.bundle.digest == candidate.bundle.digest
        {
            return Ok(self.shadow_set(false, started, Vec::new()));
        }
        // What is wrong with it alone is said by its own places.
        let (alone, _) = compile(&candidate.bundle, &self.ids)?;
        let notes = alone.notes.iter().map(ToString::to_string).collect();
        let Candidate { opened, bundle, standing, source } = candidate;
        if !dry_run {
            self.shelf.keep(&opened, &bundle.digest)?;
        }
        let entry = entry(&bundle, &standing, &source, by);
        let decided = self.kernel.counters()?[Counter::Decided as usize];
        let counted = entry.began;
        // From the copy: its files then have names that are not those of the live bundle.
        let kept =
            if dry_run { bundle } else { self.shelf.get(&bundle.digest).map_err(ApplyError::Invalid)?.1 };
        let shadow = Shadow { entry, bundle: Arc::new(kept), decided, counted };
        let built = together(&live.bundle, &shadow, &self.sessions.seats(), &self.ids)?;
        if dry_run {
            return Ok(ShadowSet {
                dry_run: true,
                shadow: described(&shadow, None),
                ..self.shadow_set(true, started, notes)
            });
        }
        let entry = shadow.entry.clone();
        self.change_shadow(Some(shadow), built, |shadows| shadows.begin(entry))?;
        self.shelf.prune();
        Ok(self.shadow_set(true, started, notes))
    }

    /// Ends the shadow. What was counted is forgotten when two others have begun.
    ///
    /// # Errors
    /// If there is none, or that cannot be recorded; it stands then.
    pub fn stop_shadow(&mut self, by: &str) -> Result<ShadowSet, ApplyError> {
        let started = Instant::now();
        let Some(live) = &self.live else { return Err(ShadowError::None.into()) };
        if self.shadow.is_none() {
            return Err(ShadowError::None.into());
        }
        let built = build_seated(&live.bundle, None, &self.sessions.seats(), &self.ids)?;
        let set = self.shadow_set(true, started, Vec::new());
        let (at, by) = (rfc3339(SystemTime::now()), by.to_owned());
        self.change_shadow(None, built, |shadows| shadows.end(End::Stopped, at, by))?;
        Ok(ShadowSet { milliseconds: elapsed(started), generation: self.generation(), ..set })
    }

    /// Makes the shadow live, as an apply of the kept bundle would. The shadow ends with that.
    ///
    /// # Errors
    /// As [`Engine::apply`], or if there is none.
    pub fn promote_shadow(&mut self, by: &str) -> Result<Applied, ApplyError> {
        let started = Instant::now();
        let Some(shadow) = &self.shadow else { return Err(ShadowError::None.into()) };
        let now = Timestamp::now();
        let (opened, bundle) = self.shelf.get(&shadow.bundle.digest).map_err(ApplyError::Invalid)?;
        // By the keys of today: one may have been withdrawn since.
        let standing = Trust::read(&self.trust, true)?.judge(&opened)?;
        let candidate = Candidate { opened, bundle, standing, source: PathBuf::from(&shadow.entry.source) };
        if let Some(expired) = candidate.bundle.release.expired(now) {
            return Err(ApplyError::Expired(expired));
        }
        let live = self.live.as_ref().map(|live| live.bundle.digest.as_str());
        candidate.admit(self.shelf.record(), live, now)?;
        let built = self.build(&candidate.bundle)?;
        let cause = Cause { how: How::Promote, by, reason: None, back_to: None, hold: None };
        let labelled = self.make_live(candidate, built, Some(cause))?;
        self.kept = None;
        Ok(self.applied(true, started, labelled))
    }

    /// Switches to the live bundle with another shadow, or none, and records that. If it cannot be
    /// recorded, what was before is again.
    fn change_shadow(
        &mut self,
        shadow: Option<Shadow>,
        built: Built,
        change: impl FnOnce(&mut bundle::Shadows),
    ) -> Result<(), ApplyError> {
        let Some(live) = &self.live else { return Err(ShadowError::None.into()) };
        let (bundle, directory) = (Arc::clone(&live.bundle), live.directory.clone());
        let next = Next { bundle, directory, standing: live.standing.clone(), built };
        let (_, before) = self.switch(next)?;
        let previous = std::mem::replace(&mut self.shadow, shadow);
        if let Err(error) = self.shelf.change_shadows(change) {
            self.shadow = previous;
            self.undo(before);
            return Err(error.into());
        }
        Ok(())
    }

    /// Reads the shadow that stood when the agent ended.
    pub(super) fn restore_shadow(&mut self) {
        let Some(entry) = self.shelf.shadows().current().cloned() else { return };
        match self.shelf.get(&entry.digest) {
            Ok((_, bundle)) => {
                // The counters begin with the programs.
                let (decided, counted) = (0, time::now());
                self.shadow = Some(Shadow { entry, bundle: Arc::new(bundle), decided, counted });
            }
            Err(errors) => {
                let what = format!("the shadow {} version {} is gone", entry.name, entry.version);
                tracing::error!("{what}, its copy cannot be used: {errors}");
                self.end_shadow(End::Lost, "the start");
                self.shelf.lost = Some(format!("{what}: its copy cannot be used"));
            }
        }
    }

    /// Ends the shadow if the live bundle is the same.
    pub(super) fn end_shadow_that_is_live(&mut self, how: How, by: &str) {
        let same = |shadow: &Shadow| {
            self.live.as_ref().is_some_and(|live| live.bundle.digest == shadow.bundle.digest)
        };
        if self.shadow.as_ref().is_some_and(same) {
            self.end_shadow(if how == How::Promote { End::Promoted } else { End::Applied }, by);
        }
    }

    /// Forgets the shadow. If that cannot be recorded, it is restored at the next start, and ends there if
    /// it is what is live.
    fn end_shadow(&mut self, how: End, by: &str) {
        self.shadow = None;
        let at = rfc3339(SystemTime::now());
        if let Err(error) = self.shelf.change_shadows(|shadows| shadows.end(how, at, by.to_owned())) {
            tracing::error!("the end of the shadow is not recorded: {error}");
        }
    }

    /// The shadow, for the status.
    pub(super) fn shadow_status(&self) -> Option<ShadowStatus> {
        self.shadow.as_ref().map(|shadow| described(shadow, self.paused()))
    }

    /// Why the shadow is not compared now.
    pub(super) fn paused(&self) -> Option<String> {
        match self.live.as_ref().map(|live| &live.beside) {
            Some(Beside::Paused(why)) => Some(why.clone()),
            _ => None,
        }
    }

    /// Operations that were decided beside the shadow, as far as the counters reach back, and since when.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub(super) fn decided_beside(&self, shadow: &Shadow) -> Result<(u64, i64), ApplyError> {
        let decided = self.kernel.counters()?[Counter::Decided as usize];
        Ok((decided.saturating_sub(shadow.decided), shadow.counted))
    }

    fn shadow_set(&self, changed: bool, started: Instant, notes: Vec<String>) -> ShadowSet {
        ShadowSet {
            schema: ShadowSet::SCHEMA.to_owned(),
            changed,
            dry_run: false,
            shadow: self.shadow_status().unwrap_or_default(),
            bundle: self.bundle_status(),
            generation: self.generation(),
            milliseconds: elapsed(started),
            notes,
        }
    }

    fn generation(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.generation)
    }
}

fn elapsed(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1000.0
}

fn entry(bundle: &Bundle, standing: &Standing, source: &Path, by: &str) -> bundle::Shadow {
    bundle::Shadow {
        began: time::now(),
        at: rfc3339(SystemTime::now()),
        name: bundle.name.clone(),
        version: bundle.version,
        digest: bundle.digest.clone(),
        source: source.display().to_string(),
        signed_by: standing.signers().to_vec(),
        by: by.to_owned(),
    }
}

fn described(shadow: &Shadow, paused: Option<String>) -> ShadowStatus {
    let entry = &shadow.entry;
    ShadowStatus {
        name: entry.name.clone(),
        version: entry.version,
        digest: entry.digest.clone(),
        since: entry.at.clone(),
        by: entry.by.clone(),
        source: entry.source.clone(),
        signed_by: entry.signed_by.clone(),
        paused,
    }
}
