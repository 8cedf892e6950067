//! Privileged operations: mounts, user namespaces, BPF, modules, io_uring, changes of identity, and
//! capabilities.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::attempt::{Outcome, attempt};
use crate::bundle::{Bundle, ORDINARY, permit, within};
use crate::case::{Case, Refusal, refusal};
use crate::family::{Part, tests};
use crate::layout::{self, path};
use crate::users::{
    BPF, CHOWN, Identity, NET_BIND_SERVICE, PERFMON, SETGID, SETUID, SYS_ADMIN, SYS_MODULE, SYS_TIME,
};
use crate::{bpf, raw, uring};

pub(crate) const PART: Part = Part {
    name: "machine",
    bundle,
    prepare,
    tests: tests!(
        smoke: [an_own_user_namespace_is_refused, a_capability_that_policy_does_not_permit_is_lacking],
        others: [
            mounting_is_refused,
            the_new_mount_calls_are_refused,
            cloning_a_mount_and_changing_its_flags_are_mounting,
            unmounting_is_refused,
            pivoting_the_root_is_refused,
            bpf_is_refused,
            performance_events_are_refused,
            loading_a_module_is_refused,
            having_the_kernel_load_a_module_is_refused,
            a_ring_is_refused,
            changing_identity_is_refused,
            an_identity_that_stays_the_same_is_no_change,
            capabilities_of_an_own_user_namespace_are_governed_alike,
            what_the_kernel_only_considers_is_not_reported,
            typing_for_whoever_else_uses_the_terminal_is_refused,
        ],
    ),
};

/// May use every capability, and do nothing that takes a right of its own.
const NONE: Identity = Identity::new("sys-none", 2410);
/// May do everything.
const ALL: Identity = Identity::new("sys-all", 2411);
/// May use few capabilities.
const FEW: Identity = Identity::new("sys-few", 2412);

/// The accounts of this part.
pub(crate) const ACCOUNTS: [Identity; 3] = [NONE, ALL, FEW];

fn prepare() -> Result<()> {
    layout::create()?;
    layout::directory(&place())?;
    // As it is before 6.2 and where nobody changed it; Debian's kernels leave it to CAP_SYS_ADMIN.
    let typing = Path::new("/proc/sys/dev/tty/legacy_tiocsti");
    if typing.exists() {
        std::fs::write(typing, "1").context("permit TIOCSTI")?;
    }
    layout::file(&path("open/module"), b"this is no module\n")
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let mut policy = String::new();
    // Loading modules is what is tested here, and who may.
    let mut bundle = bundle.toml("[builtin]\nlift = [\"kernel-code\"]\n");
    for Identity { name, .. } in ACCOUNTS {
        bundle = bundle.toml(&format!(
            "[subjects.{name}]\nselector = {{ user = \"{name}\" }}\ngoverns = [\"*\"]\ninclude = [{ORDINARY}]\n"
        ));
        policy += &permit(&format!("{name}-files"), name, &["file.*"], &within(&[path("open")]));
        policy += &permit(&format!("{name}-own"), name, &["file.*"], &within(&["guard:own-proc"]));
        policy += &permit(&format!("{name}-net"), name, &["net.*", "unix.*"], "true");
    }
    // To make a terminal one's own.
    let terminals = within(&["/dev/pts"]);
    for Identity { name, .. } in [ALL, FEW] {
        policy += &permit(&format!("{name}-terminals"), name, &["file.ioctl"], &terminals);
    }
    policy += &permit("none", NONE.name, &["sys.cap"], "true");
    policy += &permit("all", ALL.name, &["sys.*"], "true");
    policy += &permit("few", FEW.name, &["sys.cap"], "resource == Guard::Capability::\"chown\"");
    policy += &permit("few-machine", FEW.name, &["sys.userns", "sys.setid"], "true");
    Ok(bundle.policy("machine", policy))
}

fn place() -> PathBuf {
    path("open/machine")
}

fn refused(action: &'static str, capabilities: u64) -> Refusal {
    refusal(NONE.with(capabilities), action).with(Errno::EPERM)
}

/// Refused to one, allowed to the other.
fn both(
    case: &Case<'_>,
    action: &'static str,
    capabilities: u64,
    attempt: impl Fn() -> io::Result<()>,
) -> Result<()> {
    case.refused(refused(action, capabilities), &attempt)?;
    case.allowed(ALL.with(capabilities), &attempt)
}

/// Mounts that are seen by the running process only.
fn own_mounts() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWNS)?)
}

const NOTHING: Option<&str> = None;

