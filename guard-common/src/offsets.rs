//! Members of kernel structures that the programs read.
//!
//! Rust has no CO-RE relocations. The agent looks each member up in the running kernel's BTF,
//! descending into anonymous structures and unions, and sets the global of the same name before
//! load; the verifier then treats it as a constant.

/// Value of an offset whose member this kernel does not have.
pub const MISSING: u32 = u32::MAX;

/// One member of a kernel structure.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Name of the global in the object.
    pub global: &'static str,
    /// The structure.
    pub structure: &'static str,
    /// The member, dotted where it lies in a member that is a structure itself.
    pub member: &'static str,
    /// Whether the programs work without it (the global is then [`MISSING`]).
    pub optional: bool,
}

/// Calls `$callback!` with every member: `GLOBAL, "structure", "member", optional`.
#[macro_export]
macro_rules! for_each_member {
    ($callback:ident) => {
        $callback! {
            TASK_BPF_STORAGE, "task_struct", "bpf_storage", false;
            TASK_SIGNAL, "task_struct", "signal", false;
            TASK_CRED, "task_struct", "cred", false;
            TASK_REAL_CRED, "task_struct", "real_cred", false;
            TASK_IO_URING, "task_struct", "io_uring", false;
            TASK_CGROUPS, "task_struct", "cgroups", false;
            TASK_MM, "task_struct", "mm", false;
            MM_EXE_FILE, "mm_struct", "exe_file", false;
            TASK_FS, "task_struct", "fs", false;
            TASK_FILES, "task_struct", "files", false;
            FILES_TABLE, "files_struct", "fdt", false;
            TABLE_FILES, "fdtable", "fd", false;
            TASK_NSPROXY, "task_struct", "nsproxy", false;
            NSPROXY_MNT, "nsproxy", "mnt_ns", false;
            FS_ROOT_DENTRY, "fs_struct", "root.dentry", false;
            TASK_GROUP_LEADER, "task_struct", "group_leader", false;
            TASK_TGID, "task_struct", "tgid", false;
            TASK_FLAGS, "task_struct", "flags", false;
            TASK_START_BOOTTIME, "task_struct", "start_boottime", false;
            TASK_PID_LINKS, "task_struct", "pid_links", false;
            PID_TASKS, "pid", "tasks", false;
            PROC_INODE_PID, "proc_inode", "pid", false;
            PROC_INODE_VFS, "proc_inode", "vfs_inode", false;
            STORAGE_LIST, "bpf_local_storage", "list", false;
            STORAGE_ELEMENT_NODE, "bpf_local_storage_elem", "snode", false;
            STORAGE_ELEMENT_DATA, "bpf_local_storage_elem", "sdata", false;
            STORAGE_DATA_MAP, "bpf_local_storage_data", "smap", false;
            STORAGE_DATA_VALUE, "bpf_local_storage_data", "data", false;
            SIGNAL_TTY, "signal_struct", "tty", false;
            TTY_INDEX, "tty_struct", "index", false;
            CSS_SET_CGROUP, "css_set", "dfl_cgrp", false;
            CGROUP_KN, "cgroup", "kn", false;
            CGROUP_PARENT, "cgroup", "self.parent", false;
            CGROUP_SELF, "cgroup", "self", false;
            KERNFS_NODE_ID, "kernfs_node", "id", false;
            KERNFS_NODE_NAME, "kernfs_node", "name", false;
            CRED_UID, "cred", "uid", false;
            CRED_EUID, "cred", "euid", false;
            CRED_SUID, "cred", "suid", false;
            CRED_FSUID, "cred", "fsuid", false;
            CRED_GID, "cred", "gid", false;
            CRED_EGID, "cred", "egid", false;
            CRED_SGID, "cred", "sgid", false;
            CRED_FSGID, "cred", "fsgid", false;
            CRED_USER_NS, "cred", "user_ns", false;
            USER_NS_LEVEL, "user_namespace", "level", false;
            CRED_GROUP_INFO, "cred", "group_info", false;
            GROUP_INFO_COUNT, "group_info", "ngroups", false;
            QSTR_NAME, "qstr", "name", false;
            FILE_DENTRY, "file", "f_path.dentry", false;
            FILE_MNT, "file", "f_path.mnt", false;
            FILE_INODE, "file", "f_inode", false;
            FILE_FLAGS, "file", "f_flags", false;
            FILE_MODE, "file", "f_mode", false;
            FILE_OWNER, "file", "f_owner", false;
            OWNER_FILE, "fown_struct", "file", true;
            DENTRY_PARENT, "dentry", "d_parent", false;
            DENTRY_NAME, "dentry", "d_name.name", false;
            DENTRY_NAME_LEN, "dentry", "d_name.len", false;
            DENTRY_INODE, "dentry", "d_inode", false;
            DENTRY_INLINE, "dentry", "d_iname", true;
            DENTRY_SHORT, "dentry", "d_shortname", true;
            DENTRY_SEQ, "dentry", "d_seq.seqcount.sequence", false;
            DENTRY_SB, "dentry", "d_sb", false;
            INODE_MODE, "inode", "i_mode", false;
            INODE_NUMBER, "inode", "i_ino", false;
            INODE_GENERATION, "inode", "i_generation", false;
            INODE_UID, "inode", "i_uid", false;
            INODE_RDEV, "inode", "i_rdev", false;
            INODE_NLINK, "inode", "i_nlink", false;
            INODE_SB, "inode", "i_sb", false;
            INODE_SIZE, "inode", "i_size", false;
            INODE_WRITERS, "inode", "i_writecount", false;
            INODE_PRIVATE, "inode", "i_private", false;
            SB_DEV, "super_block", "s_dev", false;
            SB_MAGIC, "super_block", "s_magic", false;
            SB_FLAGS, "super_block", "s_flags", false;
            SB_ROOT, "super_block", "s_root", false;
            SB_FS_INFO, "super_block", "s_fs_info", false;
            PATH_DENTRY, "path", "dentry", false;
            PATH_MNT, "path", "mnt", false;
            VFSMOUNT_ROOT, "vfsmount", "mnt_root", false;
            VFSMOUNT_SB, "vfsmount", "mnt_sb", false;
            IATTR_VALID, "iattr", "ia_valid", false;
            VMA_FILE, "vm_area_struct", "vm_file", false;
            VMA_FLAGS, "vm_area_struct", "vm_flags", false;
            VMA_ANON, "vm_area_struct", "anon_vma", false;
            BACKING_USER_DENTRY, "backing_file", "user_path.dentry", true;
            BACKING_USER_MNT, "backing_file", "user_path.mnt", true;
            MOUNT_MNT, "mount", "mnt", false;
            MOUNT_NS, "mount", "mnt_ns", false;
            MOUNT_PARENT, "mount", "mnt_parent", false;
            MOUNT_POINT, "mount", "mnt_mountpoint", false;
            MOUNT_CHILDREN, "mount", "mnt_mounts", false;
            MOUNT_GROUP, "mount", "mnt_group_id", false;
            BPRM_FILE, "linux_binprm", "file", false;
            BPRM_INTERP, "linux_binprm", "interp", false;
            BPRM_FILENAME, "linux_binprm", "filename", false;
            BPRM_UNSAFE, "linux_binprm", "unsafe", false;
            SOCKET_SK, "socket", "sk", false;
            SOCKET_FILE, "socket", "file", false;
            SOCK_PROTOCOL, "sock", "sk_protocol", false;
            SOCK_FAMILY, "sock", "__sk_common.skc_family", false;
            SOCK_TYPE, "sock", "sk_type", false;
            SOCK_STATE, "sock", "__sk_common.skc_state", false;
            SOCK_PORT, "sock", "__sk_common.skc_num", false;
            SOCK_BOUND, "sock", "__sk_common.skc_rcv_saddr", false;
            SOCK_PEER, "sock", "__sk_common.skc_daddr", false;
            SOCK_V6_PEER, "sock", "__sk_common.skc_v6_daddr", false;
            SOCK_PEER_PORT, "sock", "__sk_common.skc_dport", false;
            SOCK_PEER_PID, "sock", "sk_peer_pid", false;
            PID_NUMBERS, "pid", "numbers", false;
            SOCK_BPF_STORAGE, "sock", "sk_bpf_storage", false;
            REQUEST_V6_PEER, "request_sock", "__req_common.skc_v6_daddr", false;
            REQUEST_PEER_PORT, "request_sock", "__req_common.skc_dport", false;
            MESSAGE_NAME, "msghdr", "msg_name", false;
            MESSAGE_NAME_LEN, "msghdr", "msg_namelen", false;
            MESSAGE_FLAGS, "msghdr", "msg_flags", false;
            MESSAGE_CONTROL, "msghdr", "msg_control", false;
            MESSAGE_CONTROL_LEN, "msghdr", "msg_controllen", false;
            PACKET_HEAD, "sk_buff", "head", false;
            PACKET_NETWORK, "sk_buff", "network_header", false;
            PACKET_TRANSPORT, "sk_buff", "transport_header", false;
            SOCK_V6_BOUND, "sock", "__sk_common.skc_v6_rcv_saddr", false;
            INET_SOURCE, "inet_sock", "inet_saddr", false;
            UNIX_DENTRY, "unix_sock", "path.dentry", false;
            UNIX_MNT, "unix_sock", "path.mnt", false;
            UNIX_ADDR, "unix_sock", "addr", false;
            UNIX_PEER, "unix_sock", "peer", false;
            UNIX_ADDRESS_LEN, "unix_address", "len", false;
            UNIX_ADDRESS_NAME, "unix_address", "name", false;
        }
    };
}

macro_rules! members {
    ($($global:ident, $structure:literal, $member:literal, $optional:literal;)*) => {
        /// Every member the programs read.
        pub const MEMBERS: &[Member] = &[
            $(Member {
                global: stringify!($global),
                structure: $structure,
                member: $member,
                optional: $optional,
            },)*
        ];
    };
}
for_each_member!(members);

/// Name of the global that holds the position of `task_struct.in_execve`, a bit field, in bits from
/// the start of the structure.
pub const IN_EXECVE_GLOBAL: &str = "TASK_IN_EXECVE_BIT";
