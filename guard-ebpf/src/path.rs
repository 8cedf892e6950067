//! From a dentry to a class: names from the file system's root, through the trie.
//!
//! First up: every ancestor is passed, the last [`MAX_COMPONENTS`] of them are remembered, and names
//! that policy asks for at any depth are looked up. Then down from the root, edge by edge, as far as
//! the trie goes. Both ways are `bpf_loop`s, which the verifier checks once, whatever their length.
//!
//! A rename in the middle of it shows in the dentry's sequence count, which is compared after its
//! name was read; the walk is then done again.

use crate::generation::Generation;
use crate::maps::{EDGES, NODES, PATTERNS};
use crate::memory::{copy, read, read_at};
use crate::offsets::*;
use crate::resource::Resource;
use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;
use guard_common::class::UNKNOWN;
use guard_common::decide::Reason;
use guard_common::path::{
    CHUNK, EdgeKey, MAX_ANCESTORS, MAX_COMPONENTS, NODE_ABSTRACT, NODE_FILE_SYSTEMS, NODE_NAMES, TAG_MORE,
    Walk,
};
use guard_common::tables::{HAS_NAMES, Header, MAX_PATTERNS};

/// Chunks of the longest component, 255 bytes.
const MAX_CHUNKS: u32 = 11;
/// Walks that are tried before a path counts as unstable.
const ATTEMPTS: u32 = 3;
const RING: u32 = MAX_COMPONENTS as u32;

/// Classifies the file at `dentry`: afterwards the walk buffer holds its class, what executing it
/// selects, and the path for an event; the features of its names are added to `resource`.
///
/// Everything that the walk finds goes through the buffer, so the verifier sees one state after it.
#[inline(always)]
pub fn classify(
    generation: &Generation,
    header: &Header,
    dentry: u64,
    walk: *mut Walk,
    resource: &mut Resource,
) -> Result<(), Reason> {
    let mut task = Task {
        walk,
        dentry,
        slot: generation.slot,
        names: header.flags & HAS_NAMES,
        patterns: header.patterns.min(MAX_PATTERNS),
    };
    // SAFETY: the callback's context is `task`, which outlives the call, and `walk` points to a
    // whole buffer that belongs to this task or was claimed.
    let walk = unsafe {
        bpf_loop(ATTEMPTS, attempt as *mut c_void, (&raw mut task).cast(), 0);
        &mut *walk
    };
    match walk.state {
        DONE => {}
        UNSTABLE => return Err(Reason::PathUnstable),
        TOO_DEEP => return Err(Reason::PathTooDeep),
        _ => return Err(Reason::Unreadable),
    }
    resource.has_path = true;
    resource.features |= walk.features;
    resource.class = walk.class;
    Ok(())
}

/// One whole walk; another one is needed if something was renamed meanwhile.
extern "C" fn attempt(_: u32, task: *mut Task) -> i64 {
    // SAFETY: the only caller passes a valid pointer to a valid buffer.
    let (task, walk) = unsafe { (&mut *task, &mut *(*task).walk) };
    walk.state = match walk_once(task, walk) {
        Ok(()) => DONE,
        Err(Reason::PathUnstable) => {
            walk.state = UNSTABLE;
            return 0;
        }
        Err(Reason::PathTooDeep) => TOO_DEEP,
        Err(_) => UNREADABLE,
    };
    1
}

#[inline(always)]
fn walk_once(task: &mut Task, walk: &mut Walk) -> Result<(), Reason> {
    walk.dentry = task.dentry;
    walk.features = 0;
    walk.count = 0;
    walk.class = UNKNOWN;
    walk.exec_subject = 0;
    walk.flags = 0;
    walk.state = CLIMBING;
    // SAFETY: the callback's context outlives the call, here and below.
    unsafe { bpf_loop(MAX_ANCESTORS, climb as *mut c_void, core::ptr::from_mut(task).cast(), 0) };
    match walk.state {
        AT_ROOT => {}
        UNSTABLE => return Err(Reason::PathUnstable),
        UNREADABLE => return Err(Reason::Unreadable),
        _ => return Err(Reason::PathTooDeep),
    }
    let superblock: u64 = read(task.dentry, &DENTRY_SB)?;
    let root: u64 = read(superblock, &SB_ROOT)?;
    walk.device = read(superblock, &SB_DEV)?;
    patterns(task, walk)?;
    if walk.dentry != root {
        // Not connected to its file system's root, so it has no name that policy could mean.
        return Ok(());
    }
    let Some(root_node) = file_system_node(task.slot, walk.device) else {
        return Ok(());
    };
    walk.node = root_node;
    walk.complete = root_node;
    walk.remaining = walk.count;
    walk.floor = if walk.count > RING { walk.count - RING } else { 0 };
    walk.offset = 0;
    walk.state = DESCENDING;
    // SAFETY: as above.
    unsafe { bpf_loop(RING * MAX_CHUNKS + 1, descend as *mut c_void, core::ptr::from_mut(task).cast(), 0) };
    let exact = match walk.state {
        AT_LEAF => true,
        LEFT_TRIE => false,
        UNSTABLE => return Err(Reason::PathUnstable),
        _ => return Err(Reason::Unreadable),
    };
    let node = NODES.get(task.slot).and_then(|nodes| nodes.get(walk.complete)).ok_or(Reason::TableMiss)?;
    walk.class = if exact { node.exact } else { node.below };
    walk.exec_subject =
        if exact && node.exec_subject != 0 { node.exec_subject } else { node.exec_subject_below };
    walk.flags = if exact { node.flags } else { 0 };
    Ok(())
}

