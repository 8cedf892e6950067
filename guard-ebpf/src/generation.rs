//! The live generation, as the decision function sees it.

use crate::maps::{CELLS, HEADERS, LIVE, MASKS, NETS4, NETS6, OUTCOMES, PORTS, SUBJECTS};
use guard_common::decide::{Ranges, Tables};
use guard_common::tables::{Header, Masks, Outcome, SubjectRow, live_slot};

/// One generation. The live word is read once per decision, so a decision never mixes two.
#[derive(Clone, Copy)]
pub struct Generation {
    /// The slot of its tables.
    pub slot: u32,
    /// Its number.
    pub number: u64,
}

impl Generation {
    /// The live generation, if there is one.
    #[inline(always)]
    pub fn live() -> Option<Self> {
        let word = LIVE.get_ptr(0)?;
        // SAFETY: the pointer comes from a map lookup; the agent writes the word with one store.
        let word = unsafe { core::ptr::read_volatile(word) };
        if word == 0 { None } else { Some(Self { slot: live_slot(word), number: word >> 8 }) }
    }

    /// Its head.
    #[inline(always)]
    pub fn header(&self) -> Option<&'static Header> {
        // SAFETY of the lifetime: elements of an array map live as long as the program runs.
        HEADERS.get(self.slot)?.get(0).map(|header| unsafe { &*core::ptr::from_ref(header) })
    }
}

impl Tables for Generation {
    #[inline(always)]
    fn subject(&self, id: u32) -> Option<SubjectRow> {
        SUBJECTS.get(self.slot)?.get(id).copied()
    }
    #[inline(always)]
    fn cell(&self, index: u32) -> Option<u32> {
        CELLS.get(self.slot)?.get(index).copied()
    }
    #[inline(always)]
    fn outcome(&self, id: u32) -> Option<Outcome> {
        OUTCOMES.get(self.slot)?.get(id).copied()
    }
    #[inline(always)]
    fn masks(&self, index: u32) -> Option<Masks> {
        MASKS.get(self.slot)?.get(index).copied()
    }
}

/// The IPv4 ranges of a slot.
pub struct Ranges4(pub u32);
/// The IPv6 ranges of a slot.
pub struct Ranges6(pub u32);
/// The port ranges of a slot.
pub struct PortRanges(pub u32);

impl Ranges for Ranges4 {
    type Key = u32;
    #[inline(always)]
    fn begins_by(&self, index: u32, key: u32) -> Option<bool> {
        NETS4.get(self.0)?.get(index).map(|range| range.start <= key)
    }
}

impl Ranges for Ranges6 {
    type Key = (u64, u64);
    #[inline(always)]
    fn begins_by(&self, index: u32, key: (u64, u64)) -> Option<bool> {
        let range = NETS6.get(self.0)?.get(index)?;
        Some(range.high < key.0 || (range.high == key.0 && range.low <= key.1))
    }
}

impl Ranges for PortRanges {
    type Key = u32;
    #[inline(always)]
    fn begins_by(&self, index: u32, key: u32) -> Option<bool> {
        PORTS.get(self.0)?.get(index).map(|range| range.start <= key)
    }
}
