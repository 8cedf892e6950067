//! Processes that run already when the agent starts.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use nix::unistd::ForkResult;

use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::{Daemon, configure_apart, spawn};
use crate::family::{Part, tests};
use crate::file::read;
use crate::layout::{self, ROOT, canary, path};
use crate::puppet::Puppet;
use crate::users::{AGENT, FREE};
use crate::{attempt, raw, step};

pub(crate) const PART: Part = Part {
    name: "running",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            a_process_that_runs_already_is_labelled_before_the_agent_is_ready,
            a_selected_executable_that_runs_already_is_labelled_with_its_children,
            a_fork_storm_during_the_start_leaves_nobody_unlabelled,
            a_fork_storm_while_a_policy_adds_a_subject_leaves_nobody_unlabelled,
        ],
    ),
};

pub(crate) fn prepare() -> Result<()> {
    layout::create()?;
    let own = fs::read("/proc/self/exe").context("read this program")?;
    layout::program(&tool(), &own)
}

fn tool() -> PathBuf {
    path("selected/tool")
}

pub(crate) fn bundle() -> Bundle {
    let open = within(&[path("open")]);
    Bundle::new("running")
        .subject("agent", "user = \"agent\"")
        .subject("tool", &format!("exe = \"{}\"", tool().display()))
        .policy(
            "open",
            permit("agent", "agent", &["file.*"], &open) + &permit("tool", "tool", &["file.*"], &open),
        )
}

fn a_process_that_runs_already_is_labelled_before_the_agent_is_ready(_: &Case<'_>) -> Result<()> {
    let mut agents = (0..3).map(|_| Puppet::start(AGENT)).collect::<Result<Vec<_>>>()?;
    let mut free = Puppet::start(FREE)?;
    let (secret, notes) = (canary(ROOT), path("open/notes"));
    for puppet in &mut agents {
        puppet.is_allowed(&secret).context("without Guard")?;
    }
    let daemon = Daemon::start_apart("running", &bundle())?;
    for puppet in &mut agents {
        puppet.is_refused(&secret)?;
        puppet.is_allowed(&notes)?;
    }
    free.is_allowed(&secret)?;
    agents.into_iter().try_for_each(Puppet::end)?;
    free.end()?;
    daemon.stop().map(drop)
}

/// A copy of this program that waits, executed under the selected name.
struct Waiting(Child);

impl Waiting {
    fn start(verb: &str, file: PathBuf) -> Result<Self> {
        let mut child = Command::new(tool())
            .args(["step", verb])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the tool")?;
        let output = child.stdout.take().context("its output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("wait for the tool")?;
        ensure!(line == "running\n", "the tool said {line:?}");
        Ok(Self(child))
    }

    fn go_on(mut self) -> Result<io::Result<()>> {
        self.0.stdin.take().context("its input")?.write_all(b"go\n").context("tell the tool")?;
        Ok(step::result(self.0.wait().context("wait for the tool")?))
    }
}

fn a_selected_executable_that_runs_already_is_labelled_with_its_children(_: &Case<'_>) -> Result<()> {
    for verb in ["read-when-told", "read-in-waiting-child"] {
        Waiting::start(verb, canary(ROOT))?.go_on()?.with_context(|| format!("{verb} without Guard"))?;
    }
    let refused = [
        Waiting::start("read-when-told", canary(ROOT))?,
        Waiting::start("read-in-waiting-child", canary(ROOT))?,
    ];
    let allowed = Waiting::start("read-when-told", path("open/notes"))?;
    let daemon = Daemon::start_apart("running", &bundle())?;
    for waiting in refused {
        let result = waiting.go_on()?.map_err(|error| error.raw_os_error());
        ensure!(result == Err(Some(nix::libc::EACCES)), "the tool should be refused: {result:?}");
    }
    allowed.go_on()?.context("what policy permits")?;
    daemon.stop().map(drop)
}

const PHASE: usize = 0;
const LEAKS: usize = 1;
const REFUSED: usize = 2;
const FORKS: usize = 3;
const READY: u64 = 1;
const OVER: u64 = 2;

fn a_fork_storm_during_the_start_leaves_nobody_unlabelled(case: &Case<'_>) -> Result<()> {
    under_a_storm(case, || spawn(&configure_apart("storm", &bundle())?)?.ready())
}

fn a_fork_storm_while_a_policy_adds_a_subject_leaves_nobody_unlabelled(case: &Case<'_>) -> Result<()> {
    let before = Bundle::new("running").subject("ci", "user = \"ci\"");
    let daemon = Daemon::start("storm-and-policy", &before)?;
    let added = bundle().version(2).write(&daemon.directory().join("added"))?;
    under_a_storm(case, || daemon.apply(&added).map(|()| daemon))
}

/// From when `begin` returns, no process of a fork storm may be unlabelled.
fn under_a_storm(case: &Case<'_>, begin: impl FnOnce() -> Result<Daemon>) -> Result<()> {
    let storm = Storm::start()?;
    let daemon = begin()?;
    storm.enforced();
    storm.goes_on(if case.full { 20_000 } else { 300 })?;
    case.tried(storm.end()?);
    daemon.stop().map(drop)
}

/// Chains of processes of `agent`, each of which tries the canary and starts the next one.
pub(crate) struct Storm {
    counters: raw::SharedCounters,
    chains: Vec<attempt::Running>,
}

impl Storm {
    /// Starts it.
    pub(crate) fn start() -> Result<Self> {
        const CHAINS: usize = 2;
        let counters = raw::SharedCounters::new().context("share memory")?;
        let chains =
            (0..CHAINS).map(|_| attempt::start(AGENT, || storm(&counters))).collect::<Result<_>>()?;
        Ok(Self { counters, chains })
    }

