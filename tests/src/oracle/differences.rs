//! Where Landlock and Guard are meant to answer differently: each difference with a name, its reason, and
//! exactly when it is that one.

use nix::libc::{self, EACCES, EXDEV};

use crate::choose::ASKS;
use crate::look::{Look, Place};
use crate::model::{Guarded, guard, is_known_device, landlock};
use crate::operation::{Answer, EXCHANGE, Operation, Then};
use crate::rights::{EXECUTE, FILES, IOCTL_DEV, MAKE_REG, OF_FILES, READ_FILE, REFER};
use crate::rules::Rules;

/// What a difference amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Guard denies what Landlock allows.
    Stricter,
    /// Guard allows what Landlock denies.
    Wider,
    /// Both deny, with other error numbers.
    Errno,
    /// Either.
    Both,
}

impl Effect {
    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Stricter => "Guard denies more",
            Self::Wider => "Guard allows more",
            Self::Errno => "another error number",
            Self::Both => "either",
        }
    }
}

/// One operation that was answered differently.
pub(crate) struct Case<'a> {
    pub(crate) operation: &'a Operation,
    pub(crate) look: &'a Look,
    pub(crate) rules: &'a Rules,
    pub(crate) landlock: Answer,
    pub(crate) guard: Answer,
    pub(crate) control: Answer,
}

