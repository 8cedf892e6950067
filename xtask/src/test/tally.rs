//! Counting tests.

/// How many passed, and which failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    /// One line per failure.
    pub(crate) failures: Vec<String>,
    /// Entries of the catalogue of threats with the series they ran on and what they gave, if that was asked for.
    pub(crate) entries: Vec<(String, String, String)>,
}

impl Tally {
    /// Adds what another run found.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        self.entries.extend(other.entries);
    }
}
