//! May the running task do this to that file: the answer.
//!
//! Hooks put what they ask into the label of the running task, in map memory. What describes the file and
//! what decides about it are global functions, with map memory between them: the verifier checks each once
//! for each program, whatever came before, and need not follow a file to its verdict.

use crate::answers;
use crate::directory::{KNOWS, LEARNS};
use crate::file::{
    CGROUP2, OVERLAYFS, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, SB_KERNMOUNT, SET_ID,
    character_device, own_cgroup,
};
use crate::generation::Generation;
use crate::memory::read;
use crate::offsets::*;
use crate::overlay;
use crate::own_proc;
use crate::own_root;
use crate::own_tmpfs;
use crate::path;
use crate::resource::Resource;
use crate::task::current;
use crate::verdict::{conclude, of_open, of_use, query};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use guard_common::action::{Action, EACCES, ON_DIRECTORIES};
use guard_common::class::{ANONYMOUS_MEMORY, OWN_ANONYMOUS, OWN_CGROUP, OWN_PROC, OWN_TMPFS, STDIO, UNKNOWN};
use guard_common::decide::{Decision, Reason, Tables, combination, decide};
use guard_common::label::{Known, Label, QUESTIONS, Question};
use guard_common::tables::{ALL_ACTIONS, MONITORED};

// include/uapi/linux/magic.h and fs/pipe.c.
const PIPEFS: u64 = 0x5049_5045;
const SOCKFS: u64 = 0x534f_434b;
const ANON_INODE: u64 = 0x0904_1934;
const TMPFS: u64 = 0x0102_1994;
const HUGETLBFS: u64 = 0x9584_58f6;
/// Since 6.9; a pidfd was an anonymous inode before.
const PIDFS: u64 = 0x5049_4446;
const PROC: u64 = 0x9fa0;

/// What a file is: a device counts as the device.
const FILE: u32 = 0;
/// A file as what has this name: a device node counts by its place.
const PLACE: u32 = 1;
/// A place where a file is to be made.
const NEW: u32 = 2;
/// Memory that no file holds.
const MEMORY: u32 = 3;
/// A unix socket that was bound to a path, or is to be (`unix.rs`, like the next two).
pub const SOCKET: u32 = 4;
/// A unix socket with an abstract name.
pub const ABSTRACT: u32 = 5;
/// A unix socket without a name.
pub const UNNAMED: u32 = 6;
/// A file that the task was given with its label, whatever its place (`stdio.rs`).
pub const HELD: u32 = 7;

/// Instead of actions: what brings a file of its kind into being, removes it, or renames it.
pub const MADE: u64 = 1 << 62;
pub const REMOVED: u64 = 1 << 61;
pub const RENAMED: u64 = 1 << 60;
/// With [`RENAMED`]: a device node stays behind.
pub const WHITEOUT: u64 = 1 << 59;

/// Asks about a file.
#[inline(always)]
pub fn file(dentry: u64, inode: u64, required: u64) -> Question {
    Question {
        dentry,
        inode,
        mount_at: 0,
        required,
        either: [0; 2],
        save: 0,
        compare: 0,
        about: FILE,
        mode: 0,
        length: 0,
        peer: 0,
    }
}

/// Asks about a file that is open: what the kernel calls it says through which mount.
#[inline(always)]
pub fn open(file: u64, dentry: u64, inode: u64, required: u64) -> Question {
    Question { mount_at: file + get(&FILE_MNT), ..self::file(dentry, inode, required) }
}

/// Says through which mount something is seen, by the kernel's `struct path` of it or of its directory.
#[inline(always)]
pub fn at(path: u64, question: Question) -> Question {
    Question { mount_at: path + get(&PATH_MNT), ..question }
}

/// Asks whether one of two actions is allowed.
#[inline(always)]
pub fn either(file: u64, dentry: u64, inode: u64, first: Action, second: Action) -> Question {
    let required = first.bit() | second.bit();
    Question { either: [first.bit(), second.bit()], ..open(file, dentry, inode, required) }
}

/// Asks about a file, or one that will be there, by its name.
#[inline(always)]
pub fn place(dentry: u64, inode: u64, required: u64) -> Question {
    Question { about: PLACE, ..file(dentry, inode, required) }
}

/// Asks about a file that is still to be made.
#[inline(always)]
pub fn new(dentry: u64, mode: u16, required: u64) -> Question {
    Question { about: NEW, mode: mode as u32, ..file(dentry, 0, required) }
}

