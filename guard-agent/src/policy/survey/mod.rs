//! A survey: every kind of resource that the literals of one or more bundles can tell apart, and
//! what each bundle decides there.
//!
//! The tables of a generation answer one request at a time. Tools that compare policies ask about
//! all requests at once, so they go through the regions that the literals of all bundles together
//! cut the world into, and within each through the combinations of names, ports and attributes that
//! the decisions depend on and that can exist. Nothing is sampled: two bundles decide alike if and
//! only if they do in every case of a survey.

mod area;
mod choice;
mod condition;
mod region;
mod text;
mod wider;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use guard_common::class::UNKNOWN;
use guard_common::decide::Tables;
use guard_common::tables::{Masks, Net4, Net6, OWN};

pub use area::{Area, Case, Holding, State, Verdict};
pub use choice::{About, Choice, Value};
pub use condition::{Condition, Membership, conditions};
pub use region::Where;

use area::{Held, Party};
use choice::Support;
use region::Region;

use super::bundle::Bundle;
use super::classes::{Classes, Sort, substitute};
use super::compile::{Compiled, compile_with};
use super::diagnostics::Diagnostics;
use super::formula::{Atom, AtomId, Atoms, Formula};
use super::ids::SubjectIds;
use super::literals::RESOLVERS;
use super::naming::Naming;
use super::network::{self, Range};
use super::outcome::Rule;
use super::subjects::Mode;
use super::trie::Trie;
use super::world::Facts;
use super::{layout, merge, rules};
use crate::host::Host;

/// One subject of one bundle, whose decisions are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The bundle, by its position.
    pub bundle: usize,
    /// The subject, by its position in the bundle.
    pub subject: usize,
}

/// One bundle of a survey.
struct View<'a> {
    bundle: &'a Bundle,
    rules: Vec<Vec<Rule>>,
    /// By position of the rules: nothing is denied, whatever they say.
    monitor: Vec<bool>,
    /// The tables, and the numbers of subjects in them, for what only they tell.
    tables: Option<(Compiled, SubjectIds)>,
}

/// The common refinement of what bundles can tell apart on one host under one set of facts.
pub struct Survey<'a> {
    naming: Naming<'a>,
    views: Vec<View<'a>>,
    atoms: Atoms,
    groups: Vec<AtomId>,
    classes: Classes,
    regions: Vec<Region>,
}

