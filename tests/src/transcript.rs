//! Transcripts in the documentation: commands and what the screen shows, which tests run and compare.
//!
//! A transcript is the fenced blocks of a Markdown file that are called `console`. A line that begins
//! with `$ ` is a command, the lines behind it are its output. A line that is only `…` stands for any
//! number of lines. What differs from run to run is compared by its kind, and has to be the same
//! wherever the document repeats it: ids of events, digests and ids of processes. Times, spans and
//! large counts only have to be there. Everything else is compared literally.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// One command of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The line of the document.
    pub(crate) line: usize,
    /// The command.
    pub(crate) command: String,
    /// The lines that the document shows.
    pub(crate) shown: Vec<String>,
}

/// The steps of a document.
pub(crate) fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut inside, mut open) = (false, false);
    for (index, line) in document.lines().enumerate() {
        if line.starts_with("```") {
            inside = !inside && line == "```console";
            open = false;
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            steps.push(Step { line: index + 1, command: command.to_owned(), shown: Vec::new() });
            open = true;
        } else if let (true, true, Some(step)) = (inside, open, steps.last_mut()) {
            step.shown.push(line.to_owned());
        }
    }
    for step in &mut steps {
        while step.shown.last().is_some_and(|line| line.is_empty()) {
            step.shown.pop();
        }
    }
    steps
}

/// What the document's ids are in this run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    real: BTreeMap<String, String>,
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Compared literally.
    Text(String),
    /// The same wherever it is repeated.
    Name(&'static str, String),
    /// Only there.
    Varies(&'static str),
}

impl Names {
    /// A command of the document with the ids of this run.
    pub(crate) fn translated(&self, command: &str) -> String {
        let parts = parts(command);
        let real = |name: &String| self.real.get(name).unwrap_or(name).clone();
        parts
            .iter()
            .map(|(part, text)| match part {
                Part::Name(_, name) => real(name),
                _ => text.clone(),
            })
            .collect()
    }

    /// Compares what the document shows with what the screen shows.
    ///
    /// # Errors
    /// The first line that differs.
    pub(crate) fn compare(&mut self, shown: &[String], screen: &[String]) -> Result<()> {
        let Some(at) = shown.iter().position(|line| line == "…") else {
            return self.lines(shown, screen);
        };
        let (front, rest) = (&shown[..at], &shown[at + 1..]);
        let before = screen.get(..at).unwrap_or(screen);
        self.lines(front, before)?;
        // The fewest lines that … can stand for.
        let mut last = Ok(());
        for skipped in at..=screen.len() {
            let mut tried = self.clone();
            last = tried.compare(rest, &screen[skipped..]);
            if last.is_ok() {
                *self = tried;
                return Ok(());
            }
        }
        last.context("behind the …")
    }

    fn lines(&mut self, shown: &[String], screen: &[String]) -> Result<()> {
        for (index, line) in shown.iter().enumerate() {
            let Some(real) = screen.get(index) else { bail!("the screen ends before: {line}") };
            if !self.line(line, real) {
                bail!("the document shows: {line}\n    the screen shows: {real}");
            }
        }
        match screen.get(shown.len()) {
            Some(line) => bail!("the screen goes on with: {line}"),
            None => Ok(()),
        }
    }

    fn line(&mut self, shown: &str, screen: &str) -> bool {
        let (shown, screen) = (parts(shown), parts(screen));
        shown.len() == screen.len()
            && shown.into_iter().zip(screen).all(|((shown, _), (screen, _))| match (shown, screen) {
                (Part::Name(kind, name), Part::Name(other, real)) if kind == other => {
                    *self.real.entry(name).or_insert_with(|| real.clone()) == real
                }
                (shown, screen) => shown == screen,
            })
    }
}

/// A line in its parts, each with its text. Columns are set for the widest cell, so blanks in a row
/// count as one.
fn parts(line: &str) -> Vec<(Part, String)> {
    let mut found: Vec<(Part, String)> = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        // What varies is a word, or in brackets behind one.
        let begins_word = !rest.starts_with(|c: char| c.is_alphanumeric())
            || found.last().is_none_or(|(_, text)| !text.ends_with(|c: char| c.is_alphanumeric()));
        let part = KINDS.iter().find_map(|kind| kind(rest).filter(|_| begins_word));
        let (part, length) = part.unwrap_or_else(|| {
            let c = rest.chars().next().unwrap_or(' ');
            let length =
                if c == ' ' { rest.len() - rest.trim_start_matches(' ').len() } else { c.len_utf8() };
            (Part::Text(c.to_string()), length)
        });
        let (text, tail) = rest.split_at(length);
        match (&part, found.last_mut()) {
            (Part::Text(more), Some((Part::Text(known), whole))) => {
                known.push_str(more);
                whole.push_str(text);
            }
            _ => found.push((part, text.to_owned())),
        }
        rest = tail;
    }
    found
}

