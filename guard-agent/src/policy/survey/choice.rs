//! Choices: what can differ between two resources of one region, and which combinations exist.

use std::collections::BTreeSet;

use guard_common::action::Action;
use guard_common::path::{Pattern, name_words};
use guard_common::tables::{ALL_ACTIONS, Attribute, OWN, PRESENT};

use crate::policy::formula::{Atom, AtomId, Atoms};
use crate::policy::kind::Kind;
use crate::policy::literals::{file_kind, file_kind_name, protocol_name};

/// What a choice is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// Whether some component has one of these names.
    Component(Vec<String>),
    /// The last component.
    Last,
    /// The owner of the file.
    Owner,
    /// The kind of file.
    Kind,
    /// The set-user-id and set-group-id bits.
    SetId,
    /// Whether no name leads to the file.
    Fileless,
    /// The port.
    Port,
    /// The protocol.
    Protocol,
    /// The subject of a process.
    Subject,
    /// The subject that listens.
    Listener,
    /// What no name and no attribute decides, in words: a test of the context, a signer.
    Given(String),
}

/// One thing that resources of a region can differ in.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What it is about.
    pub about: About,
    /// The values it can have.
    pub values: Vec<Value>,
}

/// The text of the value "no label". No subject has this name.
pub(super) const UNLABELLED: &str = "(no label)";

/// One value of a choice.
#[derive(Clone, Debug)]
pub struct Value {
    /// In words, for a list: `443`, `tcp`, `*.pem`. Empty: none of the others.
    pub text: String,
    /// The first and last port.
    pub ports: Option<(u16, u16)>,
    /// The patterns that hold, of the last component.
    pub patterns: Vec<String>,
    /// The atoms that hold, as bits of the area's support.
    pub(super) bits: u64,
    /// The actions that such a resource can be asked for.
    pub(super) actions: u64,
}

impl Value {
    fn new(text: impl Into<String>, bits: u64) -> Self {
        Self { text: text.into(), ports: None, patterns: Vec::new(), bits, actions: ALL_ACTIONS }
    }
}

/// The atoms that decisions in an area depend on, with everything that shares their bit.
pub(super) struct Support<'a> {
    atoms: &'a Atoms,
    /// Bit → the atoms that set it.
    members: Vec<Vec<AtomId>>,
}

impl<'a> Support<'a> {
    /// `support` are representatives; `groups` says who is represented by whom.
    pub(super) fn new(atoms: &'a Atoms, groups: &[AtomId], support: &[AtomId]) -> Self {
        let mut members = vec![Vec::new(); support.len()];
        for (id, first) in groups.iter().enumerate() {
            if let Ok(bit) = support.binary_search(first) {
                members[bit].push(id as AtomId);
            }
        }
        Self { atoms, members }
    }

    fn each(&self) -> impl Iterator<Item = (usize, &'a Atom)> {
        let atoms = self.atoms;
        self.members
            .iter()
            .enumerate()
            .flat_map(move |(bit, members)| members.iter().map(move |id| (bit, atoms.get(*id))))
    }

    /// Bits that a name as the last component sets.
    fn last(&self, name: &[u8]) -> u64 {
        self.each().fold(0, |bits, (bit, atom)| match atom {
            Atom::Name(wanted) if wanted.as_bytes() == name => bits | 1 << bit,
            Atom::Pattern { .. } if matches(atom, name) => bits | 1 << bit,
            _ => bits,
        })
    }

    /// Bits that the components of a path set. `complete`: the last one is the last of the path.
    pub(super) fn path(&self, components: &[&[u8]], complete: bool) -> u64 {
        let named = self.each().fold(0, |bits, (bit, atom)| match atom {
            Atom::Name(name) if components.contains(&name.as_bytes()) => bits | 1 << bit,
            _ => bits,
        });
        // The kernel calls the root of a file system "/".
        if complete { named | self.last(components.last().copied().unwrap_or(b"/")) } else { named }
    }

