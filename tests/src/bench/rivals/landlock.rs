//! Landlock, with one rule that permits what is used among others that do not matter.

use std::io;
use std::os::fd::AsFd;

use guard_tests::landlock::{Ruleset, version};
use guard_tests::raw;

use crate::operations::PORTS;
use crate::places::Places;

/// `LANDLOCK_ACCESS_NET_BIND_TCP` and `LANDLOCK_ACCESS_NET_CONNECT_TCP`.
const NETWORK: u64 = 3;
/// The versions of the interface that brought rights of files, and how many there were then.
const FILES: [(u32, u32); 4] = [(1, 13), (2, 14), (3, 15), (5, 16)];
/// The version since which there are rules for ports.
const NETWORK_SINCE: u32 = 4;
/// A port that is not used, and those after it.
const OTHER_PORTS: u16 = 20_000;

/// Puts this process under so many rules for files, and as many for ports besides those that are used.
pub(crate) fn restrict(places: &Places, rules: usize) -> io::Result<()> {
    let version = version()?;
    let rights = FILES.iter().rfind(|(since, _)| *since <= version).map_or(0, |(_, rights)| *rights);
    let files = (1 << rights) - 1;
    let has_network = version >= NETWORK_SINCE;
    let set = Ruleset::new(files, if has_network { NETWORK } else { 0 })?;
    set.allow_beneath(raw::open_path(&places.permitted())?.as_fd(), files)?;
    for number in 1..rules {
        set.allow_beneath(raw::open_path(&places.other(number))?.as_fd(), files)?;
    }
    if has_network {
        let others = (1..rules).map(|number| OTHER_PORTS + number as u16);
        for port in PORTS.into_iter().chain(others) {
            set.allow_port(port, NETWORK)?;
        }
    }
    set.restrict_self()
}
