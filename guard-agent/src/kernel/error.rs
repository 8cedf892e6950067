//! Why the kernel side could not be set up or changed.

use super::load::describe;
use std::io;

/// An error of the kernel module. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The agent was built without its BPF programs.
    #[error("this guard-agent was built without its BPF programs: build it with `cargo xtask build`")]
    NoObject,
    /// The kernel exposes no BTF.
    #[error(
        "the kernel offers no type information ({0}): boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, \
         as the distributions' own kernels are"
    )]
    NoBtf(String),
    /// A structure member is not in this kernel.
    #[error(
        "this kernel's {structure} has no member {member}: Guard does not know it yet, use a supported kernel (6.1 to 7.x)"
    )]
    NoMember {
        /// The structure.
        structure: &'static str,
        /// The member.
        member: &'static str,
    },
    /// Reading the BPF object failed.
    #[error("cannot prepare the BPF object: {0}")]
    Object(String),
    /// The caller may not use BPF.
    #[error(
        "loading BPF programs is not permitted (program {program}): run as root with CAP_BPF and CAP_SYS_ADMIN, outside a container that forbids bpf(2), on a kernel that allows BPF LSM programs"
    )]
    NotPermitted {
        /// The program.
        program: String,
    },
    /// The verifier or the kernel refused a program.
    #[error("the kernel refused program {program}: {cause}")]
    Refused {
        /// The program.
        program: String,
        /// The end of the verifier's log, or the error.
        cause: String,
    },
    /// A hook has no room for another program.
    #[error(
        "hook {hook} is full: other BPF LSM programs use all of its places (at most 38 per hook); \
         `bpftool link list` shows whose they are, stop one of them"
    )]
    HookFull {
        /// The hook.
        hook: String,
    },
    /// Attaching failed.
    #[error("cannot attach program {program} to {hook}: {cause}")]
    Attach {
        /// The program.
        program: String,
        /// The hook.
        hook: String,
        /// The error.
        cause: String,
    },
    /// A map operation failed.
    #[error("cannot {operation} map {map}: {cause}")]
    Map {
        /// What was attempted.
        operation: &'static str,
        /// The map.
        map: &'static str,
        /// The error.
        cause: String,
    },
    /// Outcomes of another generation, or of a subject that is not live.
    #[error(
        "the live generation has no place for these outcomes of subject {subject}: compute them for the bundle that is live"
    )]
    Outcomes {
        /// The subject's number.
        subject: u32,
    },
    /// What is pinned cannot be used, or nothing can be pinned.
    #[error("{0}")]
    Pins(#[from] super::PinError),
    /// A system call failed.
    #[error("{call} failed: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// The error.
        source: io::Error,
    },
}

impl KernelError {
    /// A map error, for `map_err`.
    pub(super) fn map<E: std::error::Error>(
        operation: &'static str,
        map: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |cause| Self::Map { operation, map, cause: describe(&cause) }
    }

    /// A system call's error, for `map_err`.
    pub(super) fn system(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { call, source }
    }
}
