//! What a labelled process does to other processes: signals, tuning, tracing.

use std::fs;
use std::io::{self, Read, Write, pipe};
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, Uid, setpgid, setresuid};

use crate::attempt::{Outcome, attempt, start};
use crate::bundle::{Bundle, permit};
use crate::case::{Case, Refusal, refusal};
use crate::family::{Part, tests};
use crate::identity::{fork, in_child};
use crate::layout;
use crate::raw::{self, Naming, Tuning};
use crate::users::{FREE, Identity, KILL, READ_SEARCH, SETUID, SYS_PTRACE};

pub(crate) const PART: Part = Part {
    name: "machine-processes",
    bundle,
    prepare: layout::create,
    tests: tests!(
        smoke: [signals_to_processes_of_others_are_refused],
        others: [
            a_refused_signal_does_not_arrive,
            signals_to_a_group_are_decided_for_each_process,
            signals_to_all_processes_reach_none_of_others,
            signals_that_a_file_sends_are_decided_for_who_named_its_owner,
            what_a_process_does_to_itself_is_not_governed,
            a_child_is_another_process,
            tuning_another_process_is_refused,
            tracing_processes_of_others_is_refused,
            the_memory_of_others_is_refused,
            descriptors_of_others_are_refused,
            a_labelled_parent_needs_the_right_to_trace_who_asks_for_it,
            an_unlabelled_parent_traces_who_asks_for_it,
            what_the_kernel_asks_by_itself_is_not_reported,
        ],
    ),
};

/// May act on processes of its own subject.
const OWN: Identity = Identity::new("proc-own", 2400).with(KILL | SYS_PTRACE | READ_SEARCH);
/// May act on none.
const NONE: Identity = Identity::new("proc-none", 2401).with(KILL | SYS_PTRACE | READ_SEARCH);
/// May act on those of `proc-own` and on those without a label.
const BOTH: Identity = Identity::new("proc-both", 2402).with(KILL | SYS_PTRACE | READ_SEARCH);

/// The accounts of this part.
pub(crate) const ACCOUNTS: [Identity; 3] = [OWN, NONE, BOTH];

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let mut policy = String::new();
    let mut bundle = bundle;
    for Identity { name, .. } in ACCOUNTS {
        let without = "\"base/dynamic-exec\", \"base/devices\", \"base/stdio\", \"base/anonymous\"";
        let include =
            if name == OWN.name { format!("{without}, \"base/own-proc\"") } else { without.to_owned() };
        bundle = bundle.toml(&format!(
            "[subjects.{name}]\nselector = {{ user = \"{name}\" }}\ngoverns = [\"*\"]\ninclude = [{include}]\n"
        ));
        // What is refused is refused by the action itself, not for want of a capability or of a name.
        policy += &permit(
            &format!("{name}-capabilities"),
            name,
            &["sys.cap"],
            "resource == Guard::Capability::\"kill\" || resource == Guard::Capability::\"sys_ptrace\" || \
             resource == Guard::Capability::\"dac_read_search\" || resource == Guard::Capability::\"setuid\"",
        );
        policy += &permit(&format!("{name}-ids"), name, &["sys.setid"], "true");
        policy += &permit(&format!("{name}-proc"), name, &["file.*"], "resource in Guard::Dir::\"/proc\"");
    }
    policy += &permit(
        "both",
        BOTH.name,
        &["proc.*"],
        "!(resource has subject) || resource has subject && resource.subject == Guard::Subject::\"proc-own\"",
    );
    Ok(bundle.policy("process", policy))
}

/// A process that waits to be killed, in a process group of its own. Signals that files send wait for ever.
pub(crate) struct Victim {
    pid: Pid,
    uid: u32,
    _end: io::PipeWriter,
}

impl Victim {
    pub(crate) fn of(who: Identity) -> Result<Self> {
        let (mut ready, is_ready) = pipe().context("make a pipe")?;
        let (wait, end) = pipe().context("make a pipe")?;
        let running = start(who, move || {
            setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
            [Signal::SIGIO, Signal::SIGURG, Signal::SIGUSR2]
                .into_iter()
                .collect::<SigSet>()
                .thread_block()?;
            (&is_ready).write_all(b"r")?;
            // Until it is killed, or whoever wants it is gone.
            let _ = (&wait).read(&mut [0]);
            raw::exit_now(0)
        })?;
        let mut byte = [0];
        ready.read_exact(&mut byte).context("wait for a victim")?;
        Ok(Self { pid: running.pid(), uid: who.uid, _end: end })
    }

