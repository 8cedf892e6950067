//! Capabilities: `capable`.
//!
//! The hook comes after the kernel's own check, so only capabilities that the task has are asked for,
//! and a denial is a capability that it lacks: whoever asked does what it does without.
//!
//! Two ways to mount have no hook but this one, where they ask for `CAP_SYS_ADMIN` (`may_mount`,
//! `fs/namespace.c`): they are known by the number of the system call.

use crate::memory::{read, read_at};
use crate::offsets::*;
use crate::overlay;
use crate::resource::Resource;
use crate::task::{self, guarded};
use crate::verdict::{judge_class, live, probe};
use aya_ebpf::helpers::generated::bpf_task_pt_regs;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use guard_common::action::Action;
use guard_common::class::{CAPABILITY_CLASSES, FIRST_CAPABILITY, MACHINE};
use guard_common::decide::Reason;

/// `CAP_OPT_NOAUDIT` (`include/linux/security.h`): the kernel looks whether a privilege would help.
const NO_AUDIT: u64 = 1 << 1;

/// `include/uapi/linux/capability.h`.
const CAP_SYS_ADMIN: u32 = 21;
// arch/x86/entry/syscalls/syscall_64.tbl; these have the same numbers for 32-bit programs.
const OPEN_TREE: u32 = 428;
const MOUNT_SETATTR: u32 = 442;
const OPEN_TREE_ATTR: u32 = 467;
/// Set in the number of a system call by x32 programs (arch/x86/include/uapi/asm/unistd.h).
const X32: u32 = 1 << 30;
/// Position of `orig_ax` in `struct pt_regs` (arch/x86/include/uapi/asm/ptrace.h).
const SYSTEM_CALL: u64 = 15 * 8;

/// Whether the running task is in a system call that mounts and that no other hook sees.
#[inline(always)]
fn mounts() -> Result<bool, Reason> {
    // SAFETY: the helper takes any task that the kernel holds.
    let registers = unsafe { bpf_task_pt_regs(task::current()) } as u64;
    let number: u64 = read_at(registers + SYSTEM_CALL)?;
    Ok(matches!(number as u32 & !X32, OPEN_TREE | MOUNT_SETATTR | OPEN_TREE_ATTR))
}

/// Decides the use of a capability, in whatever user namespace, by the running task. Questions about
/// the credentials of somebody else (who opened a file, who traces, some other task) are not its use.
#[lsm(hook = "capable")]
pub fn capable(ctx: LsmContext) -> i32 {
    guarded(Action::SysCap.bit(), |label| {
        let asked: u64 = ctx.arg(0);
        if asked != read::<u64>(task::current() as u64, &TASK_CRED)? {
            return Ok(0i64);
        }
        // A file system such as overlayfs does its part under the credentials of who mounted it.
        if overlay::acts_for_itself(label)? {
            return Ok(0);
        }
        let number: u64 = ctx.arg(2);
        let options: u64 = ctx.arg(3);
        let class = FIRST_CAPABILITY + (number as u32 & (CAPABILITY_CLASSES - 1));
        let answer = if options & NO_AUDIT == 0 {
            let answer = judge_class(label, class, Action::SysCap.bit());
            if answer == 0 && class == FIRST_CAPABILITY + CAP_SYS_ADMIN && mounts()? {
                judge_class(label, MACHINE, Action::SysMount.bit())
            } else {
                answer
            }
        } else {
            let (generation, _) = live()?;
            probe(&generation, label, &Resource::of_class(class), Action::SysCap.bit())
        };
        Ok(answer.into())
    })
}
