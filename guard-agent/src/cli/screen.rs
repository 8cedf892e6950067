//! Standard output: lines, colour, and a reader that goes away.

use super::CliError;
use std::io::{self, IsTerminal, Write};

/// Standard output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    /// Colour may be used; it never says anything alone.
    pub(super) colour: bool,
}

/// Whether there is still somebody who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Reader {
    Present,
    Gone,
}

impl Screen {
    /// This process's standard output: coloured on a terminal that can, unless `NO_COLOR` is set.
    pub(super) fn stdout() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { colour: io::stdout().is_terminal() && !set("NO_COLOR") && !dumb }
    }

    /// Writes text and a line end. A reader that has gone, like `head`, is no error.
    pub(super) fn line(self, text: &str) -> Result<Reader, CliError> {
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => Ok(Reader::Present),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
            Err(error) => Err(CliError::internal(format!("cannot write to standard output: {error}"))),
        }
    }

    /// Writes the one answer of a command.
    pub(super) fn answer(self, text: &str) -> Result<(), CliError> {
        // Whether it was read to its end changes nothing any more.
        self.line(text).map(|_: Reader| ())
    }

    /// `text` in a colour (an SGR code), if colour may be used.
    pub(super) fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Something to know besides the answer, on standard error.
pub(super) fn note(text: &str) {
    // Where nobody reads, nothing is lost with it.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Asks on the terminal; nothing if there is none to ask on.
pub(super) fn confirm(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    let mut out = io::stderr().lock();
    write!(out, "{question} [y/N] ").and_then(|()| out.flush()).ok()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).ok()?;
    Some(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The first twelve digits of a digest: enough to compare by eye.
pub(super) fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

/// A number with spaces between groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && index % 3 == first {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1 000"), (1_204_819, "1 204 819")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn colour_is_only_added_where_it_may_be() {
        assert_eq!(Screen { colour: false }.paint("31", "x"), "x");
        assert_eq!(Screen { colour: true }.paint("31", "x"), "\x1b[31mx\x1b[0m");
    }
}
