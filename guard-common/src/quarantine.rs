//! Levels of quarantine: what is denied whatever policy, posture and mode say.

use zerocopy::{Immutable, IntoBytes};

use crate::action::Action;
use crate::tables::ALL_ACTIONS;

/// How much is denied. A level denies all that the one before it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// The network: every `net.*`.
    Network = 1,
    /// What changes files and directories (`mutate`, `file.ioctl`) as well.
    Write = 2,
    /// Executing and mapping code (`exec.*`) as well.
    Exec = 3,
    /// Everything that Guard decides, new processes included.
    Full = 4,
    /// The same, and the processes are stopped.
    Freeze = 5,
}

const NETWORK: u64 = Action::NetConnect.bit()
    | Action::NetSend.bit()
    | Action::NetBind.bit()
    | Action::NetListen.bit()
    | Action::NetAccept.bit()
    | Action::NetReceive.bit()
    | Action::NetRaw.bit();

const WRITE: u64 = NETWORK
    | Action::FileWrite.bit()
    | Action::FileAppend.bit()
    | Action::FileTruncate.bit()
    | Action::FileCreate.bit()
    | Action::FileRemove.bit()
    | Action::FileRename.bit()
    | Action::FileLink.bit()
    | Action::FileSymlink.bit()
    | Action::FileMknod.bit()
    | Action::FileSetattr.bit()
    | Action::FileIoctl.bit()
    | Action::DirCreate.bit()
    | Action::DirRemove.bit()
    | Action::DirRename.bit();

const EXEC: u64 = WRITE | Action::Exec.bit() | Action::ExecMap.bit();

impl Level {
    /// All levels, in their order.
    pub const ALL: [Self; 5] = [Self::Network, Self::Write, Self::Exec, Self::Full, Self::Freeze];

    /// The level with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Write => "write",
            Self::Exec => "exec",
            Self::Full => "full",
            Self::Freeze => "freeze",
        }
    }

    /// The actions that it denies, as bits.
    pub const fn denies(self) -> u64 {
        denied_at(self as u64)
    }
}

const DENIED: [u64; 8] = [0, NETWORK, WRITE, EXEC, ALL_ACTIONS, ALL_ACTIONS, ALL_ACTIONS, ALL_ACTIONS];

/// The actions that the level with this number denies; none for 0. A table, which costs the verifier no branch.
#[inline(always)]
pub const fn denied_at(number: u64) -> u64 {
    DENIED[(number & 7) as usize]
}

/// Where [`crate::tables::Masks::quiet`] holds the number of the level, above the bits of actions; 0 = none.
pub const LEVEL_SHIFT: u32 = 56;
/// The bits of the level there.
pub const LEVEL_BITS: u64 = 7 << LEVEL_SHIFT;

/// The number of the level in such a mask.
#[inline(always)]
pub const fn level_in(quiet: u64) -> u64 {
    (quiet & LEVEL_BITS) >> LEVEL_SHIFT
}

/// Where [`crate::decide::Decision::quiet`] holds the level of quarantines that are bound to no subject.
pub const BAR_SHIFT: u32 = 59;
/// The bits of both levels there.
pub const BOTH_LEVELS: u64 = LEVEL_BITS | 7 << BAR_SHIFT;

/// The actions that the levels in a decision deny.
#[inline(always)]
pub const fn denied_by(quiet: u64) -> u64 {
    denied_at(level_in(quiet)) | denied_at(quiet >> BAR_SHIFT)
}

const _: () = assert!(ALL_ACTIONS & BOTH_LEVELS == 0);

/// Quarantines that are bound to no subject, at most: bits of [`crate::label::Label::barred`].
pub const BARS: usize = 31;
/// The bit of a process that none of them covers, and whose children none covers.
pub const RESCUED: u32 = 1 << 31;
/// The end of a quarantine that has none.
pub const NO_END: u64 = i64::MAX as u64;

