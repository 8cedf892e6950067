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
/// Other processes. Which of them is an attribute (`resource.subject`), because labels come and go.
pub const PROCESS: Class = 11;
/// The host: what is acted on by privileged operations without an object of their own.
pub const MACHINE: Class = 12;
/// The capability with number 0. Every capability is a class of its own.
pub const FIRST_CAPABILITY: Class = 16;
/// Classes of capabilities: the kernel keeps a set of them in 64 bits (`include/linux/capability.h`).
pub const CAPABILITY_CLASSES: u32 = 64;
/// First class number the compiler may give to paths and networks.
pub const FIRST_COMPILED: Class = 96;

/// The capabilities that policy can name, by number (`include/uapi/linux/capability.h`), without the
/// `CAP_` that the kernel puts before them. A kernel that has more of them gives the others a class
/// too, which no literal names.
pub const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The class of the capability with this name.
pub fn capability(name: &str) -> Option<Class> {
    let number = CAPABILITIES.iter().position(|known| *known == name)?;
    Some(FIRST_CAPABILITY + number as Class)
}

/// Whether a class holds one capability.
pub const fn is_capability(class: Class) -> bool {
    class >= FIRST_CAPABILITY && class < FIRST_CAPABILITY + CAPABILITY_CLASSES
}

/// The name of the capability that a class holds; nothing for other classes, and for capabilities that
/// this version has no name for.
pub fn capability_name(class: Class) -> Option<&'static str> {
    let number = class.checked_sub(FIRST_CAPABILITY)?;
    CAPABILITIES.get(number as usize).copied()
}

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

const _: () = assert!(FIRST_CAPABILITY + CAPABILITY_CLASSES <= FIRST_COMPILED);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_the_numbers_of_the_kernel() {
        for (name, number) in [("chown", 0), ("net_bind_service", 10), ("sys_admin", 21), ("bpf", 39)] {
            assert_eq!(capability(name), Some(FIRST_CAPABILITY + number));
            assert_eq!(capability_name(FIRST_CAPABILITY + number), Some(name));
        }
        assert_eq!(capability("cap_chown"), None);
        assert_eq!((capability_name(MACHINE), capability_name(FIRST_CAPABILITY + 41)), (None, None));
        assert!(is_capability(FIRST_CAPABILITY + 63) && !is_capability(FIRST_COMPILED));
    }
}
