//! How often one fact is said, and when that is too often to be believed.

use crate::policy::Instant;
use std::collections::BTreeMap;

/// How long words are counted for, in nanoseconds.
const SPAN: Instant = 60_000_000_000;
/// Words on one fact of one subject, or of the host, that are taken in that time.
const MAX: u32 = 300;

/// What is to be done with a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// It is taken.
    Slow,
    /// It is not: there were too many, and there was no time without any since.
    TooFast {
        /// The one before was still taken.
        since_now: bool,
    },
}

/// The words of each fact. There are no more of them than facts that some bundle declared, for the host and each
/// subject.
#[derive(Debug, Default)]
pub(super) struct Paces(BTreeMap<(Option<String>, String), Words>);

#[derive(Debug)]
struct Words {
    /// When counting began, or of a fact that is said too often when that was last.
    since: Instant,
    count: u32,
}

impl Paces {
    /// Counts a word on a fact at an instant.
    pub(super) fn of(&mut self, subject: Option<&str>, name: &str, now: Instant) -> Pace {
        let key = (subject.map(str::to_owned), name.to_owned());
        let words = self.0.entry(key).or_insert(Words { since: now, count: 0 });
        if now.saturating_sub(words.since) >= SPAN {
            *words = Words { since: now, count: 0 };
        }
        if words.count < MAX {
            words.count += 1;
            return Pace::Slow;
        }
        // From here on only silence helps.
        let since_now = words.count == MAX;
        *words = Words { since: now, count: MAX + 1 };
        Pace::TooFast { since_now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_too_much_is_heard_again_after_a_silence() {
        let mut paces = Paces::default();
        for word in 0..MAX {
            assert_eq!(paces.of(None, "trust", word.into()), Pace::Slow);
        }
        assert_eq!(paces.of(None, "trust", SPAN - 1), Pace::TooFast { since_now: true });
        assert_eq!(paces.of(None, "trust", SPAN), Pace::TooFast { since_now: false });
        assert_eq!(paces.of(Some("web"), "trust", SPAN), Pace::Slow, "another one is not concerned");
        assert_eq!(paces.of(None, "trust", 2 * SPAN - 1), Pace::TooFast { since_now: false });
        assert_eq!(paces.of(None, "trust", 3 * SPAN - 1), Pace::Slow);
    }

    #[test]
    fn a_steady_pace_is_never_too_fast() {
        let mut paces = Paces::default();
        for second in 0..10_000 {
            assert_eq!(paces.of(None, "trust", second * 1_000_000_000), Pace::Slow);
        }
    }
}
