//! From a bundle to the tables of one generation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use guard_common::action::{self, Action, Coverage};
use guard_common::class::Class;
use guard_common::label::CANARY_SUBJECT;
use guard_common::path::{EdgeKey, Node, OWN_ROOT};
use guard_common::tables::{
    DEVICE_PATHS, HAS_CONTAINERS, HAS_EXEC_SELECTORS, HAS_NAMES, HAS_OWN_ROOTS, Header, MAX_OUTCOME_FEATURES,
    MAX_OUTCOMES, Net4, Net6,
};

use super::bundle::Bundle;
use super::cells::{Cells, SubjectCells};
use super::classes::Classes;
use super::condition::Test;
use super::diagnostics::{Diagnostic, Diagnostics, Severity};
use super::explanations::{Deciding, Explanations};
use super::features::Features;
use super::formula::{AtomId, Formula};
use super::gate::Gate;
use super::ids::SubjectIds;
use super::layout;
use super::lifts::Lifts;
use super::manifest::Unenforceable;
use super::merge;
use super::outcome::TooLarge;
use super::places::Mounts;
use super::posture::{Instant, Posture, Program};
use super::rules;
use super::seats::Seat;
use super::selectors;
use super::shadow;
use super::signers;
use super::subjects::{CANARY, Mode, SubjectDefinition};
use super::successors::{self, Begin, ExecSuccessor};
use super::trie::Trie;
use super::walk::Walker;
use super::world::Facts;
use crate::host::{Answers, Asked, Host};
use crate::tables::{Generation, Selector, SubjectOutcomes, SubjectTables};

/// A compiled bundle.
#[derive(Debug)]
pub struct Compiled {
    /// The tables. `header.generation` is set when they are loaded.
    pub generation: Generation,
    /// What the numbers in them mean.
    pub names: Names,
    /// Warnings and notes: unknown accounts, resolved symbolic links, what nothing decides yet.
    pub notes: Vec<Diagnostic>,
    /// Executable selectors, for labelling processes that already run.
    pub exec_selectors: Vec<ExecSelector>,
    /// Successors that begin with a file, for processes that already run it.
    pub exec_successors: Vec<ExecSuccessor>,
    /// How large the tables are.
    pub sizes: TableSizes,
    /// What the host was asked for it: the tables are right as long as the answers are.
    pub answers: Answers,
    /// The keys that policies ask for, or any key at all, and the feature of each.
    pub signers: Vec<(Option<String>, u8)>,
    /// How the masks of each subject follow from posture.
    programs: BTreeMap<u32, Program>,
    pub(super) explanations: Arc<Explanations>,
}

impl Compiled {
    /// What `posture` makes of a subject from `now` on, an instant of CLOCK_BOOTTIME. Nothing for a
    /// number that the bundle has no subject for.
    ///
    /// The static tables do not depend on posture, so these outcomes can replace those of the same
    /// subject in the same generation, and nothing else changes.
    pub fn outcomes(&self, subject: u32, posture: &Posture, now: Instant) -> Option<SubjectOutcomes> {
        self.programs.get(&subject).map(|program| program.outcomes(posture, now))
    }

    /// Whether what a row decides depends on anything that posture can change.
    pub fn asks_for_posture(&self, row: u32) -> bool {
        self.programs.get(&row).is_some_and(|program| !program.tests.is_empty())
    }

    /// Whether what a row decides depends on a lease.
    pub fn asks_for_lease(&self, row: u32, lease: &str) -> bool {
        let tests = self.programs.get(&row).map(|program| program.tests.values());
        tests.is_some_and(|mut tests| tests.any(|test| matches!(test, Test::Lease(name) if name == lease)))
    }

    /// What it takes to say which lease would lift a denial.
    pub fn lifts(&self) -> Lifts {
        Lifts::new(
            Arc::clone(&self.explanations),
            self.programs.iter().map(|(row, program)| (*row, &program.tests)),
        )
    }

    /// Whether these tables have a row with this number, a subject's or a session's.
    pub fn has_row(&self, row: u32) -> bool {
        self.programs.contains_key(&row)
    }