/// Asks about memory that no file holds.
#[inline(always)]
pub fn memory(required: u64) -> Question {
    Question { about: MEMORY, ..file(0, 0, required) }
}

/// Asks one question. Returns 0 or a negative error number; what is to be recorded was recorded.
#[inline(always)]
pub fn ask(label: *mut Label, question: Question) -> Result<i32, Reason> {
    put(label, 0, question);
    let failed = described_as(label, 0);
    decided(label, 0, failed)
}

/// Asks about the use of something that was opened before.
#[inline(always)]
pub fn ask_use(label: *mut Label, question: Question) -> Result<i32, Reason> {
    put(label, 0, question);
    let failed = described_as(label, 0);
    decided_use(label, 0, failed)
}

/// Puts a question into the list of the running task.
#[inline(always)]
pub fn put(label: *mut Label, index: usize, question: Question) {
    // SAFETY: the label of the running task; the list is longer than any index that is passed.
    unsafe { (*label).questions.list[index & (QUESTIONS - 1)] = question };
}

/// Puts a question about a name of a file, or of one that will be there, into the list: through which mount it
/// is seen (`Question::mount_at`), and what it is compared with. By way of a global function, so that a
/// hook with several questions needs no stack for them.
#[inline(always)]
pub fn put_place(
    label: *mut Label,
    index: u32,
    of: (u64, u64, u64),
    mount_at: u64,
    (save, compare): (u32, i32),
) {
    let (dentry, inode, required) = of;
    // SAFETY: the label of the running task; the index is masked to the list.
    unsafe {
        put_name(label, index, required);
        let question = nth(label, index).cast_mut();
        // Here, since a global function takes numbers and the verifier may know these as pointers.
        (*question).dentry = dentry;
        (*question).inode = inode;
        (*question).mount_at = mount_at;
        (*question).save = save;
        (*question).compare = compare;
    }
}

/// What `put_place` does first.
///
/// # Safety
/// The label must be a whole one, and that of the running task; the verifier checks the first.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn put_name(label: *mut Label, index: u32, required: u64) -> u32 {
    if label.is_null() {
        return 1;
    }
    put(label, index as usize, place(0, 0, required));
    0
}

/// Asks the first `count` questions of the list, which are about a change of names, until one is answered with no.
#[inline(always)]
pub fn ask_all(label: *mut Label, count: u32) -> Result<i32, Reason> {
    let mut index = 0;
    while index < QUESTIONS as u32 && index < count {
        let answer = match described_as(label, index) {
            // SAFETY: the label of the running task.
            DESCRIBED => unsafe { decide_change(label, index) },
            failed => return Err(reason(failed)),
        };
        if answer != 0 {
            return Ok(answer);
        }
        index += 1;
    }
    Ok(0)
}

/// Finds out what question `index` of a label is about: [`DESCRIBED`] or why it could not be.
#[inline(always)]
pub fn described_as(label: *mut Label, index: u32) -> u32 {
    let failed = own_root::prepare(label, index);
    // SAFETY: the label of the running task.
    if failed == NOT_DESCRIBED { unsafe { describe_question(label, index) } } else { failed }
}

/// Decides what was described, if it could be.
#[inline(always)]
pub fn decided(label: *mut Label, index: u32, failed: u32) -> Result<i32, Reason> {
    match failed {
        // SAFETY: the label of the running task.
        DESCRIBED => Ok(unsafe { decide_question(label, index) }),
        _ => Err(reason(failed)),
    }
}

/// The same for a use.
#[inline(always)]
pub fn decided_use(label: *mut Label, index: u32, failed: u32) -> Result<i32, Reason> {
    match failed {
        // SAFETY: the label of the running task.
        DESCRIBED => Ok(unsafe { decide_question_of_use(label, index) }),
        _ => Err(reason(failed)),
    }
}

/// Why something could not be described.
#[inline(always)]
fn reason(failed: u32) -> Reason {
    match failed {
        UNSTABLE => Reason::PathUnstable,
        TOO_DEEP => Reason::PathTooDeep,
        NO_GENERATION => Reason::NoGeneration,
        _ => Reason::Unreadable,
    }
}

// Why something could not be described.
pub const DESCRIBED: u32 = 0;
const UNSTABLE: u32 = 1;
const TOO_DEEP: u32 = 2;
const NO_GENERATION: u32 = 3;
pub const UNREADABLE: u32 = 4;
/// It was not tried.
pub const NOT_DESCRIBED: u32 = 5;

