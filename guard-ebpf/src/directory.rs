//! Directories that were walked to before.
//!
//! A walk that reaches the directory of a file remembers where it then stands in the trie, and the
//! next walk to a file of that directory begins there. What is remembered holds exactly as long as it
//! would be found again, which three numbers show:
//!
//! - the generation: another one has another trie;
//! - the sequence count of the kernel's `rename_lock`. `d_move` and `d_exchange` (fs/dcache.c), which
//!   alone change a dentry's name or parent, hold it, whatever the file system and whoever caused them;
//!   it is odd meanwhile;
//! - how many inodes of directories were freed. As long as none was, an inode's address is that of the
//!   directory it was, and with the same dentry and no rename, a directory is where it was.
//!
//! Features of names are kept with it. Owner, kind and the like are read at every decision.

use crate::atomic;
use crate::maps::{DIRECTORIES, FREED, NODES, REMEMBERED};
use crate::memory::{read, read_at};
use crate::offsets::*;
use crate::own_root;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ptr::{addr_of_mut, read_volatile, write_volatile};
use guard_common::class::UNKNOWN;
use guard_common::decide::Reason;
use guard_common::path::{Directory, MAX_COMPONENTS, Walk};

// include/uapi/linux/stat.h.
const S_IFMT: u16 = 0o170000;
const S_IFDIR: u16 = 0o040000;
/// Directories of a procfs come and go with every process: remembering them is not worth the
/// forgetting of all others (include/uapi/linux/magic.h).
const PROC: u64 = 0x9fa0;

/// The walk has not asked yet.
pub const UNASKED: u32 = 0;
/// Nothing is to be remembered of this walk.
pub const APART: u32 = 1;
/// The directory is to be remembered.
pub const LEARNS: u32 = 2;
/// The walk began at a remembered directory.
pub const KNOWS: u32 = 3;

/// Counts directories whose inode ends, before its memory can become another one's.
#[lsm(hook = "inode_free_security")]
pub fn inode_free_security(ctx: LsmContext) -> i32 {
    let inode: *const u8 = ctx.arg(0);
    // SAFETY: a trusted inode pointer plus the offset of a member is a typed field access, and so is
    // one of the super block that it points to.
    let magic = unsafe {
        let mode: u16 = *inode.byte_add(get(&INODE_MODE) as usize).cast();
        if mode & S_IFMT != S_IFDIR {
            return 0;
        }
        own_root::forget(inode as u64);
        let superblock: *const u8 = *inode.byte_add(get(&INODE_SB) as usize).cast();
        *superblock.byte_add(get(&SB_MAGIC) as usize).cast::<u64>()
    };
    if magic != PROC
        && let Some(freed) = FREED.get_ptr_mut(0)
    {
        // SAFETY: the pointer comes from a map lookup; the word is only changed here.
        unsafe { atomic::add(freed, 1) };
    }
    0
}

/// The sequence count of `rename_lock`, which is the first member of a `seqlock_t`
/// (include/linux/seqlock_types.h). Odd while something is renamed, and where it cannot be read.
#[inline(always)]
pub fn renames() -> u32 {
    let lock = get_address(&RENAME_LOCK);
    if lock == 0 {
        return 1;
    }
    read_at(lock).unwrap_or(1)
}

/// Notes what must not change while the walk is under way. Returns what the walk is to do.
#[inline(always)]
pub fn begin(walk: &mut Walk) -> u32 {
    walk.renames = renames();
    let Some(freed) = FREED.get_ptr(0) else { return APART };
    // SAFETY: the pointer comes from a map lookup.
    walk.freed = unsafe { read_volatile(freed) };
    if walk.renames & 1 == 0 { UNASKED } else { APART }
}

/// Whether nothing was renamed since a walk began, and nothing was being renamed then.
#[inline(always)]
pub fn nothing_moved(walk: &Walk) -> bool {
    walk.renames & 1 == 0 && renames() == walk.renames
}

