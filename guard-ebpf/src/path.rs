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
    CHUNK, EdgeKey, MAX_ANCESTORS, MAX_COMPONENTS, NODE_ABSTRACT, NODE_FILE_SYSTEMS, NODE_NAMES, Node, TAG_MORE, Walk,
};
use guard_common::tables::{HAS_NAMES, Header, MAX_PATTERNS};

/// Chunks of the longest component, 255 bytes.
const MAX_CHUNKS: u32 = 11;
/// Walks that are tried before a path counts as unstable.
const ATTEMPTS: u32 = 3;
const RING: u32 = MAX_COMPONENTS as u32;

/// What the trie says of a path.
pub struct Found {
    /// The deepest node that the path passes.
    pub node: Node,
    /// Whether the path ends there.
    pub exact: bool,
}

/// Classifies the file at `dentry` and adds the features of its names to `resource`.
#[inline(always)]
pub fn classify(
    generation: &Generation,
    header: &Header,
    dentry: u64,
    walk: *mut Walk,
    resource: &mut Resource,
) -> Result<Option<Found>, Reason> {
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        match classify_once(generation, header, dentry, walk, resource) {
            Err(Reason::PathUnstable) => attempt += 1,
            result => return result,
        }
    }
    Err(Reason::PathUnstable)
}

#[inline(always)]
fn classify_once(
    generation: &Generation,
    header: &Header,
    dentry: u64,
    walk: *mut Walk,
    resource: &mut Resource,
) -> Result<Option<Found>, Reason> {
    let mut up = Up {
        walk,
        dentry,
        features: 0,
        count: 0,
        slot: generation.slot,
        names: header.flags & HAS_NAMES,
        state: CLIMBING,
    };
    // SAFETY: the callback's context is `up`, which outlives the call.
    unsafe { bpf_loop(MAX_ANCESTORS, climb as *mut c_void, (&raw mut up).cast(), 0) };
    match up.state {
        AT_ROOT => {}
        UNSTABLE => return Err(Reason::PathUnstable),
        UNREADABLE => return Err(Reason::Unreadable),
        _ => return Err(Reason::PathTooDeep),
    }
    let superblock: u64 = read(dentry, &DENTRY_SB)?;
    let device: u32 = read(superblock, &SB_DEV)?;
    let root: u64 = read(superblock, &SB_ROOT)?;
    // SAFETY: `walk` points to a whole buffer that belongs to this task or was claimed.
    unsafe {
        (*walk).count = up.count;
        (*walk).device = device;
    }
    resource.has_path = true;
    resource.features |= up.features | patterns(generation, header, dentry)?;
    if up.dentry != root {
        // Not connected to its file system's root, so it has no name that policy could mean.
        return Ok(None);
    }
    let Some(root_node) = file_system_node(generation, device) else {
        return Ok(None);
    };
    let mut down = Down {
        walk,
        name: 0,
        sequence_at: 0,
        node: root_node,
        complete: root_node,
        remaining: up.count,
        floor: if up.count > RING { up.count - RING } else { 0 },
        slot: generation.slot,
        length: 0,
        offset: 0,
        sequence: 0,
        state: DESCENDING,
    };
    // SAFETY: the callback's context is `down`, which outlives the call.
    unsafe { bpf_loop(RING * MAX_CHUNKS + 1, descend as *mut c_void, (&raw mut down).cast(), 0) };
    match down.state {
        LEFT_TRIE | AT_LEAF => {}
        UNSTABLE => return Err(Reason::PathUnstable),
        _ => return Err(Reason::Unreadable),
    }
    let node = NODES.get(generation.slot).and_then(|nodes| nodes.get(down.complete)).ok_or(Reason::TableMiss)?;
    Ok(Some(Found { node: *node, exact: down.state == AT_LEAF }))
}