    /// The choices that are open for a resource of this type. `open`: its path is not known.
    pub(super) fn choices(&self, kind: Kind, open: bool, fixed: u64) -> Vec<Choice> {
        let mut choices = Vec::new();
        if kind.has_path() && open {
            choices.extend(self.last_component());
            choices.extend(self.components(fixed));
        }
        match kind {
            Kind::File => {
                choices.extend(self.numbers(Attribute::Owner, About::Owner, |n| n.to_string()));
                choices.extend(self.file_kinds());
                choices.extend(self.flag(Attribute::SetId, About::SetId));
                choices.extend(self.flag(Attribute::Fileless, About::Fileless));
            }
            Kind::Dir => choices.extend(self.numbers(Attribute::Owner, About::Owner, |n| n.to_string())),
            Kind::Endpoint => {
                choices.extend(self.ports());
                choices.extend(self.numbers(Attribute::Protocol, About::Protocol, protocol_name));
                choices.extend(self.subjects(Attribute::Listener, About::Listener));
            }
            Kind::Unix => choices.extend(self.subjects(Attribute::Listener, About::Listener)),
            Kind::Process => choices.extend(self.subjects(Attribute::Subject, About::Subject)),
            Kind::Memory | Kind::Protocol | Kind::Capability | Kind::Machine => {}
        }
        if kind == Kind::File {
            choices.extend(self.signers());
        }
        choices.extend(self.given());
        choices.retain(|choice| choice.values.len() > 1);
        choices
    }

    /// Tests of the context, where these were left as they are: each may be true or not, whatever the
    /// others are.
    fn given(&self) -> impl Iterator<Item = Choice> {
        self.each().filter_map(|(bit, atom)| {
            let text = atom.condition()?.to_string();
            let values = vec![Value::new("", 0), Value::new(text.clone(), 1 << bit)];
            Some(Choice { about: About::Given(text), values })
        })
    }

    /// Whether a key, or one of several that are always asked for together, signed what is executed.
    fn signers(&self) -> impl Iterator<Item = Choice> {
        (0..self.members.len()).filter_map(|bit| {
            let signers = self.each().filter(|(of, _)| *of == bit).filter_map(|(_, atom)| match atom {
                Atom::SignedBy(Some(key)) => Some(format!("signed by {key}")),
                Atom::SignedBy(None) => Some("signed".to_owned()),
                _ => None,
            });
            let text = signers.collect::<Vec<String>>().join(" or ");
            let values = vec![Value::new("", 0), Value::new(text.clone(), 1 << bit)];
            (!text.is_empty()).then_some(Choice { about: About::Given(text), values })
        })
    }

    /// Bits that hold for every resource of this type.
    pub(super) fn of_kind(&self, kind: Kind) -> u64 {
        if kind != Kind::Dir {
            return 0;
        }
        self.attribute(Attribute::Kind).fold(0, |bits, (bit, value)| {
            if Some(value) == file_kind("directory") { bits | 1 << bit } else { bits }
        })
    }

    fn components(&self, fixed: u64) -> impl Iterator<Item = Choice> {
        (0..self.members.len()).filter(move |bit| fixed >> bit & 1 == 0).filter_map(|bit| {
            let names: Vec<String> = self
                .each()
                .filter_map(|(of, atom)| match atom {
                    Atom::Name(name) if of == bit => Some(name.clone()),
                    _ => None,
                })
                .collect();
            let values = vec![Value::new("", 0), Value::new(names.join(" or "), 1 << bit)];
            (!names.is_empty()).then_some(Choice { about: About::Component(names), values })
        })
    }

    /// One name for every set of patterns that some name matches.
    fn last_component(&self) -> Option<Choice> {
        let patterns: Vec<(usize, &Atom)> =
            self.each().filter(|(_, atom)| matches!(atom, Atom::Pattern { .. })).collect();
        if patterns.is_empty() {
            return None;
        }
        let of_patterns = patterns.iter().fold(0u64, |bits, (bit, _)| bits | 1 << bit);
        let mut seen = BTreeSet::new();
        let mut values = Vec::new();
        let names = candidates(&patterns);
        let literals = self.each().filter_map(|(_, atom)| match atom {
            Atom::Name(name) => Some(name.clone().into_bytes()),
            _ => None,
        });
        // A name that sets nothing but its own bit is the same as that name further up.
        for name in names.into_iter().chain(literals) {
            let bits = self.last(&name);
            if !seen.insert(bits & of_patterns) {
                continue;
            }
            let held = patterns.iter().filter(|(_, atom)| matches(atom, &name));
            let mut held: Vec<String> = held.map(|(_, atom)| pattern_text(atom)).collect();
            held.dedup();
            values.push(Value { patterns: held.clone(), ..Value::new(held.join(" and "), bits) });
        }
        Some(Choice { about: About::Last, values })
    }

