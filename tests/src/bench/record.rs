//! What one run measured, with everything that it takes to repeat it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// The form of the file. Fields are only ever added.
pub(crate) const SCHEMA: &str = "guard-bench/1";

/// One run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) schema: String,
    /// When it was made, as a date, and of which commit.
    #[serde(default)]
    pub(crate) date: String,
    #[serde(default)]
    pub(crate) revision: String,
    /// The command that repeats it.
    #[serde(default)]
    pub(crate) command: String,
    pub(crate) kernel: String,
    /// The kernel's own command line.
    pub(crate) parameters: String,
    pub(crate) unit: Unit,
    /// Loops of each measurement.
    pub(crate) loops: usize,
    /// Whether only what budgets are about was measured.
    #[serde(default)]
    pub(crate) is_reduced: bool,
    /// What could not be measured here, and why.
    #[serde(default)]
    pub(crate) absent: Vec<String>,
    /// What went wrong.
    #[serde(default)]
    pub(crate) failures: Vec<String>,
    pub(crate) configurations: Vec<Named>,
    pub(crate) operations: Vec<Counted>,
    pub(crate) cells: Vec<Cell>,
    #[serde(default)]
    pub(crate) calls: Vec<Calls>,
    #[serde(default)]
    pub(crate) programs: Vec<Program>,
    #[serde(default)]
    pub(crate) costs: Vec<Cost>,
    #[serde(default)]
    pub(crate) workloads: Vec<Workload>,
}

/// What the numbers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// Of a guest whose clock counts them.
    #[default]
    Instructions,
    /// Of a real clock.
    Nanoseconds,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Nanoseconds => "nanoseconds",
        }
    }
}

/// Something that was measured with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) key: String,
    pub(crate) title: String,
}

/// An operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) key: String,
    pub(crate) title: String,
    /// How many one loop has.
    pub(crate) count: usize,
}

/// What an operation costs in a configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) operation: String,
    pub(crate) configuration: String,
    /// Per operation, of each loop, in the order in which they ran.
    pub(crate) samples: Vec<f64>,
}

impl Cell {
    /// The fastest loop counts: the others were interrupted.
    pub(crate) fn cost(&self) -> f64 {
        self.samples.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// How far the median lies above it, in percent.
    pub(crate) fn spread(&self) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        (median / self.cost() - 1.0) * 100.0
    }
}

/// How often an operation calls a program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Calls {
    pub(crate) operation: String,
    pub(crate) configuration: String,
    pub(crate) program: String,
    pub(crate) calls: f64,
    /// What one call takes inside of the program.
    pub(crate) each: f64,
}

/// A program of Guard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) name: String,
    /// Instructions that the verifier walked through.
    pub(crate) verified: u32,
    /// Bytes of machine code.
    pub(crate) bytes: u32,
}

/// Some other cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) key: String,
    pub(crate) title: String,
    pub(crate) unit: String,
    /// One number, or a distribution.
    pub(crate) values: Vec<f64>,
}

/// A whole program, run in turns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Workload {
    pub(crate) name: String,
    /// Seconds of the guest's clock, by configuration, in the order in which they ran.
    pub(crate) seconds: Vec<(String, Vec<f64>)>,
}

impl Record {
    /// Reads one.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let record: Self =
            serde_json::from_slice(&text).with_context(|| format!("{} is no record", path.display()))?;
        ensure!(record.schema == SCHEMA, "{} has the form {}, not {SCHEMA}", path.display(), record.schema);
        Ok(record)
    }

    /// Writes it.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    /// One cell.
    pub(crate) fn cell(&self, operation: &str, configuration: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.operation == operation && cell.configuration == configuration)
    }

    /// What an operation costs.
    pub(crate) fn cost(&self, operation: &str, configuration: &str) -> Option<f64> {
        self.cell(operation, configuration).map(Cell::cost)
    }

    /// How much more it costs than without an agent.
    pub(crate) fn added(&self, operation: &str, configuration: &str) -> Option<f64> {
        Some(self.cost(operation, configuration)? - self.cost(operation, crate::plan::NOTHING)?)
    }

    /// How often an operation calls the programs of a configuration.
    pub(crate) fn calls(&self, operation: &str, configuration: &str) -> f64 {
        let of_this = |calls: &&Calls| calls.operation == operation && calls.configuration == configuration;
        // An empty sum of these is a negative zero.
        self.calls.iter().filter(of_this).map(|calls| calls.calls).sum::<f64>() + 0.0
    }
}
