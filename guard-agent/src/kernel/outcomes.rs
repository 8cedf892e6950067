//! Replacing what one subject may do, beside everything else that is live.
//!
//! A subject's masks and timeline exist in several copies, of which the control word in its row names
//! one. A change fills another copy and stores the word. No map of maps is touched and no generation is
//! made, so it takes microseconds.
//!
//! A copy that was left is filled again only after a grace: until then a program that looked at the
//! word just before may still read it. Copies are few, so after as many changes of one subject the next
//! one waits for a grace. [`Kernel::settle`] waits in advance.

use super::mapped::Mapped;
use super::{Kernel, KernelError, barrier};
use crate::tables::SubjectOutcomes;
use guard_common::tables::{Control, Masks, OUTCOME_SLOTS, SUBJECT_LIVE, SubjectRow, Timeline};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// The changing part of the live generation, in memory shared with the kernel.
pub(super) struct LiveOutcomes {
    /// The rows as they were made; of the control words only the memory is up to date.
    known: Vec<SubjectRow>,
    rows: Mapped<SubjectRow>,
    masks: Mapped<Masks>,
    timelines: Mapped<Timeline>,
    used: Mapped<u64>,
    /// When each slot of a subject was left, counted in graces that were over; subjects that never
    /// changed are missing.
    left: HashMap<u32, [Option<u64>; OUTCOME_SLOTS as usize]>,
    /// Graces that are over.
    graces: u64,
}

impl LiveOutcomes {
    pub(super) fn new(
        known: Vec<SubjectRow>,
        rows: Mapped<SubjectRow>,
        masks: Mapped<Masks>,
        timelines: Mapped<Timeline>,
        used: Mapped<u64>,
    ) -> Self {
        Self { known, rows, masks, timelines, used, left: HashMap::new(), graces: 0 }
    }

    fn row(&self, subject: u32) -> Option<&SubjectRow> {
        self.known.get(subject as usize).filter(|row| row.flags & SUBJECT_LIVE != 0)
    }

    fn control(&self, subject: u32) -> Control {
        Control(self.rows.word(subject as usize).load(Ordering::Acquire))
    }

    /// A slot that no program can read: it was never used, or left before a grace that is over.
    fn free_slot(&self, subject: u32) -> Option<u32> {
        let live = self.control(subject).slot();
        let left = self.left.get(&subject).copied().unwrap_or_default();
        (0..OUTCOME_SLOTS)
            .filter(|slot| *slot != live)
            .find(|slot| left[*slot as usize].is_none_or(|since| since < self.graces))
    }

    /// Fills a free slot and makes it count.
    fn store(&mut self, subject: u32, slot: u32, row: SubjectRow, outcomes: &SubjectOutcomes) {
        let before = self.control(subject);
        self.masks.write((row.masks + slot * row.mask_stride) as usize, &outcomes.masks);
        self.timelines.write((row.timeline + slot * row.timeline_stride) as usize, &[outcomes.timeline()]);
        let control = Control::new(slot, outcomes.boundaries.len() as u32, before.sequence() + 1);
        // Everything above is visible to whoever sees the word.
        self.rows.word(subject as usize).store(control.0, Ordering::SeqCst);
        self.left.entry(subject).or_default()[before.slot() as usize] = Some(self.graces);
    }

    /// Whether some subject has no slot left for its next change.
    fn is_short(&self) -> bool {
        self.left.keys().any(|subject| self.free_slot(*subject).is_none())
    }
}

impl Kernel {
    /// Replaces what one subject of the live generation may do. Decisions that begin after the return
    /// are made by the new outcomes; each is made by the old or the new ones, never by both.
    ///
    /// # Errors
    /// If no generation is live, or it has no such subject, or the outcomes were made for another
    /// generation. Nothing is changed then.
    pub fn set_outcomes(&mut self, subject: u32, outcomes: &SubjectOutcomes) -> Result<(), KernelError> {
        let unfit = || KernelError::Outcomes { subject };
        let live = self.outcomes.as_ref().ok_or_else(unfit)?;
        let row = *live.row(subject).filter(|row| outcomes.fits(row)).ok_or_else(unfit)?;
        if live.free_slot(subject).is_none() {
            self.grace()?;
        }
        let live = self.outcomes.as_mut().ok_or_else(unfit)?;
        let slot = live.free_slot(subject).ok_or_else(unfit)?;
        live.store(subject, slot, row, outcomes);
        Ok(())
    }

    /// Waits in advance for what the next change of some subject would wait for, if there is such a
    /// subject. To be called when there is time.
    ///
    /// # Errors
    /// If the kernel does not say when programs have ended.
    pub fn settle(&mut self) -> Result<(), KernelError> {
        if self.outcomes.as_ref().is_some_and(LiveOutcomes::is_short) { self.grace() } else { Ok(()) }
    }

    /// Returns when no program can read a slot that was left before the call.
    fn grace(&mut self) -> Result<(), KernelError> {
        barrier::wait(&self.maps, &self.inner)?;
        if let Some(live) = &mut self.outcomes {
            live.graces += 1;
        }
        Ok(())
    }

    /// The actions that were used at least once in the live generation, as bits, by outcome:
    /// `subjects[s].outcomes` plus the number in a cell. Empty if nothing is live.
    pub fn used(&self) -> Vec<u64> {
        self.outcomes.as_ref().map(|live| live.used.words()).unwrap_or_default()
    }

    /// The same of the generation before the live one, once after each switch.
    pub fn used_before(&mut self) -> Vec<u64> {
        self.outcomes_before.take().map(|before| before.used.words()).unwrap_or_default()
    }
}