/// Describes what question `index` of a label is about. Returns [`DESCRIBED`] or why it could not.
///
/// # Safety
/// The label must be a whole one, and that of the running task; the verifier checks the first.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn describe_question(label: *mut Label, index: u32) -> u32 {
    if label.is_null() {
        return UNREADABLE;
    }
    let mut resource = Resource::unknown();
    let result = describe(nth(label, index), label, &mut resource);
    described(label, result, &resource)
}

/// Keeps what was found out for the decision. Returns what `describe_question` returns.
#[inline(always)]
pub fn described(label: *mut Label, result: Result<(), Reason>, resource: &Resource) -> u32 {
    match result {
        Ok(()) => {
            // SAFETY: the label of the running task.
            let described = unsafe { &mut (*label).questions.described };
            described.features = resource.features;
            described.kind = resource.attributes.kind;
            described.class = resource.class;
            described.has_path = resource.has_path as u32;
            described.owner = resource.attributes.owner as u32;
            if !resource.is_kept {
                described.mode = 0;
            }
            DESCRIBED
        }
        Err(reason) => undescribed(reason),
    }
}

/// Why something could not be described, as a number.
#[inline(always)]
pub fn undescribed(reason: Reason) -> u32 {
    match reason {
        Reason::PathUnstable => UNSTABLE,
        Reason::PathTooDeep => TOO_DEEP,
        Reason::NoGeneration => NO_GENERATION,
        _ => UNREADABLE,
    }
}

/// Whether a question is about something with a name in a file system.
#[inline(always)]
pub fn is_named(question: &Question) -> bool {
    matches!(question.about, FILE | PLACE | NEW | SOCKET)
}

#[inline(always)]
pub fn nth(label: *mut Label, index: u32) -> *const Question {
    // SAFETY: the label of the running task; the index is masked to the list.
    unsafe { (&raw const (*label).questions.list).cast::<Question>().add(index as usize & (QUESTIONS - 1)) }
}

/// Answers question `index` of a label, of which it is known what it is about: 0 or a negative error number. What is
/// about a change of names has another one.
///
/// # Safety
/// The label must be a whole one, and that of the running task; the verifier checks the first.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn decide_question(label: *mut Label, index: u32) -> i32 {
    if label.is_null() {
        return -EACCES;
    }
    // SAFETY: the label of the running task.
    let question = unsafe { &*nth(label, index) };
    answers::begin(label);
    let (generation, resource, all) = decide_all(label, question);
    let (required, decision) = if question.either[0] != 0 {
        all.either(question.either[0], question.either[1])
    } else {
        let required = required(label, question);
        (required, all.within(required))
    };
    of_open(label, &generation, &decision);
    let quiet = is_quiet(&decision) && question.either[0] == 0;
    let answer = conclude(&generation, label, &resource, required, decision);
    if quiet {
        answers::keep(label, index, required);
    }
    answer
}

/// Whether an operation is allowed and nobody is told of it.
#[inline(always)]
fn is_quiet(decision: &Decision) -> bool {
    decision.denied | decision.would_deny | decision.audit | decision.differs == 0
}

/// The same for a question about the use of something that was opened before, of which only denials are told.
///
/// # Safety
/// As for [`decide_question`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn decide_question_of_use(label: *mut Label, index: u32) -> i32 {
    if label.is_null() {
        return -EACCES;
    }
    // SAFETY: the label of the running task.
    let question = unsafe { &*nth(label, index) };
    let required = question.required;
    answers::begin(label);
    let (generation, resource, all) = decide_all(label, question);
    let mut decision = all.within(required);
    // Before what of a use is not told is taken away: an open would have it told.
    let quiet = is_quiet(&decision);
    of_use(label, &generation, &mut decision);
    let answer = conclude(&generation, label, &resource, required, decision);
    if quiet {
        answers::keep(label, index, required);
    }
    answer
}

/// The same for a question about a change of names: whether the file would get more rights is part of it.
///
/// # Safety
/// As for [`decide_question`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn decide_change(label: *mut Label, index: u32) -> i32 {
    if label.is_null() {
        return -EACCES;
    }
    // SAFETY: the label of the running task.
    let (question, kind) = unsafe { (&*nth(label, index), (*label).questions.described.kind) };
    let required = required(label, question);
    let (generation, resource, all) = decide_all(label, question);
    let mut decision = all.within(required);
    compare(&generation, question, &all, &mut decision, kind, label);
    conclude(&generation, label, &resource, required, decision)
}

