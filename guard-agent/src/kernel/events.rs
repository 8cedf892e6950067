//! Reading the event ring.

use super::{Kernel, KernelError};
use aya::maps::{MapData, RingBuf};
use guard_common::event::Event;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zerocopy::FromBytes;

/// The event ring. Readable (epoll) when there are events.
pub struct EventStream {
    ring: RingBuf<MapData>,
}

impl Kernel {
    /// Takes the event ring out; it can be taken once.
    ///
    /// # Errors
    /// If it was taken before or cannot be mapped.
    pub fn take_events(&mut self) -> Result<EventStream, KernelError> {
        const NAME: &str = "EVENTS";
        let map = self
            .ebpf
            .take_map(NAME)
            .ok_or_else(|| KernelError::Object(format!("the object has no map {NAME}")))?;
        Ok(EventStream { ring: RingBuf::try_from(map).map_err(KernelError::map("open", NAME))? })
    }
}

impl EventStream {
    /// Calls `handle` for at most `limit` events of the ring, oldest first. Returns whether the ring
    /// was emptied.
    pub fn drain(&mut self, limit: usize, mut handle: impl FnMut(&Event)) -> bool {
        for _ in 0..limit {
            let Some(item) = self.ring.next() else { return true };
            // The ring aligns its records to eight bytes, so this never copies and only fails for a
            // record of another layout, which no program of this object writes.
            if let Ok((event, _)) = Event::ref_from_prefix(&item) {
                handle(event);
            }
        }
        false
    }
}

impl EventStream {
    /// Registers the ring with the runtime, to be waited for.
    ///
    /// # Errors
    /// If the runtime cannot poll it.
    pub fn register(self) -> std::io::Result<AsyncFd<Self>> {
        // SAFETY: `as_raw_fd` always returns the ring's own descriptor, which stays open until the
        // stream, now owned by the registration, is dropped.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }
}

impl AsRawFd for EventStream {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl AsFd for EventStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns its descriptor and is borrowed for as long as the result.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}
