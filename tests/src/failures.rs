//! What every hook answers when something fails inside of Guard: a labelled process is denied, an unlabelled
//! one does not notice.
//!
//! The daemon of this part loads its programs so that they look at a word of a map, in which the attempt
//! itself sets what is to fail, around the one system call that is tried (`guard_common::fault`).

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write, pipe};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use anyhow::{Context, Result, bail, ensure};
use guard_common::fault;
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::SockaddrLike as _;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, mkfifo, setgroups, setresgid, setresuid};

use crate::attempt::{self, Outcome, attempt};
use crate::bundle::{Bundle, permit};
use crate::case::Case;
use crate::daemon::{Daemon, FAULT, configure_apart, spawn};
use crate::events::Event;
use crate::family::{Part, tests};
use crate::identity::{fork, in_child};
use crate::layout::{self, path};
use crate::lifecycle::output;
use crate::listening::connect_from;
use crate::network::bytes;
use crate::process::Victim;
use crate::users::{
    AGENT, BPF, FREE, Identity, KILL, PERFMON, SETGID, SETUID, SYS_ADMIN, SYS_MODULE, SYS_PTRACE, SYS_TIME,
};
use crate::{bpf, raw, uring};

pub(crate) const PART: Part = Part {
    name: "failures",
    bundle: |bundle| Ok(bundle),
    prepare,
    tests: tests!(
        others: [
            whatever_fails_inside_denies_who_is_labelled_and_nobody_else,
            a_denial_without_room_for_its_event_is_a_denial_and_is_counted,
            a_process_whose_label_finds_no_memory_does_not_begin,
            a_process_whose_file_cannot_be_noted_ends,
            what_arrives_and_cannot_be_decided_is_refused_to_who_is_labelled_and_nobody_else,
        ],
    ),
};

const TCP: u16 = 7061;
const UDP: u16 = 7062;
/// Where a labelled process listens.
const LABELLED: u16 = 7063;
/// On ext4, which has attributes and flags.
const PLACE: &str = "/scratch/ext4/gt/failures";

fn place(name: &str) -> PathBuf {
    Path::new(PLACE).join(name)
}

fn prepare() -> Result<()> {
    layout::create()?;
    layout::directory(Path::new(PLACE))?;
    layout::directory(&path("open/mnt"))?;
    layout::program(&place("code"), &[0xc3; 4096])?;
    std::mem::forget(TcpListener::bind((Ipv4Addr::LOCALHOST, TCP)).context("listen")?);
    std::mem::forget(UdpSocket::bind((Ipv4Addr::LOCALHOST, UDP)).context("bind")?);
    for name in ["stream", "datagrams"] {
        let _ = fs::remove_file(place(name));
    }
    std::mem::forget(UnixListener::bind(place("stream")).context("listen on a unix socket")?);
    std::mem::forget(UnixDatagram::bind(place("datagrams")).context("bind a unix socket")?);
    for name in ["stream", "datagrams"] {
        layout::mode(&place(name), 0o666)?;
    }
    Ok(())
}

/// Permits everything but one file.
fn start() -> Result<Daemon> {
    let bundle = Bundle::new("failures")
        .toml("[builtin]\nlift = [\"kernel-code\"]\n")
        .subject("agent", "user = \"agent\"")
        .policy("all", permit("all", "agent", &["*"], "!(resource in Guard::Name::\"forbidden\")"));
    let directory = configure_apart("failures", &bundle)?;
    fs::write(directory.join(FAULT), "inject").context("ask for failures")?;
    let daemon = spawn(&directory)?.ready()?;
    Ok(daemon)
}

/// Makes one system call while something fails.
type During<'a> = &'a dyn Fn(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;

/// One thing to try: what it is called, the hooks that must deny it, the capabilities that it takes.
struct Operation {
    name: &'static str,
    hooks: &'static [&'static str],
    capabilities: u64,
    run: fn(&Victim, During<'_>) -> io::Result<()>,
}

const fn operation(
    name: &'static str,
    hooks: &'static [&'static str],
    capabilities: u64,
    run: fn(&Victim, During<'_>) -> io::Result<()>,
) -> Operation {
    Operation { name, hooks, capabilities, run }
}

/// A new file of whoever runs this.
fn own(name: &str) -> io::Result<PathBuf> {
    let file = place(&format!("{name}-{}", nix::unistd::getuid()));
    let _ = fs::remove_file(&file);
    let _ = fs::remove_dir(&file);
    File::create(&file)?;
    Ok(file)
}

/// The name of none.
fn none(name: &str) -> io::Result<PathBuf> {
    let file = own(name)?;
    fs::remove_file(&file)?;
    Ok(file)
}

fn own_mounts() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWNS)?)
}