    /// From here on, none of its processes may read the canary.
    pub(crate) fn enforced(&self) {
        self.counters.at(PHASE).store(READY, Ordering::SeqCst);
    }

    /// Waits for so many refusals, and for none of the other kind.
    pub(crate) fn goes_on(&self, refusals: u64) -> Result<()> {
        let wanted = self.counters.at(REFUSED).load(Ordering::SeqCst) + refusals;
        while self.counters.at(REFUSED).load(Ordering::SeqCst) < wanted {
            let leaks = self.counters.at(LEAKS).load(Ordering::SeqCst);
            ensure!(leaks == 0, "{leaks} processes read the canary under Guard");
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Ends it. Returns how many processes there were.
    pub(crate) fn end(mut self) -> Result<u64> {
        self.counters.at(PHASE).store(OVER, Ordering::SeqCst);
        for chain in self.chains.drain(..) {
            chain.outcome()?;
        }
        let count = |index| self.counters.at(index).load(Ordering::SeqCst);
        let (leaks, forks) = (count(LEAKS), count(FORKS));
        ensure!(leaks == 0, "{leaks} of {forks} processes read the canary under Guard");
        Ok(forks)
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.counters.at(PHASE).store(OVER, Ordering::SeqCst);
    }
}

/// Starts a chain of processes and waits for its end, which is when nobody holds the pipe any more.
fn storm(counters: &raw::SharedCounters) -> io::Result<()> {
    let (mut done, held) = io::pipe()?;
    // SAFETY: attempts have one thread.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => chain(counters),
        ForkResult::Parent { .. } => {
            drop(held);
            done.read_to_end(&mut Vec::new()).map(drop)
        }
    }
}

/// Each process of the chain tries the canary, starts the next one and ends.
fn chain(counters: &raw::SharedCounters) -> ! {
    loop {
        counters.at(FORKS).fetch_add(1, Ordering::SeqCst);
        // Read before the attempt, so that what began before the start is never counted.
        let phase = counters.at(PHASE).load(Ordering::SeqCst);
        let result = read(canary(ROOT)).map_err(|error| error.raw_os_error());
        match (phase, result) {
            (READY, Ok(())) => counters.at(LEAKS).fetch_add(1, Ordering::SeqCst),
            (READY, Err(Some(nix::libc::EACCES))) => counters.at(REFUSED).fetch_add(1, Ordering::SeqCst),
            (OVER, _) => raw::exit_now(0),
            _ => 0,
        };
        // SAFETY: attempts have one thread.
        if let Ok(ForkResult::Parent { .. }) = unsafe { nix::unistd::fork() } {
            raw::exit_now(0);
        }
        // This is the child, or there was no memory for one and this process goes on.
    }
}
