//! Counting tests.

/// How many passed, and which failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: usize,
    /// One line per failure.
    pub(super) failures: Vec<String>,
}

impl Tally {
    /// Adds what another run found.
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }
}
