//! Subjects of `guard.toml`: checked, and stripped of what this version cannot honour.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use guard_common::action::{self, Action};
use guard_common::tables::ALL_ACTIONS;
use toml::Spanned;

use super::diagnostics::{Diagnostic, Source};
use super::manifest::{FailMode, Manifest, Root, SelectorDefinition, Subject, Unenforceable, duration};
use super::sessions::{Adopter, Variable};
use super::successors::{self, SuccessorDefinition};

/// The subject of the start-up canary; no bundle can define it.
pub(super) const CANARY: &str = "guard-canary";
/// The subject that stands for the agent's process where others act on it.
pub(crate) const AGENT: &str = "guard-agent";
/// The built-in subject of processes that are in quarantine and nobody's otherwise.
pub(crate) const QUARANTINE: &str = "guard-quarantine";

/// Whether denials are enforced or only reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Deny.
    Enforce,
    /// Allow, and report what would be denied.
    Monitor,
}

impl Mode {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
        }
    }
}

/// One subject as the bundle defines it.
#[derive(Clone, Debug)]
pub struct SubjectDefinition {
    /// Its name: the Cedar entity id.
    pub name: String,
    /// Enforce or monitor.
    pub mode: Mode,
    /// The groups it belongs to.
    pub groups: Vec<String>,
    /// Bits of the actions it governs.
    pub governs: u64,
    /// How long facts without an end count with no agent that vouches for them; nothing: for ever.
    pub max_staleness: Option<Duration>,
    /// What they are after that.
    pub fail_mode: FailMode,
    /// What it gets where this kernel cannot enforce what it governs.
    pub unenforceable: Unenforceable,
    /// The includes linked for it.
    pub include: Vec<String>,
    /// Which root the paths of its policies count from.
    pub root: Root,
    /// Its selectors.
    pub selectors: Vec<SelectorDefinition>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Who may open a session as this subject.
    pub adopt: Vec<Adopter>,
    /// The variables of its sessions, by name.
    pub variables: BTreeMap<String, Variable>,
    /// The subjects that its processes can become.
    pub successors: Vec<SuccessorDefinition>,
    /// Where its name is written.
    pub(super) span: Range<usize>,
    /// Where each selector is written.
    pub(super) spans: Vec<Range<usize>>,
    /// Where each include is named.
    pub(super) include_spans: Vec<Range<usize>>,
}

impl SubjectDefinition {
    /// Whether the paths of its policies count from a root of its own.
    pub fn has_own_root(&self) -> bool {
        self.root == Root::Own
    }

    /// Bits of the actions that are forbidden to it whatever its policies say: mounting, because with a root of
    /// its own a file is called what the mounts on the way to it are called.
    pub fn never(&self) -> u64 {
        if self.has_own_root() { Action::SysMount.bit() } else { 0 }
    }

    /// Bits of the actions it governs among those that the kernel has no hook for.
    pub fn unenforceable(&self, undecided: u64) -> u64 {
        self.governs & undecided
    }

    /// Whether everything it governs is forbidden, because its definition wants that on such a kernel.
    pub fn is_denied(&self, undecided: u64) -> bool {
        self.unenforceable == Unenforceable::Deny && self.unenforceable(undecided) != 0
    }
}

/// The shortest and the longest `max_staleness`: an agent that is busy must get to vouch for facts in time.
const STALENESS: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(7 * 24 * 60 * 60);

/// How long facts without an end count with no agent.
fn staleness(subject: &Subject, source: &Source, found: &mut Vec<Diagnostic>) -> Option<Duration> {
    let Some(text) = &subject.max_staleness else {
        if let Some(mode) = subject.fail_mode.as_ref().filter(|mode| *mode.get_ref() != FailMode::Deny) {
            let message = "without max_staleness facts never become stale, so this has no effect";
            found.push(source.note("fail-mode", mode.span(), message));
        }
        return None;
    };
    let length = duration(text.get_ref()).filter(|length| STALENESS.contains(length));
    if length.is_none() {
        let message = "this is no length of time that is possible here";
        let help = "write a number and s, m, h or d, from \"5s\" to \"7d\"";
        found.push(source.error("staleness", text.span(), message).help(help));
    }
    length
}

/// Reads `[modes]` and `[subjects]`.
pub(super) fn read(
    manifest: &Manifest,
    source: &Source,
    found: &mut Vec<Diagnostic>,
) -> Vec<SubjectDefinition> {
    let mode_of = modes(manifest, source, found);
    manifest
        .subjects
        .iter()
        .filter_map(|(name, subject)| {
            check_name(name, source, found);
            let before = found.len();
            let definition = one(manifest, source, name, subject, mode_of(name.get_ref()), found);
            found[before..].iter_mut().for_each(|diagnostic| {
                diagnostic.message = format!("{}: {}", name.get_ref(), diagnostic.message);
            });
            definition
        })
        .collect()
}

fn check_name(name: &Spanned<String>, source: &Source, found: &mut Vec<Diagnostic>) {
    let text = name.get_ref();
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(legal) {
        found.push(
            source
                .error("subject-name", name.span(), format!("\"{text}\" is not a subject name"))
                .help("use up to 64 lower-case letters, digits, -, _ and ."),
        );
    } else if text.starts_with("guard-") {
        found.push(
            source
                .error("subject-name", name.span(), "names that begin with guard- belong to Guard")
                .help("choose another name"),
        );
    }
}

