//! The agent, killed before any call by which it changes something: what it enforced goes on without a gap.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use nix::libc;

use crate::adoption::{Fixture, enforces};
use crate::attempt::{self, Outcome};
use crate::case::Case;
use crate::family::{Part, tests};
use crate::file::read;
use crate::layout::{ROOT, canary};
use crate::puppet::Puppet;
use crate::raw::{self, SharedCounters};
use crate::running;
use crate::users::AGENT;

pub(crate) const PART: Part = Part {
    name: "adoption-kills",
    bundle: Ok,
    prepare: running::prepare,
    tests: tests!(
        others: [
            an_agent_that_is_killed_at_any_call_of_taking_over_leaves_no_gap,
        ],
    ),
};

/// So many numbers below `calls`, at equal distances.
fn spread(calls: u64, places: u64) -> impl Iterator<Item = u64> {
    let places = places.min(calls);
    (0..places).map(move |number| (number * calls + calls / 2) / places)
}

fn secret() -> PathBuf {
    canary(ROOT)
}

/// A labelled process that tries the canary without a pause, when nothing else wants the processor.
struct Watch {
    counters: SharedCounters,
    running: attempt::Running,
}

const OVER: usize = 0;
const REFUSED: usize = 1;
const ADMITTED: usize = 2;

impl Watch {
    fn start() -> Result<Self> {
        let counters = SharedCounters::new().context("share memory")?;
        let running = attempt::start(AGENT, || {
            raw::nice(19)?;
            while counters.at(OVER).load(Ordering::SeqCst) == 0 {
                let counter = match read(secret()) {
                    Ok(()) => ADMITTED,
                    Err(error) if error.raw_os_error() == Some(libc::EACCES) => REFUSED,
                    Err(error) => return Err(error),
                };
                counters.at(counter).fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        })?;
        Ok(Self { counters, running })
    }

    /// Nothing was admitted until now.
    fn saw_no_gap(&self) -> Result<()> {
        let admitted = self.counters.at(ADMITTED).load(Ordering::SeqCst);
        ensure!(admitted == 0, "the canary was read {admitted} times");
        Ok(())
    }

    /// Ends it; how often it was refused.
    fn end(self) -> Result<u64> {
        self.counters.at(OVER).store(1, Ordering::SeqCst);
        let outcome = self.running.outcome()?;
        ensure!(outcome == Outcome::Worked, "who watches: {outcome:?}");
        let of = |index: usize| self.counters.at(index).load(Ordering::SeqCst);
        ensure!(of(ADMITTED) == 0, "the canary was read {} times", of(ADMITTED));
        Ok(of(REFUSED))
    }
}

fn an_agent_that_is_killed_at_any_call_of_taking_over_leaves_no_gap(case: &Case<'_>) -> Result<()> {
    let fixture = Fixture::sharing("kills-adopt", &running::bundle())?;
    drop(fixture.start()?);
    let mut old = Puppet::start(AGENT)?;
    let watch = Watch::start()?;
    let mut killed = 0;
    // The next agent has the same programs, or others, which have to be loaded twice for each place.
    let kinds: &[(bool, u64)] = if case.full { &[(false, 60), (true, 20)] } else { &[(false, 6)] };
    for &(next, places) in kinds {
        let (daemon, seen) = fixture.traced(next, None)?;
        ensure!(daemon.is_some(), "it ended without being killed");
        drop(daemon);
        let calls = seen.calls;
        if next {
            drop(fixture.upgraded(false)?);
        }
        for place in spread(calls, places) {
            let (daemon, seen) = fixture.traced(next, Some(place))?;
            ensure!(daemon.is_some() || seen.killed, "at call {place} of {calls}: it ended by itself");
            killed += u64::from(seen.killed);
            watch.saw_no_gap().with_context(|| format!("at call {place} of {calls}"))?;
            enforces(&mut old).with_context(|| format!("after a kill at call {place} of {calls}"))?;
            drop(daemon);
            if next {
                // What the other version left is taken over by the first one again.
                drop(fixture.upgraded(false).with_context(|| format!("after call {place} of {calls}"))?);
                enforces(&mut old).with_context(|| format!("once call {place} was made good"))?;
            }
        }
        println!("  {calls} calls{}", if next { " with other programs" } else { "" });
    }
    drop(fixture.start()?);
    enforces(&mut old).context("under the last agent")?;
    let refused = watch.end()?;
    println!("  {killed} kills, the canary was refused {refused} times meanwhile and never read");
    case.tried(killed);
    ensure!(killed > 0, "it was never killed");
    old.end()
}
