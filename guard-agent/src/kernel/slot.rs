//! Switching generations: fill the slot that is not live, store one word, free the old tables.

use super::inner::{InnerMaps, as_array, as_hash};
use super::pod::Wire;
use super::{Kernel, KernelError, barrier};
use crate::fault;
use crate::tables::Generation;
use aya::Ebpf;
use aya::maps::{Array, ArrayOfMaps, HashMap, MapData};
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH};
use guard_common::path::EdgeKey;
use guard_common::tables::{SLOTS, live_word};
use zerocopy::{Immutable, IntoBytes};

/// `BPF_F_INNER_MAP`: the array may have another size than the map it replaces
/// (include/uapi/linux/bpf.h).
const INNER_MAP: u32 = 1 << 12;
/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;

impl Kernel {
    /// The number that the next generation will have.
    pub fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    /// Switches to `generation` and returns its number.
    ///
    /// The tables are written into the slot that no program reads, then one atomic store makes them
    /// live. Selectors follow.
    ///
    /// # Errors
    /// On any error the generation that was live, with its selectors, stays live.
    pub fn swap(&mut self, generation: &Generation) -> Result<u64, KernelError> {
        let number = self.next_generation();
        let slot = (number % u64::from(SLOTS)) as u32;
        // Programs that still read the generation before the live one are done after this, so its
        // slot can be filled anew.
        barrier::wait(&mut self.ebpf, &self.inner)?;
        fill(&mut self.ebpf, &self.inner, slot, generation, number)?;
        let before = if self.generation == 0 { 0 } else { live_word(self.generation, 1 - slot) };
        if !fault::leaves_out("LIVE") {
            self.live.store(live_word(number, slot));
        }
        // A new subject's label must not meet a generation that does not know it, so selectors come
        // after the switch; tasks that start in between are found by the iteration over all tasks.
        if let Err(error) = self.select(&generation.selectors) {
            self.live.store(before);
            return Err(error);
        }
        self.generation = number;
        Ok(number)
    }
}

fn fill(
    ebpf: &mut Ebpf,
    inner: &InnerMaps,
    slot: u32,
    generation: &Generation,
    number: u64,
) -> Result<(), KernelError> {
    let mut header = generation.header;
    header.generation = number;
    array(ebpf, inner, "HEADERS", slot, &[header])?;
    array(ebpf, inner, "SUBJECTS", slot, &generation.subjects)?;
    array(ebpf, inner, "CELLS", slot, &generation.cells)?;
    array(ebpf, inner, "OUTCOMES", slot, &generation.outcomes)?;
    array(ebpf, inner, "MASKS", slot, &generation.masks)?;
    array(ebpf, inner, "NODES", slot, &generation.nodes)?;
    array(ebpf, inner, "NETS4", slot, &generation.net4)?;
    array(ebpf, inner, "NETS6", slot, &generation.net6)?;
    array(ebpf, inner, "PORTS", slot, &generation.ports)?;
    array(ebpf, inner, "ATTRIBUTES", slot, &generation.attributes)?;
    array(ebpf, inner, "PATTERNS", slot, &generation.patterns)?;
    edges(ebpf, inner, slot, &generation.edges)
}

/// Makes an array of `values` and puts it into a slot.
fn array<T>(
    ebpf: &mut Ebpf,
    maps: &InnerMaps,
    name: &'static str,
    slot: u32,
    values: &[T],
) -> Result<(), KernelError>
where
    T: IntoBytes + Immutable + Copy + 'static,
{
    fault::at(name).map_err(KernelError::system(name))?;
    let entries = values.len().max(1) as u32;
    let sizes = (size_of::<u32>(), size_of::<T>());
    let map = maps.create(name, BPF_MAP_TYPE_ARRAY as u32, sizes, entries, INNER_MAP)?;
    let mut inner: Array<MapData, Wire<T>> =
        Array::try_from(as_array(map)).map_err(KernelError::map("open", name))?;
    for (index, value) in values.iter().enumerate() {
        inner.set(index as u32, Wire(*value), 0).map_err(KernelError::map("fill", name))?;
    }
    let mut outer: ArrayOfMaps<&mut MapData, Array<MapData, Wire<T>>> = outer(ebpf, name)?;
    outer.set(slot, &inner, 0).map_err(KernelError::map("switch", name))
}

/// Makes the trie's hash map and puts it into a slot.
fn edges(ebpf: &mut Ebpf, maps: &InnerMaps, slot: u32, edges: &[(EdgeKey, u32)]) -> Result<(), KernelError> {
    const NAME: &str = "EDGES";
    fault::at(NAME).map_err(KernelError::system(NAME))?;
    let entries = edges.len().max(1) as u32;
    let sizes = (size_of::<EdgeKey>(), size_of::<u32>());
    let map = maps.create(NAME, BPF_MAP_TYPE_HASH as u32, sizes, entries, NO_PREALLOC)?;
    let mut inner: HashMap<MapData, Wire<EdgeKey>, u32> =
        HashMap::try_from(as_hash(map)).map_err(KernelError::map("open", NAME))?;
    for (key, node) in edges {
        inner.insert(Wire(*key), node, 0).map_err(KernelError::map("fill", NAME))?;
    }
    let mut outer: ArrayOfMaps<&mut MapData, HashMap<MapData, Wire<EdgeKey>, u32>> = outer(ebpf, NAME)?;
    outer.set(slot, &inner, 0).map_err(KernelError::map("switch", NAME))
}

fn outer<'a, V: aya::maps::InnerMap>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<ArrayOfMaps<&'a mut MapData, V>, KernelError> {
    let map =
        ebpf.map_mut(name).ok_or_else(|| KernelError::Object(format!("the object has no map {name}")))?;
    ArrayOfMaps::try_from(map).map_err(KernelError::map("open", name))
}