/// The class of an abstract socket name of `len` bytes at `name`.
#[inline(always)]
pub fn abstract_class(generation: &Generation, name: u64, len: u32) -> Result<u32, Reason> {
    match follow(generation.slot, NODE_ABSTRACT, name, len)? {
        Some(node) => NODES
            .get(generation.slot)
            .and_then(|nodes| nodes.get(node))
            .map(|node| node.exact)
            .ok_or(Reason::TableMiss),
        None => NODES
            .get(generation.slot)
            .and_then(|nodes| nodes.get(NODE_ABSTRACT))
            .map(|node| node.below)
            .ok_or(Reason::TableMiss),
    }
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

/// Follows one whole component from `node`. `None` if the trie does not have it.
#[inline(always)]
fn follow(slot: u32, node: u32, name: u64, len: u32) -> Result<Option<u32>, Reason> {
    let (mut node, mut offset, mut chunk) = (node, 0, 0);
    while chunk < MAX_CHUNKS {
        let (key, last) = chunk_key(node, name, len, offset)?;
        match edge(slot, &key) {
            None => return Ok(None),
            Some(next) if last => return Ok(Some(next)),
            Some(next) => node = next,
        }
        offset += CHUNK as u32;
        chunk += 1;
    }
    Ok(None)
}

/// The key of the chunk at `offset` of a name of `len` bytes, and whether it is the last one.
#[inline(always)]
fn chunk_key(node: u32, name: u64, len: u32, offset: u32) -> Result<(EdgeKey, bool), Reason> {
    let rest = len.wrapping_sub(offset);
    let last = rest <= CHUNK as u32;
    let used = if last { rest } else { CHUNK as u32 };
    let tag = if last { used } else { used | TAG_MORE };
    let mut padded = PaddedKey { key: EdgeKey { node, tag, bytes: [0; CHUNK] }, slack: 0 };
    // SAFETY: `used` is at most CHUNK; the mask tells the verifier that it is below 32, and that
    // many bytes there are with the slack.
    unsafe { copy(padded.key.bytes.as_mut_ptr(), used & 31, name + offset as u64)? };
    Ok((padded.key, last))
}

#[repr(C)]
struct PaddedKey {
    key: EdgeKey,
    slack: u64,
}

const CLIMBING: u32 = 0;
const AT_ROOT: u32 = 1;
const UNSTABLE: u32 = 2;
const UNREADABLE: u32 = 3;
const DESCENDING: u32 = 4;
const LEFT_TRIE: u32 = 5;
const AT_LEAF: u32 = 6;
const TOO_DEEP: u32 = 7;
const DONE: u32 = 8;

/// Context of the callbacks.
struct Task {
    walk: *mut Walk,
    dentry: u64,
    slot: u32,
    names: u32,
    patterns: u32,
}

extern "C" fn climb(_: u32, task: *mut Task) -> i64 {
    // SAFETY: the only caller passes a valid pointer to a valid buffer.
    let (task, walk) = unsafe { (&*task, &mut *(*task).walk) };
    match climb_one(task, walk) {
        Ok(stop) => stop,
        Err(reason) => stop_with(walk, reason),
    }
}

extern "C" fn descend(_: u32, task: *mut Task) -> i64 {
    // SAFETY: the only caller passes a valid pointer to a valid buffer.
    let (task, walk) = unsafe { (&*task, &mut *(*task).walk) };
    match descend_one(task, walk) {
        Ok(stop) => stop,
        Err(reason) => stop_with(walk, reason),
    }
}

#[inline(always)]
fn stop_with(walk: &mut Walk, reason: Reason) -> i64 {
    walk.state = if matches!(reason, Reason::PathUnstable) { UNSTABLE } else { UNREADABLE };
    1
}

#[inline(always)]
fn climb_one(task: &Task, walk: &mut Walk) -> Result<i64, Reason> {
    let dentry = walk.dentry;
    let sequence: u32 = read(dentry, &DENTRY_SEQ)?;
    let parent: u64 = read(dentry, &DENTRY_PARENT)?;
    if parent == dentry {
        walk.state = AT_ROOT;
        return Ok(1);
    }
    let index = (walk.count & (RING - 1)) as usize;
    // SAFETY: the index is masked to the ring.
    let step = unsafe { walk.steps.get_unchecked_mut(index) };
    step.dentry = dentry;
    step.sequence = sequence;
    if task.names != 0 {
        let name: u64 = read(dentry, &DENTRY_NAME)?;
        let len: u32 = read(dentry, &DENTRY_NAME_LEN)?;
        if let Some(bit) = follow(task.slot, NODE_NAMES, name, len)? {
            walk.features |= 1 << (bit & 63);
        }
        if read::<u32>(dentry, &DENTRY_SEQ)? != sequence {
            return Err(Reason::PathUnstable);
        }
    }
    walk.count += 1;
    walk.dentry = parent;
    Ok(0)
}

#[inline(always)]
fn descend_one(task: &Task, walk: &mut Walk) -> Result<i64, Reason> {
    if walk.offset == 0 {
        if walk.remaining <= walk.floor {
            walk.state = if walk.remaining == 0 { AT_LEAF } else { LEFT_TRIE };
            return Ok(1);
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
    let Some(next) = edge(task.slot, &key) else {
        walk.state = LEFT_TRIE;
        return Ok(1);
    };
    walk.node = next;
    if last {
        walk.complete = next;
        walk.offset = 0;
        walk.remaining -= 1;
    } else {
        walk.offset += CHUNK as u32;
    }
    Ok(0)
}

/// Adds the features that the patterns on the last component give.
#[inline(always)]
fn patterns(task: &Task, walk: &mut Walk) -> Result<(), Reason> {
    if task.patterns == 0 {
        return Ok(());
    }
    let sequence: u32 = read(task.dentry, &DENTRY_SEQ)?;
    let name: u64 = read(task.dentry, &DENTRY_NAME)?;
    let length: u32 = read(task.dentry, &DENTRY_NAME_LEN)?;
    let mut ends = Ends { front: [0; 4], back: [0; 8], walk, length, slot: task.slot };
    let used = if length > CHUNK as u32 { CHUNK as u32 } else { length };
    // The back is right-aligned in the first 24 bytes; the rest is room for the verifier's bound.
    // SAFETY: `used` is at most 24, so both copies stay inside their arrays.
    unsafe {
        copy(ends.front.as_mut_ptr().cast(), used & 31, name)?;
        let start = ends.back.as_mut_ptr().cast::<u8>().add(((CHUNK as u32 - used) & 31) as usize);
        copy(start, used & 31, name + (length - used) as u64)?;
    }
    if read::<u32>(task.dentry, &DENTRY_SEQ)? != sequence {
        return Err(Reason::PathUnstable);
    }
    // SAFETY: the callback's context is `ends`, which outlives the call.
    unsafe { bpf_loop(task.patterns, match_pattern as *mut c_void, (&raw mut ends).cast(), 0) };
    Ok(())
}

struct Ends {
    front: [u64; 4],
    back: [u64; 8],
    walk: *mut Walk,
    length: u32,
    slot: u32,
}

extern "C" fn match_pattern(index: u32, ends: *mut Ends) -> i64 {
    // SAFETY: the only caller passes a valid pointer to a valid buffer.
    let (ends, walk) = unsafe { (&*ends, &mut *(*ends).walk) };
    let Some(pattern) = PATTERNS.get(ends.slot).and_then(|patterns| patterns.get(index)) else {
        return 1;
    };
    let front = [ends.front[0], ends.front[1], ends.front[2]];
    let back = [ends.back[0], ends.back[1], ends.back[2]];
    if pattern.matches(&front, &back, ends.length) {
        walk.features |= 1 << (pattern.bit & 63);
    }
    0
}
