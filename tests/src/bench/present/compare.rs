//! Two records side by side.

use crate::record::Record;

use super::table::{Table, grouped};

/// Differences below this many percent are the method's.
const NOISE: f64 = 0.2;

/// What every operation cost before and costs now, and the largest difference.
pub(super) fn text(before: &Record, now: &Record) -> String {
    let mut worst = 0.0_f64;
    let mut rows = Vec::new();
    for cell in &now.cells {
        let Some(old) = before.cost(&cell.operation, &cell.configuration) else { continue };
        let new = cell.cost();
        let percent = (new / old - 1.0) * 100.0;
        worst = worst.max(percent.abs());
        if percent.abs() > NOISE {
            rows.push(vec![
                format!("{}, {}", cell.operation, cell.configuration),
                grouped(old),
                grouped(new),
                format!("{percent:+.2} %"),
            ]);
        }
    }
    let head = ["differs from the other record", "then", "now", ""].map(str::to_owned).to_vec();
    let compared =
        now.cells.iter().filter(|cell| before.cell(&cell.operation, &cell.configuration).is_some());
    format!(
        "{}{} of {} cells differ by more than {NOISE} %; the most by {worst:.2} %\n",
        if rows.is_empty() { String::new() } else { Table { head, rows: rows.clone() }.text() },
        rows.len(),
        compared.count()
    )
}
