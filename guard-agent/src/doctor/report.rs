//! What the doctor says.

use super::{Check, State};
use crate::coverage::{ActionCoverage, Extent};
use crate::events::wrapped;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

/// All checks of a host.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// What would be decided on this kernel, by the hooks that it has.
    pub coverage: Vec<ActionCoverage>,
}

impl Report {
    /// Whether this host can enforce all that this version can: everything is as it must be. What a
    /// host cannot enforce without (hard checks) must be known to hold; the rest must not be missing.
    pub fn is_ready(&self) -> bool {
        self.to_do() == 0 && !self.checks.iter().any(|check| check.hard && check.state == State::Unknown)
    }

    /// How many checks found something to do.
    pub fn to_do(&self) -> usize {
        self.checks.iter().filter(|check| check.state == State::Missing).count()
    }

    /// The report as one JSON value, schema `guard.doctor/1`.
    pub fn to_json(&self) -> serde_json::Value {
        let coverage: Vec<_> = self
            .coverage
            .iter()
            .map(|action| match (action.coverage, action.why.join("; ")) {
                (Extent::Enforced, _) => json!({ "action": action.action, "coverage": "enforced" }),
                (Extent::Partly, why) => json!({ "action": action.action, "coverage": "partly", "why": why }),
                (Extent::NotOnThisKernel, why) => {
                    json!({ "action": action.action, "coverage": "not-on-this-kernel", "why": why })
                }
                (Extent::NotInThisVersion, _) => json!({ "action": action.action, "coverage": "not-yet" }),
            })
            .collect();
        json!({
            "schema": "guard.doctor/1",
            "ready": self.is_ready(),
            "checks": self.checks,
            "coverage": coverage,
        })
    }

    /// The report for people. The sign in brackets says it without colour too.
    pub fn to_text(&self, colour: bool) -> String {
        let mut lines = Vec::new();
        for check in &self.checks {
            let (sign, code) = match check.state {
                State::Ok => ("[+]", "32"),
                State::Missing => ("[-]", "31"),
                State::Unknown => ("[?]", "33"),
            };
            let sign = if colour { format!("\x1b[{code}m{sign}\x1b[0m") } else { sign.to_owned() };
            lines.push(format!("{sign} {}", check.found.replace('\n', "\n    ")));
            lines.extend(check.fix.iter().map(|step| format!("      {step}")));
        }
        lines.push(String::new());
        lines.extend(coverage(&self.coverage));
        lines.push(String::new());
        lines.push(self.summary());
        lines.join("\n")
    }

    fn summary(&self) -> String {
        match self.to_do() {
            0 if self.is_ready() => "this host can enforce".to_owned(),
            0 => "not known whether this host can enforce: see [?]".to_owned(),
            count => format!("{count} to do before enforcing: see [-]"),
        }
    }
}

/// What would be decided.
fn coverage(actions: &[ActionCoverage]) -> Vec<String> {
    const INDENT: usize = 12;
    let names = |wanted: Extent| {
        let rows = actions.iter().filter(|action| action.coverage == wanted);
        wrapped(&rows.map(|action| action.action.as_str()).collect::<Vec<_>>(), INDENT, 100)
    };
    let mut lines = vec![
        "actions of this version on this kernel".to_owned(),
        format!("  enforced  {}", names(Extent::Enforced)),
    ];
    for (extent, title) in [(Extent::Partly, "partly  "), (Extent::NotOnThisKernel, "not here")] {
        let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for action in actions.iter().filter(|action| action.coverage == extent) {
            found.entry(action.why.join("; ")).or_default().push(&action.action);
        }
        lines.extend(found.iter().map(|(why, actions)| format!("  {title}  {}: {why}", actions.join(" "))));
    }
    lines.push(format!("  not yet   {}", names(Extent::NotInThisVersion)));
    lines
}
