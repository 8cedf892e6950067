//! Addresses of the kernel's symbols.

use crate::fault;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

/// Every symbol with its address (proc(5)).
const SYMBOLS: &str = "/proc/kallsyms";

/// Address of `rename_lock` (fs/dcache.c), whose sequence count tells the programs whether what they
/// remember of directories still holds. 0 if the kernel does not say it: the programs then remember
/// nothing, and decisions cost more.
pub(super) fn rename_lock() -> u64 {
    // A word that never changes, for the test that shows what the lock is needed for.
    let name = if fault::leaves_out("rename_lock") { "linux_banner" } else { "rename_lock" };
    match address(name) {
        Ok(Some(address)) => address,
        Ok(None) => {
            tracing::warn!(
                "{SYMBOLS} does not give the address of {name}, so decisions about files cost more than they \
                 need to: set the sysctl kernel.kptr_restrict to 0 or 1 before the agent starts"
            );
            0
        }
        Err(error) => {
            tracing::warn!(%error, "{SYMBOLS} cannot be read, so decisions about files cost more than they need to");
            0
        }
    }
}

/// The address of a symbol; `None` if it is not there or the kernel hides addresses.
fn address(name: &str) -> io::Result<Option<u64>> {
    let mut symbols = BufReader::with_capacity(1 << 16, File::open(SYMBOLS)?);
    let mut line = String::new();
    while symbols.read_line(&mut line)? != 0 {
        let mut words = line.split_ascii_whitespace();
        if let (Some(address), _, Some(found)) = (words.next(), words.next(), words.next())
            && found == name
        {
            return Ok(u64::from_str_radix(address, 16).ok().filter(|address| *address != 0));
        }
        line.clear();
    }
    Ok(None)
}
