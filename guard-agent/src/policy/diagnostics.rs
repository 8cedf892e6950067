//! What is wrong with a bundle, or worth knowing about it, and where in its source.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use serde::Serialize;

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The bundle is not usable.
    Error,
    /// The bundle is usable; something in it probably does not do what its author wants.
    Warning,
    /// Worth knowing.
    Note,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// Stable name of the kind of finding, for tools.
    pub code: &'static str,
    /// What is the case, in one sentence.
    pub message: String,
    /// Where, if it has a place.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub place: Option<Box<Place>>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// A place in a source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file, as the user would name it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The source line; of a very long one, the part around the place.
    pub source: String,
    /// Characters of the line before `source`.
    pub left_out: usize,
    /// Characters to underline, from `column`, at least 1.
    pub length: usize,
}

/// Bytes of a source line that are shown around a place, on each side.
const AROUND: usize = 200;
/// Characters of a message that are shown.
const MESSAGE: usize = 1000;
/// Findings that are shown to people; tools get all.
const SHOWN: usize = 100;

/// One source file of a bundle.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file, as the user would name it.
    pub name: Arc<str>,
    /// Its text.
    pub text: Arc<str>,
    /// Where its lines begin, found out once: a bundle can have as many findings as policies.
    lines: Arc<OnceLock<Vec<usize>>>,
}

impl Source {
    /// The file `name` with this text.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), text: text.into(), lines: Arc::default() }
    }

    /// The place of a range of bytes.
    pub fn place(&self, span: Range<usize>) -> Place {
        let text = &*self.text;
        let start = floor_char(text, span.start);
        let end = floor_char(text, span.end).max(start);
        let lines = self.lines.get_or_init(|| {
            std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect()
        });
        // The first line begins at 0, so there is one at or before every place.
        let line = lines.partition_point(|begin| *begin <= start).max(1);
        let line_start = lines.get(line - 1).copied().unwrap_or_default();
        let line_end = lines.get(line).map_or(text.len(), |next| next - 1).max(start);
        let from = floor_char(text, start.saturating_sub(AROUND).max(line_start));
        let to = floor_char(text, start.saturating_add(AROUND).min(line_end)).max(start);
        let chars = |range: Range<usize>| text[range].chars().count();
        let left_out = chars(line_start..from);
        Place {
            file: self.name.to_string(),
            line,
            column: left_out + chars(from..start) + 1,
            source: text[from..to].to_owned(),
            left_out,
            length: chars(start..end.min(to).max(start)).max(1),
        }
    }

    /// An error at a range of bytes.
    pub fn error(&self, code: &'static str, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic { place: Some(Box::new(self.place(span))), ..Diagnostic::error(code, message) }
    }

    /// A note at a range of bytes.
    pub fn note(&self, code: &'static str, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Note, ..self.error(code, span, message) }
    }
}

/// The last character boundary at or before `index`.
fn floor_char(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, message: message.into(), place: None, help: None }
    }

    /// A note without a place.
    pub fn note(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::error(code, message) }
    }

    /// A warning without a place.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// The same, as a warning.
    #[must_use]
    pub fn into_warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// The same, with advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}[{}]: {}", self.severity, self.code, shown(&self.message))?;
        if let Some(place) = &self.place {
            let margin = " ".repeat(place.line.to_string().len());
            // Tabs and other control characters would shift the underline or reach the terminal.
            let clean: String = place.source.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let dots = if place.left_out > 0 { "… " } else { "" };
            let before = place.column - 1 - place.left_out + dots.chars().count();
            writeln!(f, "{margin}--> {}:{}:{}", place.file, place.line, place.column)?;
            writeln!(f, "{margin} |")?;
            writeln!(f, "{} | {dots}{clean}", place.line)?;
            writeln!(f, "{margin} | {}{}", " ".repeat(before), "^".repeat(place.length))?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "  = help: {}", shown(help))?;
        }
        Ok(())
    }
}

/// A message that may quote the bundle: nothing in it moves the cursor, and it has an end.
fn shown(message: &str) -> String {
    let mut text = String::with_capacity(message.len().min(MESSAGE));
    for c in message.chars().take(MESSAGE) {
        match c {
            '\n' => text.push(c),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    if message.chars().nth(MESSAGE).is_some() {
        text.push('…');
    }
    text
}

/// Why a bundle is refused: at least one error, possibly with warnings and notes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// `found` as a refusal if it holds an error. Notes about a bundle that is refused are left out:
    /// they would bury what has to be mended.
    pub fn refuse_if_errors(mut found: Vec<Diagnostic>) -> Result<Vec<Diagnostic>, Self> {
        if found.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
            found.retain(|diagnostic| diagnostic.severity != Severity::Note);
            Err(Self(found))
        } else {
            Ok(found)
        }
    }

    /// Every finding, in the order it was made.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(SHOWN).try_for_each(|diagnostic| diagnostic.fmt(f))?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_its_line_underlined() {
        let source = Source::new("a/b.cedar", "one\n  twö three\n");
        let start = source.text.find("three").unwrap();
        let found = source.error("sample", start..start + 5, "no such number").help("count on");
        assert_eq!(
            found.to_string(),
            "error[sample]: no such number\n --> a/b.cedar:2:7\n  |\n2 |   twö three\n  |       ^^^^^\n  = help: count on\n"
        );
    }

    #[test]
    fn what_a_bundle_says_reaches_the_terminal_short_and_without_control_characters() {
        let long = format!("{}\u{1b}[2J@{}", "ä".repeat(100_000), "x".repeat(100_000));
        let source = Source::new("long", format!("first\n{long}\nlast"));
        let at = source.text.find('@').unwrap();
        let found = source.error("sample", at..at + 50_000, format!("there is no {long}"));
        let text = found.to_string();
        assert!(text.len() < 8000 && !text.contains('\u{1b}'), "{} bytes", text.len());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("long:2:100005"), "{}", lines[1]);
        let underlined = lines[4].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[3].chars().nth(underlined), Some('@'));
        assert!(lines[0].ends_with('…'), "a message has an end");
    }

    #[test]
    fn as_many_findings_as_a_bundle_has_policies_are_made_and_shown_quickly() {
        let source = Source::new("many", "a line\n".repeat(200_000));
        let all: Vec<_> =
            (0..200_000).map(|line| source.error("sample", line * 7..line * 7 + 1, "no")).collect();
        let last = all.last().and_then(|found| found.place.as_ref()).unwrap();
        assert_eq!((last.line, last.column, last.source.as_str()), (200_000, 1, "a line"));
        let text = Diagnostics(all).to_string();
        assert!(text.ends_with("and 199900 more\n") && text.len() < 10_000);
    }

    #[test]
    fn a_span_beyond_the_text_does_not_panic() {
        let place = Source::new("x", "é").place(1..99);
        assert_eq!((place.line, place.column, place.length), (1, 1, 1));
    }
}
