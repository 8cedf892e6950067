//! Execution: programs, interpreters, images without a name, and code that is mapped instead.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ForkResult;

use crate::attempt::{Outcome, attempt};
use crate::bundle::{Bundle, one_of, permit, within};
use crate::case::{Case, NotHere, refusal};
use crate::family::{Part, tests};
use crate::layout::{self, EMPTY, path};
use crate::users::{AGENT, CI, FREE};
use crate::{elf, raw, step};

pub(crate) const PART: Part = Part {
    name: "exec",
    bundle,
    prepare,
    tests: tests!(
        smoke: [a_program_is_refused],
        others: [
            a_program_is_refused_through_every_link_to_it,
            a_script_is_refused_if_its_interpreter_is,
            a_script_is_refused_if_it_is_not_permitted_itself,
            a_program_is_refused_if_its_elf_interpreter_is,
            a_program_in_a_memfd_is_refused,
            a_program_in_a_temporary_file_without_a_name_is_refused,
            a_deleted_program_is_refused,
            asking_whether_a_program_may_run_is_answered_truly,
            the_dynamic_loader_does_not_run_what_is_refused,
            mapping_a_file_executable_is_refused,
            anonymous_executable_memory_is_refused,
            a_library_for_preloading_is_refused,
            a_program_is_refused_however_often_it_is_spawned,
        ],
    ),
};

/// Where files without a name are made.
const NAMELESS: &str = "/scratch/ext4/gt/x";

fn denied() -> PathBuf {
    path("x/data/program")
}

fn permitted() -> PathBuf {
    path("x/run/program")
}

fn prepare() -> Result<()> {
    layout::create()?;
    for directory in ["run", "data"] {
        let directory = path("x").join(directory);
        layout::directory(&directory)?;
        layout::program(&directory.join("program"), &elf::exits_with(0))?;
        layout::program(&directory.join("interpreter"), &elf::interpreter())?;
        layout::program(&directory.join("true"), &fs::read(layout::which("true")?).context("read true")?)?;
    }
    for (script, interpreter) in
        [("run/good", permitted()), ("run/bad", denied()), ("data/script", permitted())]
    {
        let text = format!("#!{}\n", interpreter.display());
        layout::program(&path("x").join(script), text.as_bytes())?;
    }
    layout::program(&path("x/run/chain"), format!("#!{}\n", path("x/run/bad").display()).as_bytes())?;
    for (program, directory) in [("run/interpreted", "run"), ("run/badly-interpreted", "data")] {
        let interpreter = path("x").join(directory).join("interpreter").display().to_string();
        layout::program(&path("x").join(program), &elf::interpreted_by(&interpreter))?;
    }
    // Overlayfs has no files without a name before 6.3.
    for directory in ["run", "data"] {
        layout::directory(&Path::new(NAMELESS).join(directory))?;
    }
    Ok(())
}

fn loader() -> Result<PathBuf> {
    Path::new("/lib64/ld-linux-x86-64.so.2").canonicalize().context("find the dynamic loader")
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let policy = permit(
        "x-run",
        "agent",
        &["file.*", "exec.*"],
        &within(&[path("x/run"), Path::new(NAMELESS).join("run")]),
    ) + &permit(
        "x-data",
        "agent",
        &["file.*"],
        &within(&[path("x/data"), Path::new(NAMELESS).join("data")]),
    ) + &permit("x-loader", "agent", &["exec"], &one_of(&[loader()?]))
        + &permit("x-ci", "ci", &["file.*", "exec.*"], &within(&[path("x")]))
        + &permit("x-ci-anonymous", "ci", &["file.*", "exec.*"], &within(&["guard:own-anonymous"]))
        + &permit("x-ci-memory", "ci", &["exec.map"], "resource == Guard::Memory::\"anonymous\"");
    Ok(bundle.policy("exec", policy))
}

fn run(program: impl AsRef<Path>) -> io::Result<()> {
    step::result(Command::new(program.as_ref()).status()?)
}

/// Executes a descriptor in a child.
fn run_descriptor(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: attempts have one thread.
    let fork = || Ok(unsafe { nix::unistd::fork() }?);
    run_in_child(fork, || raw::execveat(fd, EMPTY, libc::AT_EMPTY_PATH))
}

/// Runs `exec`, which returns only if it fails, in a child.
pub(crate) fn run_in_child(
    fork: impl Fn() -> io::Result<ForkResult>,
    exec: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    match fork()? {
        ForkResult::Child => {
            let error = exec().err().and_then(|error| error.raw_os_error());
            raw::exit_now(error.unwrap_or(254))
        }
        ForkResult::Parent { child } => match nix::sys::wait::waitpid(child, None)? {
            nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
            nix::sys::wait::WaitStatus::Exited(_, number) => Err(io::Error::from_raw_os_error(number)),
            other => Err(io::Error::other(format!("{other:?}"))),
        },
    }
}

