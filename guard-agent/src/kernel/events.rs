//! Reading the event ring.

use super::{Kernel, KernelError};
use aya::maps::{MapData, RingBuf};
use guard_common::event::Event;
use std::os::fd::{AsRawFd, RawFd};
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
    /// Calls `handle` for every event in the ring, oldest first.
    pub fn drain(&mut self, mut handle: impl FnMut(&Event)) {
        while let Some(item) = self.ring.next() {
            // The ring aligns its records to eight bytes, so this never copies and only fails for a
            // record of another layout, which no program of this object writes.
            if let Ok((event, _)) = Event::ref_from_prefix(&item) {
                handle(event);
            }
        }
    }
}

impl AsRawFd for EventStream {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
