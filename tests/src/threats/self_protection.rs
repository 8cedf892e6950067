//! Turning on the agent.

use super::{Chapter, open, out_of_scope};

const NOT_ROOT: &str = "do not run subjects as root";

pub(super) const CHAPTER: Chapter = Chapter {
    name: "The agent itself",
    entries: &[
        open(
            "SP-1",
            "kill, stop or freeze the agent, as a subject that is root",
            "",
            &[],
            "`proc.signal` is not decided",
            NOT_ROOT,
        ),
        open(
            "SP-2",
            "starve the agent of processors, memory, descriptors",
            "Decisions need nothing of the agent; what is lost of events is counted",
            &["a_mode_set_for_a_time_ends_by_itself_with_the_agent_stopped"],
            "scheduling and limits of the agent's process are not protected",
            NOT_ROOT,
        ),
        open(
            "SP-3",
            "detach the programs",
            "Nothing is pinned: the programs are held by the agent's own descriptors",
            &["a_program_that_is_not_attached_is_noticed"],
            "`sys.bpf` is not decided",
            NOT_ROOT,
        ),
        open("SP-4", "change maps by bpf(2)", "", &[], "`sys.bpf` is not decided", NOT_ROOT),
        open(
            "SP-5",
            "fill the hooks, or answer before Guard does",
            "A full hook is named and the agent does not say that it enforces; another program's answer is not taken for Guard's",
            &[
                "a_hook_that_others_fill_is_named",
                "what_another_module_refuses_from_the_start_proves_nothing",
                "what_another_module_refuses_later_proves_nothing",
            ],
            "`sys.bpf` is not decided",
            NOT_ROOT,
        ),
        open(
            "SP-7",
            "load a module, another kernel, or reboot",
            "",
            &[],
            "`sys.module` is not decided",
            NOT_ROOT,
        ),
        open(
            "SP-8",
            "change the agent's program, policy, state or unit",
            "They are files that policy must permit writing to",
            &["the_agents_own_files_are_refused"],
            "removing and renaming them is not decided",
            NOT_ROOT,
        ),
        open(
            "SP-9",
            "take the socket's place, flood it, send it nonsense",
            "Nonsense is refused in words; a second agent does not start",
            &[
                "a_malformed_request_is_refused_in_json",
                "a_second_daemon_is_refused",
                "hostile_bundles_are_refused_and_change_nothing",
            ],
            "a flood of connections has no test",
            "its directory is root's",
        ),
        open(
            "SP-10",
            "use bpf(2) in a user namespace by a token",
            "",
            &[],
            "`sys.bpf` is not decided",
            "`kernel.unprivileged_bpf_disabled=2`; delegate no bpffs",
        ),
        out_of_scope(
            "SP-11",
            "use a bug of the kernel",
            "Guard is part of the kernel that it protects and falls with it",
            "keep the kernel up to date; permit no modules, bpf, user namespaces",
        ),
        open(
            "SP-12",
            "begin before the agent does",
            "Whoever runs already is labelled before the agent says that it is ready; order services after it",
            &[
                "a_process_that_runs_already_is_labelled_before_the_agent_is_ready",
                "a_selected_executable_that_runs_already_is_labelled_with_its_children",
            ],
            "until the agent is ready nothing is enforced, and no test boots a host with an early service",
            "services ordered after the agent: `After=guard-agent.service`",
        ),
    ],
};