fn a_program_is_refused(case: &Case<'_>) -> Result<()> {
    case.refused(refusal(AGENT, "exec").at("x/data/program"), || run(denied()))?;
    case.allowed(AGENT, || run(permitted()))
}

fn a_program_is_refused_through_every_link_to_it(case: &Case<'_>) -> Result<()> {
    let link = path("x/run/link");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(denied(), &link).context("make a link")?;
    let relative = denied().strip_prefix("/").context("an absolute path")?.to_owned();
    let names = [link, path("x/run/../data/program"), Path::new("/proc/self/root").join(relative)];
    for name in names {
        let refused = refusal(AGENT, "exec").at("x/data/program");
        case.refused(refused, || run(&name)).with_context(|| name.display().to_string())?;
    }
    case.refused(refusal(AGENT, "exec").at("x/data/program"), || {
        let handle = File::options().read(true).custom_flags(libc::O_PATH).open(denied())?;
        run(format!("/proc/self/fd/{}", handle.as_raw_fd()))
    })?;
    case.allowed(AGENT, || {
        let handle = File::options().read(true).custom_flags(libc::O_PATH).open(permitted())?;
        run_descriptor(handle.as_fd())
    })
}

fn a_script_is_refused_if_its_interpreter_is(case: &Case<'_>) -> Result<()> {
    case.refused(refusal(AGENT, "exec").at("x/data/program"), || run(path("x/run/bad")))?;
    case.refused(refusal(AGENT, "exec").at("x/data/program"), || run(path("x/run/chain")))?;
    case.allowed(AGENT, || run(path("x/run/good")))
}

fn a_script_is_refused_if_it_is_not_permitted_itself(case: &Case<'_>) -> Result<()> {
    case.refused(refusal(AGENT, "exec").at("x/data/script"), || run(path("x/data/script")))
}

fn a_program_is_refused_if_its_elf_interpreter_is(case: &Case<'_>) -> Result<()> {
    case.refused(refusal(AGENT, "exec").at("x/data/interpreter"), || run(path("x/run/badly-interpreted")))?;
    case.allowed(AGENT, || run(path("x/run/interpreted")))
}

fn memfd() -> io::Result<OwnedFd> {
    let fd = memfd_create(c"x/run/program (deleted)", MFdFlags::MFD_CLOEXEC)?;
    File::from(fd.try_clone()?).write_all(&elf::exits_with(0))?;
    Ok(fd)
}

fn a_program_in_a_memfd_is_refused(case: &Case<'_>) -> Result<()> {
    let by_descriptor = || run_descriptor(memfd()?.as_fd());
    let by_name = || {
        let fd = memfd()?;
        run(format!("/proc/self/fd/{}", fd.as_raw_fd()))
    };
    for way in [&by_descriptor as &dyn Fn() -> io::Result<()>, &by_name] {
        case.refused(refusal(AGENT, "exec"), way)?;
        case.allowed(CI, way)?;
    }
    Ok(())
}

fn a_program_in_a_temporary_file_without_a_name_is_refused(case: &Case<'_>) -> Result<()> {
    let temporary = |directory: PathBuf| {
        let mut file = File::options()
            .read(true)
            .write(true)
            .mode(0o700)
            .custom_flags(libc::O_TMPFILE)
            .open(&directory)?;
        file.write_all(&elf::exits_with(0))?;
        // What is open for writing cannot be executed.
        let reading = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        drop(file);
        run_descriptor(reading.as_fd())
    };
    case.refused(refusal(AGENT, "exec"), || temporary(Path::new(NAMELESS).join("data")))?;
    case.allowed(AGENT, || temporary(Path::new(NAMELESS).join("run")))
}

fn a_deleted_program_is_refused(case: &Case<'_>) -> Result<()> {
    let deleted = |directory: PathBuf| {
        let name = directory.join(format!("deleted-{}", std::process::id()));
        fs::copy(directory.join("program"), &name)?;
        let handle = File::open(&name)?;
        fs::remove_file(&name)?;
        run_descriptor(handle.as_fd())
    };
    case.refused(refusal(AGENT, "exec"), || deleted(path("x/data")))?;
    case.allowed(AGENT, || deleted(path("x/run")))
}

