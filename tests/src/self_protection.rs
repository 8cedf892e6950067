//! What no policy has to say: the agent against the processes that it labels, root among them.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::{Uid, setresuid};

use crate::bundle::Bundle;
use crate::case::{Case, Refusal, refusal};
use crate::family::{Part, tests};
use crate::layout;
use crate::process::Victim;
use crate::users::{
    BPF, DAC_OVERRIDE, FREE, Identity, KILL, PERFMON, SETUID, SYS_ADMIN, SYS_MODULE, SYS_PTRACE,
};
use crate::{bpf, raw};

pub(crate) const PART: Part = Part {
    name: "self-protection",
    bundle,
    prepare,
    tests: tests!(
        smoke: [the_agents_process_is_neither_signalled_nor_traced],
        others: [
            objects_of_other_bpf_programs_are_refused,
            programs_that_change_the_kernel_are_refused,
            modules_are_refused,
            the_agents_files_are_refused_to_whoever_may_write_everything,
            the_agents_cgroup_is_refused,
            the_place_of_the_admin_socket_is_refused,
            programs_that_the_kernel_starts_are_refused_to_whoever_may_write_everything,
        ],
    ),
};

/// Has every right but those that it governs, of which it needs none here.
const ROOTLIKE: Identity = Identity::new("self-root", 2420);

/// The accounts of this part.
pub(crate) const ACCOUNTS: [Identity; 1] = [ROOTLIKE];

const SOCKET: &str = "/run/guard/admin.sock";
const CGROUP: &str = "/sys/fs/cgroup/system.slice/guard-agent.service";
/// Files as the packaged agent has them. The agent of these tests has its own elsewhere.
const FILES: [&str; 5] = [
    "/etc/guard/agent.toml",
    "/var/lib/guard/events.db",
    "/run/guard/lock",
    "/usr/bin/guard-agent",
    "/etc/systemd/system/guard-agent.service",
];

fn prepare() -> Result<()> {
    layout::create()?;
    for file in FILES.map(Path::new) {
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
            // Whoever looks for them finds them, as root does.
            if parent.ends_with("guard") {
                layout::mode(parent, 0o755)?;
            }
        }
        if !file.exists() {
            fs::write(file, "nothing\n").with_context(|| format!("write {}", file.display()))?;
        }
    }
    let _ = fs::remove_file(SOCKET);
    std::mem::forget(UnixListener::bind(SOCKET).context("bind the socket")?);
    fs::create_dir_all(CGROUP).context("make a cgroup")
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let name = ROOTLIKE.name;
    Ok(bundle
        .toml(&format!("[subjects.{name}]\nselector = {{ user = \"{name}\" }}\ngoverns = [\"net.raw\"]\n")))
}

fn refused(capabilities: u64, action: &'static str) -> Refusal {
    refusal(ROOTLIKE.with(capabilities), action).only_labelled()
}

fn the_agents_process_is_neither_signalled_nor_traced(case: &Case<'_>) -> Result<()> {
    let capabilities = KILL | SYS_PTRACE | SYS_NICE;
    let victim = Victim::of(FREE)?;
    let target = case.daemon().map_or(victim.pid(), |daemon| daemon.pid().as_raw());
    let no = |action| refused(capabilities, action).with(Errno::EPERM).at(target.to_string());
    for signal in [0, libc::SIGCONT] {
        case.refused(no("proc.signal"), || raw::kill(target, signal))?;
        case.refused(no("proc.signal"), || raw::pidfd_signal(target, signal))?;
    }
    case.refused(no("proc.signal"), || raw::tune(target, raw::Tuning::Nice))?;
    case.refused(no("proc.trace"), || raw::trace(target, false))?;
    case.refused(no("proc.trace"), || raw::pidfd_getfd(target))?;
    let by_file = |target: libc::pid_t| {
        let root = Uid::from_raw(0);
        setresuid(root, root, root)?;
        raw::signal_by_file(raw::Naming::Process, target, libc::SIGKILL)?;
        if has_ended(target)? { Ok(()) } else { Err(Errno::EPERM.into()) }
    };
    let other = Victim::of(FREE)?;
    let of_file = case.daemon().map_or(other.pid(), |_| target);
    case.refused(refused(SETUID, "proc.signal").with(Errno::EPERM).at(of_file.to_string()), || {
        by_file(of_file)
    })?;
    let another = Victim::of(FREE)?;
    case.allowed(ROOTLIKE.with(SETUID), || by_file(another.pid()))?;
    // Other processes are nothing that it governs.
    case.allowed(ROOTLIKE.with(capabilities), || raw::kill(victim.pid(), libc::SIGCONT))
}

/// Whether a process that has been killed, if it was, ends within half a second.
fn has_ended(pid: libc::pid_t) -> io::Result<bool> {
    let process = raw::pidfd(pid)?;
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut polled, 500u16)? == 1)
}

