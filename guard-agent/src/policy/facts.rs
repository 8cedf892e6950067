//! `[facts]`: what is wrong with the declaration of a fact.

use std::time::Duration;

use super::collectors::{COLLECTOR, Collector, NoCollector, PROVIDER};
use super::diagnostics::{Diagnostic, Source};
use super::manifest::{Fact, Table, duration};
use super::schema::{cedar_type, example};

/// The longest that a fact with an end can last. Whoever means longer means no end.
pub const LONGEST_FACT: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Checks how long facts last and where they come from.
pub(super) fn check(facts: &Table<Fact>, toml: &Source, found: &mut Vec<Diagnostic>) {
    for (name, fact) in facts {
        if let Some(ttl) = &fact.ttl {
            let wrong = |message: &str, help: &str| toml.error("guard-toml", ttl.span(), message).help(help);
            match duration(ttl.get_ref()) {
                None => {
                    found.push(wrong("this is not a duration", "write a number and s, m, h or d: \"5m\""))
                }
                Some(lasts) if lasts > LONGEST_FACT => found.push(wrong(
                    "a fact that ends lasts at most 366 days",
                    "leave ttl out if it holds until it is taken back",
                )),
                Some(_) => {}
            }
        }
        let Some(source) = &fact.source else { continue };
        if source.strip_prefix(PROVIDER) == Some("") {
            found.push(
                toml.error("facts", name.span(), format!("{source:?} names no provider"))
                    .help("write \"provider:\" and its name in the agent's configuration"),
            );
        }
        match source.strip_prefix(COLLECTOR).map(Collector::parse) {
            None => {}
            Some(Ok(collector)) if collector.example().is_like(&example(fact.kind)) => {}
            Some(Ok(collector)) => {
                let (is, kind) = (cedar_type(fact.kind), collector.example().kind());
                found.push(
                    toml.error("facts", name.span(), format!("{source} finds out a {kind}, not a {is}"))
                        .help(format!("write type = \"{}\"", kind.to_lowercase())),
                );
            }
            Some(Err(NoCollector::Malformed(help))) => {
                found.push(toml.error("facts", name.span(), format!("{source} is not complete")).help(help));
            }
            Some(Err(NoCollector::Unknown)) => found.push(toml.note(
                "not-in-this-version",
                name.span(),
                format!("not in this version: {source}; the fact is absent"),
            )),
        }
    }
}