fn mounting_is_refused(case: &Case<'_>) -> Result<()> {
    both(case, "sys.mount", SYS_ADMIN, || {
        own_mounts()?;
        Ok(mount(Some("tmpfs"), &place(), Some("tmpfs"), MsFlags::empty(), NOTHING)?)
    })?;
    both(case, "sys.mount", SYS_ADMIN, || {
        own_mounts()?;
        Ok(mount(Some(&path("open")), &place(), NOTHING, MsFlags::MS_BIND, NOTHING)?)
    })?;
    both(case, "sys.mount", SYS_ADMIN, || {
        own_mounts()?;
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        Ok(mount(NOTHING, "/", NOTHING, flags, NOTHING)?)
    })
}

fn the_new_mount_calls_are_refused(case: &Case<'_>) -> Result<()> {
    both(case, "sys.mount", SYS_ADMIN, || raw::fsmount(&raw::new_tmpfs()?).map(drop))?;
    both(case, "sys.mount", SYS_ADMIN, || {
        own_mounts()?;
        let tree = raw::open_tree_clone(&path("open"))?;
        raw::move_mount(tree.as_fd(), &place())
    })
}

fn cloning_a_mount_and_changing_its_flags_are_mounting(case: &Case<'_>) -> Result<()> {
    // No hook is asked but that of the capability.
    both(case, "sys.mount", SYS_ADMIN, || raw::open_tree_clone(&path("open")).map(drop))?;
    both(case, "sys.mount", SYS_ADMIN, || {
        own_mounts()?;
        raw::make_writable(Path::new("/scratch/tmpfs"))
    })?;
    // Other uses of the capability are none.
    case.allowed(NONE.with(SYS_ADMIN), own_mounts)
}

fn unmounting_is_refused(case: &Case<'_>) -> Result<()> {
    both(case, "sys.mount", SYS_ADMIN, || {
        own_mounts()?;
        Ok(umount2("/scratch/tmpfs", MntFlags::MNT_DETACH)?)
    })
}

fn pivoting_the_root_is_refused(case: &Case<'_>) -> Result<()> {
    both(case, "sys.mount", SYS_ADMIN, || {
        own_mounts()?;
        nix::unistd::chdir("/scratch/tmpfs")?;
        Ok(nix::unistd::pivot_root(".", ".")?)
    })
}

fn an_own_user_namespace_is_refused(case: &Case<'_>) -> Result<()> {
    both(case, "sys.userns", 0, || Ok(unshare(CloneFlags::CLONE_NEWUSER)?))
}

fn bpf_is_refused(case: &Case<'_>) -> Result<()> {
    both(case, "sys.bpf", BPF, bpf::make_map)?;
    both(case, "sys.bpf", BPF, bpf::load_filter)
}

fn performance_events_are_refused(case: &Case<'_>) -> Result<()> {
    // Debian wants more than the capability that is meant for it.
    both(case, "sys.bpf", PERFMON | SYS_ADMIN, raw::perf_event)
}

fn loading_a_module_is_refused(case: &Case<'_>) -> Result<()> {
    // What is loaded is none, which the kernel finds out after it has asked.
    let tried = |result: io::Result<()>| match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => Ok(()),
        other => other,
    };
    both(case, "sys.module", SYS_MODULE, || {
        tried(raw::load_module(Some(File::open(path("open/module"))?.as_fd())))
    })?;
    both(case, "sys.module", SYS_MODULE, || tried(raw::load_module(None)))
}

fn having_the_kernel_load_a_module_is_refused(case: &Case<'_>) -> Result<()> {
    let unknown = || raw::fsopen(c"nosuchfs").map(drop);
    let mark = case.daemon().map(|daemon| daemon.events.mark()).transpose()?;
    for who in [ALL, NONE] {
        // The kernel goes on without the module, and finds no file system of that name.
        let outcome = attempt(who.with(SYS_ADMIN), unknown)?;
        ensure!(outcome == Outcome::Failed(Errno::ENODEV), "{}: {outcome:?}", who.name);
    }
    let (Some(daemon), Some(mark)) = (case.daemon(), mark) else { return Ok(()) };
    let about = |event: &crate::events::Event| event.is_denial() && event.is_about("sys.module");
    daemon.events.wait(mark, Duration::from_secs(20), "a module that was not asked for", |event| {
        about(event) && event.subject() == NONE.name
    })?;
    let others = daemon.events.since(mark)?;
    ensure!(!others.iter().any(|event| about(event) && event.subject() == ALL.name), "{}", ALL.name);
    Ok(())
}

