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
/// Error number "invalid cross-device link" (`include/uapi/asm-generic/errno-base.h`).
pub const EXDEV: i32 = 18;
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
        ///
        /// `file.rename` is taken on files and on directories, and the tables decide about those apart:
        /// it has two rows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Action {
            $(#[doc = concat!("`", $name, "` on `Guard::", stringify!($resource), "`")] $variant,)*
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

use Coverage::{Enforced, Partly};

const ACCEPT: Coverage = Partly(
    "a request is dropped; what was waiting when an inherited socket was taken over is refused on its first use only",
);
const RECEIVE: Coverage = Partly(
    "a datagram is dropped when it arrives; what an inherited socket holds when it is taken over is not decided",
);

// Rows are only added at the end: the bits are in the agent's database.
actions! {
    FileRead = "file.read", ["read"], File, EACCES, "file_open, file_permission, mmap_file", Enforced;
    FileWrite = "file.write", ["mutate"], File, EACCES, "file_open, file_permission, mmap_file, file_mprotect", Enforced;
    FileAppend = "file.append", ["mutate"], File, EACCES, "file_open, file_permission", Enforced;
    FileTruncate = "file.truncate", ["mutate"], File, EACCES, "path_truncate, file_truncate", Enforced;
    FileCreate = "file.create", ["mutate"], File, EACCES, "path_mknod, path_link, path_rename, file_open", Enforced;
    FileRemove = "file.remove", ["mutate"], File, EACCES, "path_unlink, path_rename", Enforced;
    FileRename = "file.rename", ["mutate"], File, EACCES, "path_rename", Enforced;
    FileLink = "file.link", ["mutate"], File, EACCES, "path_link", Enforced;
    FileSymlink = "file.symlink", ["mutate"], File, EACCES, "path_symlink, path_rename", Enforced;
    FileMknod = "file.mknod", ["mutate"], File, EACCES, "path_mknod, path_rename", Enforced;
    FileSetattr = "file.setattr", ["mutate"], File, EACCES,
        "inode_setattr, inode_setxattr, inode_removexattr, inode_set_acl, inode_remove_acl, inode_file_setattr", Enforced;
    FileIoctl = "file.ioctl", ["file.*"], File, EACCES, "file_ioctl, file_ioctl_compat, file_open", Enforced;
    DirList = "dir.list", ["read"], Dir, EACCES, "file_open, file_permission", Enforced;
    DirCreate = "dir.create", ["mutate"], Dir, EACCES, "path_mkdir, path_rename", Enforced;
    DirRemove = "dir.remove", ["mutate"], Dir, EACCES, "path_rmdir, path_rename", Enforced;
    Exec = "exec", ["exec.*"], File, EACCES, "bprm_creds_for_exec, bprm_check_security", Enforced;
    ExecMap = "exec.map", ["exec.*"], FileOrMemory, EACCES, "mmap_file, file_mprotect, file_open", Enforced;
    NetConnect = "net.connect", ["net.out"], Endpoint, EACCES,
        "socket_connect, socket_sendmsg, socket_recvmsg, file_permission, sctp_bind_connect", Enforced;
    NetSend = "net.send", ["net.out"], Endpoint, EACCES, "socket_sendmsg", Enforced;
    NetBind = "net.bind", ["net.in"], Endpoint, EACCES, "socket_bind, sctp_bind_connect", Enforced;
    NetListen = "net.listen", ["net.in"], Endpoint, EACCES, "socket_listen, socket_accept", Enforced;
    NetAccept = "net.accept", ["net.in"], Endpoint, EACCES,
        "inet_conn_request, sock_graft, socket_sendmsg, socket_recvmsg, file_permission, socket_sock_rcv_skb", ACCEPT;
    NetReceive = "net.receive", ["net.in"], Endpoint, EACCES, "socket_sock_rcv_skb", RECEIVE;
    NetRaw = "net.raw", ["net.*"], Protocol, EACCES,
        "socket_create, socket_connect, socket_bind, socket_listen, socket_sendmsg, socket_setsockopt", Enforced;
    UnixConnect = "unix.connect", ["unix.*"], Unix, EACCES,
        "unix_stream_connect, socket_sendmsg, socket_recvmsg, file_permission", Enforced;
    UnixSend = "unix.send", ["unix.*"], Unix, EACCES, "unix_may_send", Enforced;
    UnixBind = "unix.bind", ["unix.*"], Unix, EACCES, "path_mknod, socket_bind", Enforced;
    UnixAccept = "unix.accept", ["unix.*"], Unix, EACCES,
        "socket_accept, socket_sendmsg, socket_recvmsg, file_permission", Enforced;
    ProcSignal = "proc.signal", ["proc.*"], Process, EPERM,
        "task_kill, file_set_fowner, file_send_sigiotask, task_setnice, task_setioprio, task_setscheduler, task_setrlimit, \
         task_movememory", Enforced;
    ProcTrace = "proc.trace", ["proc.*"], Process, EPERM, "ptrace_access_check, ptrace_traceme", Enforced;
    SysCap = "sys.cap", ["sys.*"], Capability, EPERM, "capable", Enforced;
    SysMount = "sys.mount", ["sys.*"], Machine, EPERM,
        "sb_mount, sb_kern_mount, sb_remount, sb_umount, sb_pivotroot, move_mount, capable", Enforced;
    SysUserns = "sys.userns", ["sys.*"], Machine, EPERM, "userns_create", Enforced;
    SysBpf = "sys.bpf", ["sys.*"], Machine, EPERM, "bpf, perf_event_open", Enforced;
    SysModule = "sys.module", ["sys.*"], Machine, EPERM,
        "kernel_read_file, kernel_load_data, kernel_module_request", Enforced;
    SysUring = "sys.uring", ["sys.*"], Machine, EPERM, "uring_allowed, inode_init_security_anon", Enforced;
    SysSetid = "sys.setid", ["sys.*"], Machine, EPERM,
        "task_fix_setuid, task_fix_setgid, task_fix_setgroups", Enforced;
    DirRename = "file.rename", ["mutate"], Dir, EACCES, "path_rename", Enforced;
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

    /// The action with this dotted name, if there is one: that on files, if it is taken on directories too.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.action)
    }

    /// The action with this dotted name on a directory, or on whatever else it can be taken on.
    pub fn on(name: &str, directory: bool) -> Option<Self> {
        let first = Self::from_name(name)?;
        Some(if directory && first == Self::FileRename { Self::DirRename } else { first })
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

/// Actions of which uses can be counted: one hook decides each attempt, and nothing asks for the right again for
/// what the attempt began, or it does so without counting (connections).
pub const COUNTABLE: [Action; 6] = [
    Action::Exec,
    Action::NetConnect,
    Action::FileRemove,
    Action::DirRemove,
    Action::FileRename,
    Action::DirRename,
];

/// Actions that only directories can be asked for.
pub const ON_DIRECTORIES: u64 =
    Action::DirList.bit() | Action::DirCreate.bit() | Action::DirRemove.bit() | Action::DirRename.bit();

/// The table with each name once.
pub fn named() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(|row| row.action != Action::DirRename)
}

/// The names of actions, each once, in the order of the table.
pub fn names(bits: u64) -> impl Iterator<Item = &'static str> {
    named().map(|row| row.name).filter(move |name| expand(name).unwrap_or(0) & bits != 0)
}