    fn attribute(&self, attribute: Attribute) -> impl Iterator<Item = (usize, u64)> {
        self.each().filter_map(move |(bit, atom)| match atom {
            Atom::Attribute(of, value) if *of == attribute as u32 => Some((bit, *value)),
            _ => None,
        })
    }

    fn numbers(&self, attribute: Attribute, about: About, text: impl Fn(u64) -> String) -> Option<Choice> {
        let numbers: BTreeSet<u64> = self.attribute(attribute).map(|(_, value)| value).collect();
        let bits = |number: u64| {
            self.attribute(attribute)
                .filter(|(_, value)| *value == number)
                .fold(0, |all, (bit, _)| all | 1 << bit)
        };
        let mut values: Vec<Value> =
            numbers.iter().map(|number| Value::new(text(*number), bits(*number))).collect();
        values.push(Value::new("", 0));
        Some(Choice { about, values })
    }

    /// No label, one of the subjects that policies name, another one, or, where that was left as it is, the
    /// one that asks.
    fn subjects(&self, attribute: Attribute, about: About) -> Option<Choice> {
        let labelled = self
            .attribute(attribute)
            .filter(|(_, value)| *value == PRESENT)
            .fold(0, |bits, (bit, _)| bits | 1 << bit);
        let named = || {
            self.each().filter_map(move |(bit, atom)| match atom {
                Atom::IsSubject(of, name) if *of == attribute as u32 => Some((name, bit)),
                _ => None,
            })
        };
        let names: BTreeSet<&String> = named().map(|(name, _)| name).collect();
        let own = self.attribute(attribute).find(|(_, value)| *value == OWN);
        if labelled == 0 && names.is_empty() && own.is_none() {
            return None;
        }
        let bits = |wanted: &String| {
            named().filter(|(name, _)| *name == wanted).fold(labelled, |bits, (_, bit)| bits | 1 << bit)
        };
        let mut values = vec![Value::new(UNLABELLED, 0)];
        values.extend(names.iter().map(|name| Value::new(name.as_str(), bits(name))));
        values.extend(own.map(|(bit, _)| Value::new("its own subject", labelled | 1 << bit)));
        values.push(Value::new("", labelled));
        Some(Choice { about, values })
    }

    fn file_kinds(&self) -> Option<Choice> {
        self.attribute(Attribute::Kind).next()?;
        let values = ["regular", "directory", "fifo", "socket", "chr", "blk", "symlink"].map(|name| {
            let wanted = file_kind(name).unwrap_or_default();
            let held = self.attribute(Attribute::Kind).filter(|(_, value)| *value == wanted);
            let mut value = Value::new(file_kind_name(wanted), held.fold(0, |all, (bit, _)| all | 1 << bit));
            // Of what is taken on files, only this is taken on directories, as on any file.
            if name == "directory" {
                value.actions = Action::FileSetattr.bit() | Action::FileIoctl.bit();
            }
            value
        });
        Some(Choice { about: About::Kind, values: values.into() })
    }

    fn flag(&self, attribute: Attribute, about: About) -> Option<Choice> {
        self.attribute(attribute).next()?;
        let values = [0, 1].map(|wanted| {
            let held = self.attribute(attribute).filter(|(_, value)| *value == wanted);
            Value::new(wanted.to_string(), held.fold(0, |all, (bit, _)| all | 1 << bit))
        });
        Some(Choice { about, values: values.into() })
    }

