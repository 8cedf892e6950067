//! Ids that change for one thread, and process ids that come back.

use std::io;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::unistd::{ForkResult, Pid, Uid, setresuid};

use crate::attempt::{Outcome, start};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::file::read;
use crate::identity::in_child;
use crate::layout::{self, ROOT, canary, path};
use crate::raw;
use crate::users::{AGENT, FREE, Identity, ROOT as AS_ROOT, SETUID};

pub(crate) const PART: Part = Part {
    name: "credentials",
    bundle: Ok,
    prepare: layout::create,
    tests: tests!(
        others: [
            a_thread_that_changes_its_ids_alone_keeps_the_label,
            a_process_with_the_id_of_one_that_ended_inherits_nothing,
        ],
    ),
};

fn secret() -> PathBuf {
    canary(ROOT)
}

fn notes() -> PathBuf {
    path("open/notes")
}

fn a_thread_that_changes_its_ids_alone_keeps_the_label(case: &Case<'_>) -> Result<()> {
    let panicked = |_| Err(io::Error::other("a thread panicked"));
    // The thread becomes another user and reads; the process, which is still the first user, reads after.
    let by = |thread_reads: PathBuf, process_reads: PathBuf| {
        let thread = thread::spawn(move || {
            raw::set_thread_uid(FREE.uid)?;
            read(thread_reads)
        });
        thread.join().unwrap_or_else(panicked)?;
        read(process_reads)
    };
    let agent = AGENT.with(SETUID);
    let refused = || refusal(agent, "file.read").at("shut/secret");
    case.refused(refused(), || by(secret(), notes())).context("by the thread")?;
    case.refused(refused(), || by(notes(), secret())).context("by the process")?;
    case.allowed(agent, || by(notes(), notes()))
}

/// The process id of somebody who has ended.
fn id_of_an_ended(who: Identity) -> Result<Pid> {
    let running = start(who, || Ok(()))?;
    let pid = running.pid();
    let outcome = running.outcome()?;
    ensure!(outcome == Outcome::Worked, "a process that does nothing: {outcome:?}");
    Ok(pid)
}

/// Does something in a child that has this process id.
fn with_id(pid: Pid, action: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let fork = || {
        Ok(match raw::fork_with_id(pid.as_raw())? {
            0 => ForkResult::Child,
            pid => ForkResult::Parent { child: Pid::from_raw(pid) },
        })
    };
    in_child(fork, || {
        if nix::unistd::getpid() != pid {
            return Err(io::Error::other("the child has another process id"));
        }
        action()
    })
}

fn a_process_with_the_id_of_one_that_ended_inherits_nothing(case: &Case<'_>) -> Result<()> {
    let times = if case.full { 1000 } else { 20 };
    let agent = Uid::from_raw(AGENT.uid);
    for _ in 0..times {
        let pid = id_of_an_ended(AGENT)?;
        case.allowed(AS_ROOT, || with_id(pid, || read(secret()))).context("after a labelled process")?;
        let pid = id_of_an_ended(FREE)?;
        let refused = refusal(AS_ROOT.becoming("agent"), "file.read").at("shut/secret").only_labelled();
        case.refused(refused, || {
            with_id(pid, || {
                setresuid(agent, agent, agent)?;
                read(secret())
            })
        })
        .context("after an unlabelled process")?;
    }
    case.tried(2 * times);
    Ok(())
}