fn a_ring_is_refused(case: &Case<'_>) -> Result<()> {
    ensure!(uring::is_there()?, "this kernel has no io_uring, or it is switched off");
    both(case, "sys.uring", 0, uring::make)
}

const OTHER_ID: u32 = 2998;

fn changing_identity_is_refused(case: &Case<'_>) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(OTHER_ID), Gid::from_raw(OTHER_ID));
    both(case, "sys.setid", SETUID, || Ok(setresuid(uid, uid, uid)?))?;
    both(case, "sys.setid", SETUID, || Ok(nix::unistd::seteuid(uid)?))?;
    both(case, "sys.setid", SETGID, || Ok(setresgid(gid, gid, gid)?))?;
    both(case, "sys.setid", SETGID, || Ok(setgroups(&[gid])?))
}

fn an_identity_that_stays_the_same_is_no_change(case: &Case<'_>) -> Result<()> {
    case.allowed(NONE.with(SETUID | SETGID), || {
        let (uid, gid) = (Uid::from_raw(NONE.uid), Gid::from_raw(NONE.uid));
        setresuid(uid, uid, uid)?;
        Ok(setresgid(gid, gid, gid)?)
    })
}

fn lacking(capability: &'static str, bit: u64) -> Refusal {
    refusal(FEW.with(bit), "sys.cap").with(Errno::EPERM).at(capability)
}

fn a_capability_that_policy_does_not_permit_is_lacking(case: &Case<'_>) -> Result<()> {
    // A port of the first 1024: the kernel has a number of its own for who may not.
    let port = || TcpListener::bind(("127.0.0.1", 97)).map(drop);
    let refusal = lacking("net_bind_service", NET_BIND_SERVICE).with(Errno::EPERM).heard_as(Errno::EACCES);
    case.refused(refusal, port)?;
    case.allowed(NONE.with(NET_BIND_SERVICE), port)?;
    for adjust in [false, true] {
        let clock = || raw::set_clock(adjust);
        case.refused(lacking("sys_time", SYS_TIME), clock).with_context(|| format!("adjust: {adjust}"))?;
        case.allowed(NONE.with(SYS_TIME), clock)?;
    }
    // The one that is permitted.
    let file = path("open/chowned");
    layout::file(&file, b"")?;
    case.allowed(FEW.with(CHOWN), || std::os::unix::fs::chown(&file, Some(0), Some(0)))?;
    std::os::unix::fs::chown(&file, Some(FEW.uid), None).context("chown")
}

fn capabilities_of_an_own_user_namespace_are_governed_alike(case: &Case<'_>) -> Result<()> {
    let name = || {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWUTS)?;
        Ok(nix::unistd::sethostname("inside")?)
    };
    // What the new namespaces themselves take is asked first.
    case.refused(lacking("sys_admin", 0), name)?;
    case.allowed(ALL, name)
}

fn what_the_kernel_only_considers_is_not_reported(case: &Case<'_>) -> Result<()> {
    let mark = case.daemon().map(|daemon| daemon.events.mark()).transpose()?;
    // Every new mapping asks whether it may go beyond what memory there is.
    let who = FEW.with(SYS_ADMIN);
    case.allowed(who, || raw::map_page(None, libc::PROT_READ | libc::PROT_WRITE))?;
    let (Some(daemon), Some(mark)) = (case.daemon(), mark) else { return Ok(()) };
    case.refused(lacking("sys_time", SYS_TIME), || raw::set_clock(false))?;
    let about: Vec<String> = daemon
        .events
        .since(mark)?
        .iter()
        .filter(|event| event.subject() == FEW.name && event.is_about("sys.cap") && event.is_at("sys_admin"))
        .map(ToString::to_string)
        .collect();
    ensure!(about.is_empty(), "{about:?}");
    Ok(())
}

fn typing_for_whoever_else_uses_the_terminal_is_refused(case: &Case<'_>) -> Result<()> {
    let terminal = nix::pty::openpty(None, None).context("make a terminal")?;
    let on_it = |command: libc::c_ulong, argument: u64| {
        nix::unistd::setsid()?;
        raw::ioctl(terminal.slave.as_fd(), libc::TIOCSCTTY as u32, 0)?;
        raw::ioctl(terminal.slave.as_fd(), command as u32, argument)
    };
    let type_it = || on_it(libc::TIOCSTI, u64::from(b'x'));
    case.refused(refusal(FEW, "sys.cap").with(Errno::EPERM), type_it)?;
    case.allowed(ALL, type_it)?;
    // The terminal itself may be used: its size is set.
    case.allowed(FEW, || on_it(libc::TIOCSWINSZ, 80 << 16 | 25))
}
