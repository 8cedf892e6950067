//! Classes that exist in every generation: resources that have no path.
//!
//! The table below is the answer to "what is this file?" for everything that the kernel hands to a
//! hook without a name below a mounted file system's root. A policy names such a class as an
//! entity with the `guard:` prefix, for example `Guard::Dir::"guard:own-anonymous"`; nothing is
//! permitted on it unless a policy says so.

/// A class: the set of resources that policy cannot tell apart. An index into a subject's cells.
pub type Class = u32;

/// A file system that no generation has classified. Allowed only where every path class allows.
pub const UNKNOWN: Class = 0;
/// Pipes, eventfds, epoll and other anonymous inodes, memfds, socket pairs.
pub const OWN_ANONYMOUS: Class = 1;
/// What was open as descriptors 0 to 2 when the label was attached.
pub const STDIO: Class = 2;
/// The controlling terminal of the calling process.
pub const TERMINAL: Class = 3;
/// The directories of the calling process, and of tasks with its label, in a procfs.
pub const OWN_PROC: Class = 4;
/// The files of the cgroup the calling process is in.
pub const OWN_CGROUP: Class = 5;
/// Executable memory without a file.
pub const ANONYMOUS_MEMORY: Class = 6;
/// `AF_NETLINK` sockets of protocol `NETLINK_ROUTE`.
pub const NETLINK_ROUTE: Class = 7;
/// Sockets of every family that has no class of its own.
pub const OTHER_PROTOCOL: Class = 8;
/// Unix sockets without a name, other than the caller's own socket pairs.
pub const UNNAMED_UNIX: Class = 9;
/// A tmpfs that a task with the caller's label made.
pub const OWN_TMPFS: Class = 10;
/// Built-in classes whose resources have names, which policy can ask for (`Guard::Name`,
/// `resource.name`).
pub const WITH_NAMES: [Class; 5] = [STDIO, TERMINAL, OWN_PROC, OWN_CGROUP, OWN_TMPFS];
/// First class number the compiler may give to paths and networks.
pub const FIRST_COMPILED: Class = 16;

/// One built-in class, as policy names it.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// The class number.
    pub class: Class,
    /// The Cedar entity type, without the namespace.
    pub entity_type: &'static str,
    /// The Cedar entity id.
    pub id: &'static str,
    /// What falls into it, for the generated reference.
    pub holds: &'static str,
}

/// Every built-in class that policy can name.
pub const BUILTINS: &[Builtin] = &[
    Builtin {
        class: OWN_ANONYMOUS,
        entity_type: "Dir",
        id: "guard:own-anonymous",
        holds: "pipes, eventfds, epoll and other anonymous inodes, memfds and socket pairs",
    },
    Builtin {
        class: STDIO,
        entity_type: "File",
        id: "guard:stdio",
        holds: "what was open as descriptors 0 to 2 when the label was attached (used once reads and writes are decided)",
    },
    Builtin {
        class: TERMINAL,
        entity_type: "File",
        id: "guard:terminal",
        holds: "the controlling terminal of the process: /dev/tty and its own /dev/pts entry",
    },
    Builtin {
        class: OWN_PROC,
        entity_type: "Dir",
        id: "guard:own-proc",
        holds: "the directories in /proc of the process itself and of all with its label",
    },
    Builtin {
        class: OWN_CGROUP,
        entity_type: "Dir",
        id: "guard:own-cgroup",
        holds: "the files of the cgroup the process is in",
    },
    Builtin {
        class: OWN_TMPFS,
        entity_type: "Dir",
        id: "guard:own-tmpfs",
        holds: "what lies on a tmpfs that the process or another one with its label mounted, device nodes apart",
    },
    Builtin {
        class: ANONYMOUS_MEMORY,
        entity_type: "Memory",
        id: "anonymous",
        holds: "executable memory without a file",
    },
    Builtin {
        class: NETLINK_ROUTE,
        entity_type: "Protocol",
        id: "netlink/route",
        holds: "routing netlink sockets, which name resolution uses",
    },
];
