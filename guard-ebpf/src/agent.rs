//! Which process is the agent: the one that reads the iterators. It is never labelled.

use crate::maps::AGENT;
use aya_ebpf::helpers::generated::bpf_get_current_pid_tgid;
use core::ptr::{read_volatile, write_volatile};

/// Thread-group id of the running task.
#[inline(always)]
pub fn running() -> u32 {
    // SAFETY: the helper has no requirements.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

/// Whether this is the agent's thread group.
#[inline(always)]
pub fn is_agent(tgid: u32) -> bool {
    match AGENT.get_ptr(0) {
        // SAFETY: the pointer comes from a map lookup.
        Some(agent) => unsafe { read_volatile(agent) == tgid as u64 },
        None => false,
    }
}

/// Remembers the running task's thread group, which reads an iterator.
#[inline(always)]
pub fn remember() {
    if let Some(agent) = AGENT.get_ptr_mut(0) {
        // SAFETY: the pointer comes from a map lookup; the word is written by whole stores.
        unsafe { write_volatile(agent, running() as u64) };
    }
}