    /// Which policies decide whether `subject` may do `action` with a resource of `class` with these
    /// features, as `posture` is at `now`. Class and features are those of this generation, as its
    /// events report them. Nothing for a subject or class that it does not have.
    pub fn deciding(
        &self,
        subject: u32,
        (class, features): (Class, u64),
        action: Action,
        posture: &Posture,
        now: Instant,
    ) -> Option<Deciding> {
        self.explanations.deciding(subject, class, features, action, &posture.facts_at(now))
    }
}

/// A subject that an executable attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSelector {
    /// The executable, or the directory above it, with every symbolic link resolved.
    pub path: PathBuf,
    /// Whether `path` is a directory whose executables at any depth are meant.
    pub below: bool,
    /// The subject.
    pub subject: u32,
}

/// What numbers in a generation mean.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Subject number → name.
    pub subjects: BTreeMap<u32, String>,
    /// Class → what falls into it, for people.
    pub classes: Vec<String>,
}

/// Entries per table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TableSizes {
    /// Subjects of the bundle.
    pub subjects: usize,
    /// Classes.
    pub classes: usize,
    /// Cells.
    pub cells: usize,
    /// Outcomes.
    pub outcomes: usize,
    /// Mask rows.
    pub masks: usize,
    /// Trie edges.
    pub edges: usize,
    /// Trie nodes.
    pub nodes: usize,
    /// IPv4 ranges.
    pub net4: usize,
    /// IPv6 ranges.
    pub net6: usize,
    /// Port ranges.
    pub ports: usize,
    /// Attribute tests.
    pub attributes: usize,
    /// Name patterns.
    pub patterns: usize,
    /// Feature bits.
    pub features: usize,
}

/// What the subjects of a bundle share, before their cells.
pub(super) struct Front {
    pub(super) rules: rules::Rules,
    pub(super) features: Features,
    pub(super) classes: Classes,
    /// By atom: the one that stands for it.
    groups: Vec<AtomId>,
    /// Atoms that the bundle itself mentions; those behind them are the shadow's.
    own: AtomId,
    edges: Vec<(EdgeKey, u32)>,
    nodes: Vec<Node>,
    net4: Vec<Net4>,
    net6: Vec<Net6>,
    selected: selectors::Selected,
    /// Files with which successors begin.
    begins: Vec<Begin>,
    /// Warnings and notes so far.
    found: Vec<Diagnostic>,
}

/// Translates the policies and finds out which literals cover which places and addresses.
pub(super) fn front(
    bundle: &Bundle,
    (shadow, seats): (Option<&Bundle>, &[Seat]),
    host: &Host,
    mounts: &Mounts<'_>,
    facts: &Facts,
    ids: &mut SubjectIds,
) -> Result<Front, Diagnostics> {
    let mut found = Vec::new();
    for subject in &bundle.subjects {
        ids.assign(&subject.name);
    }
    let mut rules = rules::translate(bundle, seats, host, facts, &mut found);
    let own = rules.atoms.iter().count() as AtomId;
    let names = shadow.map(|shadow| shadow::add(&mut rules, bundle, shadow, seats, host, facts, &mut found));
    let formulas = rules.by_subject.iter().chain(&rules.by_seat).flatten().map(|rule| &rule.formula);
    let groups = merge::representatives(&rules.atoms, formulas);
    if groups.iter().enumerate().any(|(id, group)| id != *group as usize) {
        rules.map_formulas(|formula| formula.substitute(&|id| Formula::Atom(groups[id as usize])));
    }
    let features = Features::assign(&rules.atoms, &groups, ids, &mut found);
    let mut trie = Trie::new();
    if bundle.subjects.iter().any(SubjectDefinition::has_own_root) {
        trie.root(OWN_ROOT);
        layout::protect(bundle, host, mounts, &mut trie);
    }
    let mut classes = layout::paths(host, mounts, &rules.atoms, &groups, &mut trie, &mut found);
    let selected = selectors::compile(bundle, host, mounts, ids, &mut trie, &mut found);
    let begins = successors::places(bundle, host, mounts, ids, &mut trie, &mut found);
    let (edges, nodes) = trie.finish(&mut classes, &features.names);
    let (net4, net6) = layout::addresses(
        names.as_ref().unwrap_or(&bundle.names),
        host,
        &rules.atoms,
        &mut classes,
        &mut found,
    );
    let mut found = refuse_if_errors(found)?;
    if let Some(shadow) =
        shadow.filter(|shadow| !shadow.origin().is_empty() && shadow.origin() != bundle.origin())
    {
        // What is to be said of the shadow was said when it was compiled by itself.
        let theirs = |note: &Diagnostic| {
            note.place.as_ref().is_some_and(|place| place.file.starts_with(shadow.origin()))
        };
        found.retain(|note| !theirs(note));
    }
    Ok(Front { rules, features, classes, groups, own, edges, nodes, net4, net6, selected, begins, found })
}

