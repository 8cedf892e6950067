//! The label a task carries in task storage.

use core::mem::offset_of;

use zerocopy::{Immutable, IntoBytes};

use crate::path::Walk;

/// Subject of a task that has storage but no label yet (an exec that may still fail).
pub const NO_SUBJECT: u32 = 0;
/// The built-in subject of the start-up canary. It is permitted nothing in every generation.
pub const CANARY_SUBJECT: u32 = 1;
/// The built-in subject that stands for the agent's own process where others act on it. No task carries it.
pub const AGENT_SUBJECT: u32 = 2;
/// First subject id given to subjects that policy names. Ids are never reused.
pub const FIRST_SUBJECT: u32 = 16;

/// Set in [`Label::prepared`]: the successor may do what the subject may not.
pub const PREPARED_WIDENS: u32 = 1 << 31;

/// The value in a labelled task's storage. Only the task itself and `task_alloc` on its behalf
/// write it, so the walk buffer needs no lock: a task takes one decision at a time.
///
/// It begins like a [`LabelHead`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Label {
    /// The subject, or [`NO_SUBJECT`] while the label is only prepared.
    pub subject: u32,
    /// The subject that the exec under way will attach when it can no longer fail, in a labelled task with
    /// [`PREPARED_WIDENS`]; else 0.
    pub prepared: u32,
    /// The session; 0 = none. The canary carries its nonce here.
    pub session: u64,
    /// The root that literals of the subject count from, if it has a root of its own.
    pub root: OwnRoot,
    /// The row of a generation's subjects that decides: the subject's own number, or the one of a
    /// session whose variables are literals of its own.
    pub row: u32,
    /// Slot of the tables of `generation`.
    pub slot: u32,
    /// What was open as descriptors 0 to 2 when the label was attached.
    pub stdio: [Held; STDIO_FILES],
    /// What the last use was reported as that policy would deny and did not: the same once more is not told
    /// again. The meaning belongs to the program.
    pub reported: u64,
    /// 1 from the request of the agent that attached the label until the task executes something: whoever asked
    /// for it still talks to the agent.
    pub asked: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
    /// Number of the generation that the hook that runs asks, from description to decision.
    pub generation: u64,
    /// The process that is decided about, where it is not the running one; else zeros.
    pub process: Process,
    /// Super block of the overlay on which this task was last judged, or 0: what overlayfs then does to
    /// the files of its layers is part of what was decided.
    pub overlay: u64,
    /// What the hook that runs asks about files.
    pub questions: Questions,
    /// The end of a connection that the hook that runs asks about.
    pub endpoint: Endpoint,
    /// What this task was answered before.
    pub answers: [Answer; ANSWERS],
    /// What the exec under way found out about its files.
    pub executed: Executed,
    /// Where the path walk of this task keeps its intermediate state.
    pub walk: Walk,
}

/// Answers that a task remembers.
pub const ANSWERS: usize = 4;

/// An answer that was yes, of which nothing was told, with all that it was made of.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Answer {
    /// Address of the dentry of the directory that the file lies in; 0 = no answer.
    pub directory: u64,
    /// Address of that directory's inode.
    pub directory_inode: u64,
    /// The room for a short name in the file's dentry.
    pub name: [u64; 4],
    /// Number of the generation.
    pub generation: u64,
    /// The row's control word.
    pub control: u64,
    /// The next instant of CLOCK_BOOTTIME at which the row's answers change; [`u64::MAX`] if there is none.
    pub until: u64,
    /// How many inodes of directories had been freed.
    pub freed: u64,
    /// Actions, as bits, that are allowed, and whose use was noted.
    pub allowed: u64,
    /// The kernel's count of renames.
    pub renames: u32,
    /// Length of the name.
    pub length: u32,
    /// Owner of the file.
    pub owner: u32,
    /// Its kind and mode.
    pub mode: u32,
    /// The row that decided.
    pub row: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
}

/// What programs hand on to those that take their place: the beginning of every version's [`Label`]. It never
/// changes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LabelHead {
    /// [`Label::subject`].
    pub subject: u32,
    /// [`Label::prepared`].
    pub prepared: u32,
    /// [`Label::session`].
    pub session: u64,
    /// [`Label::root`].
    pub root: OwnRoot,
    /// [`Label::row`].
    pub row: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
    /// [`Label::stdio`].
    pub stdio: [Held; STDIO_FILES],
}

