//! Loading and attaching the programs.

use super::{KernelError, btf, inner::InnerMaps, live::LiveWord, symbols};
use crate::fault;
use aya::programs::{BtfTracePoint, Iter, Lsm, Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use nix::libc;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// The BPF object, embedded by the build; empty if it was not built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard-ebpf.o"));

/// The BPF object. A debug build takes the one that `GUARD_BPF_OBJECT` names, so that whoever works on the
/// programs need not build the agent again.
pub(super) fn object() -> &'static [u8] {
    #[cfg(debug_assertions)]
    if let Some(path) = std::env::var_os("GUARD_BPF_OBJECT") {
        static OTHER: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        return OTHER.get_or_init(|| std::fs::read(path).unwrap_or_default());
    }
    OBJECT
}

/// How a program is attached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// To a hook that every supported kernel has.
    Lsm,
    /// To a hook that only some kernels have.
    LsmSince,
    /// To a hook that stands in on kernels without another one.
    LsmUnless(&'static str),
    /// To a hook whose prototype changed, where it has this many parameters.
    LsmWith(usize),
    Tracepoint,
    Iterator,
}

impl Kind {
    /// Whether a kernel with these hooks takes a program of this kind.
    fn fits(self, hook: &str, hooks: &HashMap<String, usize>) -> bool {
        match self {
            Self::LsmSince => hooks.contains_key(hook),
            Self::LsmUnless(other) => hooks.contains_key(hook) && !hooks.contains_key(other),
            Self::LsmWith(parameters) => hooks.get(hook) == Some(&parameters),
            Self::Lsm | Self::Tracepoint | Self::Iterator => true,
        }
    }
}

