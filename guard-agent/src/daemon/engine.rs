//! What the daemon enforces now, and how that changes: one compile and one switch at a time.

use super::candidate::{Kept, Stored};
use super::collectors;
use super::containers::Containers;
use super::disarms::Disarm;
use super::found::Found;
use super::labelling;
use super::location;
use super::modes::{Modes, Now};
use super::names::Watch;
use super::pace::Paces;
use super::providers;
use super::sessions::Sessions;
use super::shadow::{Beside, Shadow, ShadowError};
use super::unused::Watched;
use super::windows::Told;
use crate::api::types::{
    BundleStatus, Counters, CoverageReport, PolicyStatus, ProgramStatus, Status, SubjectCoverage,
    SubjectStatus,
};
use crate::bundle::{Denied, Refusal, Shelf, ShelfError, Standing, Trust, TrustConfig, TrustError, replace};
use crate::coverage;
use crate::events::{BundleRecord, time};
use crate::host::Host;
use crate::kernel::{Bars, Kernel, KernelError, Uses};
use crate::ledger::{Ledger, LedgerError};
use crate::policy::{
    self, Bundle, Compiled, Diagnostics, ExecSuccessor, Facts, Seat, SubjectIds, Unenforceable,
};
use crate::rescue::Rescue;
use crate::store::Store;
use crate::tables::Selector;
use guard_common::action::{self, Coverage};
use guard_common::event::Counter;
use guard_common::label::{IN_CONTAINER, LabelRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Passes over the processes until one labels nothing. Each pass but the last labels some.
const MAX_SCANS: usize = 1000;

/// Why a bundle could not be made live. The one before stays live.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The bundle is not valid.
    #[error("{0}")]
    Invalid(Diagnostics),
    /// The trusted keys cannot be read.
    #[error("{0}")]
    Trust(#[from] TrustError),
    /// Not enough trusted keys signed it.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It is too old.
    #[error("{0}")]
    Expired(String),
    /// What this host had before forbids it.
    #[error("{0}")]
    Denied(#[from] Denied),
    /// There is no shadow, or it cannot be one.
    #[error("{0}")]
    Shadow(#[from] ShadowError),
    /// It could not be kept.
    #[error("{0}")]
    Shelf(#[from] ShelfError),
    /// What was granted, or is known, cannot be read.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// The agent cannot read with the rights of whoever asks.
    #[error("cannot read the bundle with the rights of the caller: {0}")]
    Reader(std::io::Error),
    /// Facts about the host could not be read.
    #[error("cannot read facts about this host: {0}")]
    Host(std::io::Error),
    /// The kernel side failed.
    #[error("{0}")]
    Kernel(#[from] KernelError),
    /// The numbers of subjects could not be stored.
    #[error("cannot store the subject numbers in {path}: {source}")]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl ApplyError {
    /// Stable name of the refusal of a bundle that is valid; nothing for other errors.
    pub fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Trust(_) => Some("trust"),
            Self::Refused(_) => Some("not-signed"),
            Self::Expired(_) => Some("expired"),
            Self::Denied(denied) => Some(denied.code()),
            Self::Shadow(error) => Some(error.code()),
            _ => None,
        }
    }
}

/// The live bundle.
pub(super) struct Live {
    pub(super) bundle: Arc<Bundle>,
    /// The directory or archive it was read from.
    pub(super) directory: PathBuf,
    pub(super) standing: Standing,
    pub(super) compiled: Compiled,
    pub(super) generation: u64,
    /// When it became live, in nanoseconds of CLOCK_BOOTTIME.
    pub(super) since: i64,
    /// What stands beside it.
    pub(super) beside: Beside,
    /// Sessions whose variables have no place in the tables.
    pub(super) unseated: Vec<u64>,
    /// What of its use is with the store.
    pub(super) watched: Watched,
}

/// What is about to be the live bundle.
pub(super) struct Next {
    pub(super) bundle: Arc<Bundle>,
    pub(super) directory: PathBuf,
    pub(super) standing: Standing,
    pub(super) built: Built,
}

/// The tables of a bundle for this host as it is now, and what stands beside them.
pub(super) struct Built {
    pub(super) compiled: Compiled,
    /// The numbers its subjects have or get.
    pub(super) ids: SubjectIds,
    pub(super) beside: Beside,
    /// Sessions whose variables have no place in them: everything is denied to these.
    pub(super) unseated: Vec<u64>,
}

/// Owns the kernel side and everything that decides what it enforces.
pub struct Engine {
    /// The kernel side.
    pub(super) kernel: Kernel,
    pub(super) ids: SubjectIds,
    pub(super) ids_file: PathBuf,
    /// Copies of the bundles that were live, and the record of them.
    pub(super) shelf: Shelf,
    pub(super) trust: TrustConfig,
    /// What is remembered of events.
    pub(super) store: Arc<Store>,
    pub(super) live: Option<Live>,
    /// The bundle whose verdicts are compared.
    pub(super) shadow: Option<Shadow>,
    /// Modes that differ from the bundle's for a while.
    pub(super) modes: Modes,
    /// What the kernel was told last of change windows.
    pub(super) told: Told,
    pub(super) sessions: Sessions,
    /// Processes of sessions that an agent before this one knew, until they are labelled again.
    pub(super) resumed: Vec<(i32, LabelRequest)>,
    /// What was granted, what is asked for, and what is known of subjects.
    pub(super) ledger: Ledger,
    /// How often what was granted can still be used.
    pub(super) uses: Uses,
    /// What quarantines deny that are bound to no subject.
    pub(super) bars: Bars,
    /// What none of them covers.
    pub(super) rescue: Rescue,
    /// How often facts are said.
    pub(super) pace: Paces,
    /// What the agent's own threads have found out of the host.
    pub(super) found: Found,
    /// When enforcement was ended on purpose.
    pub(super) disarms: Vec<Disarm>,
    /// Why the daemon started with another bundle than the configured one.
    pub(super) kept: Option<Kept>,
    since: Option<SystemTime>,
    /// Where paths lead and who accounts are.
    names: Watch,
    /// Why the last change of the host is not part of the tables.
    stale: Option<String>,
    /// What of the host is not watched, and why.
    unwatched: Option<String>,
    /// Why running processes may lack their labels.
    unlabelled: Option<String>,
}

impl Engine {
    /// An engine with nothing live.
    pub(super) fn new(
        kernel: Kernel,
        stored: Stored,
        trust: TrustConfig,
        store: Arc<Store>,
        (names, found): (Watch, Found),
    ) -> Result<Self, KernelError> {
        let Stored { ids, ids_file, shelf, modes, sessions, disarms, ledger } = stored;
        let engine = Self {
            uses: kernel.uses()?,
            bars: kernel.bars()?,
            rescue: Rescue::default(),
            kernel,
            ids,
            ids_file,
            shelf,
            trust,
            store,
            live: None,
            shadow: None,
            modes,
            told: Told::default(),
            sessions,
            resumed: Vec::new(),
            disarms,
            ledger,
            pace: Paces::default(),
            found,
            kept: None,
            since: None,
            names,
            stale: None,
            unwatched: None,
            unlabelled: None,
        };
        engine.settle_uses();
        Ok(engine)
    }

    /// Names of the subjects by number.
    pub fn subject_names(&self) -> BTreeMap<u32, String> {
        self.live.as_ref().map(|live| live.compiled.names.subjects.clone()).unwrap_or_default()
    }

    /// Where the agent keeps its files.
    pub(super) fn state_dir(&self) -> &Path {
        self.ids_file.parent().unwrap_or(Path::new("/"))
    }

    /// Says that enforcement was proven now.
    pub fn proven(&mut self) {
        self.since = Some(SystemTime::now());
    }

    /// Compiles the live bundle again, because something it depends on has changed on the host.
    ///
    /// # Errors
    /// As for [`Engine::apply`].
    pub fn recompile(&mut self) -> Result<(), ApplyError> {
        let Some(live) = &self.live else { return Ok(()) };
        let (bundle, directory) = (Arc::clone(&live.bundle), live.directory.clone());
        let standing = live.standing.clone();
        let result =
            self.build(&bundle).and_then(|built| self.switch(Next { bundle, directory, standing, built }));
        self.stale = result.as_ref().err().map(ToString::to_string);
        result.map(|_| ())
    }

    /// Makes these the numbers of subjects. They are on the disk first.
    pub(super) fn number(&mut self, ids: SubjectIds) -> Result<(), ApplyError> {
        if ids != self.ids {
            serde_json::to_vec(&ids)
                .map_err(std::io::Error::from)
                .and_then(|bytes| replace(&self.ids_file, &bytes, 0o644))
                .map_err(|source| ApplyError::Store { path: self.ids_file.clone(), source })?;
            self.ids = ids;
        }
        Ok(())
    }

    /// Makes a compiled bundle live and labels running tasks. Returns how many got a label, and what
    /// was live before.
    pub(super) fn switch(&mut self, next: Next) -> Result<(usize, Option<Live>), ApplyError> {
        let Next { bundle, directory, standing, built } = next;
        let Built { mut compiled, ids, beside, unseated } = built;
        for note in &compiled.notes {
            tracing::debug!("{note}");
        }
        // Before any label can carry a new number.
        self.number(ids)?;
        self.keep_posture(&bundle, &mut compiled);
        let since = time::boot();
        let generation = self.swap(&bundle, &compiled, &beside)?;
        self.stale = None;
        self.unwatched = self.names.follow(compiled.answers.clone()).err();
        let watched = Watched::begin();
        let live =
            Live { bundle, directory, standing, compiled, generation, since, beside, unseated, watched };
        let mut before = self.live.replace(live);
        // The new policy is live whatever happens here, so a failure is a state and no refusal.
        let labelled = self.label_running().unwrap_or_else(|error| {
            tracing::error!("cannot label running tasks: {error}");
            0
        });
        if let Some(before) = &mut before {
            // By now no program decides by the old tables any more.
            before.harvest(self.kernel.used_before(), &self.store);
        }
        Ok((labelled, before))
    }

    /// Switches the kernel to tables that were compiled from `bundle`.
    pub(super) fn swap(
        &mut self,
        bundle: &Bundle,
        compiled: &Compiled,
        beside: &Beside,
    ) -> Result<u64, KernelError> {
        // Before the first event of the generation can arrive.
        let (name, version, digest) = (bundle.name.clone(), bundle.version, bundle.digest.clone());
        let record = BundleRecord { name, version, digest };
        self.store.generation(self.kernel.next_generation(), record, beside.shadow().cloned());
        self.kernel.swap(&compiled.generation)
    }

    /// Labels running processes that the live selectors cover. Returns how many tasks got a label.
    ///
    /// # Errors
    /// If the kernel side fails.
    pub fn label_running(&mut self) -> Result<usize, KernelError> {
        let result = self.label_all();
        self.unlabelled = result.as_ref().err().map(ToString::to_string);
        result
    }

    fn label_all(&mut self) -> Result<usize, KernelError> {
        let Some(live) = &self.live else { return Ok(0) };
        let selectors = &live.compiled.generation.selectors;
        self.kernel.set_cgroups(|| {
            let containers = Containers::default();
            labelling::cgroups(&|path| selected_cgroup(selectors, &containers, path))
        })?;
        let mut total = 0;
        for _ in 0..MAX_SCANS {
            let requests = labelling::requests(&live.compiled.exec_selectors, &self.resumed);
            let labelled = self.kernel.label_running(&requests)?;
            if labelled == 0 {
                break;
            }
            total += labelled;
        }
        self.label_successors()?;
        Ok(total)
    }

    /// Makes running processes the narrower successors that they would be, had the policy been there when
    /// they executed what they run.
    fn label_successors(&mut self) -> Result<(), KernelError> {
        let Some(live) = &self.live else { return Ok(()) };
        let successors: Vec<ExecSuccessor> =
            live.compiled.exec_successors.iter().filter(|begins| begins.narrowing).cloned().collect();
        if successors.is_empty() {
            return Ok(());
        }
        let labels = self.kernel.label_reader()?;
        let requests = labelling::entered(&successors, &|pid| labels.of_number(pid).ok().flatten());
        if !requests.is_empty() {
            self.kernel.label_requested(&requests)?;
        }
        Ok(())
    }

    pub(super) fn bundle_status(&self) -> BundleStatus {
        match &self.live {
            Some(live) => BundleStatus {
                name: live.bundle.name.clone(),
                version: live.bundle.version,
                digest: live.bundle.digest.clone(),
                directory: live.directory.display().to_string(),
                copy: self.shelf.copy(&live.bundle.digest).display().to_string(),
            },
            None => BundleStatus {
                name: String::new(),
                version: 0,
                digest: String::new(),
                directory: String::new(),
                copy: String::new(),
            },
        }
    }

    fn policy_status(&self, degraded: &mut Vec<String>) -> PolicyStatus {
        let mut status = PolicyStatus {
            // What is degraded is said there.
            kept: self.kept.as_ref().filter(|kept| !kept.broken).map(|kept| kept.why.clone()),
            hold: self.shelf.record().hold(jiff::Timestamp::now()).cloned(),
            ..PolicyStatus::default()
        };
        if let Some(Live { standing: Standing::Signed(by), .. }) = &self.live {
            status.signed_by.clone_from(by);
        }
        match Trust::read(&self.trust, true) {
            Ok(trust) => {
                (status.keys, status.threshold) = trust.numbers();
                status.accepts_unsigned = trust.accepts_local();
            }
            Err(error) => degraded.push(error.to_string()),
        }
        status
    }

    /// What is decided on this kernel, by the programs that are attached.
    pub fn coverage(&self) -> CoverageReport {
        let attached = self.attached();
        let has = |hook: &str| attached.contains(hook);
        let subjects = self.live.iter().flat_map(|live| live.bundle.subjects());
        CoverageReport {
            schema: CoverageReport::SCHEMA.to_owned(),
            kernel: release(),
            actions: coverage::of(&has),
            subjects: subjects
                .map(|subject| SubjectCoverage {
                    subject: subject.name.clone(),
                    unenforceable: names(subject.unenforceable(coverage::undecided(&has))),
                    when_unenforceable: subject.unenforceable,
                })
                .collect(),
        }
    }

    /// The hooks that have a program attached.
    fn attached(&self) -> BTreeSet<String> {
        let programs = self.kernel.programs().into_iter().filter(|program| program.attached);
        programs.map(|program| program.hook).collect()
    }

    /// Bits of the actions that nothing attached decides.
    fn undecided(&self) -> u64 {
        let attached = self.attached();
        coverage::undecided(&|hook| attached.contains(hook))
    }

    /// The state of enforcement.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn status(&self) -> Result<Status, KernelError> {
        let now = Now::read();
        let subjects: Vec<SubjectStatus> =
            self.live.iter().flat_map(|live| subjects(live, &self.modes, &now, self.undecided())).collect();
        let mut degraded = Vec::new();
        if self.since.is_none() {
            degraded.push("enforcement is not proven yet".to_owned());
        }
        if let Some(error) = &self.stale {
            degraded.push(format!("the host changed and the policy could not be compiled for it: {error}"));
        }
        if let Some(error) = &self.unwatched {
            degraded.push(format!("changes of what paths lead to may go unnoticed: {error}"));
        }
        if let Some(error) = &self.unlabelled {
            degraded.push(format!("running processes may lack their label: {error}"));
        }
        degraded.extend(self.modes.lost.clone());
        degraded.extend(self.sessions.lost.clone());
        let unseated = self.live.iter().flat_map(|live| &live.unseated);
        for session in unseated.filter_map(|id| self.sessions.get(*id)) {
            degraded.push(format!(
                "everything is denied to {}/{}: what its variables name has no place in the tables any more",
                session.subject, session.id
            ));
        }
        if let Some(Kept { why, broken: true }) = &self.kept {
            degraded.push(why.clone());
        }
        let windows = self.windows(now.wall);
        degraded.extend(self.closed_for_want_of_a_clock());
        let wants_network = self.live.as_ref().is_some_and(|live| collectors::wants_network(&live.bundle));
        let matters = |source: &String| *source != location::source() || wants_network;
        let troubles = self.found.troubles().into_iter().filter(|(source, _)| matters(source));
        degraded.extend(troubles.map(|(source, why)| format!("facts from {source}: {why}")));
        degraded.extend(self.live.iter().flat_map(|live| providers::missing(&live.bundle, &self.found)));
        let expired = self.live.as_ref().and_then(|live| live.bundle.release.expired(jiff::Timestamp::now()));
        degraded.extend(expired);
        degraded.extend(subjects.iter().filter(|subject| !subject.unenforceable.is_empty()).map(|subject| {
            let what = subject.unenforceable.join(" ");
            match subject.when_unenforceable {
                Unenforceable::Deny => format!(
                    "{}: this kernel has no hook for {what}; all that it governs is denied",
                    subject.name
                ),
                _ => format!("{}: this kernel has no hook for {what}, which it governs", subject.name),
            }
        }));
        let policy = self.policy_status(&mut degraded);
        let counters = self.kernel.counters()?;
        let count = |counter: Counter| counters[counter as usize];
        let failed = count(Counter::LabelFailed);
        if failed != 0 {
            degraded
                .push(format!("{failed} processes were killed because no label could be attached to them"));
        }
        Ok(Status {
            schema: "guard.status/1".to_owned(),
            state: if degraded.is_empty() { "enforcing" } else { "degraded" }.to_owned(),
            degraded,
            since: self.since.map(rfc3339).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            kernel: release(),
            generation: self.live.as_ref().map_or(0, |live| live.generation),
            bundle: self.bundle_status(),
            policy,
            shadow: self.shadow_status(),
            shadow_lost: self.shelf.lost.clone(),
            pinned: self.kernel.pinned().map(|pins| pins.display().to_string()),
            disarmed: self.disarms.last().cloned(),
            windows,
            quarantines: self.quarantines_in_force(&now),
            subjects,
            programs: self
                .kernel
                .programs()
                .into_iter()
                .map(|program| ProgramStatus {
                    name: program.name,
                    hook: program.hook,
                    instructions_verified: program.instructions_verified,
                    attached: program.attached,
                })
                .collect(),
            counters: Counters {
                decided: count(Counter::Decided),
                denied: count(Counter::Denied),
                would_deny: count(Counter::WouldDeny),
                would_allow: count(Counter::WouldAllow),
                shadow_deny: count(Counter::ShadowDeny),
                shadow_allow: count(Counter::ShadowAllow),
                events_sent: count(Counter::Sent),
                events_lost: count(Counter::Lost),
                labelled: count(Counter::Labelled),
                internal_denied: count(Counter::InternalDenied),
                file_systems_not_noted: count(Counter::NotNoted),
            },
            store: self.store.status(),
        })
    }
}

/// Release of the running kernel.
fn release() -> String {
    let name = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    name.unwrap_or_default()
}

/// Names of actions, by their bits.
fn names(actions: u64) -> Vec<String> {
    coverage::names(actions).into_iter().map(str::to_owned).collect()
}

/// Compiles a bundle for this host as it is now, with the numbers its subjects have or get.
pub(super) fn compile(bundle: &Bundle, ids: &SubjectIds) -> Result<(Compiled, SubjectIds), ApplyError> {
    compile_seated(bundle, &[], ids)
}

/// The same with the sessions that have variables.
pub(super) fn compile_seated(
    bundle: &Bundle,
    seats: &[Seat],
    ids: &SubjectIds,
) -> Result<(Compiled, SubjectIds), ApplyError> {
    let host = Host::read().map_err(ApplyError::Host)?;
    let mut ids = ids.clone();
    let compiled = policy::compile_seated(bundle, (None, seats), &host, &Facts::default(), &mut ids)
        .map_err(ApplyError::Invalid)?;
    Ok((compiled, ids))
}

/// The subject whose unit, cgroup or container selector names exactly this cgroup, as the kernel's map has it.
fn selected_cgroup(selectors: &[(Selector, u32)], containers: &Containers, path: &Path) -> Option<u32> {
    let is_at = |wanted: &str| path == Path::new("/").join(wanted.trim_start_matches('/'));
    selectors.iter().find_map(|(selector, subject)| match selector {
        Selector::Unit(name) => (path.file_name()? == name.as_str()).then_some(*subject),
        Selector::Cgroup(wanted) => is_at(wanted).then_some(*subject),
        Selector::Container(wanted) => is_at(wanted).then_some(*subject | IN_CONTAINER),
        Selector::Podman(wanted) => containers.fits(path, wanted).then_some(*subject | IN_CONTAINER),
        Selector::User(_) | Selector::Group(_) => None,
    })
}

/// The subjects of a bundle, in the modes that are in force.
fn subjects(live: &Live, modes: &Modes, now: &Now, undecided: u64) -> Vec<SubjectStatus> {
    let mut found = Vec::new();
    for subject in live.bundle.subjects() {
        let number = live.compiled.names.subjects.iter().find(|(_, name)| **name == subject.name);
        let set = modes.get(&subject.name, now).cloned();
        let not_yet = action::named().filter(|row| {
            subject.governs & row.action.bit() != 0 && matches!(row.coverage, Coverage::NotYet)
        });
        found.push(SubjectStatus {
            name: subject.name.clone(),
            id: number.map_or(0, |(id, _)| *id),
            mode: set.as_ref().map_or(subject.mode, |set| set.mode).name().to_owned(),
            bundle_mode: subject.mode.name().to_owned(),
            mode_set: set,
            not_enforced: not_yet.map(|row| row.name.to_owned()).collect(),
            unenforceable: names(subject.unenforceable(undecided)),
            when_unenforceable: subject.unenforceable,
        });
    }
    found
}

/// A time as RFC 3339 in UTC, to the second.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    jiff::Timestamp::try_from(time)
        .map(|stamp| stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_else(|_| format!("@{}", since_epoch.as_secs()))
}