/// How many descriptors are standard input and output.
pub const STDIO_FILES: usize = 3;

/// An open file that was handed to a task with its label. The file's address alone may come to be another
/// file's; together with what it leads to, and within the ways it was open, it is the same or as good.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Address of the kernel's `struct file`; 0 = none.
    pub file: u64,
    /// Address of its inode.
    pub inode: u64,
    /// Number of that inode.
    pub number: u64,
    /// Generation of that number.
    pub generation: u32,
    /// How it is open (`f_mode`).
    pub mode: u32,
}

/// A directory that was the root of a task when its label was attached. It is told by its dentry, its inode
/// and a number that is never given again: while the note under the inode's address has this number, that
/// inode is the directory's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnRoot {
    /// Address of the dentry.
    pub dentry: u64,
    /// Address of its inode.
    pub inode: u64,
    /// Number of the note; 0 = none.
    pub number: u64,
}

/// Set beside a subject where a cgroup or its name selects it: the cgroup is a container's, and what is
/// executed there with the host's root is the runtime, which is not the container yet.
pub const IN_CONTAINER: u32 = 1 << 31;

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

/// Whose a socket is, or who named the owner of a file: what arrives, and what the file sends, is decided for
/// this label, because whoever runs then has nothing to do with it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketLabel {
    /// The session.
    pub session: u64,
    /// The subject, or [`NO_SUBJECT`] if nothing but `flags` is known.
    pub subject: u32,
    /// [`SOCKET_REFUSED`], [`SOCKET_CONNECTED`], [`SOCKET_ACCEPTED`], [`SOCKET_LISTENS`].
    pub flags: u32,
    /// The row that decides for it, see [`Label::row`].
    pub row: u32,
    /// With [`SOCKET_CONNECTED`], for a unix socket: the subject that listened at the other end, or
    /// [`NO_SUBJECT`].
    pub listener: u32,
    /// The process that made it or listens on it.
    pub process: Process,
}

/// The connection was accepted from a peer that policy does not let in: nothing passes over it.
pub const SOCKET_REFUSED: u32 = 1;
/// A labelled task made the connection, and its right to do so is that to use it.
pub const SOCKET_CONNECTED: u32 = 2;
/// A labelled task accepted the connection, and its right to do so is that to use it.
pub const SOCKET_ACCEPTED: u32 = 4;
/// A labelled task made the socket listen, and its right to do so is that to accept on it.
pub const SOCKET_LISTENS: u32 = 8;

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

/// Most questions about files in one hook: two files at two places.
pub const QUESTIONS: usize = 4;

/// What a hook asks about files. It lies in map memory like the state of a walk, and for the same reason:
/// the verifier checks the answer to one question, whatever was asked and answered before.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Questions {
    /// The questions.
    pub list: [Question; QUESTIONS],
    /// What was found out at earlier ones, to compare with.
    pub known: [Known; 2],
    /// The action that a refusal for more rights is reported as.
    pub action: u64,
    /// What the question that is being answered is about.
    pub described: Described,
}

/// A question about one end of a connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Endpoint {
    /// The kernel's `struct sock`.
    pub sock: u64,
    /// Upper half of an IPv6 address, in host byte order; else 0.
    pub high: u64,
    /// Lower half of an IPv6 address, or an IPv4 address, in host byte order.
    pub low: u64,
    /// Actions as bits.
    pub required: u64,
    /// How it is meant, as bits whose meaning belongs to the program.
    pub flags: u32,
    /// Port, in host byte order.
    pub port: u16,
    /// IP protocol, once it is known.
    pub protocol: u16,
    /// Features, once they are known.
    pub features: u64,
    /// Class, once it is known.
    pub class: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
}

