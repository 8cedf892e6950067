//! What the tasks of the daemon share.

use super::access::Access;
use super::adopt::Caller;
use super::disarms::Disarm;
use super::engine::{ApplyError, Engine};
use super::lifting::Lifting;
use super::mode::ModeError;
use super::sessions::Session;
use super::trials::Trials;
use super::windows::Awaited;
use crate::api::types::{
    Applied, CoverageReport, History, ModeRequest, ModeSet, RollbackRequest, ShadowSet, Status,
};
use crate::events::{MountPoint, Renderer};
use crate::kernel::{KernelError, LabelReader};
use crate::policy::Gate;
use crate::roles::Roles;
use crate::store::Store;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, watch};

/// Lines that a slow reader of the API may fall behind before it loses some (and is told so).
const BACKLOG: usize = 8192;

/// A handle on the daemon for its tasks.
#[derive(Clone)]
pub struct Shared {
    engine: Arc<Mutex<Engine>>,
    lines: broadcast::Sender<Arc<str>>,
    labels: Arc<LabelReader>,
    store: Arc<Store>,
    trials: Trials,
    /// Made anew when names or mounts change, so that events never wait for a compile.
    renderer: Arc<Mutex<Arc<Renderer>>>,
    /// Which leases would lift what is denied.
    lifting: Arc<Lifting>,
    /// Made anew when another bundle is live.
    access: Arc<Mutex<Access>>,
    /// What the daemon waits for.
    awaited: watch::Sender<Awaited>,
    /// How often leases, requests and facts may have changed.
    ledger_changes: watch::Sender<u64>,
    /// Whether enforcement was ended.
    disarmed: watch::Sender<bool>,
}

