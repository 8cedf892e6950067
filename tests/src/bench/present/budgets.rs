//! What operations and programs may cost, in a file of the repository.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::plan::{FLOOR, NOTHING};
use crate::record::{Calls, Record};

use super::table::{grouped, signed};

/// What something may grow by before it is found, in percent.
const GROWTH: f64 = 2.0;
/// What measurements of a whole operation differ by without any change, in percent.
const NOISE: f64 = 0.1;
/// The same of operations whose cost depends on where the kernel finds pages, ports and places in tables.
const COARSE: [(&str, f64); 6] = [
    ("create", 0.5),
    ("fork", 2.0),
    ("exec", 1.0),
    ("tcp-connect", 1.0),
    ("accept", 2.0),
    ("open-cold", 3.0),
];
/// The same as [`GROWTH`] of what a call takes, which is the mean of a hundred calls that can be interrupted.
const CALL_GROWTH: f64 = 5.0;
const COARSE_CALL_GROWTH: f64 = 15.0;

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Budgets {
    /// The kernel that they were measured on.
    kernel: String,
    operations: Vec<Budget>,
    #[serde(default)]
    calls: Vec<CallBudget>,
    programs: Vec<ProgramBudget>,
}

/// What a configuration may add to an operation.
#[derive(Debug, Serialize, Deserialize)]
struct Budget {
    operation: String,
    configuration: String,
    added: f64,
}

/// What a call of a program may take when a labelled task does this.
#[derive(Debug, Serialize, Deserialize)]
struct CallBudget {
    operation: String,
    program: String,
    each: f64,
}

/// What the verifier may walk through.
#[derive(Debug, Serialize, Deserialize)]
struct ProgramBudget {
    name: String,
    verified: u32,
}

/// Makes what was measured the budget.
pub(super) fn set(record: &Record, path: &Path) -> Result<()> {
    let mut budgets = Budgets { kernel: record.kernel.clone(), ..Budgets::default() };
    for cell in record.cells.iter().filter(|cell| cell.configuration != NOTHING) {
        if let Some(added) = record.added(&cell.operation, &cell.configuration) {
            let (operation, configuration) = (cell.operation.clone(), cell.configuration.clone());
            budgets.operations.push(Budget { operation, configuration, added: added.round() });
        }
    }
    budgets.calls = calls(record)
        .map(|calls| CallBudget {
            operation: calls.operation.clone(),
            program: calls.program.clone(),
            each: calls.each.round(),
        })
        .collect();
    budgets.programs = record
        .programs
        .iter()
        .map(|program| ProgramBudget { name: program.name.clone(), verified: program.verified })
        .collect();
    budgets.programs.sort_by(|one, other| one.name.cmp(&other.name));
    let text = serde_json::to_string_pretty(&budgets)? + "\n";
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// The calls that budgets are about: not those of empty programs.
fn calls(record: &Record) -> impl Iterator<Item = &Calls> {
    record.calls.iter().filter(|calls| calls.configuration != FLOOR)
}

/// Whether everything stays within its budget; says what does not.
pub(super) fn check(record: &Record, path: &Path) -> Result<bool> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let budgets: Budgets =
        serde_json::from_slice(&text).with_context(|| format!("{} holds no budgets", path.display()))?;
    if budgets.kernel != record.kernel {
        println!("budgets were measured on {}, this is {}", budgets.kernel, record.kernel);
    }
    let found = compare(&budgets, record);
    for line in &found.over {
        println!("OVER BUDGET {line}");
    }
    for line in &found.under {
        println!("well within its budget, which could be lowered: {line}");
    }
    let budgets = budgets.operations.len() + budgets.calls.len() + budgets.programs.len();
    println!("{budgets} budgets, {} exceeded", found.over.len());
    Ok(found.over.is_empty())
}

#[derive(Debug, Default)]
struct Found {
    over: Vec<String>,
    under: Vec<String>,
}

