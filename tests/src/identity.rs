//! Who is labelled, and that a label cannot be shed.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Uid, setresuid, setsid};

use crate::bundle::{Bundle, one_of, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::file::read;
use crate::layout::{self, ROOT, canary, path};
use crate::users::{AGENT, CI, FREE, SETUID};
use crate::{raw, step};

pub(crate) const PART: Part = Part {
    name: "identity",
    bundle,
    prepare,
    tests: tests!(
        smoke: [
            a_forked_child_keeps_the_label,
            a_process_that_becomes_another_user_keeps_the_label,
            unlabelled_processes_are_never_refused,
        ],
        others: [
            an_orphan_of_a_double_fork_in_a_new_session_keeps_the_label,
            a_child_of_the_parents_parent_keeps_the_label,
            a_spawned_program_keeps_the_label,
            a_thread_keeps_the_label,
            an_exec_by_another_thread_than_the_first_keeps_the_label,
            another_command_name_changes_nothing,
            root_of_an_own_user_namespace_keeps_the_label,
            a_set_user_id_root_helper_keeps_the_label,
        ],
    ),
};

/// The program of the tests, where policy lets the subjects execute it.
pub(crate) fn helper() -> PathBuf {
    path("programs/helper")
}

fn prepare() -> Result<()> {
    layout::create()?;
    let own = std::fs::read("/proc/self/exe").context("read this program")?;
    layout::program(&helper(), &own)?;
    layout::program(&path("programs/root-helper"), &own)?;
    layout::mode(&path("programs/root-helper"), 0o4755)
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let mut policy = String::new();
    let programs = [path("programs")];
    let shell = [layout::which("sh")?];
    for subject in ["agent", "ci"] {
        policy += &permit(&format!("{subject}-helpers"), subject, &["read", "exec.*"], &within(&programs));
        policy += &permit(&format!("{subject}-open"), subject, &["file.*"], &within(&[path("open")]));
    }
    policy += &permit("agent-shell", "agent", &["file.read", "exec"], &one_of(&shell));
    policy += &permit("agent-own-proc", "agent", &["file.*"], &within(&["guard:own-proc"]));
    Ok(bundle.subject("agent", "user = \"agent\"").subject("ci", "user = \"ci\"").policy("identity", policy))
}

fn secret() -> PathBuf {
    canary(ROOT)
}

fn notes() -> PathBuf {
    path("open/notes")
}

/// Runs `action` in a child and returns what it met.
pub(crate) fn in_child(
    fork: impl Fn() -> io::Result<ForkResult>,
    action: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let (mut reader, mut writer) = io::pipe()?;
    if let ForkResult::Child = fork()? {
        let number = match action() {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(255),
        };
        let _ = io::Write::write_all(&mut writer, &[number as u8]);
        raw::exit_now(0);
    }
    drop(writer);
    let mut number = [0];
    io::Read::read_exact(&mut reader, &mut number)?;
    match number[0] {
        0 => Ok(()),
        255 => Err(io::Error::other("the child failed")),
        number => Err(io::Error::from_raw_os_error(number.into())),
    }
}

/// fork(2).
pub(crate) fn fork() -> io::Result<ForkResult> {
    // SAFETY: attempts have one thread.
    Ok(unsafe { nix::unistd::fork() }?)
}

fn a_forked_child_keeps_the_label(case: &Case<'_>) -> Result<()> {
    case.refused(refusal(AGENT, "file.read").at("shut/secret"), || in_child(fork, || read(secret())))?;
    case.allowed(AGENT, || in_child(fork, || read(notes())))
}

fn an_orphan_of_a_double_fork_in_a_new_session_keeps_the_label(case: &Case<'_>) -> Result<()> {
    // The middle process ends first, so the innermost one has another parent when it reads.
    let orphaned = |file: PathBuf| {
        in_child(fork, || {
            setsid()?;
            let parent = nix::unistd::getpid();
            in_child(fork, || {
                let (reader, writer) = io::pipe()?;
                drop(reader);
                drop(writer);
                if nix::unistd::getppid() != parent {
                    return Err(io::Error::other("the parent ended early"));
                }
                in_child(fork, || read(&file))
            })
        })
    };
    case.refused(refusal(AGENT, "file.read"), || orphaned(secret()))?;
    case.allowed(AGENT, || orphaned(notes()))
}

fn a_child_of_the_parents_parent_keeps_the_label(case: &Case<'_>) -> Result<()> {
    let clone = || {
        Ok(match raw::clone_parent()? {
            0 => ForkResult::Child,
            pid => ForkResult::Parent { child: nix::unistd::Pid::from_raw(pid) },
        })
    };
    // The sibling becomes a child of a process in between, so that it is reaped with it.
    let sibling = |file: PathBuf| in_child(fork, || in_child(clone, || read(&file)));
    case.refused(refusal(AGENT, "file.read"), || sibling(secret()))?;
    case.allowed(AGENT, || sibling(notes()))
}

fn a_spawned_program_keeps_the_label(case: &Case<'_>) -> Result<()> {
    let spawn = |file: PathBuf| run_helper(&helper(), "read-in-child", file);
    case.refused(refusal(AGENT, "file.read"), || spawn(secret()))?;
    case.allowed(AGENT, || spawn(notes()))
}

fn a_thread_keeps_the_label(case: &Case<'_>) -> Result<()> {
    let threaded = |file: PathBuf| {
        thread::spawn(move || read(file)).join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
    };
    case.refused(refusal(AGENT, "file.read"), || threaded(secret()))?;
    case.allowed(AGENT, || threaded(notes()))
}

fn an_exec_by_another_thread_than_the_first_keeps_the_label(case: &Case<'_>) -> Result<()> {
    let exec = |file: PathBuf| {
        // SAFETY: attempts have one thread.
        let ForkResult::Parent { child } = unsafe { nix::unistd::fork() }? else {
            let thread = thread::spawn(move || {
                use std::os::unix::process::CommandExt;
                Command::new(helper()).args(["step", "read"]).arg(file).exec()
            });
            let _ = thread.join();
            raw::exit_now(254);
        };
        match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, number) => Err(io::Error::from_raw_os_error(number)),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    };
    case.refused(refusal(AGENT, "file.read"), || exec(secret()))?;
    case.allowed(AGENT, || exec(notes()))
}

