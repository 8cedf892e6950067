//! The contributor's terminal, handed to a guest's shell and given back.

use std::io::{IsTerminal, stdin, stdout};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Whether the command can have a terminal: input and output both are one.
pub(crate) fn is_interactive() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

/// Rows and columns, as `stty` tells them.
pub(super) fn size() -> (u16, u16) {
    let output =
        std::process::Command::new("stty").arg("size").stdin(std::process::Stdio::inherit()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let mut numbers =
        text.split_whitespace().filter_map(|word| word.parse().ok()).filter(|number| *number > 0);
    (numbers.next().unwrap_or(24), numbers.next().unwrap_or(80))
}

/// Passes every key to the guest until dropped.
pub(super) struct RawMode(Termios);

impl RawMode {
    /// Switches the terminal on standard input; `None` if it is none.
    pub(super) fn enter() -> Option<Self> {
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &self.0);
    }
}
