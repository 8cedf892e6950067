//! The tables of one generation, as the compiler writes them and the kernel reads them.
//!
//! Lookup goes `cell[subject][class] → outcome → masks`. Cells and outcomes are static for the life
//! of a generation: they do not depend on posture. Masks and timelines are dynamic: every subject
//! has [`OUTCOME_SLOTS`] copies of them, and the control word in its row says which one counts. A
//! change of posture fills another copy and stores that word; it touches no other subject.

use zerocopy::{Immutable, IntoBytes};

use crate::action::{COUNTABLE, TABLE};

/// Features a decision can depend on besides its class. One bit each in a `u64`.
pub const MAX_FEATURES: usize = 64;
/// Features one outcome may depend on: its truth table has `2^n` rows.
pub const MAX_OUTCOME_FEATURES: usize = 10;
/// Deadlines stored ahead for one subject.
pub const MAX_BOUNDARIES: usize = 3;
/// Segments of a timeline: what counts now, and after each boundary.
pub const SEGMENTS: u32 = MAX_BOUNDARIES as u32 + 1;
/// Copies of a subject's masks and timeline. One counts; another is filled meanwhile, and reused only
/// when no program can still read it, so several allow several changes before that must be waited for.
pub const OUTCOME_SLOTS: u32 = 4;
/// Outcomes of one subject: a cell has 16 bits.
pub const MAX_OUTCOMES: usize = 1 << 16;
/// Attribute tests in one generation.
pub const MAX_ATTRIBUTE_TESTS: u32 = 32;
/// Name patterns in one generation.
pub const MAX_PATTERNS: u32 = 16;

/// The subject is part of this generation.
pub const SUBJECT_LIVE: u32 = 1;
/// Paths of the subject's policies count from the root that each of its tasks had when it was labelled.
pub const SUBJECT_OWN_ROOT: u32 = 2;
/// What the subject may execute depends on who signed it, so the digest of what it executes is taken.
pub const SUBJECT_ASKS_SIGNERS: u32 = 4;

/// What a generation says of one subject, or of one session with variables. Index: subject id, or the
/// number given to the session.
///
/// Row `r` of segment `s` in slot `c` is at `masks + c * mask_stride + s * rows + r`, the timeline of
/// slot `c` at `timeline + c * timeline_stride`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
pub struct SubjectRow {
    /// A [`Control`] word: the only field that changes while a generation lives, by one store.
    pub control: u64,
    /// [`SUBJECT_LIVE`], [`SUBJECT_OWN_ROOT`] and [`SUBJECT_ASKS_SIGNERS`], or 0 for an id that this generation
    /// does not know.
    pub flags: u32,
    /// Index of this subject's first cell.
    pub cells: u32,
    /// Index of this subject's first outcome, and of its first use word.
    pub outcomes: u32,
    /// Index of its first mask row in slot 0.
    pub masks: u32,
    /// Mask rows per segment.
    pub rows: u32,
    /// Mask rows per slot, of all subjects together.
    pub mask_stride: u32,
    /// Index of its timeline in slot 0.
    pub timeline: u32,
    /// Timelines per slot.
    pub timeline_stride: u32,
    /// The only session that this row decides for; 0 = any. Rows of sessions are used again when their
    /// session has ended, and a label of an ended session must not be decided by another's row.
    pub session: u64,
}

/// Which copy of a subject's outcomes counts: bits 0 to 7 the slot, 8 to 15 the number of boundaries
/// in its timeline, 16 to 63 a sequence number that grows with every change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control(pub u64);

impl Control {
    /// The word for a slot, its number of boundaries and a sequence number.
    pub const fn new(slot: u32, boundaries: u32, sequence: u64) -> Self {
        Self((slot & 0xff) as u64 | ((boundaries & 0xff) as u64) << 8 | sequence << 16)
    }

    /// The slot.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 & 0xff) as u32
    }

    /// Boundaries in the slot's timeline.
    #[inline(always)]
    pub const fn boundaries(self) -> u32 {
        (self.0 >> 8 & 0xff) as u32
    }

    /// How often the subject's outcomes were changed in this generation.
    pub const fn sequence(self) -> u64 {
        self.0 >> 16
    }
}

