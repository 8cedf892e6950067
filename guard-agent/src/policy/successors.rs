//! Successors: subjects that processes of another subject become, by executing a file or by asking for it.
//!
//! With `narrowing` the successor may do nothing that its parent may not, and the compiler proves it.
//! Without, it is what a set-user-id program is: it begins with one file that no subject can change, and
//! the parent can neither steer it afterwards nor choose what it is loaded with.

use std::ops::Range;
use std::path::PathBuf;

use guard_common::action::{self, Action};
use guard_common::class::{FIRST_COMPILED, capability_name};
use guard_common::path::{SUCCESSOR_SECURE, SUCCESSOR_WIDENS};
use toml::Spanned;

use super::bundle::Bundle;
use super::compile::Compiled;
use super::diagnostics::{Diagnostic, Source};
use super::ids::SubjectIds;
use super::manifest::{Manifest, Successor};
use super::places::{Mounts, Place};
use super::report::actions_text;
use super::selectors::target;
use super::subjects::{Mode, SubjectDefinition};
use super::survey::{Survey, Where};
use super::trie::Trie;
use crate::host::Host;

/// Capabilities by which a process can put other files where a program looks for its libraries.
const CHANGES_ROOT: [&str; 2] = ["sys_admin", "sys_chroot"];

/// A subject that processes of another one can become.
#[derive(Clone, Debug)]
pub struct SuccessorDefinition {
    /// Its name.
    pub name: String,
    /// It may do nothing which the other may not.
    pub narrowing: bool,
    /// How it begins.
    pub by: Entrance,
    /// Where its name is written.
    pub(super) span: Range<usize>,
}

/// How a process becomes a successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// It asks for a session.
    Adopt,
    /// It executes a file.
    Exec {
        /// The file, as it is written.
        of: String,
        /// The program is told that it must not trust its environment (`AT_SECURE`).
        secure: bool,
    },
}

/// What a subject becomes by executing a file, for processes that run already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSuccessor {
    /// The file, with every symbolic link resolved.
    pub path: PathBuf,
    /// The subject that executes it.
    pub parent: u32,
    /// The subject that it becomes.
    pub successor: u32,
    /// Whether that may do no more.
    pub narrowing: bool,
}

impl SubjectDefinition {
    /// Whether its processes may ask for a session as this other subject.
    pub fn may_adopt(&self, name: &str) -> bool {
        self.successors.iter().any(|edge| edge.name == name && edge.by == Entrance::Adopt)
    }
}

/// The file with which a successor begins.
#[derive(Debug)]
pub(super) struct Begin {
    running: ExecSuccessor,
    place: Place,
}

impl Begin {
    pub(super) fn running(&self) -> ExecSuccessor {
        self.running.clone()
    }
}

/// Reads one successor of a subject.
pub(super) fn read(
    manifest: &Manifest,
    source: &Source,
    (parent, name): (&Spanned<String>, &Spanned<String>),
    how: &Successor,
    found: &mut Vec<Diagnostic>,
) -> Option<SuccessorDefinition> {
    let before = found.len();
    let mut wrong = |span: Range<usize>, message: &str, help: &str| {
        found.push(source.error("successor", span, format!("{}: {message}", name.get_ref())).help(help));
    };
    if parent.get_ref() == name.get_ref() {
        wrong(name.span(), "a subject is no successor of its own", "name another subject");
    }
    let exec = "write by = \"exec\", of = \"/path/of/a/program\"";
    let by = match (how.by.get_ref().as_str(), &how.of) {
        ("exec", Some(of)) => {
            let said = how.secureexec.as_ref().map(|said| *said.get_ref());
            if let (false, Some(false), Some(said)) = (how.narrowing, said, &how.secureexec) {
                wrong(
                    said.span(),
                    "a program that begins with more rights is always told not to trust its environment",
                    "write secureexec = true, or leave it out",
                );
            }
            Some(Entrance::Exec { of: of.get_ref().clone(), secure: !how.narrowing || said == Some(true) })
        }
        ("exec", None) => {
            wrong(how.by.span(), "of is missing: which file begins it?", exec);
            None
        }
        ("adopt", of) => {
            let exec_only = of.as_ref().map(Spanned::span).or(how.secureexec.as_ref().map(Spanned::span));
            if let Some(span) = exec_only {
                wrong(span, "of and secureexec belong to by = \"exec\"", "remove it");
            }
            if !how.narrowing {
                wrong(
                    name.span(),
                    "nobody but the caller chooses what a session executes, so a session cannot give more rights",
                    "write narrowing = true, or by = \"exec\" with the file that begins it",
                );
            }
            Some(Entrance::Adopt)
        }
        _ => {
            wrong(how.by.span(), "a successor is entered by exec or by adopt", exec);
            None
        }
    };
    // A sub-agent may be defined by another bundle; nothing is entered here then.
    if !manifest.subjects.contains_key(name) {
        found.push(source.note(
            "unknown-subject",
            name.span(),
            format!("the successor {} is not a subject of this bundle", name.get_ref()),
        ));
    }
    let is_usable = found[before..].iter().all(|one| one.severity != super::Severity::Error);
    let by = by.filter(|_| is_usable)?;
    Some(SuccessorDefinition {
        name: name.get_ref().clone(),
        narrowing: how.narrowing,
        by,
        span: name.span(),
    })
}

