//! How long large policies take: `cargo xtask scale` builds and runs this.
//!
//! Writes bundles of many literals and subjects, loads and compiles them as the agent does, changes a
//! fact, and says what each step took and how large the tables are. With `--in-kernel` the tables go into
//! the running kernel as well, which takes root; nothing is labelled, so nothing is denied.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guard_agent::host::Host;
use guard_agent::kernel::Kernel;
use guard_agent::policy::{self, Bundle, Compiled, Posture, SubjectIds, TableSizes, Until};
use guard_common::label::FIRST_SUBJECT;

type Failure = Box<dyn std::error::Error>;

/// Changes of a fact that are timed.
const CHANGES: usize = 200;
/// Switches that are timed.
const SWITCHES: usize = 5;

/// How literals and subjects meet.
#[derive(Clone, Copy)]
enum Shape {
    /// Each subject has its own share of the literals, one policy for each.
    Own,
    /// Every policy is everybody's, so every subject knows every literal.
    Shared,
}

fn main() -> Result<(), Failure> {
    let mut numbers = Vec::new();
    let mut in_kernel = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--in-kernel" => in_kernel = true,
            number => numbers.push(number.parse::<usize>().map_err(|_| format!("{number} is no number"))?),
        }
    }
    let [literals, subjects] = numbers[..] else {
        return Err("usage: scale LITERALS SUBJECTS [--in-kernel]".into());
    };
    let host = Host::read()?;
    let mut kernel = if in_kernel {
        let started = Instant::now();
        let kernel = Kernel::load(None)?;
        println!("load and attach all programs: {}", milliseconds(started.elapsed()));
        Some(kernel)
    } else {
        None
    };
    for (shape, what) in [
        (Shape::Own, "each subject has its own literals"),
        (Shape::Shared, "every subject knows every literal"),
    ] {
        println!("\n{literals} literals, {subjects} subjects, {what}:");
        let directory = Directory::new(literals, subjects, shape)?;
        measure(&directory.0, &host, kernel.as_mut())?;
    }
    println!("\nhighest resident memory of this process: {} KiB", highest_resident()?);
    Ok(())
}

fn measure(directory: &Path, host: &Host, kernel: Option<&mut Kernel>) -> Result<(), Failure> {
    let started = Instant::now();
    let bundle = policy::load(directory).map_err(|errors| errors.to_string())?;
    let loaded = started.elapsed();
    let started = Instant::now();
    let compiled = compile(&bundle, host)?;
    let took = started.elapsed();
    println!("  parse and validate   {}", milliseconds(loaded));
    println!("  compile              {}", milliseconds(took));
    println!("  tables               {}", sizes(&compiled));
    let mut times: Vec<Duration> = Vec::with_capacity(CHANGES);
    for change in 0..CHANGES {
        let posture = posture(change);
        let started = Instant::now();
        let outcomes = compiled.outcomes(FIRST_SUBJECT, &posture, 1).ok_or("no such subject")?;
        times.push(started.elapsed());
        std::hint::black_box(outcomes);
    }
    println!("  change a fact        {} to compute", spread(&mut times));
    match kernel {
        Some(kernel) => switch(kernel, &compiled),
        None => Ok(()),
    }
}

fn switch(kernel: &mut Kernel, compiled: &Compiled) -> Result<(), Failure> {
    let mut times = Vec::with_capacity(SWITCHES);
    for _ in 0..SWITCHES {
        let started = Instant::now();
        kernel.swap(&compiled.generation)?;
        times.push(started.elapsed());
    }
    println!("  switch               {}", spread(&mut times));
    let (mut all, mut stored, mut graces) = (Vec::new(), Vec::new(), Vec::new());
    for change in 0..CHANGES {
        let posture = posture(change);
        let started = Instant::now();
        let outcomes = compiled.outcomes(FIRST_SUBJECT, &posture, 1).ok_or("no such subject")?;
        let computed = Instant::now();
        kernel.set_outcomes(FIRST_SUBJECT, &outcomes)?;
        all.push(started.elapsed());
        stored.push(computed.elapsed());
        let computed = Instant::now();
        kernel.settle()?;
        graces.push(computed.elapsed());
    }
    println!("  change a fact        {} until it counts", spread(&mut all));
    println!("  … of that, storing   {}", spread(&mut stored));
    graces.retain(|time| *time > Duration::from_micros(200));
    println!("  a grace in between   {}", spread(&mut graces));
    Ok(())
}

