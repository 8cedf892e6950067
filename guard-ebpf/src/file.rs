//! Opening and mapping files: `file_open`, `mmap_file`, and what a `struct file` is.

use crate::answers;
use crate::memory::{read, read_at};
use crate::offsets::*;
use crate::question::{self, HELD, ask, ask_use};
use crate::resource::Resource;
use crate::signature;
use crate::stdio;
use crate::successor::refuse;
use crate::task::{self, guarded};
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use guard_common::action::Action;
use guard_common::class::TERMINAL;
use guard_common::decide::Reason;
use guard_common::label::{Label, Question};
use guard_common::tables::{DEVICE_MINORS, Header};

// include/linux/fs.h; the same in 6.1 to 7.3.
pub const FMODE_READ: u32 = 1;
pub const FMODE_WRITE: u32 = 2;
// include/uapi/asm-generic/fcntl.h and include/linux/fs.h.
const O_ACCMODE: u32 = 3;
pub const O_APPEND: u32 = 0o2000;
const O_TMPFILE: u32 = 0o20000000;
pub const FMODE_EXEC: u32 = 0x20;
// include/uapi/linux/stat.h.
pub const S_IFMT: u16 = 0o170000;
pub const S_IFREG: u16 = 0o100000;
pub const S_IFDIR: u16 = 0o040000;
pub const S_IFLNK: u16 = 0o120000;
pub const S_IFSOCK: u16 = 0o140000;
pub const S_IFCHR: u16 = 0o020000;
pub const S_IFBLK: u16 = 0o060000;
pub const S_IFIFO: u16 = 0o010000;
pub const SET_ID: u16 = 0o6000;
// include/uapi/linux/magic.h.
pub const CGROUP2: u64 = 0x6367_7270;
pub const OVERLAYFS: u64 = 0x794c_7630;
// include/linux/fs.h: the super block belongs to a kernel-internal mount.
pub const SB_KERNMOUNT: u64 = 1 << 22;
// fs/mount.h: MNT_NS_INTERNAL is ERR_PTR(-EINVAL).
const MNT_NS_INTERNAL: u64 = -22i64 as u64;
// include/uapi/linux/major.h.
const MEM_MAJOR: u32 = 1;
const TTY_AUX_MAJOR: u32 = 5;
const PTY_FIRST_MAJOR: u32 = 136;
const PTY_LAST_MAJOR: u32 = 143;
// include/uapi/asm-generic/mman-common.h.
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const MAP_TYPE: u64 = 0xf;
const MAP_PRIVATE: u64 = 2;
// include/linux/mm.h.
const VM_WRITE: u64 = 2;
const VM_EXEC: u64 = 4;
const VM_SHARED: u64 = 8;

#[lsm(hook = "file_open")]
pub fn file_open(ctx: LsmContext) -> i32 {
    guarded(Action::FileRead.bit(), |label| {
        if answers::opens(ctx.arg(0), label) { Ok(0) } else { open(ctx.arg(0), label) }
    })
}

#[inline(always)]
fn open(file: u64, label: *mut Label) -> Result<i32, Reason> {
    let flags: u32 = read(file, &FILE_FLAGS)?;
    let mode: u32 = read(file, &FILE_MODE)?;
    let Some((dentry, inode)) = named(file)? else { return Ok(0) };
    let inode_mode: u16 = read(inode, &INODE_MODE)?;
    if flags & FMODE_EXEC != 0 {
        // The kernel opens a program to execute it. The program itself is decided by the exec
        // hooks; an ELF interpreter is decided nowhere else, so either right is needed here.
        return signature::ask_open(
            label,
            question::either(file, dentry, inode, Action::Exec, Action::ExecMap),
        );
    }
    ask(label, question::open(file, dentry, inode, required(flags, mode, inode_mode)))
}

/// The actions that an open with these flags and modes is.
#[inline(always)]
pub fn required(flags: u32, mode: u32, inode_mode: u16) -> u64 {
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
    if flags & O_TMPFILE != 0 {
        // A file without a name comes into being by the open alone. What `O_TRUNC` does has a hook of
        // its own, later.
        required |= Action::FileCreate.bit();
    }
    required
}

#[lsm(hook = "mmap_file")]
pub fn mmap_file(ctx: LsmContext) -> i32 {
    let wanted: u64 = ctx.arg(1);
    let effective: u64 = ctx.arg(2);
    let protection = wanted | effective;
    let flags: u64 = ctx.arg(3);
    let private = flags & MAP_TYPE == MAP_PRIVATE;
    let undecided = if protection & PROT_EXEC != 0 { Action::ExecMap.bit() } else { Action::FileRead.bit() };
    guarded(undecided, |label| {
        // Read as a number: the verifier takes an argument for a pointer that is never null, and would drop
        // what is done for memory without a file.
        let file: u64 = read_at(ctx.as_ptr() as u64)?;
        map(file, protection, private, label)
    })
}

