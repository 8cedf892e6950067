//! What the tests of an entry gave on which kernel series, kept in the page that shows it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// What became of an entry on one series, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Its tests passed.
    Green,
    /// This kernel has nothing of the kind.
    NotThere,
}

/// Results by entry and series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Results(BTreeMap<String, BTreeMap<Series, Outcome>>);

/// A kernel series, in the order of versions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series(Vec<u32>, String);

impl Series {
    fn new(name: &str) -> Self {
        let numbers = name.split('.').map(|number| number.parse().unwrap_or(u32::MAX));
        Self(numbers.collect(), name.to_owned())
    }
}

/// Between the series of a cell that were green and those that have nothing of the kind.
const NOT_THERE: &str = "not on ";
/// A cell with no result.
const NONE: &str = "–";

impl Results {
    /// Reads them back from the page.
    pub(crate) fn parse(page: &str) -> Self {
        let mut results = Self::default();
        for line in page.lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            if let [id, .., last] = cells[..]
                && super::entries().any(|entry| entry.id == id)
            {
                results.parse_cell(id, last);
            }
        }
        results
    }

    fn parse_cell(&mut self, id: &str, cell: &str) {
        for part in cell.split(';').map(str::trim).filter(|part| *part != NONE && !part.is_empty()) {
            let (series, outcome) = match part.strip_prefix(NOT_THERE) {
                Some(series) => (series, Outcome::NotThere),
                None => (part, Outcome::Green),
            };
            for series in series.split(',').map(str::trim) {
                self.0.entry(id.to_owned()).or_default().insert(Series::new(series), outcome);
            }
        }
    }

    /// Takes what a run gave: lines of series, entry and `passed`, `failed` or `not-here`, between tabs.
    /// What the run did not reach stays.
    pub(crate) fn take(&mut self, lines: &str) -> Result<()> {
        for line in lines.lines() {
            let [series, id, outcome] = line.split('\t').collect::<Vec<_>>()[..] else {
                bail!("not a result: {line}");
            };
            let entry = super::entries().find(|entry| entry.id == id);
            let entry = entry.with_context(|| format!("the catalogue has no entry {id}"))?;
            let results = self.0.entry(entry.id.to_owned()).or_default();
            match outcome {
                "passed" => results.insert(Series::new(series), Outcome::Green),
                "not-here" => results.insert(Series::new(series), Outcome::NotThere),
                "failed" => results.remove(&Series::new(series)),
                _ => bail!("not a result: {line}"),
            };
        }
        Ok(())
    }

    /// The cell of an entry.
    pub(crate) fn cell(&self, id: &str) -> String {
        let with = |wanted: Outcome| {
            let results = self.0.get(id).into_iter().flatten();
            let series: Vec<&str> = results
                .filter(|(_, outcome)| **outcome == wanted)
                .map(|(series, _)| series.1.as_str())
                .collect();
            series.join(", ")
        };
        match (with(Outcome::Green), with(Outcome::NotThere)) {
            (green, missing) if green.is_empty() && missing.is_empty() => NONE.to_owned(),
            (green, missing) if missing.is_empty() => green,
            (green, missing) if green.is_empty() => format!("{NOT_THERE}{missing}"),
            (green, missing) => format!("{green}; {NOT_THERE}{missing}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_changes_only_what_it_ran() {
        let mut results = Results::default();
        results
            .take("6.12\tID-1\tpassed\n6.1\tID-1\tpassed\n6.1\tEX-6\tnot-here\n7\tEX-6\tpassed\n")
            .unwrap();
        assert_eq!(results.cell("ID-1"), "6.1, 6.12");
        assert_eq!(results.cell("EX-6"), "7; not on 6.1");
        assert_eq!(results.cell("ID-2"), NONE);
        results.take("6.12\tID-1\tfailed\n").unwrap();
        assert_eq!(results.cell("ID-1"), "6.1");
        assert!(results.take("6.12\tNO-1\tpassed\n").is_err());
    }

    #[test]
    fn what_the_page_shows_is_read_back() {
        let mut results = Results::default();
        results.take("6.12\tID-1\tpassed\n6.1\tEX-6\tnot-here\n7\tEX-6\tpassed\n").unwrap();
        assert_eq!(Results::parse(&super::super::page::text(&results)), results);
    }
}