/// The actions that a question is about, of which it is known now what it is about.
#[inline(always)]
fn required(label: *const Label, question: &Question) -> u64 {
    // SAFETY: the label of the running task.
    let kind = unsafe { (*label).questions.described.kind };
    match question.required {
        MADE => made(kind),
        REMOVED => removed(kind),
        other if other & RENAMED != 0 => renamed(kind, other & WHITEOUT != 0),
        other => other,
    }
}

/// One answer about everything: what was asked, and what the rights are on what was described.
#[inline(always)]
fn decide_all(label: *mut Label, question: &Question) -> (Generation, Resource, Decision) {
    // SAFETY: the label of the running task.
    let described = unsafe { &(*label).questions.described };
    let generation = Generation::kept(label);
    let mut resource = Resource::of_class(described.class);
    resource.features = described.features;
    resource.has_path = described.has_path != 0;
    resource.peer = question.peer;
    if question.about == ABSTRACT {
        resource.abstract_name = question.dentry;
        resource.abstract_len = question.length;
    }
    let query = query(label, &resource, u64::MAX);
    // SAFETY: the helper has no requirements.
    let decision = decide(&generation, &query, || unsafe { bpf_ktime_get_boot_ns() });
    (generation, resource, decision)
}

/// Adds to a decision that the file would get more rights by its new name.
#[inline(always)]
fn compare(
    generation: &Generation,
    question: &Question,
    all: &Decision,
    decision: &mut Decision,
    kind: u64,
    label: *mut Label,
) {
    // SAFETY: the label of the running task with its walk buffer.
    let walk = unsafe { &(*label).walk };
    let here = Known {
        above: walk.features,
        last: walk.leaf_features,
        allow: !all.denied,
        candidate: !all.denied & !all.would_deny | all.would_allow,
        outcome: all.outcome,
        named: (walk.remaining == 0) as u32,
    };
    // SAFETY: the label of the running task; each index is 0 or 1.
    let known = unsafe { (&raw mut (*label).questions.known).cast::<Known>() };
    if question.save != 0 {
        // SAFETY: as above.
        unsafe { *known.add((question.save as usize - 1) & 1) = here };
    }
    let there = question.compare;
    if there == 0 || decision.denied != 0 {
        return;
    }
    // SAFETY: as above.
    let other = unsafe { &*known.add((there.unsigned_abs() as usize - 1) & 1) };
    let (before, after) = if there > 0 { (other, &here) } else { (&here, other) };
    let (gained, candidate) = more_rights(generation, kind == S_IFDIR as u64, before, after);
    // SAFETY: as above.
    let mut action = unsafe { (*label).questions.action };
    if action == RENAMED {
        action = renamed(kind, false);
    }
    decision.refer(action, gained, candidate);
}

/// The action that brings a file of this kind (`S_IFMT`) into being, as a bit.
#[inline(always)]
pub fn made(kind: u64) -> u64 {
    if kind == S_IFDIR as u64 {
        Action::DirCreate.bit()
    } else if kind == S_IFLNK as u64 {
        Action::FileSymlink.bit()
    } else if kind == S_IFCHR as u64 || kind == S_IFBLK as u64 || kind == S_IFIFO as u64 {
        Action::FileMknod.bit()
    } else {
        Action::FileCreate.bit()
    }
}

/// The action that removes a file of this kind, as a bit.
#[inline(always)]
fn removed(kind: u64) -> u64 {
    if kind == S_IFDIR as u64 { Action::DirRemove.bit() } else { Action::FileRemove.bit() }
}

/// The action that renames a file of this kind, as a bit, with what leaves a device node in its place.
#[inline(always)]
fn renamed(kind: u64, whiteout: bool) -> u64 {
    let rename = if kind == S_IFDIR as u64 { Action::DirRename } else { Action::FileRename };
    rename.bit() | if whiteout { Action::FileMknod.bit() } else { 0 }
}