/// The entry that a directory shares with few others.
#[inline(always)]
fn entry(inode: u64) -> Option<*mut Directory> {
    // 2^64 divided by the golden ratio spreads addresses, which end in zeros, over the upper bits.
    let index = inode.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - DIRECTORIES.trailing_zeros());
    REMEMBERED.get_ptr_mut(index as u32)
}

/// Looks for the directory at `walk.dentry`. If it is known, the walk stands behind it.
#[inline(always)]
pub fn recall(walk: &mut Walk, generation: u64) -> Result<u32, Reason> {
    walk.directory = walk.dentry;
    walk.directory_inode = read(walk.dentry, &DENTRY_INODE)?;
    let Some(entry) = entry(walk.directory_inode) else { return Ok(APART) };
    // SAFETY: the pointer comes from a map lookup. Another program of this CPU may be writing the entry,
    // because it preempts this one or was preempted by it. Either it still is at the end, and busy, or
    // the version has changed; one CPU sees its own writes in their order.
    unsafe {
        let version = read_volatile(addr_of_mut!((*entry).version));
        if read_volatile(addr_of_mut!((*entry).inode)) != walk.directory_inode
            || read_volatile(addr_of_mut!((*entry).dentry)) != walk.directory
            || read_volatile(addr_of_mut!((*entry).generation)) != generation
            || read_volatile(addr_of_mut!((*entry).renames)) != walk.renames
            || read_volatile(addr_of_mut!((*entry).freed)) != walk.freed
        {
            return Ok(LEARNS);
        }
        walk.features = read_volatile(addr_of_mut!((*entry).features));
        walk.directory_node = read_volatile(addr_of_mut!((*entry).node));
        walk.class = read_volatile(addr_of_mut!((*entry).class));
        walk.exec_subject = read_volatile(addr_of_mut!((*entry).exec_subject));
        walk.device = read_volatile(addr_of_mut!((*entry).device));
        if read_volatile(addr_of_mut!((*entry).busy)) != 0
            || read_volatile(addr_of_mut!((*entry).version)) != version
        {
            return Ok(APART);
        }
    }
    Ok(KNOWS)
}

/// Remembers the directory of a walk that is over and found its file connected to the root.
#[inline(always)]
pub fn remember(walk: &Walk, slot: u32, generation: u64) -> Result<(), Reason> {
    let superblock: u64 = read(walk.directory, &DENTRY_SB)?;
    if walk.count > MAX_COMPONENTS as u32 || read::<u64>(superblock, &SB_MAGIC)? == PROC {
        return Ok(());
    }
    let last = if walk.directory_node != 0 { walk.directory_node } else { walk.complete };
    let (class, exec_subject) = if last == 0 {
        (UNKNOWN, 0)
    } else {
        let node = NODES.get(slot).and_then(|nodes| nodes.get(last)).ok_or(Reason::TableMiss)?;
        (node.below, node.exec_subject_below)
    };
    let Some(entry) = entry(walk.directory_inode) else { return Ok(()) };
    // SAFETY: as in `recall`. Of two programs that write at the same time, the second one, which
    // preempted the first, leaves the entry to it.
    unsafe {
        if atomic::swap(addr_of_mut!((*entry).busy), 1) != 0 {
            return Ok(());
        }
        write_volatile(addr_of_mut!((*entry).dentry), walk.directory);
        write_volatile(addr_of_mut!((*entry).inode), walk.directory_inode);
        write_volatile(addr_of_mut!((*entry).generation), generation);
        write_volatile(addr_of_mut!((*entry).freed), walk.freed);
        write_volatile(addr_of_mut!((*entry).features), walk.features);
        write_volatile(addr_of_mut!((*entry).renames), walk.renames);
        write_volatile(addr_of_mut!((*entry).node), walk.directory_node);
        write_volatile(addr_of_mut!((*entry).class), class);
        write_volatile(addr_of_mut!((*entry).exec_subject), exec_subject);
        write_volatile(addr_of_mut!((*entry).device), walk.device);
        let version = read_volatile(addr_of_mut!((*entry).version));
        write_volatile(addr_of_mut!((*entry).version), version + 1);
        atomic::swap(addr_of_mut!((*entry).busy), 0);
    }
    Ok(())
}