fn modes<'a>(
    manifest: &'a Manifest,
    source: &Source,
    found: &mut Vec<Diagnostic>,
) -> impl Fn(&str) -> Mode + 'a {
    for (name, mode) in &manifest.modes {
        if name.get_ref() != "default" && !manifest.subjects.contains_key(name) {
            found.push(
                source
                    .error(
                        "unknown-subject",
                        name.span(),
                        format!("[modes] names {}, which is not a subject", name.get_ref()),
                    )
                    .help("add [subjects.NAME] or remove the line"),
            );
        }
        if !matches!(mode.get_ref().as_str(), "enforce" | "monitor") {
            found.push(
                source
                    .error("mode", mode.span(), format!("there is no mode \"{}\"", mode.get_ref()))
                    .help("write \"enforce\" or \"monitor\""),
            );
        }
    }
    let get = |name: &str| {
        manifest.modes.iter().find(|(key, _)| key.get_ref() == name).map(|(_, mode)| mode.get_ref().as_str())
    };
    move |name| {
        if get(name).or(get("default")) == Some("monitor") { Mode::Monitor } else { Mode::Enforce }
    }
}

fn one(
    manifest: &Manifest,
    source: &Source,
    name: &Spanned<String>,
    subject: &Subject,
    mode: Mode,
    found: &mut Vec<Diagnostic>,
) -> Option<SubjectDefinition> {
    let governs = governs(source, name, subject, found)?;
    let (mut selectors, mut spans, mut adopt) = (Vec::new(), Vec::new(), Vec::new());
    for selector in [&subject.selector, &subject.also].into_iter().flatten() {
        let definition = selector.get_ref();
        if definition.start.as_deref().is_some_and(|start| start != "main") {
            found.push(
                source
                    .error("not-in-this-version", selector.span(), "start can only be \"main\" in this version")
                    .help("remove start; every process of the unit but the service manager's own helper is labelled"),
            );
        }
        for text in &definition.adopt {
            match Adopter::parse(text) {
                Some(adopter) => adopt.push(adopter),
                None => found.push(
                    source
                        .error("adopt", selector.span(), format!("\"{text}\" is neither a user nor a group"))
                        .help("write \"user:NAME\" or \"group:NAME\""),
                ),
            }
        }
        selectors.push(definition.clone());
        spans.push(selector.span());
    }
    if !selectors.iter().any(SelectorDefinition::attaches) {
        no_selector(manifest, source, name, found);
    }
    if let Some(span) = subject.hide.as_ref().map(Spanned::span) {
        let message = "not in this version: hide; what is denied answers EACCES";
        found.push(source.note("not-in-this-version", span, message));
    }
    let max_staleness = staleness(subject, source, found);
    let entered = subject.successors.iter().flat_map(|table| table.get_ref());
    let successors: Vec<SuccessorDefinition> = entered
        .filter_map(|(successor, how)| successors::read(manifest, source, (name, successor), how, found))
        .collect();
    let mut variables = BTreeMap::new();
    for (variable, written) in subject.session.iter().flat_map(|table| table.get_ref()) {
        if let Some(checked) = Variable::read(variable, written, source, found) {
            variables.insert(variable.get_ref().clone(), checked);
        }
    }
    if let Some(span) = subject.session.as_ref().map(Spanned::span).filter(|_| adopt.is_empty()) {
        let message = "nobody can open a session: the selector has no adopt";
        found.push(source.note("session", span, message));
    }
    if let Some(span) = subject.session.as_ref().map(Spanned::span).filter(|_| subject.root == Root::Own) {
        found.push(
            source
                .error(
                    "root",
                    span,
                    "session variables are paths of the host, and this subject has a root of its own",
                )
                .help("remove session, or root = \"own\""),
        );
    }
    Some(SubjectDefinition {
        name: name.get_ref().clone(),
        mode,
        root: subject.root,
        groups: subject.groups.iter().map(|group| group.get_ref().clone()).collect(),
        governs,
        max_staleness,
        fail_mode: subject.fail_mode.as_ref().map(|mode| *mode.get_ref()).unwrap_or_default(),
        unenforceable: subject.unenforceable.unwrap_or_default(),
        include: subject.include.iter().map(|include| include.get_ref().clone()).collect(),
        owner: subject.owner.clone(),
        adopt,
        variables,
        successors,
        span: name.span(),
        selectors,
        spans,
        include_spans: subject.include.iter().map(Spanned::span).collect(),
    })
}

fn governs(
    source: &Source,
    name: &Spanned<String>,
    subject: &Subject,
    found: &mut Vec<Diagnostic>,
) -> Option<u64> {
    let Some(list) = &subject.governs else {
        found.push(
            source
                .error("no-governs", name.span(), "governs is missing: which actions does this subject's policy decide?")
                .help("all: [\"*\"]; what a service usually needs: [\"exec.*\", \"net.*\", \"unix.*\", \"file.*\"]; programs and network only: [\"exec.*\", \"net.out\"]"),
        );
        return None;
    };
    let mut bits = 0;
    for item in list {
        match action::expand(item.get_ref()) {
            Some(more) => bits |= more,
            None => found.push(
                source
                    .error("unknown-action", item.span(), format!("there is no action or group \"{}\"", item.get_ref()))
                    .help("docs/actions.md lists them; groups are read mutate file.* exec.* net.out net.in net.* unix.* proc.* sys.* and *"),
            ),
        }
    }
    Some(bits & ALL_ACTIONS)
}

fn no_selector(manifest: &Manifest, source: &Source, name: &Spanned<String>, found: &mut Vec<Diagnostic>) {
    let entered = manifest
        .subjects
        .values()
        .flat_map(|subject| subject.successors.iter().flat_map(|table| table.get_ref().keys()))
        .any(|successor| successor == name);
    if !entered {
        found.push(source.error("no-selector", name.span(), "nothing attaches this label").help(
            "add `selector = { user = \"NAME\" }`, or group, unit, cgroup, container, exe, exe_in, adopt",
        ));
    }
}