/// Decides a mapping. Mapping a file is a use of it: whatever the protection is at first, mprotect(2) can make
/// it readable without another question, and nothing asks when memory is read or written.
#[inline(always)]
fn map(file: u64, protection: u64, private: bool, label: *mut Label) -> Result<i32, Reason> {
    let executes = protection & PROT_EXEC != 0;
    let writes = protection & PROT_WRITE != 0;
    if file == 0 && !executes {
        return Ok(0);
    }
    if in_execve()? {
        // The image and its interpreter belong to the exec that was allowed; denying them here
        // would kill the process instead of returning an error. Only of an interpreter that its signers
        // would have to allow nobody could say so before.
        return Ok(if signature::is_open_on_trust(label, file) {
            refuse(label, Reason::SignersUnknown)
        } else {
            0
        });
    }
    // What is written to a private mapping is no longer what the file holds.
    let changeable = executes && writes && private;
    if file == 0 || changeable {
        let answer = ask(label, question::memory(Action::ExecMap.bit()))?;
        if file == 0 || answer != 0 {
            return Ok(answer);
        }
    }
    let Some((dentry, inode)) = named(file)? else { return Ok(0) };
    let written = if writes && !private { Action::FileWrite.bit() } else { 0 };
    let question = question::open(file, dentry, inode, Action::FileRead.bit() | written);
    let about = if stdio::holds(label, file, written != 0)? { HELD } else { question.about };
    // First, because what is told of the open is told once if nothing else comes between.
    let answer = ask_use(label, Question { about, ..question })?;
    if answer != 0 || !executes {
        return Ok(answer);
    }
    ask(label, question::open(file, dentry, inode, Action::ExecMap.bit()))
}

/// Memory that becomes executable, or shared with a file and writable, after it was mapped.
#[lsm(hook = "file_mprotect")]
pub fn file_mprotect(ctx: LsmContext) -> i32 {
    let wanted: u64 = ctx.arg(1);
    let effective: u64 = ctx.arg(2);
    let protection = wanted | effective;
    if protection & (PROT_EXEC | PROT_WRITE) == 0 {
        return 0;
    }
    let undecided = if protection & PROT_EXEC != 0 { Action::ExecMap.bit() } else { Action::FileWrite.bit() };
    guarded(undecided, |label| protect(ctx.arg(0), protection, label))
}

#[inline(always)]
fn protect(vma: u64, protection: u64, label: *mut Label) -> Result<i32, Reason> {
    let flags: u64 = read(vma, &VMA_FLAGS)?;
    let file: u64 = read(vma, &VMA_FILE)?;
    let private = flags & VM_SHARED == 0;
    let executes = protection & PROT_EXEC != 0 && flags & VM_EXEC == 0;
    if !private && file != 0 && protection & PROT_WRITE != 0 && flags & VM_WRITE == 0 {
        let answer = ask_use(label, mapped(file, Action::FileWrite)?)?;
        if answer != 0 {
            return Ok(answer);
        }
    }
    if protection & PROT_EXEC == 0 {
        return Ok(0);
    }
    // Pages of its own: something was written there, and the file does not say what.
    let changed = private && read::<u64>(vma, &VMA_ANON)? != 0;
    let changeable = private && protection & PROT_WRITE != 0;
    if !executes && !changeable {
        return Ok(0);
    }
    if in_execve()? {
        return Ok(0);
    }
    if file == 0 || changed || changeable {
        let answer = ask(label, question::memory(Action::ExecMap.bit()))?;
        if file == 0 || answer != 0 {
            return Ok(answer);
        }
    }
    if !executes {
        return Ok(0);
    }
    ask(label, mapped(file, Action::ExecMap)?)
}

/// Asks about the file of a mapping.
#[inline(always)]
fn mapped(file: u64, action: Action) -> Result<Question, Reason> {
    let mut dentry: u64 = read(file, &FILE_DENTRY)?;
    let mut inode: u64 = read(file, &FILE_INODE)?;
    let mut mount_at = file + get(&FILE_MNT);
    if is_known(&BACKING_USER_DENTRY) && is_layers(file, dentry, inode)? {
        // The mapping is of a layer's file, which lies in a `struct backing_file` (fs/file_table.c, since
        // 6.5); the name that was used is the overlay's.
        dentry = read(file, &BACKING_USER_DENTRY)?;
        inode = read(dentry, &DENTRY_INODE)?;
        mount_at = file + get(&BACKING_USER_MNT);
    }
    Ok(Question { mount_at, ..question::file(dentry, inode, action.bit()) })
}

/// Whether the running task is inside execve (`task_struct.in_execve`).
#[inline(always)]
fn in_execve() -> Result<bool, Reason> {
    let bit = get(&TASK_IN_EXECVE_BIT);
    let byte: u8 = crate::memory::read_at(task::current() as u64 + bit / 8)?;
    Ok(byte >> (bit % 8) & 1 != 0)
}

/// The name and the inode of an open file. None if the kernel opened it on behalf of a stacking file system,
/// whose own file was decided already.
#[inline(always)]
pub fn named(file: u64) -> Result<Option<(u64, u64)>, Reason> {
    let inode: u64 = read(file, &FILE_INODE)?;
    let dentry: u64 = read(file, &FILE_DENTRY)?;
    Ok(if is_layers(file, dentry, inode)? { None } else { Some((dentry, inode)) })
}

/// Whether a stacking file system opened this file of one of its layers.
#[inline(always)]
fn is_layers(file: u64, dentry: u64, inode: u64) -> Result<bool, Reason> {
    let superblock: u64 = read(inode, &INODE_SB)?;
    let flags: u64 = read(superblock, &SB_FLAGS)?;
    Ok(flags & SB_KERNMOUNT == 0 && opened_by_stacking(file, dentry, superblock)?)
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
pub fn character_device(header: &Header, device: u32, resource: &mut Resource) {
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
pub fn own_cgroup(dentry: u64) -> Result<bool, Reason> {
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
