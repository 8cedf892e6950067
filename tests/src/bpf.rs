//! What the tests need of bpf(2) beside the daemon: foreign LSM programs, and labels.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use guard_agent::kernel::has_ended;
use guard_common::label::NO_SUBJECT;
use guard_tests::system_bpf::{MAP_GET_FD_BY_ID, MAP_GET_NEXT_ID, bpf, descriptor, halves, info};
use nix::libc::{self, c_int};

use crate::raw;

// `enum bpf_cmd`, `enum bpf_map_type`, `enum bpf_prog_type`, `enum bpf_attach_type`
// (include/uapi/linux/bpf.h).
const MAP_CREATE: c_int = 0;
const PROG_LOAD: c_int = 5;
const LINK_CREATE: c_int = 28;
const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_LSM: u32 = 29;
const ATTACH_LSM_MAC: u32 = 27;

/// One instruction: operation, destination and source register, offset, immediate value
/// (`struct bpf_insn`).
#[derive(Clone, Copy)]
struct Instruction(u8, u8, u8, i16, i32);

impl Instruction {
    fn word(self) -> u64 {
        let Self(operation, destination, source, offset, immediate) = self;
        u64::from(operation)
            | u64::from(destination | source << 4) << 8
            | u64::from(offset as u16) << 16
            | u64::from(immediate as u32) << 32
    }
}

/// A program that allows everything.
fn allow() -> Vec<Instruction> {
    vec![Instruction(0xb7, 0, 0, 0, 0), Instruction(0x95, 0, 0, 0, 0)]
}

/// A program that denies with EACCES what tasks of this command name do, but the first `spared` times.
fn deny(name: [u8; 4], spared: i32, counter: BorrowedFd<'_>) -> Vec<Instruction> {
    const EACCES: i32 = 13;
    const GET_CURRENT_COMM: i32 = 16;
    const MAP_LOOKUP_ELEM: i32 = 1;
    vec![
        // bpf_get_current_comm(r10 - 16, 16)
        Instruction(0xbf, 1, 10, 0, 0),
        Instruction(0x07, 1, 0, 0, -16),
        Instruction(0xb7, 2, 0, 0, 16),
        Instruction(0x85, 0, 0, 0, GET_CURRENT_COMM),
        // if the first four bytes differ: allow
        Instruction(0x61, 1, 10, -16, 0),
        Instruction(0x56, 1, 0, 14, i32::from_le_bytes(name)),
        // bpf_map_lookup_elem(counter, &0)
        Instruction(0x62, 10, 0, -20, 0),
        Instruction(0x18, 1, 1, 0, counter.as_raw_fd()),
        Instruction(0, 0, 0, 0, 0),
        Instruction(0xbf, 2, 10, 0, 0),
        Instruction(0x07, 2, 0, 0, -20),
        Instruction(0x85, 0, 0, 0, MAP_LOOKUP_ELEM),
        Instruction(0x15, 0, 0, 7, 0),
        // count; if not more than spared: allow
        Instruction(0x79, 1, 0, 0, 0),
        Instruction(0xbf, 2, 1, 0, 0),
        Instruction(0x07, 2, 0, 0, 1),
        Instruction(0x7b, 0, 2, 0, 0),
        Instruction(0xa5, 1, 0, 2, spared),
        // return -EACCES
        Instruction(0xb7, 0, 0, 0, -EACCES),
        Instruction(0x95, 0, 0, 0, 0),
        // allow: return 0
        Instruction(0xb7, 0, 0, 0, 0),
        Instruction(0x95, 0, 0, 0, 0),
    ]
}

/// A BPF LSM program that is not Guard's, attached until dropped.
pub(crate) struct Foreign {
    _link: OwnedFd,
}