    pub(crate) fn pid(&self) -> libc::pid_t {
        self.pid.as_raw()
    }

    fn is_alive(&self) -> Result<bool> {
        Ok(waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).context("look at a victim")?
            == WaitStatus::StillAlive)
    }

    /// How it looks in an event.
    fn name(&self) -> String {
        self.pid.to_string()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

fn refused(who: Identity, action: &'static str, victim: &Victim) -> Refusal {
    refusal(who, action).with(Errno::EPERM).at(victim.name())
}

type Send = fn(libc::pid_t, libc::c_int) -> io::Result<()>;

fn signals_to_processes_of_others_are_refused(case: &Case<'_>) -> Result<()> {
    let ways: [(&str, Send); 4] = [
        ("kill", raw::kill),
        ("tgkill", raw::tgkill),
        ("sigqueue", raw::sigqueue),
        ("pidfd_send_signal", raw::pidfd_signal),
    ];
    let [free, own, other] = [Victim::of(FREE)?, Victim::of(OWN)?, Victim::of(NONE)?];
    for (name, send) in ways {
        // Whether the process is there, and a signal that does nothing to it.
        for signal in [0, libc::SIGCONT] {
            let context = || format!("{name} {signal}");
            for victim in [&free, &other] {
                case.refused(refused(OWN, "proc.signal", victim), || send(victim.pid(), signal))
                    .with_context(context)?;
            }
            case.allowed(OWN, || send(own.pid(), signal)).with_context(context)?;
            case.refused(refused(BOTH, "proc.signal", &other), || send(other.pid(), signal))
                .with_context(context)?;
            for victim in [&free, &own] {
                case.allowed(BOTH, || send(victim.pid(), signal)).with_context(context)?;
            }
        }
    }
    Ok(())
}

/// Whether a signal waits for a process, which blocks it.
fn is_pending(pid: libc::pid_t, signal: libc::c_int) -> io::Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let sets =
        status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")));
    let waiting =
        sets.filter_map(|set| u64::from_str_radix(set.trim(), 16).ok()).fold(0, |all, set| all | set);
    Ok(waiting >> (signal - 1) & 1 == 1)
}

/// Whoever makes the file ready has nothing to do with the signal; here it is the same process.
fn signals_that_a_file_sends_are_decided_for_who_named_its_owner(case: &Case<'_>) -> Result<()> {
    // The kernel wants the owner to be of the same user.
    let send = |naming, victim: &Victim, signal| {
        setresuid(Uid::from_raw(victim.uid), Uid::from_raw(victim.uid), Uid::from_raw(victim.uid))?;
        raw::signal_by_file(naming, victim.pid(), signal)?;
        if is_pending(victim.pid(), signal)? { Ok(()) } else { Err(Errno::EPERM.into()) }
    };
    let (own, both) = (OWN.with(SETUID), BOTH.with(SETUID));
    for (naming, signal) in [
        (Naming::Process, libc::SIGIO),
        (Naming::Process, libc::SIGUSR2),
        (Naming::Process, libc::SIGURG),
        (Naming::Group, libc::SIGIO),
        (Naming::Thread, libc::SIGIO),
        (Naming::Ioctl, libc::SIGIO),
    ] {
        let context = || format!("{naming:?} {signal}");
        for who in [FREE, NONE] {
            let victim = Victim::of(who)?;
            let refusal = refused(own, "proc.signal", &victim).only_labelled();
            case.refused(refusal, || send(naming, &victim, signal)).with_context(context)?;
        }
        let [free, same] = [Victim::of(FREE)?, Victim::of(OWN)?];
        case.allowed(FREE, || send(naming, &free, signal)).with_context(context)?;
        case.allowed(own, || send(naming, &same, signal)).with_context(context)?;
        for who in [FREE, OWN] {
            let victim = Victim::of(who)?;
            case.allowed(both, || send(naming, &victim, signal)).with_context(context)?;
        }
    }
    case.allowed(NONE, || raw::signal_by_file(Naming::Process, nix::unistd::getpid().as_raw(), libc::SIGCONT))
}