fn tmpfs() -> io::Result<()> {
    Ok(mount(Some("tmpfs"), &path("open/mnt"), Some("tmpfs"), MsFlags::empty(), None::<&str>)?)
}

fn at(port: u16) -> Vec<u8> {
    bytes(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn socket(kind: i32) -> io::Result<std::os::fd::OwnedFd> {
    raw::socket(libc::AF_INET, kind, 0)
}

fn loads(result: io::Result<()>) -> io::Result<()> {
    // What is loaded is no module, which the kernel finds out after it has asked.
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => Ok(()),
        other => other,
    }
}

/// `FS_IOC_SETFLAGS` and `FS_NODUMP_FL` (include/uapi/linux/fs.h).
const SET_FLAGS: u32 = 0x4008_6602;
const NO_DUMP: u64 = 0x40;
/// `CAP_SYS_NICE`, `CAP_SYS_RESOURCE` (include/uapi/linux/capability.h).
const TUNE: u64 = 1 << 23 | 1 << 24;

const OPERATIONS: &[Operation] = &[
    operation("exec", &["bprm_creds_for_exec"], 0, |_, during| {
        in_child(fork, || during(&mut || Err(raw::execve(Path::new("/usr/bin/true"))))).or_else(|error| {
            // The child was replaced and said nothing.
            if error.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(error) }
        })
    }),
    operation("open", &["file_open"], 0, |_, during| {
        let file = own("open")?;
        during(&mut || File::open(&file).map(drop))
    }),
    operation("use", &["file_permission"], 0, |_, during| {
        let file = File::open(place("code"))?;
        during(&mut || std::os::unix::fs::FileExt::read_at(&file, &mut [0], 0).map(drop))
    }),
    operation("map", &["mmap_file"], 0, |_, during| {
        let code = File::open(place("code"))?;
        during(&mut || raw::map_page(Some(code.as_fd()), libc::PROT_READ | libc::PROT_EXEC))
    }),
    operation("protect", &["file_mprotect"], 0, |_, during| {
        let code = File::open(place("code"))?;
        during(&mut || raw::protect_page(Some(code.as_fd()), false, libc::PROT_READ | libc::PROT_EXEC))
    }),
    operation("create", &["path_mknod"], 0, |_, during| {
        let file = none("create")?;
        during(&mut || File::create_new(&file).map(drop))
    }),
    operation("make a pipe", &["path_mknod"], 0, |_, during| {
        let file = none("pipe")?;
        during(&mut || Ok(mkfifo(&file, Mode::S_IRWXU)?))
    }),
    operation("make a directory", &["path_mkdir"], 0, |_, during| {
        let file = none("mkdir")?;
        during(&mut || fs::create_dir(&file))
    }),
    operation("remove a directory", &["path_rmdir"], 0, |_, during| {
        let file = none("rmdir")?;
        fs::create_dir(&file)?;
        during(&mut || fs::remove_dir(&file))
    }),
    operation("remove", &["path_unlink"], 0, |_, during| {
        let file = own("remove")?;
        during(&mut || fs::remove_file(&file))
    }),
    operation("link", &["path_link"], 0, |_, during| {
        let (file, new) = (own("linked")?, none("link")?);
        during(&mut || fs::hard_link(&file, &new))
    }),
    operation("symlink", &["path_symlink"], 0, |_, during| {
        let file = none("symlink")?;
        during(&mut || symlink("/nowhere", &file))
    }),
    operation("rename", &["path_rename"], 0, |_, during| {
        let (file, new) = (own("old")?, none("new")?);
        during(&mut || fs::rename(&file, &new))
    }),
    operation("truncate", &["path_truncate"], 0, |_, during| {
        let file = own("truncate")?;
        during(&mut || Ok(nix::unistd::truncate(&file, 0)?))
    }),
    operation("truncate what is open", &["file_truncate"], 0, |_, during| {
        let file = OpenOptions::new().write(true).open(own("ftruncate")?)?;
        during(&mut || file.set_len(0))
    }),
    operation("change the mode", &["inode_setattr"], 0, |_, during| {
        let file = own("mode")?;
        during(&mut || fs::set_permissions(&file, Permissions::from_mode(0o600)))
    }),
    operation("set an attribute", &["inode_setxattr"], 0, |_, during| {
        let file = own("xattr")?;
        during(&mut || raw::set_attribute(&file, c"user.note", b"x"))
    }),
    operation("remove an attribute", &["inode_removexattr"], 0, |_, during| {
        let file = own("rmxattr")?;
        raw::set_attribute(&file, c"user.note", b"x")?;
        during(&mut || raw::remove_attribute(&file, c"user.note"))
    }),
    operation("set flags", &["file_ioctl"], 0, |_, during| {
        let file = File::open(own("flags")?)?;
        during(&mut || raw::ioctl(file.as_fd(), SET_FLAGS, NO_DUMP))
    }),
    operation("set flags as a 32-bit program", &["file_ioctl_compat"], 0, |_, during| {
        // `FS_IOC32_SETFLAGS`.
        let file = File::open(own("flags32")?)?;
        during(&mut || raw::ioctl_of_32_bits(file.as_fd(), 0x4004_6602, NO_DUMP))
    }),
    operation("make a raw socket", &["socket_create"], 1 << 13, |_, during| {
        during(&mut || raw::socket(libc::AF_INET, libc::SOCK_RAW, 1).map(drop))
    }),
    operation("connect", &["socket_connect"], 0, |_, during| {
        let socket = socket(libc::SOCK_STREAM)?;
        during(&mut || raw::connect(socket.as_fd(), &at(TCP)))
    }),
    operation("send", &["socket_sendmsg"], 0, |_, during| {
        let socket = socket(libc::SOCK_DGRAM)?;
        during(&mut || raw::send_to(socket.as_fd(), b"x", 0, &at(UDP)))
    }),
    operation("bind", &["socket_bind"], 0, |_, during| {
        let socket = socket(libc::SOCK_STREAM)?;
        during(&mut || raw::bind(socket.as_fd(), &at(0)))
    }),
    operation("listen", &["socket_listen"], 0, |_, during| {
        let socket = socket(libc::SOCK_STREAM)?;
        raw::bind(socket.as_fd(), &at(0))?;
        during(&mut || raw::listen(socket.as_fd()))
    }),
    operation("lead packets elsewhere", &["socket_setsockopt"], 1 << 13, |_, during| {
        let socket = socket(libc::SOCK_DGRAM)?;
        let route = [0x83, 7, 4, 127, 20, 0, 1, 0];
        during(&mut || raw::set_option(socket.as_fd(), 0, 4, &route))
    }),
    operation("connect to a unix socket", &["unix_stream_connect"], 0, |_, during| {
        during(&mut || UnixStream::connect(place("stream")).map(drop))
    }),
    operation("send to a unix socket", &["unix_may_send"], 0, |_, during| {
        let socket = UnixDatagram::unbound()?;
        during(&mut || socket.send_to(b"x", place("datagrams")).map(drop))
    }),
    operation("bind a unix socket", &["socket_bind"], 0, |_, during| {
        let file = none("socket")?;
        let socket = raw::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
        let address = nix::sys::socket::UnixAddr::new(&file)?;
        during(&mut || Ok(nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address)?))?;
        debug_assert!(address.len() > 2, "an address has a family and a name");
        Ok(())
    }),
    operation("signal", &["task_kill"], KILL, |victim, during| {
        during(&mut || raw::kill(victim.pid(), libc::SIGCONT))
    }),
    operation("set a nice value", &["task_setnice"], TUNE, |victim, during| {
        during(&mut || raw::tune(victim.pid(), raw::Tuning::Nice))
    }),
    operation("choose processors", &["task_setscheduler"], TUNE, |victim, during| {
        during(&mut || raw::tune(victim.pid(), raw::Tuning::Affinity))
    }),
    operation("set a priority of input and output", &["task_setioprio"], TUNE, |victim, during| {
        during(&mut || raw::tune(victim.pid(), raw::Tuning::InputOutput))
    }),
    operation("set a limit", &["task_setrlimit"], TUNE, |victim, during| {
        during(&mut || raw::tune(victim.pid(), raw::Tuning::Limit))
    }),
    operation("trace", &["ptrace_access_check"], SYS_PTRACE, |victim, during| {
        during(&mut || raw::trace(victim.pid(), false))
    }),
    operation("mount", &["sb_mount"], SYS_ADMIN, |_, during| {
        own_mounts()?;
        during(&mut tmpfs)
    }),
    operation("unmount", &["sb_umount"], SYS_ADMIN, |_, during| {
        own_mounts()?;
        tmpfs()?;
        during(&mut || Ok(umount2(&path("open/mnt"), MntFlags::MNT_DETACH)?))
    }),
    operation("mount by the new calls", &["sb_kern_mount"], SYS_ADMIN, |_, during| {
        let context = raw::new_tmpfs()?;
        during(&mut || raw::fsmount(&context).map(drop))
    }),
    operation("attach a mount", &["move_mount"], SYS_ADMIN, |_, during| {
        own_mounts()?;
        let detached = raw::fsmount(&raw::new_tmpfs()?)?;
        during(&mut || raw::move_mount(detached.as_fd(), &path("open/mnt")))
    }),
    operation("make a user namespace", &["userns_create"], 0, |_, during| {
        during(&mut || Ok(unshare(CloneFlags::CLONE_NEWUSER)?))
    }),
    operation("make a BPF map", &["bpf"], BPF, |_, during| during(&mut bpf::make_map)),
    operation("watch the machine", &["perf_event_open"], PERFMON | SYS_ADMIN, |_, during| {
        during(&mut raw::perf_event)
    }),
    operation("load a module", &["kernel_load_data"], SYS_MODULE, |_, during| {
        during(&mut || loads(raw::load_module(None)))
    }),
    operation("load a module from a file", &["kernel_read_file"], SYS_MODULE, |_, during| {
        let file = File::open(place("code"))?;
        during(&mut || loads(raw::load_module(Some(file.as_fd()))))
    }),
    operation("make a ring", &["uring_allowed", "inode_init_security_anon"], 0, |_, during| {
        during(&mut uring::make)
    }),
    operation("become another user", &["task_fix_setuid"], SETUID, |_, during| {
        let other = Uid::from_raw(2998);
        during(&mut || Ok(setresuid(other, other, other)?))
    }),
    operation("become another group", &["task_fix_setgid"], SETGID, |_, during| {
        let other = Gid::from_raw(2998);
        during(&mut || Ok(setresgid(other, other, other)?))
    }),
    operation("become more groups", &["task_fix_setgroups"], SETGID, |_, during| {
        during(&mut || Ok(setgroups(&[Gid::from_raw(2998)])?))
    }),
    operation("use a capability", &["capable"], SYS_TIME, |_, during| during(&mut || raw::set_clock(false))),
];

