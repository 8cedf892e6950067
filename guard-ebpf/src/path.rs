//! From a dentry to a class: names from the file system's root, through the trie.
//!
//! First up: every ancestor is passed, the last [`MAX_COMPONENTS`] of them are remembered, and names
//! that policy asks for at any depth are looked up. Then down from the root, edge by edge, as far as
//! the trie goes.
//!
//! All of it is one `bpf_loop` over a small state machine: the verifier checks the callback once,
//! whatever the length of the path, because the state is in map memory, of which it assumes nothing.
//!
//! A rename in the middle of it shows in the dentry's sequence count, which is compared after its
//! name was read, and once more at the end if anything at all was renamed meanwhile: names and parents
//! that were read one after the other were then those of one moment. Otherwise the walk begins anew.
//!
//! A walk whose file lies in a directory that was walked to before goes up one step only and begins
//! at the trie's node of that directory (`directory.rs`).
//!
//! For a subject with a root of its own the way ends at that root and leads through mount points
//! (`own_root.rs`). Mounts are read under the sequence count of the kernel's `mount_lock`: whatever moves one,
//! makes one or takes one away changes it.

use crate::directory::{self, APART, KNOWS, LEARNS, UNASKED};
use crate::fault::injected;
use crate::generation::Generation;
use crate::maps::{EDGES, NODES, PATTERNS};
use crate::memory::{copy, read, read_at};
use crate::offsets::*;
use crate::resource::Resource;
use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;
use guard_common::class::UNKNOWN;
use guard_common::decide::Reason;
use guard_common::fault;
use guard_common::path::{
    CHUNK, EdgeKey, MAX_ANCESTORS, MAX_COMPONENTS, NODE_ABSTRACT, NODE_FILE_SYSTEMS, NODE_NAMES, OWN_ROOT,
    TAG_MORE, WALK_APART, Walk,
};
use guard_common::tables::{HAS_NAMES, Header, MAX_PATTERNS};

/// Chunks of the longest component, 255 bytes.
const MAX_CHUNKS: u32 = 11;
/// Chunks of the longest abstract name, 107 bytes.
const MAX_ABSTRACT_CHUNKS: u32 = 5;
/// Walks that are tried before a path counts as unstable.
const ATTEMPTS: u32 = 3;
const RING: u32 = MAX_COMPONENTS as u32;
/// Value of `Walk::remaining` where the trie has not been entered.
const NOT_NAMED: u32 = u32::MAX;
/// Steps that are enough for every attempt of the longest walk, and for one from a directory that turns
/// out to have moved.
const MAX_STEPS: u32 =
    (ATTEMPTS + 1) * ((MAX_ANCESTORS + 1) * (MAX_CHUNKS + 1) + MAX_PATTERNS + RING * MAX_CHUNKS + RING + 8);

/// `Walk::way`: to the root of the file's file system.
pub const HOST: u32 = 0;
/// To the root of the label's own.
pub const OWN: u32 = 1;
/// As [`HOST`], without the memory of directories, which keeps less than is asked for.
pub const HOST_UNREMEMBERED: u32 = 2;
/// Mount points that a walk passes; as many can be stacked or nested.
const MAX_CROSSED: u32 = 64;
/// Times that a walk looks again whether mounts still change before it gives up.
const MAX_WAITS: u32 = 20_000;
/// Value of `Walk::inside` before the walk leaves the file's own file system.
const NOWHERE: u32 = u32::MAX;

/// Begin with the leaf.
const START: u32 = 0;
/// Go to the parent.
const CLIMB: u32 = 1;
/// Look up one chunk of the dentry's name among the names at any depth.
const NAME: u32 = 2;
/// The top is reached.
const TOP: u32 = 3;
/// Compare the last component with one pattern.
const MATCH: u32 = 4;
/// Enter the trie of the file system.
const ENTER: u32 = 5;
/// Follow one edge.
const DESCEND: u32 = 6;
/// The class is found.
const FINISH: u32 = 7;
/// Compare one dentry's sequence count with what it was.
const CHECK: u32 = 8;
/// Go on where the file system is mounted.
const CROSS: u32 = 9;
/// No state: the walk does what it would do anyway.
const STRAIGHT: u32 = u32::MAX;
/// The walk is over: found, or why not.
const DONE: u32 = 10;
const UNSTABLE: u32 = 11;
const TOO_DEEP: u32 = 12;
const UNREADABLE: u32 = 13;

