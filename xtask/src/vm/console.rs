//! Reading the guest's console log for what the kernel complained about.

use std::fs;
use std::path::Path;

/// Complaints that mean the kernel cannot be trusted any further.
const CRASHES: [&str; 8] = [
    "Kernel panic",
    "Oops:",
    "BUG: unable to handle",
    "kernel BUG at",
    "general protection fault",
    "double fault",
    "stack segment:",
    // The guest's first process, when it cannot go on.
    "guest: ",
];
/// Complaints after which it goes on; each is a defect of the kernel or of our programs.
const WARNINGS: [&str; 9] = [
    "WARNING:",
    "BUG:",
    "UBSAN:",
    "KASAN:",
    "verifier bug",
    "INFO: task ",
    "detected stall",
    "possible recursive locking",
    "possible circular locking",
];

/// What a console log says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Complaints {
    /// The first line of a crash, without its timestamp.
    pub(crate) crash: Option<String>,
    /// Lines of warnings.
    pub(crate) warnings: Vec<String>,
}

impl Complaints {
    /// Reads the log at `path`; a log that cannot be read complains about nothing.
    pub(crate) fn read(path: &Path) -> Self {
        fs::read(path).map(|bytes| Self::find(&String::from_utf8_lossy(&bytes))).unwrap_or_default()
    }

    fn find(log: &str) -> Self {
        let mut found = Self::default();
        for line in log.lines().map(without_timestamp) {
            if CRASHES.iter().any(|pattern| line.contains(pattern)) {
                found.crash.get_or_insert_with(|| line.to_owned());
            } else if WARNINGS.iter().any(|pattern| line.contains(pattern)) {
                found.warnings.push(line.to_owned());
            }
        }
        found
    }
}

/// The last lines of the log, for the case that nothing in it explains what happened.
pub(crate) fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn without_timestamp(line: &str) -> &str {
    line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(line, |(_, text)| text).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_told_from_a_warning() {
        let log = "[    1.0] hello\n[    2.0] WARNING: CPU: 0 PID: 1 at kernel/x.c:1\n\
                   [    3.0] BUG: unable to handle page fault\n[    3.1] Kernel panic - not syncing: x\n";
        let found = Complaints::find(log);
        assert_eq!(found.crash.as_deref(), Some("BUG: unable to handle page fault"));
        assert_eq!(found.warnings, ["WARNING: CPU: 0 PID: 1 at kernel/x.c:1"]);
    }
}
