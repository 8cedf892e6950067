//! Waiting until no program can see what was live before.

use super::KernelError;
use super::elements::put_inner;
use super::inner::{ARRAY_FLAGS, InnerMaps};
use super::maps::Maps;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use std::os::fd::AsFd;

/// Returns when every non-sleepable program that ran at the time of the call has finished.
///
/// An update of a map of maps through bpf(2) ends with an RCU grace period for that very purpose
/// (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c), and all programs that read a generation are
/// non-sleepable.
pub(super) fn wait(maps: &Maps, inner: &InnerMaps) -> Result<(), KernelError> {
    const NAME: &str = "BARRIER";
    crate::fault::at(NAME).map_err(KernelError::system(NAME))?;
    let sizes = (size_of::<u32>(), size_of::<u64>());
    let map = inner.create(NAME, BPF_MAP_TYPE_ARRAY as u32, sizes, 1, ARRAY_FLAGS)?;
    put_inner(maps.outer(NAME)?, 0, map.fd().as_fd()).map_err(KernelError::map("update", NAME))
}