/// Classifies the file at `dentry`: afterwards the walk buffer holds its class, what executing it
/// selects, and the path for an event; the features of its names are added to `resource`.
#[inline(always)]
pub fn classify(
    generation: &Generation,
    header: &Header,
    dentry: u64,
    walk: *mut Walk,
    resource: &mut Resource,
) -> Result<(), Reason> {
    // SAFETY: the buffer belongs to the running task or was borrowed.
    let state = unsafe {
        (*walk).leaf = dentry;
        (*walk).generation = generation.number;
        (*walk).slot = generation.slot;
        (*walk).names = header.flags & HAS_NAMES;
        (*walk).patterns = header.patterns.min(MAX_PATTERNS);
        walk_up_and_down(walk)
    };
    ended(state)?;
    // SAFETY: as above.
    let walk = unsafe { &*walk };
    resource.has_path = true;
    resource.features |= walk.features | walk.leaf_features;
    resource.class = walk.class;
    Ok(())
}

/// What the state in which a walk ended means.
#[inline(always)]
pub fn ended(state: u32) -> Result<(), Reason> {
    match state {
        DONE => Ok(()),
        UNSTABLE => Err(Reason::PathUnstable),
        UNREADABLE => Err(Reason::Unreadable),
        _ => Err(Reason::PathTooDeep),
    }
}

/// Walks from `leaf`, by the way that the buffer says. Returns the state in which it ended.
///
/// A global function: the verifier checks it by itself, once for each program that has it, whatever the
/// program did before.
///
/// # Safety
/// The buffer must be whole and in use by nobody else; the verifier checks the first.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn walk_up_and_down(walk: *mut Walk) -> u32 {
    if walk.is_null() {
        return UNREADABLE;
    }
    if injected(fault::WALK) {
        return TOO_DEEP;
    }
    let mut context = walk;
    // SAFETY: by the contract of this function; the callback's context outlives the call. The callback
    // changes the buffer through it, so no reference may live across the call: the compiler would take the
    // content for unchanged.
    unsafe {
        (*walk).state = START;
        (*walk).attempts = 0;
        (*walk).memory = UNASKED;
        (*walk).first = (*walk).leaf;
        (*walk).crossed = 0;
        bpf_loop(MAX_STEPS, step as *mut c_void, (&raw mut context).cast(), 0);
        (*walk).state
    }
}

extern "C" fn step(_: u32, walk: *mut *mut Walk) -> i64 {
    // SAFETY: the only caller passes a valid pointer to a valid buffer.
    let walk = unsafe { &mut **walk };
    let turn = if walk.way == OWN { steer(walk) } else { STRAIGHT };
    if turn != STRAIGHT {
        walk.state = turn;
        return (turn >= DONE) as i64;
    }
    let result = match walk.state {
        START => start(walk),
        CLIMB => climb(walk),
        NAME => name(walk),
        TOP => top(walk),
        MATCH => match_pattern(walk),
        ENTER => enter(walk),
        DESCEND => descend(walk),
        FINISH => finish(walk),
        CHECK => check(walk),
        _ => return 1,
    };
    match result {
        Ok(next) => walk.state = next,
        Err(Reason::PathUnstable) => {
            walk.attempts += 1;
            walk.state = if walk.attempts >= ATTEMPTS { UNSTABLE } else { START };
        }
        Err(Reason::PathTooDeep) => walk.state = TOO_DEEP,
        Err(_) => walk.state = UNREADABLE,
    }
    (walk.state >= DONE) as i64
}

#[inline(always)]
fn start(walk: &mut Walk) -> Result<u32, Reason> {
    walk.leaf = walk.first;
    walk.dentry = walk.leaf;
    walk.inside = NOWHERE;
    walk.features = 0;
    walk.leaf_features = 0;
    walk.count = 0;
    walk.class = UNKNOWN;
    walk.exec_subject = 0;
    walk.flags = 0;
    walk.complete = 0;
    walk.remaining = NOT_NAMED;
    walk.directory_node = 0;
    // What was not as remembered, or could not be remembered, is not asked for again.
    walk.memory = if walk.memory == UNASKED { directory::begin(walk) } else { APART };
    if walk.way != HOST {
        walk.memory = APART;
        walk.found = 0;
        walk.mount = walk.first_mount;
    }
    Ok(CLIMB)
}