    fn ports(&self) -> Option<Choice> {
        let tests: Vec<(usize, u32, u32)> = self
            .each()
            .filter_map(|(bit, atom)| match atom {
                Atom::PortIs(port) => Some((bit, u32::from(*port), u32::from(*port) + 1)),
                Atom::PortFrom(port) => Some((bit, u32::from(*port), 1 << 16)),
                _ => None,
            })
            .collect();
        let mut cuts: BTreeSet<u32> = [0, 1 << 16].into();
        cuts.extend(tests.iter().flat_map(|(_, first, end)| [*first, *end]));
        let cuts: Vec<u32> = cuts.into_iter().collect();
        let values = cuts.windows(2).map(|pair| {
            let (first, last) = (pair[0], pair[1] - 1);
            let held = tests.iter().filter(|(_, from, end)| (*from..*end).contains(&first));
            let bits = held.fold(0, |all, (bit, ..)| all | 1 << bit);
            let text = if first == last { first.to_string() } else { format!("{first}-{last}") };
            Value { ports: Some((first as u16, last as u16)), ..Value::new(text, bits) }
        });
        Some(Choice { about: About::Port, values: values.collect() })
    }
}

#[cfg(test)]
impl Support<'_> {
    /// Bits of the attribute tests that hold.
    pub(super) fn of_attributes(&self, attributes: &guard_common::tables::Attributes) -> u64 {
        self.each().fold(0, |bits, (bit, atom)| match atom {
            Atom::Attribute(attribute, value) => {
                let test = guard_common::tables::AttributeTest {
                    attribute: *attribute,
                    bit: bit as u32,
                    value: *value,
                };
                bits | test.feature(attributes)
            }
            _ => bits,
        })
    }

    /// Bits of the port tests that hold.
    pub(super) fn of_port(&self, port: u16) -> u64 {
        self.each().fold(0, |bits, (bit, atom)| match atom {
            Atom::PortIs(wanted) if *wanted == port => bits | 1 << bit,
            Atom::PortFrom(from) if *from <= port => bits | 1 << bit,
            _ => bits,
        })
    }
}

/// Whether a name matches a pattern, by the kernel's own comparison.
fn matches(atom: &Atom, name: &[u8]) -> bool {
    let Atom::Pattern { prefix, suffix, exact } = atom else { return false };
    let (front, back) = name_words(name);
    Pattern::new(prefix.as_bytes(), suffix.as_bytes(), *exact, 0)
        .is_some_and(|pattern| pattern.matches(&front, &back, name.len() as u32))
}

/// A pattern as policy writes it.
pub(super) fn pattern_text(atom: &Atom) -> String {
    match atom {
        Atom::Pattern { prefix, suffix, exact: true } => format!("{prefix}{suffix}"),
        Atom::Pattern { prefix, suffix, exact: false } => format!("{prefix}*{suffix}"),
        _ => String::new(),
    }
}

/// Names that match every set of patterns that some name matches.
///
/// A long name matches a pattern by its ends alone, so every prefix with every suffix, and
/// something between that no pattern holds, stands for all long names. A short one may have the
/// two ends overlap, where a pattern of both does not match.
fn candidates(patterns: &[(usize, &Atom)]) -> Vec<Vec<u8>> {
    const FILLER: &str = "\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}";
    let (mut prefixes, mut suffixes) = (BTreeSet::from([""]), BTreeSet::from([""]));
    let mut names: BTreeSet<Vec<u8>> = BTreeSet::new();
    for (_, atom) in patterns {
        match atom {
            Atom::Pattern { prefix, suffix, exact: true } => {
                names.insert([prefix.as_bytes(), suffix.as_bytes()].concat());
            }
            Atom::Pattern { prefix, suffix, exact: false } => {
                prefixes.insert(prefix);
                suffixes.insert(suffix);
            }
            _ => {}
        }
    }
    let mut long: Vec<Vec<u8>> = Vec::new();
    for prefix in &prefixes {
        for suffix in &suffixes {
            let filler = FILLER.repeat(4);
            long.push([prefix.as_bytes(), filler.as_bytes(), suffix.as_bytes()].concat());
            let (front, back) = (prefix.as_bytes(), suffix.as_bytes());
            let overlaps = (0..=front.len().min(back.len())).filter(|n| front.ends_with(&back[..*n]));
            names.extend(overlaps.map(|n| [front, &back[n..]].concat()));
        }
    }
    names.remove(&Vec::new());
    long.sort_by_key(Vec::len);
    long.extend(names);
    long
}