/// Hooks that no operation above is refused by, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "bprm_check_security",
        "asked after bprm_creds_for_exec, which has refused; decides each interpreter alike",
    ),
    ("bprm_committed_creds", "attaches a label when the exec can no longer fail"),
    (
        "inet_conn_request",
        "runs in no process of its own; decides for the socket, whose label is in its storage",
    ),
    ("socket_sock_rcv_skb", "the same"),
    ("socket_accept", "decides unix sockets and what waited at an inherited socket"),
    ("socket_recvmsg", "decides what waited at an inherited socket"),
    ("socket_post_create", "notes whose a socket is"),
    ("sock_graft", "notes whose a socket is"),
    ("file_set_fowner", "a_process_whose_file_cannot_be_noted_ends"),
    (
        "file_send_sigiotask",
        "runs in no process of its own; decides for who named the owner, whose label is kept with the file",
    ),
    ("inode_free_security", "counts"),
    ("sb_alloc_security", "notes whose a file system is"),
    ("sb_free_security", "forgets whose a file system was"),
    ("sb_pivotroot", "one line, the same as sb_umount"),
    ("sb_remount", "one line, the same as sb_umount"),
    ("task_alloc", "a_process_whose_label_finds_no_memory_does_not_begin"),
    ("task_movememory", "one line, the same as task_setnice; takes two nodes of memory"),
    ("ptrace_traceme", "decides by the label of the parent"),
    ("kernel_module_request", "a refusal is no error to who asked"),
    ("sctp_bind_connect", "takes a module that not every kernel has; makes the same call as socket_connect"),
    ("inode_set_acl", "one line, the same as inode_removexattr"),
    ("inode_remove_acl", "one line, the same as inode_removexattr"),
    ("inode_file_setattr", "one line, the same as inode_removexattr"),
];

