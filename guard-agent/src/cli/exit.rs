//! The exit codes of every command.

use std::process::{ExitCode, Termination};

/// How a command ended. `docs/exit-codes.md` holds the same table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// It is so, or it was done.
    Yes,
    /// It is not so.
    No,
    /// The command line was not understood.
    Usage,
    /// Nobody answers on the admin socket.
    Unreachable,
    /// The host does not enforce all that it should.
    Degraded,
    /// The caller may not do this.
    NotPermitted,
    /// What was handed in is not valid.
    Invalid,
    /// Something broke that should not.
    Internal,
}

impl Exit {
    /// Every code with its meaning.
    pub const TABLE: [(Self, &str); 8] = [
        (Self::Yes, "yes: it is so, or it was done"),
        (Self::No, "a clean no"),
        (Self::Usage, "usage: the command line was not understood"),
        (Self::Unreachable, "daemon unreachable: nobody answers on the admin socket"),
        (Self::Degraded, "degraded: the host does not, or could not, enforce all that it should"),
        (Self::NotPermitted, "not permitted: the caller may not do this"),
        (
            Self::Invalid,
            "invalid input: a bundle that does not parse or validate, a directory that is not there",
        ),
        (Self::Internal, "internal: something broke that should not; please report it"),
    ];

    /// The number that the calling process sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Degraded => 4,
            Self::NotPermitted => 5,
            Self::Invalid => 6,
            Self::Internal => 7,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_codes() {
        for (index, (exit, _)) in Exit::TABLE.iter().enumerate() {
            assert_eq!(usize::from(exit.code()), index);
        }
    }

    #[test]
    fn the_documentation_holds_the_same_table() {
        let text = include_str!("../../../docs/exit-codes.md");
        let documented: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
        let wanted: Vec<String> =
            Exit::TABLE.iter().map(|(exit, meaning)| format!("| `{}` | {meaning} |", exit.code())).collect();
        assert_eq!(documented, wanted);
    }
}