impl<'a> Survey<'a> {
    /// The survey of `bundles`, each of which must compile.
    ///
    /// # Errors
    /// The errors of the first bundle that does not.
    pub fn new(bundles: &[&'a Bundle], host: &'a Host, facts: &Facts) -> Result<Self, Diagnostics> {
        let mut atoms = Atoms::default();
        let mut views = Vec::new();
        let mut names: BTreeMap<String, Vec<Range>> = BTreeMap::new();
        for bundle in bundles {
            let mut ids = SubjectIds::default();
            let compiled = compile_with(bundle, host, facts, &mut ids)?;
            let rules = rules::translate_into(&mut atoms, bundle, host, facts, &mut Vec::new());
            let own = |rules: Vec<Arc<Rule>>| rules.into_iter().map(Arc::unwrap_or_clone).collect();
            let rules = rules.into_iter().map(own).collect();
            let rules = own_names(bundle, &mut names, &mut atoms, rules);
            let rules = own_subjects(bundle, &mut atoms, rules);
            let monitor = bundle.subjects.iter().map(|subject| subject.mode == Mode::Monitor).collect();
            views.push(View { bundle, rules, monitor, tables: Some((compiled, ids)) });
        }
        let all = views.iter().flat_map(|view| view.rules.iter().flatten());
        let groups = merge::representatives(&atoms, all.map(|rule| &rule.formula));
        for rule in views.iter_mut().flat_map(|view| view.rules.iter_mut().flatten()) {
            // What a survey asks for is decided under its facts.
            rule.formula = rule.formula.substitute(&|id| match atoms.get(id).condition() {
                Some(test) => Formula::Const(test.holds(facts)),
                None => Formula::Atom(groups[id as usize]),
            });
        }
        let naming = Naming::new(host);
        let mut trie = Trie::new();
        // What it finds was found by the compilation above.
        let mut classes = layout::paths(host, &naming.mounts, &atoms, &groups, &mut trie, &mut Vec::new());
        let (edges, nodes) = trie.finish(&mut classes, &[]);
        let (net4, net6) = addresses(host, &atoms, &names, &mut classes);
        let regions = region::all(&classes, &edges, &nodes, &net4, &net6);
        Ok(Self { naming, views, atoms, groups, classes, regions })
    }

    /// The areas of these subjects: every region and type of resource is part of exactly one.
    pub fn areas(&self, asked: &[Asked]) -> Vec<Area> {
        self.areas_of(asked, 0..self.regions.len())
    }

    /// Those that the regions with these numbers are part of, with no others in them.
    fn areas_of(&self, asked: &[Asked], numbers: std::ops::Range<usize>) -> Vec<Area> {
        let mut left = Remaining::new(self, asked);
        let mut areas: Vec<Area> = Vec::new();
        let mut known: HashMap<(usize, usize, u64, bool), usize> = HashMap::new();
        for number in numbers {
            let region = &self.regions[number];
            let sort = self.classes.list()[region.class as usize].sort;
            for kind in region.kinds(sort) {
                let residue = left.of(region, kind);
                let support = Support::new(&self.atoms, &self.groups, &left.list[residue].support);
                let (components, complete) = region.components();
                let fixed = match left.list[residue].support.len() {
                    0..=64 => support.path(&components, complete) | support.of_kind(kind),
                    _ => 0,
                };
                let key = (residue, kind as usize, fixed, complete);
                if let Some(area) = known.get(&key) {
                    areas[*area].regions.push(number);
                    continue;
                }
                known.insert(key, areas.len());
                let small = left.list[residue].support.len() <= 64;
                areas.push(Area {
                    regions: vec![number],
                    actions: kind.actions(),
                    choices: if small { support.choices(kind, !complete, fixed) } else { Vec::new() },
                    kind,
                    support: left.list[residue].support.clone(),
                    fixed,
                    parties: left.list[residue].parties.clone(),
                });
            }
        }
        areas
    }

    /// What a party decides where no table knows the file system.
    fn unclassified(&self, asked: Asked) -> Held {
        let view = &self.views[asked.bundle];
        // Without tables there is no region of this sort.
        let Some((compiled, ids)) = &view.tables else { return Held::Fixed(Verdict::default()) };
        let subject = &view.bundle.subjects[asked.subject];
        let generation = &compiled.generation;
        let row = ids.get(&subject.name).and_then(|id| generation.subject(id));
        let row = row.map(|row| generation.row(row)).unwrap_or_default();
        let outcome =
            generation.cell(row.cells + UNKNOWN).and_then(|cell| generation.outcome(row.outcomes + cell));
        let fixed = match outcome {
            None => Some(Masks::default()),
            // The facts of a survey have no end, so the first segment is the only one.
            Some(outcome) if outcome.features == 0 => {
                generation.masks.get((row.masks + outcome.base) as usize).copied()
            }
            Some(_) => None,
        };
        if let Some(masks) = fixed {
            let candidate = masks.allow & !masks.would_deny | masks.would_allow;
            return Held::Fixed(Verdict { through: masks.allow, candidate });
        }
        let mut sets: Vec<Rc<Vec<Rule>>> = Vec::new();
        for (number, info) in self.classes.list().iter().enumerate() {
            if !self.classes.is_compiled_path(number as u32) {
                continue;
            }
            let rules = Rc::new(residual(&self.atoms, info, &view.rules[asked.subject], None));
            let same = |a: &[Rule], b: &[Rule]| {
                a.len() == b.len()
                    && a.iter().zip(b).all(|(a, b)| a.policy == b.policy && a.formula == b.formula)
            };
            if !sets.iter().any(|known| same(known, &rules)) {
                sets.push(rules);
            }
        }
        Held::All(sets)
    }

    /// The name of a policy of a bundle, with the subject it is linked for.
    pub fn policy_id(&self, bundle: usize, number: usize) -> String {
        let bundle = self.views[bundle].bundle;
        match number.checked_sub(bundle.policies.len()).and_then(|at| bundle.linked.get(at)) {
            Some((policy, subject)) => format!("{}@{subject}", policy.id),
            None => bundle.policies.get(number).map_or_else(String::new, |policy| policy.id.clone()),
        }
    }
}

/// What rules say in a class: those that can still hold, for one type of resource or all.
fn residual(
    atoms: &Atoms,
    info: &super::classes::ClassInfo,
    rules: &[Rule],
    kind: Option<super::kind::Kind>,
) -> Vec<Rule> {
    rules
        .iter()
        .filter(|rule| info.sort.admits(rule.kind) && kind.is_none_or(|kind| kind == rule.kind))
        .map(|rule| Rule {
            formula: rule.formula.substitute(&|id| substitute(atoms, info, id)),
            ..rule.clone()
        })
        .filter(|rule| rule.formula != Formula::FALSE)
        .collect()
}

/// What is left of the parties' rules in one class.
struct Residue {
    parties: Vec<Party>,
    support: Vec<AtomId>,
}

/// Residues by what they depend on, so that a class that no rule names costs one look-up.
struct Remaining<'s, 'a> {
    survey: &'s Survey<'a>,
    asked: &'s [Asked],
    mentions: HashMap<AtomId, Vec<(usize, usize)>>,
    bare: HashMap<(Sort, usize), Vec<(usize, usize)>>,
    known: HashMap<(Sort, usize, Vec<AtomId>, bool), usize>,
    list: Vec<Residue>,
}

impl<'s, 'a> Remaining<'s, 'a> {
    fn new(survey: &'s Survey<'a>, asked: &'s [Asked]) -> Self {
        let mut mentions: HashMap<AtomId, Vec<(usize, usize)>> = HashMap::new();
        for (party, of) in asked.iter().enumerate() {
            for (number, rule) in survey.views[of.bundle].rules[of.subject].iter().enumerate() {
                rule.formula.for_each_atom(&mut |id| {
                    let list = mentions.entry(id).or_default();
                    if list.last() != Some(&(party, number)) {
                        list.push((party, number));
                    }
                });
            }
        }
        Self { survey, asked, mentions, bare: HashMap::new(), known: HashMap::new(), list: Vec::new() }
    }