/// The sequence count of `mount_lock`, which is the first member of a `seqlock_t`. Odd while mounts change,
/// and where it cannot be read.
#[inline(always)]
fn changes_of_mounts() -> u32 {
    let lock = get_address(&MOUNT_LOCK);
    if lock == 0 {
        return 1;
    }
    read_at(lock).unwrap_or(1)
}

/// What a walk to the root of the label's own does besides: the state that follows, or [`STRAIGHT`].
///
/// A function of its own, so that other walks need no stack for it.
#[inline(never)]
fn steer(walk: &mut Walk) -> u32 {
    let state = walk.state;
    let result = if state == START {
        wait(walk)
    } else if state == CLIMB {
        turn(walk)
    } else if state == CROSS {
        cross(walk)
    } else if state == FINISH && walk.crossed != 0 && changes_of_mounts() != walk.mounts {
        Err(Reason::PathUnstable)
    } else {
        Ok(STRAIGHT)
    };
    match result {
        Ok(next) => next,
        Err(Reason::PathUnstable) => {
            walk.attempts += 1;
            if walk.attempts >= ATTEMPTS { UNSTABLE } else { START }
        }
        Err(Reason::PathTooDeep) => TOO_DEEP,
        Err(_) => UNREADABLE,
    }
}

/// Waits until nobody mounts anything, which takes as long as a few steps.
#[inline(always)]
fn wait(walk: &mut Walk) -> Result<u32, Reason> {
    walk.mounts = changes_of_mounts();
    if walk.mounts & 1 != 0 && get_address(&MOUNT_LOCK) != 0 {
        walk.crossed += 1;
        return if walk.crossed > MAX_WAITS { Err(Reason::PathUnstable) } else { Ok(START) };
    }
    walk.crossed = 0;
    Ok(STRAIGHT)
}

/// Goes on where the file system is mounted that the walk has reached the visible root of.
#[inline(always)]
fn cross(walk: &mut Walk) -> Result<u32, Reason> {
    let above: u64 = read(walk.mount, &MOUNT_PARENT)?;
    if above == walk.mount || walk.mounts & 1 != 0 {
        // It is mounted nowhere, or nobody can say where.
        return Ok(TOP);
    }
    if walk.crossed >= MAX_CROSSED {
        return Err(Reason::PathTooDeep);
    }
    walk.crossed += 1;
    walk.dentry = read(walk.mount, &MOUNT_POINT)?;
    walk.mount = above;
    if walk.count == 0 {
        // It is called what its mount point is called.
        walk.leaf = walk.dentry;
    }
    if walk.inside == NOWHERE {
        walk.inside = walk.count;
    }
    Ok(CLIMB)
}

/// Whether the way ends here, or goes on elsewhere than at the parent.
#[inline(always)]
fn turn(walk: &mut Walk) -> Result<u32, Reason> {
    if walk.dentry == walk.anchor
        && walk.anchor != 0
        && read::<u64>(walk.dentry, &DENTRY_INODE)? == walk.anchor_inode
    {
        walk.found = 1;
        if walk.count == 0 {
            // A root is called "/", also one that is a directory with a name elsewhere.
            let superblock: u64 = read(walk.dentry, &DENTRY_SB)?;
            walk.leaf = read(superblock, &SB_ROOT)?;
        }
        return Ok(TOP);
    }
    let mount = walk.mount;
    if mount != 0 && read_at::<u64>(mount + get(&MOUNT_MNT) + get(&VFSMOUNT_ROOT))? == walk.dentry {
        return Ok(CROSS);
    }
    Ok(STRAIGHT)
}

