//! This machine's processors, shared out among guests.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// A count of processors that nobody uses.
pub(super) struct Processors {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Processors {
    /// All of this machine's.
    pub(super) fn all() -> Self {
        let total = thread::available_parallelism().map_or(1, usize::from);
        Self { free: Mutex::new(total), freed: Condvar::new() }
    }

    /// Runs `work` with one of them, as soon as it is free.
    pub(super) fn with_one<T>(&self, work: impl FnOnce() -> T) -> T {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        drop(free);
        let result = work();
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.freed.notify_one();
        result
    }
}
