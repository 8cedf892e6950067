//! Offsets of kernel structure members, set by the agent from the running kernel's BTF.

macro_rules! define {
    ($($global:ident, $structure:literal, $member:literal, $optional:literal;)*) => {
        $(
            #[doc = concat!("Offset of `", $member, "` in `struct ", $structure, "`, in bytes.")]
            #[unsafe(no_mangle)]
            pub static $global: u32 = 0;
        )*
    };
}
guard_common::for_each_member!(define);

/// Position of the bit field `task_struct.in_execve`, in bits.
#[unsafe(no_mangle)]
pub static TASK_IN_EXECVE_BIT: u32 = 0;
/// Address of the kernel's `rename_lock`, or 0 if it is not known.
#[unsafe(no_mangle)]
pub static RENAME_LOCK: u64 = 0;
/// Address of the kernel's `mount_lock`, or 0 if it is not known.
#[unsafe(no_mangle)]
pub static MOUNT_LOCK: u64 = 0;
/// 1 where `bpf_task_storage_get` may fail for a task that has a label (before 6.2).
#[unsafe(no_mangle)]
pub static STORAGE_MAY_BE_BUSY: u32 = 0;
/// 1 where tests make things fail.
#[unsafe(no_mangle)]
pub static CAN_BE_MADE_TO_FAIL: u32 = 0;

/// The value of a global that the agent has set. The read is volatile, because the compiler would
/// otherwise use the initial value; the verifier knows the frozen map's content.
#[inline(always)]
pub fn get_address(global: &'static u64) -> u64 {
    // SAFETY: a reference is always valid for reads.
    unsafe { core::ptr::read_volatile(global) }
}

/// The same of a global that is not an address.
#[inline(always)]
pub fn get(global: &'static u32) -> u64 {
    // SAFETY: a reference is always valid for reads.
    unsafe { core::ptr::read_volatile(global) as u64 }
}

/// Whether this kernel has the member of a global that is optional.
#[inline(always)]
pub fn is_known(global: &'static u32) -> bool {
    get(global) != guard_common::offsets::MISSING as u64
}
