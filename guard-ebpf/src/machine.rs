//! Privileged operations on the host that have no object of their own: mounts, user namespaces, BPF,
//! kernel modules, io_uring, changes of identity.

use crate::memory::{read, read_at};
use crate::offsets::*;
use crate::own_root;
use crate::task::guarded;
use crate::verdict::judge_class;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use guard_common::action::Action;
use guard_common::class::{KERNEL, MACHINE};
use guard_common::decide::Reason;
use guard_common::label::Label;

/// Decides `required` on the machine for the running task.
#[inline(always)]
fn machine(required: u64) -> i32 {
    guarded(required, |label| decide(label, required))
}

/// Decides `required` on the running kernel itself.
#[inline(always)]
fn kernel(required: u64) -> i32 {
    guarded(required, |label| Ok::<i64, Reason>(judge_class(label, KERNEL, required).into()))
}

#[inline(always)]
fn decide(label: *mut Label, required: u64) -> Result<i64, Reason> {
    Ok(judge_class(label, MACHINE, required).into())
}

/// mount(2), whatever it does: a new file system, a bind, a remount, a move, a change of propagation.
#[lsm(hook = "sb_mount")]
pub fn sb_mount(_: LsmContext) -> i32 {
    machine(Action::SysMount.bit())
}

/// What mount(2) mounts anew, and fsmount(2), where `sb_mount` is not asked. Mounts that the kernel
/// makes by itself do not come here.
#[lsm(hook = "sb_kern_mount")]
pub fn sb_kern_mount(_: LsmContext) -> i32 {
    machine(Action::SysMount.bit())
}

/// fsconfig(2) with `FSCONFIG_CMD_RECONFIGURE`, and mount(2) with `MS_REMOUNT` once more.
#[lsm(hook = "sb_remount")]
pub fn sb_remount(_: LsmContext) -> i32 {
    machine(Action::SysMount.bit())
}

// include/uapi/linux/magic.h and include/linux/fs.h.
const BPF_FS: u64 = 0xcafe_4a11;
const MNT_DETACH: u64 = 2;

/// umount(2). What is pinned in a BPF file system goes when its last mount does, so such a mount belongs to the
/// kernel, where the host sees it.
#[lsm(hook = "sb_umount")]
pub fn sb_umount(ctx: LsmContext) -> i32 {
    guarded(Action::SysMount.bit(), |label| {
        let class = if takes_pins(ctx.arg(0), ctx.arg(1))? { KERNEL } else { MACHINE };
        Ok::<i64, Reason>(judge_class(label, class, Action::SysMount.bit()).into())
    })
}

/// Whether unmounting this may take a BPF file system out of the host's mount namespace: it is one, or with
/// `MNT_DETACH`, which takes what is mounted below as well, there is something below. In another namespace it
/// comes to the same if what lies above is shared (Documentation/filesystems/sharedsubtree.rst).
#[inline(always)]
fn takes_pins(vfsmount: u64, flags: u64) -> Result<bool, Reason> {
    let superblock: u64 = read(vfsmount, &VFSMOUNT_SB)?;
    let mount = vfsmount - get(&MOUNT_MNT);
    let below = mount + get(&MOUNT_CHILDREN);
    let takes_more = flags & MNT_DETACH != 0 && read_at::<u64>(below)? != below;
    if read::<u64>(superblock, &SB_MAGIC)? != BPF_FS && !takes_more {
        return Ok(false);
    }
    let above: u64 = read(mount, &MOUNT_PARENT)?;
    Ok(own_root::is_hosts(read(mount, &MOUNT_NS)?) || read::<u32>(above, &MOUNT_GROUP)? != 0)
}

#[lsm(hook = "sb_pivotroot")]
pub fn sb_pivotroot(_: LsmContext) -> i32 {
    machine(Action::SysMount.bit())
}

/// move_mount(2): where something from fsmount(2) or open_tree(2) comes into a mount namespace.
#[lsm(hook = "move_mount")]
pub fn move_mount(_: LsmContext) -> i32 {
    machine(Action::SysMount.bit())
}

