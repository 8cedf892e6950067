//! Quarantines that are bound to no subject, as the kernel is told of them.
//!
//! Each has a place: a bit in the labels of those that it covers, and a word that says what the bit denies and until
//! when. What is recorded is what the kernel is told, at every change, when an agent starts, and from time to time:
//! a file may have been replaced, or a container started.

use super::engine::Engine;
use super::modes::Now;
use super::reach;
use super::spared::spared;
use super::windows::Openings;
use crate::bundle::replace;
use crate::kernel::{KernelError, Keys};
use crate::ledger::{Key, Quarantine};
use crate::policy::Instant;
use guard_common::label::LabelRequest;
use guard_common::quarantine::{BARS, RESCUED};
use std::collections::BTreeMap;

/// Passes over the processes until one covers nobody new.
const MAX_PASSES: usize = 1000;

/// Who ends a quarantine whose time is over.
const AGENT: &str = "the agent";

/// The plain file in the state directory that says what is in quarantine, for `guard-quarantine-generator`.
const FILE: &str = "quarantines";

/// One that is in force.
struct Held {
    place: usize,
    key: Key,
    quarantine: Quarantine,
    end: Option<Instant>,
}

impl Engine {
    fn barred(&self, now: &Now) -> Vec<Held> {
        let held = |one: &Quarantine| {
            let key = one.target.clone().filter(|key| key.is_of(&now.boot_id))?;
            let end = one.end(now.wall, now.boot, &now.boot_id)?;
            Some(Held { place: one.place.filter(|place| *place < BARS)?, key, quarantine: one.clone(), end })
        };
        self.ledger.quarantines().iter().filter_map(held).collect()
    }

    /// A bit that is free; nothing if all are taken. The one that was given last is given again last.
    pub(super) fn free_place(&self) -> Option<usize> {
        let places = || self.ledger.quarantines().iter().filter_map(|one| Some((one.id, one.place?)));
        let next = places().max().map_or(0, |(_, last)| last + 1);
        (next..next + BARS).map(|place| place % BARS).find(|place| places().all(|(_, taken)| taken != *place))
    }