/// One of them, as the agent writes it and programs read it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
pub struct Bar {
    /// The number of its level; 0 = it denies nothing.
    pub level: u64,
    /// The first instant of CLOCK_BOOTTIME at which it denies nothing any more, at most [`NO_END`].
    pub until: u64,
}

/// All of them. Changed by whole words only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
pub struct Bars {
    /// The bits that mean something; all others are taken from labels.
    pub used: u64,
    /// Not 0 if some are bound to something that processes can come to have: a user, a cgroup, a program, the host.
    pub keyed: u64,
    /// Each at the number of its bit.
    pub bars: [Bar; BARS],
}

/// Words of [`Bars`].
pub const BARS_WORDS: usize = 2 + 2 * BARS;

/// What processes can come to have that a quarantine is bound to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, IntoBytes, Immutable)]
pub struct BarKey {
    /// [`BY_USER`], [`BY_CGROUP`], [`BY_PROGRAM`] or [`BY_HOST`].
    pub kind: u32,
    /// The device of a program's file as the kernel numbers it, else 0.
    pub device: u32,
    /// The user, the number of the cgroup, or of the file's inode; 0 for the host.
    pub value: u64,
}

/// Any of the real, effective and saved user ids.
pub const BY_USER: u32 = 1;
/// The cgroup, each below one as well.
pub const BY_CGROUP: u32 = 2;
/// The program that the process runs.
pub const BY_PROGRAM: u32 = 3;
/// Whatever it is.
pub const BY_HOST: u32 = 4;

/// The number of the highest level of those of `barred` that hold at `now`; 0 if none does. Without a branch for each,
/// which the verifier would follow.
#[inline(always)]
pub fn level_of(barred: u32, now: u64, bar: impl Fn(usize) -> Bar) -> u64 {
    let mut levels = 0u64;
    let mut index = 0;
    while index < BARS {
        let Bar { level, until } = bar(index);
        // Both are below 2^63, so the highest bit of the difference says which is smaller.
        let holds = now.wrapping_sub(until) >> 63;
        levels |= (holds & (barred >> index) as u64 & 1) << (level & 7);
        index += 1;
    }
    // The number of the highest bit that is set, without the one of level 0.
    63 - (levels & !1 | 1).leading_zeros() as u64
}

const _: () = assert!(size_of::<Bars>() == 8 * BARS_WORDS && size_of::<BarKey>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::expand;

    #[test]
    fn each_level_denies_what_its_name_says_and_all_that_the_one_before_denies() {
        assert_eq!(Some(Level::Network.denies()), expand("net.*"));
        let bits = |name| expand(name).unwrap_or(0);
        assert_eq!(Level::Write.denies(), bits("net.*") | bits("mutate") | Action::FileIoctl.bit());
        assert_eq!(Level::Exec.denies(), Level::Write.denies() | bits("exec.*"));
        assert_eq!([Level::Full.denies(), Level::Freeze.denies()], [ALL_ACTIONS; 2]);
        for pair in Level::ALL.windows(2) {
            assert_eq!(pair[0].denies() & !pair[1].denies(), 0);
        }
    }

    #[test]
    fn the_highest_level_of_those_that_hold_counts() {
        let mut all = [Bar { level: 0, until: NO_END }; BARS];
        all[0] = Bar { level: Level::Write as u64, until: 100 };
        all[3] = Bar { level: Level::Network as u64, until: NO_END };
        all[30] = Bar { level: Level::Freeze as u64, until: 50 };
        let level = |barred, now| level_of(barred, now, |index| all[index]);
        assert_eq!((level(0, 0), level(0b10, 0), level(0b1000, 0)), (0, 0, Level::Network as u64));
        assert_eq!((level(0b1001, 99), level(0b1001, 100)), (Level::Write as u64, Level::Network as u64));
        assert_eq!(
            (level(1 << 30 | 1, 49), level(1 << 30 | 1, 50)),
            (Level::Freeze as u64, Level::Write as u64)
        );
        assert_eq!(level(RESCUED, 0), 0);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
        }
        assert_eq!(Level::from_name("none"), None);
    }
}
