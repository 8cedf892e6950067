//! What shells and ordinary programs need: pipes, redirections, devices, their own /proc.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use crate::attempt::{Outcome, attempt};
use crate::bundle::{Bundle, one_of, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::file::read;
use crate::identity::{fork, in_child, own_user_namespace};
use crate::layout::{self, path, which};
use crate::puppet::Puppet;
use crate::users::{AGENT, CI, FREE, Identity, ROOT};

pub(crate) const PART: Part = Part {
    name: "stdio",
    bundle,
    prepare,
    tests: tests!(
        others: [
            a_pipeline_into_a_file_works,
            a_redirection_to_a_refused_file_is_refused,
            here_documents_and_substitutions_work,
            ordinary_devices_can_be_used_and_others_not,
            the_own_proc_directory_can_be_read_and_others_not,
            ones_own_memory_is_not_written_past_its_protection,
            proc_directories_of_the_same_label_can_be_read_and_others_not,
            a_pipe_between_two_subjects_works,
        ],
    ),
};

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let mut policy = String::new();
    let programs = ["sh", "cat", "id", "tr", "sleep"].map(which).into_iter().collect::<Result<Vec<_>>>()?;
    for subject in ["agent", "ci"] {
        policy += &permit(&format!("stdio-{subject}"), subject, &["file.read", "exec"], &one_of(&programs));
        let accounts = one_of(&["/etc/passwd", "/etc/group"]);
        policy += &permit(&format!("accounts-{subject}"), subject, &["file.read"], &accounts);
        policy += &permit(&format!("tmp-{subject}"), subject, &["file.*"], &within(&["/tmp"]));
    }
    Ok(bundle.policy("stdio", policy))
}

fn prepare() -> Result<()> {
    layout::create()?;
    layout::directory(&path("open/mnt"))
}

/// Runs a shell script as `who`, whose status must be 0.
fn shell(script: &str) -> io::Result<()> {
    let output = Command::new("/bin/sh").args(["-euc", script]).stdin(Stdio::null()).output()?;
    let message = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(()),
        // What a shell says of a redirection or a program that it was refused.
        Some(1 | 2 | 126) if message.contains("Permission denied") => {
            eprint!("{message}");
            Err(nix::errno::Errno::EACCES.into())
        }
        status => Err(io::Error::other(format!("{status:?}: {message}"))),
    }
}

fn a_pipeline_into_a_file_works(case: &Case<'_>) -> Result<()> {
    let result = path("open/pipeline");
    let _ = fs::remove_file(&result);
    let script = format!("id -u | cat | tr 0-9 a-j > {0}; test \"$(cat {0})\" = caab", result.display());
    case.allowed(AGENT, || shell(&script))
}

fn a_redirection_to_a_refused_file_is_refused(case: &Case<'_>) -> Result<()> {
    let script = format!("id | cat >> {}", layout::canary(layout::ROOT).display());
    case.refused(refusal(AGENT, "file.append").at("shut/secret"), || shell(&script))
}

fn here_documents_and_substitutions_work(case: &Case<'_>) -> Result<()> {
    case.allowed(AGENT, || shell("test \"$(cat <<END\nhere\nEND\n)\" = here"))?;
    case.allowed(AGENT, || shell("cat < /dev/null > /dev/null 2>&1; id 2>/dev/null | cat >/dev/null"))
}

fn ordinary_devices_can_be_used_and_others_not(case: &Case<'_>) -> Result<()> {
    let both = |name: &str| File::options().read(true).write(true).open(name).map(drop);
    for name in ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"] {
        case.allowed(AGENT, || both(name)).context(name)?;
    }
    layout::mode(&PathBuf::from("/dev/kmsg"), 0o666)?;
    case.refused(refusal(AGENT, "file.write").at("kmsg"), || {
        File::options().write(true).open("/dev/kmsg").map(drop)
    })
}