#[inline(always)]
fn climb(walk: &mut Walk) -> Result<u32, Reason> {
    if walk.count >= MAX_ANCESTORS {
        return Err(Reason::PathTooDeep);
    }
    if walk.count == 1 && walk.memory == UNASKED {
        walk.memory = directory::recall(walk, walk.generation)?;
        return Ok(if walk.memory == KNOWS { TOP } else { CLIMB });
    }
    let dentry = walk.dentry;
    walk.sequence = read(dentry, &DENTRY_SEQ)?;
    walk.parent = read(dentry, &DENTRY_PARENT)?;
    if walk.parent == dentry {
        return Ok(TOP);
    }
    let index = (walk.count & (RING - 1)) as usize;
    // SAFETY: the index is masked to the ring.
    let step = unsafe { walk.steps.get_unchecked_mut(index) };
    step.dentry = dentry;
    step.sequence = walk.sequence;
    walk.count += 1;
    if walk.names == 0 {
        walk.dentry = walk.parent;
        return Ok(CLIMB);
    }
    walk.name = read(dentry, &DENTRY_NAME)?;
    walk.length = read(dentry, &DENTRY_NAME_LEN)?;
    walk.offset = 0;
    walk.node = NODE_NAMES;
    Ok(NAME)
}

#[inline(always)]
fn name(walk: &mut Walk) -> Result<u32, Reason> {
    let (key, last) = chunk_key(walk.node, walk.name, walk.length, walk.offset)?;
    if read::<u32>(walk.dentry, &DENTRY_SEQ)? != walk.sequence {
        return Err(Reason::PathUnstable);
    }
    match edge(walk.slot, &key) {
        Some(bit) if last => {
            let feature = 1 << (bit & 63);
            if walk.count == 1 {
                walk.leaf_features |= feature;
            } else {
                walk.features |= feature;
            }
        }
        Some(node) => {
            walk.node = node;
            walk.offset += CHUNK as u32;
            return Ok(NAME);
        }
        None => {}
    }
    walk.dentry = walk.parent;
    Ok(CLIMB)
}

#[inline(always)]
fn top(walk: &mut Walk) -> Result<u32, Reason> {
    if walk.memory != KNOWS {
        let superblock: u64 = read(walk.leaf, &DENTRY_SB)?;
        walk.device = read(superblock, &SB_DEV)?;
    }
    if walk.way == OWN {
        if walk.found != 0 {
            walk.device = OWN_ROOT;
        } else {
            // Outside: a walk to a device of the host's would be about other names.
            walk.flags = WALK_APART;
        }
    }
    if walk.patterns == 0 {
        return Ok(ENTER);
    }
    let sequence: u32 = read(walk.leaf, &DENTRY_SEQ)?;
    let name: u64 = read(walk.leaf, &DENTRY_NAME)?;
    walk.length = read(walk.leaf, &DENTRY_NAME_LEN)?;
    let used = if walk.length > CHUNK as u32 { CHUNK as u32 } else { walk.length };
    walk.front = [0; 4];
    walk.back = [0; 8];
    // SAFETY: `used` is at most 24, so both copies stay inside their arrays.
    unsafe {
        copy::<31>(walk.front.as_mut_ptr().cast(), used, name)?;
        let gap = core::ptr::read_volatile(&(CHUNK as u32 - used)) & 31;
        let start = walk.back.as_mut_ptr().cast::<u8>().add(gap as usize);
        copy::<31>(start, used, name + (walk.length - used) as u64)?;
    }
    if read::<u32>(walk.leaf, &DENTRY_SEQ)? != sequence || sequence & 1 != 0 {
        return Err(Reason::PathUnstable);
    }
    walk.step = 0;
    Ok(MATCH)
}

#[inline(always)]
fn match_pattern(walk: &mut Walk) -> Result<u32, Reason> {
    if walk.step >= walk.patterns {
        return Ok(ENTER);
    }
    let pattern =
        PATTERNS.get(walk.slot).and_then(|patterns| patterns.get(walk.step)).ok_or(Reason::TableMiss)?;
    let front = [walk.front[0], walk.front[1], walk.front[2]];
    let back = [walk.back[0], walk.back[1], walk.back[2]];
    if pattern.matches(&front, &back, walk.length) {
        walk.leaf_features |= 1 << (pattern.bit & 63);
    }
    walk.step += 1;
    Ok(MATCH)
}

