//! This machine's processors, shared out among guests.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// A count of processors that nobody uses.
pub(super) struct Processors {
    total: usize,
    free: Mutex<usize>,
    freed: Condvar,
}

impl Processors {
    /// All of this machine's.
    pub(super) fn all() -> Self {
        let total = thread::available_parallelism().map_or(1, usize::from);
        Self { total, free: Mutex::new(total), freed: Condvar::new() }
    }

    /// Runs `work` with `count` of them, or with all if there are fewer, as soon as they are free.
    pub(super) fn with<T>(&self, count: u32, work: impl FnOnce() -> T) -> T {
        let count = (count as usize).min(self.total);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            self.freed.wait_while(free, |free| *free < count).unwrap_or_else(PoisonError::into_inner);
        *free -= count;
        drop(free);
        let result = work();
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += count;
        self.freed.notify_all();
        result
    }
}
