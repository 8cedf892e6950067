//! What a condition asks of posture, leases and windows: decided when outcomes are computed, not when
//! the bundle is compiled, so that a change of posture leaves the static tables alone.

use std::fmt;

use cedar_policy_core::ast::{Pattern, PatternElem};

use super::world::{FactValue, Facts};

/// One test of the context. A test of a fact that is absent is false.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Test {
    /// The lease lives.
    Lease(String),
    /// No lease lives.
    NoLease,
    /// The window is open.
    Window(String),
    /// No window is open.
    NoWindow,
    /// The fact is there.
    Present(String),
    /// The fact has this value.
    Is(String, FactValue),
    /// The fact is a number below this one.
    Below(String, i64),
    /// The fact is a text that matches; `None` is a wildcard.
    Like(String, Vec<Option<char>>),
    /// Both facts have the same value.
    Same(String, String),
    /// The first fact is a lower number than the second.
    Less(String, String),
}

impl Test {
    /// Whether it asks for this fact.
    pub(super) fn fact(&self, name: &str) -> bool {
        match self {
            Self::Present(fact) | Self::Is(fact, _) | Self::Below(fact, _) | Self::Like(fact, _) => {
                fact == name
            }
            Self::Same(a, b) | Self::Less(a, b) => a == name || b == name,
            Self::Lease(_) | Self::NoLease | Self::Window(_) | Self::NoWindow => false,
        }
    }

    /// Whether it holds under these facts.
    pub(super) fn holds(&self, facts: &Facts) -> bool {
        let value = |name: &String| facts.posture.get(name);
        let long = |name: &String| match value(name) {
            Some(FactValue::Long(number)) => Some(*number),
            _ => None,
        };
        match self {
            Self::Lease(name) => facts.leases.contains(name),
            Self::NoLease => facts.leases.is_empty(),
            Self::Window(name) => facts.windows.contains(name),
            Self::NoWindow => facts.windows.is_empty(),
            Self::Present(name) => value(name).is_some(),
            Self::Is(name, wanted) => value(name) == Some(wanted),
            Self::Below(name, bound) => long(name).is_some_and(|number| number < *bound),
            Self::Like(name, elements) => match value(name) {
                Some(FactValue::String(text)) => pattern(elements).wildcard_match(text),
                _ => false,
            },
            Self::Same(a, b) => value(a).is_some() && value(a) == value(b),
            Self::Less(a, b) => long(a).zip(long(b)).is_some_and(|(a, b)| a < b),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(name) => write!(formatter, "with the lease {name}"),
            Self::NoLease => formatter.write_str("without a lease"),
            Self::Window(name) => write!(formatter, "in the window {name}"),
            Self::NoWindow => formatter.write_str("outside of windows"),
            Self::Present(name) => write!(formatter, "with the fact {name}"),
            Self::Is(name, _) | Self::Below(name, _) | Self::Like(name, _) => {
                write!(formatter, "with some value of the fact {name}")
            }
            Self::Same(a, b) | Self::Less(a, b) => {
                write!(formatter, "with some values of the facts {a} and {b}")
            }
        }
    }
}

fn pattern(elements: &[Option<char>]) -> Pattern {
    let elements = elements.iter().map(|element| element.map_or(PatternElem::Wildcard, PatternElem::Char));
    Pattern::from(elements.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_what_is_absent_are_false() {
        let name = || "trust".to_owned();
        let tests = [
            Test::Lease(name()),
            Test::Window(name()),
            Test::Present(name()),
            Test::Is(name(), FactValue::Long(0)),
            Test::Below(name(), i64::MAX),
            Test::Like(name(), vec![None]),
            Test::Same(name(), name()),
            Test::Less(name(), name()),
        ];
        assert!(tests.iter().all(|test| !test.holds(&Facts::default())));
        assert!(Test::NoLease.holds(&Facts::default()) && Test::NoWindow.holds(&Facts::default()));
    }

    #[test]
    fn tests_compare_values() {
        let facts = Facts {
            posture: [
                ("a".to_owned(), FactValue::Long(3)),
                ("b".to_owned(), FactValue::Long(4)),
                ("s".to_owned(), FactValue::String("office-2".into())),
            ]
            .into(),
            ..Facts::default()
        };
        let (a, b, s) = (|| "a".to_owned(), || "b".to_owned(), || "s".to_owned());
        assert!(Test::Below(a(), 4).holds(&facts) && !Test::Below(a(), 3).holds(&facts));
        assert!(Test::Less(a(), b()).holds(&facts) && !Test::Less(b(), a()).holds(&facts));
        assert!(!Test::Same(a(), b()).holds(&facts));
        let pattern = "office-".chars().map(Some).chain([None]).collect();
        assert!(Test::Like(s(), pattern).holds(&facts));
        assert!(!Test::Below(s(), 9).holds(&facts), "a text is below no number");
    }
}