    fn rules(&self, party: usize) -> &'s [Rule] {
        let of = self.asked[party];
        &self.survey.views[of.bundle].rules[of.subject]
    }

    /// The number of the residue in a region for one type of resource.
    fn of(&mut self, region: &Region, kind: super::kind::Kind) -> usize {
        let info = &self.survey.classes.list()[region.class as usize];
        let unclassified = region.spot == Where::Unclassified;
        let named: Vec<AtomId> =
            info.cover.iter().copied().filter(|id| self.mentions.contains_key(id)).collect();
        let key = (info.sort, kind as usize, named, unclassified);
        if let Some(number) = self.known.get(&key) {
            return *number;
        }
        let parties: Vec<Party> = (0..self.asked.len())
            .map(|party| {
                let of = self.asked[party];
                let monitor = self.survey.views[of.bundle].monitor[of.subject];
                let rules = if unclassified {
                    self.survey.unclassified(of)
                } else {
                    Held::Rules(Rc::new(self.relevant(party, info, kind, &key.2)))
                };
                Party { monitor, rules }
            })
            .collect();
        let mut support: Vec<AtomId> = Vec::new();
        let mut add = |rules: &[Rule]| {
            for rule in rules.iter().filter(|rule| rule.kind == kind) {
                rule.formula.for_each_atom(&mut |id| support.push(id));
            }
        };
        for party in &parties {
            match &party.rules {
                Held::Rules(rules) => add(rules),
                Held::All(sets) => sets.iter().for_each(|rules| add(rules)),
                Held::Fixed(_) => {}
            }
        }
        support.sort_unstable();
        support.dedup();
        self.list.push(Residue { parties, support });
        self.known.insert(key, self.list.len() - 1);
        self.list.len() - 1
    }

    /// The rules of a party that can hold in a class: those that hold without any literal, and those
    /// that name one of the class's.
    fn relevant(
        &mut self,
        party: usize,
        info: &super::classes::ClassInfo,
        kind: super::kind::Kind,
        named: &[AtomId],
    ) -> Vec<Rule> {
        let rules = self.rules(party);
        let atoms = &self.survey.atoms;
        if !self.bare.contains_key(&(info.sort, kind as usize)) {
            let bare = super::classes::ClassInfo { sort: info.sort, cover: Vec::new().into() };
            let asked = 0..self.asked.len();
            let held = asked.flat_map(|party| {
                let rules = self.rules(party).iter().enumerate();
                let bare = bare.clone();
                rules
                    .filter(move |(_, rule)| {
                        rule.kind == kind
                            && rule.formula.substitute(&|id| substitute(atoms, &bare, id)) != Formula::FALSE
                    })
                    .map(move |(number, _)| (party, number))
            });
            let held = held.collect();
            self.bare.insert((info.sort, kind as usize), held);
        }
        let mut numbers: Vec<usize> = self.bare[&(info.sort, kind as usize)]
            .iter()
            .chain(named.iter().flat_map(|id| &self.mentions[id]))
            .filter(|(of, _)| *of == party)
            .map(|(_, number)| *number)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        let rules: Vec<Rule> = numbers.into_iter().map(|number| rules[number].clone()).collect();
        residual(atoms, info, &rules, Some(kind))
    }
}