/// Why enforcement goes on.
#[derive(Debug, thiserror::Error)]
pub enum DisarmError {
    /// It cannot be recorded.
    #[error("nothing was changed: it cannot be recorded: {0}")]
    Record(#[from] io::Error),
    /// The kernel side failed.
    #[error("{0}")]
    Kernel(#[from] KernelError),
}

impl Shared {
    /// Shares an engine among whoever has these roles.
    ///
    /// # Errors
    /// If the label map cannot be opened a second time.
    pub fn new(engine: Engine, roles: Roles) -> Result<Self, KernelError> {
        let labels = Arc::new(engine.kernel.label_reader()?);
        let store = Arc::clone(&engine.store);
        let renderer = Arc::new(Mutex::new(Arc::new(renderer(&engine))));
        let access = Arc::new(Mutex::new(Access::new(gate(&engine), roles)));
        let awaited = watch::Sender::new(engine.awaited());
        let lifting = Arc::new(Lifting::default());
        lifting.learn(&engine);
        Ok(Self {
            engine: Arc::new(Mutex::new(engine)),
            lines: broadcast::channel(BACKLOG).0,
            labels,
            store,
            trials: Trials::default(),
            renderer,
            lifting,
            access,
            awaited,
            ledger_changes: watch::Sender::new(0),
            disarmed: watch::Sender::new(false),
        })
    }

    /// The engine. A panic while it was held leaves the live generation in the kernel, which is
    /// consistent at every instant, so the lock is taken all the same.
    pub(super) fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renders events with the names and mounts of now.
    pub(super) fn renderer(&self) -> Arc<Renderer> {
        Arc::clone(&self.renderer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which leases would lift what is denied, as of now.
    pub(super) fn lifting(&self) -> &Lifting {
        &self.lifting
    }

    /// Who may ask for what, as of now.
    pub(super) fn access(&self) -> Access {
        self.access.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells the other tasks that another bundle may be live, or the host another.
    fn follow(&self, engine: &Engine) {
        *self.renderer.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(renderer(engine));
        self.access.lock().unwrap_or_else(PoisonError::into_inner).gate = Arc::new(gate(engine));
        // What of it counts depends on the bundle.
        self.ledger_changed(engine);
    }

    /// What the daemon waits for, and when that changes.
    pub(super) fn awaited(&self) -> watch::Receiver<Awaited> {
        self.awaited.subscribe()
    }

    /// Tells others that what is recorded of leases, requests and facts may have changed.
    pub(super) fn ledger_changed(&self, engine: &Engine) {
        self.lifting.learn(engine);
        self.awaited.send_replace(engine.awaited());
        self.ledger_changes.send_modify(|count| *count += 1);
    }

    /// When leases, requests or facts may have changed.
    pub fn ledger_changes(&self) -> watch::Receiver<u64> {
        self.ledger_changes.subscribe()
    }

    /// Processes that try what is enforced.
    pub(super) fn trials(&self) -> &Trials {
        &self.trials
    }

    /// What is remembered of events.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What is to be done before the daemon ends. If the programs are pinned they stay, and enforcement goes on
    /// as it is; otherwise everything is detached, nothing is enforced from here on, and no event comes any
    /// more.
    ///
    /// # Errors
    /// If the kernel does not let one go; it does when the daemon has ended.
    pub(super) fn leave(&self) -> Result<(), KernelError> {
        let mut engine = self.engine();
        // An agent that starts soon finds the processes of sessions again.
        if let Err(error) = engine.look_for_sessions(&self.labels) {
            tracing::error!("the processes of sessions are not recorded: {error}");
        }
        let left = if engine.kernel.pinned().is_some() { Ok(()) } else { engine.kernel.disarm() };
        engine.harvest();
        left
    }

    /// Writes what is still to be remembered. Threads that follow the host hold the store until the process ends,
    /// so nobody drops it.
    pub(super) fn remember(&self) {
        self.store.finish();
    }

    /// Where the programs are pinned, if they stay when the daemon ends.
    pub(super) fn pinned(&self) -> Option<PathBuf> {
        self.engine().kernel.pinned().map(Path::to_owned)
    }

    /// Ends enforcement: records that, detaches every program, and lets the daemon end.
    ///
    /// # Errors
    /// If it cannot be recorded, and nothing is changed then; or if pins cannot be removed.
    pub fn disarm(&self, reason: &str, by: &str) -> Result<Disarm, DisarmError> {
        let mut engine = self.engine();
        let disarm = engine.record_disarm(reason, by)?;
        tracing::warn!(by, reason, "disarmed: nothing is enforced from here on");
        engine.kernel.disarm()?;
        self.disarmed.send_replace(true);
        Ok(disarm)
    }

    /// Whether enforcement was ended.
    pub(super) fn disarmed(&self) -> watch::Receiver<bool> {
        self.disarmed.subscribe()
    }

    /// The event lines from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.lines.subscribe()
    }

    /// Hands an event line to whoever listens.
    pub(super) fn publish(&self, line: Arc<str>) {
        // No listener is no error.
        let _ = self.lines.send(line);
    }

    /// Makes a bundle live that `reader` can read, or says what that would do. Blocks for as long as a compile takes.
    ///
    /// # Errors
    /// As [`Engine::apply`].
    pub fn apply(
        &self,
        path: &Path,
        reader: &Caller,
        by: &str,
        dry_run: bool,
    ) -> Result<Applied, ApplyError> {
        let mut engine = self.engine();
        let applied = engine.apply(path, reader, by, dry_run)?;
        self.follow(&engine);
        Ok(applied)
    }

    /// Goes back to the bundle that was live before.
    ///
    /// # Errors
    /// As [`Engine::rollback`].
    pub fn rollback(&self, request: RollbackRequest, by: &str) -> Result<Applied, ApplyError> {
        let mut engine = self.engine();
        let applied = engine.rollback(request, by)?;
        self.follow(&engine);
        Ok(applied)
    }

    /// Puts a bundle beside the live one, or says whether that can be. Blocks for as long as compiles take.
    ///
    /// # Errors
    /// As [`Engine::apply_shadow`].
    pub fn apply_shadow(
        &self,
        path: &Path,
        reader: &Caller,
        by: &str,
        dry_run: bool,
    ) -> Result<ShadowSet, ApplyError> {
        let mut engine = self.engine();
        let set = engine.apply_shadow(path, reader, by, dry_run)?;
        self.lifting.learn(&engine);
        drop(engine);
        tracing::info!(by, dry_run, bundle = set.shadow.name, version = set.shadow.version, "shadow");
        Ok(set)
    }

    /// Ends the shadow.
    ///
    /// # Errors
    /// As [`Engine::stop_shadow`].
    pub fn stop_shadow(&self, by: &str) -> Result<ShadowSet, ApplyError> {
        let mut engine = self.engine();
        let set = engine.stop_shadow(by)?;
        self.lifting.learn(&engine);
        Ok(set)
    }

    /// Makes the shadow live.
    ///
    /// # Errors
    /// As [`Engine::promote_shadow`].
    pub fn promote_shadow(&self, by: &str) -> Result<Applied, ApplyError> {
        let mut engine = self.engine();
        let applied = engine.promote_shadow(by)?;
        self.follow(&engine);
        Ok(applied)
    }

    /// Gives a subject another mode for a while.
    ///
    /// # Errors
    /// As [`Engine::set_mode`].
    pub fn set_mode(&self, request: &ModeRequest, by: &str) -> Result<ModeSet, ModeError> {
        let mut engine = self.engine();
        let set = engine.set_mode(request, by)?;
        // The next change must not wait for programs to end, so that is waited for now.
        if let Err(error) = engine.kernel.settle() {
            tracing::warn!("the next change of a subject may take longer: {error}");
        }
        Ok(set)
    }

    /// Ends the hold on the live bundle.
    ///
    /// # Errors
    /// As [`Engine::release_hold`].
    pub fn release_hold(&self) -> Result<bool, ApplyError> {
        self.engine().release_hold()
    }

    /// What was live on this host.
    pub fn history(&self) -> History {
        self.engine().history()
    }

    /// Reads the live bundle's directory again and compiles it for the host as it is now, even if the
    /// bundle is the same: an account or a symbolic link may have changed.
    ///
    /// # Errors
    /// As [`Engine::apply`].
    pub fn reload(&self) -> Result<Applied, ApplyError> {
        let mut engine = self.engine();
        let applied = engine.reload()?;
        self.follow(&engine);
        Ok(applied)
    }

    /// Compiles the live bundle for a changed host.
    ///
    /// # Errors
    /// As [`Engine::recompile`].
    pub fn recompile(&self) -> Result<(), ApplyError> {
        let mut engine = self.engine();
        engine.recompile()?;
        self.follow(&engine);
        Ok(())
    }

    /// What is decided on this kernel.
    pub fn coverage(&self) -> CoverageReport {
        self.engine().coverage()
    }

    /// The state of enforcement.
    ///
    /// # Errors
    /// As [`Engine::status`].
    pub fn status(&self) -> Result<Status, KernelError> {
        self.engine().status()
    }

    /// Whether the process behind a descriptor carries a label.
    ///
    /// # Errors
    /// If the kernel cannot say, or the process has ended.
    pub fn is_labelled(&self, process: BorrowedFd<'_>) -> Result<bool, KernelError> {
        Ok(self.labels.of(process)?.is_some())
    }

    /// What reads labels.
    pub(super) fn label_reader(&self) -> &LabelReader {
        &self.labels
    }

    /// The sessions that last, as of now, or with `all` those that are known, oldest first.
    ///
    /// # Errors
    /// If processes cannot be looked at.
    pub fn sessions(&self, all: bool) -> Result<Vec<Session>, KernelError> {
        let mut engine = self.engine();
        engine.look_for_sessions(&self.labels)?;
        let known = engine.sessions.all().iter();
        Ok(known.filter(|session| all || session.ended.is_none()).cloned().collect())
    }

    /// Tells the kernel what holds of subjects and until when, in the background: if that is due, or anyway.
    pub(super) fn keep_posture(&self, anyway: bool) {
        let shared = self.clone();
        tokio::task::spawn_blocking(move || shared.keep_posture_now(anyway));
    }

    /// The same at once, by whoever may wait.
    pub(super) fn keep_posture_now(&self, anyway: bool) {
        let mut engine = self.engine();
        if !anyway && !engine.posture_is_due() {
            self.awaited.send_replace(engine.awaited());
            return;
        }
        if let Err(error) = engine.tell_posture() {
            tracing::error!("windows, leases and facts are as they were told before: {error}");
        }
        self.ledger_changed(&engine);
    }

    /// Finds out which sessions have ended, in the background.
    pub(super) fn look_for_sessions(&self) {
        let shared = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = shared.engine().look_for_sessions(&shared.labels) {
                tracing::error!("cannot find out which sessions have ended: {error}");
            }
        });
    }

    /// Subject and session of the process with this number; nothing if it carries no label.
    ///
    /// # Errors
    /// If the kernel cannot say, or there is no such process.
    pub(super) fn label(&self, pid: i32) -> Result<Option<(u32, u64)>, KernelError> {
        self.labels.of_number(pid)
    }

    /// Name of a subject of the live bundle.
    pub(super) fn subject_name(&self, number: u32) -> Option<String> {
        self.renderer().subject(number).map(str::to_owned)
    }

    /// Has what was used of the policy remembered, in the background.
    pub(super) fn harvest(&self) {
        let shared = self.clone();
        tokio::task::spawn_blocking(move || shared.engine().harvest());
    }

    /// Labels running processes in the background, after one was moved into a selected cgroup.
    pub(super) fn relabel(&self) {
        let shared = self.clone();
        tokio::task::spawn_blocking(move || match shared.engine().label_running() {
            Ok(0) => {}
            Ok(count) => tracing::info!(tasks = count, "labelled running tasks"),
            Err(error) => tracing::error!("cannot label running tasks: {error}"),
        });
    }
}

/// Who may ask for what by the live bundle. One whose policies about that cannot be used was refused before.
fn gate(engine: &Engine) -> Gate {
    let gate = engine.live.as_ref().map(|live| Gate::new(&live.bundle));
    gate.transpose().unwrap_or_default().unwrap_or_else(Gate::closed)
}

/// A renderer for the names and mounts of now.
fn renderer(engine: &Engine) -> Renderer {
    Renderer::new(Arc::new(engine.subject_names()), MountPoint::read_all())
}