/// Every program with its hook, in the order of attachment: what spreads labels comes before what
/// decides, so that nothing escapes while the rest is attached, and what makes the others forget comes
/// before anything that remembers.
const PROGRAMS: &[(&str, Kind, &str)] = &[
    ("inode_free_security", Kind::Lsm, "inode_free_security"),
    ("sb_free_security", Kind::Lsm, "sb_free_security"),
    ("sb_alloc_security", Kind::Lsm, "sb_alloc_security"),
    ("task_alloc", Kind::Lsm, "task_alloc"),
    ("task_newtask", Kind::Tracepoint, "task_newtask"),
    ("bprm_committed_creds", Kind::Lsm, "bprm_committed_creds"),
    ("task_fix_setuid", Kind::Lsm, "task_fix_setuid"),
    ("cgroup_mkdir", Kind::Tracepoint, "cgroup_mkdir"),
    ("cgroup_rmdir", Kind::Tracepoint, "cgroup_rmdir"),
    ("cgroup_attach_task", Kind::Tracepoint, "cgroup_attach_task"),
    ("bprm_creds_for_exec", Kind::Lsm, "bprm_creds_for_exec"),
    ("bprm_check_security", Kind::Lsm, "bprm_check_security"),
    ("file_open", Kind::Lsm, "file_open"),
    ("mmap_file", Kind::Lsm, "mmap_file"),
    ("file_mprotect", Kind::Lsm, "file_mprotect"),
    ("path_mknod", Kind::Lsm, "path_mknod"),
    ("path_mkdir", Kind::Lsm, "path_mkdir"),
    ("path_symlink", Kind::Lsm, "path_symlink"),
    ("path_unlink", Kind::Lsm, "path_unlink"),
    ("path_rmdir", Kind::Lsm, "path_rmdir"),
    ("path_link", Kind::Lsm, "path_link"),
    ("path_rename", Kind::Lsm, "path_rename"),
    ("path_truncate", Kind::Lsm, "path_truncate"),
    ("file_truncate", Kind::LsmSince, "file_truncate"),
    ("inode_setattr", Kind::LsmWith(3), "inode_setattr"),
    ("inode_setattr_2", Kind::LsmWith(2), "inode_setattr"),
    ("inode_setxattr", Kind::Lsm, "inode_setxattr"),
    ("inode_removexattr", Kind::Lsm, "inode_removexattr"),
    ("inode_set_acl", Kind::LsmSince, "inode_set_acl"),
    ("inode_remove_acl", Kind::LsmSince, "inode_remove_acl"),
    ("inode_file_setattr", Kind::LsmSince, "inode_file_setattr"),
    ("file_ioctl", Kind::Lsm, "file_ioctl"),
    ("file_ioctl_compat", Kind::Lsm, "file_ioctl_compat"),
    ("socket_post_create", Kind::Lsm, "socket_post_create"),
    ("socket_create", Kind::Lsm, "socket_create"),
    ("socket_setsockopt", Kind::Lsm, "socket_setsockopt"),
    ("socket_connect", Kind::Lsm, "socket_connect"),
    ("socket_sendmsg", Kind::Lsm, "socket_sendmsg"),
    ("socket_bind", Kind::Lsm, "socket_bind"),
    ("socket_listen", Kind::Lsm, "socket_listen"),
    ("inet_conn_request", Kind::Lsm, "inet_conn_request"),
    ("sock_graft", Kind::Lsm, "sock_graft"),
    ("socket_accept", Kind::Lsm, "socket_accept"),
    ("socket_recvmsg", Kind::Lsm, "socket_recvmsg"),
    ("socket_sock_rcv_skb", Kind::Lsm, "socket_sock_rcv_skb"),
    ("sctp_bind_connect", Kind::Lsm, "sctp_bind_connect"),
    ("unix_stream_connect", Kind::Lsm, "unix_stream_connect"),
    ("unix_may_send", Kind::Lsm, "unix_may_send"),
    ("unix_bind_path", Kind::Lsm, "path_mknod"),
    ("unix_bind_abstract", Kind::Lsm, "socket_bind"),
    ("task_kill", Kind::Lsm, "task_kill"),
    ("file_set_fowner", Kind::Lsm, "file_set_fowner"),
    ("file_send_sigiotask", Kind::Lsm, "file_send_sigiotask"),
    ("task_setnice", Kind::Lsm, "task_setnice"),
    ("task_setioprio", Kind::Lsm, "task_setioprio"),
    ("task_setscheduler", Kind::Lsm, "task_setscheduler"),
    ("task_setrlimit", Kind::Lsm, "task_setrlimit"),
    ("task_movememory", Kind::Lsm, "task_movememory"),
    ("ptrace_access_check", Kind::Lsm, "ptrace_access_check"),
    ("ptrace_traceme", Kind::Lsm, "ptrace_traceme"),
    ("capable", Kind::Lsm, "capable"),
    ("sb_mount", Kind::Lsm, "sb_mount"),
    ("sb_kern_mount", Kind::Lsm, "sb_kern_mount"),
    ("sb_remount", Kind::Lsm, "sb_remount"),
    ("sb_umount", Kind::Lsm, "sb_umount"),
    ("sb_pivotroot", Kind::Lsm, "sb_pivotroot"),
    ("move_mount", Kind::Lsm, "move_mount"),
    ("userns_create", Kind::Lsm, "userns_create"),
    ("bpf", Kind::Lsm, "bpf"),
    ("perf_event_open", Kind::Lsm, "perf_event_open"),
    ("kernel_read_file", Kind::Lsm, "kernel_read_file"),
    ("kernel_load_data", Kind::Lsm, "kernel_load_data"),
    ("kernel_module_request", Kind::Lsm, "kernel_module_request"),
    ("uring_allowed", Kind::LsmSince, "uring_allowed"),
    ("inode_init_security_anon", Kind::LsmUnless("uring_allowed"), "inode_init_security_anon"),
    ("task_fix_setgid", Kind::Lsm, "task_fix_setgid"),
    ("task_fix_setgroups", Kind::Lsm, "task_fix_setgroups"),
    ("label_running", Kind::Iterator, "task"),
    ("label_requested", Kind::Iterator, "task"),
];

/// Whether no test wants the kernel to lack its hook.
fn is_here((_, _, hook): &(&str, Kind, &str)) -> bool {
    !crate::coverage::is_left_out(hook)
}

/// What is known of one loaded program.
#[derive(Clone, Debug)]
pub struct ProgramInfo {
    /// Its name in the object.
    pub name: String,
    /// The hook it is attached to.
    pub hook: String,
    /// Instructions that the verifier walked through when it was loaded (5.16 and later).
    pub instructions_verified: u32,
    /// Whether it is attached, or for the iterator over tasks, ready to run.
    pub attached: bool,
}