/// The class that `found` gives.
#[inline(always)]
pub fn class(found: &Option<Found>) -> u32 {
    match found {
        Some(found) if found.exact => found.node.exact,
        Some(found) => found.node.below,
        None => UNKNOWN,
    }
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
fn file_system_node(generation: &Generation, device: u32) -> Option<u32> {
    let mut key = EdgeKey { node: NODE_FILE_SYSTEMS, tag: size_of::<u32>() as u32, bytes: [0; CHUNK] };
    let bytes = device.to_ne_bytes();
    key.bytes[0] = bytes[0];
    key.bytes[1] = bytes[1];
    key.bytes[2] = bytes[2];
    key.bytes[3] = bytes[3];
    edge(generation.slot, &key)
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

struct Up {
    walk: *mut Walk,
    dentry: u64,
    features: u64,
    count: u32,
    slot: u32,
    names: u32,
    state: u32,
}

extern "C" fn climb(_: u32, up: *mut Up) -> i64 {
    // SAFETY: the only caller passes a valid, exclusive pointer.
    let up = unsafe { &mut *up };
    match climb_one(up) {
        Ok(stop) => stop,
        Err(Reason::PathUnstable) => {
            up.state = UNSTABLE;
            1
        }
        Err(_) => {
            up.state = UNREADABLE;
            1
        }
    }
}

#[inline(always)]
fn climb_one(up: &mut Up) -> Result<i64, Reason> {
    let dentry = up.dentry;
    let sequence: u32 = read(dentry, &DENTRY_SEQ)?;
    let parent: u64 = read(dentry, &DENTRY_PARENT)?;
    if parent == dentry {
        up.state = AT_ROOT;
        return Ok(1);
    }
    // SAFETY: the index is masked to the ring, and the buffer belongs to this task.
    let step = unsafe { &mut (*up.walk).steps[(up.count & (RING - 1)) as usize] };
    step.dentry = dentry;
    step.sequence = sequence;
    if up.names != 0 {
        let name: u64 = read(dentry, &DENTRY_NAME)?;
        let len: u32 = read(dentry, &DENTRY_NAME_LEN)?;
        if let Some(bit) = follow(up.slot, NODE_NAMES, name, len)? {
            up.features |= 1 << (bit & 63);
        }
        if read::<u32>(dentry, &DENTRY_SEQ)? != sequence {
            return Err(Reason::PathUnstable);
        }
    }
    up.count += 1;
    up.dentry = parent;
    Ok(0)
}

struct Down {
    walk: *mut Walk,
    name: u64,
    sequence_at: u64,
    /// Node reached, possibly in the middle of a component.
    node: u32,
    /// Node reached at the end of a component.
    complete: u32,
    /// Components not yet followed.
    remaining: u32,
    /// Value of `remaining` at which the ring has no more components.
    floor: u32,
    slot: u32,
    length: u32,
    offset: u32,
    sequence: u32,
    state: u32,
}

extern "C" fn descend(_: u32, down: *mut Down) -> i64 {
    // SAFETY: the only caller passes a valid, exclusive pointer.
    let down = unsafe { &mut *down };
    match descend_one(down) {
        Ok(stop) => stop,
        Err(Reason::PathUnstable) => {
            down.state = UNSTABLE;
            1
        }
        Err(_) => {
            down.state = UNREADABLE;
            1
        }
    }
}

#[inline(always)]
fn descend_one(down: &mut Down) -> Result<i64, Reason> {
    if down.offset == 0 {
        if down.remaining <= down.floor {
            down.state = if down.remaining == 0 { AT_LEAF } else { LEFT_TRIE };
            return Ok(1);
        }
        // The leaf is entry 0 of the walk, so the component below the root is the last one.
        // SAFETY: the index is masked to the ring, and the buffer belongs to this task.
        let step = unsafe { &(*down.walk).steps[((down.remaining - 1) & (RING - 1)) as usize] };
        let dentry = step.dentry;
        down.sequence = step.sequence;
        down.name = read(dentry, &DENTRY_NAME)?;
        down.length = read(dentry, &DENTRY_NAME_LEN)?;
        down.sequence_at = dentry + get(&DENTRY_SEQ);
    }
    let (key, last) = chunk_key(down.node, down.name, down.length, down.offset)?;
    if read_at::<u32>(down.sequence_at)? != down.sequence || down.sequence & 1 != 0 {
        return Err(Reason::PathUnstable);
    }
    let Some(next) = edge(down.slot, &key) else {
        down.state = LEFT_TRIE;
        return Ok(1);
    };
    down.node = next;
    if last {
        down.complete = next;
        down.offset = 0;
        down.remaining -= 1;
    } else {
        down.offset += CHUNK as u32;
    }
    Ok(0)
}

/// The features that the patterns on the last component give.
#[inline(always)]
fn patterns(generation: &Generation, header: &Header, dentry: u64) -> Result<u64, Reason> {
    if header.patterns == 0 {
        return Ok(0);
    }
    let sequence: u32 = read(dentry, &DENTRY_SEQ)?;
    let name: u64 = read(dentry, &DENTRY_NAME)?;
    let length: u32 = read(dentry, &DENTRY_NAME_LEN)?;
    let mut state = Ends { front: [0; 4], back: [0; 8], features: 0, length, slot: generation.slot };
    let used = if length > CHUNK as u32 { CHUNK as u32 } else { length };
    // The back is right-aligned in the first 24 bytes; the rest is room for the verifier's bound.
    // SAFETY: `used` is at most 24, so both copies stay inside their arrays.
    unsafe {
        copy(state.front.as_mut_ptr().cast(), used & 31, name)?;
        let start = state.back.as_mut_ptr().cast::<u8>().add(((CHUNK as u32 - used) & 31) as usize);
        copy(start, used & 31, name + (length - used) as u64)?;
    }
    if read::<u32>(dentry, &DENTRY_SEQ)? != sequence {
        return Err(Reason::PathUnstable);
    }
    let count = header.patterns.min(MAX_PATTERNS);
    // SAFETY: the callback's context is `state`, which outlives the call.
    unsafe { bpf_loop(count, match_pattern as *mut c_void, (&raw mut state).cast(), 0) };
    Ok(state.features)
}

struct Ends {
    front: [u64; 4],
    back: [u64; 8],
    features: u64,
    length: u32,
    slot: u32,
}

extern "C" fn match_pattern(index: u32, ends: *mut Ends) -> i64 {
    // SAFETY: the only caller passes a valid, exclusive pointer.
    let ends = unsafe { &mut *ends };
    let Some(pattern) = PATTERNS.get(ends.slot).and_then(|patterns| patterns.get(index)) else {
        return 1;
    };
    let front = [ends.front[0], ends.front[1], ends.front[2]];
    let back = [ends.back[0], ends.back[1], ends.back[2]];
    if pattern.matches(&front, &back, ends.length) {
        ends.features |= 1 << (pattern.bit & 63);
    }
    0
}
