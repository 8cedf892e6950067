//! What the doctor says.

use super::{Check, State};
use crate::events::wrapped;
use guard_common::action::{Coverage, TABLE};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

/// All checks of a host.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
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
        let coverage: Vec<_> = TABLE
            .iter()
            .map(|row| match row.coverage {
                Coverage::Enforced => json!({ "action": row.name, "coverage": "enforced" }),
                Coverage::Partly(why) => json!({ "action": row.name, "coverage": "partly", "why": why }),
                Coverage::NotYet => json!({ "action": row.name, "coverage": "not-yet" }),
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
        lines.extend(coverage());
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

/// What this version decides, by the action table.
fn coverage() -> Vec<String> {
    const INDENT: usize = 12;
    let names = |wanted: &dyn Fn(&Coverage) -> bool| {
        let rows = TABLE.iter().filter(|row| wanted(&row.coverage));
        wrapped(&rows.map(|row| row.name).collect::<Vec<_>>(), INDENT, 100)
    };
    let mut lines = vec![
        "actions of this version".to_owned(),
        format!("  enforced  {}", names(&|coverage| matches!(coverage, Coverage::Enforced))),
    ];
    let mut partly: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in TABLE {
        if let Coverage::Partly(why) = row.coverage {
            partly.entry(why).or_default().push(row.name);
        }
    }
    lines.extend(partly.iter().map(|(why, actions)| format!("  partly    {}: {why}", actions.join(" "))));
    lines.push(format!("  not yet   {}", names(&|coverage| matches!(coverage, Coverage::NotYet))));
    lines
}