/// The loaded programs and their maps. Dropping it detaches every program: enforcement ends.
pub struct Kernel {
    pub(super) ebpf: Ebpf,
    pub(super) live: LiveWord,
    pub(super) inner: InnerMaps,
    /// Number of the live generation; 0 = none.
    pub(super) generation: u64,
    /// Its changing part.
    pub(super) outcomes: Option<super::outcomes::LiveOutcomes>,
    /// That of the generation before, until somebody asks for it.
    pub(super) outcomes_before: Option<super::outcomes::LiveOutcomes>,
    pub(super) selectors: super::selectors::Installed,
    programs: Vec<ProgramInfo>,
    /// Names of the hooks that this kernel lets programs be attached to.
    hooks: BTreeSet<String>,
}

impl Kernel {
    /// Loads the object, then attaches every program, one after the other: attaching LSM programs
    /// concurrently has crashed kernels. Nothing is labelled or denied until a generation is
    /// switched to.
    ///
    /// # Errors
    /// What is missing on this host, by name; nothing stays attached.
    pub fn load() -> Result<Self, KernelError> {
        if object().is_empty() {
            return Err(KernelError::NoObject);
        }
        // Two readers of the kernel's types, each for what the other does not give.
        let (types, locks, btf) = thread::scope(|scope| {
            let types = scope.spawn(btf::types);
            let locks = scope.spawn(symbols::locks);
            let btf = Btf::from_sys_fs().map_err(|cause| KernelError::NoBtf(cause.to_string()));
            let panicked = |_| Err(KernelError::NoBtf("reading it panicked".to_owned()));
            (types.join().unwrap_or_else(panicked), locks.join().unwrap_or_default(), btf)
        });
        let (btf::Types { mut offsets, hooks }, btf) = (types?, btf?);
        let fitting: Vec<_> = PROGRAMS
            .iter()
            .copied()
            .filter(|(_, kind, hook)| kind.fits(hook, &hooks))
            .filter(is_here)
            .collect();
        let old = older_than_6_2()?;
        offsets.push(("STORAGE_MAY_BE_BUSY", u32::from(old)));
        offsets.push(("AGENT_TGID", std::process::id()));
        offsets.push(("CAN_BE_MADE_TO_FAIL", u32::from(fault::leaves_out("inject"))));
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf)).allow_unsupported_maps();
        for (global, value) in &offsets {
            loader.override_global(global, value, true);
        }
        loader.override_global("RENAME_LOCK", &locks.rename, true);
        loader.override_global("MOUNT_LOCK", &locks.mount, true);
        let mut ebpf = loader.load(object()).map_err(|cause| KernelError::Object(describe(&cause)))?;
        load_programs(&mut ebpf, &fitting, &btf)?;
        let mut programs = Vec::with_capacity(fitting.len());
        for (name, kind, hook) in fitting {
            if fault::leaves_out(name) {
                continue;
            }
            attach_program(&mut ebpf, name, kind, hook)?;
            let info = ebpf.program(name).and_then(|program| program.info().ok());
            programs.push(ProgramInfo {
                name: name.to_owned(),
                hook: hook.to_owned(),
                instructions_verified: info.and_then(|info| info.verified_instruction_count()).unwrap_or(0),
                attached: true,
            });
        }
        let live = LiveWord::map(&ebpf)?;
        let inner = InnerMaps::new(&ebpf, old)?;
        let mut this = Self {
            ebpf,
            live,
            inner,
            generation: 0,
            outcomes: None,
            outcomes_before: None,
            selectors: Default::default(),
            programs,
            hooks: hooks.into_keys().collect(),
        };
        // No selector is installed, so nothing is labelled: the programs learn the agent's root.
        this.label_running(&[])?;
        Ok(this)
    }

    /// Whether this kernel lets programs be attached to an LSM hook.
    pub fn has_hook(&self, hook: &str) -> bool {
        self.hooks.contains(hook)
    }

    /// The programs and what the verifier said of them.
    pub fn programs(&self) -> Vec<ProgramInfo> {
        self.programs.clone()
    }
}

