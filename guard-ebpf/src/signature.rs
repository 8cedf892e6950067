//! Who signed what is executed: the digest of its content, and whom that names.
//!
//! The kernel's integrity measurement reads the whole file and may wait for the disk, so it is asked by
//! programs that may sleep. They decide nothing: they leave the digest in the label, for the program that
//! decides at the same hook. The kernel runs the newest of a hook's programs first (`hlist_add_head` in
//! `__bpf_trampoline_link_prog`, kernel/bpf/trampoline.c), so these are attached after those. In the other
//! order there would be no digest to decide by, and what depends on it is denied.
//!
//! A digest says what will run only if nobody can change the content any more:
//!
//! - The kernel refuses to open an executed file for writing, and to execute one that is open for writing, from
//!   before these hooks until the program ends (`deny_write_access`, fs/exec.c). Since 6.14 it does not for a
//!   file that a pre-content listener of fanotify watches, so the count of writers is looked at, after the
//!   digest: who refused writers then has refused them all the while.
//! - On file systems whose content comes from a process or another host, or from files that can be reached
//!   under another name (FUSE, NFS, overlayfs), that refusal says nothing. A digest counts only on those
//!   that are known to keep their content themselves, and on none that a labelled task made.
//! - What has no file system of its own (a memfd) can be changed by who holds its pages (udmabuf).
//! - A script is read by its interpreter, by name and later. That it is one shows only at the interpreter's turn:
//!   what was allowed because of a signature is refused then.
//!
//! Whatever is not so cannot be told, and then an exec is denied if some set of signers would be.

use crate::exec::is_first_stage;
use crate::file::{S_IFMT, S_IFREG, SB_KERNMOUNT};
use crate::generation::Generation;
use crate::maps::SIGNERS;
use crate::memory::{member, read};
use crate::offsets::*;
use crate::question::{self, DESCRIBED};
use crate::resource::Resource;
use crate::successor::{is_made, refuse};
use crate::task::{Lookup, label};
use crate::verdict::query;
use aya_ebpf::bindings::file;
use aya_ebpf::helpers::generated::{bpf_ima_file_hash, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ffi::c_void;
use guard_common::action::Action;
use guard_common::decide::{self, MAX_UNKNOWN, Reason, Tables, decide, some_state};
use guard_common::label::{DIGEST, Label, Question};
use guard_common::tables::SUBJECT_ASKS_SIGNERS;

/// `HASH_ALGO_SHA256` (include/uapi/linux/hash_info.h).
const SHA256: i64 = 4;

/// File systems that keep the content of their files themselves, or for the kernel alone
/// (include/uapi/linux/magic.h, fs/f2fs, fs/xfs).
const KEPT: [u64; 8] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0xf2f5_2010, // f2fs
    0xe0f5_e1e2, // erofs
    0x7371_7368, // squashfs
    0x8584_58f6, // ramfs
];

/// Largest file of which a digest is taken, in bytes: an exec waits for it.
const LARGEST: u64 = 256 << 20;

#[lsm(hook = "bprm_creds_for_exec", sleepable)]
pub fn digest_program(ctx: LsmContext) -> i32 {
    let bprm: *const c_void = ctx.arg(0);
    take(bprm);
    0
}

#[lsm(hook = "bprm_check_security", sleepable)]
pub fn digest_interpreter(ctx: LsmContext) -> i32 {
    let bprm: *const c_void = ctx.arg(0);
    if let Ok(false) = is_first_stage(bprm as u64) {
        take(bprm);
    }
    0
}