#[inline(always)]
fn enter(walk: &mut Walk) -> Result<u32, Reason> {
    if walk.memory == KNOWS {
        if walk.directory_node == 0 {
            return Ok(FINISH);
        }
        walk.node = walk.directory_node;
        walk.complete = walk.directory_node;
        walk.remaining = 1;
        walk.floor = 0;
        walk.offset = 0;
        return Ok(DESCEND);
    }
    if walk.way == OWN && walk.flags & WALK_APART != 0 {
        return Ok(FINISH);
    }
    let superblock: u64 = read(walk.leaf, &DENTRY_SB)?;
    if walk.way != OWN && read::<u64>(superblock, &SB_ROOT)? != walk.dentry {
        // Not connected to its file system's root, so it has no name that policy could mean.
        walk.flags = WALK_APART;
        walk.memory = APART;
        return Ok(FINISH);
    }
    let Some(root) = file_system_node(walk.slot, walk.device) else {
        return Ok(FINISH);
    };
    walk.node = root;
    walk.complete = root;
    walk.remaining = walk.count;
    walk.floor = walk.count.saturating_sub(RING);
    walk.offset = 0;
    Ok(DESCEND)
}

#[inline(always)]
fn descend(walk: &mut Walk) -> Result<u32, Reason> {
    if walk.offset == 0 {
        if walk.remaining <= walk.floor {
            return arrive(walk, walk.remaining == 0);
        }
        if walk.remaining == 1 {
            walk.directory_node = walk.complete;
        }
        // The leaf is entry 0 of the walk, so the component below the root is the last one.
        let index = ((walk.remaining - 1) & (RING - 1)) as usize;
        // SAFETY: the index is masked to the ring.
        let step = unsafe { walk.steps.get_unchecked(index) };
        let dentry = step.dentry;
        walk.sequence = step.sequence;
        walk.name = read(dentry, &DENTRY_NAME)?;
        walk.length = read(dentry, &DENTRY_NAME_LEN)?;
        walk.sequence_at = dentry + get(&DENTRY_SEQ);
    }
    let (key, last) = chunk_key(walk.node, walk.name, walk.length, walk.offset)?;
    if read_at::<u32>(walk.sequence_at)? != walk.sequence || walk.sequence & 1 != 0 {
        return Err(Reason::PathUnstable);
    }
    let Some(next) = edge(walk.slot, &key) else {
        return arrive(walk, false);
    };
    walk.node = next;
    if last {
        walk.complete = next;
        walk.offset = 0;
        walk.remaining -= 1;
    } else {
        walk.offset += CHUNK as u32;
    }
    Ok(DESCEND)
}

/// Takes the class from the deepest node; `exact` says that the path ends there.
#[inline(always)]
fn arrive(walk: &mut Walk, exact: bool) -> Result<u32, Reason> {
    let node = NODES.get(walk.slot).and_then(|nodes| nodes.get(walk.complete)).ok_or(Reason::TableMiss)?;
    walk.class = if exact { node.exact } else { node.below };
    walk.exec_subject =
        if exact && node.exec_subject != 0 { node.exec_subject } else { node.exec_subject_below };
    walk.flags = if exact { node.flags } else { node.flags_below };
    Ok(FINISH)
}

#[inline(always)]
fn finish(walk: &mut Walk) -> Result<u32, Reason> {
    let was_asked = walk.memory != APART || walk.way != HOST;
    let is_still = was_asked && directory::nothing_moved(walk);
    match walk.memory {
        // The directory, or the file, may have been elsewhere already.
        KNOWS if !is_still => return Ok(START),
        LEARNS if is_still => directory::remember(walk, walk.slot, walk.generation)?,
        _ => {}
    }
    walk.step = 0;
    Ok(if is_still { DONE } else { CHECK })
}

#[inline(always)]
fn check(walk: &mut Walk) -> Result<u32, Reason> {
    if walk.step >= walk.count {
        return Ok(DONE);
    }
    if walk.count > RING {
        // Not all of them are remembered.
        return Err(Reason::PathUnstable);
    }
    // SAFETY: the index is masked to the ring.
    let step = unsafe { walk.steps.get_unchecked((walk.step & (RING - 1)) as usize) };
    if read::<u32>(step.dentry, &DENTRY_SEQ)? != step.sequence || step.sequence & 1 != 0 {
        return Err(Reason::PathUnstable);
    }
    walk.step += 1;
    Ok(CHECK)
}