/// Pairs of a subject and a successor that the bundle has both.
fn edges(
    subjects: &[SubjectDefinition],
) -> impl Iterator<Item = (&SubjectDefinition, &SuccessorDefinition, &SubjectDefinition)> {
    subjects.iter().flat_map(move |parent| {
        parent.successors.iter().filter_map(move |edge| {
            let other = subjects.iter().find(|subject| subject.name == edge.name)?;
            Some((parent, edge, other))
        })
    })
}

/// Refuses a successor to which less is denied because it is only watched.
pub(super) fn modes(subjects: &[SubjectDefinition], source: &Source, found: &mut Vec<Diagnostic>) {
    for (parent, edge, other) in edges(subjects) {
        if edge.narrowing && parent.mode == Mode::Enforce && other.mode == Mode::Monitor {
            let message = format!(
                "{} → {}: the successor is in monitor mode, in which nothing is denied, and {} is not",
                parent.name, other.name, parent.name
            );
            found.push(
                source
                    .error("successor", edge.span.clone(), message)
                    .help("give both the same mode in [modes]"),
            );
        }
    }
}

/// The policies that keep a subject from steering a successor with more rights, if there is one.
pub(super) fn apart(subjects: &[SubjectDefinition]) -> Option<Source> {
    let mut text = String::new();
    for (parent, _, other) in edges(subjects).filter(|(_, edge, _)| !edge.narrowing) {
        let (parent, other) = (&parent.name, &other.name);
        text.push_str(&format!(
            "@id(\"apart:{parent}:{other}\") @reason(\"whoever traces or signals a successor with more rights uses these rights\")\n\
             forbid (principal == Guard::Subject::\"{parent}\", action in Guard::Action::\"proc.*\", resource)\n\
             when {{ resource has subject && resource.subject == Guard::Subject::\"{other}\" }};\n"
        ));
    }
    (!text.is_empty()).then(|| Source::new("<guard>/generated.cedar", text))
}

/// Puts the files with which successors begin into the trie.
pub(super) fn places(
    bundle: &Bundle,
    host: &Host,
    mounts: &Mounts<'_>,
    ids: &mut SubjectIds,
    trie: &mut Trie,
    found: &mut Vec<Diagnostic>,
) -> Vec<Begin> {
    let mut begins = Vec::new();
    for (parent, edge, other) in edges(&bundle.subjects) {
        let Entrance::Exec { of, secure } = &edge.by else { continue };
        let text = |message: &str| format!("{} → {}: {message}", parent.name, other.name);
        let target = match target(host, mounts, of, false) {
            Ok(target) => target,
            Err((message, help)) => {
                found.push(bundle.toml.error("successor", edge.span.clone(), text(&message)).help(help));
                continue;
            }
        };
        let notes = target.notes.iter();
        found.extend(notes.map(|(code, message)| bundle.toml.note(code, edge.span.clone(), text(message))));
        let (from, to) = (ids.assign(&parent.name), ids.assign(&other.name));
        let widens = if edge.narrowing { 0 } else { SUCCESSOR_WIDENS };
        let value = to | widens | if *secure { SUCCESSOR_SECURE } else { 0 };
        if !trie.succeed(&target.place, from, value) {
            let message = text(&format!("executing {of} already begins another successor"));
            found.push(
                bundle.toml.error("successor", edge.span.clone(), message).help("name another file for it"),
            );
        }
        let running =
            ExecSuccessor { path: target.path, parent: from, successor: to, narrowing: edge.narrowing };
        begins.push(Begin { running, place: target.place });
    }
    begins
}