/// What can begin a text, and how long it is.
type Kind = fn(&str) -> Option<(Part, usize)>;

const KINDS: [Kind; 8] = [event, digest, instant, ago, span, process, line, count];

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// `d-7K3F2Q`
fn event(text: &str) -> Option<(Part, usize)> {
    const LENGTH: usize = 8;
    let id = text.get(..LENGTH)?;
    let body = id.strip_prefix("d-")?;
    let legal = body.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    legal.then(|| (Part::Name("event", id.to_owned()), LENGTH))
}

/// `0123456789ab…`
fn digest(text: &str) -> Option<(Part, usize)> {
    const LENGTH: usize = 12;
    let id = text.get(..LENGTH).filter(|_| text[LENGTH..].starts_with('…'))?;
    id.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| (Part::Name("digest", id.to_owned()), LENGTH))
}

/// `2026-11-25T09:00:00.000000Z`, `2026-11-25 09:00:00`, `2026/11/25 09:00:00`, `09:00:00`
fn instant(text: &str) -> Option<(Part, usize)> {
    let length = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '-' | '/' | ':' | '.' | 'T' | 'Z' | ' ')))
        .unwrap_or(text.len());
    let run = text[..length].trim_end_matches([' ', '.', '-', '/', ':', 'T']);
    let clock = run.matches(':').count() == 2 && digits(text) >= 2;
    (clock && run.len() >= 8).then_some((Part::Varies("instant"), run.len()))
}

/// `just now`, `12 s ago`
fn ago(text: &str) -> Option<(Part, usize)> {
    if text.starts_with("just now") {
        return Some((Part::Varies("ago"), "just now".len()));
    }
    let (_, length) = span(text)?;
    text[length..].starts_with(" ago").then_some((Part::Varies("ago"), length + " ago".len()))
}

/// `31 ms`, `3 h 12 min`
fn span(text: &str) -> Option<(Part, usize)> {
    const UNITS: [&str; 6] = [" ms", " min", " s", " h", " days", " day"];
    let mut length = 0;
    loop {
        let rest = &text[length..];
        let number = digits(rest);
        let unit =
            (number > 0).then(|| UNITS.iter().find(|unit| rest[number..].starts_with(**unit))).flatten();
        let Some(unit) = unit else { break };
        let end = length + number + unit.len();
        if text[end..].starts_with(|c: char| c.is_alphanumeric()) {
            break;
        }
        length = end;
        if !text[length..].starts_with(' ') || digits(&text[length + 1..]) == 0 {
            break;
        }
        length += 1;
    }
    let text = text[..length].trim_end();
    (!text.is_empty()).then_some((Part::Varies("span"), text.len()))
}

/// `[812]` behind the name of a program, and nginx's `812#812: *3`
fn process(text: &str) -> Option<(Part, usize)> {
    if let Some(inner) = text.strip_prefix('[') {
        let number = digits(inner);
        return (number > 0 && inner[number..].starts_with(']'))
            .then_some((Part::Varies("process"), number + 2));
    }
    let number = digits(text);
    let thread = text[number..].strip_prefix('#').map(digits).filter(|thread| number > 0 && *thread > 0)?;
    let mut length = number + 1 + thread;
    if let Some(rest) = text[length..].strip_prefix(": *") {
        length += ": *".len() + digits(rest);
    }
    Some((Part::Varies("process"), length))
}