/// Takes the digest of the file that an exec is about to run, if its subject asks for it and it can be told.
#[inline(always)]
fn take(bprm: *const c_void) {
    let Lookup::Labelled(label) = label() else { return };
    if !asks(label) {
        return;
    }
    // SAFETY: `bprm` is the argument of the program.
    let file: *mut file = unsafe { member(bprm, &BPRM_FILE) };
    let Ok(inode) = read::<u64>(file as u64, &FILE_INODE) else { return };
    if !matches!(is_kept(inode), Ok(true)) {
        return;
    }
    // SAFETY: the label of the running task, which waits for this program.
    let executed = unsafe { &raw mut (*label).executed };
    // SAFETY: the helper checks the file, and the digest is as long as is said.
    let algorithm = unsafe {
        (*executed).file = 0;
        bpf_ima_file_hash(file, (&raw mut (*executed).digest).cast(), DIGEST as u32)
    };
    // Less than 0: executions hold off so many writers.
    let held_off = matches!(read::<i32>(inode, &INODE_WRITERS), Ok(count) if count < 0);
    if algorithm == SHA256 && held_off {
        // SAFETY: as above.
        unsafe { (*executed).file = file as u64 };
    }
}

/// Whether what the holder of this label may execute depends on signers.
#[inline(always)]
fn asks(label: *const Label) -> bool {
    let Some(generation) = Generation::live() else { return false };
    // SAFETY: the label of the running task.
    let row = generation.subject(unsafe { (*label).row });
    row.is_some_and(|row| generation.row(row).flags & SUBJECT_ASKS_SIGNERS != 0)
}

/// Whether the content of a file stays what it is while nobody may write to it.
#[inline(always)]
fn is_kept(inode: u64) -> Result<bool, Reason> {
    let mode: u16 = read(inode, &INODE_MODE)?;
    let superblock: u64 = read(inode, &INODE_SB)?;
    let magic: u64 = read(superblock, &SB_MAGIC)?;
    let flags: u64 = read(superblock, &SB_FLAGS)?;
    if mode & S_IFMT != S_IFREG || flags & SB_KERNMOUNT != 0 || is_made(superblock) {
        return Ok(false);
    }
    Ok(KEPT.contains(&magic) && read::<u64>(inode, &INODE_SIZE)? <= LARGEST)
}

/// Asks about the open of a program, or of an ELF interpreter, by an exec. Who signed it is not known yet. If
/// that may allow it, it is opened, and the hooks of the exec decide. Those know no ELF interpreter: it must
/// not be mapped then.
#[inline(always)]
pub fn ask_open(label: *mut Label, question: Question) -> Result<i32, Reason> {
    let file = question.mount_at - get(&FILE_MNT);
    // SAFETY: the label of the running task.
    let executed = unsafe { &raw mut (*label).executed };
    // SAFETY: as above. What is known of an earlier file is not about this one.
    unsafe {
        (*executed).file = 0;
        (*executed).on_trust = 0;
    }
    question::put(label, 0, question);
    let failed = question::described_as(label, 0);
    // SAFETY: as above; a label is a whole value.
    unsafe {
        if failed == DESCRIBED && asks(label) && some_signers_may(label) != 0 {
            (*executed).on_trust = file;
            return Ok(0);
        }
    }
    question::decided(label, 0, failed)
}

/// Whether a file that an exec maps was opened for the sake of signers, and decided by no hook since.
#[inline(always)]
pub fn is_open_on_trust(label: *const Label, file: u64) -> bool {
    // SAFETY: the label of the running task.
    file != 0 && unsafe { (*label).executed.on_trust } == file
}

/// An exec begins: nothing rests on a signature yet.
#[inline(always)]
pub fn begin(label: *mut Label) {
    // SAFETY: the label of the running task.
    unsafe { (*label).executed.rests = 0 };
}

/// Whether a file of this exec was allowed only because of who signed it, or who did not.
#[inline(always)]
pub fn rests(label: *const Label) -> bool {
    // SAFETY: the label of the running task.
    unsafe { (*label).executed.rests != 0 }
}

/// Asks whether a file may be executed, with what is known of its signers.
#[inline(always)]
pub fn ask(label: *mut Label, file: u64, dentry: u64, inode: u64) -> Result<i32, Reason> {
    question::put(label, 0, question::open(file, dentry, inode, Action::Exec.bit()));
    let failed = question::described_as(label, 0);
    if failed == DESCRIBED && !add_signers(label, file)? {
        return Ok(refuse(label, Reason::SignersUnknown));
    }
    question::decided(label, 0, failed)
}

