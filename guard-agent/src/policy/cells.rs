//! Cells: the outcome of every (subject, class).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use guard_common::action::Action;
use guard_common::class::{self, OWN_ANONYMOUS, STDIO};
use guard_common::tables::{ALL_ACTIONS, MAX_OUTCOME_FEATURES, MAX_OUTCOMES, Outcome};

use super::classes::{ClassInfo, Classes, Sort, substitute};
use super::features::Features;
use super::formula::{AtomId, Atoms, Formula};
use super::kind::Kind;
use super::outcome::{Pool, Rule, Table, TooLarge, Unclassified};

/// What all subjects share while their cells are computed.
pub(super) struct Cells<'a> {
    pub(super) classes: &'a Classes,
    pub(super) atoms: &'a Atoms,
    pub(super) features: &'a Features,
}

/// The tables of one subject. Nothing in them depends on posture.
#[derive(Debug)]
pub(super) struct SubjectCells {
    /// Outcome numbers, by class.
    pub(super) cells: Vec<u16>,
    /// Outcomes: one for each group of classes that the subject's policies cannot tell apart.
    pub(super) outcomes: Vec<Outcome>,
    /// The truth tables, in the order of their rows.
    pub(super) tables: Vec<Arc<Table>>,
    /// What is allowed on a file system that is not classified; its rows come last.
    pub(super) unknown: Unclassified,
    /// Mask rows per segment.
    pub(super) rows: u32,
}

impl SubjectCells {
    /// Nothing is allowed, with `classes` classes, but to read and write what a process was started with and its
    /// pipes.
    pub(super) fn deny(classes: usize) -> Self {
        let held = Action::FileRead.bit() | Action::FileWrite.bit() | Action::FileAppend.bit();
        let mut cells = vec![0; classes];
        for class in [OWN_ANONYMOUS, STDIO] {
            if let Some(cell) = cells.get_mut(class as usize) {
                *cell = 1;
            }
        }
        Self {
            cells,
            outcomes: vec![Outcome::default(), Outcome { base: 1, ..Outcome::default() }],
            tables: vec![Arc::new(Table::deny()), Arc::new(Table::always(held))],
            unknown: Unclassified::nothing(),
            rows: 3,
        }
    }

    /// Everything is allowed, with `classes` classes, but what could take Guard out of the kernel.
    pub(super) fn free(classes: usize) -> Self {
        let mut cells = vec![0; classes];
        if let Some(cell) = cells.get_mut(class::KERNEL as usize) {
            *cell = 1;
        }
        Self {
            cells,
            outcomes: vec![Outcome::default(), Outcome { base: 1, ..Outcome::default() }],
            tables: vec![Arc::new(Table::always(ALL_ACTIONS)), Arc::new(Table::deny())],
            unknown: Unclassified::nothing(),
            rows: 3,
        }
    }

    /// Makes room for a table and returns the outcome that decides by it.
    fn outcome(base: u32, features: &[u8]) -> Outcome {
        let mut selected = [0; MAX_OUTCOME_FEATURES + 1];
        selected[..features.len()].copy_from_slice(features);
        Outcome { base, features: features.len() as u8, selected }
    }
}

/// Rules of all subjects together from which on threads are worth their start.
const MANY_RULES: usize = 2000;

