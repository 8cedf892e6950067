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
/// The running kernel itself: modules and other kernels that are loaded into it, BPF programs that watch or
/// change what it does, and the BPF objects of others.
pub const KERNEL: Class = 13;
/// What Guard protects on every host, under another name in the root of a subject's own. Everything is
/// denied there.
pub const GUARDS_OWN: Class = 14;
/// The capability with number 0. Every capability is a class of its own.
pub const FIRST_CAPABILITY: Class = 16;
/// Classes of capabilities: the kernel keeps a set of them in 64 bits (`include/linux/capability.h`).
pub const CAPABILITY_CLASSES: u32 = 64;

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

/// First of the classes of protocols, see [`PROTOCOLS`]; two more have lower numbers.
pub const FIRST_PROTOCOL: Class = 96;
/// Classes kept for protocols.
pub const PROTOCOL_CLASSES: u32 = 64;
/// First class number the compiler may give to paths and networks.
pub const FIRST_COMPILED: Class = FIRST_PROTOCOL + PROTOCOL_CLASSES;

/// Packets below IP, of every kind (AF_PACKET).
pub const PACKET: Class = FIRST_PROTOCOL;
/// Raw IPv4 and IPv6 sockets (SOCK_RAW).
pub const RAW: Class = FIRST_PROTOCOL + 1;
/// IP options and IPv6 routing headers, which lead packets to another host than the one addressed.
pub const SOURCE_ROUTE: Class = FIRST_PROTOCOL + 2;
/// Multipath TCP: the kernel connects it to further addresses that the peer names.
pub const MPTCP: Class = FIRST_PROTOCOL + 3;
/// SCTP: the peer names further addresses of its own.
pub const SCTP: Class = FIRST_PROTOCOL + 4;
/// DCCP.
pub const DCCP: Class = FIRST_PROTOCOL + 5;
/// L2TP over IP.
pub const L2TP: Class = FIRST_PROTOCOL + 6;
/// SMC, as a family and as a protocol of TCP sockets.
pub const SMC: Class = FIRST_PROTOCOL + 7;
/// The host of a virtual machine, or its guests (AF_VSOCK).
pub const VSOCK: Class = FIRST_PROTOCOL + 8;
/// Packets straight from a network card (AF_XDP).
pub const XDP: Class = FIRST_PROTOCOL + 9;
/// The kernel's ciphers (AF_ALG).
pub const ALG: Class = FIRST_PROTOCOL + 10;
/// IPsec keys (PF_KEY).
pub const KEY: Class = FIRST_PROTOCOL + 11;
/// Bluetooth.
pub const BLUETOOTH: Class = FIRST_PROTOCOL + 12;
/// Controller area networks.
pub const CAN: Class = FIRST_PROTOCOL + 13;
/// TIPC.
pub const TIPC: Class = FIRST_PROTOCOL + 14;
/// RDS.
pub const RDS: Class = FIRST_PROTOCOL + 15;
/// RxRPC, of the Andrew file system.
pub const RXRPC: Class = FIRST_PROTOCOL + 16;
/// Sockets of the whole network namespace, to list and to destroy.
pub const NETLINK_SOCK_DIAG: Class = FIRST_PROTOCOL + 17;
/// IPsec policies and states.
pub const NETLINK_XFRM: Class = FIRST_PROTOCOL + 18;
/// The audit system.
pub const NETLINK_AUDIT: Class = FIRST_PROTOCOL + 19;
/// Events of processes.
pub const NETLINK_CONNECTOR: Class = FIRST_PROTOCOL + 20;
/// Packet filters, connection tracking and logs.
pub const NETLINK_NETFILTER: Class = FIRST_PROTOCOL + 21;
/// Events of devices.
pub const NETLINK_UEVENT: Class = FIRST_PROTOCOL + 22;
/// Generic netlink: WireGuard, nl80211, taskstats and others.
pub const NETLINK_GENERIC: Class = FIRST_PROTOCOL + 23;
/// Configuration of the kernel's ciphers.
pub const NETLINK_CRYPTO: Class = FIRST_PROTOCOL + 24;