/// Adds what the signers of a file decide to what was described. Returns whether it can be decided: they are
/// known, or the answer is the same whoever they are.
#[inline(always)]
fn add_signers(label: *mut Label, file: u64) -> Result<bool, Reason> {
    // SAFETY: the label of the running task.
    let executed = unsafe { &raw mut (*label).executed };
    // SAFETY: as above.
    let is_known = unsafe {
        let is_known = file != 0 && (*executed).file == file;
        (*executed).file = 0;
        (*executed).on_trust = 0;
        is_known
    };
    let generation = Generation::kept(label);
    let header = generation.header().ok_or(Reason::TableMiss)?;
    if header.signers == 0 {
        return Ok(true);
    }
    // SAFETY: as above; a label is a whole value.
    unsafe {
        let rests = rests_on_signers(label) != 0;
        if !is_known {
            return Ok(!rests);
        }
        if rests {
            (*executed).rests = 1;
        }
        if let Some(signers) = SIGNERS.get(generation.slot)
            && let Some(features) = signers.get((*executed).digest)
        {
            (*label).questions.described.features |= *features & header.signers;
        }
    }
    Ok(true)
}

/// Whether executing what was described would be denied for some set of signers: 0 or 1. A global function, so
/// that the verifier checks it by itself.
///
/// # Safety
/// The label must be a whole one, and that of the running task; the verifier checks the first.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn rests_on_signers(label: *mut Label) -> u32 {
    if label.is_null() {
        return 1;
    }
    // SAFETY: the label of the running task.
    let matters = unsafe { signers_that_matter(label) };
    if matters == 0 {
        return 0;
    }
    if matters.count_ones() > MAX_UNKNOWN {
        return 1;
    }
    // SAFETY: as above.
    some_state(matters, |signers| unsafe { denied_with(label, signers, Action::Exec.bit()) != 0 }) as u32
}

/// Whether executing what was described depends on its signers, mapping it for execution is no right of its own,
/// and some signers would allow it: 0 or 1. A global function like the one above.
///
/// # Safety
/// As for [`rests_on_signers`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn some_signers_may(label: *mut Label) -> u32 {
    // SAFETY: by the contract of this function.
    unsafe {
        if label.is_null() || rests_on_signers(label) == 0 {
            return 0;
        }
        let matters = signers_that_matter(label);
        if denied_with(label, 0, Action::ExecMap.bit()) == 0 {
            return 0;
        }
        if matters.count_ones() > MAX_UNKNOWN {
            return 1;
        }
        some_state(matters, |signers| denied_with(label, signers, Action::Exec.bit()) == 0) as u32
    }
}

/// The features of signers that matter to what was described; 0 also if nothing is found, which is decided as
/// what it is.
///
/// # Safety
/// As for [`rests_on_signers`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn signers_that_matter(label: *mut Label) -> u64 {
    if label.is_null() {
        return 0;
    }
    let generation = Generation::kept(label);
    let Some(header) = generation.header() else { return 0 };
    // SAFETY: the label of the running task.
    let (row, class) = unsafe { ((*label).row, (*label).questions.described.class) };
    let Some(row) = generation.subject(row).map(|row| generation.row(row)) else { return 0 };
    let cell = generation.cell(row.cells.wrapping_add(class));
    let outcome = cell.and_then(|cell| generation.outcome(row.outcomes.wrapping_add(cell)));
    outcome.map_or(0, |outcome| decide::matters(&outcome, header.signers))
}

/// Whether an action on what was described would be denied if these features of signers held, and no others:
/// 0 or 1.
///
/// # Safety
/// As for [`rests_on_signers`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn denied_with(label: *mut Label, signers: u64, required: u64) -> u32 {
    if label.is_null() {
        return 1;
    }
    let generation = Generation::kept(label);
    // SAFETY: the label of the running task.
    let described = unsafe { &(*label).questions.described };
    let mut resource = Resource::of_class(described.class);
    resource.features = described.features | signers;
    let query = query(label, &resource, required);
    // SAFETY: the helper has no requirements.
    let decision = decide(&generation, &query, || unsafe { bpf_ktime_get_boot_ns() });
    (decision.denied != 0) as u32
}
