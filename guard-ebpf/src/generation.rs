//! The live generation, as the decision function sees it.

use crate::atomic;
use crate::fault::injected;
use crate::maps::{CELLS, HEADERS, LIVE, MASKS, NETS4, NETS6, OUTCOMES, PORTS, SUBJECTS, TIMELINES, USED};
use guard_common::decide::{Ranges, Tables};
use guard_common::fault;
use guard_common::label::Label;
use guard_common::tables::{
    Control, Header, Masks, Outcome, SubjectRow, Timeline, cell_position, live_number, live_slot,
};

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
        if injected(fault::TABLES) {
            return None;
        }
        let word = LIVE.get_ptr(0)?;
        // SAFETY: the pointer comes from a map lookup; the agent writes the word with one store.
        let word = unsafe { core::ptr::read_volatile(word) };
        if word == 0 { None } else { Some(Self { slot: live_slot(word), number: live_number(word) }) }
    }

    /// Keeps it in a label, for the decision on what is described by it: a class of one generation means
    /// nothing in another.
    #[inline(always)]
    pub fn keep(&self, label: *mut Label) {
        // SAFETY: the label that is decided for.
        unsafe {
            (*label).generation = self.number;
            (*label).slot = self.slot;
        }
    }

    /// The one that was kept.
    #[inline(always)]
    pub fn kept(label: *const Label) -> Self {
        // SAFETY: as above.
        unsafe { Self { slot: (*label).slot, number: (*label).generation } }
    }

    /// Its head.
    #[inline(always)]
    pub fn header(&self) -> Option<&'static Header> {
        // SAFETY of the lifetime: elements of an array map live as long as the program runs.
        HEADERS.get(self.slot)?.get(0).map(|header| unsafe { &*core::ptr::from_ref(header) })
    }
}

impl Generation {
    /// Notes that `actions` were used where `outcome` decides. Costs a write only the first time.
    #[inline(always)]
    pub fn used(&self, outcome: u32, actions: u64) {
        let Some(word) = USED.get(self.slot).and_then(|words| words.get_ptr_mut(outcome)) else { return };
        // SAFETY: the pointer comes from a map lookup; programs change the word atomically only.
        unsafe {
            if core::ptr::read_volatile(word) & actions != actions {
                atomic::or(word, actions);
            }
        }
    }
}

impl Tables for Generation {
    type Row = &'static SubjectRow;
    #[inline(always)]
    fn subject(&self, id: u32) -> Option<&'static SubjectRow> {
        // SAFETY of the lifetime: elements of an array map live as long as the program runs.
        SUBJECTS.get(self.slot)?.get_ptr(id).map(|row| unsafe { &*row })
    }
    #[inline(always)]
    fn row(&self, row: &'static SubjectRow) -> SubjectRow {
        *row
    }
    #[inline(always)]
    fn control(&self, row: &'static SubjectRow) -> Control {
        // SAFETY: the reference is valid; the agent changes the word by whole stores.
        Control(unsafe { core::ptr::read_volatile(&raw const row.control) })
    }
    #[inline(always)]
    fn cell(&self, index: u32) -> Option<u32> {
        let (word, shift) = cell_position(index);
        CELLS.get(self.slot)?.get(word).map(|word| (*word >> shift) as u32 & 0xffff)
    }
    #[inline(always)]
    fn outcome(&self, index: u32) -> Option<Outcome> {
        OUTCOMES.get(self.slot)?.get(index).copied()
    }
    #[inline(always)]
    fn timeline(&self, index: u32) -> Option<Timeline> {
        TIMELINES.get(self.slot)?.get(index).copied()
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
