//! Loading and attaching the programs.

use super::maps::Maps;
use super::pins::{Armed, MAPS, Pins};
use super::programs::{Kind, PROGRAMS, is_here};
use super::running::Iterators;
use super::{KernelError, btf, inner::InnerMaps, live, live::LiveWord, symbols, takeover};
use crate::fault;
use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, Iter, Lsm, Program, ProgramError, loaded_programs};
use aya::{Btf, Ebpf, EbpfLoader};
use nix::libc;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// The BPF object, embedded by the build; empty if it was not built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard-ebpf.o"));

/// The BPF object. A debug build takes the one that `GUARD_BPF_OBJECT` names, so that whoever works on the
/// programs need not build the agent again.
pub(super) fn object() -> &'static [u8] {
    #[cfg(debug_assertions)]
    {
        // To tests, an object with a byte more is that of another version.
        static NEXT: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let next = NEXT.get_or_init(|| {
            if fault::leaves_out("same object") { [OBJECT, &[0]].concat() } else { Vec::new() }
        });
        if !next.is_empty() {
            return next;
        }
    }
    #[cfg(debug_assertions)]
    if let Some(path) = std::env::var_os("GUARD_BPF_OBJECT") {
        static OTHER: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        return OTHER.get_or_init(|| std::fs::read(path).unwrap_or_default());
    }
    OBJECT
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

/// What becomes of the programs when the agent ends.
#[derive(Debug)]
pub(super) enum Fate {
    /// They end with it.
    End,
    /// They are to be pinned once enforcement is proven; until then they end with it.
    ToBePinned(Pins),
    /// They stay.
    Stay(Pins),
}

/// The loaded programs and their maps. Unless they are pinned, dropping it detaches every program: enforcement
/// ends.
pub struct Kernel {
    pub(super) maps: Maps,
    pub(super) live: LiveWord,
    pub(super) inner: InnerMaps,
    /// Number of the live generation, or of the last one of the programs before these; 0 = none.
    pub(super) generation: u64,
    /// Its changing part, once this agent has made one.
    pub(super) outcomes: Option<super::outcomes::LiveOutcomes>,
    /// That of the generation before, until somebody asks for it.
    pub(super) outcomes_before: Option<super::outcomes::LiveOutcomes>,
    pub(super) selectors: super::selectors::Installed,
    /// What keeps the programs attached, in the order of attachment.
    pub(super) links: Vec<(&'static str, FdLink)>,
    pub(super) iterators: Iterators,
    programs: Vec<ProgramInfo>,
    /// Number of a program that writes to the programs' log.
    pub(super) logging: u32,
    pub(super) fate: Fate,
    /// Labels of other programs are still to be taken over.
    pub(super) inherits: bool,
}

/// A map that only programs beside others use: the labels of those.
pub(super) const LABELS_BEFORE: &str = "LABELS_BEFORE";

impl Kernel {
    /// Takes over the programs that are pinned, if they are those of this agent. Otherwise loads its own and
    /// attaches every one, one after the other: attaching LSM programs concurrently has crashed kernels.
    /// Nothing is labelled or denied by these until a generation is switched to; programs of another agent go
    /// on until [`Kernel::keep`].
    ///
    /// # Errors
    /// What is missing on this host, by name; nothing stays attached that was not before.
    pub fn load(pins: Option<Pins>) -> Result<Self, KernelError> {
        if object().is_empty() {
            return Err(KernelError::NoObject);
        }
        let Some(pins) = pins else { return Self::attach(None, Fate::End) };
        match pins.armed()? {
            Some(armed) if armed.is_whole && armed.object == digest() => takeover::adopt(&armed, pins),
            before => Self::attach(before.as_ref(), Fate::ToBePinned(pins)),
        }
    }