/// What is wrong with the successors of a bundle, by its tables: one that says that it narrows and does not,
/// and one with more rights whose beginning a subject could choose.
pub(super) fn check(
    bundle: &Bundle,
    host: &Host,
    compiled: &Compiled,
    begins: &[Begin],
    ids: &SubjectIds,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if edges(&bundle.subjects).next().is_none() {
        return found;
    }
    // A row for each subject, by its position.
    let rows: Vec<u32> =
        bundle.subjects.iter().map(|subject| ids.get(&subject.name).unwrap_or_default()).collect();
    let row = |name: &str| bundle.subjects.iter().position(|subject| subject.name == name);
    let survey = Survey::of_rows(bundle, host, compiled, &rows);
    for (parent, edge, other) in edges(&bundle.subjects) {
        let (Some(first), Some(second)) = (row(&parent.name), row(&other.name)) else { continue };
        let mut wrong = |message: String, help: &str| {
            let message = format!("{} → {}: {message}", parent.name, other.name);
            found.push(bundle.toml.error("successor", edge.span.clone(), message).help(help));
        };
        if edge.narrowing {
            let wider = survey.wider(first, second);
            if let Some(more) = wider.more.first() {
                let others = match wider.more.len() - 1 {
                    0 => String::new(),
                    count => format!(", and {count} more like that"),
                };
                wrong(
                    format!(
                        "narrowing = true, but {} may {more} and {} may not{others}",
                        other.name, parent.name
                    ),
                    "take that right away from the successor, or give it to the subject; a successor with more rights is written without narrowing",
                );
            } else if !wider.is_empty() {
                wrong(
                    format!(
                        "narrowing = true cannot be proven: decisions on {} depend on too much at once",
                        wider.undecided.join(", ")
                    ),
                    "name directories and networks instead of names, patterns and ports",
                );
            }
            continue;
        }
        let begin = begins
            .iter()
            .find(|begin| (begin.running.parent, begin.running.successor) == (rows[first], rows[second]));
        let Some(begin) = begin else { continue };
        for (at, subject) in bundle.subjects.iter().enumerate() {
            let changes = changes(&survey, at, &begin.place);
            if changes != 0 {
                wrong(
                    format!(
                        "{} may {} {}, and so choose what begins a subject with more rights",
                        subject.name,
                        actions_text(changes),
                        begin.running.path.display()
                    ),
                    "permit nobody to change the file: a subject that does not govern mutate may change every file",
                );
            }
        }
        let uses = capabilities(&survey, first);
        if !uses.is_empty() {
            wrong(
                format!(
                    "{} may use the capability {}, and so put other libraries under a program with more rights",
                    parent.name,
                    uses.join(" and ")
                ),
                "govern sys.cap and do not permit it: what mounts or changes its root cannot have such a successor",
            );
        }
    }
    found
}

/// How a row may change the file at a place.
fn changes(survey: &Survey<'_>, row: usize, place: &Place) -> u64 {
    let all = action::expand("mutate").unwrap_or_default();
    // What cannot be told counts as permitted.
    survey.may_at(row, place).unwrap_or(all) & all
}

/// Which of the capabilities that change what a path means a row may use.
fn capabilities(survey: &Survey<'_>, row: usize) -> Vec<&'static str> {
    let classes = (0..FIRST_COMPILED).filter_map(|class| Some((class, capability_name(class)?)));
    classes
        .filter(|(_, name)| CHANGES_ROOT.contains(name))
        .filter(|(class, _)| {
            let may = survey.may(row, &Where::Builtin(*class));
            may.is_none_or(|may| may & Action::SysCap.bit() != 0)
        })
        .map(|(_, name)| name)
        .collect()
}

impl Compiled {
    /// A file with which a successor with more rights begins and which a row, a session's, may change.
    /// Those of subjects may not.
    pub fn changes_beginning(&self, bundle: &Bundle, host: &Host, row: u32) -> Option<PathBuf> {
        let wide: Vec<&ExecSuccessor> =
            self.exec_successors.iter().filter(|begins| !begins.narrowing).collect();
        if wide.is_empty() {
            return None;
        }
        let survey = Survey::of_rows(bundle, host, self, &[row]);
        let mounts = Mounts::new(&host.mounts);
        let changed = wide.into_iter().find(|begins| {
            let place = mounts.locate(&begins.path);
            place.is_some_and(|place| changes(&survey, 0, &place) != 0)
        });
        changed.map(|begins| begins.path.clone())
    }

    /// What the row `second` may do and the row `first` may not, in words; nothing if the second is
    /// narrower. Rows are those of subjects, or of sessions of `bundle`, from which this was compiled.
    pub fn wider(&self, bundle: &Bundle, host: &Host, first: u32, second: u32) -> Option<String> {
        let wider = Survey::of_rows(bundle, host, self, &[first, second]).wider(0, 1);
        wider
            .more
            .first()
            .cloned()
            .or_else(|| wider.undecided.first().map(|place| format!("what cannot be compared, on {place}")))
    }
}
