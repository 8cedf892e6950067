//! Tables of what was measured: for a terminal, and for a page.

use std::fmt::Write;

use crate::plan::{FLOOR, NOTHING};
use crate::record::{Record, Unit};

/// A table of words.
pub(super) struct Table {
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// With columns as wide as they need to be, the first to the left.
    pub(super) fn text(&self) -> String {
        let columns = self.head.len();
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for line in lines() {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(text, "{cell:<width$}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            text.push('\n');
        }
        text
    }

    /// As Markdown.
    pub(super) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|---|{}\n", "---:|".repeat(self.head.len().saturating_sub(1)));
        line(&self.head) + &rule + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }
}

/// A whole number, with spaces between thousands.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    if number < -0.5 { format!("-{text}") } else { text }
}

/// The same, with its sign.
pub(super) fn signed(number: f64) -> String {
    if number < -0.5 { grouped(number) } else { format!("+{}", grouped(number)) }
}

/// What operations cost, and how much more they cost in each configuration.
pub(super) fn operations(record: &Record) -> Table {
    let head = std::iter::once(format!("{} per operation", record.unit.name()))
        .chain(record.configurations.iter().map(|configuration| configuration.title.clone()))
        .collect();
    let rows = record.operations.iter().map(|operation| {
        let cells = record.configurations.iter().map(|configuration| {
            let cell = match configuration.key.as_str() {
                NOTHING => record.cost(&operation.key, NOTHING).map(grouped),
                other => record.added(&operation.key, other).map(signed),
            };
            cell.unwrap_or_else(|| "-".to_owned())
        });
        std::iter::once(operation.title.clone()).chain(cells).collect()
    });
    Table { head, rows: rows.collect() }
}

/// The labelled configuration whose calls were counted.
pub(super) fn counted(record: &Record) -> Option<&str> {
    let of_guard = |calls: &&crate::record::Calls| calls.configuration != FLOOR;
    record.calls.iter().find(of_guard).map(|calls| calls.configuration.as_str())
}

/// How often an operation calls hooks, and what follows for its cost.
pub(super) fn calls(record: &Record) -> Option<Table> {
    let counted = counted(record)?;
    let head = ["hook calls per operation", "calls", "floor a call", "in the programs", "added", "programs"];
    let rows = record.operations.iter().map(|operation| {
        let of_this = || {
            let is_it = |calls: &&crate::record::Calls| {
                calls.operation == operation.key && calls.configuration == counted
            };
            record.calls.iter().filter(is_it)
        };
        let calls = record.calls(&operation.key, counted);
        let inside: f64 = of_this().map(|calls| calls.calls * calls.each).sum();
        let floor = record
            .added(&operation.key, FLOOR)
            .filter(|_| record.calls(&operation.key, FLOOR) > 0.0)
            .map(|added| added / record.calls(&operation.key, FLOOR));
        let programs: Vec<String> = of_this()
            .map(|calls| format!("{} {}×{}", calls.program, number(calls.calls), grouped(calls.each)))
            .collect();
        vec![
            operation.title.clone(),
            number(calls),
            floor.map_or("-".to_owned(), grouped),
            grouped(inside),
            record.added(&operation.key, counted).map_or("-".to_owned(), signed),
            programs.join(", "),
        ]
    });
    Some(Table { head: head.map(str::to_owned).to_vec(), rows: rows.collect() })
}

/// A number that is whole more often than not.
fn number(number: f64) -> String {
    if (number - number.round()).abs() < 0.005 { format!("{number:.0}") } else { format!("{number:.2}") }
}

/// Costs that are not of operations.
pub(super) fn costs(record: &Record) -> Option<Table> {
    if record.costs.is_empty() {
        return None;
    }
    let rows = record.costs.iter().map(|cost| {
        let mut values = cost.values.clone();
        values.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let last = values.len().saturating_sub(1) as f64;
            values.get((last * part).round() as usize).copied().map_or("-".to_owned(), precise)
        };
        let spread = if values.len() > 1 { [at(0.99), at(1.0)] } else { ["".to_owned(), "".to_owned()] };
        let [high, worst] = spread;
        vec![cost.title.clone(), at(0.5), high, worst, cost.unit.clone()]
    });
    let head = ["other costs", "median", "99 %", "worst", "unit"];
    Some(Table { head: head.map(str::to_owned).to_vec(), rows: rows.collect() })
}

fn precise(number: f64) -> String {
    if number.abs() < 100.0 { format!("{number:.2}") } else { grouped(number) }
}

/// Whole programs: medians, and how much longer than without an agent.
pub(super) fn workloads(record: &Record) -> Option<Table> {
    let first = record.workloads.first()?;
    let unit = match record.unit {
        Unit::Instructions => "10⁹ instructions",
        Unit::Nanoseconds => "seconds",
    };
    let head = std::iter::once(format!("whole programs, {unit}"))
        .chain(first.seconds.iter().map(|(configuration, _)| configuration.clone()))
        .collect();
    let rows = record.workloads.iter().map(|workload| {
        let medians: Vec<f64> = workload.seconds.iter().map(|(_, seconds)| median(seconds)).collect();
        let base = medians.first().copied().unwrap_or_default();
        let cells = medians.iter().enumerate().map(|(index, seconds)| match index {
            0 => format!("{seconds:.3}"),
            _ => format!("{seconds:.3} ({:+.1} %)", (seconds / base - 1.0) * 100.0),
        });
        std::iter::once(workload.name.clone()).chain(cells).collect()
    });
    Some(Table { head, rows: rows.collect() })
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// How far loops differ, for each operation: the worst configuration.
pub(super) fn spreads(record: &Record) -> String {
    let spreads = record.operations.iter().map(|operation| {
        let worst = record
            .cells
            .iter()
            .filter(|cell| cell.operation == operation.key)
            .map(crate::record::Cell::spread)
            .fold(0.0, f64::max);
        format!("{} {worst:.2} %", operation.key)
    });
    spreads.collect::<Vec<_>>().join(", ")
}

/// Everything, for a terminal.
pub(super) fn text(record: &Record) -> String {
    let mut text =
        format!("Linux {}, {}, the fastest of {} loops\n\n", record.kernel, record.parameters, record.loops);
    let mut add = |table: Option<Table>| {
        if let Some(table) = table {
            text.push_str(&table.text());
            text.push('\n');
        }
    };
    if !record.operations.is_empty() {
        add(Some(operations(record)));
        add(calls(record));
    }
    add(costs(record));
    add(workloads(record));
    if !record.operations.is_empty() {
        let _ = writeln!(text, "median above fastest, worst configuration: {}\n", spreads(record));
    }
    for absent in &record.absent {
        let _ = writeln!(text, "not compared: {absent}");
    }
    for failure in &record.failures {
        let _ = writeln!(text, "FAILED {failure}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(grouped(1_234_567.4), "1 234 567");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(signed(-1200.0), "-1 200");
        assert_eq!(signed(-0.2), "+0");
    }
}
