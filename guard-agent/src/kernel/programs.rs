//! The programs, and the hook of each.

use std::collections::HashMap;

/// How a program is attached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// To a hook that every supported kernel has.
    Lsm,
    /// To a hook that only some kernels have.
    LsmSince,
    /// To a hook that stands in on kernels without another one.
    LsmUnless(&'static str),
    /// To a hook whose prototype changed, where it has this many parameters.
    LsmWith(usize),
    Tracepoint,
    Iterator,
}

impl Kind {
    /// Whether a kernel with these hooks takes a program of this kind.
    pub(super) fn fits(self, hook: &str, hooks: &HashMap<String, usize>) -> bool {
        match self {
            Self::LsmSince => hooks.contains_key(hook),
            Self::LsmUnless(other) => hooks.contains_key(hook) && !hooks.contains_key(other),
            Self::LsmWith(parameters) => hooks.get(hook) == Some(&parameters),
            Self::Lsm | Self::Tracepoint | Self::Iterator => true,
        }
    }
}

/// Every program with its hook, in the order of attachment: what spreads labels comes before what
/// decides, so that nothing escapes while the rest is attached, and what makes the others forget comes
/// before anything that remembers.
pub(super) const PROGRAMS: &[(&str, Kind, &str)] = &[
    ("inode_free_security", Kind::Lsm, "inode_free_security"),
    ("sb_free_security", Kind::Lsm, "sb_free_security"),
    ("sb_alloc_security", Kind::Lsm, "sb_alloc_security"),
    ("task_alloc", Kind::Lsm, "task_alloc"),
    ("task_newtask", Kind::Tracepoint, "task_newtask"),
    ("bprm_committed_creds", Kind::Lsm, "bprm_committed_creds"),
    ("task_fix_setuid", Kind::Lsm, "task_fix_setuid"),
    ("cgroup_mkdir", Kind::Tracepoint, "cgroup_mkdir"),
    ("cgroup_rmdir", Kind::Tracepoint, "cgroup_rmdir"),
    ("cgroup_attach_task", Kind::Tracepoint, "cgroup_attach_task"),
    ("bprm_creds_for_exec", Kind::Lsm, "bprm_creds_for_exec"),
    ("bprm_check_security", Kind::Lsm, "bprm_check_security"),
    // After those two: the kernel runs the newest program of a hook first.
    ("digest_program", Kind::Lsm, "bprm_creds_for_exec"),
    ("digest_interpreter", Kind::Lsm, "bprm_check_security"),
    ("file_open", Kind::Lsm, "file_open"),
    ("file_permission", Kind::Lsm, "file_permission"),
    ("mmap_file", Kind::Lsm, "mmap_file"),
    ("file_mprotect", Kind::Lsm, "file_mprotect"),
    ("path_mknod", Kind::Lsm, "path_mknod"),
    ("path_mkdir", Kind::Lsm, "path_mkdir"),
    ("path_symlink", Kind::Lsm, "path_symlink"),
    ("path_unlink", Kind::Lsm, "path_unlink"),
    ("path_rmdir", Kind::Lsm, "path_rmdir"),
    ("path_link", Kind::Lsm, "path_link"),
    ("path_rename", Kind::Lsm, "path_rename"),
    ("path_truncate", Kind::Lsm, "path_truncate"),
    ("file_truncate", Kind::LsmSince, "file_truncate"),
    ("inode_setattr", Kind::LsmWith(3), "inode_setattr"),
    ("inode_setattr_2", Kind::LsmWith(2), "inode_setattr"),
    ("inode_setxattr", Kind::Lsm, "inode_setxattr"),
    ("inode_removexattr", Kind::Lsm, "inode_removexattr"),
    ("inode_set_acl", Kind::LsmSince, "inode_set_acl"),
    ("inode_remove_acl", Kind::LsmSince, "inode_remove_acl"),
    ("inode_file_setattr", Kind::LsmSince, "inode_file_setattr"),
    ("file_ioctl", Kind::Lsm, "file_ioctl"),
    ("file_ioctl_compat", Kind::Lsm, "file_ioctl_compat"),
    ("socket_post_create", Kind::Lsm, "socket_post_create"),
    ("socket_create", Kind::Lsm, "socket_create"),
    ("socket_setsockopt", Kind::Lsm, "socket_setsockopt"),
    ("socket_connect", Kind::Lsm, "socket_connect"),
    ("socket_sendmsg", Kind::Lsm, "socket_sendmsg"),
    ("socket_bind", Kind::Lsm, "socket_bind"),
    ("socket_listen", Kind::Lsm, "socket_listen"),
    ("inet_conn_request", Kind::Lsm, "inet_conn_request"),
    ("sock_graft", Kind::Lsm, "sock_graft"),
    ("socket_accept", Kind::Lsm, "socket_accept"),
    ("socket_recvmsg", Kind::Lsm, "socket_recvmsg"),
    ("socket_sock_rcv_skb", Kind::Lsm, "socket_sock_rcv_skb"),
    ("sctp_bind_connect", Kind::Lsm, "sctp_bind_connect"),
    ("unix_stream_connect", Kind::Lsm, "unix_stream_connect"),
    ("unix_may_send", Kind::Lsm, "unix_may_send"),
    ("unix_bind_path", Kind::Lsm, "path_mknod"),
    ("unix_bind_abstract", Kind::Lsm, "socket_bind"),
    ("task_kill", Kind::Lsm, "task_kill"),
    ("file_set_fowner", Kind::Lsm, "file_set_fowner"),
    ("file_send_sigiotask", Kind::Lsm, "file_send_sigiotask"),
    ("task_setnice", Kind::Lsm, "task_setnice"),
    ("task_setioprio", Kind::Lsm, "task_setioprio"),
    ("task_setscheduler", Kind::Lsm, "task_setscheduler"),
    ("task_setrlimit", Kind::Lsm, "task_setrlimit"),
    ("task_movememory", Kind::Lsm, "task_movememory"),
    ("ptrace_access_check", Kind::Lsm, "ptrace_access_check"),
    ("ptrace_traceme", Kind::Lsm, "ptrace_traceme"),
    ("capable", Kind::Lsm, "capable"),
    ("sb_mount", Kind::Lsm, "sb_mount"),
    ("sb_kern_mount", Kind::Lsm, "sb_kern_mount"),
    ("sb_remount", Kind::Lsm, "sb_remount"),
    ("sb_umount", Kind::Lsm, "sb_umount"),
    ("sb_pivotroot", Kind::Lsm, "sb_pivotroot"),
    ("move_mount", Kind::Lsm, "move_mount"),
    ("userns_create", Kind::Lsm, "userns_create"),
    ("bpf", Kind::Lsm, "bpf"),
    ("perf_event_open", Kind::Lsm, "perf_event_open"),
    ("kernel_read_file", Kind::Lsm, "kernel_read_file"),
    ("kernel_load_data", Kind::Lsm, "kernel_load_data"),
    ("kernel_module_request", Kind::Lsm, "kernel_module_request"),
    ("uring_allowed", Kind::LsmSince, "uring_allowed"),
    ("inode_init_security_anon", Kind::LsmUnless("uring_allowed"), "inode_init_security_anon"),
    ("task_fix_setgid", Kind::Lsm, "task_fix_setgid"),
    ("task_fix_setgroups", Kind::Lsm, "task_fix_setgroups"),
    ("label_running", Kind::Iterator, "task"),
    ("label_requested", Kind::Iterator, "task"),
    ("inherit_labels", Kind::Iterator, "task"),
];

/// Whether no test wants the kernel to lack its hook.
pub(super) fn is_here((_, _, hook): &(&str, Kind, &str)) -> bool {
    !crate::coverage::is_left_out(hook)
}