/// When a subject's masks change by themselves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
pub struct Timeline {
    /// Instants of CLOCK_BOOTTIME, in nanoseconds, at which the next segment begins; ascending. The
    /// control word says how many count.
    pub boundary: [u64; MAX_BOUNDARIES],
}

/// Four neighbouring cells: the outcome numbers of four classes, within their subject, the lowest
/// class in the lowest 16 bits.
pub type CellWord = u64;

/// Index of the word and shift within it of one cell.
pub const fn cell_position(index: u32) -> (u32, u32) {
    (index >> 2, (index & 3) * 16)
}

/// What is decided for one (subject, class): where its truth table over the features that matter
/// lies. Classes that policy tells apart have outcomes of their own, also where the tables are equal.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, IntoBytes, Immutable)]
pub struct Outcome {
    /// First mask row, within a segment of the subject. Feature combination `f` is at `base + f`.
    pub base: u32,
    /// Number of features that matter, 0 to [`MAX_OUTCOME_FEATURES`].
    pub features: u8,
    /// Their bit numbers in the feature word, lowest bit of the combination first.
    pub selected: [u8; MAX_OUTCOME_FEATURES + 1],
}

/// The answers for every action, one bit each.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, IntoBytes, Immutable)]
pub struct Masks {
    /// Actions that are allowed: by the enforced policy set, or all of them in monitor mode, which
    /// [`MONITORED`] says.
    pub allow: u64,
    /// Allowed actions that the candidate set (with the policies in monitor mode) would deny.
    pub would_deny: u64,
    /// Denied actions that the candidate set would allow.
    pub would_allow: u64,
    /// Allowed actions that are reported all the same (`@audit`).
    pub audit: u64,
    /// Denied actions that answer as if the resource were not there (`@errno`). Above the bits of actions, the
    /// same in all rows: the level of quarantine ([`crate::quarantine::LEVEL_SHIFT`]).
    pub quiet: u64,
    /// Actions that a shadow bundle decides otherwise: allowed ones that it would deny, and denied ones
    /// that it would allow. 0 without a shadow.
    pub differs: u64,
    /// For each of the [`COUNTABLE`] actions that only a lease allows of which each use is counted, the place of its
    /// count; see [`place_of`]. 0 where nothing is counted.
    pub counted: u64,
}

/// Bits of a place.
const PLACE_BITS: usize = 10;
/// Places for counts. Place 0 is nobody's.
pub const USES_PLACES: u32 = 1 << PLACE_BITS;

const _: () = assert!(COUNTABLE.len() * PLACE_BITS <= 64);

/// The place at which uses of an action are counted, by its index in [`COUNTABLE`]; 0 if they are not.
#[inline(always)]
pub const fn place_of(counted: u64, index: usize) -> u32 {
    (counted >> (index * PLACE_BITS)) as u32 & (USES_PLACES - 1)
}

/// The same with a place for an action that had none.
pub const fn with_place(counted: u64, index: usize, place: u32) -> u64 {
    counted | ((place & (USES_PLACES - 1)) as u64) << (index * PLACE_BITS)
}

/// The actions of which uses are counted, as bits.
pub fn counted_actions(counted: u64) -> u64 {
    let places = COUNTABLE.iter().enumerate();
    places
        .filter(|(index, _)| place_of(counted, *index) != 0)
        .fold(0, |bits, (_, action)| bits | action.bit())
}

/// Words of the map of uses. A place has two: the number of the lease, and the uses that are left; there is none at 0,
/// nor below it (two's complement).
pub const USES_WORDS: usize = 2 * USES_PLACES as usize;

/// Where the uses that are left at a place stand. The number of the lease stands before them.
#[inline(always)]
pub const fn uses_left(place: u32) -> u32 {
    2 * place + 1
}

