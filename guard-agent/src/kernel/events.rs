//! Reading the event ring.

use super::mapped::Mapped;
use super::{Kernel, KernelError};
use aya::maps::{Map, MapData, RingBuf};
use guard_common::event::Event;
use guard_common::handover::SEEN_PLACES;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::Ordering;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zerocopy::FromBytes;

/// The event ring. Readable (epoll) when there are events.
pub struct EventStream {
    ring: RingBuf<MapData>,
}

impl Kernel {
    /// The event ring. It has one reader at a time.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn events(&self) -> Result<EventStream, KernelError> {
        const NAME: &str = "EVENTS";
        let map = MapData::from_fd(self.maps.duplicate(NAME)?).map_err(KernelError::map("open", NAME))?;
        let ring = RingBuf::try_from(Map::RingBuf(map)).map_err(KernelError::map("open", NAME))?;
        Ok(EventStream { ring })
    }
}

/// How far events were handed on, in memory that outlives the agent where the programs do.
pub struct Seen(Mapped<u64>);

impl Kernel {
    /// How far events were handed on.
    ///
    /// # Errors
    /// If the map cannot be mapped.
    pub fn seen(&self) -> Result<Seen, KernelError> {
        const NAME: &str = "SEEN";
        let words =
            Mapped::new(self.maps.array(NAME)?, SEEN_PLACES).map_err(KernelError::map("map", NAME))?;
        Ok(Seen(words))
    }
}

impl Seen {
    /// CPUs with the number of the last event that was handed on.
    pub fn last(&self) -> Vec<(u32, u64)> {
        let words = self.0.words().into_iter().enumerate();
        words.filter(|(_, last)| *last != 0).map(|(cpu, last)| (cpu as u32, last)).collect()
    }

    /// Notes that the events of a CPU were handed on up to this one. What a place is missing for is counted as
    /// lost by the next agent.
    pub fn note(&self, cpu: u32, last: u64) {
        if (cpu as usize) < SEEN_PLACES {
            self.0.word(cpu as usize).store(last, Ordering::Release);
        }
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