#[lsm(hook = "userns_create")]
pub fn userns_create(_: LsmContext) -> i32 {
    machine(Action::SysUserns.bit())
}

// enum bpf_cmd (include/uapi/linux/bpf.h).
const PROG_LOAD: u32 = 5;
const LINK_UPDATE: u32 = 29;
/// OBJ_GET, PROG_GET_NEXT_ID, MAP_GET_NEXT_ID, MAP_GET_FD_BY_ID, RAW_TRACEPOINT_OPEN, BTF_GET_FD_BY_ID,
/// TASK_FD_QUERY, BTF_GET_NEXT_ID, LINK_UPDATE, LINK_GET_FD_BY_ID, LINK_GET_NEXT_ID, LINK_DETACH.
const OBJECTS_OF_OTHERS: u64 = 1 << 7
    | 1 << 11
    | 1 << 12
    | 1 << 14
    | 1 << 17
    | 1 << 19
    | 1 << 20
    | 1 << 23
    | 1 << LINK_UPDATE
    | 1 << 30
    | 1 << 31
    | 1 << 34;

// enum bpf_prog_type, the same place.
/// What a packet, a socket, a cgroup or a user asks for, in a context of its own and without a way to the
/// rest of the kernel: SOCKET_FILTER, SCHED_CLS, SCHED_ACT, XDP, CGROUP_SKB, CGROUP_SOCK, LWT_IN, LWT_OUT,
/// LWT_XMIT, SOCK_OPS, SK_SKB, CGROUP_DEVICE, SK_MSG, CGROUP_SOCK_ADDR, LWT_SEG6LOCAL, LIRC_MODE2,
/// SK_REUSEPORT, FLOW_DISSECTOR, CGROUP_SYSCTL, CGROUP_SOCKOPT, SK_LOOKUP, NETFILTER.
const CONFINED_PROGRAMS: u64 = 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 6
    | 1 << 8
    | 1 << 9
    | 1 << 10
    | 1 << 11
    | 1 << 12
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 16
    | 1 << 18
    | 1 << 19
    | 1 << 20
    | 1 << 21
    | 1 << 22
    | 1 << 23
    | 1 << 25
    | 1 << 30
    | 1 << 32;

/// Every command of bpf(2). Newer kernels pass a fourth argument, which is not looked at. Programs that
/// watch or change what the kernel does, and objects that are found by their number, which are anybody's,
/// belong to the kernel; the rest is the task's own.
#[lsm(hook = "bpf")]
pub fn bpf(ctx: LsmContext) -> i32 {
    guarded(Action::SysBpf.bit(), |label| {
        let command: u64 = ctx.arg(0);
        let command = command as u32;
        let is_own = if command == PROG_LOAD {
            // `prog_type`, the first member; the kernel has copied the attributes.
            let kind: u32 = read_at(ctx.arg(1))?;
            is_in(CONFINED_PROGRAMS, kind)
        } else {
            command < 64 && !is_in(OBJECTS_OF_OTHERS, command)
        };
        let class = if is_own { MACHINE } else { KERNEL };
        Ok::<i64, Reason>(judge_class(label, class, Action::SysBpf.bit()).into())
    })
}

#[inline(always)]
fn is_in(set: u64, number: u32) -> bool {
    number < 64 && set >> (number & 63) & 1 != 0
}

/// perf_event_open(2), which is where programs are attached to whatever the machine does. Its arguments
/// differ between kernels; none is looked at.
#[lsm(hook = "perf_event_open")]
pub fn perf_event_open(_: LsmContext) -> i32 {
    machine(Action::SysBpf.bit())
}

/// `READING_FIRMWARE` and `LOADING_FIRMWARE` (`include/linux/kernel_read_file.h`): what a device is given
/// is not run by the kernel. The other numbers differ between kernels.
const FIRMWARE: u64 = 1;