/// Every action that `name`, an action or a group, stands for; `None` if it is neither.
pub fn expand(name: &str) -> Option<u64> {
    let named = |bits, row: &Row| if row.name == name { bits | row.action.bit() } else { bits };
    let actions = TABLE.iter().fold(0, named);
    if actions != 0 {
        return Some(actions);
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
        assert_eq!(expand("*"), Some(crate::tables::ALL_ACTIONS));
        assert_eq!(expand("file"), None);
        assert_eq!(expand("file.rename"), Some(Action::FileRename.bit() | Action::DirRename.bit()));
    }

    #[test]
    fn an_action_on_files_and_directories_has_one_name() {
        let (file, dir) = (Action::FileRename, Action::DirRename);
        assert_eq!(
            [Action::on("file.rename", false), Action::on("file.rename", true)],
            [Some(file), Some(dir)]
        );
        assert_eq!(Action::on("file.read", true), Some(Action::FileRead));
        assert!(names(file.bit() | dir.bit()).eq(["file.rename"]));
        assert!(names(dir.bit() | Action::Exec.bit()).eq(["file.rename", "exec"]));
    }

    #[test]
    fn table_order_and_errno_agree_with_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.action as usize, index);
            assert_eq!(row.action.errno(), row.errno, "{}", row.name);
        }
    }
}