/// Set in [`Masks::allow`], above the bits of actions, where the subject is in monitor mode: what is not
/// about a single action is not denied to it either.
pub const MONITORED: u64 = 1 << 63;

/// The first address of a range of IPv4 addresses that ends where the next one begins.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
pub struct Net4 {
    /// First address, host byte order.
    pub start: u32,
    /// Class of the range.
    pub class: u32,
}

/// The first address of a range of IPv6 addresses that ends where the next one begins.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
pub struct Net6 {
    /// Upper 64 bits of the first address, host byte order.
    pub high: u64,
    /// Lower 64 bits.
    pub low: u64,
    /// Class of the range.
    pub class: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
}

/// The first port of a range that ends where the next one begins.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
pub struct Ports {
    /// Feature bits that hold for every port of the range.
    pub features: u64,
    /// First port.
    pub start: u32,
    /// Keeps the layout free of hidden padding.
    pub reserved: u32,
}

/// An attribute that is read raw at the decision and never cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Attribute {
    /// `resource.owner`: the inode's user id in the initial user namespace.
    Owner = 1,
    /// `resource.kind`: the file type bits of the mode (`S_IFMT`).
    Kind = 2,
    /// `resource.set_id`: 1 if the set-user-id or set-group-id bit is set.
    SetId = 3,
    /// `resource.fileless`: 1 if no name leads to the file (memfd, unlinked, `O_TMPFILE`).
    Fileless = 4,
    /// `resource.protocol`: the IP protocol number.
    Protocol = 5,
    /// `resource.abstract`: 1 for a unix socket in the abstract name space.
    Abstract = 6,
    /// `resource.subject` of a process: the subject of its label; absent without a label.
    Subject = 7,
    /// `resource.listener`: the subject of the process at the other end; absent if it has no label.
    Listener = 8,
}

/// One test `attribute == value` and the feature bit that it sets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
pub struct AttributeTest {
    /// An [`Attribute`] as a number.
    pub attribute: u32,
    /// Index of the feature bit.
    pub bit: u32,
    /// The value to compare with, or [`PRESENT`] or [`OWN`].
    pub value: u64,
}

/// The raw attributes of the resource of one decision. What does not apply is [`ABSENT`].
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// See [`Attribute::Owner`].
    pub owner: u64,
    /// See [`Attribute::Kind`].
    pub kind: u64,
    /// See [`Attribute::SetId`].
    pub set_id: u64,
    /// See [`Attribute::Fileless`].
    pub fileless: u64,
    /// See [`Attribute::Protocol`].
    pub protocol: u64,
    /// See [`Attribute::Abstract`].
    pub abstract_name: u64,
    /// See [`Attribute::Subject`].
    pub subject: u64,
    /// See [`Attribute::Listener`].
    pub listener: u64,
    /// The subject that asks, which [`OWN`] stands for. Set where `subject` or `listener` is.
    pub own: u64,
}

/// Value of an attribute that the resource does not have; no test compares equal to it.
pub const ABSENT: u64 = u64::MAX;
/// Value of a test that holds for every resource that has the attribute.
pub const PRESENT: u64 = u64::MAX - 1;
/// Value of a test that compares with the subject that asks: one test for all subjects.
pub const OWN: u64 = u64::MAX - 2;

impl Default for Attributes {
    fn default() -> Self {
        Self {
            owner: ABSENT,
            kind: ABSENT,
            set_id: ABSENT,
            fileless: ABSENT,
            protocol: ABSENT,
            abstract_name: ABSENT,
            subject: ABSENT,
            listener: ABSENT,
            own: ABSENT,
        }
    }
}

impl AttributeTest {
    /// The feature bit of this test if it holds, else 0.
    #[inline(always)]
    pub fn feature(&self, attributes: &Attributes) -> u64 {
        let value = match self.attribute {
            1 => attributes.owner,
            2 => attributes.kind,
            3 => attributes.set_id,
            4 => attributes.fileless,
            5 => attributes.protocol,
            6 => attributes.abstract_name,
            7 => attributes.subject,
            8 => attributes.listener,
            _ => ABSENT,
        };
        let wanted = if self.value == OWN { attributes.own } else { self.value };
        let holds = value != ABSENT && (value == wanted || self.value == PRESENT);
        if holds { 1 << (self.bit & 63) } else { 0 }
    }
}

