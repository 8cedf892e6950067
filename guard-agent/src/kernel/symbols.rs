//! Addresses of the kernel's symbols.

use crate::fault;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

/// Every symbol with its address (proc(5)).
const SYMBOLS: &str = "/proc/kallsyms";

/// Addresses of locks whose sequence counts the programs read; 0 where the kernel does not say it.
#[derive(Clone, Copy, Default)]
pub(super) struct Locks {
    /// `rename_lock` (fs/dcache.c), which tells whether what is remembered of directories still holds.
    /// Without it nothing is remembered, and decisions cost more.
    pub(super) rename: u64,
    /// `mount_lock` (fs/namespace.c), which tells whether mounts changed while they were read. Without it a
    /// subject with a root of its own has no name for what is mounted there.
    pub(super) mount: u64,
}

/// Finds them.
pub(super) fn locks() -> Locks {
    // A word that never changes, for the test that shows what the lock is needed for.
    let rename = if fault::leaves_out("rename_lock") { "linux_banner" } else { "rename_lock" };
    match addresses([rename, "mount_lock"]) {
        Ok([Some(rename), Some(mount)]) => Locks { rename, mount },
        Ok([rename_found, mount]) => {
            tracing::warn!(
                "{SYMBOLS} does not give the addresses of {rename} and mount_lock, so decisions about files cost \
                 more than they need to, and what is mounted in a container is unclassified: set the sysctl \
                 kernel.kptr_restrict to 0 or 1 before the agent starts"
            );
            Locks { rename: rename_found.unwrap_or(0), mount: mount.unwrap_or(0) }
        }
        Err(error) => {
            tracing::warn!(%error, "{SYMBOLS} cannot be read, so decisions about files cost more than they need to");
            Locks::default()
        }
    }
}

/// The addresses of symbols; `None` for one that is not there or where the kernel hides addresses.
fn addresses<const N: usize>(names: [&str; N]) -> io::Result<[Option<u64>; N]> {
    let mut symbols = BufReader::with_capacity(1 << 16, File::open(SYMBOLS)?);
    let mut line = String::new();
    let mut found = [None; N];
    while found.iter().any(Option::is_none) && symbols.read_line(&mut line)? != 0 {
        let mut words = line.split_ascii_whitespace();
        if let (Some(address), _, Some(name)) = (words.next(), words.next(), words.next())
            && let Some(at) = names.iter().position(|wanted| *wanted == name)
        {
            let address = u64::from_str_radix(address, 16).ok().filter(|address| *address != 0);
            match address {
                Some(address) => found[at] = Some(address),
                // The kernel hides all of them alike.
                None => return Ok(found),
            }
        }
        line.clear();
    }
    Ok(found)
}
