//! One run: all configurations, one after the other in turns.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use guard_tests::daemon::Daemon;
use guard_tests::layout;
use guard_tests::users::{self, AGENT, FREE};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{Uid, User};

use crate::costs;
use crate::measure::Samples;
use crate::operations::{OPERATIONS, Operation};
use crate::places::Places;
use crate::plan::Configuration;
use crate::policy;
use crate::programs::{self, Empty, Loaded};
use crate::record::{Counted, Named, Program, Record, SCHEMA, Unit};
use crate::workloads;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Loops of each measurement in a turn.
    #[arg(long, default_value_t = 3)]
    loops: usize,
    /// Turns that configurations take under the same programs.
    #[arg(long, default_value_t = 2)]
    turns: usize,
    /// Numbers of literals to measure with.
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    literals: Vec<usize>,
    /// Only operations whose key contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    operation: String,
    /// Only what budgets are about: fewer operations, the smallest policy, nothing to compare with.
    #[arg(long)]
    reduced: bool,
    /// What to measure besides operations.
    #[arg(long, value_enum, value_delimiter = ',')]
    also: Vec<Part>,
    /// Leave the operations out.
    #[arg(long)]
    no_operations: bool,
    /// Measure on this host, in time, instead of in a guest that counts instructions.
    #[arg(long)]
    native: bool,
    /// The cargo that one of the whole programs is.
    #[arg(long, value_name = "PROGRAM", default_value = "cargo")]
    cargo: std::path::PathBuf,
}

/// What can be measured besides operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Memory, starts, changes, events.
    Costs,
    /// Whole programs.
    Workloads,
}

/// Where files are: nothing but a tmpfs; one of guests, and one that is mounted for a run on a host.
const ROOT: &str = "/scratch/tmpfs";
const NATIVE_ROOT: &str = "/run/guard-bench";

/// Measures, and says on standard output what was found.
pub(crate) fn run(args: &Args) -> Result<()> {
    let is_guest = Path::new("/run/guard-vm").is_dir();
    ensure!(is_guest != args.native, "without --native this measures in guests only: cargo xtask bench");
    let mut _mounted = None;
    let root = if args.native {
        // Nobody may be who is measured: the policy is about these numbers.
        for who in [AGENT, FREE] {
            let user = User::from_uid(Uid::from_raw(who.uid)).context("look a user up")?;
            ensure!(user.is_none(), "this host has a user {}, who would be measured", who.uid);
        }
        _mounted = Some(Mounted::tmpfs(NATIVE_ROOT)?);
        NATIVE_ROOT
    } else {
        users::create(std::iter::once(workloads::WORKER))?;
        ROOT
    };
    let places = Places::make(Path::new(root))?;
    let mut run = Run { args, places, samples: Samples::default(), record: describe(args)? };
    if !args.no_operations {
        run.operations()?;
    }
    if args.also.contains(&Part::Costs) {
        say("other costs");
        let failed = costs::measure(&run.places, &mut run.record.costs);
        run.samples.failures.extend(failed.err().map(|error| format!("other costs: {error:#}")));
    }
    if args.also.contains(&Part::Workloads) {
        say("whole programs");
        if layout::which("redis-benchmark").is_err() {
            run.record.absent.push("redis-benchmark: guests do not have it".to_owned());
        }
        match workloads::measure(&args.cargo) {
            Ok(workloads) => run.record.workloads = workloads,
            Err(error) => run.samples.failures.push(format!("whole programs: {error:#}")),
        }
    }
    run.record.cells = run.samples.cells;
    run.record.calls = run.samples.calls;
    for failure in &run.samples.failures {
        say(&format!("failed: {failure}"));
    }
    run.record.failures = run.samples.failures;
    println!("{}", serde_json::to_string(&run.record)?);
    Ok(())
}

fn describe(args: &Args) -> Result<Record> {
    let read = |path: &str| -> Result<String> {
        Ok(fs::read_to_string(path).with_context(|| format!("read {path}"))?.trim().to_owned())
    };
    let clock = read("/sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    Ok(Record {
        schema: SCHEMA.to_owned(),
        kernel: read("/proc/sys/kernel/osrelease")?,
        parameters: format!("{} (clock {clock})", read("/proc/cmdline")?),
        unit: if args.native { Unit::Nanoseconds } else { Unit::Instructions },
        loops: args.loops * args.turns,
        is_reduced: args.reduced,
        ..Record::default()
    })
}

/// Where policies are written before anything is measured.
const BUNDLES: &str = "/run/guard-bench-bundles";

struct Run<'a> {
    args: &'a Args,
    places: Places,
    samples: Samples,
    record: Record,
}

