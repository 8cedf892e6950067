//! Levels of quarantine: what is denied whatever policy, posture and mode say.

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

const _: () = assert!(ALL_ACTIONS & LEVEL_BITS == 0);

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
    fn names_are_read_as_they_are_written() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
        }
        assert_eq!(Level::from_name("none"), None);
    }
}
