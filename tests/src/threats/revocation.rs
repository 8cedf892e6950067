//! Going on after the answer has changed.

use super::{Chapter, answered, out_of_scope};

const NOT_ON_USE: &str =
    "this version decides when a file is opened or a connection made, not each use of it";
const RESTART: &str = "restart a workload after tightening its policy";

pub(super) const CHAPTER: Chapter = Chapter {
    name: "Revocation",
    entries: &[
        out_of_scope("RV-1", "go on reading and writing what is open", NOT_ON_USE, RESTART),
        out_of_scope(
            "RV-2",
            "go on using what is mapped",
            "the kernel asks nobody about memory that is mapped",
            "kill the process",
        ),
        out_of_scope("RV-3", "go on using connections", NOT_ON_USE, RESTART),
        out_of_scope("RV-4", "have operations under way in io_uring and AIO", NOT_ON_USE, RESTART),
        out_of_scope("RV-5", "leave open descriptors to other processes", NOT_ON_USE, RESTART),
        answered(
            "RV-6",
            "fork faster than one is killed",
            "At level full nobody who is covered forks, and all that there are are stopped",
            &["a_fork_bomb_is_contained_by_a_quarantine", "a_fork_bomb_without_a_label_is_contained"],
        ),
        answered(
            "RV-7",
            "get a decision out of two policies at once",
            "A policy is one generation, built aside and switched to by one store; a decision reads one of them",
            &[
                "switching_between_two_policies_never_mixes_them",
                "a_switch_that_fails_at_any_step_leaves_the_old_policy_untouched",
                "applying_a_bundle_decides_the_next_system_call",
            ],
        ),
        answered(
            "RV-8",
            "lengthen what ends at an instant by setting clocks",
            "Instants are of a clock that nobody sets, compared in the kernel; what ends does so with the agent stopped",
            &[
                "setting_the_clock_moves_no_end_of_a_mode",
                "a_mode_ends_at_its_deadline_for_its_subject_only",
                "a_mode_set_for_a_time_ends_by_itself_with_the_agent_stopped",
                "a_mode_outlives_a_new_bundle_a_kill_and_a_restart",
            ],
        ),
        out_of_scope(
            "RV-9",
            "abuse an approval: exchange what was approved, spend it twice, tire the approver",
            "this version has no approvals",
            "grant nothing that should have been asked for",
        ),
        answered(
            "RV-10",
            "have the kernel forget what it knows of a file, by pressure on memory",
            "Nothing about a file is kept that a verdict depends on: what is remembered is checked against where the file is",
            &[
                "what_the_kernel_forgets_changes_nothing",
                "what_is_remembered_is_where_it_was",
                "a_new_directory_is_not_taken_for_one_whose_memory_it_has",
            ],
        ),
    ],
};
