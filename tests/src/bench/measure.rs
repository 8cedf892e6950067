//! Loops, and what they cost.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use guard_tests::attempt::{Outcome, attempt, start};
use guard_tests::raw::{SharedPages, futex_wait, futex_wake};

use crate::operations::{BATCH, Operation, Work};
use crate::places::Places;
use crate::plan::Configuration;
use crate::programs;
use crate::record::{Calls, Cell};

/// Costs cross from one process to another as whole numbers of this part.
const PART: f64 = 100.0;
/// Seconds that the other side may take for a step.
const PATIENCE: usize = 120;

/// Everything that was measured so far.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) cells: Vec<Cell>,
    pub(crate) calls: Vec<Calls>,
    /// What could not be measured.
    pub(crate) failures: Vec<String>,
}

impl Samples {
    /// Does every operation in a configuration, in so many loops each.
    pub(crate) fn take(
        &mut self,
        configuration: &Configuration,
        places: &Places,
        operations: &[&Operation],
        loops: usize,
    ) -> Result<()> {
        let results =
            SharedPages::new(operations.len() * (loops + 1) * size_of::<u32>()).context("share memory")?;
        // Of each operation, the error that it met, and what the loops cost.
        let slot = |operation: usize, number: usize| results.word(operation * (loops + 1) + number);
        let around = configuration.around(places)?;
        let outcome = attempt(configuration.who, || {
            let _within = configuration.enter(places)?;
            for (index, operation) in operations.iter().enumerate() {
                let failed = measured(operation, places, loops, |number, cost| {
                    slot(index, 1 + number).store((cost * PART) as u32, Ordering::SeqCst);
                });
                if let Err(error) = failed {
                    slot(index, 0).store(error.raw_os_error().unwrap_or(-1) as u32, Ordering::SeqCst);
                }
            }
            Ok(())
        })?;
        drop(around);
        ensure!(outcome == Outcome::Worked, "{}: {outcome:?}", configuration.title);
        let mut said = format!("guard-bench: {}:", configuration.key);
        for (index, operation) in operations.iter().enumerate() {
            match slot(index, 0).load(Ordering::SeqCst) {
                0 => {}
                errno => {
                    let error = io::Error::from_raw_os_error(errno as i32);
                    self.failures.push(format!("{}, {}: {error}", operation.title, configuration.title));
                    continue;
                }
            }
            let samples =
                (1..=loops).map(|number| f64::from(slot(index, number).load(Ordering::SeqCst)) / PART);
            let cell = self.cell(operation.key, &configuration.key);
            cell.samples.extend(samples);
            said.push_str(&format!(" {} {:.0}", operation.key, cell.cost()));
        }
        eprintln!("{said}");
        Ok(())
    }

    fn cell(&mut self, operation: &str, configuration: &str) -> &mut Cell {
        let is_it = |cell: &Cell| cell.operation == operation && cell.configuration == configuration;
        let index = self.cells.iter().position(is_it).unwrap_or_else(|| {
            self.cells.push(Cell {
                operation: operation.to_owned(),
                configuration: configuration.to_owned(),
                samples: Vec::new(),
            });
            self.cells.len() - 1
        });
        &mut self.cells[index]
    }

    /// Counts how often each operation calls which program, and what a call takes in it.
    pub(crate) fn count_calls(
        &mut self,
        configuration: &Configuration,
        places: &Places,
        operations: &[&Operation],
    ) -> Result<()> {
        let _counting = programs::count()?;
        for operation in operations {
            match calls(configuration, places, operation) {
                Ok(calls) => self.calls.extend(calls),
                Err(error) => self.failures.push(format!("calls of {}: {error:#}", operation.title)),
            }
        }
        Ok(())
    }
}

/// Does an operation in so many loops, and says what each cost.
fn measured(
    operation: &Operation,
    places: &Places,
    loops: usize,
    say: impl Fn(usize, f64),
) -> io::Result<()> {
    let mut work = (operation.make)(places)?;
    let mut done = 0;
    // Once unmeasured: what comes first fills memories that others find full.
    cost(&mut *work, BATCH, &mut done)?;
    for number in 0..loops {
        say(number, cost(&mut *work, operation.count, &mut done)?);
    }
    Ok(())
}

/// What one operation costs, of so many, and how many were done.
fn cost(work: &mut dyn Work, count: usize, done: &mut usize) -> io::Result<f64> {
    let mut elapsed = 0;
    for _ in 0..count / BATCH {
        work.prepare(BATCH)?;
        let begin = Instant::now();
        for _ in 0..BATCH {
            work.once(*done)?;
            *done += 1;
        }
        elapsed += begin.elapsed().as_nanos();
        work.clean()?;
    }
    Ok(elapsed as f64 / count as f64)
}

/// What the kernel counts while the operation is done, and while nothing is done. The process that does it
/// waits at each step for this one to look, by calls that no hook sees.
fn calls(configuration: &Configuration, places: &Places, operation: &Operation) -> Result<Vec<Calls>> {
    let steps = SharedPages::new(4096).context("share memory")?;
    let (theirs, ours) = (steps.word(0), steps.word(1));
    let running = start(configuration.who, || {
        let step = |number: u32| {
            theirs.store(number, Ordering::SeqCst);
            futex_wake(theirs);
            while ours.load(Ordering::SeqCst) < number {
                futex_wait(ours, number - 1, true);
            }
        };
        let mut work = (operation.make)(places)?;
        let mut done = 0;
        cost(&mut *work, BATCH, &mut done)?;
        work.prepare(BATCH)?;
        step(1);
        step(2);
        for number in done..done + BATCH {
            work.once(number)?;
        }
        step(3);
        work.clean()
    })?;
    let mut seen = Vec::new();
    for step in 1..=3 {
        let mut waited = 0;
        while theirs.load(Ordering::SeqCst) < step {
            waited += usize::from(!futex_wait(theirs, step - 1, true));
            if waited > PATIENCE {
                bail!("step {step} was not reached");
            }
        }
        seen.push(programs::loaded()?);
        ours.store(step, Ordering::SeqCst);
        futex_wake(ours);
    }
    let outcome = running.outcome()?;
    ensure!(outcome == Outcome::Worked, "{outcome:?}");
    let mut found = Vec::new();
    for (id, after) in &seen[2] {
        let [idle, before] = [&seen[0], &seen[1]].map(|seen| seen.get(id));
        let (Some(idle), Some(before)) = (idle, before) else { continue };
        let looking = before.runs - idle.runs;
        let runs = (after.runs - before.runs).saturating_sub(looking);
        if runs == 0 {
            continue;
        }
        let time =
            (after.nanoseconds - before.nanoseconds).saturating_sub(before.nanoseconds - idle.nanoseconds);
        found.push(Calls {
            operation: operation.key.to_owned(),
            configuration: configuration.key.clone(),
            program: after.name.clone(),
            calls: runs as f64 / BATCH as f64,
            each: time as f64 / runs as f64,
        });
    }
    Ok(found)
}
