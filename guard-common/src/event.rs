//! What the kernel reports through the ring buffer, and its counters.

use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Longest path in an event, in bytes; longer ones are cut and marked.
pub const PATH_MAX: usize = 512;
/// Room behind the path, so that the last component can be copied without another bound.
pub const PATH_SLACK: usize = 256;

/// What an event reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// The operation was denied.
    Denied = 1,
    /// The operation was allowed; the candidate policy set would have denied it.
    WouldDeny = 2,
    /// The operation was allowed and policy asked for a report.
    Audited = 3,
    /// A task was moved into a cgroup that a selector names; user space labels it.
    Attached = 4,
    /// The operation was allowed and nothing else reports it; the shadow would have denied it.
    ShadowDeny = 5,
}

impl Verdict {
    /// The verdict with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Denied, Self::WouldDeny, Self::Audited, Self::Attached, Self::ShadowDeny]
            .into_iter()
            .find(|v| *v as u8 == number)
    }
}

/// The fixed part of an event has a path behind it.
pub const FLAG_PATH: u8 = 1;
/// The path was cut.
pub const FLAG_PATH_CUT: u8 = 2;
/// The unix socket's name is abstract.
pub const FLAG_ABSTRACT: u8 = 4;
/// The operation was denied; the candidate policy set would have allowed it.
pub const FLAG_WOULD_ALLOW: u8 = 8;

/// One event. `path` holds `path_len` bytes: components from the file system's root, each with a
/// leading slash, or an abstract socket name.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, KnownLayout, Immutable)]
pub struct Event {
    /// Nanoseconds of CLOCK_BOOTTIME.
    pub boot_ns: u64,
    /// Generation that decided.
    pub generation: u64,
    /// Session of the label.
    pub session: u64,
    /// Cgroup id of the task.
    pub cgroup: u64,
    /// Number of this event on its CPU, from 1, gaps are events lost.
    pub sequence: u64,
    /// The actions concerned, as bits.
    pub actions: u64,
    /// Features of the resource.
    pub features: u64,
    /// The actions for which the operation would have ended otherwise if the shadow were live: what it
    /// would deny of an operation that was allowed, or what was denied of one that it would allow.
    /// 0 if it would have ended the same, or there is no shadow.
    pub shadow: u64,
    /// The subject.
    pub subject: u32,
    /// Thread-group id in the initial PID namespace.
    pub tgid: u32,
    /// Thread id in the initial PID namespace.
    pub tid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// CPU the event was made on.
    pub cpu: u32,
    /// Class of the resource.
    pub class: u32,
    /// Device number of the file system, or 0.
    pub device: u32,
    /// Subject of the process that is acted on, or of the one at the other end; 0 = no label, or not known.
    pub peer: u32,
    /// Thread-group id of the process that is acted on, in the initial PID namespace; 0 = none.
    pub peer_tgid: u32,
    /// A [`Verdict`].
    pub verdict: u8,
    /// A [`crate::decide::Reason`].
    pub reason: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// Error number the caller got, positive; 0 if allowed.
    pub errno: u8,
    /// Address family of `address`: 2, 10 or 0.
    pub family: u16,
    /// Port, host byte order.
    pub port: u16,
    /// IP protocol.
    pub protocol: u16,
    /// Bytes used in `path`.
    pub path_len: u16,
    /// IPv4 (first four bytes) or IPv6 address, network byte order.
    pub address: [u8; 16],
    /// Command name of the task, as it calls itself: for display only.
    pub comm: [u8; 16],
    /// The path, or an abstract name.
    pub path: [u8; PATH_MAX + PATH_SLACK],
}

/// Counters, one per CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Operations of labelled tasks that were decided.
    Decided = 0,
    /// Operations denied.
    Denied = 1,
    /// Allowed operations that the candidate set would deny.
    WouldDeny = 2,
    /// Events put into the ring.
    Sent = 3,
    /// Events that found the ring full.
    Lost = 4,
    /// Tasks labelled by a selector in the kernel.
    Labelled = 5,
    /// Internal failures that denied a labelled task.
    InternalDenied = 6,
    /// Labels that could not be attached at an exec, whose task was killed instead.
    LabelFailed = 7,
    /// Denied operations that the candidate set would allow.
    WouldAllow = 8,
    /// Allowed operations that the shadow would deny.
    ShadowDeny = 9,
    /// Denied operations that the shadow would allow.
    ShadowAllow = 10,
    /// File systems made by labelled tasks that were one too many to note, so that no policy knows them.
    NotNoted = 11,
    /// Labels that were taken over from other programs, or again because those changed them meanwhile.
    Inherited = 12,
    /// Tasks that a quarantine came to cover, or no longer covers, found by an iterator.
    Covered = 13,
}

/// Number of counters.
pub const COUNTERS: u32 = 14;

const _: () = assert!(size_of::<Event>() == 144 + PATH_MAX + PATH_SLACK);
