//! What a run consisted of.

use std::fmt::Write;

use nix::libc;

use crate::differences::TABLE;
use crate::operation::{Answer, Operation};
use crate::rights::{ALL, Rights};

/// Operations from which on every right must have been given and refused.
const ENOUGH: u64 = 20_000;

/// How operations of one kind ended.
#[derive(Clone, Copy, Default)]
struct Row {
    /// They worked everywhere.
    allowed: u64,
    /// Both refused them, with the same error number.
    refused: u64,
    /// The kernel failed them everywhere.
    failed: u64,
    /// They were answered differently, as is known.
    explained: u64,
}

/// Counts of everything.
pub(crate) struct Tally {
    pub(crate) operations: u64,
    pub(crate) rounds: u64,
    /// Differences that nothing explains.
    pub(crate) unexplained: u64,
    /// Equal answers that are not what Landlock's model says.
    pub(crate) unforeseen: u64,
    rows: [Row; Operation::KINDS.len()],
    rights: [[u64; 2]; ALL.len()],
    differences: Vec<u64>,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            operations: 0,
            rounds: 0,
            unexplained: 0,
            unforeseen: 0,
            rows: [Row::default(); Operation::KINDS.len()],
            rights: [[0; 2]; ALL.len()],
            differences: vec![0; TABLE.len()],
        }
    }

    /// Counts an operation that both answered alike; by Landlock's model it asked for rights, of which some
    /// are missing.
    pub(crate) fn same(
        &mut self,
        operation: &Operation,
        answer: Answer,
        control: Answer,
        asked: Rights,
        missing: Rights,
    ) {
        self.operations += 1;
        let row = &mut self.rows[operation.kind()];
        if answer != control {
            row.refused += 1;
            self.count(missing, 1);
        } else if worked(operation, control) {
            row.allowed += 1;
            self.count(asked & !missing, 0);
        } else {
            row.failed += 1;
        }
    }

    fn count(&mut self, rights: Rights, column: usize) {
        for (index, (_, bit, _)) in ALL.iter().enumerate() {
            self.rights[index][column] += u64::from(rights & bit != 0);
        }
    }

    /// Counts an operation that was answered differently.
    pub(crate) fn different(&mut self, operation: &Operation, explanation: Option<usize>) {
        self.operations += 1;
        match explanation {
            Some(index) => {
                self.rows[operation.kind()].explained += 1;
                self.differences[index] += 1;
            }
            None => self.unexplained += 1,
        }
    }

    /// Rights among `known` that were never given or never refused, if there was enough occasion.
    pub(crate) fn not_exercised(&self, known: Rights) -> Vec<&'static str> {
        ALL.iter()
            .zip(&self.rights)
            .filter(|((_, bit, _), counts)| known & bit != 0 && counts.contains(&0))
            .map(|((name, ..), _)| *name)
            .filter(|_| self.operations >= ENOUGH)
            .collect()
    }

    /// Tables for a screen.
    pub(crate) fn tables(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{:<14}{:>9}{:>16}{:>11}{:>20}",
            "operation", "allowed", "denied by both", "explained", "fails for everybody"
        );
        for (kind, row) in Operation::KINDS.iter().zip(&self.rows) {
            let Row { allowed, refused, failed, explained } = row;
            let _ = writeln!(text, "{kind:<14}{allowed:>9}{refused:>16}{explained:>11}{failed:>20}");
        }
        let _ = writeln!(text, "\n{:<14}{:>9}{:>16}", "right", "given", "missing");
        for ((name, ..), [given, missing]) in ALL.iter().zip(&self.rights) {
            let _ = writeln!(text, "{name:<14}{given:>9}{missing:>16}");
        }
        let _ = writeln!(text, "\n{:<38}{:>9}  effect", "explained difference", "count");
        for (difference, count) in TABLE.iter().zip(&self.differences) {
            let _ = writeln!(text, "{:<38}{count:>9}  {}", difference.name, difference.effect.words());
        }
        text
    }
}

/// Whether an operation got as far as the decisions about it. A connection to where nobody listens did, and
/// so did a program that is none.
fn worked(operation: &Operation, control: Answer) -> bool {
    let [call, then, _] = control;
    match operation {
        Operation::ConnectTcp { .. } => true,
        Operation::Execute { .. } if call == libc::ENOEXEC => true,
        // What no device knows is refused by the device.
        Operation::Open { .. } => call == 0 && (then <= 0 || then == libc::ENOTTY),
        _ => call == 0,
    }
}
