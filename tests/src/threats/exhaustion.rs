//! Wearing it out, and being seen or not.

use super::{Chapter, answered};

pub(super) const CHAPTER: Chapter = Chapter {
    name: "Exhaustion and observation",
    entries: &[
        answered(
            "OB-1",
            "flood the events, and do the one thing meanwhile",
            "No verdict waits for an event; what is lost is counted exactly, per processor",
            &[
                "a_flood_of_denials_lets_nothing_pass_and_is_accounted",
                "a_denial_without_room_for_its_event_is_a_denial_and_is_counted",
            ],
        ),
        answered(
            "OB-2",
            "fill the maps: many tasks, many files, many file systems",
            "Labels lie in the tasks' own storage, tables are sized by the policy, and what finds no room is denied",
            &[
                "many_tasks_are_all_labelled",
                "a_tmpfs_too_many_is_unknown",
                "tables_of_old_policies_are_freed",
            ],
        ),
        answered(
            "OB-3",
            "have the storage of labels fail: no memory, or a lock that is held",
            "A labelled task whose label cannot be read is denied, whatever it asks for; a task whose label cannot be attached does \
             not begin",
            &[
                "whatever_fails_inside_denies_who_is_labelled_and_nobody_else",
                "a_process_whose_label_finds_no_memory_does_not_begin",
            ],
        ),
        answered(
            "OB-4",
            "have a map's lock be busy",
            "What cannot be looked up is denied",
            &["whatever_fails_inside_denies_who_is_labelled_and_nobody_else"],
        ),
        answered(
            "OB-5",
            "run a kernel that refuses a program",
            "A program that is refused ends the agent, which names it; a hook that a kernel does not have is told, and a subject \
             can want nothing or no bundle then",
            &[
                "a_program_that_is_not_attached_is_noticed",
                "a_kernel_without_type_information_is_named",
                "a_kernel_that_is_too_old_is_named",
                "without_the_bpf_lsm_the_missing_parameter_is_named",
                "what_a_kernel_lacks_is_told_and_the_rest_is_enforced",
            ],
        ),
        answered(
            "OB-6",
            "make decisions slow: depth, length, slow file systems",
            "A walk has a bound and reads memory only; `cargo xtask bench` counts its instructions",
            &["a_file_is_judged_at_every_depth", "a_path_longer_than_path_max_is_judged"],
        ),
        answered(
            "OB-7",
            "write into logs and terminals by names",
            "Whatever is shown is escaped",
            &["a_hostile_name_is_judged_and_reported_byte_by_byte", "denials_are_followed_by_the_client"],
        ),
        answered(
            "OB-8",
            "be refused by something else first, so that Guard sees nothing",
            "Guard reports what it denied and says of the rest that it was not Guard",
            &["what_another_check_refused_is_not_us"],
        ),
        answered(
            "OB-9",
            "crash whoever reads events and files",
            "Formats are parsed with bounds; a spoilt memory is set aside and enforcement goes on",
            &[
                "hostile_bundles_are_refused_and_change_nothing",
                "a_spoilt_memory_is_set_aside_and_enforcement_goes_on",
                "a_malformed_request_is_refused_in_json",
            ],
        ),
    ],
};