fn another_command_name_changes_nothing(case: &Case<'_>) -> Result<()> {
    for name in [c"systemd", c"guard-agent", c"dpkg", c"kworker/0:1"] {
        let renamed = || {
            nix::sys::prctl::set_name(name)?;
            read(secret())
        };
        case.refused(refusal(AGENT, "file.read"), renamed)?;
    }
    Ok(())
}

/// Becomes root of a new user namespace with further new namespaces.
pub(crate) fn own_user_namespace(more: CloneFlags) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    unshare(CloneFlags::CLONE_NEWUSER | more)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn root_of_an_own_user_namespace_keeps_the_label(case: &Case<'_>) -> Result<()> {
    let inside = |file: PathBuf| {
        own_user_namespace(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
        in_child(fork, || read(&file))
    };
    case.refused(refusal(AGENT, "file.read"), || inside(secret()))?;
    case.allowed(AGENT, || inside(notes()))
}

/// Has a copy of this program take a step.
pub(crate) fn run_helper(program: &Path, verb: &str, file: PathBuf) -> io::Result<()> {
    run_step(program, &[verb.as_ref(), file.as_os_str()])
}

/// The same with any arguments.
pub(crate) fn run_step<S: AsRef<OsStr>>(program: &Path, words: &[S]) -> io::Result<()> {
    step::result(Command::new(program).arg("step").args(words).status()?)
}

fn a_set_user_id_root_helper_keeps_the_label(case: &Case<'_>) -> Result<()> {
    let helper = path("programs/root-helper");
    case.refused(refusal(AGENT, "file.read"), || run_helper(&helper, "read", secret()))?;
    case.allowed(AGENT, || run_helper(&helper, "read", notes()))
}

fn a_process_that_becomes_another_user_keeps_the_label(case: &Case<'_>) -> Result<()> {
    let switching = |file: PathBuf| {
        let other = Uid::from_raw(FREE.uid);
        setresuid(other, other, other)?;
        read(file)
    };
    let agent = AGENT.with(SETUID);
    case.refused(refusal(agent, "file.read"), || switching(secret()))?;
    case.allowed(agent, || switching(notes()))?;
    // Becoming another subject's user does not exchange one label for the other either.
    let to_ci = || {
        let other = Uid::from_raw(CI.uid);
        setresuid(other, other, other)?;
        read(secret())
    };
    case.refused(refusal(agent, "file.read").only_labelled(), to_ci)
}

fn unlabelled_processes_are_never_refused(case: &Case<'_>) -> Result<()> {
    case.allowed(FREE, || {
        read(secret())?;
        in_child(fork, || read(secret()))?;
        std::fs::read_dir(path("shut"))?.for_each(drop);
        run_helper(&helper(), "read", secret())?;
        own_user_namespace(CloneFlags::CLONE_NEWNS)?;
        read(secret())
    })
}
