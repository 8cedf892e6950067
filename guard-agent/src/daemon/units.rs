//! The states of the systemd units that the live bundle asks for, looked at every few seconds while it asks for any.

use super::command::{self, Program};
use super::found::Found;
use super::serve::Shared;
use crate::collect::unit;
use crate::policy::COLLECTOR;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long the service manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 256 << 10;

/// Follows them until the daemon ends.
pub(super) async fn follow(found: Found, shared: Shared) {
    let mut changes = shared.awaited();
    loop {
        changes.mark_unchanged();
        let (found, again) = (found.clone(), shared.clone());
        let look = tokio::task::spawn_blocking(move || look(&found, &again));
        if look.await.unwrap_or(false) {
            tokio::time::sleep(LOOK).await;
        } else if changes.changed().await.is_err() {
            // No bundle asks for units until another one is live.
            return;
        }
    }
}

/// Looks once, if a unit is asked for. Says whether one is.
fn look(found: &Found, shared: &Shared) -> bool {
    let wanted = shared.units();
    let states = if wanted.is_empty() { Ok(BTreeMap::new()) } else { ask(&wanted) };
    let (states, trouble) = match states {
        Ok(states) => (states, None),
        // What was so some time ago need not be so any more.
        Err(why) => (BTreeMap::new(), Some(why)),
    };
    found.trouble(&format!("{COLLECTOR}unit"), trouble);
    if found.set_units(states) {
        shared.keep_posture_now(false);
    }
    !wanted.is_empty()
}

fn ask(units: &BTreeSet<String>) -> Result<BTreeMap<String, String>, String> {
    let path = unit::program().ok_or("there is no systemctl on this host")?;
    let arguments = unit::arguments(units);
    let program =
        Program { path: &path, arguments: &arguments, user: None, patience: PATIENCE, longest: MAX_ANSWER };
    let answer = command::run(&program).map_err(|error| format!("systemctl: {error}"))?;
    let states = unit::states(units, &String::from_utf8_lossy(&answer));
    states.ok_or_else(|| "the answer of systemctl is not understood".to_owned())
}