fn objects_of_other_bpf_programs_are_refused(case: &Case<'_>) -> Result<()> {
    let capabilities = BPF | PERFMON | SYS_ADMIN;
    let _there = bpf::keep_map().context("make a map")?;
    case.refused(refused(capabilities, "sys.bpf").with(Errno::EPERM), || bpf::next_map(0).map(drop))?;
    let number = bpf::next_map(0).context("find a map")?;
    case.refused(refused(capabilities, "sys.bpf").with(Errno::EPERM), || bpf::open_map(number))?;
    case.allowed(ROOTLIKE.with(capabilities), bpf::make_map)
}

fn programs_that_change_the_kernel_are_refused(case: &Case<'_>) -> Result<()> {
    let capabilities = BPF | PERFMON | SYS_ADMIN;
    let hook = bpf::hook_id("file_open")?;
    case.refused(refused(capabilities, "sys.bpf").with(Errno::EPERM), || bpf::load_lsm(hook))?;
    case.allowed(ROOTLIKE.with(capabilities), bpf::load_filter)
}

fn modules_are_refused(case: &Case<'_>) -> Result<()> {
    // What is loaded is no module, which the kernel finds out after it has asked.
    let load = || match raw::load_module(None) {
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => Ok(()),
        other => other,
    };
    case.refused(refused(SYS_MODULE, "sys.module").with(Errno::EPERM), load)
}

fn the_agents_files_are_refused_to_whoever_may_write_everything(case: &Case<'_>) -> Result<()> {
    let open = |file: &Path| OpenOptions::new().append(true).open(file).map(drop);
    for file in FILES.map(Path::new) {
        let moved = PathBuf::from(format!("{}.moved", file.display()));
        let no = |action| refused(DAC_OVERRIDE | FOWNER, action).at(file.display().to_string());
        (|| {
            case.refused(no("file.append"), || open(file))?;
            case.refused(no("file.rename"), || {
                fs::rename(file, &moved)?;
                fs::rename(&moved, file)
            })?;
            let mode = file.metadata().context("look at the file")?.permissions().mode();
            case.refused(no("file.setattr"), || fs::set_permissions(file, Permissions::from_mode(mode)))
        })()
        .with_context(|| file.display().to_string())?;
    }
    let new = Path::new("/etc/guard/more.toml");
    let make = || {
        fs::write(new, "")?;
        fs::remove_file(new)
    };
    case.refused(refused(DAC_OVERRIDE, "file.create").at("/etc/guard/more.toml"), make)?;
    // Nor is a directory of them moved away.
    let (state, away) = (Path::new("/var/lib/guard"), Path::new("/var/lib/guard-away"));
    let move_it = || {
        fs::rename(state, away)?;
        fs::rename(away, state)
    };
    case.refused(refused(DAC_OVERRIDE, "file.rename").at("/var/lib/guard"), move_it)?;
    case.allowed(ROOTLIKE.with(DAC_OVERRIDE), || fs::read("/etc/guard/agent.toml").map(drop))?;
    case.allowed(ROOTLIKE.with(DAC_OVERRIDE), || {
        let other = Path::new("/etc/guard-tests-other");
        fs::write(other, "")?;
        fs::remove_file(other)
    })
}

fn the_agents_cgroup_is_refused(case: &Case<'_>) -> Result<()> {
    for (name, text) in [("cgroup.freeze", "0"), ("cgroup.kill", "1"), ("memory.max", "max")] {
        let file = Path::new(CGROUP).join(name);
        // Not every controller is switched on.
        if !file.exists() {
            continue;
        }
        let write = || {
            fs::OpenOptions::new()
                .write(true)
                .open(&file)
                .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        };
        case.refused(refused(DAC_OVERRIDE, "file.write").at(file.display().to_string()), write)
            .context(name)?;
    }
    Ok(())
}

fn the_place_of_the_admin_socket_is_refused(case: &Case<'_>) -> Result<()> {
    case.refused(refused(DAC_OVERRIDE, "unix.connect").at(SOCKET), || UnixStream::connect(SOCKET).map(drop))
}

fn programs_that_the_kernel_starts_are_refused_to_whoever_may_write_everything(
    case: &Case<'_>,
) -> Result<()> {
    let name = "/proc/sys/kernel/core_pattern";
    let text = fs::read_to_string(name).context("read core_pattern")?;
    case.refused(refused(SETUID, "file.write").at(name), || {
        // Whoever is root in effect may write there, whatever its capabilities.
        let (same, root) = (Uid::from_raw(u32::MAX), Uid::from_raw(0));
        setresuid(same, root, same)?;
        let mut file = OpenOptions::new().write(true).open(name)?;
        io::Write::write_all(&mut file, text.as_bytes())
    })
}

/// `CAP_FOWNER` (include/uapi/linux/capability.h).
const FOWNER: u64 = 1 << 3;
/// `CAP_SYS_NICE`.
const SYS_NICE: u64 = 1 << 23;