/// `.cedar:52`, `@@ -52,3 +52,8 @@`: where in a file.
fn line(text: &str) -> Option<(Part, usize)> {
    const FILE: &str = ".cedar:";
    let length = match text.strip_prefix(FILE) {
        Some(rest) => FILE.len() + digits(rest),
        None => text.strip_prefix("@@ -")?.find(" @@")? + "@@ - @@".len(),
    };
    Some((Part::Varies("line"), length))
}

/// `1 204 operations`, `3 attempts`, `×3`, `2 processes`: how often depends on the machine.
fn count(text: &str) -> Option<(Part, usize)> {
    if let Some(rest) = text.strip_prefix('×') {
        let number = digits(rest);
        return (number > 0).then_some((Part::Varies("count"), '×'.len_utf8() + number));
    }
    const WORDS: [&str; 7] = ["operation", "kind", "include", "permit", "task", "attempt", "time"];
    let length = text.find(|c: char| !(c.is_ascii_digit() || c == ' '))?;
    let number = text[..length].trim_end();
    let word = WORDS.iter().find(|word| text[length..].starts_with(**word))?;
    if number.is_empty() || !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let plural = usize::from(text[length + word.len()..].starts_with('s'));
    Some((Part::Varies("count"), length + word.len() + plural))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    fn same(shown: &str, screen: &str) -> bool {
        Names::default().compare(&lines(shown), &lines(screen)).is_ok()
    }

    #[test]
    fn a_document_has_steps() {
        let text = "# A\n```sh\n$ no\n```\n```console\n$ one\nout\n\nmore\n$ two\n```\n$ not this\n```console\n$ three\n\n```\n";
        let steps = steps(text);
        let commands: Vec<_> = steps.iter().map(|step| (step.line, step.command.as_str())).collect();
        assert_eq!(commands, [(6, "one"), (10, "two"), (14, "three")]);
        assert_eq!(steps[0].shown, ["out", "", "more"]);
        assert!(steps[1].shown.is_empty() && steps[2].shown.is_empty());
    }

    #[test]
    fn what_varies_is_compared_by_its_kind_and_the_rest_literally() {
        for (shown, screen, wanted) in [
            ("applied in 31 ms", "applied in 1203 ms", true),
            ("nginx  3 h 12 min  last 2 s ago", "nginx  41 s  last just now", true),
            ("12 s ago", "12 s", false),
            ("nginx[812] uid 33", "nginx[9] uid 33", true),
            ("nginx[812] uid 33", "nginx[9] uid 0", false),
            ("41 kinds (1 204 operations)", "9 kinds (1 operation)", true),
            ("41 files (1 operation)", "42 files (1 operation)", false),
            ("nginx.cedar:52  covers", "nginx.cedar:7  covers", true),
            ("@@ -52,3 +52,8 @@", "@@ -7,3 +7,8 @@", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("at 2026-11-25T09:00:00.123456Z.", "at 1999-01-01T00:00:01.000000Z.", true),
            (
                "2026/11/25 09:00:00 [error] 812#812: *3 open()",
                "2026/01/02 03:04:05 [error] 9#9: *17 open()",
                true,
            ),
            ("generation 2", "generation 3", false),
            ("a   b", "a b", true),
            ("a b", "ab", false),
            ("version 1 (0123456789ab…)", "version 1 (ba9876543210…)", true),
        ] {
            assert_eq!(same(shown, screen), wanted, "{shown} / {screen}");
        }
    }

    #[test]
    fn ids_are_the_same_wherever_they_are_repeated() {
        let mut names = Names::default();
        names.compare(&lines("DENIED d-7K3F2Q"), &lines("DENIED d-AAAAAA")).unwrap();
        assert_eq!(names.translated("why d-7K3F2Q --only 1"), "why d-AAAAAA --only 1");
        assert!(names.compare(&lines("x d-7K3F2Q"), &lines("x d-BBBBBB")).is_err());
        assert!(names.compare(&lines("x d-7K3F2Q"), &lines("x d-AAAAAA")).is_ok());
    }

    #[test]
    fn an_ellipsis_stands_for_any_lines() {
        assert!(same("a\n…\nd", "a\nb\nc\nd") && same("a\n…", "a") && same("…\nz", "x\ny\nz"));
        assert!(!same("a\n…\nd", "a\nb\nc") && !same("a\nb", "a\nb\nc") && !same("a\nb\nc", "a\nb"));
    }
}