    /// Tells the kernel what is in force, and has it cover who is to be covered. `spare` are processes that none is to
    /// cover, besides those that it knows of.
    ///
    /// # Errors
    /// If the kernel refuses; some may be told then, and some not.
    pub(super) fn tell_bars(&mut self, spare: &[(i32, LabelRequest)]) -> Result<(), KernelError> {
        let now = Now::read();
        let held = self.barred(&now);
        // For whoever has to know before an agent runs.
        if let Err(error) = replace(&self.state_dir().join(FILE), list(&held).as_bytes(), 0o600) {
            tracing::error!("units in quarantine may start before the agent at the next boot: {error}");
        }
        let bits = held.iter().fold(0, |bits, one| bits | 1 << one.place);
        self.bars.set_used(if bits == 0 { 0 } else { bits | RESCUED });
        // Before anything covers them.
        if !spare.is_empty() {
            self.kernel.cover_running(spare)?;
        }
        for place in 0..BARS {
            match held.iter().find(|one| one.place == place) {
                Some(one) => self.bars.put(place, one.quarantine.level, one.end),
                None => self.bars.clear(place),
            }
        }
        let is_keyed = |one: &Held| !matches!(one.key, Key::Process { .. });
        let any = held.iter().any(is_keyed);
        if any {
            // From here on cgroups that are made below others are found.
            self.bars.set_keyed(true);
        }
        let rescue = &self.rescue;
        self.kernel.set_bar_keys(|| keys(&held, rescue.units()))?;
        self.bars.set_keyed(any);
        if held.iter().all(is_keyed) {
            return self.kernel.cover_running(spare).map(drop);
        }
        // What a tree forks while it is looked at is covered by its label, or is found by the next pass.
        for _ in 0..MAX_PASSES {
            if self.kernel.cover_running(&trees(&held, spare))? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Tells the kernel what is recorded, when an agent starts.
    ///
    /// # Errors
    /// If the kernel refuses, or the record cannot be written.
    pub(super) fn resume_bars(&mut self) -> Result<(), KernelError> {
        let now = Now::read();
        self.end_over(&now);
        let all = reach::everybody();
        let held = self.barred(&now);
        let goes_on = held.iter().flat_map(|one| spared(&one.key, &all, None, &self.rescue));
        let spare: Vec<(i32, LabelRequest)> = goes_on
            .filter_map(|pid| Some((pid, LabelRequest::cover(all.get(&pid)?.start_ticks, RESCUED))))
            .collect();
        self.tell_bars(&spare)?;
        self.await_ends(&now)
    }

    /// Has the agent look when the next one ends.
    pub(super) fn await_ends(&mut self, now: &Now) -> Result<(), KernelError> {
        self.tell_rows(Vec::new(), &Openings::new(), now)
    }

    /// Records the end of those that are over, and says which. The kernel has ended them by itself.
    pub(super) fn end_over(&mut self, now: &Now) -> Vec<Quarantine> {
        let why = |one: &Quarantine| {
            let key = one.target.as_ref()?;
            if !key.is_of(&now.boot_id) {
                Some("the host was booted, and the process is gone")
            } else if one.end(now.wall, now.boot, &now.boot_id).is_some() {
                None
            } else if one.confirm_by.is_some() {
                Some("nobody confirmed it")
            } else {
                Some("its time is over")
            }
        };
        let over: Vec<(i64, &'static str)> =
            self.ledger.quarantines().iter().filter_map(|one| Some((one.id, why(one)?))).collect();
        let mut ended = Vec::new();
        for (id, why) in over {
            let at = super::leases::at(now);
            match self.ledger.release(id, AGENT, why, at) {
                Ok(Some(one)) => {
                    tracing::warn!(id, target = one.name(), "a quarantine is over: {why}");
                    ended.push(one);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!("quarantine {id} is over and recorded as if it were not: {error}")
                }
            }
        }
        ended
    }
}

/// A line for each: its kind, and what it is bound to.
fn list(held: &[Held]) -> String {
    let line = |one: &Held| match &one.key {
        Key::Unit(name) => Some(format!("unit {name}\n")),
        Key::User(uid) => Some(format!("user {uid}\n")),
        Key::Cgroup(path) => Some(format!("cgroup {path}\n")),
        Key::Container(id) => Some(format!("container {id}\n")),
        Key::Program(path) => Some(format!("program {}\n", path.display())),
        Key::Host => Some("host\n".to_owned()),
        Key::Process { .. } => None,
    };
    held.iter().filter_map(line).collect()
}

/// What they are bound to, and the units that go on where all of the host is covered.
fn keys<'a>(held: &[Held], rescue: impl Iterator<Item = &'a str>) -> Keys {
    let mut keys = Keys::default();
    for one in held {
        reach::bind(&mut keys, &one.key, 1 << one.place);
    }
    if held.iter().any(|one| one.key == Key::Host) {
        for unit in rescue {
            reach::bind_unit(&mut keys, unit, RESCUED);
        }
    }
    keys
}

/// Requests for the trees of processes, and for those that are spared.
fn trees(held: &[Held], spare: &[(i32, LabelRequest)]) -> Vec<(i32, LabelRequest)> {
    let all = reach::everybody();
    let mut requests: BTreeMap<i32, LabelRequest> = BTreeMap::new();
    let trees = held.iter().filter(|one| matches!(one.key, Key::Process { .. }));
    let found = trees.flat_map(|one| reach::of(&one.key, &all).into_iter().map(|pid| (pid, 1 << one.place)));
    let found =
        found.filter_map(|(pid, bits)| Some((pid, LabelRequest::cover(all.get(&pid)?.start_ticks, bits))));
    for (pid, request) in found.chain(spare.iter().copied()) {
        requests.entry(pid).and_modify(|known| known.barred |= request.barred).or_insert(request);
    }
    requests.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    #[test]
    fn units_in_quarantine_wait_for_the_agent_at_boot() {
        let directory = std::env::temp_dir().join(format!("guard-generator-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("quarantines");
        std::fs::write(&file, "unit web.service\nuser 1000\ncgroup /x\nunit ../evil\nhost\n").unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/guard-quarantine-generator");
        let run = |file: &Path| {
            Command::new("sh")
                .arg(&script)
                .arg(directory.join("out"))
                .env("GUARD_QUARANTINES", file)
                .status()
                .unwrap()
        };
        assert!(run(&file).success() && run(Path::new("/nonexistent")).success());
        let mut made: Vec<_> =
            std::fs::read_dir(directory.join("out")).unwrap().map(|one| one.unwrap().file_name()).collect();
        made.sort();
        assert_eq!(made, ["user@1000.service.d", "web.service.d"]);
        let text = directory.join("out/web.service.d/50-guard-quarantine.conf");
        assert!(std::fs::read_to_string(text).unwrap().contains("Requires=guard-agent.service"));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