/// Compiles `bundle` for `host` without facts, leases and open windows.
pub fn compile(bundle: &Bundle, host: &Host, ids: &mut SubjectIds) -> Result<Compiled, Diagnostics> {
    compile_with(bundle, host, &Facts::default(), ids)
}

/// Compiles `bundle` for `host`, with the outcomes that `facts` make while they last.
pub fn compile_with(
    bundle: &Bundle,
    host: &Host,
    facts: &Facts,
    ids: &mut SubjectIds,
) -> Result<Compiled, Diagnostics> {
    compile_beside(bundle, None, host, facts, ids)
}

/// The same with a shadow: the masks also say which verdicts would be others if `shadow` were live.
/// Everything else is decided as without it.
///
/// Where both compile by themselves and not together, their literals together exceed a limit of the
/// tables.
pub fn compile_beside(
    bundle: &Bundle,
    shadow: Option<&Bundle>,
    host: &Host,
    facts: &Facts,
    ids: &mut SubjectIds,
) -> Result<Compiled, Diagnostics> {
    compile_seated(bundle, (shadow, &[]), host, facts, ids)
}

/// The same with sessions that have variables. One whose subject the bundle does not have has no row:
/// everything is denied to it, as to its subject.
pub fn compile_seated(
    bundle: &Bundle,
    (shadow, seats): (Option<&Bundle>, &[Seat]),
    host: &Host,
    facts: &Facts,
    ids: &mut SubjectIds,
) -> Result<Compiled, Diagnostics> {
    let known = |seat: &&Seat| bundle.subjects.iter().any(|subject| subject.name == seat.subject);
    let seats: Vec<Seat> = seats.iter().filter(known).cloned().collect();
    let asked = Arc::new(Asked::new(host));
    let host = &Host {
        mounts: host.mounts.clone(),
        resolvers: host.resolvers.clone(),
        protected: host.protected.clone(),
        undecided: host.undecided,
        artifacts: Arc::clone(&host.artifacts),
        lookup: Arc::<Asked>::clone(&asked),
    };
    let mounts = Mounts::new(&host.mounts);
    let Front {
        rules,
        features,
        classes,
        groups,
        own,
        edges,
        nodes,
        net4,
        net6,
        selected,
        begins,
        mut found,
    } = front(bundle, (shadow, &seats), host, &mounts, facts, ids)?;

    let cells = Cells { classes: &classes, atoms: &rules.atoms, features: &features };
    let posture = Posture::of(facts);
    let mut generation = Generation::default();
    let mut programs = BTreeMap::new();
    let mut add = |id, modes, built: SubjectCells| {
        let tables = SubjectTables { cells: &built.cells, outcomes: &built.outcomes, rows: built.rows };
        let program = Program::new(modes, built.tables.clone(), built.unknown.clone(), &rules.atoms);
        generation.add(id, &tables, &program.outcomes(&posture, Instant::MIN));
        programs.insert(id, program);
    };
    let mut own_roots = Vec::new();
    add(CANARY_SUBJECT, (Mode::Enforce, None), SubjectCells::deny(classes.list().len()));
    for (subject, built) in bundle.subjects.iter().zip(cells.all(&rules.by_subject)) {
        match built {
            Ok(built) => {
                let modes = (subject.mode, shadow::mode(shadow, &subject.name));
                let id = ids.assign(&subject.name);
                add(id, modes, built);
                if subject.has_own_root() {
                    own_roots.push(id);
                }
            }
            Err(error) => found.push(too_large(bundle, shadow, &subject.name, &error)),
        }
    }
    for (seat, built) in seats.iter().zip(cells.all(&rules.by_seat)) {
        let subject = bundle.subjects.iter().find(|subject| subject.name == seat.subject);
        match (built, subject) {
            (Ok(built), Some(subject)) => {
                add(seat.row, (subject.mode, shadow::mode(shadow, &subject.name)), built);
            }
            (Err(error), _) => found.push(too_large(bundle, shadow, &seat.subject, &error)),
            (Ok(_), None) => {}
        }
    }
    for id in &own_roots {
        generation.has_own_root(*id);
    }
    for seat in &seats {
        generation.belongs(seat.row, seat.session);
    }
    generation.finish(features.of_signers());
    generation.signers = signers::table(bundle, shadow, host, &features, &mut found);
    coverage(bundle, host, &mut found);
    found.extend(Gate::new(bundle).err().iter().flat_map(|errors| errors.iter().cloned()));
    found.extend(shadow.into_iter().flat_map(|shadow| other_roots(bundle, shadow)));
    let mut notes = refuse_if_errors(found)?;
    // Errors first, then warnings and notes; within each in the order of the bundle.
    notes.sort_by_key(|note| note.severity);

    let flags = if features.names.is_empty() { 0 } else { HAS_NAMES }
        | if selected.exec.is_empty() { 0 } else { HAS_EXEC_SELECTORS }
        | if own_roots.is_empty() { 0 } else { HAS_OWN_ROOTS }
        | if selected.selectors.iter().any(|(one, _)| matches!(one, Selector::Podman(_))) {
            HAS_CONTAINERS
        } else {
            0
        };
    let header = Header {
        flags,
        classes: classes.list().len() as u32,
        net4: net4.len() as u32,
        net6: net6.len() as u32,
        ports: features.ports.len() as u32,
        attributes: features.attributes.len() as u32,
        patterns: features.patterns.len() as u32,
        signers: features.of_signers(),
        ..Header::default()
    };
    let mut generation = Generation {
        header,
        edges,
        nodes,
        net4,
        net6,
        ports: features.ports.clone(),
        attributes: features.attributes.clone(),
        patterns: features.patterns.clone(),
        selectors: selected.selectors,
        ..generation
    };
    let walker = Walker::new(&generation);
    let devices = DEVICE_PATHS.map(|path| {
        mounts.locate(Path::new(path)).map_or((0, 0), |place| walker.device(place.device, &place.path))
    });
    generation.header.devices = devices.map(|(class, _)| class);
    generation.header.device_features = devices.map(|(_, features)| features);
    let sizes = TableSizes {
        subjects: bundle.subjects.len(),
        classes: classes.list().len(),
        cells: generation.cells.len() * 4,
        outcomes: generation.outcomes.len(),
        masks: generation.masks.len(),
        edges: generation.edges.len(),
        nodes: generation.nodes.len(),
        net4: generation.net4.len(),
        net6: generation.net6.len(),
        ports: generation.ports.len(),
        attributes: generation.attributes.len(),
        patterns: generation.patterns.len(),
        features: features.count,
    };
    let mut subjects: BTreeMap<u32, String> =
        bundle.subjects.iter().map(|subject| (ids.assign(&subject.name), subject.name.clone())).collect();
    subjects.insert(CANARY_SUBJECT, CANARY.to_owned());
    let names = Names { subjects, classes: classes.describe_by(&rules.atoms, own) };
    if !features.signers.is_empty() {
        asked.artifacts(&host.artifacts);
    }
    let answers = asked.answers();
    let signers = features.signers.clone();
    let explanations = Explanations::new(bundle, &seats, (rules, groups), classes, features, ids);
    let compiled = Compiled {
        generation,
        names,
        notes,
        exec_selectors: selected.exec,
        exec_successors: begins.iter().map(Begin::running).collect(),
        sizes,
        answers,
        signers,
        programs,
        explanations: Arc::new(explanations),
    };
    refuse_if_errors(successors::check(bundle, host, &compiled, &begins, ids))?;
    Ok(compiled)
}