/// The digest of a file that is executed, on its way from the program that may sleep and takes it to the one
/// that decides.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Executed {
    /// Address of the kernel's `struct file` that the digest is of; 0 = there is none. It counts for the exec that
    /// opened that file and for no other: the open forgets it, and the decision takes it away.
    pub file: u64,
    /// Address of the file that was opened because some signers would allow its execution; 0 = none. The
    /// decision takes it away as well: what is left then is no program, but an ELF interpreter.
    pub on_trust: u64,
    /// SHA-256 of the file's content.
    pub digest: [u8; DIGEST],
    /// 1 if a file of this exec was allowed only because of who signed it, or who did not.
    pub rests: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
}

/// Bytes of a SHA-256 digest.
pub const DIGEST: usize = 32;

/// What was found out about a file, for a decision.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Described {
    /// Its features.
    pub features: u64,
    /// Its kind (`S_IFMT`).
    pub kind: u64,
    /// Its class.
    pub class: u32,
    /// 1 if the walk buffer holds its path.
    pub has_path: u32,
    /// Its owner.
    pub owner: u32,
    /// Its kind and mode, if it was judged by nothing but its place and attributes, so that the answer can be
    /// remembered; else 0.
    pub mode: u32,
    /// The control word of the row that decides, as it was before the decision.
    pub control: u64,
    /// The instant of CLOCK_BOOTTIME before the decision, if the row has deadlines; else 0.
    pub since: u64,
}

/// One question: may the running task do something to a file?
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Question {
    /// Where it is, or is to be. Address of the name, where that is an abstract one.
    pub dentry: u64,
    /// The file; 0 where it is still to be made.
    pub inode: u64,
    /// Where the kernel keeps the address of the mount that it is seen through; 0 if the hook has none.
    pub mount_at: u64,
    /// Actions as bits, or what the kind of the file makes of it; the meaning belongs to the program.
    pub required: u64,
    /// Actions of which one is enough, instead of `required`: the first one is what a refusal is called.
    pub either: [u64; 2],
    /// Entry of [`Questions::known`] to fill, plus 1; 0 = none.
    pub save: u32,
    /// Entry of [`Questions::known`] to compare with, plus 1; 0 = none. Negative: that is where the file
    /// goes, and not where it comes from.
    pub compare: i32,
    /// What is judged; the meaning belongs to the program.
    pub about: u32,
    /// Kind and mode of a file that is still to be made.
    pub mode: u32,
    /// Length of an abstract name, in bytes.
    pub length: u32,
    /// Subject at the other end of a socket, or 0.
    pub peer: u32,
}

/// What was found out about a file at a place.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Known {
    /// Features that the names of the directories give, which hold for what lies below as well.
    pub above: u64,
    /// Features that the last component gives.
    pub last: u64,
    /// Actions that are allowed.
    pub allow: u64,
    /// Actions that the candidate set allows.
    pub candidate: u64,
    /// Index of the outcome.
    pub outcome: u32,
    /// 1 if policy names the place or something below it.
    pub named: u32,
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
    assert!(
        size_of::<LabelHead>() == 48 + size_of::<[Held; STDIO_FILES]>()
            && size_of::<Held>() == 32
            && size_of::<OwnRoot>() == 24
    );
    assert!(offset_of!(Label, subject) == 0 && offset_of!(LabelHead, subject) == 0);
    assert!(offset_of!(Label, prepared) == 4 && offset_of!(LabelHead, prepared) == 4);
    assert!(offset_of!(Label, session) == 8 && offset_of!(LabelHead, session) == 8);
    assert!(offset_of!(Label, root) == 16 && offset_of!(LabelHead, root) == 16);
    assert!(offset_of!(Label, row) == 40 && offset_of!(LabelHead, row) == 40);
    assert!(offset_of!(Label, stdio) == 48 && offset_of!(LabelHead, stdio) == 48);
    assert!(size_of::<Maker>() == 16);
    assert!(size_of::<Process>() == 24);
    assert!(size_of::<SocketLabel>() == 48);
    assert!(size_of::<Questions>() == 424);
    assert!(size_of::<Answer>() == 112);
    assert!(size_of::<Executed>() == 56);
    assert!(
        size_of::<Label>()
            == 88
                + 112
                + size_of::<Questions>()
                + size_of::<Endpoint>()
                + size_of::<[Answer; ANSWERS]>()
                + size_of::<Executed>()
                + size_of::<Walk>()
    );
};
