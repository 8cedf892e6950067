//! The LSM programs of Guard: one file per hook family, each hook a few lines.
//!
//! Every program has the same order: is the task labelled (no: leave at once), what is the
//! resource's class, what do the tables of the live generation say, record, answer. What each hook
//! does when it cannot decide is in the table of `docs/adr/0003-kernel-side.md`: a labelled task is
//! denied with a reason of its own, an unlabelled one is let through.
//!
//! Walks and verdicts run in programs that cannot sleep, so every dentry they look at is protected
//! by the RCU read lock of the program.
#![no_std]
#![no_main]
// The BPF target has atomic instructions, but core's atomic types do not offer them there.
#![feature(core_intrinsics, stmt_expr_attributes)]
#![allow(internal_features)]

mod address;
mod agent;
mod answers;
mod arrival;
mod atomic;
mod attributes;
mod capability;
mod cgroups;
mod connection;
mod directory;
mod exec;
mod families;
mod fault;
mod file;
mod generation;
mod identity;
mod machine;
mod maps;
mod memory;
mod names;
mod network;
mod offsets;
mod overlay;
mod own_proc;
mod own_root;
mod own_tmpfs;
mod owners;
mod path;
mod process;
mod question;
mod record;
mod resource;
mod running;
mod sctp;
mod select;
mod shared;
mod signature;
mod sockets;
mod stdio;
mod successor;
mod task;
mod unix;
mod using;
mod verdict;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier rejects a program that can get here, so nothing is lost by not returning.
    loop {}
}

/// The licence string that gives access to GPL-only helpers.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