fn try_all(
    faults: &AtomicU64,
    fault: u64,
    who: Identity,
    victim: &Victim,
) -> Result<Vec<(&'static str, Outcome)>> {
    let mut outcomes = Vec::new();
    for operation in OPERATIONS {
        let during = |call: &mut dyn FnMut() -> io::Result<()>| {
            faults.store(fault, SeqCst);
            let result = call();
            faults.store(0, SeqCst);
            result
        };
        let outcome = attempt(who.with(operation.capabilities), || (operation.run)(victim, &during));
        faults.store(0, SeqCst);
        outcomes.push((operation.name, outcome.with_context(|| operation.name)?));
    }
    Ok(outcomes)
}

fn whatever_fails_inside_denies_who_is_labelled_and_nobody_else(case: &Case<'_>) -> Result<()> {
    let daemon = start()?;
    let faults = bpf::words("FAULTS")?;
    let faults = faults.word();
    let victim = Victim::of(FREE)?;
    for (name, outcome) in try_all(faults, 0, AGENT, &victim)? {
        ensure!(outcome == Outcome::Worked, "{name} should work where nothing fails: {outcome:?}");
    }
    for (what, fault) in [("no storage", fault::STORAGE), ("no tables", fault::TABLES)] {
        let mark = daemon.events.mark()?;
        for (name, outcome) in try_all(faults, fault, AGENT, &victim)? {
            ensure!(
                matches!(outcome, Outcome::Failed(_)),
                "{name} with {what} should be denied: {outcome:?}"
            );
        }
        let denied = |event: &Event| event.is_denial() && event.subject() == AGENT.name;
        if fault == fault::TABLES {
            daemon.events.wait(
                mark,
                std::time::Duration::from_secs(60),
                "a denial without tables",
                denied,
            )?;
        }
        for (name, outcome) in try_all(faults, fault, FREE, &victim)? {
            ensure!(outcome == Outcome::Worked, "{name} without a label, with {what}: {outcome:?}");
        }
        case.tried(2 * OPERATIONS.len() as u64);
    }
    // Walks that reach their bound: what has a path.
    for (name, outcome) in try_all(faults, fault::WALK, AGENT, &victim)? {
        if ["open", "exec", "create", "rename", "link", "remove", "connect to a unix socket"].contains(&name)
        {
            ensure!(matches!(outcome, Outcome::Failed(_)), "{name} too deep should be denied: {outcome:?}");
        }
    }
    for (name, outcome) in try_all(faults, fault::WALK, FREE, &victim)? {
        ensure!(outcome == Outcome::Worked, "{name} without a label, too deep: {outcome:?}");
    }
    every_hook_is_accounted_for(&daemon)?;
    daemon.stop().map(drop)
}