/// Loads every program, as many at a time as there are processors: nearly all of the time of a start
/// is the verifier's, and it works on programs independently of each other.
fn load_programs(
    ebpf: &mut Ebpf,
    programs: &[(&'static str, Kind, &'static str)],
    btf: &Btf,
) -> Result<(), KernelError> {
    let mut found: HashMap<&str, &mut Program> = ebpf.programs_mut().collect();
    let mut waiting = Vec::with_capacity(programs.len());
    for (name, kind, hook) in programs {
        let program = found
            .remove(name)
            .ok_or_else(|| KernelError::Object(format!("the object has no program {name}")))?;
        waiting.push((*name, *kind, *hook, program));
    }
    // The last ones of the list take longest.
    let waiting = Mutex::new(waiting);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        while let Some((name, kind, hook, program)) = next() {
            let started = Instant::now();
            load_program(program, name, kind, hook, btf)?;
            tracing::debug!(program = name, elapsed = ?started.elapsed(), "loaded");
        }
        Ok(())
    };
    let others = thread::available_parallelism().map_or(1, usize::from).min(programs.len()) - 1;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
        let own = work();
        let joined = threads.into_iter().map(|thread| {
            let panicked = |_| Err(KernelError::Object("loading a program panicked".to_owned()));
            thread.join().unwrap_or_else(panicked)
        });
        joined.fold(own, Result::and)
    })
}

fn load_program(
    program: &mut Program,
    name: &str,
    kind: Kind,
    hook: &str,
    btf: &Btf,
) -> Result<(), KernelError> {
    let result = match kind {
        Kind::Lsm | Kind::LsmSince | Kind::LsmUnless(_) | Kind::LsmWith(_) => {
            <&mut Lsm>::try_from(program).and_then(|program| program.load(hook, btf))
        }
        Kind::Tracepoint => {
            <&mut BtfTracePoint>::try_from(program).and_then(|program| program.load(hook, btf))
        }
        Kind::Iterator => <&mut Iter>::try_from(program).and_then(|program| program.load(hook, btf)),
    };
    result.map_err(|cause| refused(name, &cause))
}

fn refused(name: &str, cause: &ProgramError) -> KernelError {
    if let ProgramError::LoadError { io_error, verifier_log } = cause {
        if io_error.raw_os_error() == Some(libc::EPERM) {
            return KernelError::NotPermitted { program: name.to_owned() };
        }
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n");
        return KernelError::Refused { program: name.to_owned(), cause: format!("{io_error}\n{end}") };
    }
    KernelError::Refused { program: name.to_owned(), cause: describe(cause) }
}

fn attach_program(ebpf: &mut Ebpf, name: &str, kind: Kind, hook: &str) -> Result<(), KernelError> {
    let Some(program) = ebpf.program_mut(name) else { return Ok(()) };
    let result = match kind {
        Kind::Lsm | Kind::LsmSince | Kind::LsmUnless(_) | Kind::LsmWith(_) => {
            <&mut Lsm>::try_from(program).and_then(|program| program.attach().map(|_| ()))
        }
        Kind::Tracepoint => {
            <&mut BtfTracePoint>::try_from(program).and_then(|program| program.attach().map(|_| ()))
        }
        Kind::Iterator => Ok(()),
    };
    result.map_err(|cause| match &cause {
        ProgramError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
            KernelError::HookFull { hook: hook.to_owned() }
        }
        _ => KernelError::Attach { program: name.to_owned(), hook: hook.to_owned(), cause: describe(&cause) },
    })
}

/// Lines of a kernel log that are shown of its beginning and of its end.
const SHOWN_LINES: usize = 3;

/// An error with everything below it. Kernel logs in it can have thousands of lines; the first and
/// last ones say what is wrong.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= 2 * SHOWN_LINES {
        return text;
    }
    let (first, last) = (&lines[..SHOWN_LINES], &lines[lines.len() - SHOWN_LINES..]);
    format!("{}\n…\n{}", first.join("\n"), last.join("\n"))
}

/// Whether `bpf_task_storage_get` may fail for want of a per-CPU lock, which it takes for lookups
/// until 6.1 (kernel/bpf/bpf_task_storage.c).
fn older_than_6_2() -> Result<bool, KernelError> {
    let name = nix::sys::utsname::uname()
        .map_err(|errno| KernelError::System { call: "uname", source: errno.into() })?;
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Ok(version < (6, 2))
}
