//! Answers that a task got before about regular files and directories that are open, or are being opened.
//!
//! What makes an answer is compared by plain loads, since the kernel hands the file as a pointer whose type the
//! verifier knows: no helper is called for them. An answer that was "yes, and nothing is to be told" is given again if it
//! would be found again:
//!
//! - the place is the same: the directory by its dentry and inode, with no directory's inode freed and nothing renamed
//!   since (`directory.rs` says why that is enough), and the name in it byte by byte;
//! - the attributes that policy can ask for are the same: owner, kind and set-id bits, and that the file has a name;
//! - the generation, the row that decides, its control word, which every change of posture changes, and no instant has
//!   come at which its answers change;
//! - it was allowed, quietly, and its use was noted, for every action that is asked for now.
//!
//! The answers lie in the task's own label, so that nothing else writes them. What is judged by more than this is never
//! remembered: devices, what lies on procfs, cgroup2 or an overlay, what the task was started with, subjects with a
//! root of their own.

use crate::directory;
use crate::fault::injected;
use crate::file::{FMODE_EXEC, O_APPEND, S_IFDIR, S_IFMT, S_IFREG, required};
use crate::generation::Generation;
use crate::maps::FREED;
use crate::memory::{member, read, read_at};
use crate::offsets::*;
use crate::question::nth;
use crate::record::count;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use core::ffi::c_void;
use core::ptr::{read_volatile, write_volatile};
use guard_common::action::Action;
use guard_common::decide::Tables;
use guard_common::event::Counter;
use guard_common::fault;
use guard_common::label::{ANSWERS, Answer, Label, STDIO_FILES};
use guard_common::tables::{Control, MAX_BOUNDARIES};

/// Words of a name that are compared. Names of up to 31 bytes lie in the dentry itself, which has room for 32
/// (include/linux/dcache.h: `DNAME_INLINE_LEN`; 40 since 6.15).
const WORDS: usize = 4;
const LONGEST: u32 = 31;

/// Whether a file that is being opened was answered for already, with yes.
#[inline(always)]
pub fn opens(file: *const c_void, label: *mut Label) -> bool {
    // SAFETY: loads of members of what an argument of the program points to.
    let (flags, mode, inode): (u32, u32, *const c_void) =
        unsafe { (member(file, &FILE_FLAGS), member(file, &FILE_MODE), member(file, &FILE_INODE)) };
    if flags & FMODE_EXEC != 0 {
        return false;
    }
    // SAFETY: as above.
    let inode_mode: u16 = unsafe { member(inode, &INODE_MODE) };
    was_answered(file, inode, inode_mode, required(flags, mode, inode_mode), label)
}

/// Whether the use of a file that is open was answered for already, with yes.
#[inline(always)]
pub fn uses(file: *const c_void, writes: bool, label: *mut Label) -> bool {
    // SAFETY: loads of members of what an argument of the program points to.
    let (flags, inode): (u32, *const c_void) =
        unsafe { (member(file, &FILE_FLAGS), member(file, &FILE_INODE)) };
    // SAFETY: as above.
    let mode: u16 = unsafe { member(inode, &INODE_MODE) };
    let required = used(flags, mode & S_IFMT == S_IFDIR, writes);
    // What it was given with its label is judged as that.
    let mut index = 0;
    while index < STDIO_FILES {
        // SAFETY: the label of the running task.
        if unsafe { (*label).stdio[index].file } == file as u64 {
            return false;
        }
        index += 1;
    }
    flags & FMODE_EXEC == 0 && was_answered(file, inode, mode, required, label)
}

/// The action that the use of a file that is open is.
#[inline(always)]
pub fn used(flags: u32, is_directory: bool, writes: bool) -> u64 {
    if is_directory {
        Action::DirList.bit()
    } else if !writes {
        Action::FileRead.bit()
    } else if flags & O_APPEND != 0 {
        Action::FileAppend.bit()
    } else {
        Action::FileWrite.bit()
    }
}