/// The same finding is made for every subject that a policy applies to; one is enough.
fn refuse_if_errors(found: Vec<Diagnostic>) -> Result<Vec<Diagnostic>, Diagnostics> {
    let mut unique: Vec<Diagnostic> = Vec::with_capacity(found.len());
    let mut seen = std::collections::HashSet::new();
    for diagnostic in found {
        let place = diagnostic.place.as_ref().map(|place| (place.file.clone(), place.line, place.column));
        if seen.insert((diagnostic.code, diagnostic.message.clone(), place)) {
            unique.push(diagnostic);
        }
    }
    if unique.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        unique.sort_by_key(|diagnostic| diagnostic.severity);
    }
    Diagnostics::refuse_if_errors(unique)
}

fn too_large(bundle: &Bundle, shadow: Option<&Bundle>, subject: &str, error: &TooLarge) -> Diagnostic {
    let (policy, count) = match error {
        TooLarge::Features { policy, count } => (*policy, *count),
        TooLarge::Outcomes => {
            let message =
                format!("what {subject} may do differs between more than {MAX_OUTCOMES} sets of resources");
            return Diagnostic::error("too-large", message)
                .help("split the subject, or name directories instead of files");
        }
    };
    let message = format!(
        "what {subject} may do with one resource depends on {count} names, patterns, ports and attributes at once; at most {MAX_OUTCOME_FEATURES} can be decided"
    );
    let help = "split the subject, or name directories and networks instead of patterns, names and ports";
    let theirs = shadow.into_iter().flat_map(rules::all_policies);
    match policy.and_then(|number| rules::all_policies(bundle).chain(theirs).nth(number)) {
        Some(policy) => policy.error("too-many-features", None, message).help(help),
        None => Diagnostic::error("too-many-features", message).help(help),
    }
}

