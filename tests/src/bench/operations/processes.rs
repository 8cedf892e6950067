//! Operations that make processes.

use std::io;

use guard_tests::raw;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;

use super::{Work, plain};
use crate::places::Places;

pub(super) fn fork(_: &Places) -> io::Result<Box<dyn Work>> {
    plain(|_| {
        // SAFETY: this program has one thread.
        match unsafe { nix::unistd::fork() }? {
            ForkResult::Parent { child } => waitpid(child, None).map(drop).map_err(io::Error::from),
            ForkResult::Child => raw::exit_now(0),
        }
    })
}

/// A program of a few bytes, so that what is measured is the kernel's part.
pub(super) fn exec(places: &Places) -> io::Result<Box<dyn Work>> {
    let program = places.program();
    plain(move |_| raw::vfork_exec(&program))
}
