//! What the daemon enforces now, and how that changes: one compile and one switch at a time.

use super::labelling;
use crate::api::types::{Applied, BundleStatus, Counters, ProgramStatus, Status, SubjectStatus};
use crate::host::Host;
use crate::kernel::{Kernel, KernelError};
use crate::policy::{self, Bundle, Compiled, Diagnostics, Mode, SubjectIds};
use crate::tables::Selector;
use guard_common::action::{Coverage, TABLE};
use guard_common::event::Counter;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Passes over the processes until one labels nothing. Each pass but the last labels some.
const MAX_SCANS: usize = 1000;

/// Why a bundle could not be made live. The one before stays live.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The bundle is not valid.
    #[error("{0}")]
    Invalid(Diagnostics),
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

/// The live bundle.
struct Live {
    bundle: Arc<Bundle>,
    directory: PathBuf,
    compiled: Compiled,
    generation: u64,
}

/// Owns the kernel side and everything that decides what it enforces.
pub struct Engine {
    /// The kernel side.
    pub(super) kernel: Kernel,
    ids: SubjectIds,
    ids_file: PathBuf,
    live: Option<Live>,
    since: Option<SystemTime>,
    /// Why the last change of the mount table is not part of the tables.
    stale_mounts: Option<String>,
    /// Why running processes may lack their labels.
    unlabelled: Option<String>,
}

impl Engine {
    /// An engine with nothing live. Subject numbers come from `state_dir`.
    ///
    /// # Errors
    /// If stored numbers cannot be read: a number must never come to mean another subject.
    pub fn new(kernel: Kernel, state_dir: &Path) -> Result<Self, ApplyError> {
        let ids_file = state_dir.join("subjects.json");
        let store = |source| ApplyError::Store { path: ids_file.clone(), source };
        let ids = match std::fs::read(&ids_file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| store(error.into()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => SubjectIds::default(),
            Err(error) => return Err(store(error)),
        };
        Ok(Self { kernel, ids, ids_file, live: None, since: None, stale_mounts: None, unlabelled: None })
    }

    /// Names of the subjects by number.
    pub fn subject_names(&self) -> BTreeMap<u32, String> {
        self.live.as_ref().map(|live| live.compiled.names.subjects.clone()).unwrap_or_default()
    }

    /// Says that enforcement was proven now.
    pub fn proven(&mut self) {
        self.since = Some(SystemTime::now());
    }

    /// Makes the bundle in `directory` live, unless this very bundle is.
    ///
    /// # Errors
    /// If the bundle is invalid or the kernel refuses a table; the live bundle is untouched.
    pub fn apply(&mut self, directory: &Path) -> Result<Applied, ApplyError> {
        let started = Instant::now();
        let bundle = policy::load(directory).map_err(ApplyError::Invalid)?;
        if let Some(live) = &self.live
            && live.bundle.digest == bundle.digest
            && live.directory == directory
        {
            return Ok(self.applied(false, started, 0));
        }
        let labelled = self.switch(Arc::new(bundle), directory.to_owned())?;
        Ok(self.applied(true, started, labelled))
    }

    /// Reads the live bundle's directory again and switches to what it says now.
    ///
    /// # Errors
    /// As for [`Engine::apply`].
    pub fn reload(&mut self) -> Result<Applied, ApplyError> {
        let started = Instant::now();
        let Some(live) = &self.live else { return Ok(self.applied(false, started, 0)) };
        let directory = live.directory.clone();
        let bundle = policy::load(&directory).map_err(ApplyError::Invalid)?;
        let labelled = self.switch(Arc::new(bundle), directory)?;
        Ok(self.applied(true, started, labelled))
    }

    /// Compiles the live bundle again, because something it depends on has changed on the host.
    ///
    /// # Errors
    /// As for [`Engine::apply`].
    pub fn recompile(&mut self) -> Result<(), ApplyError> {
        let Some(live) = &self.live else { return Ok(()) };
        let (bundle, directory) = (Arc::clone(&live.bundle), live.directory.clone());
        let result = self.switch(bundle, directory);
        self.stale_mounts = result.as_ref().err().map(ToString::to_string);
        result.map(|_| ())
    }

    fn switch(&mut self, bundle: Arc<Bundle>, directory: PathBuf) -> Result<usize, ApplyError> {
        let host = Host::read().map_err(ApplyError::Host)?;
        let mut ids = self.ids.clone();
        let compiled = policy::compile(&bundle, &host, &mut ids).map_err(ApplyError::Invalid)?;
        for note in &compiled.notes {
            tracing::debug!("{note}");
        }
        if ids != self.ids {
            // Before any label can carry a new number.
            store(&self.ids_file, &ids)
                .map_err(|source| ApplyError::Store { path: self.ids_file.clone(), source })?;
            self.ids = ids;
        }
        let generation = self.kernel.swap(&compiled.generation)?;
        self.live = Some(Live { bundle, directory, compiled, generation });
        // The new policy is live whatever happens here, so a failure is a state and no refusal.
        match self.label_running() {
            Ok(labelled) => Ok(labelled),
            Err(error) => {
                tracing::error!("cannot label running tasks: {error}");
                Ok(0)
            }
        }
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
        self.kernel.set_cgroups(|| labelling::cgroups(&|path| selected_cgroup(selectors, path)))?;
        let mut total = 0;
        for _ in 0..MAX_SCANS {
            let requests = labelling::requests(&live.compiled.exec_selectors);
            let labelled = self.kernel.label_running(&requests)?;
            if labelled == 0 {
                break;
            }
            total += labelled;
        }
        Ok(total)
    }

    fn applied(&self, changed: bool, started: Instant, labelled: usize) -> Applied {
        let notes =
            self.live.as_ref().map(|live| live.compiled.notes.iter().map(ToString::to_string).collect());
        Applied {
            schema: "guard.applied/1".to_owned(),
            changed,
            generation: self.live.as_ref().map_or(0, |live| live.generation),
            bundle: self.bundle_status(),
            milliseconds: started.elapsed().as_secs_f64() * 1000.0,
            labelled,
            notes: notes.unwrap_or_default(),
        }
    }

    fn bundle_status(&self) -> BundleStatus {
        match &self.live {
            Some(live) => BundleStatus {
                name: live.bundle.name.clone(),
                version: live.bundle.version,
                digest: live.bundle.digest.clone(),
                directory: live.directory.display().to_string(),
            },
            None => BundleStatus {
                name: String::new(),
                version: 0,
                digest: String::new(),
                directory: String::new(),
            },
        }
    }

    /// The state of enforcement.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn status(&self) -> Result<Status, KernelError> {
        let subjects: Vec<SubjectStatus> = self.live.iter().flat_map(subjects).collect();
        let mut degraded = Vec::new();
        if self.since.is_none() {
            degraded.push("enforcement is not proven yet".to_owned());
        }
        if let Some(error) = &self.stale_mounts {
            degraded.push(format!("the mount table changed and could not be classified: {error}"));
        }
        if let Some(error) = &self.unlabelled {
            degraded.push(format!("running processes may lack their label: {error}"));
        }
        let counters = self.kernel.counters()?;
        let count = |counter: Counter| counters[counter as usize];
        let failed = count(Counter::LabelFailed);
        if failed != 0 {
            degraded
                .push(format!("{failed} processes were killed because no label could be attached to them"));
        }
        let kernel = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
        Ok(Status {
            schema: "guard.status/1".to_owned(),
            state: if degraded.is_empty() { "enforcing" } else { "degraded" }.to_owned(),
            degraded,
            since: self.since.map(rfc3339).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            kernel: kernel.unwrap_or_default(),
            generation: self.live.as_ref().map_or(0, |live| live.generation),
            bundle: self.bundle_status(),
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
                events_sent: count(Counter::Sent),
                events_lost: count(Counter::Lost),
                labelled: count(Counter::Labelled),
                internal_denied: count(Counter::InternalDenied),
            },
        })
    }
}

