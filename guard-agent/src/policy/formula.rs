//! Boolean formulas over what the kernel can tell about a resource, and over the context.

use std::collections::HashMap;
use std::sync::Arc;

use guard_common::class::Class;
use guard_common::tables::Attribute;

use super::condition::Test;
use super::diagnostics::Diagnostic;

/// One thing that is true or false of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Atom {
    /// The resource is this path.
    At(String),
    /// The resource is this path or lies below it.
    Below(String),
    /// The resource belongs to a built-in class.
    Builtin(Class),
    /// The address lies in this network, written as the policy writes it.
    Net(String),
    /// The address is one of a name's addresses.
    Dns(String),
    /// The resource is the unix socket with this abstract name.
    Abstract(String),
    /// Some component of the path is this name.
    Name(String),
    /// The last component matches `prefix*suffix`, or is their concatenation if `exact`.
    Pattern { prefix: String, suffix: String, exact: bool },
    /// The port is this one.
    PortIs(u16),
    /// The port is this one or higher.
    PortFrom(u16),
    /// An attribute has this value.
    Attribute(u32, u64),
    /// An attribute that is a subject is the one with this name. Its number is known once tables are made.
    IsSubject(u32, String),
    /// The key with this name signed the file; without a name, some key did.
    SignedBy(Option<String>),
    /// The context is like this.
    Condition(Test),
}

impl Atom {
    /// `attribute == value`.
    pub(super) fn attribute(attribute: Attribute, value: u64) -> Self {
        Self::Attribute(attribute as u32, value)
    }

    /// The attribute is this subject.
    pub(super) fn subject(attribute: Attribute, name: &str) -> Self {
        Self::IsSubject(attribute as u32, name.to_owned())
    }

    /// The test of the context that decides this atom, if that is what decides it.
    pub(super) fn condition(&self) -> Option<&Test> {
        match self {
            Self::Condition(test) => Some(test),
            _ => None,
        }
    }

    /// Whether the class of a resource decides this atom, as opposed to a feature bit or the context.
    pub(super) fn is_place(&self) -> bool {
        matches!(
            self,
            Self::At(_) | Self::Below(_) | Self::Builtin(_) | Self::Net(_) | Self::Dns(_) | Self::Abstract(_)
        )
    }
}

/// Number of an atom in an [`Atoms`] table.
pub(super) type AtomId = u32;

/// Every atom of a bundle, with the place that first mentions it.
#[derive(Clone, Debug, Default)]
pub(super) struct Atoms {
    atoms: Vec<(Atom, Diagnostic)>,
    numbers: HashMap<Atom, AtomId>,
}

impl Atoms {
    /// The number of `atom`; `mention` makes a diagnostic at the place that mentions it.
    pub(super) fn intern(&mut self, atom: Atom, mention: impl FnOnce() -> Diagnostic) -> AtomId {
        if let Some(id) = self.numbers.get(&atom) {
            return *id;
        }
        let id = self.atoms.len() as AtomId;
        self.numbers.insert(atom.clone(), id);
        self.atoms.push((atom, mention()));
        id
    }

    pub(super) fn get(&self, id: AtomId) -> &Atom {
        &self.atoms[id as usize].0
    }

    /// The atoms with their numbers and a blank diagnostic at their first mention.
    pub(super) fn iter(&self) -> impl Iterator<Item = (AtomId, &Atom, &Diagnostic)> {
        self.atoms.iter().enumerate().map(|(id, (atom, mention))| (id as AtomId, atom, mention))
    }
}

/// A boolean formula. Build it with the functions below, which simplify.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Formula {
    Const(bool),
    Atom(AtomId),
    Not(Arc<Formula>),
    And(Arc<Formula>, Arc<Formula>),
    Or(Arc<Formula>, Arc<Formula>),
}

impl Formula {
    pub(super) const TRUE: Self = Self::Const(true);
    pub(super) const FALSE: Self = Self::Const(false);

    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Const(false), _) | (_, Self::Const(false)) => Self::FALSE,
            (Self::Const(true), formula) | (formula, Self::Const(true)) => formula,
            (a, b) if a == b => a,
            (a, b) => Self::And(Arc::new(a), Arc::new(b)),
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Const(true), _) | (_, Self::Const(true)) => Self::TRUE,
            (Self::Const(false), formula) | (formula, Self::Const(false)) => formula,
            (a, b) if a == b => a,
            (a, b) => Self::Or(Arc::new(a), Arc::new(b)),
        }
    }

    /// Whether any of them holds. A list can be as long as a bundle, so it becomes a tree that is as flat
    /// as it can be: whoever walks a formula descends into it on the stack.
    pub(super) fn any(formulas: Vec<Self>) -> Self {
        balanced(formulas, Self::or).unwrap_or(Self::FALSE)
    }

    /// Whether all of them hold.
    pub(super) fn all(formulas: Vec<Self>) -> Self {
        balanced(formulas, Self::and).unwrap_or(Self::TRUE)
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::Const(value) => Self::Const(!value),
            Self::Not(inner) => Arc::unwrap_or_clone(inner),
            formula => Self::Not(Arc::new(formula)),
        }
    }

    /// Replaces every atom by a formula and simplifies.
    pub(super) fn substitute(&self, with: &impl Fn(AtomId) -> Self) -> Self {
        match self {
            Self::Const(value) => Self::Const(*value),
            Self::Atom(id) => with(*id),
            Self::Not(a) => a.substitute(with).not(),
            Self::And(a, b) => match a.substitute(with) {
                Self::Const(false) => Self::FALSE,
                a => a.and(b.substitute(with)),
            },
            Self::Or(a, b) => match a.substitute(with) {
                Self::Const(true) => Self::TRUE,
                a => a.or(b.substitute(with)),
            },
        }
    }

    /// The value under an assignment of all atoms.
    pub(super) fn evaluate(&self, value: &impl Fn(AtomId) -> bool) -> bool {
        match self {
            Self::Const(constant) => *constant,
            Self::Atom(id) => value(*id),
            Self::Not(a) => !a.evaluate(value),
            Self::And(a, b) => a.evaluate(value) && b.evaluate(value),
            Self::Or(a, b) => a.evaluate(value) || b.evaluate(value),
        }
    }

    /// Calls `visit` with every atom, repeatedly if it occurs repeatedly.
    pub(super) fn for_each_atom(&self, visit: &mut impl FnMut(AtomId)) {
        match self {
            Self::Const(_) => {}
            Self::Atom(id) => visit(*id),
            Self::Not(a) => a.for_each_atom(visit),
            Self::And(a, b) | Self::Or(a, b) => {
                a.for_each_atom(visit);
                b.for_each_atom(visit);
            }
        }
    }
}

/// Joins neighbours until one is left.
fn balanced(mut formulas: Vec<Formula>, join: fn(Formula, Formula) -> Formula) -> Option<Formula> {
    while formulas.len() > 1 {
        let mut joined = Vec::with_capacity(formulas.len().div_ceil(2));
        let mut rest = formulas.into_iter();
        while let Some(first) = rest.next() {
            joined.push(match rest.next() {
                Some(second) => join(first, second),
                None => first,
            });
        }
        formulas = joined;
    }
    formulas.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_disappear() {
        let a = Formula::Atom(0);
        assert_eq!(a.clone().and(Formula::TRUE), a);
        assert_eq!(a.clone().or(Formula::TRUE), Formula::TRUE);
        assert_eq!(a.clone().not().not(), a);
        let both = a.clone().and(Formula::Atom(1).not());
        assert_eq!(both.substitute(&|id| if id == 1 { Formula::FALSE } else { Formula::Atom(id) }), a);
    }
}
