//! Opening and mapping files: `file_open`, `mmap_file`, and what a `struct file` is.

use crate::generation::Generation;
use crate::memory::read;
use crate::offsets::*;
use crate::own_proc;
use crate::own_tmpfs;
use crate::path;
use crate::resource::Resource;
use crate::task::{self, Lookup, label};
use crate::verdict::{fail, judge, judge_either, live};
use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use guard_common::action::Action;
use guard_common::class::{
    ANONYMOUS_MEMORY, OWN_ANONYMOUS, OWN_CGROUP, OWN_PROC, OWN_TMPFS, TERMINAL, UNKNOWN,
};
use guard_common::decide::Reason;
use guard_common::label::Label;
use guard_common::tables::{DEVICE_MINORS, Header};

// include/linux/fs.h; the same in 6.1 to 7.3.
const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
// include/uapi/asm-generic/fcntl.h and include/linux/fs.h.
const O_ACCMODE: u32 = 3;
const O_TRUNC: u32 = 0o1000;
const O_APPEND: u32 = 0o2000;
const FMODE_EXEC: u32 = 0x20;
// include/uapi/linux/stat.h.
const S_IFMT: u16 = 0o170000;
const S_IFREG: u16 = 0o100000;
const S_IFDIR: u16 = 0o040000;
const S_IFCHR: u16 = 0o020000;
const S_IFBLK: u16 = 0o060000;
const SET_ID: u16 = 0o6000;
// include/uapi/linux/magic.h and fs/pipe.c.
const PIPEFS: u64 = 0x5049_5045;
const SOCKFS: u64 = 0x534f_434b;
const ANON_INODE: u64 = 0x0904_1934;
const TMPFS: u64 = 0x0102_1994;
const HUGETLBFS: u64 = 0x9584_58f6;
const PROC: u64 = 0x9fa0;
const CGROUP2: u64 = 0x6367_7270;
const OVERLAYFS: u64 = 0x794c_7630;
// include/linux/fs.h: the super block belongs to a kernel-internal mount.
const SB_KERNMOUNT: u64 = 1 << 22;
// fs/mount.h: MNT_NS_INTERNAL is ERR_PTR(-EINVAL).
const MNT_NS_INTERNAL: u64 = -22i64 as u64;
// include/uapi/linux/major.h.
const MEM_MAJOR: u32 = 1;
const TTY_AUX_MAJOR: u32 = 5;
const PTY_FIRST_MAJOR: u32 = 136;
const PTY_LAST_MAJOR: u32 = 143;
// include/uapi/asm-generic/mman-common.h.
const PROT_EXEC: u64 = 4;

#[lsm(hook = "file_open")]
pub fn file_open(ctx: LsmContext) -> i32 {
    let label = match label() {
        Lookup::Unlabelled => return 0,
        Lookup::Labelled(label) => label,
        Lookup::Busy => return -guard_common::action::EACCES,
    };
    let file: u64 = ctx.arg(0);
    match open(file, label) {
        Ok(answer) => answer,
        Err(reason) => fail(label, Action::FileRead.bit(), reason),
    }
}

#[inline(always)]
fn open(file: u64, label: *mut Label) -> Result<i32, Reason> {
    let (generation, header) = live()?;
    let flags: u32 = read(file, &FILE_FLAGS)?;
    let mode: u32 = read(file, &FILE_MODE)?;
    let inode: u64 = read(file, &FILE_INODE)?;
    let inode_mode: u16 = read(inode, &INODE_MODE)?;
    let mut resource = Resource::unknown();
    if !describe(&generation, header, file, label, &mut resource)? {
        return Ok(0);
    }
    if flags & FMODE_EXEC != 0 {
        // The kernel opens a program to execute it. The program itself is decided by the exec
        // hooks; an ELF interpreter is decided nowhere else, so either right is needed here.
        return Ok(judge_either(&generation, label, &resource, Action::Exec.bit(), Action::ExecMap.bit()));
    }
    Ok(judge(&generation, label, &resource, required(flags, mode, inode_mode)))
}