/// The kernel finds a file by one root of a subject's, so a shadow cannot ask about the other.
fn other_roots(bundle: &Bundle, shadow: &Bundle) -> Vec<Diagnostic> {
    let same = |subject: &SubjectDefinition| {
        let other = shadow.subjects.iter().find(|other| other.name == subject.name);
        other.is_none_or(|other| other.root == subject.root)
    };
    let differ = bundle.subjects.iter().filter(|subject| !same(subject));
    differ
        .map(|subject| {
            Diagnostic::error("root", format!("the shadow gives {} another root", subject.name))
                .help("apply the bundle; what it would decide cannot be compared")
        })
        .collect()
}

/// Notes which governed actions nothing decides in this version, and says what follows from those that
/// this kernel has no hook for.
fn coverage(bundle: &Bundle, host: &Host, found: &mut Vec<Diagnostic>) {
    for subject in &bundle.subjects {
        let missing = subject.unenforceable(host.undecided);
        if missing != 0 {
            let names = crate::coverage::names(missing).join(" ");
            let said =
                format!("{}: this kernel has no hook for these governed actions: {names}", subject.name);
            found.push(match subject.unenforceable {
                Unenforceable::Accept => Diagnostic::warning("unenforceable", said),
                Unenforceable::Deny => Diagnostic::warning(
                    "unenforceable",
                    format!("{said}; all that it governs is denied, as its unenforceable = \"deny\" wants"),
                ),
                Unenforceable::Stop => Diagnostic::error("unenforceable", said).help(
                    "boot a kernel that has them, do not govern them, or write unenforceable = \"accept\" or \"deny\"",
                ),
            });
        }
        let open: Vec<_> = action::named()
            .filter(|row| row.coverage == Coverage::NotYet && subject.governs & row.action.bit() != 0)
            .map(|row| row.name)
            .collect();
        if !open.is_empty() {
            found.push(Diagnostic::note(
                "not-in-this-version",
                format!(
                    "{}: nothing decides these governed actions in this version: {}",
                    subject.name,
                    open.join(" ")
                ),
            ));
        }
    }
}
