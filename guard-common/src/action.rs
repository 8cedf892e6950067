//! The action table: one verb at the system-call boundary per row.
//!
//! Compiler, oracle, kernel programs, event names and `docs/actions.md` are all derived from it.

/// What kind of resource an action is taken on: the Cedar entity type of the request's resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Resource {
    /// `Guard::File`: something opened, executed or mapped by name.
    File,
    /// `Guard::Dir`: a directory.
    Dir,
    /// `Guard::File` or `Guard::Dir`, by what the name refers to.
    FileOrDir,
    /// `Guard::File`, or `Guard::Memory` for a mapping without a file.
    FileOrMemory,
    /// `Guard::Endpoint`: an IP address, a port and a protocol.
    Endpoint,
    /// `Guard::Protocol`: a socket family or protocol without an address that policy can name.
    Protocol,
    /// `Guard::Unix`: a unix socket, by path or abstract name.
    Unix,
    /// `Guard::Process`: another process.
    Process,
    /// `Guard::Capability`: a Linux capability.
    Capability,
    /// `Guard::Machine`: the host.
    Machine,
}

/// How far this version enforces an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Decided in the kernel at every operation that is this action.
    Enforced,
    /// Decided in the kernel at some of its operations; the text says which are missing.
    Partly(&'static str),
    /// Accepted in policy, decided by nothing in this version.
    NotYet,
}

/// One row of the action table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The action.
    pub action: Action,
    /// Its dotted name: the Cedar action id, and the name in events.
    pub name: &'static str,
    /// The Cedar action groups it belongs to directly.
    pub groups: &'static [&'static str],
    /// What it is taken on.
    pub resource: Resource,
    /// The error number a denied caller sees, positive, as in `errno-base.h`.
    pub errno: i32,
    /// The hook that decides it, for the generated reference.
    pub hook: &'static str,
    /// How far this version enforces it.
    pub coverage: Coverage,
}

/// Error number "operation not permitted" (`include/uapi/asm-generic/errno-base.h`).
pub const EPERM: i32 = 1;
/// Error number "try again" (`include/uapi/asm-generic/errno-base.h`).
pub const EAGAIN: i32 = 11;
/// Error number "permission denied" (`include/uapi/asm-generic/errno-base.h`).
pub const EACCES: i32 = 13;
/// Error number "no such file or directory" (`include/uapi/asm-generic/errno-base.h`).
pub const ENOENT: i32 = 2;
/// Error number "connection refused" (`include/uapi/asm-generic/errno.h`).
pub const ECONNREFUSED: i32 = 111;

macro_rules! actions {
    ($($variant:ident = $name:literal, [$($group:literal),*], $resource:ident, $errno:ident, $hook:literal, $coverage:expr;)*) => {
        /// An action. The discriminant is the action's bit in every mask of [`crate::tables::Masks`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Action {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        /// Every action, in the order of its bit.
        pub const TABLE: &[Row] = &[
            $(Row {
                action: Action::$variant,
                name: $name,
                groups: &[$($group),*],
                resource: Resource::$resource,
                errno: $errno,
                hook: $hook,
                coverage: $coverage,
            },)*
        ];
    };
}

use Coverage::{Enforced, NotYet, Partly};

const AT_OPEN: Coverage = Partly("decided when the file is opened, not again on each use");

actions! {
    FileRead = "file.read", ["read"], File, EACCES, "file_open", AT_OPEN;
    FileWrite = "file.write", ["mutate"], File, EACCES, "file_open", AT_OPEN;
    FileAppend = "file.append", ["mutate"], File, EACCES, "file_open", AT_OPEN;
    FileTruncate = "file.truncate", ["mutate"], File, EACCES, "file_open",
        Partly("decided for O_TRUNC; truncate(2) and ftruncate(2) are not");
    FileCreate = "file.create", ["mutate"], File, EACCES, "", NotYet;
    FileRemove = "file.remove", ["mutate"], File, EACCES, "", NotYet;
    FileRename = "file.rename", ["mutate"], FileOrDir, EACCES, "", NotYet;
    FileLink = "file.link", ["mutate"], File, EACCES, "", NotYet;
    FileSymlink = "file.symlink", ["mutate"], File, EACCES, "", NotYet;
    FileMknod = "file.mknod", ["mutate"], File, EACCES, "", NotYet;
    FileSetattr = "file.setattr", ["mutate"], File, EACCES, "", NotYet;
    FileIoctl = "file.ioctl", ["file.*"], File, EACCES, "file_open",
        Partly("decided for opens that allow nothing but ioctl (access mode 3)");
    DirList = "dir.list", ["read"], Dir, EACCES, "file_open", AT_OPEN;
    DirCreate = "dir.create", ["mutate"], Dir, EACCES, "", NotYet;
    DirRemove = "dir.remove", ["mutate"], Dir, EACCES, "", NotYet;
    Exec = "exec", ["exec.*"], File, EACCES, "bprm_creds_for_exec, bprm_check_security", Enforced;
    ExecMap = "exec.map", ["exec.*"], FileOrMemory, EACCES, "mmap_file, file_open",
        Partly("decided for mmap; a later mprotect(PROT_EXEC) is not");
    NetConnect = "net.connect", ["net.out"], Endpoint, EACCES, "socket_connect",
        Partly("decided for connect(2); TCP fast open by sendmsg is not");
    NetSend = "net.send", ["net.out"], Endpoint, EACCES, "", NotYet;
    NetBind = "net.bind", ["net.in"], Endpoint, EACCES, "", NotYet;
    NetListen = "net.listen", ["net.in"], Endpoint, EACCES, "", NotYet;
    NetAccept = "net.accept", ["net.in"], Endpoint, EACCES, "", NotYet;
    NetReceive = "net.receive", ["net.in"], Endpoint, EACCES, "", NotYet;
    NetRaw = "net.raw", ["net.*"], Protocol, EACCES, "socket_connect",
        Partly("decided for connect(2) on families other than IPv4, IPv6 and unix");
    UnixConnect = "unix.connect", ["unix.*"], Unix, EACCES, "unix_stream_connect", Enforced;
    UnixSend = "unix.send", ["unix.*"], Unix, EACCES, "unix_may_send", Enforced;
    UnixBind = "unix.bind", ["unix.*"], Unix, EACCES, "", NotYet;
    UnixAccept = "unix.accept", ["unix.*"], Unix, EACCES, "", NotYet;
    ProcSignal = "proc.signal", ["proc.*"], Process, EPERM, "", NotYet;
    ProcTrace = "proc.trace", ["proc.*"], Process, EPERM, "", NotYet;
    SysCap = "sys.cap", ["sys.*"], Capability, EPERM, "", NotYet;
    SysMount = "sys.mount", ["sys.*"], Machine, EPERM, "", NotYet;
    SysUserns = "sys.userns", ["sys.*"], Machine, EPERM, "", NotYet;
    SysBpf = "sys.bpf", ["sys.*"], Machine, EPERM, "", NotYet;
    SysModule = "sys.module", ["sys.*"], Machine, EPERM, "", NotYet;
    SysUring = "sys.uring", ["sys.*"], Machine, EPERM, "", NotYet;
    SysSetid = "sys.setid", ["sys.*"], Machine, EPERM, "", NotYet;
}