fn the_own_proc_directory_can_be_read_and_others_not(case: &Case<'_>) -> Result<()> {
    for name in ["/proc/self/status", "/proc/self/maps", "/proc/thread-self/stat", "/proc/self/cmdline"] {
        case.allowed(AGENT, || read(name)).context(name)?;
    }
    let own = std::process::id();
    for name in ["/proc/1/status".to_owned(), format!("/proc/{own}/cmdline"), format!("/proc/{own}/status")] {
        case.refused(refusal(AGENT, "file.read"), || read(&name)).context(name)?;
    }
    case.refused(refusal(AGENT, "dir.list"), || fs::read_dir("/proc").map(drop))
}

/// Something that the linker puts where nobody may write.
static PROTECTED: &str = "protected";

fn ones_own_memory_is_not_written_past_its_protection(case: &Case<'_>) -> Result<()> {
    // What is written by way of this file goes past the protection of pages (fs/proc/base.c: `mem_rw`), code
    // that may be executed included.
    let write = || {
        let place = PROTECTED.as_ptr().addr() as u64;
        let memory = File::options().read(true).write(true).open("/proc/self/mem")?;
        memory.write_all_at(b"changed", place)?;
        let mut there = [0; 7];
        memory.read_exact_at(&mut there, place)?;
        if there == *b"changed" { Ok(()) } else { Err(io::Error::other("the memory stayed as it was")) }
    };
    // Current kernels can be told to respect the protection (`proc_mem.force_override`); then it is the open.
    let is_respected = attempt(FREE, write)? == Outcome::Failed(nix::errno::Errno::EIO);
    let open = || File::options().write(true).open("/proc/self/mem").map(drop);
    let way = || if is_respected { open() } else { write() };
    // The agent may do anything to its own files in /proc, the CI job may read them.
    case.refused(refusal(CI, "file.write"), way)?;
    case.allowed(AGENT, way)
}

fn proc_directories_of_the_same_label_can_be_read_and_others_not(case: &Case<'_>) -> Result<()> {
    let of = |pid: Pid, name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
    let mut agent = Puppet::start(AGENT)?;
    let (sibling, other, free) = (Puppet::start(AGENT)?, Puppet::start(CI)?, Puppet::start(FREE)?);
    for name in ["status", "cmdline", "task", "net/dev"] {
        case.allowed(AGENT, || open(&of(sibling.pid(), name))).context(name)?;
        for stranger in [other.pid(), free.pid()] {
            let action = if name == "task" { "dir.list" } else { "file.read" };
            let path = of(stranger, name);
            case.refused(refusal(AGENT, action), || open(&path))
                .with_context(|| path.display().to_string())?;
        }
    }
    // Parents, and the same through another procfs in other namespaces.
    case.allowed(AGENT, || {
        in_child(fork, || open(&of(nix::unistd::getppid(), "status")))?;
        own_user_namespace(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
        in_child(fork, || {
            let place = path("open/mnt");
            mount(Some("proc"), &place, Some("proc"), MsFlags::empty(), None::<&str>)?;
            open(&place.join("1/status"))
        })
    })?;
    // A process that has ended is nobody's.
    let (pid, _) = (sibling.pid(), sibling.end()?);
    let gone = open(&of(pid, "status")).map_err(|error| error.raw_os_error());
    ensure!(gone == Err(Some(nix::libc::ENOENT)), "the sibling should have ended: {gone:?}");
    if case.daemon().is_some() {
        agent.is_refused(&of(free.pid(), "status"))?;
    }
    [agent, other, free].into_iter().try_for_each(Puppet::end)
}

fn open(path: &Path) -> io::Result<()> {
    File::open(path).map(drop)
}

fn a_pipe_between_two_subjects_works(case: &Case<'_>) -> Result<()> {
    // A shell of root's joins the two; what they inherit was open before they had a label.
    let both = |first: Identity, second: Identity| {
        let run = |who: Identity| format!("setpriv --reuid {0} --regid {0} --clear-groups", who.uid);
        let script = format!("{} id -u | {} cat > /dev/null", run(first), run(second));
        shell(&script)
    };
    case.allowed(ROOT, || both(AGENT, CI))?;
    case.allowed(ROOT, || both(CI, AGENT))
}
