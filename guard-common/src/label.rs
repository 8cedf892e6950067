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
    /// The row of a generation's subjects that decides: the subject's own number, or the one of a
    /// session whose variables are literals of its own.
    pub row: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
    /// The process that is decided about, where it is not the running one; else zeros.
    pub process: Process,
    /// Super block of the overlay on which this task was last judged, or 0: what overlayfs then does to
    /// the files of its layers is part of what was decided.
    pub overlay: u64,
    /// Where the path walk of this task keeps its intermediate state.
    pub walk: Walk,
}

/// A process, as events name it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Thread-group id in the initial PID namespace, or 0.
    pub tgid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Command name, as it called itself.
    pub comm: [u8; 16],
}

/// Whose a socket is: what arrives at it is decided for this label, because whoever runs then has nothing
/// to do with it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketLabel {
    /// The session.
    pub session: u64,
    /// The subject, or [`NO_SUBJECT`] if nothing but `flags` is known.
    pub subject: u32,
    /// [`SOCKET_REFUSED`].
    pub flags: u32,
    /// The row that decides, see [`Label::row`].
    pub row: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
    /// The process that made it or listens on it.
    pub process: Process,
}

/// The connection was accepted from a peer that policy does not let in: nothing passes over it.
pub const SOCKET_REFUSED: u32 = 1;

/// A request of the agent to label one running process, keyed by thread-group id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
pub struct LabelRequest {
    /// Start time of the process in nanoseconds of CLOCK_BOOTTIME, in clock ticks of
    /// `/proc/PID/stat` field 22 (10 ms each), so that a reused pid is not labelled.
    pub start_ticks: u64,
    /// The session to attach; 0 = none.
    pub session: u64,
    /// The subject to attach; [`NO_SUBJECT`] exempts the process for now.
    pub subject: u32,
    /// The row that decides for it, see [`Label::row`].
    pub row: u32,
    /// The subject that the process must carry, and which ends with this; [`NO_SUBJECT`] for a process
    /// that must carry none.
    pub replaces: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
}

impl LabelRequest {
    /// Label a process that carries none, as `subject` without a session.
    pub const fn attach(start_ticks: u64, subject: u32) -> Self {
        Self { start_ticks, session: 0, subject, row: subject, replaces: NO_SUBJECT, reserved: 0 }
    }

    /// The same with a session.
    pub const fn with_session(self, session: u64) -> Self {
        Self { session, ..self }
    }
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
    assert!(size_of::<LabelRequest>() == 32);
    assert!(size_of::<Maker>() == 16);
    assert!(size_of::<Process>() == 24);
    assert!(size_of::<SocketLabel>() == 48);
    assert!(size_of::<Label>() == 56 + size_of::<Walk>());
};