fn asking_whether_a_program_may_run_is_answered_truly(case: &Case<'_>) -> Result<()> {
    let ask = |program: &Path| {
        let file = File::options().read(true).custom_flags(libc::O_PATH).open(program)?;
        raw::execveat(file.as_fd(), EMPTY, libc::AT_EMPTY_PATH | raw::AT_EXECVE_CHECK)
    };
    if attempt(FREE, || ask(&permitted()))? == Outcome::Failed(Errno::EINVAL) {
        return Err(NotHere("this kernel has no AT_EXECVE_CHECK (new in 6.14)".to_owned()).into());
    }
    case.refused(refusal(AGENT, "exec").at("x/data/program"), || ask(&denied()))?;
    case.allowed(AGENT, || ask(&permitted()))
}

fn the_dynamic_loader_does_not_run_what_is_refused(case: &Case<'_>) -> Result<()> {
    let loader = loader()?;
    let load = |program: PathBuf| {
        let output = Command::new(&loader).arg(program).output()?;
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => Ok(()),
            // The loader says which of its steps failed, not with which errno.
            Some(127) if message.contains("failed to map segment") => {
                Err(io::Error::from_raw_os_error(libc::EACCES))
            }
            _ => Err(io::Error::other(message)),
        }
    };
    case.refused(refusal(AGENT, "exec.map").at("x/data/true"), || load(path("x/data/true")))?;
    case.allowed(AGENT, || load(path("x/run/true")))
}

fn mapping_a_file_executable_is_refused(case: &Case<'_>) -> Result<()> {
    let map = |file: PathBuf, protection| raw::map_page(Some(File::open(file)?.as_fd()), protection);
    let executable = libc::PROT_READ | libc::PROT_EXEC;
    case.refused(refusal(AGENT, "exec.map").at("x/data/true"), || map(path("x/data/true"), executable))?;
    case.allowed(AGENT, || map(path("x/run/true"), executable))?;
    case.allowed(AGENT, || map(path("x/data/true"), libc::PROT_READ))
}

fn anonymous_executable_memory_is_refused(case: &Case<'_>) -> Result<()> {
    let map = || raw::map_page(None, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
    case.refused(refusal(AGENT, "exec.map"), map)?;
    case.allowed(CI, map)?;
    case.allowed(AGENT, || raw::map_page(None, libc::PROT_READ | libc::PROT_WRITE))
}

fn a_library_for_preloading_is_refused(case: &Case<'_>) -> Result<()> {
    let library = fs::read_dir("/usr/lib/x86_64-linux-gnu")
        .context("list the libraries")?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|file| file.file_name().is_some_and(|name| name == "libdl.so.2"))
        .context("this guest has no libdl.so.2")?;
    for directory in ["x/data", "x/run"] {
        fs::copy(&library, path(directory).join("preload.so")).context("copy a library")?;
    }
    // The loader goes on without a library that it cannot map, and says so.
    let preload = |directory: &str| {
        let program = path("x/run/true");
        let output = Command::new(program).env("LD_PRELOAD", path(directory).join("preload.so")).output()?;
        if String::from_utf8_lossy(&output.stderr).contains("cannot be preloaded") {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        step::result(output.status)
    };
    case.refused(refusal(AGENT, "exec.map").at("x/data/preload.so"), || preload("x/data"))?;
    case.allowed(AGENT, || preload("x/run"))
}

/// A way to run a program.
type Spawn = fn(&Path) -> io::Result<()>;

/// Repeats an operation whose results must all be the same, and returns that.
fn repeated(times: u64, operation: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let first = operation();
    let number = |result: &io::Result<()>| result.as_ref().err().and_then(io::Error::raw_os_error);
    for time in 1..times {
        let result = operation();
        if result.is_ok() != first.is_ok() || number(&result) != number(&first) {
            return Err(io::Error::other(format!("first {first:?}, then, at number {time}, {result:?}")));
        }
    }
    first
}

fn a_program_is_refused_however_often_it_is_spawned(case: &Case<'_>) -> Result<()> {
    // With both, the child uses the parent's memory while the parent sleeps: a denial must wake it.
    let ways: [(&str, Spawn); 2] = [("vfork", raw::vfork_exec), ("posix_spawn", raw::posix_spawn)];
    // Many attempts of some spawns each, so that none has to be given more time than any other.
    const SPAWNS: u64 = 200;
    let attempts = if case.full { 50 } else { 1 };
    for (way, spawn) in ways {
        for _ in 0..attempts {
            case.refused(refusal(AGENT, "exec").at("x/data/program").only_labelled(), || {
                // Without Guard it only has to be shown that it works.
                if case.daemon().is_some() { repeated(SPAWNS, || spawn(&denied())) } else { spawn(&denied()) }
            })
            .context(way)?;
            case.tried(if case.daemon().is_some() { SPAWNS } else { 1 });
        }
        case.allowed(FREE, || spawn(&denied())).context(way)?;
        case.allowed(AGENT, || spawn(&permitted())).context(way)?;
    }
    Ok(())
}
