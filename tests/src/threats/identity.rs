//! Shedding a label.

use super::{Chapter, answered};

const LABEL_STAYS: &str =
    "Labels are copied at fork and never looked up again by user, cgroup, parent, name or program";

pub(super) const CHAPTER: Chapter = Chapter {
    name: "Identity",
    entries: &[
        answered(
            "ID-1",
            "become another user: setuid(2), set-user-id programs, su, sudo",
            LABEL_STAYS,
            &[
                "a_process_that_becomes_another_user_keeps_the_label",
                "a_set_user_id_root_helper_keeps_the_label",
                "runuser_labels_what_it_starts",
                "su_labels_what_it_starts",
                "sudo_labels_what_it_starts_and_not_itself",
                "a_login_by_ssh_is_labelled_and_the_server_is_not",
                "a_job_of_cron_is_labelled_and_cron_is_not",
                "a_set_user_id_program_of_a_subject_labels_its_caller",
            ],
        ),
        answered(
            "ID-2",
            "become a user of /etc/subuid inside a user namespace, by newuidmap or a helper",
            LABEL_STAYS,
            &[
                "another_user_id_by_an_id_mapping_keeps_the_label",
                "root_of_an_own_user_namespace_keeps_the_label",
            ],
        ),
        answered(
            "ID-3",
            "move to another cgroup, or have a child begin there (CLONE_INTO_CGROUP)",
            "A cgroup can give a label to who has none; it takes none away and exchanges none",
            &[
                "a_process_that_moves_to_another_cgroup_keeps_the_label",
                "a_child_cloned_into_another_cgroup_keeps_the_label",
                "moving_to_the_cgroup_of_another_subject_does_not_exchange_the_label",
                "what_is_cloned_into_a_selected_cgroup_is_labelled_at_its_exec",
            ],
        ),
        answered(
            "ID-4",
            "lose one's parent: double fork, setsid, CLONE_PARENT",
            LABEL_STAYS,
            &[
                "a_forked_child_keeps_the_label",
                "an_orphan_of_a_double_fork_in_a_new_session_keeps_the_label",
                "a_child_of_the_parents_parent_keeps_the_label",
            ],
        ),
        answered(
            "ID-5",
            "enter new namespaces of users, mounts and processes",
            LABEL_STAYS,
            &[
                "root_of_an_own_user_namespace_keeps_the_label",
                "what_is_denied_outside_is_denied_in_a_sandbox",
                "what_is_denied_outside_is_denied_in_a_container",
            ],
        ),
        answered(
            "ID-6",
            "change the ids of one thread only, by the bare system call",
            "Every thread has its own label, copied from the thread that made it",
            &["a_thread_keeps_the_label", "a_thread_that_changes_its_ids_alone_keeps_the_label"],
        ),
        answered(
            "ID-7",
            "execute from another thread than the first, which then takes the first one's place",
            "The label is the thread's that executes; the process id it takes over means nothing",
            &["an_exec_by_another_thread_than_the_first_keeps_the_label"],
        ),
        answered(
            "ID-9",
            "get the process id of somebody who ended, or leave one's own to somebody",
            "Labels lie in the task itself and end with it; process ids are no keys",
            &["a_process_with_the_id_of_one_that_ended_inherits_nothing"],
        ),
        answered(
            "ID-10",
            "have io_uring act with credentials that were registered before (personality)",
            "The label belongs to the task, not to its credentials",
            &["credentials_registered_with_a_ring_change_nothing"],
        ),
        answered(
            "ID-11",
            "have the kernel's threads act: io_uring's poller (SQPOLL) and workers (IOSQE_ASYNC)",
            "They are made as threads of the process and get its label like any other",
            &["a_polling_thread_of_a_ring_keeps_the_label", "opening_a_file_by_io_uring_is_refused"],
        ),
        answered(
            "ID-13",
            "take the name of a program that is trusted: prctl(PR_SET_NAME), /proc/self/comm, argv[0]",
            "Names that a process gives itself decide nothing",
            &["another_command_name_changes_nothing"],
        ),
        answered(
            "ID-15",
            "run before the agent does, or fork while it starts, dies or is replaced by another version",
            "Programs that copy labels are attached first; then all tasks are visited until none is left, before the agent says \
             that it enforces. Programs, labels and policy stay in the kernel when the agent ends, and the next agent takes \
             them over",
            &[
                "a_process_that_runs_already_is_labelled_before_the_agent_is_ready",
                "a_selected_executable_that_runs_already_is_labelled_with_its_children",
                "a_fork_storm_during_the_start_leaves_nobody_unlabelled",
                "no_process_of_a_fork_storm_escapes_while_agents_die_and_take_over",
                "an_agent_that_is_killed_at_any_step_of_taking_over_leaves_what_enforced",
            ],
        ),
        answered(
            "ID-16",
            "reach a file through an overlay that root mounted, where the kernel acts as root",
            "The open of the overlay's file is decided, by the label of the task; what the overlay opens for it was decided with it",
            &["reading_is_refused_on_every_file_system", "copy_up_works_where_writing_is_permitted"],
        ),
        answered(
            "ID-17",
            "have the kernel start a program as root: core_pattern, modprobe, hotplug helpers",
            "Writing to the files that name such programs is forbidden to every subject; a program that the kernel starts \
             for its own reasons (request-key) has no label and gets no argument but a key's description",
            &[
                "programs_that_the_kernel_starts_cannot_be_set",
                "programs_that_the_kernel_starts_are_refused_to_whoever_may_write_everything",
            ],
        ),
        answered(
            "ID-18",
            "fork while a quarantine is put on the process",
            "A child has the bits of its parent, or is found by the next pass over all tasks; at level full nobody forks",
            &["a_fork_bomb_is_contained_by_a_quarantine", "a_fork_bomb_without_a_label_is_contained"],
        ),
    ],
};
