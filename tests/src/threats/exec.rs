//! Running code.

use super::{Chapter, answered};

pub(super) const CHAPTER: Chapter = Chapter {
    name: "Execution",
    entries: &[
        answered(
            "EX-1",
            "execute what has no name: memfd, O_TMPFILE, a deleted file, however it is named",
            "Images without a name belong to a class of their own; a deleted one is judged by its last place",
            &[
                "a_program_in_a_memfd_is_refused",
                "a_program_in_a_temporary_file_without_a_name_is_refused",
                "a_deleted_program_is_refused",
                "executing_from_ones_own_tmpfs_needs_its_own_permit",
            ],
        ),
        answered(
            "EX-2",
            "have the dynamic loader run a program: `ld.so ./program`",
            "Mapping a file executable is an action of its own (`exec.map`), decided for the program's file",
            &["the_dynamic_loader_does_not_run_what_is_refused"],
        ),
        answered(
            "EX-3",
            "get executable memory some other way: mprotect, anonymous mappings, READ_IMPLIES_EXEC, shmat, /proc/self/mem",
            "mmap and mprotect are decided by what the mapping will be, for files and for memory without one; what was written \
             to a private mapping of a file is no longer the file; /proc/self/mem is a file that no include permits writing to",
            &[
                "mapping_a_file_executable_is_refused",
                "anonymous_executable_memory_is_refused",
                "memory_is_not_made_executable_afterwards",
                "what_was_written_to_a_mapping_is_not_executed",
                "ones_own_memory_is_not_written_past_its_protection",
            ],
        ),
        answered(
            "EX-5",
            "give a script to an interpreter that may run: `-c`, standard input, /dev/fd, process substitution",
            "Every interpreter stage of `#!` is decided. What an interpreter reads is not code to the kernel: a script has the \
             rights of its subject whoever interprets it, and gains none",
            &[
                "a_script_is_refused_if_its_interpreter_is",
                "a_script_is_refused_if_it_is_not_permitted_itself",
                "a_script_has_the_rights_of_its_subject_only",
            ],
        ),
        answered(
            "EX-6",
            "ask with AT_EXECVE_CHECK, which skips the hook of interpreter stages",
            "The first hook of an exec answers, so the question gets the answer that the exec would get",
            &["asking_whether_a_program_may_run_is_answered_truly"],
        ),
        answered(
            "EX-7",
            "register an interpreter for a file format (binfmt_misc), or mount binfmt_misc in a user namespace",
            "The registered program is an interpreter stage like any other; registering is writing to a file",
            &["a_program_registered_for_a_format_is_refused"],
        ),
        answered(
            "EX-8",
            "have code loaded by environment: LD_PRELOAD, LD_AUDIT, LD_LIBRARY_PATH, paths of interpreters",
            "A library is mapped executable, which is decided for its file; modules of interpreters are reads",
            &["a_library_for_preloading_is_refused"],
        ),
        answered(
            "EX-9",
            "trace another process, or write into its memory: ptrace, process_vm_writev, /proc/PID/mem, pidfd_getfd",
            "`proc.trace`, in every call that takes it; /proc of other labels is refused as files",
            &[
                "tracing_processes_of_others_is_refused",
                "the_memory_of_others_is_refused",
                "descriptors_of_others_are_refused",
                "a_labelled_parent_needs_the_right_to_trace_who_asks_for_it",
                "proc_directories_of_the_same_label_can_be_read_and_others_not",
            ],
        ),
        answered(
            "EX-10",
            "execute a copy, a link or a changed copy of a program under another name",
            "What may be executed is permitted by place, so a copy elsewhere is another program. A forbid of one place does not \
             forbid copies: permit `exec` only where the subject cannot write",
            &["a_copy_of_a_program_is_another_program", "a_program_is_refused_through_every_link_to_it"],
        ),
        answered(
            "EX-11",
            "have another file where a permitted program is expected: a bind mount over it, a chroot with a tree like the host's",
            "A place is a name from the root of its file system, whatever is mounted or the root of the process",
            &["a_program_mounted_over_a_permitted_one_is_refused"],
        ),
        answered(
            "EX-12",
            "name a program by links: /proc/self/root, /proc/self/fd, /dev/fd, symbolic links",
            "The file that the kernel found is judged, not the string that led to it",
            &["a_program_is_refused_through_every_link_to_it"],
        ),
        answered(
            "EX-13",
            "change a file between its measurement and its use",
            "Most policies decide by place and measure nothing. Where `resource.signed_by` counts, the digest is taken while \
             the kernel lets nobody write to the file, and only where that means something: scripts, ELF interpreters, memfds \
             and files on FUSE, network and stacked file systems have no signers that could be told, and what depends on \
             them is denied",
            &[
                "a_program_runs_only_as_it_was_signed",
                "what_replaces_a_signed_program_or_is_copied_over_it_is_refused",
                "a_program_that_is_rewritten_while_others_execute_it_runs_only_as_it_was_signed",
                "a_script_that_only_its_signature_would_allow_is_refused",
                "a_signature_on_an_elf_interpreter_allows_nothing",
            ],
        ),
        answered(
            "EX-15",
            "hide or forge the arguments of a program: none at all, many, in memory that cannot be read",
            "No policy can speak of arguments, so none can be evaded by them; the verdict is the program's",
            &["arguments_change_nothing"],
        ),
        answered(
            "EX-16",
            "have a permitted program start another: find -exec, tar's checkpoint actions, git aliases, env, xargs",
            "What it starts is decided by itself: permission to run a program passes nothing on",
            &["what_a_permitted_program_starts_is_judged_by_itself"],
        ),
        answered(
            "EX-17",
            "call the kernel as a 32-bit program does",
            "The hooks are below the system calls of both kinds",
            &["a_32_bit_program_is_judged_like_any_other"],
        ),
        answered(
            "EX-18",
            "map a program through an overlay, behind which another inode is mapped",
            "The overlay's name is judged, and the layers' files by theirs",
            &["a_program_on_an_overlay_is_judged_by_the_name_used"],
        ),
        answered(
            "EX-19",
            "spawn with vfork or posix_spawn, very often",
            "The same hooks; a denial in the child wakes the parent",
            &["a_program_is_refused_however_often_it_is_spawned"],
        ),
    ],
};
