//! Making the maps that go into the maps of maps.

use super::KernelError;
use super::load::object;
use aya::maps::MapData;
use nix::libc;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

/// `BPF_BTF_GET_FD_BY_ID` (include/uapi/linux/bpf.h).
const BTF_GET_FD_BY_ID: libc::c_int = 19;

/// Flags of every array of a generation, here and in the object: `BPF_F_INNER_MAP`, the array may have
/// another size than the map it replaces, and `BPF_F_MMAPABLE` (include/uapi/linux/bpf.h).
pub(super) const ARRAY_FLAGS: u32 = 1 << 12 | 1 << 10;

/// Makes inner maps that the kernel accepts in place of the ones the object declares.
///
/// A map of maps takes only maps that equal its first one in type, sizes and flags. Until 6.2 that
/// includes whether the map was made with type information (`timer_off` in `bpf_map_meta_equal`,
/// kernel/bpf/map_in_map.c: without it the field holds another error number). There, inner maps are
/// made with the object's own types; later kernels do not need the extra work.
pub(super) struct InnerMaps {
    typed: Option<(OwnedFd, HashMap<String, aya_obj::Map>)>,
}

impl InnerMaps {
    /// What the running kernel needs, with the number of the programs' type information.
    pub(super) fn new(types: Option<u32>, with_types: bool) -> Result<Self, KernelError> {
        if !with_types {
            return Ok(Self { typed: None });
        }
        let object =
            aya_obj::Object::parse(object()).map_err(|cause| KernelError::Object(cause.to_string()))?;
        let inner = object.maps.into_iter().filter_map(|(name, map)| Some((name, map.inner()?))).collect();
        let id = types
            .ok_or_else(|| KernelError::Object("the loaded programs have no type information".to_owned()))?;
        Ok(Self {
            typed: Some((btf_fd(id).map_err(KernelError::system("bpf(BPF_BTF_GET_FD_BY_ID)"))?, inner)),
        })
    }

    /// A new inner map for the map of maps `name`.
    pub(super) fn create(
        &self,
        name: &'static str,
        map_type: u32,
        sizes: (usize, usize),
        entries: u32,
        flags: u32,
    ) -> Result<MapData, KernelError> {
        let label = "inner";
        let created = match &self.typed {
            None => {
                let (key, value) = (sizes.0 as u32, sizes.1 as u32);
                let object = aya_obj::Map::new_from_params(map_type, key, value, entries, flags);
                MapData::create(object, label, None)
            }
            Some((btf, declared)) => {
                let mut object = declared
                    .get(name)
                    .cloned()
                    .ok_or_else(|| KernelError::Object(format!("the object has no inner map for {name}")))?;
                object.set_max_entries(entries);
                MapData::create(object, label, Some(btf.as_fd()))
            }
        };
        created.map_err(KernelError::map("create", name))
    }
}

/// A descriptor of loaded type information.
fn btf_fd(id: u32) -> io::Result<OwnedFd> {
    // The attribute of this command begins with the id; the rest of `union bpf_attr` may be left out.
    let attribute = [id, 0, 0, 0];
    // SAFETY: the attribute outlives the call and is given with its size.
    let descriptor = unsafe {
        libc::syscall(libc::SYS_bpf, BTF_GET_FD_BY_ID, attribute.as_ptr(), size_of_val(&attribute))
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}