/// Whatever hook is attached is one of an operation, or it is said why not.
fn every_hook_is_accounted_for(daemon: &Daemon) -> Result<()> {
    let result = output(&mut daemon.control(&["coverage", "--json"]))?;
    let report: serde_json::Value =
        serde_json::from_slice(&result.stdout).context("the coverage is no JSON")?;
    let known: BTreeSet<&str> = OPERATIONS
        .iter()
        .flat_map(|operation| operation.hooks)
        .copied()
        .chain(ELSEWHERE.iter().map(|(hook, _)| *hook))
        .collect();
    for action in report["actions"].as_array().context("there are actions")? {
        for hook in action["hooks"].as_array().context("there are hooks")? {
            let hook = hook.as_str().unwrap_or_default();
            ensure!(known.contains(hook), "nothing tries what {hook} answers when something fails");
        }
    }
    Ok(())
}

fn a_denial_without_room_for_its_event_is_a_denial_and_is_counted(_: &Case<'_>) -> Result<()> {
    let daemon = start()?;
    let faults = bpf::words("FAULTS")?;
    let faults = faults.word();
    let file = path("open/forbidden");
    layout::file(&file, b"x")?;
    let lost = |daemon: &Daemon| -> Result<u64> {
        let status = daemon.status()?;
        status["counters"]["events_lost"]
            .as_u64()
            .with_context(|| format!("no count of what was lost: {status}"))
    };
    let before = lost(&daemon)?;
    let open = || {
        faults.store(fault::RING, SeqCst);
        let result = File::open(&file).map(drop);
        faults.store(0, SeqCst);
        result
    };
    let outcome = attempt(AGENT, open)?;
    ensure!(outcome == Outcome::Failed(nix::errno::Errno::EACCES), "a full ring: {outcome:?}");
    ensure!(attempt(FREE, open)? == Outcome::Worked, "a full ring is nothing to who has no label");
    let after = lost(&daemon)?;
    ensure!(after == before + 1, "{before} events were lost before, {after} after one more");
    daemon.stop().map(drop)
}

