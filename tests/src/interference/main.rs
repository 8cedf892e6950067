//! Whether real programs notice Guard: for a guest (`cargo xtask interference`).
//!
//! Every workload is run three times, in the same cgroup and an equal directory: without Guard, with its
//! programs attached and nothing labelled, and as a subject that is permitted everything. What a workload
//! gives must be the same each time: exit status, output, and the tree that it leaves.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use guard_tests::bundle::Bundle;
use guard_tests::daemon::Daemon;
use guard_tests::events::Event;
use guard_tests::users;

mod outcome;
mod tree;
mod workloads;

use outcome::Outcome;
use workloads::{WORKLOADS, Workload};

/// Compare what real programs do without Guard, beside it and under it.
#[derive(Parser)]
struct Args {
    /// The cargo that one of the workloads uses.
    #[arg(long, value_name = "PROGRAM")]
    cargo: PathBuf,
    /// Only workloads whose name contains this.
    filter: Option<String>,
}

/// Denials that are shown.
const SHOWN: usize = 5;

/// The cgroup that workloads run in. In the third round it selects the subject.
const CGROUP: &str = "guard-interference";

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("guard-interference: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A bundle whose one subject is permitted everything.
fn bundle(version: u64, selector: &str) -> Bundle {
    Bundle::new("interference")
        .version(version)
        .toml(&format!("[subjects.all]\nselector = {{ {selector} }}\ngoverns = [\"*\"]\n"))
        .policy(
            "all",
            "@id(\"everything\")\npermit (principal == Guard::Subject::\"all\", action, resource);\n",
        )
}

fn run(args: &Args) -> Result<bool> {
    users::create([workloads::WORKER].into_iter())?;
    let cgroup = PathBuf::from("/sys/fs/cgroup").join(CGROUP);
    std::fs::create_dir_all(&cgroup).context("make a cgroup")?;
    let filter = args.filter.as_deref().unwrap_or_default();
    let wanted: Vec<&Workload> = WORKLOADS.iter().filter(|workload| workload.name.contains(filter)).collect();
    let round = |name: &str| -> Result<Vec<Outcome>> {
        wanted
            .iter()
            .map(|workload| {
                eprintln!("guard-interference: {}, {name}", workload.name);
                Outcome::of(workload, &cgroup, &args.cargo).with_context(|| workload.name.to_owned())
            })
            .collect()
    };

    let without = round("without Guard")?;
    for (workload, outcome) in wanted.iter().zip(&without) {
        if let Some(complaint) = outcome.complaint() {
            bail!("{} cannot be compared: {complaint}", workload.name);
        }
    }
    // A user that nobody is.
    let daemon = Daemon::start_apart("interference", &bundle(1, "user = \"agent\""))?;
    let (mark, mut events) = (daemon.events.mark()?, daemon.events.accounted()?);
    let beside = round("with Guard attached")?;
    let selected =
        bundle(2, &format!("cgroup = \"/{CGROUP}\"")).write(&daemon.directory().join("selected"))?;
    daemon.apply(&selected)?;
    let under = round("as a subject that is permitted everything")?;
    events.read()?;
    // Whoever looks for a number that no process has asks for every one, and the agent's own is forbidden to
    // all subjects.
    let is_interference = |event: &Event| event.is_denial() && event.other() != "guard-agent";
    let denials: Vec<_> = daemon.events.since(mark)?.into_iter().filter(is_interference).collect();
    daemon.stop()?;

    let mut differences = 0;
    for (index, workload) in wanted.iter().enumerate() {
        let found = [("beside Guard", &beside[index]), ("as a subject", &under[index])]
            .into_iter()
            .filter_map(|(when, other)| Some((when, without[index].difference(other)?)))
            .map(|(when, difference)| format!("{when}: {difference}"));
        let found: Vec<String> = found.collect();
        match &found[..] {
            [] => println!(
                "ok {} ({:.1} s without Guard, {:.1} s beside it, {:.1} s as a subject)",
                workload.name,
                without[index].time.as_secs_f64(),
                beside[index].time.as_secs_f64(),
                under[index].time.as_secs_f64()
            ),
            _ => println!("DIFFERENCE {}: {}", workload.name, found.join("; ")),
        }
        differences += usize::from(!found.is_empty());
    }
    if !denials.is_empty() || events.lost != 0 {
        println!(
            "DIFFERENCE {} denials of what everything is permitted to, {} events lost",
            denials.len(),
            events.lost
        );
        denials.iter().take(SHOWN).for_each(|event| println!("  {event}"));
        differences += 1;
    }
    println!("{} workloads, {differences} differences", wanted.len());
    Ok(differences == 0)
}