/// Finds class, features and attributes of what is asked about.
#[inline(always)]
fn describe(question: *const Question, label: *mut Label, resource: &mut Resource) -> Result<(), Reason> {
    let (generation, header) = own_root::generation(label)?;
    // SAFETY: the question of the running task.
    let question = unsafe { &*question };
    let about = question.about;
    if about == MEMORY {
        resource.class = ANONYMOUS_MEMORY;
        return Ok(());
    }
    let dentry = question.dentry;
    let inode = question.inode;
    // Whether the file itself is judged, and not a name of it.
    let itself = about == FILE || about == HELD;
    let superblock: u64 = if itself { read(inode, &INODE_SB)? } else { read(dentry, &DENTRY_SB)? };
    let magic: u64 = read(superblock, &SB_MAGIC)?;
    let flags: u64 = read(superblock, &SB_FLAGS)?;
    let internal = itself && flags & SB_KERNMOUNT != 0;
    overlay::note(superblock, magic, label);
    let (mode, owner, links) = if about == NEW {
        let cred: u64 = read(current() as u64, &TASK_CRED)?;
        (question.mode as u16, read::<u32>(cred, &CRED_FSUID)?, 1)
    } else {
        let links: u32 = if itself { read(inode, &INODE_NLINK)? } else { 1 };
        (read(inode, &INODE_MODE)?, read(inode, &INODE_UID)?, links)
    };
    let kind = mode & S_IFMT;
    resource.attributes.owner = owner as u64;
    resource.attributes.kind = kind as u64;
    resource.attributes.set_id = (mode & SET_ID != 0) as u64;
    // What is judged by a name has one, or will have one.
    resource.attributes.fileless = (internal || links == 0) as u64;
    if internal && matches!(magic, TMPFS | HUGETLBFS | PIPEFS | SOCKFS | ANON_INODE | PIDFS) {
        resource.class = OWN_ANONYMOUS;
    } else {
        // SAFETY: the walk buffer of the running task's own label.
        let walk = unsafe { &raw mut (*label).walk };
        path::classify(&generation, header, dentry, walk, resource)?;
        own_tmpfs::correct(dentry, label, walk, resource)?;
        if itself && (kind == S_IFCHR || kind == S_IFBLK) {
            if resource.class == OWN_TMPFS {
                // What a device node leads to lies elsewhere, whoever made the node.
                resource.class = UNKNOWN;
            }
            if kind == S_IFCHR {
                let device: u32 = read(inode, &INODE_RDEV)?;
                character_device(header, device, resource);
            }
        } else if itself && magic == PROC {
            if own_proc::is_own(walk)? {
                resource.class = OWN_PROC;
            }
        } else if magic == CGROUP2 && own_cgroup(dentry)? {
            resource.class = OWN_CGROUP;
        } else if about == FILE
            && (kind == S_IFREG || kind == S_IFDIR)
            && links != 0
            && !internal
            && !matches!(magic, CGROUP2 | OVERLAYFS)
        {
            // SAFETY: the walk buffer of the running task's own label.
            if matches!(unsafe { (*walk).memory }, KNOWS | LEARNS) {
                resource.is_kept = true;
                // SAFETY: the label of the running task.
                unsafe { (*label).questions.described.mode = mode as u32 };
            }
        }
    }
    resource.add_attribute_features(&generation, header);
    if about == HELD && resource.class != OWN_ANONYMOUS {
        resource.class = STDIO;
    }
    Ok(())
}

/// Whether a new name gives a file rights which the old one does not give: by the enforced set, and by the
/// candidate set.
///
/// A directory must not even go to where policy may say otherwise of what lies in it: where it names one of
/// the two places or something below, or decides there by another table or other names of directories.
#[inline(always)]
fn more_rights(generation: &Generation, is_directory: bool, before: &Known, after: &Known) -> (bool, bool) {
    if is_directory {
        let same = before.named | after.named == 0 && is_same(generation, before, after);
        let monitored = before.allow & after.allow & MONITORED != 0;
        (!same && !monitored, !same)
    } else {
        const OF_FILES: u64 = ALL_ACTIONS & !ON_DIRECTORIES;
        (after.allow & !before.allow & OF_FILES != 0, after.candidate & !before.candidate & OF_FILES != 0)
    }
}

/// Whether what lies in a directory is decided alike at both places, whatever its own name.
#[inline(always)]
fn is_same(generation: &Generation, before: &Known, after: &Known) -> bool {
    let Some(old) = generation.outcome(before.outcome) else { return false };
    let Some(new) = generation.outcome(after.outcome) else { return false };
    old.base == new.base
        && combination(&old, before.above) == combination(&old, after.above)
        && combination(&old, before.last) == combination(&old, after.last)
}