impl Run<'_> {
    fn operations(&mut self) -> Result<()> {
        let wanted: Vec<&Operation> = OPERATIONS
            .iter()
            .filter(|operation| operation.is_budgeted || !self.args.reduced)
            .filter(|operation| operation.key.contains(&self.args.operation))
            .collect();
        self.record.operations = wanted
            .iter()
            .map(|operation| Counted {
                key: operation.key.to_owned(),
                title: operation.title.to_owned(),
                count: operation.count,
            })
            .collect();
        let nothing = Configuration::nothing();
        let (rivals, absent) = if self.args.reduced { Default::default() } else { Configuration::rivals() };
        self.record.absent = absent;
        if !self.args.reduced {
            self.record.absent.push(app_armor());
        }

        // First of all, since what this process allocates is copied by every fork that is measured.
        if !self.args.reduced {
            for (number, literals) in self.args.literals.iter().enumerate().skip(1) {
                policy::bundle(&self.places, *literals, number as u64 + 1)
                    .write(&Path::new(BUNDLES).join(literals.to_string()))?;
            }
        }

        // Two turns without anything, at the begin and at the end: whatever changed in between shows.
        say("without an agent");
        let before: Vec<&Configuration> = std::iter::once(&nothing).chain(&rivals).collect();
        self.turns(&before, &wanted)?;
        let mut guarded = Vec::new();
        let programs = self.guarded(&wanted, &mut guarded).unwrap_or_else(|error| {
            self.samples.failures.push(format!("with Guard: {error:#}"));
            Vec::new()
        });
        self.record.programs = programs
            .iter()
            .map(|program| Program {
                name: program.name.clone(),
                verified: program.verified,
                bytes: program.bytes,
            })
            .collect();
        let mut floor = None;
        if !self.args.reduced && !programs.is_empty() {
            say("with empty programs");
            let empty = Empty::attach(&programs)?;
            let configuration = Configuration::floor();
            self.turns(&[&configuration], &wanted)?;
            self.samples.count_calls(&configuration, &self.places, &wanted)?;
            drop(empty);
            floor = Some(configuration);
        }
        say("without an agent, again");
        self.turns(&[&nothing], &wanted)?;
        self.record.configurations = std::iter::once(nothing)
            .chain(floor)
            .chain(guarded)
            .chain(rivals)
            .map(|configuration| Named { key: configuration.key, title: configuration.title })
            .collect();
        Ok(())
    }

    /// Everything under Guard; the programs that are attached.
    fn guarded(&mut self, wanted: &[&Operation], measured: &mut Vec<Configuration>) -> Result<Vec<Loaded>> {
        let literals = if self.args.reduced { &self.args.literals[..1] } else { &self.args.literals[..] };
        let Some((first, others)) = literals.split_first() else { return Ok(Vec::new()) };
        say(&format!("with Guard, and {first} literals"));
        let bundles = Path::new(BUNDLES);
        let daemon = Daemon::start_apart("bench", &policy::bundle(&self.places, *first, 1))?;
        let programs: Vec<Loaded> = programs::loaded()?.into_values().collect();
        let unlabelled = Configuration::unlabelled();
        let labelled = Configuration::labelled(*first);
        self.turns(&[&unlabelled, &labelled], wanted)?;
        self.samples.count_calls(&labelled, &self.places, wanted)?;
        measured.extend([unlabelled, labelled]);
        for literals in others {
            say(&format!("with Guard, and {literals} literals"));
            daemon.apply(&bundles.join(literals.to_string()))?;
            let labelled = Configuration::labelled(*literals);
            self.turns(&[&labelled], wanted)?;
            measured.push(labelled);
        }
        daemon.stop()?;
        Ok(programs)
    }

    /// Measures configurations that the same programs are attached in, in turns.
    fn turns(&mut self, configurations: &[&Configuration], wanted: &[&Operation]) -> Result<()> {
        for _ in 0..self.args.turns {
            for configuration in configurations {
                let taken = self.samples.take(configuration, &self.places, wanted, self.args.loops);
                self.samples.failures.extend(taken.err().map(|error| format!("{error:#}")));
            }
        }
        Ok(())
    }
}

/// A tmpfs of the run, until dropped.
struct Mounted(&'static str);

impl Mounted {
    fn tmpfs(at: &'static str) -> Result<Self> {
        fs::create_dir_all(at).with_context(|| format!("create {at}"))?;
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .with_context(|| format!("mount a tmpfs on {at}"))?;
        Ok(Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(self.0);
    }
}

/// Why there is no AppArmor to compare with.
fn app_armor() -> String {
    let active = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let mut reasons = Vec::new();
    if !active.split(',').any(|name| name == "apparmor") {
        reasons.push("the kernel was booted without it, so that the other numbers are without its hooks");
    }
    if layout::which("apparmor_parser").is_err() {
        reasons.push("there is no apparmor_parser to load a profile with");
    }
    format!("AppArmor: {}", reasons.join("; "))
}

fn say(what: &str) {
    eprintln!("guard-bench: {what}");
}
