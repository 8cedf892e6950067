//! The label a task carries in task storage.

use zerocopy::{Immutable, IntoBytes};

use crate::path::Walk;

/// Subject of a task that has storage but no label yet (an exec that may still fail).
pub const NO_SUBJECT: u32 = 0;
/// The built-in subject of the start-up canary. It is permitted nothing in every generation.
pub const CANARY_SUBJECT: u32 = 1;
/// First subject id given to subjects that policy names. Ids are never reused.
pub const FIRST_SUBJECT: u32 = 16;

/// The value in a labelled task's storage. Only the task itself and `task_alloc` on its behalf
/// write it, so the walk buffer needs no lock: a task takes one decision at a time.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Label {
    /// The subject, or [`NO_SUBJECT`] while the label is only prepared.
    pub subject: u32,
    /// The subject that the exec under way will attach when it can no longer fail; else 0.
    pub prepared: u32,
    /// The session; 0 = none. The canary carries its nonce here.
    pub session: u64,
    /// Where the path walk of this task keeps its intermediate state.
    pub walk: Walk,
}

/// A request of the agent to label one running process, keyed by thread-group id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
pub struct LabelRequest {
    /// Start time of the process in nanoseconds of CLOCK_BOOTTIME, in clock ticks of
    /// `/proc/PID/stat` field 22 (10 ms each), so that a reused pid is not labelled.
    pub start_ticks: u64,
    /// The session to attach; 0 = none.
    pub session: u64,
    /// The subject to attach.
    pub subject: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
}

/// Who made a file system: the label of the task that was running then.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maker {
    /// Its session.
    pub session: u64,
    /// Its subject.
    pub subject: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
}

/// Longest unit name or cgroup path that a selector can hold, in bytes, without the terminating zero.
/// What is longer in the kernel is cut to this length, so a key must be shorter by one.
pub const UNIT_NAME_MAX: usize = 127;

/// Key of the unit selector map: the last component of a cgroup's path, or the whole path with its
/// leading slash, padded with zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
pub struct UnitName {
    /// The bytes of the name.
    pub bytes: [u8; UNIT_NAME_MAX + 1],
}

const _: () = {
    assert!(size_of::<LabelRequest>() == 24);
    assert!(size_of::<Maker>() == 16);
    assert!(size_of::<Label>() == 16 + size_of::<Walk>());
};