fn a_refused_signal_does_not_arrive(case: &Case<'_>) -> Result<()> {
    let victim = Victim::of(FREE)?;
    let killed = || raw::kill(victim.pid(), libc::SIGKILL);
    if case.daemon().is_some() {
        let outcome = attempt(OWN, killed)?;
        ensure!(outcome == Outcome::Failed(Errno::EPERM), "{outcome:?}");
        ensure!(victim.is_alive()?, "the victim of a refused SIGKILL is dead");
    }
    let outcome = attempt(if case.daemon().is_some() { BOTH } else { OWN }, killed)?;
    ensure!(outcome == Outcome::Worked, "{outcome:?}");
    match waitpid(victim.pid, None).context("wait for the victim")? {
        WaitStatus::Signaled(_, Signal::SIGKILL, _) => Ok(()),
        other => bail!("the victim of a permitted SIGKILL: {other:?}"),
    }
}

fn signals_to_a_group_are_decided_for_each_process(case: &Case<'_>) -> Result<()> {
    let [free, own] = [Victim::of(FREE)?, Victim::of(OWN)?];
    case.refused(refused(OWN, "proc.signal", &free), || raw::kill(-free.pid(), libc::SIGCONT))?;
    case.allowed(OWN, || raw::kill(-own.pid(), libc::SIGCONT))
}

fn signals_to_all_processes_reach_none_of_others(case: &Case<'_>) -> Result<()> {
    let victim = Victim::of(FREE)?;
    let mark = case.daemon().map(|daemon| daemon.events.mark()).transpose()?;
    // The kernel says that it worked if there was any process at all.
    case.allowed(OWN, || raw::kill(-1, libc::SIGCONT))?;
    let (Some(daemon), Some(mark)) = (case.daemon(), mark) else { return Ok(()) };
    daemon.events.wait(mark, Duration::from_secs(20), "a refused SIGCONT", |event| {
        event.is_denial() && event.is_about("proc.signal") && event.is_at(&victim.name())
    })?;
    Ok(())
}

fn what_a_process_does_to_itself_is_not_governed(case: &Case<'_>) -> Result<()> {
    case.allowed(NONE, || {
        let own = nix::unistd::getpid().as_raw();
        for signal in [0, libc::SIGCONT] {
            raw::kill(own, signal)?;
            raw::tgkill(own, signal)?;
            raw::sigqueue(own, signal)?;
            raw::pidfd_signal(own, signal)?;
        }
        for what in [Tuning::Nice, Tuning::Affinity, Tuning::InputOutput, Tuning::Limit] {
            raw::tune(own, what)?;
        }
        raw::process_memory(own, false, &WORD)
    })
}

/// Does something with a child of the running process, which waits meanwhile.
fn with_child(action: impl Fn(libc::pid_t) -> io::Result<()>) -> io::Result<()> {
    let (wait, end) = pipe()?;
    match fork()? {
        ForkResult::Child => {
            drop(end);
            let _ = (&wait).read(&mut [0]);
            raw::exit_now(0)
        }
        ForkResult::Parent { child } => {
            drop(wait);
            let result = action(child.as_raw());
            drop(end);
            waitpid(child, None)?;
            result
        }
    }
}

fn a_child_is_another_process(case: &Case<'_>) -> Result<()> {
    let signal = || with_child(|child| raw::kill(child, libc::SIGCONT));
    case.refused(refusal(NONE, "proc.signal").with(Errno::EPERM), signal)?;
    case.allowed(OWN, signal)
}

fn tuning_another_process_is_refused(case: &Case<'_>) -> Result<()> {
    for what in [Tuning::Nice, Tuning::Affinity, Tuning::InputOutput, Tuning::Limit] {
        let tune = || with_child(|child| raw::tune(child, what));
        case.refused(refusal(NONE, "proc.signal").with(Errno::EPERM), tune)
            .with_context(|| format!("{what:?}"))?;
        case.allowed(OWN, tune).with_context(|| format!("{what:?}"))?;
    }
    Ok(())
}

fn tracing_processes_of_others_is_refused(case: &Case<'_>) -> Result<()> {
    for stop in [false, true] {
        let [free, own] = [Victim::of(FREE)?, Victim::of(OWN)?];
        case.refused(refused(OWN, "proc.trace", &free), || raw::trace(free.pid(), stop))?;
        case.allowed(OWN, || raw::trace(own.pid(), stop))?;
    }
    Ok(())
}

