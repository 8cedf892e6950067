//! Turning on the agent.

use super::{Chapter, answered, out_of_scope};

pub(super) const CHAPTER: Chapter = Chapter {
    name: "The agent itself",
    entries: &[
        answered(
            "SP-1",
            "kill, stop or freeze the agent, as a subject that is root",
            "Acting on the agent's process or cgroup is forbidden to every subject, whatever it governs (builtin.cedar)",
            &[
                "the_agents_process_is_neither_signalled_nor_traced",
                "the_agents_cgroup_is_refused",
                "signals_to_all_processes_reach_none_of_others",
            ],
        ),
        answered(
            "SP-2",
            "starve the agent of processors, memory, descriptors",
            "Its scheduling, limits and cgroup are protected as its process is. Decisions need nothing of the agent; what is lost \
             of events is counted",
            &[
                "the_agents_process_is_neither_signalled_nor_traced",
                "the_agents_cgroup_is_refused",
                "a_mode_set_for_a_time_ends_by_itself_with_the_agent_stopped",
                "a_denial_without_room_for_its_event_is_a_denial_and_is_counted",
            ],
        ),
        answered(
            "SP-3",
            "detach the programs",
            "They are held by the agent's own descriptors, which nobody can take from it, and by pins: changing these, and taking \
             their file system out of the host's mounts, is forbidden to every subject, as are BPF objects of others",
            &[
                "a_subject_that_may_write_everything_removes_no_pin",
                "a_subject_that_may_mount_everything_unmounts_no_pin",
                "objects_of_other_bpf_programs_are_refused",
                "the_agents_process_is_neither_signalled_nor_traced",
                "a_program_that_is_not_attached_is_noticed",
            ],
        ),
        answered(
            "SP-4",
            "change maps by bpf(2)",
            "Opening a map by its number is forbidden to every subject",
            &["objects_of_other_bpf_programs_are_refused", "bpf_is_refused"],
        ),
        answered(
            "SP-5",
            "fill the hooks, or answer before Guard does",
            "Programs for hooks of the kernel are forbidden to every subject. A full hook is named and the agent does not say that \
             it enforces; another program's answer is not taken for Guard's",
            &[
                "programs_that_change_the_kernel_are_refused",
                "a_hook_that_others_fill_is_named",
                "what_another_module_refuses_from_the_start_proves_nothing",
                "what_another_module_refuses_later_proves_nothing",
            ],
        ),
        answered(
            "SP-7",
            "load a module or another kernel",
            "Forbidden to every subject, unless its bundle lifts that by name. A reboot takes the capability `sys_boot`, and the \
             agent starts again with the host",
            &["modules_are_refused", "loading_a_module_is_refused"],
        ),
        answered(
            "SP-8",
            "change the agent's program, policy, state or unit",
            "Changing them in any way is forbidden to every subject, where the packaged unit has them",
            &[
                "the_agents_files_are_refused_to_whoever_may_write_everything",
                "the_agents_own_files_are_refused",
            ],
        ),
        answered(
            "SP-9",
            "take the socket's place, flood it, send it nonsense",
            "The administration's socket is forbidden to every subject; of the socket that is for everybody each user has a share. \
             Nonsense is refused in words; a second agent does not start",
            &[
                "the_place_of_the_admin_socket_is_refused",
                "a_malformed_request_is_refused_in_json",
                "a_second_daemon_is_refused",
                "a_flood_of_connections_keeps_nobody_else_out",
                "hostile_bundles_are_refused_and_change_nothing",
            ],
        ),
        answered(
            "SP-10",
            "use bpf(2) in a user namespace by a token",
            "A token changes whose capabilities count, and every command is decided all the same",
            &["bpf_is_refused", "objects_of_other_bpf_programs_are_refused"],
        ),
        out_of_scope(
            "SP-11",
            "use a bug of the kernel",
            "Guard is part of the kernel that it protects and falls with it",
            "keep the kernel up to date; permit no modules, bpf, user namespaces",
        ),
        answered(
            "SP-12",
            "begin before the agent does",
            "Whoever runs already is labelled before the agent says that it is ready; what is ordered after it begins with its label. \
             Until then nothing is enforced",
            &[
                "services_before_and_after_the_packaged_agent_are_both_labelled_when_it_is_ready",
                "a_process_that_runs_already_is_labelled_before_the_agent_is_ready",
                "a_selected_executable_that_runs_already_is_labelled_with_its_children",
            ],
        ),
    ],
};
