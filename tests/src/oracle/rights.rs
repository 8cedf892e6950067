//! Landlock's rights, and which of them the running kernel has.

use std::fmt::Write;

use nix::libc;

/// A set of rights, as bits. Those of files are where Landlock has them; those of the network are higher,
/// so that one word holds both.
pub(crate) type Rights = u64;

/// The bits of a word that belong to files.
pub(crate) const FILES: Rights = u32::MAX as u64;
/// How far the rights of the network are moved up.
const NETWORK_SHIFT: u32 = 32;

macro_rules! rights {
    ($($name:ident = $bit:expr, since $since:literal;)*) => {
        $(pub(crate) const $name: Rights = 1 << $bit;)*
        /// Name, bit, and version of the interface since which there is the right.
        pub(crate) const ALL: &[(&str, Rights, u32)] = &[$((stringify!($name), $name, $since),)*];
    };
}

rights! {
    EXECUTE = 0, since 1;
    WRITE_FILE = 1, since 1;
    READ_FILE = 2, since 1;
    READ_DIR = 3, since 1;
    REMOVE_DIR = 4, since 1;
    REMOVE_FILE = 5, since 1;
    MAKE_CHAR = 6, since 1;
    MAKE_DIR = 7, since 1;
    MAKE_REG = 8, since 1;
    MAKE_SOCK = 9, since 1;
    MAKE_FIFO = 10, since 1;
    MAKE_BLOCK = 11, since 1;
    MAKE_SYM = 12, since 1;
    REFER = 13, since 2;
    TRUNCATE = 14, since 3;
    IOCTL_DEV = 15, since 5;
    BIND_TCP = NETWORK_SHIFT, since 4;
    CONNECT_TCP = NETWORK_SHIFT + 1, since 4;
}

/// What a rule for something that is no directory may allow.
pub(crate) const OF_FILES: Rights = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

/// The rights that an interface of this version has.
pub(crate) fn known(version: u32) -> Rights {
    ALL.iter().filter(|(_, _, since)| *since <= version).fold(0, |all, (_, bit, _)| all | bit)
}

/// The rights of the network, as Landlock has them.
pub(crate) fn of_network(rights: Rights) -> u64 {
    rights >> NETWORK_SHIFT
}

/// The right to bring something of this kind (`S_IFMT`) into being.
pub(crate) fn make(kind: u32) -> Rights {
    match kind {
        libc::S_IFDIR => MAKE_DIR,
        libc::S_IFLNK => MAKE_SYM,
        libc::S_IFCHR => MAKE_CHAR,
        libc::S_IFBLK => MAKE_BLOCK,
        libc::S_IFIFO => MAKE_FIFO,
        libc::S_IFSOCK => MAKE_SOCK,
        _ => MAKE_REG,
    }
}

/// The right to remove something of this kind.
pub(crate) fn remove(kind: u32) -> Rights {
    if kind == libc::S_IFDIR { REMOVE_DIR } else { REMOVE_FILE }
}

/// The names of rights.
pub(crate) fn names(rights: Rights) -> String {
    let mut text = String::new();
    for (name, bit, _) in ALL {
        if rights & bit != 0 {
            let _ = write!(text, "{}{name}", if text.is_empty() { "" } else { " " });
        }
    }
    text
}