fn compile(bundle: &Bundle, host: &Host) -> Result<Compiled, Failure> {
    Ok(policy::compile(bundle, host, &mut SubjectIds::default()).map_err(|errors| errors.to_string())?)
}

/// The lease lives every other time.
fn posture(change: usize) -> Posture {
    let lease = ("night".to_owned(), Until { value: (), end: Some(u64::MAX - 1) });
    Posture { leases: change.is_multiple_of(2).then_some(lease).into_iter().collect(), ..Posture::default() }
}

fn sizes(compiled: &Compiled) -> String {
    let TableSizes { classes, cells, outcomes, masks, edges, .. } = compiled.sizes;
    let bytes: usize = compiled.generation.memory().iter().map(|(_, bytes)| bytes).sum();
    format!(
        "{classes} classes, {cells} cells, {outcomes} outcomes, {masks} mask rows, {edges} edges; {} KiB in the kernel",
        bytes / 1024
    )
}

/// Median and worst of some times.
fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    match (times.get(times.len() / 2), times.last()) {
        (Some(median), Some(worst)) => {
            format!("{} (worst of {}: {})", milliseconds(*median), times.len(), milliseconds(*worst))
        }
        _ => "none".to_owned(),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}

fn highest_resident() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// A bundle that is removed when it goes out of scope.
struct Directory(PathBuf);

impl Directory {
    fn new(literals: usize, subjects: usize, shape: Shape) -> Result<Self, Failure> {
        let mut toml = "[bundle]\nname = \"scale\"\nversion = 1\nprofile = 1\n\
            [approvals]\nnight = { approvers = [\"group:oncall\"], max = \"1h\" }\n"
            .to_owned();
        let mut cedar = String::new();
        for subject in 0..subjects {
            // Nobody has such a user id.
            let user = 3_000_000_000 + subject;
            writeln!(
                toml,
                "[subjects.s{subject}]\nselector = {{ user = \"{user}\" }}\ngoverns = [\"*\"]\ngroups = [\"all\"]"
            )?;
        }
        for literal in 0..literals {
            let subject = literal % subjects.max(1);
            let principal = match shape {
                Shape::Own => format!("== Guard::Subject::\"s{subject}\""),
                Shape::Shared => "in Guard::Group::\"all\"".to_owned(),
            };
            // Most policies name one directory; every tenth waits for a lease, and one in seven refuses.
            let (effect, action) = if literal % 7 == 0 { ("forbid", "mutate") } else { ("permit", "file.*") };
            let condition =
                if literal % 10 == 0 { "when { context.leases.contains(\"night\") }" } else { "" };
            writeln!(
                cedar,
                "@id(\"p{literal}\") {effect} (principal {principal}, action in Guard::Action::\"{action}\", \
                 resource in Guard::Dir::\"/srv/scale/d{}/e{literal}\") {condition};",
                literal / 100
            )?;
        }
        cedar.push_str(
            "@id(\"dots\") forbid (principal in Guard::Group::\"all\", action in Guard::Action::\"read\", resource) \
             when { resource.name like \".*\" };",
        );
        let path = std::env::temp_dir().join(format!("guard-scale-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        let this = Self(path);
        std::fs::write(this.0.join("guard.toml"), toml)?;
        std::fs::write(this.0.join("scale.cedar"), cedar)?;
        Ok(this)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