/// The subject whose unit or cgroup selector names exactly this cgroup.
fn selected_cgroup(selectors: &[(Selector, u32)], path: &Path) -> Option<u32> {
    selectors.iter().find_map(|(selector, subject)| match selector {
        Selector::Unit(name) => (path.file_name()? == name.as_str()).then_some(*subject),
        Selector::Cgroup(wanted) => {
            (path == Path::new("/").join(wanted.trim_start_matches('/'))).then_some(*subject)
        }
        Selector::User(_) | Selector::Group(_) => None,
    })
}

fn subjects(live: &Live) -> Vec<SubjectStatus> {
    live.bundle
        .subjects()
        .map(|subject| SubjectStatus {
            name: subject.name.clone(),
            id: live
                .compiled
                .names
                .subjects
                .iter()
                .find(|(_, name)| **name == subject.name)
                .map_or(0, |(id, _)| *id),
            mode: if subject.mode == Mode::Monitor { "monitor" } else { "enforce" }.to_owned(),
            not_enforced: TABLE
                .iter()
                .filter(|row| {
                    subject.governs & row.action.bit() != 0 && matches!(row.coverage, Coverage::NotYet)
                })
                .map(|row| row.name.to_owned())
                .collect(),
        })
        .collect()
}

/// Replaces a file in one step, durably.
fn store(path: &Path, ids: &SubjectIds) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let file = std::fs::File::create(&temporary)?;
    serde_json::to_writer(&file, ids)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// A time as RFC 3339 in UTC, to the second.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    jiff::Timestamp::try_from(time)
        .map(|stamp| stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_else(|_| format!("@{}", since_epoch.as_secs()))
}