/// The actions that an open with these flags and modes is.
#[inline(always)]
fn required(flags: u32, mode: u32, inode_mode: u16) -> u64 {
    if flags & O_ACCMODE == O_ACCMODE {
        return Action::FileIoctl.bit();
    }
    if inode_mode & S_IFMT == S_IFDIR {
        return Action::DirList.bit();
    }
    let mut required = 0;
    if mode & FMODE_READ != 0 {
        required |= Action::FileRead.bit();
    }
    if mode & FMODE_WRITE != 0 {
        required |= if flags & O_APPEND != 0 { Action::FileAppend.bit() } else { Action::FileWrite.bit() };
    }
    // The kernel truncates nothing but regular files (`do_open` in fs/namei.c).
    if flags & O_TRUNC != 0 && inode_mode & S_IFMT == S_IFREG {
        required |= Action::FileTruncate.bit();
    }
    required
}

#[lsm(hook = "mmap_file")]
pub fn mmap_file(ctx: LsmContext) -> i32 {
    let wanted: u64 = ctx.arg(1);
    let effective: u64 = ctx.arg(2);
    if (wanted | effective) & PROT_EXEC == 0 {
        return 0;
    }
    let label = match label() {
        Lookup::Unlabelled => return 0,
        Lookup::Labelled(label) => label,
        Lookup::Busy => return -guard_common::action::EACCES,
    };
    let file: u64 = ctx.arg(0);
    match map(file, label) {
        Ok(answer) => answer,
        Err(reason) => fail(label, Action::ExecMap.bit(), reason),
    }
}

#[inline(always)]
fn map(file: u64, label: *mut Label) -> Result<i32, Reason> {
    if in_execve()? {
        // The image and its interpreter belong to the exec that was allowed; denying them here
        // would kill the process instead of returning an error.
        return Ok(0);
    }
    let (generation, header) = live()?;
    let mut resource = Resource::of_class(ANONYMOUS_MEMORY);
    if file != 0 && !describe(&generation, header, file, label, &mut resource)? {
        return Ok(0);
    }
    Ok(judge(&generation, label, &resource, Action::ExecMap.bit()))
}

/// Whether the running task is inside execve (`task_struct.in_execve`).
#[inline(always)]
fn in_execve() -> Result<bool, Reason> {
    let bit = get(&TASK_IN_EXECVE_BIT);
    let byte: u8 = crate::memory::read_at(task::current() as u64 + bit / 8)?;
    Ok(byte >> (bit % 8) & 1 != 0)
}

/// Finds class, features and attributes of `file` for the running task, which has this label. Returns false if the kernel opens it on behalf
/// of a stacking file system, whose own file was decided already.
#[inline(always)]
pub fn describe(
    generation: &Generation,
    header: &Header,
    file: u64,
    label: *mut Label,
    resource: &mut Resource,
) -> Result<bool, Reason> {
    let inode: u64 = read(file, &FILE_INODE)?;
    let dentry: u64 = read(file, &FILE_DENTRY)?;
    let superblock: u64 = read(inode, &INODE_SB)?;
    let magic: u64 = read(superblock, &SB_MAGIC)?;
    let sb_flags: u64 = read(superblock, &SB_FLAGS)?;
    let internal = sb_flags & SB_KERNMOUNT != 0;
    if !internal && opened_by_stacking(file, dentry, superblock)? {
        return Ok(false);
    }
    let mode: u16 = read(inode, &INODE_MODE)?;
    let links: u32 = read(inode, &INODE_NLINK)?;
    let owner: u32 = read(inode, &INODE_UID)?;
    resource.attributes.owner = owner as u64;
    resource.attributes.kind = (mode & S_IFMT) as u64;
    resource.attributes.set_id = (mode & SET_ID != 0) as u64;
    resource.attributes.fileless = (internal || links == 0) as u64;

    if internal
        && (magic == TMPFS || magic == HUGETLBFS || magic == PIPEFS || magic == SOCKFS || magic == ANON_INODE)
    {
        resource.class = OWN_ANONYMOUS;
    } else {
        // SAFETY: the walk buffer of the running task's own label.
        let walk = unsafe { &raw mut (*label).walk };
        path::classify(generation, header, dentry, walk, resource)?;
        own_tmpfs::correct(dentry, label, walk, resource)?;
        if mode & S_IFMT == S_IFCHR || mode & S_IFMT == S_IFBLK {
            if resource.class == OWN_TMPFS {
                // What a device node leads to lies elsewhere, whoever made the node.
                resource.class = UNKNOWN;
            }
            if mode & S_IFMT == S_IFCHR {
                let device: u32 = read(inode, &INODE_RDEV)?;
                character_device(header, device, resource);
            }
        } else if magic == PROC {
            if own_proc::is_own(walk)? {
                resource.class = OWN_PROC;
            }
        } else if magic == CGROUP2 && own_cgroup(dentry)? {
            resource.class = OWN_CGROUP;
        }
    }
    resource.add_attribute_features(generation, header);
    Ok(true)
}