/// A known difference.
pub(crate) struct Difference {
    pub(crate) name: &'static str,
    pub(crate) effect: Effect,
    pub(crate) when: &'static str,
    pub(crate) reason: &'static str,
    holds: fn(&Case<'_>) -> bool,
}

/// All known differences. The first that holds is the explanation.
pub(crate) const TABLE: &[Difference] = &[
    Difference {
        name: "a-rule-follows-its-object",
        effect: Effect::Both,
        when: "a rule's directory or file was renamed, replaced or given another name since the rule was made, and Landlock would answer otherwise if its rules were names",
        reason: "Landlock's rules belong to the inodes that were open when they were added, and go where those go; a literal of Guard is a place, whatever lies there",
        holds: follows_object,
    },
    Difference {
        name: "refer-within-a-directory",
        effect: Effect::Stricter,
        when: "link or rename within one directory that lacks REFER",
        reason: "Landlock asks for REFER only if the directory changes. Guard's file.rename and file.link are asked for every new name, and their translation includes REFER",
        holds: |case| {
            case.move_between().is_some_and(|(old, new)| {
                old.directory() == new.directory()
                    && case.lacks_refer(old)
                    && case.landlock == case.control
                    && case.guard[0] == EACCES
            })
        },
    },
    Difference {
        name: "refer-is-eacces",
        effect: Effect::Errno,
        when: "link or rename to another directory, where REFER is missing and nothing else: for the old name, or, in an exchange, for either",
        reason: "Landlock answers EXDEV if REFER alone is missing, upon which programs copy. To Guard it is a part of file.rename and file.link, which are denied with EACCES like all of file.*",
        holds: |case| {
            case.move_between().is_some_and(|(old, new)| {
                let lacks = case.lacks_refer(old) || case.is_exchange() && case.lacks_refer(new);
                lacks && case.landlock[0] == EXDEV && case.guard[0] == EACCES
            })
        },
    },
    Difference {
        name: "refer-at-the-new-place",
        effect: Effect::Wider,
        when: "link or rename to another directory that lacks REFER but has MAKE_*, and the new place gives no right that the old one does not give",
        reason: "Guard asks at the new place what making such a file there asks, and for rights that are gained. It has no right for having come from elsewhere: whoever may read a file may copy it there as well",
        holds: |case| {
            case.move_between().is_some_and(|(old, new)| {
                !case.lacks_refer(old)
                    && !case.is_exchange()
                    && case.lacks_refer(new)
                    && case.landlock[0] == EXDEV
                    && case.guard == case.control
            })
        },
    },
    Difference {
        name: "a-gain-that-permits-nothing",
        effect: Effect::Wider,
        when: "link or rename to another directory, where nothing is gained but IOCTL_DEV on what is neither a device nor a directory, or EXECUTE where READ_FILE is missing",
        reason: "Landlock compares rights. Guard compares what is permitted: Landlock lets everybody use ioctl on what is no device, so the translation does, and a program that cannot be read cannot be executed",
        holds: gains_nothing,
    },
    Difference {
        name: "order-of-an-exchange",
        effect: Effect::Errno,
        when: "exchange with another directory, where one file would gain rights and something else is missing for the other",
        reason: "Landlock lets EACCES go before EXDEV over the whole operation, Guard asks about one file after the other and answers with the first refusal",
        holds: |case| case.is_exchange() && case.landlock[0] == EACCES && case.guard[0] == EXDEV,
    },
    Difference {
        name: "a-directory-that-policy-tells-apart",
        effect: Effect::Stricter,
        when: "rename of a directory where a rule names the old or the new place or something below them, or where the rights differ",
        reason: "What policy says of names in a directory would no longer be what it says of the files: Guard moves a directory only between places where nothing in it is decided otherwise. Landlock's rules move along, and it asks only that nothing is gained",
        holds: |case| case.gains(true),
    },
    Difference {
        name: "rights-of-a-name",
        effect: Effect::Stricter,
        when: "link or rename of what is no directory to a name that gives a right which the old name does not give: also making, removing and renaming at that name, also within one directory",
        reason: "Guard compares every action at both names. Landlock compares the rights to the file's content, only if the directory changes, and without what rules gave to a file that lies at the new name",
        holds: |case| case.gains(false),
    },
    Difference {
        name: "a-file-without-a-name-is-made",
        effect: Effect::Stricter,
        when: "open with O_TMPFILE in a directory that lacks MAKE_REG",
        reason: "Landlock asks for no right to make a file that has no name. Guard asks for file.create: it takes room, and can be linked to a name",
        holds: |case| {
            let Operation::Open { flags, .. } = case.operation else { return false };
            let lacks = case
                .look
                .first
                .as_ref()
                .is_some_and(|place| case.rules.named_beside(&place.inside().path) & MAKE_REG == 0);
            flags & libc::O_TMPFILE == libc::O_TMPFILE && lacks && case.is_refused_by_guard_alone()
        },
    },
    Difference {
        name: "neither-read-nor-write",
        effect: Effect::Stricter,
        when: "open of a device with the access mode 3, without IOCTL_DEV",
        reason: "Such a descriptor can only be used for ioctl(2). Landlock lets it be opened and refuses the ioctl; Guard refuses the open too",
        holds: |case| {
            let Operation::Open { flags, .. } = case.operation else { return false };
            flags & libc::O_ACCMODE == libc::O_ACCMODE
                && case.look.first.as_ref().is_some_and(|place| {
                    matches!(place.kind(), Some(libc::S_IFCHR | libc::S_IFBLK))
                        && (is_known_device(place) || case.rules.named_at(&place.path) & IOCTL_DEV == 0)
                })
                && case.is_opened_by_landlock_alone()
        },
    },
    Difference {
        name: "a-device-is-what-its-number-says",
        effect: Effect::Stricter,
        when: "open of a node of /dev/null, zero, full, random or urandom, or ioctl on it, wherever it lies",
        reason: "To Guard these nodes are the device, judged by its usual path in /dev, which no rule here permits. Landlock judges the node by its place",
        holds: |case| {
            matches!(case.operation, Operation::Open { .. })
                && case.look.first.as_ref().is_some_and(is_known_device)
                && (case.is_opened_by_landlock_alone()
                    || case.landlock[1] != EACCES && case.guard[1] == EACCES)
        },
    },
    Difference {
        name: "asking-a-device",
        effect: Effect::Wider,
        when: "ioctl TCGETS on a device without IOCTL_DEV",
        reason: "Guard governs no ioctl that only asks (guard-ebpf/src/attributes.rs lists them); Landlock governs all but those that belong to the descriptor or the file system",
        holds: |case| {
            matches!(case.operation, Operation::Open { then: Then::Control(ASKS), .. })
                && case.look.first.as_ref().is_some_and(|place| {
                    matches!(place.kind(), Some(libc::S_IFCHR | libc::S_IFBLK))
                        && case.rules.named_at(&place.path) & IOCTL_DEV == 0
                })
                && case.landlock[0] == 0
                && case.landlock[1] == EACCES
                && case.guard == case.control
        },
    },
];

/// Which known difference this one is.
pub(crate) fn explain(case: &Case<'_>) -> Option<usize> {
    let by_landlock = landlock(case.operation, case.look, case.rules, false).on(case.control);
    let by_guard = guard(case.operation, case.look, case.rules).on(case.control);
    if by_landlock != case.landlock || by_guard != case.guard {
        return None;
    }
    TABLE.iter().position(|difference| (difference.holds)(case))
}

fn follows_object(case: &Case<'_>) -> bool {
    landlock(case.operation, case.look, case.rules, true).on(case.control) != case.landlock
}

fn gains_nothing(case: &Case<'_>) -> bool {
    let Some((old, new)) = case.move_between() else { return false };
    let gained = |from: &Place, to: &Place| {
        let there = case.rules.named_beside(&to.path);
        let (counted, empty) = match from.kind() {
            None => return false,
            Some(libc::S_IFDIR) => (FILES, 0),
            Some(libc::S_IFCHR | libc::S_IFBLK) => (OF_FILES, 0),
            Some(_) => (OF_FILES, IOCTL_DEV),
        };
        let rights = there & !case.rules.named_at(&from.path) & case.rules.handled & counted;
        let execute = if there & READ_FILE == 0 { EXECUTE } else { 0 };
        rights & !(empty | execute) == 0
    };
    gained(old, new)
        && (!case.is_exchange() || gained(new, old))
        && !case.lacks_refer(old)
        && !case.lacks_refer(new)
        && case.landlock[0] == EXDEV
        && case.guard == case.control
}

impl Case<'_> {
    /// The two places of a link or rename that the kernel itself allows.
    fn move_between(&self) -> Option<(&Place, &Place)> {
        match self.operation {
            Operation::Link { .. } | Operation::Rename { .. } => {
                Some((self.look.first.as_ref()?, self.look.second.as_ref()?))
            }
            _ => None,
        }
    }

    fn is_exchange(&self) -> bool {
        matches!(self.operation, Operation::Rename { flags: EXCHANGE, .. })
    }

    fn lacks_refer(&self, place: &Place) -> bool {
        self.rules.named_beside(&place.path) & self.rules.handled & FILES & REFER == 0
    }

    fn is_refused_by_guard_alone(&self) -> bool {
        self.landlock == self.control && self.guard[0] == EACCES
    }

    /// Whether Guard refuses the open, and Landlock at most what is done then.
    fn is_opened_by_landlock_alone(&self) -> bool {
        self.landlock[0] == self.control[0] && self.guard[0] == EACCES
    }

    /// Whether Guard alone refuses a move by which something gets more rights: a directory, or anything
    /// else.
    fn gains(&self, directory: bool) -> bool {
        let Some((old, new)) = self.move_between() else { return false };
        let guarded = Guarded { rules: self.rules };
        let one = |from: &Place, to: &Place| {
            from.kind()
                .is_some_and(|kind| (kind == libc::S_IFDIR) == directory && guarded.gains(kind, from, to))
        };
        self.landlock == self.control
            && self.guard[0] == EXDEV
            && (one(old, new) || self.is_exchange() && one(new, old))
    }
}
