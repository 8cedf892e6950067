//! Landlock's three system calls, which the C library does not wrap (include/uapi/linux/landlock.h).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc::{self, c_int, c_long};

/// `landlock_create_ruleset(2)`: asks for the version of the interface instead.
const CREATE_RULESET_VERSION: c_int = 1;
/// `enum landlock_rule_type`.
const RULE_PATH_BENEATH: c_int = 1;
const RULE_NET_PORT: c_int = 2;
/// The version since which a ruleset has a word for the network.
const NETWORK_SINCE: u32 = 4;

/// `struct landlock_ruleset_attr`, as far as it is used here.
#[repr(C)]
struct RulesetAttribute {
    handled_access_fs: u64,
    handled_access_net: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct NetPort {
    allowed_access: u64,
    port: u64,
}

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The version of the interface that the running kernel has; an error where Landlock is not active.
pub fn version() -> io::Result<u32> {
    let nothing = std::ptr::null::<RulesetAttribute>();
    // SAFETY: with this flag, no structure is read.
    let version = checked(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0usize, CREATE_RULESET_VERSION)
    })?;
    Ok(version as u32)
}

/// Rules in the making.
pub struct Ruleset(OwnedFd);

impl Ruleset {
    /// A set that handles these rights of files and of the network, and allows none of them yet.
    pub fn new(files: u64, network: u64) -> io::Result<Self> {
        let attribute = RulesetAttribute { handled_access_fs: files, handled_access_net: network };
        // A kernel that does not know a part of the structure refuses it.
        let size = if version()? < NETWORK_SINCE { size_of::<u64>() } else { size_of::<RulesetAttribute>() };
        // SAFETY: the structure has at least the size that is given and outlives the call.
        let fd = checked(unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attribute, size, 0 as c_int)
        })?;
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as c_int) }))
    }

    /// Allows rights on what is open as `object`, and on everything below it.
    pub fn allow_beneath(&self, object: BorrowedFd<'_>, rights: u64) -> io::Result<()> {
        let rule = PathBeneath { allowed_access: rights, parent_fd: object.as_raw_fd() };
        // SAFETY: the structure that this type of rule has, which outlives the call.
        checked(unsafe {
            let (set, rule) = (self.0.as_raw_fd(), &raw const rule);
            libc::syscall(libc::SYS_landlock_add_rule, set, RULE_PATH_BENEATH, rule, 0 as c_int)
        })
        .map(drop)
    }

    /// Allows rights on a TCP port.
    pub fn allow_port(&self, port: u16, rights: u64) -> io::Result<()> {
        let rule = NetPort { allowed_access: rights, port: port.into() };
        // SAFETY: the structure that this type of rule has, which outlives the call.
        checked(unsafe {
            let (set, rule) = (self.0.as_raw_fd(), &raw const rule);
            libc::syscall(libc::SYS_landlock_add_rule, set, RULE_NET_PORT, rule, 0 as c_int)
        })
        .map(drop)
    }

    /// Puts this process under the rules, for good; it can no longer get more rights by executing.
    pub fn restrict_self(&self) -> io::Result<()> {
        nix::sys::prctl::set_no_new_privs()?;
        // SAFETY: takes numbers only.
        checked(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0 as c_int) })
            .map(drop)
    }
}
