//! Hooks that only some kernels have, and what that means where they are missing.

/// The hook, and what is not seen without it; nothing if other hooks of the same actions see it all.
const SINCE: &[(&str, Option<&str>)] = &[
    // Before 6.2 `path_truncate` is called for truncate, ftruncate and O_TRUNC alike (fs/open.c).
    ("file_truncate", None),
    // Before 6.2 access lists are extended attributes (fs/xattr.c).
    ("inode_set_acl", None),
    ("inode_remove_acl", None),
    // New in 6.17 (fs/file_attr.c).
    ("inode_file_setattr", Some("flags of files are decided as the ioctl that sets them, not as attributes")),
    // New in 6.15 (io_uring/io_uring.c). Before, a ring is known by the name of its inode, which is asked for
    // by the other one; that is attached only where it is needed.
    ("uring_allowed", None),
    ("inode_init_security_anon", None),
    // In 6.12 and later (net/mptcp/subflow.c).
    ("mptcp_add_subflow", Some("further connections of an MPTCP socket are not seen")),
    // New in 7.1 (net/unix/af_unix.c); the name of the socket that was found is judged on every kernel.
    ("unix_find", None),
];

/// What is not seen without `hook`; nothing if every supported kernel has it.
pub(super) fn without(hook: &str) -> Option<Option<&'static str>> {
    SINCE.iter().find(|(name, _)| *name == hook).map(|(_, missing)| *missing)
}
