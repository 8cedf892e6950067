//! bpf(2) by hand: commands of which the attribute is written as 32-bit words, and what objects exist.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::libc::{self, c_int};

// `enum bpf_cmd` (include/uapi/linux/bpf.h).
/// Finds the map after a number.
pub const MAP_GET_NEXT_ID: c_int = 12;
/// Opens a map by its number.
pub const MAP_GET_FD_BY_ID: c_int = 14;
const OBJ_GET_INFO_BY_FD: c_int = 15;

/// One bpf(2) command whose attribute is these words, in the kernel's layout.
pub fn bpf(command: c_int, attribute: &mut [u32]) -> io::Result<c_int> {
    // SAFETY: the attribute is given with its size, and every pointer in it leads to memory that the
    // callers keep for the length of the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, attribute.as_mut_ptr(), size_of_val(attribute) as libc::c_uint)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as c_int) }
}

/// The same for a command that returns a new descriptor.
pub fn descriptor(command: c_int, attribute: &mut [u32]) -> io::Result<OwnedFd> {
    let fd = bpf(command, attribute)?;
    // SAFETY: these commands return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An address as two words.
pub fn halves(address: usize) -> [u32; 2] {
    [address as u32, (address as u64 >> 32) as u32]
}

/// What the kernel says of an object: the first words of `struct bpf_map_info` or `struct bpf_prog_info`.
pub fn info(object: BorrowedFd<'_>) -> io::Result<[u32; 64]> {
    let mut info = [0u32; 64];
    let [low, high] = halves(info.as_mut_ptr() as usize);
    bpf(OBJ_GET_INFO_BY_FD, &mut [object.as_raw_fd() as u32, size_of_val(&info) as u32, low, high])?;
    Ok(info)
}

/// All BPF maps of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maps {
    /// How many there are.
    pub count: usize,
    /// Bytes of kernel memory that they are accounted with.
    pub bytes: u64,
}

impl Maps {
    /// Those that exist now.
    pub fn now() -> Result<Self> {
        let mut maps = Self { count: 0, bytes: 0 };
        let mut id = 0;
        loop {
            // `start_id`, `next_id`, `open_flags`.
            let mut attribute = [id, 0, 0];
            match bpf(MAP_GET_NEXT_ID, &mut attribute) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(maps),
                other => other.context("list the BPF maps")?,
            };
            id = attribute[1];
            // One that is freed meanwhile is none.
            let Ok(map) = descriptor(MAP_GET_FD_BY_ID, &mut [id, 0, 0]) else { continue };
            maps.count += 1;
            maps.bytes += memory(map.as_fd())?;
        }
    }
}

/// What a map is accounted with (`bpf_map_show_fdinfo`).
fn memory(map: BorrowedFd<'_>) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).context("read fdinfo")?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("memlock:")).context("fdinfo has no memlock")?;
    line.trim().parse().context("parse memlock")
}
