//! Having others do it.

use super::{Chapter, answered, out_of_scope};

pub(super) const CHAPTER: Chapter = Chapter {
    name: "Deputies",
    entries: &[
        answered(
            "DP-1",
            "have systemd or a D-Bus service run a program",
            "Their sockets are unix sockets that policy must permit",
            &["connecting_to_a_unix_socket_is_refused", "sockets_of_the_service_manager_are_refused"],
        ),
        answered(
            "DP-2",
            "have a container daemon run a program: docker, podman, containerd, libvirt",
            "The same; what a permitted one does for a subject is not seen, so permit none",
            &[
                "connecting_to_a_unix_socket_is_refused",
                "an_agent_is_refused_other_programs_sockets_and_addresses",
            ],
        ),
        answered(
            "DP-3",
            "leave something for cron, at, udev, logrotate, the next boot",
            "Their files are files that policy must permit making, writing, or renaming and linking something to",
            &[
                "files_that_others_execute_are_refused",
                "creating_a_file_is_refused_on_every_file_system",
                "a_link_or_a_rename_gives_no_more_rights",
            ],
        ),
        answered(
            "DP-4",
            "log in to one's own host: ssh, su, runuser, machinectl",
            "Connecting to the host is a connection, running su keeps the label",
            &[
                "a_tcp_connection_outside_the_permitted_network_is_refused",
                "a_set_user_id_root_helper_keeps_the_label",
                "forbidding_loopback_forbids_the_unspecified_address",
            ],
        ),
        answered(
            "DP-5",
            "leave code where others run it: shell profiles, git hooks, makefiles, directories of PATH",
            "Files that policy must permit making, writing, or renaming and linking something to; permit no code that runs outside \
             of the label",
            &[
                "files_that_others_execute_are_refused",
                "creating_a_file_is_refused_on_every_file_system",
                "a_link_or_a_rename_gives_no_more_rights",
            ],
        ),
        answered(
            "DP-6",
            "type into a terminal that somebody else uses (TIOCSTI, TIOCLINUX)",
            "Typing for others takes the capability `sys_admin`, also on one's own terminal and whatever the kernel's setting; \
             other terminals are files that policy must permit",
            &[
                "typing_for_whoever_else_uses_the_terminal_is_refused",
                "ordinary_devices_can_be_used_and_others_not",
            ],
        ),
        answered(
            "DP-7",
            "signal other processes; share memory with them",
            "Signals are `proc.signal`, decided for each process that gets one; those that a file sends, for who named its owner \
             (F_SETOWN). Shared memory is not a resource of policy: who agrees to share does so",
            &[
                "signals_to_processes_of_others_are_refused",
                "a_refused_signal_does_not_arrive",
                "signals_to_a_group_are_decided_for_each_process",
                "signals_to_all_processes_reach_none_of_others",
                "signals_that_a_file_sends_are_decided_for_who_named_its_owner",
                "tuning_another_process_is_refused",
            ],
        ),
        out_of_scope(
            "DP-8",
            "read keys of the kernel's keyrings",
            "keys are not a resource of policy; the kernel checks their owners",
            "separate users, `KeyringMode=private`",
        ),
        out_of_scope(
            "DP-9",
            "use a graphical session: X11, Wayland, the clipboard",
            "servers have none; where there is one, its sockets are unix sockets that policy must permit",
            "permit none of them",
        ),
        answered(
            "DP-10",
            "have the agent itself do it, through its socket",
            "No labelled caller is listened to at the admin socket; its label is asked, not its user and groups alone. A bundle is read as whoever applies it",
            &[
                "other_users_cannot_use_the_admin_socket",
                "root_with_a_label_cannot_use_the_admin_socket",
                "the_client_says_that_its_caller_is_a_subject",
                "a_caller_that_has_ended_cannot_use_the_admin_socket",
                "a_labelled_process_gets_nothing_at_the_admin_socket_whatever_group_it_is_in",
                "whoever_runs_below_a_labelled_process_changes_nothing",
                "a_member_is_shown_no_file_that_it_cannot_read",
            ],
        ),
    ],
};
