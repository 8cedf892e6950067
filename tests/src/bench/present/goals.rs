//! The goals for what decisions cost, and where each stands.

use crate::plan::{FANOTIFY, FLOOR, SUPERVISOR, UNLABELLED, labelled, under_landlock};
use crate::record::Record;

use super::table::{Table, grouped, signed};

/// Calls that add less than this to an operation are none: a hook costs more.
const NOTICEABLE: f64 = 50.0;

/// One goal, and what was measured.
pub(super) struct Goal {
    what: String,
    limit: String,
    measured: String,
    /// None: this run does not tell.
    is_met: Option<bool>,
}

impl Goal {
    /// A number that may not be greater than a limit.
    fn at_most(what: &str, limit: String, bound: Option<f64>, row: Option<Row>) -> Self {
        let is_met = bound.zip(row.as_ref()).map(|(bound, row)| row.value <= bound);
        let measured = row.map_or("not measured".to_owned(), |row| row.text);
        Self { what: what.to_owned(), limit, measured, is_met }
    }
}

/// What was measured, with the row that it stands in.
struct Row {
    value: f64,
    text: String,
}

struct Of<'a>(&'a Record);

impl Of<'_> {
    fn title(&self, operation: &str) -> String {
        let found = self.0.operations.iter().find(|other| other.key == operation);
        found.map_or(operation.to_owned(), |operation| operation.title.clone())
    }

    /// How often the floor an operation adds in a configuration, where there is a floor.
    fn floors(&self, operation: &str, configuration: &str) -> Option<Row> {
        let added = self.0.added(operation, configuration)?;
        let floor = self.0.added(operation, FLOOR)?;
        let value = added / floor;
        let text = format!("{}: {} = {value:.2} × {}", self.title(operation), signed(added), grouped(floor));
        (floor >= NOTICEABLE).then_some(Row { value, text })
    }

    fn worst(rows: impl Iterator<Item = Option<Row>>) -> Option<Row> {
        rows.flatten().max_by(|one, other| one.value.total_cmp(&other.value))
    }

    fn added(&self, operation: &str, configurations: &[String]) -> Option<Row> {
        Self::worst(configurations.iter().map(|configuration| {
            let value = self.0.added(operation, configuration)?;
            Some(Row { value, text: format!("{}: {}", self.title(operation), signed(value)) })
        }))
    }

    /// The labelled configurations, the smallest first.
    fn labelled(&self) -> Vec<String> {
        let keys = self.0.configurations.iter().map(|configuration| configuration.key.clone());
        keys.filter(|key| key.starts_with("labelled-")).collect()
    }
}

/// All of them that this benchmark tells.
pub(super) fn all(record: &Record) -> Vec<Goal> {
    let of = Of(record);
    let every = of.labelled();
    let largest = every.last().cloned().unwrap_or_else(|| labelled(10_000));
    let times = |factor: f64| format!("≤ {factor} × the floor");
    let mut goals = Vec::new();

    let rows = record.operations.iter().map(|operation| of.floors(&operation.key, UNLABELLED));
    goals.push(Goal::at_most("unlabelled, any operation", times(1.15), Some(1.15), Of::worst(rows)));
    goals.push(Goal::at_most(
        "labelled, file open, warm, 10 to 10 000 literals",
        "≤ 620".to_owned(),
        Some(620.0),
        of.added("open-8", &every),
    ));
    let flat = {
        let all: Vec<f64> = every.iter().filter_map(|key| record.added("open-8", key)).collect();
        let (least, most) =
            all.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), one| (least.min(*one), most.max(*one)));
        (all.len() > 1)
            .then(|| Row { value: most / least, text: format!("{} to {}", signed(least), signed(most)) })
    };
    goals.push(Goal::at_most("… flat in the number of literals", "within 2 %".to_owned(), Some(1.02), flat));
    goals.push(Goal::at_most(
        "… a new file in a warm directory",
        "≤ 900".to_owned(),
        Some(900.0),
        of.added("open-directory", &every),
    ));
    let landlock = record.added("open-cold", &under_landlock(1));
    goals.push(Goal::at_most(
        "… in a cold directory",
        format!("≤ Landlock, {}", landlock.map_or("not measured".to_owned(), grouped)),
        landlock,
        of.added("open-cold", &every),
    ));
    for (operations, factor, what) in [
        (&["read", "write"][..], 2.5, "labelled, 4 KiB read or write, re-checked"),
        (&["udp-send"], 4.0, "labelled, UDP send, most networks"),
        (&["tcp-connect", "exec"], 2.5, "labelled, TCP connect or exec"),
    ] {
        let rows = operations.iter().map(|operation| of.floors(operation, &largest));
        goals.push(Goal::at_most(what, times(factor), Some(factor), Of::worst(rows)));
    }
    for (rival, what) in [(FANOTIFY, "file open, against fanotify"), (SUPERVISOR, "… against seccomp notify")]
    {
        let row =
            record.added("open-8", rival).zip(record.added("open-8", &largest)).map(|(theirs, ours)| {
                let text = format!("{} to {}: {:.1} × less", signed(ours), signed(theirs), theirs / ours);
                // Less is better in all rows.
                Row { value: ours / theirs, text }
            });
        goals.push(Goal::at_most(what, "≥ 16 × less".to_owned(), Some(1.0 / 16.0), row));
    }
    goals
}

/// As a table.
pub(super) fn table(record: &Record) -> Table {
    let rows = all(record).into_iter().map(|goal| {
        let verdict = match goal.is_met {
            Some(true) => "met",
            Some(false) => "not met",
            None => "unknown",
        };
        vec![goal.what, goal.limit, goal.measured, verdict.to_owned()]
    });
    let head = ["goal", "limit", "measured", ""].map(str::to_owned).to_vec();
    Table { head, rows: rows.collect() }
}

/// For a terminal.
pub(super) fn text(record: &Record) -> String {
    if record.operations.is_empty() { String::new() } else { table(record).text() + "\n" }
}
