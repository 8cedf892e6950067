//! What is wrong with a bundle, or worth knowing about it, and where in its source.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

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
    /// The whole source line.
    pub source: String,
    /// Characters to underline, from `column`, at least 1.
    pub length: usize,
}

/// One source file of a bundle.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file, as the user would name it.
    pub name: Arc<str>,
    /// Its text.
    pub text: Arc<str>,
}

impl Source {
    /// The file `name` with this text.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// The place of a range of bytes.
    pub fn place(&self, span: Range<usize>) -> Place {
        let text = &*self.text;
        let start = floor_char(text, span.start);
        let end = floor_char(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let chars = |range: Range<usize>| text[range].chars().count();
        Place {
            file: self.name.to_string(),
            line: text[..start].matches('\n').count() + 1,
            column: chars(line_start..start) + 1,
            source: text[line_start..line_end].to_owned(),
            length: chars(start..end.min(line_end).max(start)).max(1),
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
        writeln!(f, "{}[{}]: {}", self.severity, self.code, self.message)?;
        if let Some(place) = &self.place {
            let margin = " ".repeat(place.line.to_string().len());
            // Tabs and other control characters would shift the underline or reach the terminal.
            let clean: String = place.source.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            writeln!(f, "{margin}--> {}:{}:{}", place.file, place.line, place.column)?;
            writeln!(f, "{margin} |")?;
            writeln!(f, "{} | {clean}", place.line)?;
            writeln!(f, "{margin} | {}{}", " ".repeat(place.column - 1), "^".repeat(place.length))?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "  = help: {help}")?;
        }
        Ok(())
    }
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
        self.0.iter().try_for_each(|diagnostic| diagnostic.fmt(f))
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
    fn a_span_beyond_the_text_does_not_panic() {
        let place = Source::new("x", "é").place(1..99);
        assert_eq!((place.line, place.column, place.length), (1, 1, 1));
    }
}