/// The protocols that policy can name and that need a right of their own to make a socket of: class and
/// name. Sockets of all other protocols without addresses are [`OTHER_PROTOCOL`].
pub const PROTOCOLS: [(Class, &str); 26] = [
    (NETLINK_ROUTE, "netlink/route"),
    (PACKET, "packet"),
    (RAW, "raw"),
    (SOURCE_ROUTE, "source-route"),
    (MPTCP, "mptcp"),
    (SCTP, "sctp"),
    (DCCP, "dccp"),
    (L2TP, "l2tp"),
    (SMC, "smc"),
    (VSOCK, "vsock"),
    (XDP, "xdp"),
    (ALG, "alg"),
    (KEY, "key"),
    (BLUETOOTH, "bluetooth"),
    (CAN, "can"),
    (TIPC, "tipc"),
    (RDS, "rds"),
    (RXRPC, "rxrpc"),
    (NETLINK_SOCK_DIAG, "netlink/sock-diag"),
    (NETLINK_XFRM, "netlink/xfrm"),
    (NETLINK_AUDIT, "netlink/audit"),
    (NETLINK_CONNECTOR, "netlink/connector"),
    (NETLINK_NETFILTER, "netlink/netfilter"),
    (NETLINK_UEVENT, "netlink/kobject-uevent"),
    (NETLINK_GENERIC, "netlink/generic"),
    (NETLINK_CRYPTO, "netlink/crypto"),
];

/// The class of the protocol with this name; [`OTHER_PROTOCOL`] if it has none of its own.
pub fn protocol(name: &str) -> Class {
    PROTOCOLS.iter().find(|(_, known)| *known == name).map_or(OTHER_PROTOCOL, |(class, _)| *class)
}

/// The name of the protocol that a class holds.
pub fn protocol_name(class: Class) -> Option<&'static str> {
    PROTOCOLS.iter().find(|(known, _)| *known == class).map(|(_, name)| *name)
}

/// Whether a class holds sockets of protocols without addresses.
pub const fn is_protocol(class: Class) -> bool {
    class == NETLINK_ROUTE || class == OTHER_PROTOCOL || class >= FIRST_PROTOCOL && class < FIRST_COMPILED
}

/// Of which class `net.raw` must be permitted to make or name a socket; [`UNKNOWN`] if it need not be,
/// because everything that such a socket can reach is decided by its address: unix sockets, and TCP, UDP,
/// UDP-Lite and the echo requests of ICMP.
///
/// `family`, `kind` and `protocol` are the arguments of socket(2), without the flags in `kind`
/// (`include/linux/socket.h`, `include/linux/net.h`, `include/uapi/linux/in.h`, `include/uapi/linux/netlink.h`).
#[inline(always)]
pub const fn of_socket(family: u32, kind: u32, protocol: u32) -> Class {
    match family {
        1 => UNKNOWN,
        2 | 10 => of_internet_socket(family, kind, protocol),
        15 => KEY,
        16 => match protocol {
            0 => NETLINK_ROUTE,
            4 => NETLINK_SOCK_DIAG,
            6 => NETLINK_XFRM,
            9 => NETLINK_AUDIT,
            11 => NETLINK_CONNECTOR,
            12 => NETLINK_NETFILTER,
            15 => NETLINK_UEVENT,
            16 => NETLINK_GENERIC,
            21 => NETLINK_CRYPTO,
            _ => OTHER_PROTOCOL,
        },
        17 => PACKET,
        21 => RDS,
        29 => CAN,
        30 => TIPC,
        31 => BLUETOOTH,
        33 => RXRPC,
        38 => ALG,
        40 => VSOCK,
        43 => SMC,
        44 => XDP,
        _ => OTHER_PROTOCOL,
    }
}

