//! The BPF programs that are loaded, what the kernel counts of them, and empty ones in their place.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use guard_tests::system_bpf::{bpf, descriptor, halves, info};
use nix::libc::{self, c_int};

// `enum bpf_cmd`, `enum bpf_prog_type`, `enum bpf_attach_type` (include/uapi/linux/bpf.h).
const PROG_LOAD: c_int = 5;
const PROG_GET_NEXT_ID: c_int = 11;
const PROG_GET_FD_BY_ID: c_int = 13;
const RAW_TRACEPOINT_OPEN: c_int = 17;
const LINK_CREATE: c_int = 28;
const ENABLE_STATS: c_int = 32;
const PROG_TYPE_TRACING: u32 = 26;
const PROG_TYPE_LSM: u32 = 29;
const ATTACH_RAW_TRACEPOINT: u32 = 23;
const ATTACH_LSM_MAC: u32 = 27;
const SLEEPABLE: u32 = 1 << 4;

/// The programs that run over tasks when the agent asks them to, not at a hook. Names are as the kernel
/// keeps them: fifteen bytes.
const ITERATORS: [&str; 3] = ["label_running", "label_requested", "inherit_labels"];
/// The programs that may sleep, which the kernel enters in another way.
const SLEEPERS: [&str; 2] = ["task_alloc", "bprm_committed_creds"];
const NAME: usize = 15;

fn is_one_of(name: &str, full: &[&str]) -> bool {
    full.iter().any(|full| &full[..full.len().min(NAME)] == name)
}

/// What the kernel says of a program.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) name: String,
    kind: u32,
    name_words: [u32; 4],
    attached_to: u32,
    pub(crate) verified: u32,
    pub(crate) bytes: u32,
    pub(crate) runs: u64,
    pub(crate) nanoseconds: u64,
}

/// All programs for hooks and tracepoints, by number.
pub(crate) fn loaded() -> Result<BTreeMap<u32, Loaded>> {
    let (mut found, mut id) = (BTreeMap::new(), 0);
    loop {
        // `start_id`, `next_id`, `open_flags`.
        let mut attribute = [id, 0, 0];
        match bpf(PROG_GET_NEXT_ID, &mut attribute) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
            other => other.context("list the BPF programs")?,
        };
        id = attribute[1];
        let Ok(program) = descriptor(PROG_GET_FD_BY_ID, &mut [id, 0, 0]) else { continue };
        // `struct bpf_prog_info`, as words.
        let words = info(program.as_fd()).context("ask about a BPF program")?;
        let double = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
        let name: Vec<u8> = words[16..20].iter().flat_map(|word| word.to_le_bytes()).collect();
        let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
        if !matches!(words[0], PROG_TYPE_LSM | PROG_TYPE_TRACING) || is_one_of(&name, &ITERATORS) {
            continue;
        }
        let loaded = Loaded {
            name,
            kind: words[0],
            name_words: [words[16], words[17], words[18], words[19]],
            attached_to: words[56],
            verified: words[54],
            bytes: words[4],
            runs: double(50),
            nanoseconds: double(48),
        };
        found.insert(id, loaded);
    }
}

/// Makes the kernel count calls, and the time in them, while the result lives.
pub(crate) fn count() -> Result<OwnedFd> {
    // `type`: BPF_STATS_RUN_TIME.
    descriptor(ENABLE_STATS, &mut [0]).context("count the calls of BPF programs")
}

/// Programs that do nothing, attached to what others are attached to, until dropped.
pub(crate) struct Empty {
    _links: Vec<OwnedFd>,
}

impl Empty {
    /// Attaches one in the place of each of these.
    pub(crate) fn attach(of: &[Loaded]) -> Result<Self> {
        let links = of.iter().map(|other| attach(other).with_context(|| format!("attach to {}", other.name)));
        Ok(Self { _links: links.collect::<Result<_>>()? })
    }
}

fn attach(other: &Loaded) -> io::Result<OwnedFd> {
    // r0 = 0; exit
    let instructions = [0xb7u64, 0x95];
    let licence = c"GPL";
    let is_tracepoint = other.kind == PROG_TYPE_TRACING;
    // The fields of `union bpf_attr` for this command, as words.
    let mut attribute = [0; 32];
    attribute[0] = other.kind;
    attribute[1] = instructions.len() as u32;
    attribute[2..4].copy_from_slice(&halves(instructions.as_ptr() as usize));
    attribute[4..6].copy_from_slice(&halves(licence.as_ptr() as usize));
    attribute[11] = if is_one_of(&other.name, &SLEEPERS) { SLEEPABLE } else { 0 }; // prog_flags
    attribute[12..16].copy_from_slice(&other.name_words); // prog_name
    attribute[17] = if is_tracepoint { ATTACH_RAW_TRACEPOINT } else { ATTACH_LSM_MAC }; // expected_attach_type
    attribute[27] = other.attached_to; // attach_btf_id
    let program = descriptor(PROG_LOAD, &mut attribute)?;
    if is_tracepoint {
        // `name` (none: the program says it), `prog_fd`.
        descriptor(RAW_TRACEPOINT_OPEN, &mut [0, 0, program.as_raw_fd() as u32, 0])
    } else {
        // `prog_fd`, `target_fd`, `attach_type`, `flags`.
        descriptor(LINK_CREATE, &mut [program.as_raw_fd() as u32, 0, ATTACH_LSM_MAC, 0])
    }
}
