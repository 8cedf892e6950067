//! Calls that a process is in when it is put in quarantine.
//!
//! A decision is made when a call begins. One that waits inside, for data or for a connection, is woken by
//! stopping its process: when that goes on, the kernel begins the call again, which is decided anew. One that runs,
//! such as a large write, is over when every thread has stopped.

use super::labelling::stat;
use crate::kernel::{Carried, KernelError, LabelReader, pidfd, send_signal};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Passes over the processes until one finds nobody new; whoever forks faster than that is denied all the same.
const MAX_PASSES: usize = 100;
/// How long it is waited for threads that run a call.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long between two looks at them: the kernel does not announce that a thread has stopped to others than
/// its parent and its tracer.
const PAUSE: Duration = Duration::from_millis(1);

/// Processes that were stopped.
pub(super) struct Stopped {
    /// By their numbers; those that had been stopped before are not among them.
    processes: BTreeMap<i32, OwnedFd>,
    /// Those with threads that still run.
    pub(super) unfinished: Vec<i32>,
}

/// Stops every process that is `covered` by what it carries, those as well that are made meanwhile. With `wait`, returns
/// when their calls are over, or it takes too long.
///
/// # Errors
/// If the processes cannot be listed.
pub(super) fn stop(
    labels: &LabelReader,
    covered: &dyn Fn(&Carried) -> bool,
    wait: bool,
) -> Result<Stopped, KernelError> {
    let mut processes = BTreeMap::new();
    for _ in 0..MAX_PASSES {
        let all = labels.everybody()?;
        let new: Vec<i32> = all
            .into_iter()
            .filter(|(pid, carried)| covered(carried) && !processes.contains_key(pid))
            .map(|(pid, ..)| pid)
            .filter(|pid| !threads(*pid).iter().all(|state| *state == 'T'))
            .collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            // The number may have come to mean another process.
            let Ok(process) = pidfd(pid) else { continue };
            let is = labels.carried(process.as_fd()).ok().flatten();
            if is.is_some_and(|carried| covered(&carried))
                && send_signal(process.as_fd(), Signal::SIGSTOP).is_ok()
            {
                processes.insert(pid, process);
            }
        }
    }
    let mut unfinished: Vec<i32> = processes.keys().copied().collect();
    let begun = Instant::now();
    loop {
        unfinished.retain(|pid| threads(*pid).iter().any(|state| matches!(state, 'R' | 'D' | 'S')));
        if unfinished.is_empty() || !wait || begun.elapsed() > PATIENCE {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    if !wait {
        unfinished.clear();
    }
    Ok(Stopped { processes, unfinished })
}

/// Lets processes go on that were covered, unless something else keeps them stopped.
///
/// # Errors
/// If what they carry cannot be read.
pub(super) fn resume(
    labels: &LabelReader,
    pids: &[i32],
    keeps: &dyn Fn(&Carried) -> bool,
) -> Result<(), KernelError> {
    let frozen: BTreeSet<i32> =
        labels.everybody()?.into_iter().filter(|(_, carried)| keeps(carried)).map(|(pid, _)| pid).collect();
    for pid in pids.iter().filter(|pid| !frozen.contains(pid)) {
        if let Ok(process) = pidfd(*pid)
            && let Err(error) = send_signal(process.as_fd(), Signal::SIGCONT)
        {
            tracing::debug!("process {pid} does not go on: {error}");
        }
    }
    Ok(())
}

impl Stopped {
    /// Lets them go on.
    pub(super) fn go_on(self) {
        for (pid, process) in self.processes {
            if let Err(error) = send_signal(process.as_fd(), Signal::SIGCONT) {
                tracing::debug!("process {pid} does not go on: {error}");
            }
        }
    }
}

/// The states of a process's threads (proc_pid_stat(5)); none if it has ended.
fn threads(pid: i32) -> Vec<char> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let state = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("stat")).ok()?;
        // The name may hold anything; what follows its last parenthesis is the kernel's.
        text.rsplit_once(") ")?.1.chars().next()
    };
    tasks.filter_map(|task| state(task.ok()?)).collect()
}

/// The parent of a process.
pub(super) fn parent(pid: i32) -> Option<i32> {
    stat(pid).map(|(parent, _)| parent)
}