/// Whether this is the open of a layer's file by a stacking file system.
///
/// Overlayfs reaches its layers through private mounts (`clone_private_mount`), whose namespace is
/// `MNT_NS_INTERNAL`. Before 6.5 it opens the layer's inode under the overlay's own path, so the
/// dentry's file system is overlayfs and the inode's is not.
#[inline(always)]
fn opened_by_stacking(file: u64, dentry: u64, superblock: u64) -> Result<bool, Reason> {
    let vfsmount: u64 = read(file, &FILE_MNT)?;
    let mount = vfsmount - get(&MOUNT_MNT);
    let namespace: u64 = read(mount, &MOUNT_NS)?;
    if namespace == MNT_NS_INTERNAL {
        return Ok(true);
    }
    let upper: u64 = read(dentry, &DENTRY_SB)?;
    Ok(upper != superblock && read::<u64>(upper, &SB_MAGIC)? == OVERLAYFS)
}

/// Character devices that are judged by what they are.
#[inline(always)]
fn character_device(header: &Header, device: u32, resource: &mut Resource) {
    let (major, minor) = (device >> 20, device & 0xf_ffff);
    if major == MEM_MAJOR {
        let mut index = 0;
        while index < DEVICE_MINORS.len() {
            if minor == DEVICE_MINORS[index] {
                resource.class = header.devices[index];
                resource.features = header.device_features[index];
            }
            index += 1;
        }
    } else if is_own_terminal(major, minor) {
        resource.class = TERMINAL;
    }
}

/// Whether this is `/dev/tty` or the pseudo terminal that controls the running task's session.
#[inline(always)]
fn is_own_terminal(major: u32, minor: u32) -> bool {
    if major == TTY_AUX_MAJOR {
        return minor == 0;
    }
    (PTY_FIRST_MAJOR..=PTY_LAST_MAJOR).contains(&major)
        && controlling_terminal() == Some(((major - PTY_FIRST_MAJOR) << 8) | minor)
}

/// Index of the pseudo terminal that controls the running task's session.
#[inline(always)]
fn controlling_terminal() -> Option<u32> {
    let signal: u64 = read(task::current() as u64, &TASK_SIGNAL).ok()?;
    let tty: u64 = read(signal, &SIGNAL_TTY).ok()?;
    if tty == 0 {
        return None;
    }
    read(tty, &TTY_INDEX).ok()
}

/// Whether `dentry` is a file of the cgroup that the running task is in. The private pointer of a
/// kernfs inode is its node, and a cgroup's id is the id of its directory's node.
#[inline(always)]
fn own_cgroup(dentry: u64) -> Result<bool, Reason> {
    let parent: u64 = read(dentry, &DENTRY_PARENT)?;
    let inode: u64 = read(parent, &DENTRY_INODE)?;
    if inode == 0 {
        return Ok(false);
    }
    let node: u64 = read(inode, &INODE_PRIVATE)?;
    let id: u64 = read(node, &KERNFS_NODE_ID)?;
    // SAFETY: the helper has no requirements.
    Ok(id == unsafe { bpf_get_current_cgroup_id() })
}
