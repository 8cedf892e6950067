//! Start-up order: nothing is said to be enforced before it was seen to be.

use super::canary::{self, CanaryError};
use super::candidate::{Stored, choose};
use super::engine::{ApplyError, Engine};
use super::found::Found;
use super::output::Output;
use super::serve::Shared;
use super::windows::Awaited;
use super::{identity, location, mounts, names, notify, providers, pump, spool, units};
use crate::api;
use crate::config::Config;
use crate::doctor;
use crate::events::time;
use crate::kernel::{ClockWatch, Diagnostics, EventStream, Kernel, KernelError, PinError, Pins, Seen};
use crate::policy::Instant;
use crate::store::{Limits, Store};
use guard_common::event::Event;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Why the daemon does not enforce.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The caller is not root.
    #[error("guard-agent run needs root: start it as a system service, or with sudo")]
    NotRoot,
    /// The host lacks something; one line for each.
    #[error("{0}")]
    Host(String),
    /// Another daemon runs.
    #[error("another guard-agent holds {0}: only one can enforce on a host; `guardctl status` shows it")]
    AlreadyRunning(PathBuf),
    /// A directory or socket cannot be made.
    #[error("cannot {action} {path}: {source}")]
    Path {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The bundle is invalid or cannot be made live.
    #[error("{0}")]
    Apply(#[from] ApplyError),
    /// The kernel side cannot be set up.
    #[error("{0}")]
    Kernel(#[from] KernelError),
    /// The directory of pins cannot be used.
    #[error("{0}")]
    Pins(#[from] PinError),
    /// Enforcement could not be proven.
    #[error("{0}")]
    Canary(#[from] CanaryError),
    /// The runtime failed.
    #[error("{action}: {source}")]
    Runtime {
        /// What failed.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl StartError {
    /// Whether the bundle, not the host, is at fault.
    pub fn is_invalid_input(&self) -> bool {
        matches!(self, Self::Apply(ApplyError::Invalid(_)))
    }

    /// Whether another daemon is there.
    pub fn is_second(&self) -> bool {
        matches!(self, Self::AlreadyRunning(_) | Self::Pins(PinError::Held(_)))
    }
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Why it does not enforce. Everything that was attached is detached then, but for what is pinned.
pub fn run(config: &Config) -> Result<(), StartError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(StartError::NotRoot);
    }
    doctor::preflight().map_err(|problems| {
        StartError::Host(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    make_directory(&config.run_dir)?;
    open_directory(&config.run_dir)?;
    make_directory(&config.private_dir())?;
    make_directory(&config.state_dir)?;
    let _lock = lock(&config.run_dir)?;
    let runtime = |action| move |source| StartError::Runtime { action, source };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(runtime("cannot start the runtime"))?
        .block_on(enforce(config))
}

/// How often what was used of the policy is remembered: so much is lost if the daemon is killed.
const HARVEST: Duration = Duration::from_secs(10 * 60);

/// How often it is looked which sessions have ended, while there are any.
const LOOK: Duration = Duration::from_secs(60);
/// How often the agent looks for what nothing announces, if policy asks for it: whether something has set the clock
/// right, and what else it finds out by itself.
const WINDOWS: Duration = Duration::from_secs(5);

/// How long the last answers may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// Everything that changes the host. Signals are handled and mounts watched from before the first
/// compile, so that nothing that happens meanwhile is missed.
async fn enforce(config: &Config) -> Result<(), StartError> {
    let runtime = |action| move |source| StartError::Runtime { action, source };
    let handler = |kind| signal(kind).map_err(runtime("cannot handle signals"));
    let mut hangup = handler(SignalKind::hangup())?;
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut mount_changes = mounts::watch().map_err(runtime("cannot watch the mount table"))?;
    let (names, mut name_changes) = names::Watch::start().map_err(runtime("cannot watch names"))?;

    let found = Found::default();
    location::look(&config.networks, &found);
    let Prepared { engine, diagnostics, events, seen, early } =
        tokio::task::block_in_place(|| prepare(config, names, found.clone()))?;
    let mut messages = tokio::spawn(diagnostics.run());
    let shared = Shared::new(engine, config.roles.clone())?;
    spool::watch(&config.state_dir, shared.clone())
        .map_err(runtime("cannot watch the directory of facts"))?;
    location::watch(config.networks.clone(), found.clone(), shared.clone())
        .map_err(runtime("cannot follow the network of this host"))?;
    providers::start(&config.providers, &found, &shared)
        .map_err(runtime("cannot start the providers of facts"))?;
    tokio::spawn(units::follow(found, shared.clone()));
    let output = Output::start().map_err(runtime("cannot start the output thread"))?;
    let (stop, stopped) = oneshot::channel();
    let mut pump = tokio::spawn(pump::run(events, early, seen, shared.clone(), output, stopped));
    let private = config.private_dir();
    let listen = |path: PathBuf| move |source| StartError::Path { action: "listen on", path, source };
    let (admin, own) = (config.admin_socket(), config.own_socket());
    let listener = api::bind(&admin, &private, !config.roles.is_empty()).map_err(listen(admin.clone()))?;
    let mut disarmed = shared.disarmed();
    let (finish, finished) = oneshot::channel::<()>();
    let end = async {
        let _ = finished.await;
    };
    let mut server = tokio::spawn(api::serve(listener, shared.clone(), end));
    let listener = api::bind_own(&own, &private).map_err(listen(own.clone()))?;
    let mut own_server = tokio::spawn(api::serve_own(listener, shared.clone()));
    if let Err(error) = notify::notify("READY=1") {
        tracing::warn!("cannot tell the service manager that Guard is ready: {error}");
    }
    let mut harvest = tokio::time::interval(HARVEST);
    harvest.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut windows = tokio::time::interval(WINDOWS);
    windows.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let clock = ClockWatch::new()
        .map_err(|source| StartError::Runtime { action: "cannot watch the clock", source })?;
    let mut awaited = shared.awaited();
    let mut passed = None;
    loop {
        // Where nothing is awaited, nothing wakes the agent; what has passed is told once.
        let Awaited { polled, until } = *awaited.borrow_and_update();
        tokio::select! {
            Ok(()) = awaited.changed() => {}
            _ = windows.tick(), if polled => shared.keep_posture(false),
            () = until_then(until), if until.is_some() && until != passed => {
                passed = until;
                shared.keep_posture(false);
            }
            set = clock.changed() => match set {
                Ok(()) => shared.keep_posture(true),
                Err(error) => return Err(ended("the watch on the clock", Ok(Err(error)))),
            },
            _ = harvest.tick() => shared.harvest(),
            _ = look.tick() => shared.look_for_sessions(),
            _ = hangup.recv() => reload(&shared).await,
            change = mount_changes.recv() => match change {
                Some(()) => recompile(&shared).await,
                None => return Err(ended("the watch on the mount table", Ok(Ok(())))),
            },
            change = name_changes.recv() => match change {
                Some(()) => recompile(&shared).await,
                None => return Err(ended("the watch on names", Ok(Ok(())))),
            },
            Ok(_) = disarmed.wait_for(|disarmed| *disarmed) => break,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            result = &mut pump => return Err(ended("the event reader", result)),
            result = &mut messages => return Err(ended("the reader of the programs' messages", result)),
            result = &mut server => return Err(ended("the API server", result)),
            result = &mut own_server => return Err(ended("the server of the self-service socket", result)),
        }
    }
    if *shared.disarmed().borrow() {
        // Whoever asked for it gets an answer; whoever follows events does not hold up the end.
        let _ = finish.send(());
        let _ = tokio::time::timeout(FAREWELL, &mut server).await;
    } else if let Some(pins) = shared.pinned() {
        tracing::warn!(
            "stopping: the programs stay and enforce what is live, pinned in {}; `guardctl disarm --offline --reason TEXT` ends that",
            pins.display()
        );
    } else {
        tracing::warn!("stopping: the programs are detached, nothing is enforced from here on");
    }
    server.abort();
    own_server.abort();
    if let Err(error) = tokio::task::block_in_place(|| shared.leave()) {
        tracing::error!("{error}");
    }
    // What is in the ring is the rest, or what the next agent begins with.
    let _ = stop.send(());
    if let Err(error) = pump.await.map_err(io::Error::other).and_then(|result| result) {
        tracing::error!("the last events were not read: {error}");
    }
    tokio::task::block_in_place(|| shared.remember());
    Ok(())
}

/// Waits until just after an instant of CLOCK_BOOTTIME, or a suspended host's later one. The kernel goes by it
/// itself; what comes after the instants that it knows is told then.
async fn until_then(until: Option<Instant>) {
    let left = until.unwrap_or(0).saturating_sub(time::boot().unsigned_abs());
    tokio::time::sleep(Duration::from_nanos(left) + TICK).await;
}

/// Longer than two readings of a clock are apart.
const TICK: Duration = Duration::from_millis(10);

/// What enforces, and what reports.
struct Prepared {
    engine: Engine,
    diagnostics: Diagnostics,
    events: EventStream,
    /// How far an agent before this one had got in them.
    seen: Seen,
    /// Events that were read before the reader took over.
    early: Vec<Event>,
}

/// Chooses and compiles the bundle, loads, makes it live and proves that it is enforced. The bundle
/// comes first: a mistake in it is told before the kernel is touched.
fn prepare(config: &Config, names: names::Watch, found: Found) -> Result<Prepared, StartError> {
    let stored = Stored::read(&config.state_dir)?;
    let start = choose(&config.bundle, &config.trust, &stored)?;
    let pins = match &config.pins {
        Some(directory) => {
            let identity = identity::read(&config.state_dir).map_err(|source| StartError::Path {
                action: "read or write the identity in",
                path: config.state_dir.clone(),
                source,
            })?;
            Some(Pins::open(directory, &identity)?)
        }
        None => None,
    };
    let mut kernel = Kernel::load(pins)?;
    let diagnostics = kernel.take_diagnostics()?;
    let seen = kernel.seen()?;
    let store = Store::start(&config.state_dir, Limits::default())
        .map_err(|source| StartError::Runtime { action: "cannot start the store", source })?;
    let mut engine = Engine::new(kernel, stored, config.trust.clone(), Arc::new(store), (names, found))?;
    if let Some(kept) = &start.kept {
        tracing::warn!("{}", kept.why);
    }
    engine.rescue = config.rescue.clone();
    let applied = engine.begin(start)?;
    // Before other programs are detached that these take the place of.
    engine.resume_bars()?;
    let mut early = Vec::new();
    let mut events = engine.kernel.events()?;
    canary::prove(&mut engine.kernel, &mut events, applied.generation, &config.private_dir(), &mut early)?;
    engine.kernel.keep()?;
    engine.proven();
    tracing::info!(
        generation = applied.generation,
        bundle = applied.bundle.name,
        version = applied.bundle.version,
        labelled = applied.labelled,
        "enforcing"
    );
    Ok(Prepared { engine, diagnostics, events, seen, early })
}

fn ended(what: &'static str, result: Result<io::Result<()>, tokio::task::JoinError>) -> StartError {
    let source = match result {
        Ok(Ok(())) => io::Error::other("it ended"),
        Ok(Err(error)) => error,
        Err(error) => io::Error::other(error),
    };
    StartError::Runtime { action: what, source }
}

async fn reload(shared: &Shared) {
    let shared = shared.clone();
    match tokio::task::spawn_blocking(move || shared.reload()).await {
        Ok(Ok(applied)) => {
            tracing::info!(
                generation = applied.generation,
                version = applied.bundle.version,
                "policy reloaded"
            );
        }
        Ok(Err(error)) => tracing::error!("policy not reloaded, the running one stays:\n{error}"),
        Err(error) => tracing::error!("policy not reloaded, the running one stays: {error}"),
    }
}

async fn recompile(shared: &Shared) {
    let shared = shared.clone();
    match tokio::task::spawn_blocking(move || shared.recompile()).await {
        Ok(Ok(())) => tracing::debug!("policy compiled anew for the changed host"),
        Ok(Err(error)) => tracing::error!("the policy is not compiled for the changed host yet: {error}"),
        Err(error) => tracing::error!("the policy is not compiled for the changed host yet: {error}"),
    }
}

fn make_directory(path: &Path) -> Result<(), StartError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| StartError::Path {
        action: "create",
        path: path.to_owned(),
        source,
    })
}

/// Lets others find what they may use in a directory, and not see what else is there. Each file in it
/// has a mode of its own.
fn open_directory(path: &Path) -> Result<(), StartError> {
    let mode = std::fs::Permissions::from_mode(0o711);
    let failed = |source| StartError::Path { action: "set the mode of", path: path.to_owned(), source };
    std::fs::set_permissions(path, mode).map_err(failed)
}

/// Makes sure that this is the only daemon. The lock ends with the process.
fn lock(run_dir: &Path) -> Result<Flock<File>, StartError> {
    let path = run_dir.join("lock");
    // Closed to others, who could hold the lock otherwise.
    let made = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let made =
        made.and_then(|file| file.set_permissions(std::fs::Permissions::from_mode(0o600)).map(|()| file));
    let file = made.map_err(|source| StartError::Path { action: "create", path: path.clone(), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| StartError::AlreadyRunning(path))
}
