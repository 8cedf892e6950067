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
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard-ebpf.o"));

/// How a program is attached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lsm,
    Tracepoint,
    Iterator,
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
    ("socket_connect", Kind::Lsm, "socket_connect"),
    ("unix_stream_connect", Kind::Lsm, "unix_stream_connect"),
    ("unix_may_send", Kind::Lsm, "unix_may_send"),
    ("label_running", Kind::Iterator, "task"),
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
        if OBJECT.is_empty() {
            return Err(KernelError::NoObject);
        }
        // Two readers of the kernel's types, each for what the other does not give.
        let (types, rename_lock, btf) = thread::scope(|scope| {
            let types = scope.spawn(btf::types);
            let rename_lock = scope.spawn(symbols::rename_lock);
            let btf = Btf::from_sys_fs().map_err(|cause| KernelError::NoBtf(cause.to_string()));
            let panicked = |_| Err(KernelError::NoBtf("reading it panicked".to_owned()));
            (types.join().unwrap_or_else(panicked), rename_lock.join().unwrap_or_default(), btf)
        });
        let (btf::Types { mut offsets, hooks }, btf) = (types?, btf?);
        let old = older_than_6_2()?;
        offsets.push(("STORAGE_MAY_BE_BUSY", u32::from(old)));
        offsets.push(("AGENT_TGID", std::process::id()));
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf)).allow_unsupported_maps();
        for (global, value) in &offsets {
            loader.override_global(global, value, true);
        }
        loader.override_global("RENAME_LOCK", &rename_lock, true);
        let mut ebpf = loader.load(OBJECT).map_err(|cause| KernelError::Object(describe(&cause)))?;
        let here: Vec<_> = PROGRAMS.iter().copied().filter(is_here).collect();
        load_programs(&mut ebpf, &here, &btf)?;
        let mut programs = Vec::with_capacity(here.len());
        for (name, kind, hook) in here {
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
        Ok(Self {
            ebpf,
            live,
            inner,
            generation: 0,
            outcomes: None,
            outcomes_before: None,
            selectors: Default::default(),
            programs,
            hooks: hooks.into_keys().collect(),
        })
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
        Kind::Lsm => <&mut Lsm>::try_from(program).and_then(|program| program.load(hook, btf)),
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
        Kind::Lsm => <&mut Lsm>::try_from(program).and_then(|program| program.attach().map(|_| ())),
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