impl Foreign {
    /// One that changes nothing, unless the hook is full.
    pub(crate) fn harmless_if_there_is_room(hook: &str) -> Result<Option<Self>> {
        match attach(hook, &allow()) {
            Ok(foreign) => Ok(Some(foreign)),
            Err(error) => match error.downcast_ref::<io::Error>() {
                Some(cause) if cause.raw_os_error() == Some(libc::E2BIG) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// One that denies `hook` with EACCES to tasks whose command name begins with these bytes, but the
    /// first `spared` times.
    pub(crate) fn denying(hook: &str, name: [u8; 4], spared: i32) -> Result<Self> {
        // Type, key size, value size, entries, flags.
        let counter =
            descriptor(MAP_CREATE, &mut [MAP_TYPE_ARRAY, 4, 8, 1, 0]).context("make a counter map")?;
        attach(hook, &deny(name, spared, counter.as_fd()))
    }
}

fn load(hook_id: u32, program: &[Instruction]) -> io::Result<OwnedFd> {
    let words: Vec<u64> = program.iter().map(|instruction| instruction.word()).collect();
    let licence = c"GPL";
    // The fields of `union bpf_attr` for this command, as 32-bit words.
    let mut attribute = [0; 32];
    attribute[0] = PROG_TYPE_LSM;
    attribute[1] = words.len() as u32;
    attribute[2..4].copy_from_slice(&halves(words.as_ptr() as usize));
    attribute[4..6].copy_from_slice(&halves(licence.as_ptr() as usize));
    attribute[17] = ATTACH_LSM_MAC; // expected_attach_type
    attribute[27] = hook_id; // attach_btf_id
    descriptor(PROG_LOAD, &mut attribute)
}

fn attach(hook: &str, program: &[Instruction]) -> Result<Foreign> {
    let program = load(hook_id(hook)?, program).with_context(|| format!("load for {hook}"))?;
    // `prog_fd`, `target_fd`, `attach_type`, `flags`.
    let mut attribute = [program.as_raw_fd() as u32, 0, ATTACH_LSM_MAC, 0];
    let link = descriptor(LINK_CREATE, &mut attribute).with_context(|| format!("attach to {hook}"))?;
    Ok(Foreign { _link: link })
}

/// The words of a map that can be mapped, found by its name: the one that was made last, if programs beside
/// those of the daemon that was started last have such a map as well.
pub(crate) fn words(name: &str) -> Result<raw::MappedWord> {
    let (mut number, mut names, mut last) = (0, Vec::new(), None);
    while let Ok(next) = next_map(number) {
        number = next;
        let Ok(map) = descriptor(MAP_GET_FD_BY_ID, &mut [number, 0, 0]) else { continue };
        // The name begins at byte 24.
        let found = info(map.as_fd()).context("ask about a map")?;
        let found: Vec<u8> = found[6..10].iter().flat_map(|word| word.to_le_bytes()).collect();
        let found = String::from_utf8_lossy(&found).trim_end_matches('\0').to_owned();
        if found == name {
            last = Some(map);
        }
        names.push(found);
    }
    let last = last.with_context(|| format!("there is no BPF map {name}, only {}", names.join(" ")))?;
    raw::MappedWord::new(last.as_fd()).context("map a map")
}

/// A map that is there while this lives.
pub(crate) fn keep_map() -> io::Result<OwnedFd> {
    descriptor(MAP_CREATE, &mut [MAP_TYPE_ARRAY, 4, 8, 1, 0])
}

/// The number of the first map after that with another number.
pub(crate) fn next_map(number: u32) -> io::Result<u32> {
    // `start_id`, `next_id`, `open_flags`.
    let mut attribute = [number, 0, 0];
    bpf(MAP_GET_NEXT_ID, &mut attribute)?;
    Ok(attribute[1])
}

/// Opens the map with this number.
pub(crate) fn open_map(number: u32) -> io::Result<()> {
    descriptor(MAP_GET_FD_BY_ID, &mut [number, 0, 0]).map(drop)
}

/// The number that the kernel has for a hook.
pub(crate) fn hook_id(hook: &str) -> Result<u32> {
    function_id(&format!("bpf_lsm_{hook}"))
}

/// Loads a program for a hook, which would allow everything.
pub(crate) fn load_lsm(hook_id: u32) -> io::Result<()> {
    load(hook_id, &allow()).map(drop)
}

/// Makes a map.
pub(crate) fn make_map() -> io::Result<()> {
    keep_map().map(drop)
}

/// Loads a program that filters nothing.
pub(crate) fn load_filter() -> io::Result<()> {
    const PROG_TYPE_SOCKET_FILTER: u32 = 1;
    let words: Vec<u64> = allow().iter().map(|instruction| instruction.word()).collect();
    let licence = c"GPL";
    let mut attribute = [0; 32];
    attribute[0] = PROG_TYPE_SOCKET_FILTER;
    attribute[1] = words.len() as u32;
    attribute[2..4].copy_from_slice(&halves(words.as_ptr() as usize));
    attribute[4..6].copy_from_slice(&halves(licence.as_ptr() as usize));
    descriptor(PROG_LOAD, &mut attribute).map(drop)
}

/// The number of a function in the kernel's own type information (Documentation/bpf/btf.rst).
fn function_id(name: &str) -> Result<u32> {
    const FUNCTION: u32 = 12;
    let btf = fs::read("/sys/kernel/btf/vmlinux").context("read the kernel's BTF")?;
    let word = |at: usize| -> Result<u32> {
        let bytes = btf.get(at..at + 4).context("the BTF is cut off")?;
        Ok(u32::from_le_bytes(bytes.try_into()?))
    };
    ensure!(word(0)? & 0xffff == 0xeb9f, "this is no BTF");
    let header = word(4)? as usize;
    let types = header + word(8)? as usize;
    let (end, strings) = (types + word(12)? as usize, header + word(16)? as usize);
    let (mut at, mut id) = (types, 1);
    while at < end {
        let (start, info) = (strings + word(at)? as usize, word(at + 4)?);
        let (kind, members) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        let text = btf.get(start..).context("a name outside of the BTF")?;
        if kind == FUNCTION && text.starts_with(name.as_bytes()) && text.get(name.len()) == Some(&0) {
            return Ok(id);
        }
        // What follows the twelve bytes that all kinds have.
        at += 12
            + match kind {
                1 | 14 | 17 => 4,                // integer, variable, declaration tag
                3 => 12,                         // array
                4 | 5 | 15 | 19 => 12 * members, // structure, union, section, 64-bit enumeration
                6 | 13 => 8 * members,           // enumeration, prototype
                _ => 0,
            };
        id += 1;
    }
    anyhow::bail!("this kernel has no function {name}")
}

/// The labels of processes, in a map that is pinned.
pub(crate) struct Labels {
    map: OwnedFd,
    /// How long a label is.
    size: usize,
}

impl Labels {
    /// Opens them.
    pub(crate) fn pinned(path: &Path) -> Result<Self> {
        const OBJ_GET: c_int = 7;
        let name = CString::new(path.as_os_str().as_bytes()).context("a path")?;
        let [low, high] = halves(name.as_ptr() as usize);
        let map = descriptor(OBJ_GET, &mut [low, high, 0, 0])
            .with_context(|| format!("open {}", path.display()))?;
        // `value_size`.
        let size = info(map.as_fd()).context("ask about the labels")?[3] as usize;
        Ok(Self { map, size })
    }

    /// The commands of the processes that carry one, by number.
    pub(crate) fn all(&self) -> Result<BTreeMap<i32, String>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir("/proc").context("list the processes")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            if self.has(pid)? {
                let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                found.insert(pid, command.trim_end().to_owned());
            }
        }
        Ok(found)
    }

    /// Whether a process carries one; who has ended does not.
    fn has(&self, pid: i32) -> Result<bool> {
        const LOOKUP: c_int = 1;
        let Ok(process) = raw::pidfd(pid) else { return Ok(false) };
        let (key, mut label) = (process.as_raw_fd(), vec![0u32; self.size.div_ceil(4)]);
        let ([key_low, key_high], [low, high]) =
            (halves((&raw const key) as usize), halves(label.as_mut_ptr() as usize));
        // `map_fd`, `key`, `value`, `flags`.
        let mut attribute = [self.map.as_raw_fd() as u32, 0, key_low, key_high, low, high, 0, 0];
        match bpf(LOOKUP, &mut attribute) {
            // What comes first is the subject (`guard_common::label::Label`).
            Ok(_) => Ok(label[0] != NO_SUBJECT && !has_ended(process.as_fd())?),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ESRCH)) => {
                Ok(false)
            }
            Err(error) => Err(error).context("read a label"),
        }
    }
}