fn what_arrives_and_cannot_be_decided_is_refused_to_who_is_labelled_and_nobody_else(
    _: &Case<'_>,
) -> Result<()> {
    let daemon = start()?;
    let ((mut ready, is_ready), (wait, end)) = (pipe().context("a pipe")?, pipe().context("a pipe")?);
    let listener = attempt::start(AGENT, || {
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, LABELLED))?;
        (&is_ready).write_all(b"r")?;
        let _ = (&wait).read(&mut [0]);
        Ok(())
    })?;
    drop(is_ready);
    ready.read_exact(&mut [0]).context("wait for the listener")?;
    let faults = bpf::words("FAULTS")?;
    let faults = faults.word();
    let at = |port| (Ipv4Addr::LOCALHOST, port).into();
    let connect = |port| connect_from(at(0), at(port)).map(drop);
    faults.store(fault::SHARED, SeqCst);
    let (labelled, other) = (connect(LABELLED), connect(TCP));
    faults.store(0, SeqCst);
    let refused = labelled.err().and_then(|error| error.raw_os_error());
    ensure!(refused == Some(Errno::EINPROGRESS as i32), "the request was not dropped: {refused:?}");
    other.context("to a socket of nobody")?;
    connect(LABELLED).context("when it can be decided again")?;
    (&end).write_all(b"x").context("end the listener")?;
    let ended = listener.outcome()?;
    ensure!(ended == Outcome::Worked, "the listener: {ended:?}");
    daemon.stop().map(drop)
}

/// The hook cannot refuse, so the process does not go on.
fn a_process_whose_file_cannot_be_noted_ends(_: &Case<'_>) -> Result<()> {
    let daemon = start()?;
    let faults = bpf::words("FAULTS")?;
    let faults = faults.word();
    let name = || {
        faults.store(fault::NO_MEMORY, SeqCst);
        let named =
            raw::signal_by_file(raw::Naming::Process, nix::unistd::getpid().as_raw(), nix::libc::SIGCONT);
        faults.store(0, SeqCst);
        named
    };
    let outcome = attempt(AGENT, name)?;
    faults.store(0, SeqCst);
    ensure!(matches!(&outcome, Outcome::Broke(how) if how.contains("SIGKILL")), "it went on: {outcome:?}");
    ensure!(attempt(FREE, name)? == Outcome::Worked, "a process without a label names who it likes");
    daemon.stop().map(drop)
}

fn a_process_whose_label_finds_no_memory_does_not_begin(_: &Case<'_>) -> Result<()> {
    let daemon = start()?;
    let faults = bpf::words("FAULTS")?;
    let faults = faults.word();
    let begin = || {
        faults.store(fault::NO_MEMORY, SeqCst);
        let forked = fork();
        faults.store(0, SeqCst);
        match forked? {
            nix::unistd::ForkResult::Child => raw::exit_now(0),
            nix::unistd::ForkResult::Parent { child } => {
                nix::sys::wait::waitpid(child, None)?;
                Ok(())
            }
        }
    };
    match attempt(AGENT, begin)? {
        Outcome::Failed(_) => {}
        other => bail!("a child without a label began: {other:?}"),
    }
    ensure!(attempt(FREE, begin)? == Outcome::Worked, "a process without a label starts another");
    daemon.stop().map(drop)
}