/// Action groups: name and the groups it belongs to. `*` holds everything.
pub const GROUPS: &[(&str, &[&str])] = &[
    ("*", &[]),
    ("file.*", &["*"]),
    ("read", &["file.*"]),
    ("mutate", &["file.*"]),
    ("exec.*", &["*"]),
    ("net.*", &["*"]),
    ("net.out", &["net.*"]),
    ("net.in", &["net.*"]),
    ("unix.*", &["*"]),
    ("proc.*", &["*"]),
    ("sys.*", &["*"]),
];

impl Action {
    /// The action's bit in a mask.
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// The action's row in the table.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The action whose bit has this index, if there is one.
    pub fn from_index(index: u8) -> Option<Self> {
        TABLE.get(index as usize).map(|row| row.action)
    }

    /// The action with this dotted name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.action)
    }

    /// The error number a denied caller sees where a policy wants no trace of the resource (`@errno`), if
    /// the action can answer so.
    pub const fn quiet_errno(self) -> Option<i32> {
        if self.bit() & QUIET_FILE != 0 {
            Some(ENOENT)
        } else if self.bit() & QUIET_PEER != 0 {
            Some(ECONNREFUSED)
        } else {
            None
        }
    }

    /// The error number a denied caller sees. A constant table, so that kernel programs return
    /// values which the verifier can bound.
    pub const fn errno(self) -> i32 {
        match self {
            Self::ProcSignal | Self::ProcTrace => EPERM,
            Self::SysCap | Self::SysMount | Self::SysUserns | Self::SysBpf => EPERM,
            Self::SysModule | Self::SysUring | Self::SysSetid => EPERM,
            _ => EACCES,
        }
    }
}

/// Actions that answer [`ENOENT`] where a policy says so: those that look for a file by its name.
pub const QUIET_FILE: u64 = Action::FileRead.bit()
    | Action::FileWrite.bit()
    | Action::FileAppend.bit()
    | Action::FileTruncate.bit()
    | Action::FileIoctl.bit()
    | Action::DirList.bit()
    | Action::Exec.bit();

/// Actions that answer [`ECONNREFUSED`] where a policy says so: those that look for a peer.
pub const QUIET_PEER: u64 =
    Action::NetConnect.bit() | Action::NetSend.bit() | Action::UnixConnect.bit() | Action::UnixSend.bit();

/// Every action that `name`, an action or a group, stands for; `None` if it is neither.
pub fn expand(name: &str) -> Option<u64> {
    if let Some(action) = Action::from_name(name) {
        return Some(action.bit());
    }
    if !GROUPS.iter().any(|(group, _)| *group == name) {
        return None;
    }
    Some(
        TABLE
            .iter()
            .filter(|row| row.groups.iter().any(|g| within(g, name)))
            .map(|row| row.action.bit())
            .sum(),
    )
}

/// Whether group `inner` is `outer` or belongs to it, directly or not.
fn within(inner: &str, outer: &str) -> bool {
    inner == outer
        || GROUPS.iter().any(|(name, parents)| *name == inner && parents.iter().any(|p| within(p, outer)))
}

const _: () = assert!(TABLE.len() <= 64, "a mask has one bit per action");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_what_their_names_say() {
        assert_eq!(expand("read"), Some(Action::FileRead.bit() | Action::DirList.bit()));
        assert_eq!(expand("net.out"), Some(Action::NetConnect.bit() | Action::NetSend.bit()));
        assert_eq!(expand("*").map(u64::count_ones), Some(TABLE.len() as u32));
        assert_eq!(expand("file"), None);
    }

    #[test]
    fn table_order_and_errno_agree_with_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.action as usize, index);
            assert_eq!(row.action.errno(), row.errno, "{}", row.name);
        }
    }
}