/// Offset of the room for short names in a dentry.
#[inline(always)]
fn short_name() -> u64 {
    if is_known(&DENTRY_INLINE) { get(&DENTRY_INLINE) } else { get(&DENTRY_SHORT) }
}

/// The entry for a name in a directory's list.
#[inline(always)]
fn index(first: u64, length: u32) -> usize {
    // 2^64 divided by the golden ratio spreads the first bytes over the upper bits.
    ((first ^ length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61) as usize & (ANSWERS - 1)
}

#[inline(always)]
fn was_answered(
    file: *const c_void,
    inode: *const c_void,
    mode: u16,
    required: u64,
    label: *mut Label,
) -> bool {
    let kind = mode & S_IFMT;
    let has_short_names = is_known(&DENTRY_INLINE) || is_known(&DENTRY_SHORT);
    if !has_short_names || (kind != S_IFREG && kind != S_IFDIR) || injected(fault::WALK) {
        return false;
    }
    // SAFETY: loads of members of what an argument of the program points to, and of what these point to.
    let (directory, directory_inode, length, name, owner, links) = unsafe {
        let dentry: *const c_void = member(file, &FILE_DENTRY);
        let directory: *const c_void = member(dentry, &DENTRY_PARENT);
        let directory_inode: *const c_void = member(directory, &DENTRY_INODE);
        let length: u32 = member(dentry, &DENTRY_NAME_LEN);
        let words: *const u64 = dentry.byte_add(short_name() as usize).cast();
        let name = [*words, *words.add(1), *words.add(2), *words.add(3)];
        let (owner, links): (u32, u32) = (member(inode, &INODE_UID), member(inode, &INODE_NLINK));
        // By way of map memory: the verifier knows them as pointers, and lets nobody calculate with these.
        let scratch = &raw mut (*label).questions.list[0];
        write_volatile(&raw mut (*scratch).dentry, directory as u64);
        write_volatile(&raw mut (*scratch).inode, directory_inode as u64);
        let directory = read_volatile(&raw const (*scratch).dentry);
        let directory_inode = read_volatile(&raw const (*scratch).inode);
        (directory, directory_inode, length, name, owner, links)
    };
    // SAFETY: the label of the running task; the index is masked to the list.
    let answer = unsafe { &*(&raw const (*label).answers).cast::<Answer>().add(index(name[0], length)) };
    if answer.directory != directory
        || answer.directory_inode != directory_inode
        || answer.name[0] != name[0]
        || answer.name[1] != name[1]
        || answer.name[2] != name[2]
        || answer.name[3] != name[3]
        || answer.length != length
        || answer.owner != owner
        || answer.mode != mode as u32
        || links == 0
        || required & !answer.allowed != 0
    {
        return false;
    }
    // SAFETY: the label of the running task.
    let row = unsafe { (*label).row };
    if answer.row != row || !is_current(answer, row) {
        return false;
    }
    count(Counter::Decided);
    true
}

/// Whether nothing has changed that answers are made of.
#[inline(always)]
fn is_current(answer: &Answer, row: u32) -> bool {
    let Some(generation) = Generation::live() else { return false };
    if generation.number != answer.generation {
        return false;
    }
    let Some(subject) = generation.subject(row) else { return false };
    if generation.control(subject).0 != answer.control {
        return false;
    }
    // SAFETY: the helper has no requirements.
    if answer.until != u64::MAX && answer.until <= unsafe { bpf_ktime_get_boot_ns() } {
        return false;
    }
    let Some(freed) = FREED.get_ptr(0) else { return false };
    // SAFETY: the pointer comes from a map lookup.
    if unsafe { read_volatile(freed) } != answer.freed {
        return false;
    }
    // Last: what was read before was then of one moment. The count that is kept is even.
    directory::renames() == answer.renames
}

/// Notes what a decision about to be made is made by, if its answer can be kept. In the label, since the programs that
/// call this have no room left on the stack.
#[inline(always)]
pub fn begin(label: *mut Label) {
    // SAFETY: the label of the running task.
    let (row, described) = unsafe { ((*label).row, &mut (*label).questions.described) };
    if described.mode == 0 {
        return;
    }
    let Some(subject) = Generation::kept(label).subject(row) else {
        described.mode = 0;
        return;
    };
    let control = Generation::kept(label).control(subject);
    described.control = control.0;
    // SAFETY: the helper has no requirements.
    described.since = if control.boundaries() == 0 { 0 } else { unsafe { bpf_ktime_get_boot_ns() } };
}

/// Keeps the answer to question `index` of the label, which was yes and of which nothing was told.
#[inline(always)]
pub fn keep(label: *mut Label, index: u32, required: u64) {
    // SAFETY: the label of the running task.
    unsafe {
        if (*label).questions.described.mode != 0 {
            keep_answer(label, index, required);
        }
    }
}

/// What `keep` does, as a global function, which the verifier checks by itself.
///
/// # Safety
/// The label must be a whole one, and that of the running task; the verifier checks the first.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn keep_answer(label: *mut Label, which: u32, required: u64) -> u32 {
    if label.is_null() {
        return 0;
    }
    // SAFETY: the label of the running task.
    let (dentry, described, walk, row) =
        unsafe { ((*nth(label, which)).dentry, &(*label).questions.described, &(*label).walk, (*label).row) };
    let generation = Generation::kept(label);
    let Some(subject) = generation.subject(row) else { return 0 };
    let (control, since) = (described.control, described.since);
    // Equal words say that the decision was made by this one.
    if generation.control(subject).0 != control {
        return 0;
    }
    let mut until = u64::MAX;
    let word = Control(control);
    if word.boundaries() != 0 {
        let at = subject.timeline + word.slot() * subject.timeline_stride;
        let Some(timeline) = generation.timeline(at) else { return 0 };
        let mut index = 0;
        while index < MAX_BOUNDARIES {
            let boundary = timeline.boundary[index];
            if (index as u32) < word.boundaries() && boundary > since && boundary < until {
                until = boundary;
            }
            index += 1;
        }
    }
    let mut name = [0u64; WORDS];
    let (Ok(length), Ok(at)) = (read::<u32>(dentry, &DENTRY_NAME_LEN), read::<u64>(dentry, &DENTRY_NAME))
    else {
        return 0;
    };
    if length > LONGEST || at != dentry + short_name() {
        return 0;
    }
    let mut word = 0;
    while word < WORDS {
        // What follows the name in that room is compared as well: it only makes an answer count less often.
        let Ok(bytes) = read_at(at + word as u64 * 8) else { return 0 };
        name[word] = bytes;
        word += 1;
    }
    // SAFETY: the label of the running task; the index is masked to the list.
    unsafe {
        let answer = (&raw mut (*label).answers).cast::<Answer>().add(index(name[0], length));
        let same = (*answer).directory == walk.directory
            && (*answer).directory_inode == walk.directory_inode
            && (*answer).name[0] == name[0]
            && (*answer).name[1] == name[1]
            && (*answer).name[2] == name[2]
            && (*answer).name[3] == name[3]
            && (*answer).length == length
            && (*answer).generation == generation.number
            && (*answer).control == control
            && (*answer).owner == described.owner
            && (*answer).mode == described.mode
            && (*answer).row == row
            && (*answer).freed == walk.freed
            && (*answer).renames == walk.renames;
        let before = if same { (*answer).allowed } else { 0 };
        (*answer).directory = walk.directory;
        (*answer).directory_inode = walk.directory_inode;
        (*answer).name[0] = name[0];
        (*answer).name[1] = name[1];
        (*answer).name[2] = name[2];
        (*answer).name[3] = name[3];
        (*answer).generation = generation.number;
        (*answer).control = control;
        (*answer).until = until;
        (*answer).freed = walk.freed;
        (*answer).allowed = before | required;
        (*answer).renames = walk.renames;
        (*answer).length = length;
        (*answer).owner = described.owner;
        (*answer).mode = described.mode;
        (*answer).row = row;
        (*answer).reserved = 0;
    }
    0
}
