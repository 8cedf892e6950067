//! Reaching files.

use super::{Chapter, answered, out_of_scope};

pub(super) const CHAPTER: Chapter = Chapter {
    name: "Files",
    entries: &[
        answered(
            "FS-1",
            "use io_uring for everything that files have calls for",
            "The hooks are below both: opening, renaming, linking, removing and making are decided however they are submitted, \
             by workers, pollers, in chains, into slots",
            &[
                "opening_a_file_by_io_uring_is_refused",
                "opening_by_a_ring_is_refused_however_it_is_submitted",
                "names_are_changed_by_io_uring_no_more_than_by_system_calls",
            ],
        ),
        answered(
            "FS-2",
            "open by another call: open, creat, openat, openat2 with all its ways to resolve",
            "One hook sees them all",
            &["every_way_to_open_a_file_is_refused", "old_and_new_calls_to_open_are_refused"],
        ),
        answered(
            "FS-3",
            "take a descriptor that cannot read (O_PATH) and open it again, execute it or change what it stands for",
            "Opening again, executing, linking and changing attributes are decided as if by name",
            &[
                "reopening_a_path_descriptor_is_refused",
                "a_program_is_refused_through_every_link_to_it",
                "linking_a_secret_to_where_it_may_be_read_is_refused",
                "changing_the_mode_is_refused_on_every_file_system",
            ],
        ),
        answered(
            "FS-4",
            "open by file handle instead of by name",
            "The kernel finds the same directory entry, or one without a place, which is unknown",
            &["reading_by_handle_is_refused", "a_handle_of_a_directory_leads_to_what_is_refused"],
        ),
        answered(
            "FS-5",
            "link a refused file to where one may read",
            "Linking is `file.link` on both names, and the new name may give the file no right that the old one does not",
            &[
                "linking_a_secret_to_where_it_may_be_read_is_refused",
                "a_link_or_a_rename_gives_no_more_rights",
                "a_hard_link_is_judged_by_the_name_used",
            ],
        ),
        answered(
            "FS-6",
            "rename a refused file, or a directory above it, or exchange it; rename one's own file to a permitted name",
            "Renaming is decided for both names in both directions, and gives nothing more rights, nor anything below a directory. \
             Names are judged as they are at the moment of use",
            &[
                "renaming_a_secret_to_where_it_may_be_read_is_refused",
                "replacing_a_secret_is_refused",
                "exchanging_a_secret_is_refused_in_both_directions",
                "a_link_or_a_rename_gives_no_more_rights",
                "a_directory_is_not_moved_away_from_above_what_policy_names",
                "a_whiteout_is_a_device_node",
                "a_replaced_file_is_judged_by_its_name",
                "a_replaced_directory_is_judged_by_its_name",
                "a_renamed_ancestor_changes_the_verdict_at_once",
                "no_verdict_is_older_than_the_place_of_the_file",
            ],
        ),
        answered(
            "FS-7",
            "show a directory elsewhere by bind mounts in a mount namespace",
            "A place is a name from the root of its file system, wherever that is mounted",
            &[
                "a_bind_mount_in_an_own_namespace_is_refused",
                "a_tmpfs_is_the_same_through_a_bind_and_a_clone",
            ],
        ),
        answered(
            "FS-8",
            "clone a tree that is mounted nowhere (open_tree), which no hook sees",
            "Opening a file in it is seen, and judged by its place on its file system",
            &["a_detached_tree_is_refused", "a_tmpfs_is_the_same_through_a_bind_and_a_clone"],
        ),
        answered(
            "FS-9",
            "mount by the new calls: fsopen, fsconfig, fsmount, move_mount",
            "A file system is known by itself, not by the call that mounted it; one that is not known is denied",
            &["a_tmpfs_made_with_the_new_mount_calls_is_its_makers_own", "a_tmpfs_is_nobody_elses"],
        ),
        answered(
            "FS-10",
            "make a mount writable, or allow set-user-id on it (mount_setattr), which no hook sees",
            "Flags of mounts give no right that policy does not",
            &["a_mount_made_writable_again_is_refused"],
        ),
        answered(
            "FS-11",
            "change the root: chroot, pivot_root",
            "A place does not depend on the root of the process",
            &["reading_inside_a_chroot_is_refused", "a_pivoted_root_is_refused"],
        ),
        answered(
            "FS-12",
            "lay an overlay over a refused directory, or have it copied up",
            "An overlay that a subject makes is unknown, hence denied; one of root's is judged by its own names",
            &[
                "an_overlay_of_the_subject_is_refused",
                "an_overlay_on_ones_own_tmpfs_is_refused",
                "copy_up_works_where_writing_is_permitted",
            ],
        ),
        answered(
            "FS-13",
            "serve files from a process (FUSE) that changes or never answers",
            "No decision asks such a file system for anything: walks read what is in memory, and no digest is taken there, so \
             that a signature allows nothing. A subject's own FUSE mount is an unknown file system",
            &["of_a_file_whose_content_is_not_held_nobody_can_tell_the_signers"],
        ),
        answered(
            "FS-14",
            "go through /proc: fd, cwd, root of oneself and of others",
            "The file that is found is judged; directories of other labels in /proc are refused",
            &[
                "reading_through_the_links_in_proc_is_refused",
                "the_root_of_another_process_is_no_way",
                "the_own_proc_directory_can_be_read_and_others_not",
                "proc_directories_of_the_same_label_can_be_read_and_others_not",
            ],
        ),
        answered(
            "FS-15",
            "use directories that are deleted, or have left the mount they are seen through",
            "What was deleted is judged by its last name; what moved by where it lies now",
            &[
                "a_deleted_file_is_judged_by_its_last_name",
                "a_directory_moved_out_of_a_mount_is_judged_by_its_place",
            ],
        ),
        answered(
            "FS-16",
            "name a file like the kernel's mark of deleted ones, `tool (deleted)`",
            "Names are compared, never the text that the kernel prints of them",
            &["the_mark_of_deleted_files_is_no_name"],
        ),
        answered(
            "FS-17",
            "use paths longer than PATH_MAX, and components of 255 bytes",
            "The walk reads components, of any length, and has no buffer for a path",
            &["a_path_longer_than_path_max_is_judged", "a_name_is_matched_in_whole_whatever_its_length"],
        ),
        answered(
            "FS-18",
            "lie so deep that a walk gives up",
            "The bound is beyond what can be opened in practice; whatever lies deeper is denied",
            &["a_file_is_judged_at_every_depth", "a_name_is_forbidden_at_every_depth"],
        ),
        answered(
            "FS-19",
            "put newlines, escape sequences, invalid UTF-8 into names",
            "Names are bytes to the decision, and are escaped wherever they are shown",
            &["a_hostile_name_is_judged_and_reported_byte_by_byte", "a_name_in_another_case_is_another_name"],
        ),
        answered(
            "FS-20",
            "cut a file short: truncate, ftruncate, O_TRUNC",
            "`file.truncate`, in all three hooks that kernels have for it",
            &["every_way_to_truncate_is_refused", "appending_and_truncating_are_decided_apart_from_writing"],
        ),
        answered(
            "FS-22",
            "change modes, owners, times, attributes, access lists",
            "`file.setattr`, by name and by descriptor; access lists have hooks of their own since 6.2",
            &[
                "changing_the_mode_is_refused_on_every_file_system",
                "owner_and_times_are_not_changed",
                "extended_attributes_and_access_lists_are_not_changed",
                "flags_are_not_changed",
                "copying_up_is_part_of_what_was_allowed",
            ],
        ),
        out_of_scope(
            "FS-24",
            "copy through descriptors that were open before: copy_file_range, splice, reflinks",
            "this version decides when a file is opened, not each use of it; what may be opened for reading may be copied",
            "restart a workload after tightening its policy",
        ),
        out_of_scope(
            "FS-25",
            "write through a mapping long after it was made",
            "the kernel asks nobody about writes to memory that is mapped; the mapping needed an open for writing, which was decided",
            "restart a workload after tightening its policy",
        ),
        answered(
            "FS-27",
            "read the disk instead of the file: block devices, loop devices, /dev/mem, nodes of one's own making",
            "Devices are files that policy must permit; nodes on one's own tmpfs are unknown",
            &["raw_devices_are_refused", "devices_on_ones_own_tmpfs_are_refused"],
        ),
        answered(
            "FS-28",
            "use ioctl, of 32-bit programs or by io_uring, on what is open",
            "`file.ioctl` in both widths: whatever a command is not known to only ask for",
            &[
                "an_ioctl_that_does_more_is_refused_in_both_widths",
                "what_only_asks_is_never_refused",
                "opening_for_nothing_but_ioctl_is_refused",
            ],
        ),
        answered(
            "FS-29",
            "use the doors of one file system: btrfs send and snapshots, XFS exchange of ranges",
            "They are ioctl commands, and commands that Guard does not know take `file.ioctl`",
            &["an_ioctl_that_does_more_is_refused_in_both_widths"],
        ),
        out_of_scope(
            "FS-30",
            "learn of files without opening them: stat, readlink, access, inotify",
            "policy speaks of contents; names, sizes and times of files are not secret to who may search their directory",
            "directory modes",
        ),
        answered(
            "FS-31",
            "remove traces: journals, login records, shell histories",
            "Opening them for writing, cutting them short, renaming and removing them are rights on files",
            &[
                "the_records_of_the_host_cannot_be_rewritten",
                "links_pipes_and_removals_are_decided_apart",
                "every_way_to_truncate_is_refused",
            ],
        ),
        answered(
            "FS-32",
            "exchange a symbolic link, or the string in memory, while the kernel looks at it",
            "The kernel's own result is judged; nothing is resolved twice",
            &["a_symbolic_link_that_changes_never_leads_to_what_is_refused"],
        ),
        answered(
            "FS-35",
            "hold leases and locks on files that the agent reads",
            "Whoever may not open the agent's files can hold nothing on them",
            &["the_agents_own_files_are_refused"],
        ),
        answered(
            "FS-36",
            "open devices that everybody may open: terminals, fuse, tun, kvm, uinput",
            "Devices are judged by what they are; none is permitted but those that policy or an include names",
            &[
                "ordinary_devices_can_be_used_and_others_not",
                "devices_that_anybody_may_use_are_refused",
                "a_private_dev_is_judged_by_its_devices",
            ],
        ),
    ],
};
