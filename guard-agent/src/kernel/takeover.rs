//! How an agent goes on with what another one left in the kernel.
//!
//! *The same programs* are adopted: maps and links are opened, and nothing changes but who the agent is. Until it
//! makes a generation live, the one that was live decides.
//!
//! *Other programs*, of an older or newer version, are replaced without a gap. The agent's own are attached
//! beside them, so that both must allow what is done; they get tables and selectors, then the label of every task,
//! over and over until nothing is missing; enforcement is proven; then they are pinned, take the name
//! `current` in one step, and the others are detached. At whatever step that ends, one set is current and whole.

use super::load::{Fate, Kernel, LABELS_BEFORE, digest, object};
use super::maps::Maps;
use super::pins::{Armed, ITERATORS, LINKS, MAPS, Pins, open_link, pin_link};
use super::programs::PROGRAMS;
use super::running::Iterators;
use super::selectors::Installed;
use super::{KernelError, PinError};
use crate::fault;
use aya::maps::{HashMap, MapInfo};
use guard_common::handover::KEPT;
use guard_common::tables::live_number;
use std::path::PathBuf;

/// Takes over programs that are those of this agent.
pub(super) fn adopt(armed: &Armed, pins: Pins) -> Result<Kernel, KernelError> {
    let maps = Maps::pinned(&armed.path.join(MAPS))?;
    let directory = armed.path.join(LINKS);
    let mut links = Vec::new();
    for (name, ..) in PROGRAMS.iter().filter(|(name, ..)| directory.join(name).exists()) {
        links.push((*name, open_link(&directory.join(name))?));
    }
    fault::at("adopt").map_err(KernelError::system("adopt"))?;
    let iterators = Iterators::Pinned(armed.path.join(ITERATORS));
    let mut kernel = Kernel::new(maps, links, iterators, Fate::Stay(pins))?;
    kernel.generation = live_number(kernel.live.load());
    kernel.selectors = Installed::read(&kernel.maps)?;
    // What an agent was about to label when it ended: the numbers may be others' by now.
    kernel.forget_requests()?;
    kernel.label_running(&[])?;
    tracing::info!(generation = kernel.generation, programs = kernel.links.len(), "adopted what is pinned");
    Ok(kernel)
}

/// The maps of other programs that these use as well.
pub(super) fn kept(before: &Armed) -> Result<Vec<&'static str>, KernelError> {
    if !before.same_layout {
        return Ok(Vec::new());
    }
    let object = aya_obj::Object::parse(object()).map_err(|cause| KernelError::Object(cause.to_string()))?;
    let mut kept = Vec::new();
    for name in KEPT {
        let path = before.path.join(MAPS).join(name);
        let Some(wanted) = object.maps.get(name).filter(|_| path.exists()) else { continue };
        let found = MapInfo::from_pin(&path).map_err(|cause| PinError::object("look at", &path, &cause))?;
        if (found.key_size(), found.value_size()) == (wanted.key_size(), wanted.value_size()) {
            kept.push(name);
        } else {
            tracing::warn!(map = name, "its layout is another one now: what it holds is not taken over");
        }
    }
    Ok(kept)
}

impl Kernel {
    /// Takes over the labels of the programs beside which these were attached, until no task has another one
    /// than it had by those.
    pub(super) fn inherit(&mut self) -> Result<(), KernelError> {
        if !std::mem::take(&mut self.inherits) {
            return Ok(());
        }
        fault::at("inherit").map_err(KernelError::system("inherit"))?;
        let labels = self.inherit_to_fixed_point()?;
        tracing::info!(labels, "took over the labels of the programs that are replaced");
        Ok(())
    }

    /// Makes the programs stay when the agent ends, if they are to; those that they replace end. To be called
    /// when enforcement is proven.
    ///
    /// # Errors
    /// If they cannot be pinned. What was pinned before still is, and these end with the agent.
    pub fn keep(&mut self) -> Result<(), KernelError> {
        let pins = match std::mem::replace(&mut self.fate, Fate::End) {
            Fate::ToBePinned(pins) => pins,
            other => {
                self.fate = other;
                return Ok(());
            }
        };
        match self.pin(&pins) {
            Ok(current) => {
                tracing::info!(path = %current.display(), programs = self.links.len(), "pinned");
                // What only a takeover needs is not held any longer.
                self.iterators = Iterators::Pinned(current.join(ITERATORS));
                self.maps.forget(LABELS_BEFORE);
                self.fate = Fate::Stay(pins);
                Ok(())
            }
            Err(error) => {
                // Half of it must not outlive this.
                if let Err(error) = pins.clear() {
                    tracing::error!("{error}");
                }
                Err(error)
            }
        }
    }

    /// Pins everything, and makes it what counts. Returns where.
    fn pin(&mut self, pins: &Pins) -> Result<PathBuf, KernelError> {
        let new = pins.begin(&digest(), self.links.len())?;
        let step = |name| move || fault::at(name).map_err(KernelError::system("pin"));
        step("pin maps")()?;
        self.maps.pin(&new.join(MAPS), LABELS_BEFORE)?;
        step("pin iterators")()?;
        self.iterators.pin(&new.join(ITERATORS))?;
        let mut pinned = Vec::with_capacity(self.links.len());
        for (name, link) in std::mem::take(&mut self.links) {
            if name == "file_open" {
                step("pin links")()?;
            }
            pinned.push((name, pin_link(link, &new.join(LINKS).join(name))?));
        }
        self.links = pinned;
        Ok(pins.commit()?)
    }

    /// Ends enforcement: every program is detached when this returns, so that no event comes any more, and
    /// nothing is pinned. The maps stay until this is dropped.
    ///
    /// # Errors
    /// If pins cannot be removed.
    pub fn disarm(&mut self) -> Result<(), KernelError> {
        let removed = match &self.fate {
            Fate::Stay(pins) | Fate::ToBePinned(pins) => pins.remove(),
            Fate::End => Ok(()),
        };
        // What decides comes before what spreads labels.
        while self.links.pop().is_some() {}
        Ok(removed?)
    }

    fn forget_requests(&mut self) -> Result<(), KernelError> {
        let mut map: HashMap<_, u32, [u8; 32]> = HashMap::try_from(self.maps.get_mut("REQUESTS")?)
            .map_err(KernelError::map("open", "REQUESTS"))?;
        let left: Vec<u32> =
            map.keys().collect::<Result<_, _>>().map_err(KernelError::map("list", "REQUESTS"))?;
        for tgid in left {
            map.remove(&tgid).map_err(KernelError::map("remove from", "REQUESTS"))?;
        }
        Ok(())
    }
}