/// A word that every process of the tests has at the same address.
static WORD: AtomicU32 = AtomicU32::new(7);

fn the_memory_of_others_is_refused(case: &Case<'_>) -> Result<()> {
    let [free, own, other] = [Victim::of(FREE)?, Victim::of(OWN)?, Victim::of(NONE)?];
    for write in [false, true] {
        for victim in [&free, &other] {
            case.refused(refused(OWN, "proc.trace", victim), || {
                raw::process_memory(victim.pid(), write, &WORD)
            })?;
        }
        case.allowed(OWN, || raw::process_memory(own.pid(), write, &WORD))?;
    }
    // The kernel makes another number of the answer (`mm_access`).
    for name in ["mem", "environ", "maps"] {
        let open = |victim: &Victim| {
            let path = format!("/proc/{}/{name}", victim.pid());
            match fs::File::options().read(true).open(path)?.read_exact(&mut [0]) {
                // The first page of an address space is not mapped.
                Err(error) if name == "mem" && error.raw_os_error() == Some(libc::EIO) => Ok(()),
                result => result,
            }
        };
        let refusal = refused(OWN, "proc.trace", &free).with(Errno::EPERM).heard_as(Errno::EACCES);
        case.refused(refusal, || open(&free)).with_context(|| name.to_owned())?;
        case.allowed(OWN, || open(&own)).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn descriptors_of_others_are_refused(case: &Case<'_>) -> Result<()> {
    let [free, own] = [Victim::of(FREE)?, Victim::of(OWN)?];
    case.refused(refused(OWN, "proc.trace", &free), || raw::pidfd_getfd(free.pid()))?;
    case.allowed(OWN, || raw::pidfd_getfd(own.pid()))?;
    // What the links in a procfs lead to.
    for link in ["cwd", "root", "exe", "fd/0"] {
        let look = |victim: &Victim| fs::read_link(format!("/proc/{}/{link}", victim.pid())).map(drop);
        let refusal = refused(OWN, "proc.trace", &free).with(Errno::EPERM).heard_as(Errno::EACCES);
        case.refused(refusal, || look(&free)).with_context(|| link.to_owned())?;
        case.allowed(OWN, || look(&own)).with_context(|| link.to_owned())?;
    }
    Ok(())
}

fn a_labelled_parent_needs_the_right_to_trace_who_asks_for_it(case: &Case<'_>) -> Result<()> {
    let traced = || in_child(fork, raw::trace_me);
    case.refused(refusal(NONE, "proc.trace").with(Errno::EPERM), traced)?;
    case.allowed(OWN, traced)
}

fn an_unlabelled_parent_traces_who_asks_for_it(case: &Case<'_>) -> Result<()> {
    // The parent of an attempt is this program, which has no label.
    case.allowed(NONE, raw::trace_me)
}

fn what_the_kernel_asks_by_itself_is_not_reported(case: &Case<'_>) -> Result<()> {
    let victim = Victim::of(FREE)?;
    let mark = case.daemon().map(|daemon| daemon.events.mark()).transpose()?;
    let addresses = |victim: &Victim| {
        let text = fs::read_to_string(Path::new("/proc").join(victim.name()).join("stat"))?;
        // Field 28, the start of the stack: 0 where the reader may not know.
        let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(25).map(str::to_owned).ok_or_else(|| io::Error::other("a short line"))
    };
    let shown = addresses(&victim)?;
    ensure!(shown != "0", "root is not told where the stack is");
    let Some(daemon) = case.daemon() else { return Ok(()) };
    case.allowed(NONE, || match addresses(&victim)?.as_str() {
        "0" => Ok(()),
        shown => Err(io::Error::other(format!("it is told that the stack is at {shown}"))),
    })?;
    // Events come in their order, so this one is behind whatever there is.
    case.refused(refused(NONE, "proc.trace", &victim), || raw::trace(victim.pid(), false))?;
    let mark = mark.unwrap_or_default();
    let about: Vec<String> = daemon
        .events
        .since(mark)?
        .iter()
        .filter(|event| event.is_about("proc.trace") && event.is_at(&victim.name()))
        .map(ToString::to_string)
        .collect();
    ensure!(about.len() == 1, "one thing was refused: {about:?}");
    Ok(())
}
