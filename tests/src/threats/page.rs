//! `docs/bypasses.md`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::{CATALOGUE, Entry, Results, State, entries};

const INTRODUCTION: &str = "\
# Ways round Guard, and what answers them

<!-- Made by `cargo xtask threats` from tests/src/threats and from what the tests gave; do not edit. -->

What somebody would try against a program like this one, entry by entry, with what Guard makes of it and the tests that
show it. `cargo xtask threats` runs them in guests, `cargo xtask threats ID-1` those of one entry. A test tries the
technique without Guard, where it must work; as a labelled process under Guard, where it must fail with the stated error,
leave a canary file as it was and be reported; and as an unlabelled process under Guard, where it must work. What policy
permits must work throughout.

*Out of scope* is what another mechanism must answer. The last column names the kernel series on which all tests of the entry passed when they
were last run there; some series have nothing of the kind.
";

/// The page with these results.
pub(super) fn text(results: &Results) -> String {
    let mut text = INTRODUCTION.to_owned();
    let count = |wanted: fn(&State) -> bool| entries().filter(|entry| wanted(&entry.state)).count();
    let _ = writeln!(
        text,
        "\n{} entries are answered, {} are out of scope.",
        count(|state| matches!(state, State::Answered)),
        count(|state| matches!(state, State::OutOfScope { .. })),
    );
    for chapter in CATALOGUE {
        let _ = write!(
            text,
            "\n## {}\n| entry | somebody tries to | what answers it | tests | green on |\n|---|---|---|---|---|\n",
            chapter.name
        );
        for entry in chapter.entries {
            let _ = writeln!(text, "{}", row(entry, results));
        }
    }
    text
}

fn row(entry: &Entry, results: &Results) -> String {
    let answer = match entry.state {
        State::Answered => entry.answer.to_owned(),
        State::OutOfScope { reason, instead } => format!("*Out of scope*: {reason}. Instead: {instead}."),
    };
    let tests: Vec<String> = entry.tests.iter().map(|test| format!("`{test}`")).collect();
    let (tests, results) = (tests.join(", "), results.cell(entry.id));
    format!("| {} | {} | {answer} | {tests} | {results} |", entry.id, entry.technique)
}

/// Writes `page` anew, with its results and those of a run.
pub(crate) fn write(page: &Path, run: &str) -> Result<()> {
    let before = std::fs::read_to_string(page).with_context(|| format!("read {}", page.display()))?;
    let mut results = Results::parse(&before);
    results.take(run)?;
    std::fs::write(page, text(&results)).with_context(|| format!("write {}", page.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_the_catalogue_says() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bypasses.md");
        if std::env::var_os("GUARD_BLESS").is_some() {
            write(&page, "").unwrap();
        }
        let found = std::fs::read_to_string(&page).unwrap();
        let expected = text(&Results::parse(&found));
        assert!(
            found == expected,
            "docs/bypasses.md is not what the catalogue says: GUARD_BLESS=1 cargo test -p guard-tests threats"
        );
    }
}
