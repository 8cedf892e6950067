//! A bundle as a tree: it can be written out, and made smaller.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::path::Path;

use guard_agent::bundle::{Files, Opened};
use guard_agent::policy::{self, Bundle, Diagnostics};

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expr {
    /// A comparison, in Cedar.
    Leaf(String),
    /// `!(a)`
    Not(Box<Self>),
    /// `a && b`
    And(Box<Self>, Box<Self>),
    /// `a || b`
    Or(Box<Self>, Box<Self>),
    /// `if a then b else c`
    If(Box<Self>, Box<Self>, Box<Self>),
}

impl Expr {
    /// The expressions it is made of.
    pub(crate) fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Leaf(_) => Vec::new(),
            Self::Not(a) => vec![a],
            Self::And(a, b) | Self::Or(a, b) => vec![a, b],
            Self::If(a, b, c) => vec![a, b, c],
        }
    }

    /// The same with one of its parts replaced.
    pub(crate) fn with_part(&self, index: usize, part: Self) -> Self {
        let mut this = self.clone();
        let slot = match (&mut this, index) {
            (Self::Not(a) | Self::And(a, _) | Self::Or(a, _) | Self::If(a, _, _), 0) => a,
            (Self::And(_, b) | Self::Or(_, b) | Self::If(_, b, _), 1) => b,
            (Self::If(_, _, c), 2) => c,
            _ => return this,
        };
        **slot = part;
        this
    }
}

impl Display for Expr {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf(text) => out.write_str(text),
            Self::Not(a) => write!(out, "!({a})"),
            Self::And(a, b) => write!(out, "({a} && {b})"),
            Self::Or(a, b) => write!(out, "({a} || {b})"),
            Self::If(a, b, c) => write!(out, "(if {a} then {b} else {c})"),
        }
    }
}

/// One `when` or `unless`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// It is an `unless`.
    pub(crate) unless: bool,
    /// What it says.
    pub(crate) condition: Expr,
}

/// One policy, or a template that subjects include.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Its id; an include's begins with its name.
    pub(crate) id: String,
    /// It is a template.
    pub(crate) template: bool,
    /// Its annotations beside the id.
    pub(crate) annotations: Vec<String>,
    /// Whether it permits.
    pub(crate) permit: bool,
    /// The scope of the principal; nothing of a template's counts.
    pub(crate) principal: String,
    /// The scope of the action.
    pub(crate) action: String,
    /// The scope of the resource.
    pub(crate) resource: String,
    /// Its conditions.
    pub(crate) clauses: Vec<Clause>,
}

impl Display for Policy {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let effect = if self.permit { "permit" } else { "forbid" };
        let principal = if self.template { "principal == ?principal" } else { &self.principal };
        write!(out, "@id(\"{}\") ", self.id)?;
        for annotation in &self.annotations {
            write!(out, "{annotation} ")?;
        }
        write!(out, "{effect} ({principal}, {}, {})", self.action, self.resource)?;
        for clause in &self.clauses {
            let word = if clause.unless { "unless" } else { "when" };
            write!(out, "\n{word} {{ {} }}", clause.condition)?;
        }
        out.write_str(";\n")
    }
}

/// One subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// Its name.
    pub(crate) name: &'static str,
    /// The user that it is.
    pub(crate) user: u32,
    /// Its groups.
    pub(crate) groups: Vec<&'static str>,
    /// What it governs.
    pub(crate) governs: Vec<&'static str>,
    /// Includes; one that no template has is left out.
    pub(crate) include: Vec<String>,
    /// It is in monitor mode.
    pub(crate) monitor: bool,
}

/// A bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    /// Its version.
    pub(crate) version: u64,
    /// Its subjects.
    pub(crate) subjects: Vec<Subject>,
    /// Its policies and templates.
    pub(crate) policies: Vec<Policy>,
    /// Names of hosts and their addresses.
    pub(crate) names: Vec<(&'static str, Vec<String>)>,
}

/// What every bundle declares, so that its conditions have something to ask for.
const DECLARED: &str = "[facts]
trust = { type = \"long\" }
tier = { type = \"string\" }
synced = { type = \"bool\" }
[windows]
open = { days = [\"mon\"], from = \"09:00\", to = \"11:30\", zone = \"UTC\" }
[approvals]
change = { approvers = [\"group:x\"], max = \"1h\" }
deploy = { approvers = [\"group:x\"], max = \"1h\" }
";

/// Includes that Guard ships and random subjects have.
pub(crate) const SHIPPED: [&str; 6] =
    ["base/dynamic-exec", "base/devices", "base/stdio", "base/anonymous", "base/own-proc", "base/proc-facts"];

impl Model {
    /// `guard.toml`.
    pub(crate) fn toml(&self) -> String {
        let mut text =
            format!("[bundle]\nname = \"exact\"\nversion = {}\nprofile = 1\n{DECLARED}", self.version);
        if !self.names.is_empty() {
            text.push_str("[names]\n");
        }
        for (name, addresses) in &self.names {
            text.push_str(&format!("\"{name}\" = {{ addresses = {} }}\n", list(addresses)));
        }
        text.push_str("[modes]\n");
        for subject in self.subjects.iter().filter(|subject| subject.monitor) {
            text.push_str(&format!("{} = \"monitor\"\n", subject.name));
        }
        let templates: BTreeSet<&str> = self
            .policies
            .iter()
            .filter(|policy| policy.template)
            .map(|policy| policy.id.split(':').next().unwrap_or_default())
            .chain(SHIPPED)
            .collect();
        for subject in &self.subjects {
            let include: Vec<&String> =
                subject.include.iter().filter(|name| templates.contains(name.as_str())).collect();
            text.push_str(&format!(
                "[subjects.{}]\nselector = {{ user = \"{}\" }}\ngroups = {}\ngoverns = {}\ninclude = {}\n",
                subject.name,
                subject.user,
                list(&subject.groups),
                list(&subject.governs),
                list(&include)
            ));
        }
        text
    }

    /// The policies.
    pub(crate) fn cedar(&self) -> String {
        self.policies.iter().map(ToString::to_string).collect()
    }

    /// Parses and validates it.
    pub(crate) fn parse(&self) -> Result<Bundle, Diagnostics> {
        let mut files = Files::new(Path::new("bundle"));
        files.insert("guard.toml", self.toml().into_bytes())?;
        files.insert("p.cedar", self.cedar().into_bytes())?;
        policy::parse(&Opened { files, seal: None })
    }
}

/// A TOML list of strings.
fn list(items: &[impl Display]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", items.join(", "))
}
