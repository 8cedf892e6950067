//! Capabilities: `capable`.
//!
//! The hook comes after the kernel's own check, so only capabilities that the task has are asked for,
//! and a denial is a capability that it lacks: whoever asked does what it does without.

use crate::memory::read;
use crate::offsets::*;
use crate::overlay;
use crate::resource::Resource;
use crate::task::{self, guarded};
use crate::verdict::{judge_class, live, probe};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use guard_common::action::Action;
use guard_common::class::{CAPABILITY_CLASSES, FIRST_CAPABILITY};

/// `CAP_OPT_NOAUDIT` (`include/linux/security.h`): the kernel looks whether a privilege would help.
const NO_AUDIT: u64 = 1 << 1;

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
            judge_class(label, class, Action::SysCap.bit())
        } else {
            let (generation, _) = live()?;
            probe(&generation, label, &Resource::of_class(class), Action::SysCap.bit())
        };
        Ok(answer.into())
    })
}