/// Policy asks for names at any depth.
pub const HAS_NAMES: u32 = 1;
/// Some executable attaches a subject.
pub const HAS_EXEC_SELECTORS: u32 = 2;
/// Some subject has a root of its own.
pub const HAS_OWN_ROOTS: u32 = 4;
/// Some subject is selected by the name or image of a container, which only the container's engine knows.
pub const HAS_CONTAINERS: u32 = 8;

/// Minor numbers of the memory devices (major 1) that are judged by what they are, wherever their
/// node lies: null, zero, full, random, urandom (`Documentation/admin-guide/devices.txt`).
pub const DEVICE_MINORS: [u32; 5] = [3, 5, 7, 8, 9];
/// The usual paths of the devices in [`DEVICE_MINORS`].
pub const DEVICE_PATHS: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// The head of a generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
pub struct Header {
    /// Number of this generation, from 1.
    pub generation: u64,
    /// [`HAS_NAMES`], [`HAS_EXEC_SELECTORS`], [`HAS_OWN_ROOTS`], [`HAS_CONTAINERS`].
    pub flags: u32,
    /// Classes per subject.
    pub classes: u32,
    /// Entries in the IPv4 table.
    pub net4: u32,
    /// Entries in the IPv6 table.
    pub net6: u32,
    /// Entries in the port table.
    pub ports: u32,
    /// Entries in the attribute table.
    pub attributes: u32,
    /// Entries in the pattern table.
    pub patterns: u32,
    /// Classes of the devices in [`DEVICE_MINORS`].
    pub devices: [u32; 5],
    /// Features of the names in their usual paths: a node that lies elsewhere is judged by these.
    pub device_features: [u64; 5],
    /// The features that who signed a file decides. They are looked up by the digest of what is executed.
    pub signers: u64,
}

/// Number of generations that can be in the kernel at once: the live one and the next.
pub const SLOTS: u32 = 2;

/// The word that names the live generation: its number shifted by 8, plus its slot.
pub const fn live_word(generation: u64, slot: u32) -> u64 {
    generation << 8 | slot as u64
}

/// The slot in a live word.
pub const fn live_slot(word: u64) -> u32 {
    (word & 0xff) as u32
}

/// The generation in a live word.
pub const fn live_number(word: u64) -> u64 {
    word >> 8
}

/// Every action's bit.
pub const ALL_ACTIONS: u64 = (1 << TABLE.len()) - 1;

const _: () = {
    assert!(size_of::<SubjectRow>() == 48);
    assert!(size_of::<Timeline>() == 8 * MAX_BOUNDARIES);
    assert!(size_of::<Outcome>() == 16);
    assert!(size_of::<Masks>() == 56);
    // Elements of kernel arrays are rounded up to eight bytes; these are written side by side.
    assert!(size_of::<Net4>().is_multiple_of(8));
    assert!(size_of::<Net4>() == 8);
    assert!(size_of::<Net6>() == 24);
    assert!(size_of::<Ports>() == 16);
    assert!(size_of::<AttributeTest>() == 16);
    assert!(size_of::<Header>() == 104);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_told_by_number_by_presence_and_as_the_asker_s_own() {
        let holds = |value, subject, own| {
            let test = AttributeTest { attribute: Attribute::Subject as u32, bit: 3, value };
            test.feature(&Attributes { subject, own, ..Attributes::default() }) == 1 << 3
        };
        assert!(holds(16, 16, 17) && !holds(16, 17, 16) && !holds(16, ABSENT, 16));
        assert!(holds(PRESENT, 16, 17) && !holds(PRESENT, ABSENT, 17));
        assert!(holds(OWN, 16, 16) && !holds(OWN, 17, 16));
        assert!(!holds(OWN, ABSENT, ABSENT), "nobody's label is nobody's own");
    }
}
