//! Showing what was measured.

use std::path::PathBuf;

use anyhow::Result;

use crate::record::Record;

mod budgets;
mod chart;
mod compare;
mod goals;
mod page;
mod table;

/// What to show, and where.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What was measured.
    record: PathBuf,
    /// The date of the run.
    #[arg(long, default_value = "")]
    date: String,
    /// The commit that was measured.
    #[arg(long, default_value = "")]
    revision: String,
    /// The command that repeats it.
    #[arg(long, default_value = "")]
    command: String,
    /// Keep the record in this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the chart into this file.
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Put tables, goals and chart into this page.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Compare with another record.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Fail where something costs more than this file allows.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Make what was measured the budget.
    #[arg(long, value_name = "FILE")]
    set_budgets: Option<PathBuf>,
}

/// Shows it; false if it costs more than it may.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let mut record = Record::read(&args.record)?;
    for (field, value) in [
        (&mut record.date, &args.date),
        (&mut record.revision, &args.revision),
        (&mut record.command, &args.command),
    ] {
        if !value.is_empty() {
            field.clone_from(value);
        }
    }
    if let Some(path) = &args.json {
        record.write(path)?;
    }
    print!("{}", table::text(&record));
    if !record.is_reduced {
        print!("{}", goals::text(&record));
    }
    if let Some(path) = &args.chart {
        chart::write(&record, path)?;
    }
    if let Some(path) = &args.page {
        page::update(&record, path)?;
    }
    if let Some(path) = &args.compare {
        print!("{}", compare::text(&Record::read(path)?, &record));
    }
    if let Some(path) = &args.set_budgets {
        budgets::set(&record, path)?;
    }
    match &args.check {
        Some(path) => budgets::check(&record, path),
        None => Ok(true),
    }
}
