//! Feature bits: what a decision can depend on besides the class.

use std::collections::BTreeSet;

use guard_common::path::Pattern;
use guard_common::tables::{AttributeTest, MAX_ATTRIBUTE_TESTS, MAX_FEATURES, MAX_PATTERNS, Ports};

use super::diagnostics::Diagnostic;
use super::formula::{Atom, AtomId, Atoms};
use super::ids::SubjectIds;
use super::subjects::{AGENT, CANARY};
use guard_common::label::{AGENT_SUBJECT, CANARY_SUBJECT};

/// The feature tables of a generation.
#[derive(Debug, Default)]
pub(super) struct Features {
    /// Bit of each atom that has one, by atom number.
    bits: Vec<Option<u8>>,
    pub(super) count: usize,
    pub(super) names: Vec<(String, u32)>,
    pub(super) patterns: Vec<Pattern>,
    pub(super) attributes: Vec<AttributeTest>,
    pub(super) ports: Vec<Ports>,
    /// The keys that policies ask for, or any key at all, and the bit of each.
    pub(super) signers: Vec<(Option<String>, u8)>,
}

impl Features {
    /// Gives every atom that neither the class nor the context decides a bit; atoms of one group have the same.
    pub(super) fn assign(
        atoms: &Atoms,
        groups: &[AtomId],
        ids: &SubjectIds,
        found: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut this = Self::default();
        let mut port_tests = Vec::new();
        for (id, atom, mention) in atoms.iter() {
            if atom.is_place() || atom.condition().is_some() {
                this.bits.push(None);
                continue;
            }
            let first = groups.get(id as usize).copied().unwrap_or(id);
            let shared = if first == id { None } else { this.bit(first) };
            let bit = shared.map_or(this.count as u32, u32::from);
            if shared.is_none() && this.count == MAX_FEATURES {
                found.push(too_many(
                    mention,
                    &format!("more than {MAX_FEATURES} names, patterns, ports and attribute values"),
                ));
                return this;
            }
            let test = match atom {
                Atom::Attribute(attribute, value) => Some((*attribute, *value)),
                // No process can carry the label of a subject that never had a number.
                Atom::IsSubject(attribute, name) => {
                    let known = match name.as_str() {
                        CANARY => Some(CANARY_SUBJECT),
                        AGENT => Some(AGENT_SUBJECT),
                        _ => ids.get(name),
                    };
                    known.map(|id| (*attribute, u64::from(id)))
                }
                _ => None,
            };
            if let Some((attribute, value)) = test {
                if this.attributes.len() as u32 == MAX_ATTRIBUTE_TESTS {
                    found.push(too_many(
                        mention,
                        &format!("more than {MAX_ATTRIBUTE_TESTS} attribute values"),
                    ));
                    return this;
                }
                this.attributes.push(AttributeTest { attribute, bit, value });
            }
            match atom {
                Atom::Name(name) => this.names.push((name.clone(), bit)),
                Atom::Pattern { prefix, suffix, exact } => {
                    if this.patterns.len() as u32 == MAX_PATTERNS {
                        found.push(too_many(
                            mention,
                            &format!("more than {MAX_PATTERNS} patterns over resource.name"),
                        ));
                        return this;
                    }
                    this.patterns.extend(Pattern::new(prefix.as_bytes(), suffix.as_bytes(), *exact, bit));
                }
                Atom::PortIs(port) => port_tests.push((u32::from(*port), u32::from(*port) + 1, bit)),
                Atom::SignedBy(key) => this.signers.push((key.clone(), bit as u8)),
                Atom::PortFrom(port) => port_tests.push((u32::from(*port), 1 << 16, bit)),
                _ => {}
            }
            this.bits.push(Some(bit as u8));
            this.count += usize::from(shared.is_none());
        }
        this.ports = port_ranges(&port_tests);
        this
    }

    /// The bits that who signed a file decides.
    pub(super) fn of_signers(&self) -> u64 {
        self.signers.iter().fold(0u64, |bits, (_, bit)| bits | 1u64 << bit)
    }

    pub(super) fn bit(&self, atom: AtomId) -> Option<u8> {
        self.bits.get(atom as usize).copied().flatten()
    }
}

fn too_many(mention: &Diagnostic, what: &str) -> Diagnostic {
    Diagnostic {
        code: "too-large",
        message: format!("the bundle compares with {what}, the most the kernel tables hold"),
        ..mention.clone()
    }
    .help("use fewer distinct values, or name directories and networks, of which there can be any number")
}

/// Ranges of ports by the bits of the tests (first, one past the last, bit) that hold in them.
fn port_ranges(tests: &[(u32, u32, u32)]) -> Vec<Ports> {
    let mut starts: BTreeSet<u32> = [0].into();
    for (first, end, _) in tests {
        starts.extend([*first, *end]);
    }
    starts
        .into_iter()
        .filter(|start| *start < 1 << 16)
        .map(|start| {
            let holds = |(first, end, _): &&(u32, u32, u32)| (*first..*end).contains(&start);
            let features = tests.iter().filter(holds).fold(0, |bits, (_, _, bit)| bits | 1 << bit);
            Ports { features, start, reserved: 0 }
        })
        .collect()
}