/// Fills the ring of a walk that began at a remembered directory, for an event: the verdict is
/// there already, and a rename since would show its new name.
#[inline(always)]
pub fn gather(walk: *mut Walk) {
    // SAFETY: the caller's buffer is whole, and it is not in use by a walk.
    unsafe {
        if (*walk).memory != KNOWS {
            return;
        }
        (*walk).dentry = (*walk).leaf;
        (*walk).count = 0;
        let mut context = walk;
        bpf_loop(MAX_ANCESTORS, gather_step as *mut c_void, (&raw mut context).cast(), 0);
    }
}

extern "C" fn gather_step(_: u32, walk: *mut *mut Walk) -> i64 {
    // SAFETY: the only caller passes a valid pointer to a valid buffer.
    let walk = unsafe { &mut **walk };
    match read::<u64>(walk.dentry, &DENTRY_PARENT) {
        Ok(parent) if parent != walk.dentry => {
            let index = (walk.count & (RING - 1)) as usize;
            // SAFETY: the index is masked to the ring.
            unsafe { walk.steps.get_unchecked_mut(index).dentry = walk.dentry };
            walk.count += 1;
            walk.dentry = parent;
            0
        }
        _ => 1,
    }
}

/// The class of an abstract socket name of `len` bytes at `name`.
#[inline(always)]
pub fn abstract_class(generation: &Generation, name: u64, len: u32) -> Result<u32, Reason> {
    let (mut node, mut offset, mut chunk, mut exact) = (NODE_ABSTRACT, 0, 0, false);
    while chunk < MAX_ABSTRACT_CHUNKS {
        let (key, last) = chunk_key(node, name, len, offset)?;
        let Some(next) = edge(generation.slot, &key) else { break };
        node = next;
        if last {
            exact = true;
            break;
        }
        offset += CHUNK as u32;
        chunk += 1;
    }
    let nodes = NODES.get(generation.slot).ok_or(Reason::TableMiss)?;
    let node = nodes.get(if exact { node } else { NODE_ABSTRACT }).ok_or(Reason::TableMiss)?;
    Ok(if exact { node.exact } else { node.below })
}

/// What `subject` becomes by executing the file at which a walk arrived, with what the compiler says of it.
#[inline(always)]
pub fn successor(walk: *const Walk, subject: u32) -> Option<u32> {
    // SAFETY: the walk buffer of the running task's own label.
    let (slot, node) = unsafe { ((*walk).slot, (*walk).complete) };
    edge(slot, &EdgeKey::successor(node, subject))
}

#[inline(always)]
fn edge(slot: u32, key: &EdgeKey) -> Option<u32> {
    // SAFETY: the value is one aligned word that is never changed after the slot went live.
    unsafe { EDGES.get(slot)?.get(key).copied() }
}

#[inline(always)]
fn file_system_node(slot: u32, device: u32) -> Option<u32> {
    let mut key = EdgeKey { node: NODE_FILE_SYSTEMS, tag: size_of::<u32>() as u32, bytes: [0; CHUNK] };
    let bytes = device.to_ne_bytes();
    key.bytes[0] = bytes[0];
    key.bytes[1] = bytes[1];
    key.bytes[2] = bytes[2];
    key.bytes[3] = bytes[3];
    edge(slot, &key)
}

/// The key of the chunk at `offset` of a name of `len` bytes, and whether it is the last one.
#[inline(always)]
fn chunk_key(node: u32, name: u64, len: u32, offset: u32) -> Result<(EdgeKey, bool), Reason> {
    let rest = len.wrapping_sub(offset);
    let last = rest <= CHUNK as u32;
    let used = if last { rest } else { CHUNK as u32 };
    let tag = if last { used } else { used | TAG_MORE };
    let mut padded = PaddedKey { key: EdgeKey { node, tag, bytes: [0; CHUNK] }, slack: 0 };
    // SAFETY: `used` is at most CHUNK, and the slack makes room for the verifier's bound.
    unsafe { copy::<31>(padded.key.bytes.as_mut_ptr(), used, name + offset as u64)? };
    Ok((padded.key, last))
}

#[repr(C)]
struct PaddedKey {
    key: EdgeKey,
    slack: u64,
}