/// Puts the name of the subject for "the subject that asks": what is compared may be of several subjects.
fn own_subjects(bundle: &Bundle, atoms: &mut Atoms, mut rules: Vec<Vec<Rule>>) -> Vec<Vec<Rule>> {
    let own: Vec<(AtomId, u32)> = atoms
        .iter()
        .filter_map(|(id, atom, _)| match atom {
            Atom::Attribute(attribute, OWN) => Some((id, *attribute)),
            _ => None,
        })
        .collect();
    if own.is_empty() {
        return rules;
    }
    for (subject, rules) in bundle.subjects.iter().zip(&mut rules) {
        let mention = || super::diagnostics::Diagnostic::note("survey", "");
        let named: HashMap<AtomId, AtomId> = own
            .iter()
            .map(|(id, attribute)| {
                (*id, atoms.intern(Atom::IsSubject(*attribute, subject.name.clone()), mention))
            })
            .collect();
        for rule in rules {
            rule.formula =
                rule.formula.substitute(&|id| Formula::Atom(named.get(&id).copied().unwrap_or(id)));
        }
    }
    rules
}

/// Gives a `DnsName` that means other addresses than in the bundles before a literal of its own.
fn own_names(
    bundle: &Bundle,
    names: &mut BTreeMap<String, Vec<Range>>,
    atoms: &mut Atoms,
    mut rules: Vec<Vec<Rule>>,
) -> Vec<Vec<Rule>> {
    let used: Vec<(AtomId, String)> = atoms
        .iter()
        .filter_map(|(id, atom, _)| match atom {
            Atom::Dns(name) => Some((id, name.clone())),
            _ => None,
        })
        .collect();
    let mut renamed: HashMap<AtomId, AtomId> = HashMap::new();
    for (id, name) in used {
        let ranges = bundle.names.get(&name).cloned().unwrap_or_default();
        match names.get(&name) {
            None => {
                names.insert(name, ranges);
            }
            Some(known) if *known == ranges => {}
            Some(_) => {
                // No name that a policy writes ends like this.
                let other = format!("{name}\0{}", bundle.digest);
                let mention = || super::diagnostics::Diagnostic::note("survey", "");
                renamed.insert(id, atoms.intern(Atom::Dns(other.clone()), mention));
                names.insert(other, ranges);
            }
        }
    }
    for rule in rules.iter_mut().flatten() {
        rule.formula = rule.formula.substitute(&|id| Formula::Atom(renamed.get(&id).copied().unwrap_or(id)));
    }
    rules
}

fn addresses(
    host: &Host,
    atoms: &Atoms,
    names: &BTreeMap<String, Vec<Range>>,
    classes: &mut Classes,
) -> (Vec<Net4>, Vec<Net6>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (id, atom, _) in atoms.iter() {
        let ranges: Vec<Range> = match atom {
            Atom::Net(text) if text == RESOLVERS => {
                host.resolvers.iter().map(|address| network::single(*address)).collect()
            }
            Atom::Net(text) => network::parse(text).into_iter().collect(),
            Atom::Dns(name) => names.get(name).cloned().unwrap_or_default(),
            _ => continue,
        };
        for range in ranges {
            match range {
                Range::V4(first, last) => v4.push((first.into(), last.into(), id)),
                Range::V6(first, last) => v6.push((first, last, id)),
            }
        }
    }
    layout::tables(&v4, &v6, classes)
}

impl Survey<'_> {
    /// Bits of the actions that are decided by tables.
    pub fn actions(&self) -> u64 {
        super::kind::Kind::ALL.into_iter().fold(0, |all, kind| all | kind.actions())
    }

    /// Where the region with this number lies.
    pub fn region(&self, number: usize) -> &Where {
        &self.regions[number].spot
    }
}

#[cfg(test)]
impl Survey<'_> {
    /// The bits of an area's support that hold for a path, or for what has none.
    pub(crate) fn bits_of_path(
        &self,
        area: &Area,
        path: Option<&std::path::Path>,
        attributes: &guard_common::tables::Attributes,
    ) -> u64 {
        let support = Support::new(&self.atoms, &self.groups, &area.support);
        let components: Option<Vec<&[u8]>> = path.map(|path| super::trie::names(path).collect());
        let bits = components.map_or(0, |components| support.path(&components, true));
        bits | support.of_attributes(attributes)
    }

    /// The bits of an area's support that hold for a port and protocol.
    pub(crate) fn bits_of_endpoint(
        &self,
        area: &Area,
        port: u16,
        attributes: &guard_common::tables::Attributes,
    ) -> u64 {
        let support = Support::new(&self.atoms, &self.groups, &area.support);
        support.of_port(port) | support.of_attributes(attributes)
    }
}