    /// Loads and attaches, beside what is pinned.
    fn attach(before: Option<&Armed>, fate: Fate) -> Result<Self, KernelError> {
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
        offsets.push(("STORAGE_MAY_BE_BUSY", u32::from(older_than_6_2()?)));
        offsets.push(("CAN_BE_MADE_TO_FAIL", u32::from(fault::leaves_out("inject"))));
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf)).allow_unsupported_maps();
        for (global, value) in &offsets {
            loader.override_global(global, value, true);
        }
        loader.override_global("RENAME_LOCK", &locks.rename, true);
        loader.override_global("MOUNT_LOCK", &locks.mount, true);
        let generation = match before {
            None => 0,
            Some(before) => {
                let maps = before.path.join(MAPS);
                for name in takeover::kept(before)? {
                    loader.map_pin_path(name, maps.join(name));
                }
                loader.map_pin_path(LABELS_BEFORE, maps.join("LABELS"));
                live::pinned(&maps.join("LIVE"))?
            }
        };
        let mut ebpf = loader.load(object()).map_err(|cause| KernelError::Object(describe(&cause)))?;
        load_programs(&mut ebpf, &fitting, &btf)?;
        let mut links = Vec::with_capacity(fitting.len());
        for (name, kind, hook) in fitting {
            if fault::leaves_out(name) {
                continue;
            }
            fault::at(&format!("attach {name}")).map_err(KernelError::system("attach"))?;
            if let Some(link) = attach_program(&mut ebpf, name, kind, hook)? {
                links.push((name, link));
            }
        }
        let maps = Maps::of(&mut ebpf);
        let mut this = Self::new(maps, links, Iterators::Loaded(ebpf), fate)?;
        this.generation = generation;
        this.inherits = before.is_some();
        // No selector is installed, so nothing is labelled: the programs learn the agent, and its root.
        this.label_running(&[])?;
        Ok(this)
    }

    /// What is attached by `links`.
    pub(super) fn new(
        maps: Maps,
        links: Vec<(&'static str, FdLink)>,
        iterators: Iterators,
        fate: Fate,
    ) -> Result<Self, KernelError> {
        let attached = Attached::of(&links)?;
        Ok(Self {
            live: LiveWord::map(&maps)?,
            inner: InnerMaps::new(attached.types, older_than_6_2()?)?,
            maps,
            generation: 0,
            outcomes: None,
            outcomes_before: None,
            selectors: Default::default(),
            links,
            iterators,
            programs: attached.programs,
            logging: attached.logging,
            fate,
            inherits: false,
        })
    }

    /// The programs and what the verifier said of them.
    pub fn programs(&self) -> Vec<ProgramInfo> {
        self.programs.clone()
    }

    /// Where the programs are pinned, if they stay when the agent ends.
    pub fn pinned(&self) -> Option<&Path> {
        match &self.fate {
            Fate::Stay(pins) => Some(pins.directory()),
            _ => None,
        }
    }
}

/// Digest of the object, hexadecimal.
pub(super) fn digest() -> String {
    Sha256::digest(object()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A program that writes to the programs' log.
const LOGGING: &str = "task_alloc";

/// What the kernel says of attached programs.
struct Attached {
    programs: Vec<ProgramInfo>,
    /// Number of the program [`LOGGING`].
    logging: u32,
    /// Number of the programs' type information.
    types: Option<u32>,
}

impl Attached {
    fn of(links: &[(&'static str, FdLink)]) -> Result<Self, KernelError> {
        let loaded: HashMap<u32, _> =
            loaded_programs().filter_map(Result::ok).map(|info| (info.id(), info)).collect();
        let mut this = Self { programs: Vec::with_capacity(links.len()), logging: 0, types: None };
        for (name, link) in links {
            let failed = |cause| KernelError::Object(format!("cannot ask for the link of {name}: {cause}"));
            let id = link.info().map_err(failed)?.program_id();
            let info = loaded.get(&id);
            if *name == LOGGING {
                this.logging = id;
            }
            this.types = this.types.or_else(|| info?.btf_id());
            let hook = PROGRAMS.iter().find(|(known, ..)| known == name).map_or("", |(_, _, hook)| hook);
            this.programs.push(ProgramInfo {
                name: (*name).to_owned(),
                hook: hook.to_owned(),
                instructions_verified: info.and_then(|info| info.verified_instruction_count()).unwrap_or(0),
                attached: true,
            });
        }
        Ok(this)
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

/// Attaches a program. An iterator is attached whenever it is run.
fn attach_program(
    ebpf: &mut Ebpf,
    name: &str,
    kind: Kind,
    hook: &str,
) -> Result<Option<FdLink>, KernelError> {
    let Some(program) = ebpf.program_mut(name) else { return Ok(None) };
    let result = match kind {
        Kind::Lsm | Kind::LsmSince | Kind::LsmUnless(_) | Kind::LsmWith(_) => <&mut Lsm>::try_from(program)
            .and_then(|program| {
                let id = program.attach()?;
                Ok(Some(program.take_link(id)?.into()))
            }),
        Kind::Tracepoint => <&mut BtfTracePoint>::try_from(program).and_then(|program| {
            let id = program.attach()?;
            Ok(Some(program.take_link(id)?.into()))
        }),
        Kind::Iterator => Ok(None),
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
