//! Switching generations: fill the slot that is not live, store one word, free the old tables.

use super::elements::{insert_all, put_inner};
use super::inner::{ARRAY_FLAGS, InnerMaps};
use super::mapped::Mapped;
use super::maps::Maps;
use super::outcomes::LiveOutcomes;
use super::{Kernel, KernelError, barrier};
use crate::fault;
use crate::tables::Generation;
use aya::maps::MapData;
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH};
use guard_common::tables::{OUTCOME_SLOTS, SLOTS, live_word};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use zerocopy::{Immutable, IntoBytes};

/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;

impl Kernel {
    /// The number that the next generation will have.
    pub fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    /// Switches to `generation` and returns its number.
    ///
    /// The tables are written into maps that no program knows, then into the slot that no program
    /// reads, then one atomic store makes them live. Selectors follow.
    ///
    /// # Errors
    /// On any error the generation that was live, with its selectors, stays live.
    pub fn swap(&mut self, generation: &Generation) -> Result<u64, KernelError> {
        let number = self.next_generation();
        let slot = (number % u64::from(SLOTS)) as u32;
        let tables = Tables::new(&self.inner, generation, number)?;
        // Programs that still read the generation before the live one are done after this, so its
        // slot can be filled anew.
        barrier::wait(&self.maps, &self.inner)?;
        tables.publish(&self.maps, slot)?;
        let before = self.live.load();
        if !fault::leaves_out("LIVE") {
            self.live.store(live_word(number, slot));
        }
        // A new subject's label must not meet a generation that does not know it, so selectors come
        // after the switch; tasks that start in between are found by the iteration over all tasks.
        let selected = self.select(&generation.selectors);
        if let Err(error) = selected.and_then(|()| self.inherit()) {
            self.live.store(before);
            return Err(error);
        }
        self.generation = number;
        self.outcomes_before = self.outcomes.replace(tables.outcomes);
        Ok(number)
    }
}

/// The filled maps of one generation.
struct Tables {
    /// Each with the map of maps it belongs into.
    maps: Vec<(&'static str, MapData)>,
    outcomes: LiveOutcomes,
}

impl Tables {
    fn new(inner: &InnerMaps, generation: &Generation, number: u64) -> Result<Self, KernelError> {
        let mut header = generation.header;
        header.generation = number;
        let mut maps = Making { inner, made: Vec::new() };
        maps.array("HEADERS", &[header])?;
        maps.array("CELLS", &generation.cells)?;
        maps.array("OUTCOMES", &generation.outcomes)?;
        maps.array("NODES", &generation.nodes)?;
        maps.array("NETS4", &generation.net4)?;
        maps.array("NETS6", &generation.net6)?;
        maps.array("PORTS", &generation.ports)?;
        maps.array("ATTRIBUTES", &generation.attributes)?;
        maps.array("PATTERNS", &generation.patterns)?;
        maps.hash("EDGES", &generation.edges)?;
        maps.hash("SIGNERS", &generation.signers)?;
        let slots = OUTCOME_SLOTS as usize;
        let mut rows = maps.mapped("SUBJECTS", generation.subjects.len())?;
        rows.write(0, &generation.subjects);
        let mut masks = maps.mapped("MASKS", generation.masks.len() * slots)?;
        masks.write(0, &generation.masks);
        let mut timelines = maps.mapped("TIMELINES", generation.timelines.len() * slots)?;
        timelines.write(0, &generation.timelines);
        let used = maps.mapped("USED", generation.outcomes.len())?;
        let outcomes = LiveOutcomes::new(generation.subjects.clone(), rows, masks, timelines, used);
        Ok(Self { maps: maps.made, outcomes })
    }

    /// Puts all maps into a slot, all at the same time: each update waits for programs to end, and
    /// waits that overlap cost one.
    fn publish(&self, maps: &Maps, slot: u32) -> Result<(), KernelError> {
        let mut updates = Vec::with_capacity(self.maps.len());
        for (name, inner) in &self.maps {
            updates.push((*name, maps.outer(name)?, inner.fd().as_fd()));
        }
        let put = |(name, outer, inner): (&'static str, BorrowedFd<'_>, BorrowedFd<'_>)| {
            fault::at("put a map into its slot").map_err(KernelError::system(name))?;
            put_inner(outer, slot, inner).map_err(KernelError::map("switch", name))
        };
        thread::scope(|scope| {
            let running: Vec<_> = updates
                .into_iter()
                .map(|update| {
                    thread::Builder::new()
                        .stack_size(THREAD_STACK)
                        .spawn_scoped(scope, move || put(update))
                        // Without a thread it happens here, later but as well.
                        .map_err(|_| update)
                })
                .collect();
            let mut result = Ok(());
            for thread in running {
                let one = match thread {
                    Ok(thread) => thread.join().unwrap_or_else(|_| {
                        Err(KernelError::System {
                            call: "a thread that switches a map",
                            source: io::Error::other("it panicked"),
                        })
                    }),
                    Err(update) => put(update),
                };
                result = result.and(one);
            }
            result
        })
    }
}

/// Stack of a thread that makes one system call.
const THREAD_STACK: usize = 64 << 10;

/// Makes and fills maps.
struct Making<'a> {
    inner: &'a InnerMaps,
    made: Vec<(&'static str, MapData)>,
}

impl Making<'_> {
    /// An array of `values`.
    fn array<T>(&mut self, name: &'static str, values: &[T]) -> Result<(), KernelError>
    where
        T: IntoBytes + Immutable + Copy,
    {
        self.mapped(name, values.len()).map(|mut map| map.write(0, values))
    }

    /// An array of zeros, mapped.
    fn mapped<T>(&mut self, name: &'static str, len: usize) -> Result<Mapped<T>, KernelError>
    where
        T: IntoBytes + Immutable + Copy,
    {
        fault::at(name).map_err(KernelError::system(name))?;
        let entries = len.max(1);
        let sizes = (size_of::<u32>(), size_of::<T>());
        let map = self.inner.create(name, BPF_MAP_TYPE_ARRAY as u32, sizes, entries as u32, ARRAY_FLAGS)?;
        let mapped = Mapped::new(map.fd().as_fd(), entries).map_err(KernelError::map("map", name))?;
        self.made.push((name, map));
        Ok(mapped)
    }

    /// A hash map of these elements.
    fn hash<K, V>(&mut self, name: &'static str, elements: &[(K, V)]) -> Result<(), KernelError>
    where
        K: IntoBytes + Immutable + Copy,
        V: IntoBytes + Immutable + Copy,
    {
        fault::at(name).map_err(KernelError::system(name))?;
        let entries = elements.len().max(1) as u32;
        let sizes = (size_of::<K>(), size_of::<V>());
        let map = self.inner.create(name, BPF_MAP_TYPE_HASH as u32, sizes, entries, NO_PREALLOC)?;
        let (keys, values): (Vec<K>, Vec<V>) = elements.iter().copied().unzip();
        insert_all(map.fd().as_fd(), &keys, &values).map_err(KernelError::map("fill", name))?;
        self.made.push((name, map));
        Ok(())
    }
}