/// finit_module(2), kexec_file_load(2), and what else the kernel reads from a file to act by it.
#[lsm(hook = "kernel_read_file")]
pub fn kernel_read_file(ctx: LsmContext) -> i32 {
    let what: u64 = ctx.arg(1);
    if what & 0xffff_ffff == FIRMWARE { 0 } else { kernel(Action::SysModule.bit()) }
}

/// init_module(2) and kexec_load(2), whose data do not come from a file.
#[lsm(hook = "kernel_load_data")]
pub fn kernel_load_data(ctx: LsmContext) -> i32 {
    let what: u64 = ctx.arg(0);
    if what & 0xffff_ffff == FIRMWARE { 0 } else { kernel(Action::SysModule.bit()) }
}

/// A module that the kernel would load because the task uses what it provides: a protocol, a file
/// system, a binary format.
#[lsm(hook = "kernel_module_request")]
pub fn kernel_module_request(_: LsmContext) -> i32 {
    machine(Action::SysModule.bit())
}

/// io_uring_setup(2), on kernels that ask for it (6.15 and later).
#[lsm(hook = "uring_allowed")]
pub fn uring_allowed(_: LsmContext) -> i32 {
    machine(Action::SysUring.bit())
}

/// The first eight bytes of the name of a ring's inode (`io_uring_get_file` in `io_uring/io_uring.c`).
const RING: u64 = u64::from_ne_bytes(*b"[io_urin");

/// io_uring_setup(2) on older kernels: no ring without a file, and its inode is asked for by name.
#[lsm(hook = "inode_init_security_anon")]
pub fn inode_init_security_anon(ctx: LsmContext) -> i32 {
    guarded(Action::SysUring.bit(), |label| {
        let name: u64 = read(ctx.arg(1), &QSTR_NAME)?;
        // Every such name is longer than eight bytes, or ends in memory that can be read.
        if read_at::<u64>(name)? != RING {
            return Ok(0);
        }
        decide(label, Action::SysUring.bit())
    })
}

/// Decides a change of user ids for a labelled task.
#[inline(always)]
pub fn set_user(new: u64, old: u64) -> i32 {
    guarded(Action::SysSetid.bit(), |label| {
        if same(new, old, &CRED_UID)?
            && same(new, old, &CRED_EUID)?
            && same(new, old, &CRED_SUID)?
            && same(new, old, &CRED_FSUID)?
        {
            return Ok(0);
        }
        decide(label, Action::SysSetid.bit())
    })
}

#[lsm(hook = "task_fix_setgid")]
pub fn task_fix_setgid(ctx: LsmContext) -> i32 {
    guarded(Action::SysSetid.bit(), |label| {
        let (new, old): (u64, u64) = (ctx.arg(0), ctx.arg(1));
        if same(new, old, &CRED_GID)?
            && same(new, old, &CRED_EGID)?
            && same(new, old, &CRED_SGID)?
            && same(new, old, &CRED_FSGID)?
        {
            return Ok(0);
        }
        decide(label, Action::SysSetid.bit())
    })
}

/// setgroups(2). Who has no supplementary groups and asks for none changes nothing; every other list
/// counts as a change, also the one that the task has.
#[lsm(hook = "task_fix_setgroups")]
pub fn task_fix_setgroups(ctx: LsmContext) -> i32 {
    guarded(Action::SysSetid.bit(), |label| {
        if groups(ctx.arg(0))? == 0 && groups(ctx.arg(1))? == 0 {
            return Ok(0);
        }
        decide(label, Action::SysSetid.bit())
    })
}

#[inline(always)]
fn same(new: u64, old: u64, id: &'static u32) -> Result<bool, Reason> {
    Ok(read::<u32>(new, id)? == read::<u32>(old, id)?)
}

/// How many supplementary groups credentials have.
#[inline(always)]
fn groups(cred: u64) -> Result<u32, Reason> {
    let list: u64 = read(cred, &CRED_GROUP_INFO)?;
    read(list, &GROUP_INFO_COUNT)
}
