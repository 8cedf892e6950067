//! Whether something keeps the clock right.

use nix::libc;

/// Bit of `timex.status`: nothing has set the clock right (include/uapi/linux/timex.h).
const STA_UNSYNC: i32 = 0x0040;

/// Whether the kernel's clock is synchronised; nothing if it does not say.
pub fn clock_is_synchronised() -> Option<bool> {
    // SAFETY: `timex` is plain integers and padding, for which zero is a value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: adjtimex(2) writes one `timex` to a pointer that is valid for it; with `modes` 0 it changes nothing.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    (state >= 0).then_some(timex.status & STA_UNSYNC == 0)
}
