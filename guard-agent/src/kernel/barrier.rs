//! Waiting until no program can see what was live before.

use super::KernelError;
use super::inner::{InnerMaps, as_array};
use aya::Ebpf;
use aya::maps::{Array, ArrayOfMaps, MapData};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;

/// `BPF_F_INNER_MAP` (include/uapi/linux/bpf.h).
const INNER_MAP: u32 = 1 << 12;

/// Returns when every non-sleepable program that ran at the time of the call has finished.
///
/// An update of a map of maps through bpf(2) ends with an RCU grace period for that very purpose
/// (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c), and all programs that read a generation are
/// non-sleepable.
pub(super) fn wait(ebpf: &mut Ebpf, maps: &InnerMaps) -> Result<(), KernelError> {
    const NAME: &str = "BARRIER";
    crate::fault::at(NAME).map_err(KernelError::system(NAME))?;
    let sizes = (size_of::<u32>(), size_of::<u64>());
    let map = maps.create(NAME, BPF_MAP_TYPE_ARRAY as u32, sizes, 1, INNER_MAP)?;
    let inner: Array<MapData, u64> =
        Array::try_from(as_array(map)).map_err(KernelError::map("open", NAME))?;
    let map =
        ebpf.map_mut(NAME).ok_or_else(|| KernelError::Object(format!("the object has no map {NAME}")))?;
    let mut outer: ArrayOfMaps<&mut MapData, Array<MapData, u64>> =
        ArrayOfMaps::try_from(map).map_err(KernelError::map("open", NAME))?;
    outer.set(0, &inner, 0).map_err(KernelError::map("update", NAME))
}