#[inline(always)]
const fn of_internet_socket(family: u32, kind: u32, protocol: u32) -> Class {
    match (kind, protocol) {
        (1, 0 | 6) | (2, 0 | 17 | 136) => UNKNOWN,
        (2, 1) if family == 2 => UNKNOWN,
        (2, 58) if family == 10 => UNKNOWN,
        (2, 115) => L2TP,
        (1, 256) => SMC,
        (1, 262) => MPTCP,
        (1, 132) | (5, 0 | 132) => SCTP,
        (3, _) => RAW,
        (6, _) => DCCP,
        _ => OTHER_PROTOCOL,
    }
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
        holds: "pipes, eventfds, epoll and other anonymous inodes, memfds and socket pairs; reading and writing them are permitted unless something forbids it",
    },
    Builtin {
        class: STDIO,
        entity_type: "File",
        id: "guard:stdio",
        holds: "what was open as descriptors 0 to 2 when the label was attached, wherever it lies; reading and writing it are permitted unless something forbids it",
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
    Builtin {
        class: PACKET,
        entity_type: "Protocol",
        id: "packet",
        holds: "packets below IP, of every kind (AF_PACKET)",
    },
    Builtin { class: RAW, entity_type: "Protocol", id: "raw", holds: "raw IPv4 and IPv6 sockets (SOCK_RAW)" },
    Builtin {
        class: SOURCE_ROUTE,
        entity_type: "Protocol",
        id: "source-route",
        holds: "IP options and IPv6 routing headers, which lead packets to another host than the one addressed, and addresses attached to a message of SCTP",
    },
    Builtin {
        class: MPTCP,
        entity_type: "Protocol",
        id: "mptcp",
        holds: "multipath TCP: the kernel connects it to further addresses that the peer names",
    },
    Builtin {
        class: SCTP,
        entity_type: "Protocol",
        id: "sctp",
        holds: "SCTP: the peer names further addresses of its own",
    },
    Builtin { class: DCCP, entity_type: "Protocol", id: "dccp", holds: "DCCP" },
    Builtin { class: L2TP, entity_type: "Protocol", id: "l2tp", holds: "L2TP over IP" },
    Builtin {
        class: SMC,
        entity_type: "Protocol",
        id: "smc",
        holds: "SMC, as a family and as a protocol of TCP sockets",
    },
    Builtin {
        class: VSOCK,
        entity_type: "Protocol",
        id: "vsock",
        holds: "the host of a virtual machine, or its guests (AF_VSOCK)",
    },
    Builtin {
        class: XDP,
        entity_type: "Protocol",
        id: "xdp",
        holds: "packets straight from a network card (AF_XDP)",
    },
    Builtin { class: ALG, entity_type: "Protocol", id: "alg", holds: "the kernel's ciphers (AF_ALG)" },
    Builtin { class: KEY, entity_type: "Protocol", id: "key", holds: "IPsec keys (PF_KEY)" },
    Builtin { class: BLUETOOTH, entity_type: "Protocol", id: "bluetooth", holds: "Bluetooth" },
    Builtin { class: CAN, entity_type: "Protocol", id: "can", holds: "controller area networks" },
    Builtin { class: TIPC, entity_type: "Protocol", id: "tipc", holds: "TIPC" },
    Builtin { class: RDS, entity_type: "Protocol", id: "rds", holds: "RDS" },
    Builtin { class: RXRPC, entity_type: "Protocol", id: "rxrpc", holds: "RxRPC, of the Andrew file system" },
    Builtin {
        class: NETLINK_SOCK_DIAG,
        entity_type: "Protocol",
        id: "netlink/sock-diag",
        holds: "sockets of the whole network namespace, to list and to destroy",
    },
    Builtin {
        class: NETLINK_XFRM,
        entity_type: "Protocol",
        id: "netlink/xfrm",
        holds: "IPsec policies and states",
    },
    Builtin { class: NETLINK_AUDIT, entity_type: "Protocol", id: "netlink/audit", holds: "the audit system" },
    Builtin {
        class: NETLINK_CONNECTOR,
        entity_type: "Protocol",
        id: "netlink/connector",
        holds: "events of processes",
    },
    Builtin {
        class: NETLINK_NETFILTER,
        entity_type: "Protocol",
        id: "netlink/netfilter",
        holds: "packet filters, connection tracking and logs",
    },
    Builtin {
        class: NETLINK_UEVENT,
        entity_type: "Protocol",
        id: "netlink/kobject-uevent",
        holds: "events of devices",
    },
    Builtin {
        class: NETLINK_GENERIC,
        entity_type: "Protocol",
        id: "netlink/generic",
        holds: "generic netlink: WireGuard, nl80211, taskstats and others",
    },
    Builtin {
        class: NETLINK_CRYPTO,
        entity_type: "Protocol",
        id: "netlink/crypto",
        holds: "configuration of the kernel's ciphers",
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

const _: () = assert!(FIRST_PROTOCOL + PROTOCOLS.len() as u32 <= FIRST_COMPILED);

#[cfg(test)]
mod protocol_tests {
    use super::*;

    #[test]
    fn every_named_protocol_is_one_built_in_class() {
        for (class, name) in PROTOCOLS {
            let builtin = BUILTINS.iter().find(|builtin| builtin.class == class);
            assert_eq!(builtin.map(|builtin| (builtin.entity_type, builtin.id)), Some(("Protocol", name)));
            assert_eq!((protocol(name), protocol_name(class), is_protocol(class)), (class, Some(name), true));
        }
        assert_eq!(protocol("token-ring"), OTHER_PROTOCOL);
        assert_eq!(protocol_name(OTHER_PROTOCOL), None);
    }

    #[test]
    fn only_what_is_decided_by_address_or_name_is_free() {
        let is_free = |family, kind, number| match (kind, number) {
            (1, 0 | 6) | (2, 0 | 17 | 136) => family == 2 || family == 10,
            (2, 1) => family == 2,
            (2, 58) => family == 10,
            _ => false,
        };
        for family in (0..64).filter(|family| *family != 1) {
            for kind in 0..16 {
                for number in 0..512 {
                    let class = of_socket(family, kind, number);
                    assert_eq!(class == UNKNOWN, is_free(family, kind, number), "{family} {kind} {number}");
                }
            }
        }
    }
}
