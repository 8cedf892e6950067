//! In which network the host is, from one change to the next: the kernel announces them, and what follows is told to
//! the kernel side at once.

use super::found::Found;
use super::serve::Shared;
use crate::collect::network::{
    Changes, Located, NetlinkError, Networks, Signature, Surroundings, locate, read,
};
use crate::policy::COLLECTOR;
use std::io;
use std::time::Duration;

/// How soon it is tried again after a failure, and how soon name servers are looked at again, which netlink does not
/// announce.
const AGAIN: Duration = Duration::from_secs(5);

/// What it is called as a source.
pub(super) fn source() -> String {
    format!("{COLLECTOR}network")
}

/// Looks once, for the tables that the daemon begins with. What goes wrong is told by whoever follows.
pub(super) fn look(networks: &Networks, found: &Found) {
    if !networks.is_empty() {
        found.set_network(read().ok().and_then(|around| locate(networks, &around).name()));
    }
}

/// Follows where the host is, on a thread of its own. Without a network that is described, nothing is followed.
///
/// # Errors
/// If the thread cannot be started.
pub(super) fn watch(networks: Networks, found: Found, shared: Shared) -> io::Result<()> {
    if networks.is_empty() {
        found.not_set_up(&source(), "the agent's configuration describes no [networks]");
        return Ok(());
    }
    let follower = Follower { networks, found, shared, last: None };
    std::thread::Builder::new().name("location".to_owned()).spawn(move || follower.run())?;
    Ok(())
}

struct Follower {
    networks: Networks,
    found: Found,
    shared: Shared,
    last: Option<Located>,
}

impl Follower {
    fn run(mut self) {
        loop {
            if let Err(error) = self.follow() {
                self.tell(Err(error));
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Follows the changes, until that fails.
    fn follow(&mut self) -> Result<(), NetlinkError> {
        // Before the first look, so that nothing falls between the two.
        let changes = Changes::subscribe()?;
        let needs_resolvers = self.networks.values().any(Signature::needs_resolvers);
        loop {
            let around = read()?;
            let gateways = around.gateways();
            self.tell(Ok(around));
            changes.wait(&gateways, needs_resolvers.then_some(AGAIN))?;
        }
    }

    /// Tells where the host is now. What cannot be read makes it absent.
    fn tell(&mut self, around: Result<Surroundings, NetlinkError>) {
        let located = around.map(|around| locate(&self.networks, &around));
        let trouble = match &located {
            Ok(Located::Several(_)) => located.as_ref().ok().map(ToString::to_string),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        self.found.trouble(&source(), trouble);
        let located = located.ok();
        if self.last != located {
            if let Some(located) = &located {
                tracing::info!("the network of this host is {located}");
            }
            self.last.clone_from(&located);
        }
        if self.found.set_network(located.and_then(Located::name)) {
            self.shared.keep_posture_now(false);
        }
    }
}