fn compare(budgets: &Budgets, record: &Record) -> Found {
    let mut found = Found::default();
    for budget in &budgets.operations {
        let row = format!("{}, {}", budget.operation, budget.configuration);
        let whole = record.cost(&budget.operation, &budget.configuration);
        let Some((added, whole)) = record.added(&budget.operation, &budget.configuration).zip(whole) else {
            found.over.push(format!("{row}: not measured"));
            continue;
        };
        let coarse = COARSE.iter().find(|(operation, _)| *operation == budget.operation);
        let noise = coarse.map_or(NOISE, |(_, noise)| *noise);
        let slack = (budget.added.abs() * GROWTH / 100.0).max(whole * noise / 100.0);
        let line =
            || format!("{row}: {}, budget {} (± {})", signed(added), signed(budget.added), grouped(slack));
        if added > budget.added + slack {
            found.over.push(line());
        } else if added < budget.added - slack {
            found.under.push(line());
        }
    }
    for budget in &budgets.calls {
        let is_it = |calls: &&Calls| calls.operation == budget.operation && calls.program == budget.program;
        // A program that is not called any more is no cost.
        let Some(calls) = calls(record).find(is_it) else { continue };
        let is_coarse = COARSE.iter().any(|(operation, _)| *operation == budget.operation);
        let growth = if is_coarse { COARSE_CALL_GROWTH } else { CALL_GROWTH };
        if calls.each > budget.each * (1.0 + growth / 100.0) {
            found.over.push(format!(
                "{}, program {}: {} a call, budget {}",
                budget.operation,
                budget.program,
                grouped(calls.each),
                grouped(budget.each)
            ));
        }
    }
    for budget in &budgets.programs {
        // A program that this kernel has no hook for is no cost.
        let Some(program) = record.programs.iter().find(|program| program.name == budget.name) else {
            continue;
        };
        let slack = f64::from(budget.verified) * GROWTH / 100.0;
        if f64::from(program.verified) > f64::from(budget.verified) + slack {
            found.over.push(format!(
                "program {}: the verifier walks {} instructions, budget {}",
                program.name,
                grouped(program.verified.into()),
                grouped(budget.verified.into())
            ));
        }
    }
    for program in &record.programs {
        if budgets.programs.iter().all(|budget| budget.name != program.name) {
            found.over.push(format!("program {} has no budget", program.name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Cell, Program};

    fn record(nothing: f64, labelled: f64, verified: u32) -> Record {
        let cell = |configuration: &str, cost: f64| Cell {
            operation: "read".to_owned(),
            configuration: configuration.to_owned(),
            samples: vec![cost + 5.0, cost],
        };
        Record {
            cells: vec![cell(NOTHING, nothing), cell("labelled-10", labelled)],
            programs: vec![Program { name: "file_open".to_owned(), verified, bytes: 1 }],
            ..Record::default()
        }
    }

    fn budgets() -> Budgets {
        Budgets {
            kernel: String::new(),
            operations: vec![Budget {
                operation: "read".to_owned(),
                configuration: "labelled-10".to_owned(),
                added: 1000.0,
            }],
            calls: vec![CallBudget {
                operation: "read".to_owned(),
                program: "file_permission".to_owned(),
                each: 900.0,
            }],
            programs: vec![ProgramBudget { name: "file_open".to_owned(), verified: 1000 }],
        }
    }

    #[test]
    fn two_percent_more_than_the_budget_is_too_much() {
        assert!(compare(&budgets(), &record(5000.0, 6019.0, 1020)).over.is_empty());
        let found = compare(&budgets(), &record(5000.0, 6021.0, 1021));
        assert_eq!(found.over.len(), 2, "{found:?}");
        assert!(found.over[0].starts_with("read, labelled-10: +1 021"), "{found:?}");
    }

    #[test]
    fn a_call_that_takes_more_is_too_much() {
        let call = |each: f64| Calls {
            operation: "read".to_owned(),
            configuration: "labelled-10".to_owned(),
            program: "file_permission".to_owned(),
            calls: 1.0,
            each,
        };
        let record = |each: f64| Record { calls: vec![call(each)], ..record(5000.0, 6000.0, 1000) };
        assert!(compare(&budgets(), &record(944.0)).over.is_empty());
        assert_eq!(compare(&budgets(), &record(946.0)).over.len(), 1);
    }

    #[test]
    fn what_costs_less_is_said_and_no_failure() {
        let found = compare(&budgets(), &record(5000.0, 5900.0, 10));
        assert!(found.over.is_empty(), "{found:?}");
        assert_eq!(found.under.len(), 1, "{found:?}");
    }

    #[test]
    fn what_was_not_measured_or_has_no_budget_is_too_much() {
        let nothing = Record { programs: record(1.0, 1.0, 1).programs, ..Record::default() };
        assert_eq!(compare(&budgets(), &nothing).over.len(), 1);
        let none = Budgets { programs: Vec::new(), ..budgets() };
        assert_eq!(compare(&none, &record(5000.0, 6000.0, 1)).over.len(), 1);
    }
}