impl Cells<'_> {
    /// The tables of all subjects, by position in the bundle.
    pub(super) fn all(&self, rules: &[Vec<Arc<Rule>>]) -> Vec<Result<SubjectCells, TooLarge>> {
        let some = |rules: &[Vec<Arc<Rule>>]| -> Vec<_> {
            let mut pool = Pool::default();
            rules.iter().map(|rules| self.subject(rules, &mut pool)).collect()
        };
        let many = rules.iter().map(Vec::len).sum::<usize>() >= MANY_RULES;
        let workers = if many { thread::available_parallelism().map_or(1, usize::from) } else { 1 };
        if workers == 1 {
            return some(rules);
        }
        thread::scope(|scope| {
            let running: Vec<_> = rules
                .chunks(rules.len().div_ceil(workers))
                .map(|part| {
                    let thread = thread::Builder::new().spawn_scoped(scope, move || some(part));
                    // Without a thread it is done here.
                    thread.map_err(|_| part)
                })
                .collect();
            running
                .into_iter()
                .flat_map(|running| match running {
                    Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                    Err(part) => some(part),
                })
                .collect()
        })
    }

    /// The tables of one subject.
    ///
    /// Most rules name one literal and are false everywhere else. So the rules that remain without
    /// any literal are found once, and for each class only those that name one of its literals are
    /// looked at again; where these say the same of their literals as in another class, not even those.
    fn subject(&self, rules: &[Arc<Rule>], pool: &mut Pool<Table>) -> Result<SubjectCells, TooLarge> {
        let mentions = Mentions::new(rules, self.atoms);
        let mut base: HashMap<Sort, Vec<usize>> = HashMap::new();
        let mut known: HashMap<(Sort, Vec<AtomId>), u16> = HashMap::new();
        let mut alike: HashMap<(Sort, Vec<AtomId>, Vec<u32>), Arc<Table>> = HashMap::new();
        let mut of_table: HashMap<Arc<Table>, u16> = HashMap::new();
        let mut bases: HashMap<Arc<Table>, u32> = HashMap::new();
        let mut built = SubjectCells {
            cells: Vec::with_capacity(self.classes.list().len()),
            outcomes: Vec::new(),
            tables: Vec::new(),
            unknown: Unclassified::nothing(),
            rows: 0,
        };
        // By outcome number.
        let mut decided: Vec<Arc<Table>> = Vec::new();
        for info in self.classes.list() {
            let named: Vec<AtomId> =
                info.cover.iter().copied().filter(|id| !mentions.of(*id).is_empty()).collect();
            let key = (info.sort, named);
            if let Some(number) = known.get(&key) {
                built.cells.push(*number);
                continue;
            }
            let effect =
                mentions.effect(&key.1, self.atoms).map(|(names, effects)| (info.sort, names, effects));
            let table = match effect.as_ref().and_then(|effect| alike.get(effect)) {
                Some(table) => table.clone(),
                None => {
                    let always =
                        base.entry(info.sort).or_insert_with(|| self.without_literals(rules, info.sort));
                    let mut relevant: BTreeSet<usize> = always.iter().copied().collect();
                    relevant.extend(key.1.iter().flat_map(|id| mentions.of(*id)).map(|rule| *rule as usize));
                    let relevant = relevant.iter().map(|number| &*rules[*number]);
                    let table = pool.intern(Table::of(relevant, info, self.atoms, self.features)?);
                    alike.extend(effect.map(|effect| (effect, table.clone())));
                    table
                }
            };
            let at = match bases.get(&table) {
                Some(at) => *at,
                None => {
                    let at = built.rows;
                    built.rows += table.rows() as u32;
                    built.tables.push(table.clone());
                    bases.insert(table.clone(), at);
                    at
                }
            };
            // A subject with more groups than a cell can number shares outcomes between equal tables:
            // it is decided the same, and what it used is told less finely.
            let number = match of_table.get(&table) {
                Some(number) if built.outcomes.len() >= MAX_OUTCOMES / 2 => *number,
                _ if built.outcomes.len() + 1 >= MAX_OUTCOMES => return Err(TooLarge::Outcomes),
                _ => {
                    let number = built.outcomes.len() as u16;
                    built.outcomes.push(SubjectCells::outcome(at, &table.features));
                    of_table.insert(table.clone(), number);
                    decided.push(table);
                    number
                }
            };
            known.insert(key, number);
            built.cells.push(number);
        }
        let paths: BTreeSet<u16> = built
            .cells
            .iter()
            .enumerate()
            .filter(|(class, _)| self.classes.is_compiled_path(*class as u32))
            .map(|(_, number)| *number)
            .collect();
        let mut distinct: Vec<Arc<Table>> = Vec::new();
        let mut seen = HashSet::new();
        distinct.extend(
            paths
                .into_iter()
                .map(|number| decided[usize::from(number)].clone())
                .filter(|table| seen.insert(Arc::as_ptr(table))),
        );
        built.unknown = Unclassified::new(distinct, rules.iter().any(|rule| rule.shadow))?;
        built.cells[class::UNKNOWN as usize] = built.outcomes.len() as u16;
        built.outcomes.push(SubjectCells::outcome(built.rows, &built.unknown.features));
        built.rows += built.unknown.rows() as u32;
        Ok(built)
    }

    /// The rules that can be true of a resource that no literal covers.
    fn without_literals(&self, rules: &[Arc<Rule>], sort: Sort) -> Vec<usize> {
        let bare = ClassInfo { sort, cover: Vec::new().into() };
        (0..rules.len())
            .filter(|number| {
                let rule = &rules[*number];
                sort.admits(rule.kind)
                    && rule.formula.substitute(&|id| substitute(self.atoms, &bare, id)) != Formula::FALSE
            })
            .collect()
    }
}

/// Which rules mention which atoms, and what they say of a literal.
struct Mentions {
    /// Rules, by atom.
    rules: Vec<Vec<u32>>,
    /// By rule: a number for what it says where its one literal covers, and where not. Nothing for rules
    /// with several literals.
    effects: Vec<Option<u32>>,
}

/// What a rule says, whichever its literal is.
type Effect = (Kind, [u64; 2], [bool; 5], Formula, Formula);

impl Mentions {
    fn new(rules: &[Arc<Rule>], atoms: &Atoms) -> Self {
        let mut this =
            Self { rules: vec![Vec::new(); atoms.iter().count()], effects: Vec::with_capacity(rules.len()) };
        let mut numbers: HashMap<Effect, u32> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let (mut literal, mut several) = (None, false);
            rule.formula.for_each_atom(&mut |id| {
                let list = &mut this.rules[id as usize];
                if list.last() != Some(&(number as u32)) {
                    list.push(number as u32);
                }
                if atoms.get(id).is_place() {
                    several |= literal.is_some_and(|known| known != id);
                    literal = Some(id);
                }
            });
            this.effects.push(literal.filter(|_| !several).map(|literal| {
                let with = |value| {
                    rule.formula.substitute(&|id| {
                        if id == literal { Formula::Const(value) } else { Formula::Atom(id) }
                    })
                };
                let flags = [rule.permit, rule.enforced, rule.candidate, rule.shadow, rule.audit];
                let next = numbers.len() as u32;
                *numbers
                    .entry((rule.kind, [rule.actions, rule.quiet], flags, with(true), with(false)))
                    .or_insert(next)
            }));
        }
        this
    }

    fn of(&self, atom: AtomId) -> &[u32] {
        &self.rules[atom as usize]
    }

    /// What makes a class with these atoms differ from a class without any: names at any depth, and
    /// what the rules about its literals say, each as often as it is said. Classes that do not differ in
    /// it have equal tables. Nothing if some rule has several literals.
    fn effect(&self, named: &[AtomId], atoms: &Atoms) -> Option<(Vec<AtomId>, Vec<u32>)> {
        let (literals, names): (Vec<AtomId>, Vec<AtomId>) =
            named.iter().partition(|id| atoms.get(**id).is_place());
        let effects = literals.iter().flat_map(|id| self.of(*id)).map(|rule| self.effects[*rule as usize]);
        let mut effects = effects.collect::<Option<Vec<u32>>>()?;
        effects.sort_unstable();
        Some((names, effects))
    }
}
