//! What the programs that run in guests share: accounts, attempts as other users, a daemon and what
//! it reports, trees to work in, and system calls without a safe wrapper.

pub mod attempt;
pub mod bundle;
pub mod daemon;
pub mod elf;
pub mod events;
pub mod http;
pub mod landlock;
pub mod layout;
pub mod raw;
pub mod reference_bundle;
pub mod system_bpf;
pub mod users;
