//! Alternatives that always occur together share one feature bit.
//!
//! A policy about `.ssh`, `.gnupg` and `.aws` asks whether a path has any of these names, never
//! which. One bit, set by each of them, answers that, so lists of names, ports and patterns do not
//! use up the features that a truth table can have.

use std::collections::HashMap;

use super::formula::{Atom, AtomId, Atoms, Formula};

/// For every atom, the atom that stands for its group: the one with the smallest number.
pub(super) fn representatives<'a>(atoms: &Atoms, formulas: impl Iterator<Item = &'a Formula>) -> Vec<AtomId> {
    let mut occurrences = Occurrences { chains: Vec::new(), next: 0 };
    occurrences.chains.resize(atoms.iter().count(), Vec::new());
    for formula in formulas {
        occurrences.visit(formula);
    }
    let mut groups: HashMap<(u32, Vec<u32>), AtomId> = HashMap::new();
    atoms
        .iter()
        .map(|(id, atom, _)| match family(atom) {
            Some(family) => {
                let chains = std::mem::take(&mut occurrences.chains[id as usize]);
                *groups.entry((family, chains)).or_insert(id)
            }
            None => id,
        })
        .collect()
}

/// Atoms of one family are known in the same classes. What has a place is not merged.
fn family(atom: &Atom) -> Option<u32> {
    match atom {
        Atom::Name(_) | Atom::Pattern { .. } => Some(0),
        Atom::PortIs(_) | Atom::PortFrom(_) => Some(1),
        Atom::SignedBy(_) => Some(2),
        Atom::Attribute(attribute, _) | Atom::IsSubject(attribute, _) => Some(3 + attribute),
        _ => None,
    }
}

/// The disjunctions, and conjunctions of negations, that each atom is a direct part of. A lone
/// occurrence counts as a chain of its own.
struct Occurrences {
    chains: Vec<Vec<u32>>,
    next: u32,
}

impl Occurrences {
    fn visit(&mut self, formula: &Formula) {
        let chain = self.fresh();
        match formula {
            Formula::Const(_) => {}
            Formula::Atom(id) => self.chains[*id as usize].push(chain),
            Formula::Not(inner) => self.visit(inner),
            Formula::Or(a, b) => {
                self.alternative(a, chain);
                self.alternative(b, chain);
            }
            Formula::And(a, b) => {
                self.exclusion(a, chain);
                self.exclusion(b, chain);
            }
        }
    }

    fn alternative(&mut self, formula: &Formula, chain: u32) {
        match formula {
            Formula::Atom(id) => self.chains[*id as usize].push(chain),
            Formula::Or(a, b) => {
                self.alternative(a, chain);
                self.alternative(b, chain);
            }
            other => self.visit(other),
        }
    }

    fn exclusion(&mut self, formula: &Formula, chain: u32) {
        match formula {
            Formula::Not(inner) => match &**inner {
                Formula::Atom(id) => self.chains[*id as usize].push(chain),
                other => self.visit(other),
            },
            Formula::And(a, b) => {
                self.exclusion(a, chain);
                self.exclusion(b, chain);
            }
            other => self.visit(other),
        }
    }

    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::diagnostics::Diagnostic;

    fn groups(formulas: Vec<Formula>) -> Vec<AtomId> {
        let mut atoms = Atoms::default();
        for name in ["a", "b", "c"] {
            atoms.intern(Atom::Name(name.into()), || Diagnostic::error("", ""));
        }
        representatives(&atoms, formulas.iter())
    }

    #[test]
    fn only_what_always_occurs_together_is_merged() {
        let [a, b, c] = [Formula::Atom(0), Formula::Atom(1), Formula::Atom(2)];
        let any = a.clone().or(b.clone()).or(c.clone());
        assert_eq!(groups(vec![any.clone()]), [0, 0, 0]);
        assert_eq!(groups(vec![any.clone(), a.clone().or(b.clone())]), [0, 0, 2]);
        assert_eq!(groups(vec![any.clone(), c.clone()]), [0, 0, 2]);
        assert_eq!(groups(vec![a.clone().and(b.clone()).or(c.clone())]), [0, 1, 2]);
        assert_eq!(groups(vec![a.not().and(b.not()), c]), [0, 0, 2]);
    }
}
