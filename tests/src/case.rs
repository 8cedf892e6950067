//! The three cases of an attempt: without Guard, under it by a labelled process, under it by an
//! unlabelled one.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::errno::Errno;

use crate::attempt::{Outcome, attempt};
use crate::daemon::Daemon;
use crate::events::Event;
use crate::layout;
use crate::users::{FREE, Identity};

/// What a test can know and do.
pub(crate) struct Case<'a> {
    daemon: Option<&'a Daemon>,
    /// Whether races are repeated as often as promised.
    pub(crate) full: bool,
    operations: Cell<u64>,
}

/// Says that a test cannot run on this kernel, and why.
#[derive(Debug)]
pub(crate) struct NotHere(pub(crate) String);

impl std::fmt::Display for NotHere {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for NotHere {}

/// An attempt that must be refused.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    who: Identity,
    action: &'static str,
    errno: Errno,
    /// What the caller hears, if not that.
    heard: Option<Errno>,
    reason: &'static str,
    place: Option<String>,
    unlabelled: Option<Identity>,
}

/// `action` by `who` must be refused with EACCES by policy.
pub(crate) fn refusal(who: Identity, action: &'static str) -> Refusal {
    let unlabelled = Some(FREE.with(who.capabilities));
    Refusal { who, action, errno: Errno::EACCES, heard: None, reason: "policy", place: None, unlabelled }
}

impl Refusal {
    /// The event must name a path that ends like this, or this `ADDRESS:PORT`.
    pub(crate) fn at(mut self, path: impl AsRef<std::path::Path>) -> Self {
        self.place = Some(path.as_ref().to_string_lossy().into_owned());
        self
    }

    /// The caller must get another error number than EACCES.
    pub(crate) fn with(mut self, errno: Errno) -> Self {
        self.errno = errno;
        self
    }

    /// The caller notices in another way than by the denial's error number: what was to come does not.
    pub(crate) fn heard_as(mut self, errno: Errno) -> Self {
        self.heard = Some(errno);
        self
    }

    /// The file would have more rights under its new name: EXDEV, upon which programs copy.
    pub(crate) fn for_more_rights(self) -> Self {
        Self { reason: "more-rights", ..self.with(Errno::EXDEV) }
    }

    /// It is not policy that refuses.
    pub(crate) fn because(self, reason: &'static str) -> Self {
        Self { reason, ..self }
    }

    /// There is no unlabelled process that could do the same.
    pub(crate) fn only_labelled(mut self) -> Self {
        self.unlabelled = None;
        self
    }
}

/// How long to look for the denial that explains a failure.
const SAID: Duration = Duration::from_secs(3);
/// How long an event may take to reach standard output.
const EVENT: Duration = Duration::from_secs(20);

impl<'a> Case<'a> {
    /// The control: nothing is enforced.
    pub(crate) fn without_daemon(full: bool) -> Self {
        Self { daemon: None, full, operations: Cell::default() }
    }

    /// What `daemon` enforces.
    pub(crate) fn under(daemon: &'a Daemon, full: bool) -> Self {
        Self { daemon: Some(daemon), full, operations: Cell::default() }
    }

    /// Says how many operations the test has tried, for its line in the report.
    pub(crate) fn tried(&self, operations: u64) {
        self.operations.set(self.operations.get() + operations);
    }

    /// How many operations were tried since the last call.
    pub(crate) fn take_operations(&self) -> u64 {
        self.operations.take()
    }

    /// The daemon, under Guard.
    pub(crate) fn daemon(&self) -> Option<&'a Daemon> {
        self.daemon
    }

    /// Works without Guard; under Guard, is refused as described and reported, leaves the canaries
    /// as they were, and works for an unlabelled process.
    pub(crate) fn refused(&self, refusal: Refusal, action: impl Fn() -> std::io::Result<()>) -> Result<()> {
        let Some(daemon) = self.daemon else {
            return self.works(refusal.who, "without Guard", &action);
        };
        let mark = daemon.events.mark()?;
        let outcome = attempt(refusal.who, &action)?;
        let errno = refusal.heard.unwrap_or(refusal.errno);
        ensure!(
            outcome == Outcome::Failed(errno),
            "{} by {} should be refused with {errno}: {outcome:?}",
            refusal.action,
            refusal.who.name,
        );
        self.canaries_are_untouched()?;
        let what = format!("{} of {:?} refused to {}", refusal.action, refusal.place, refusal.who.name);
        daemon.events.wait(mark, EVENT, &what, |event| {
            event.is_denial()
                && event.subject() == refusal.who.name
                && event.is_about(refusal.action)
                && event.errno() == format!("{:?}", refusal.errno)
                && event.reason() == refusal.reason
                && refusal.place.as_ref().is_none_or(|place| event.is_at(place))
        })?;
        match refusal.unlabelled {
            Some(other) => {
                let result = self.works(other, "as an unlabelled user", &action);
                layout::restore_canaries()?;
                result
            }
            None => Ok(()),
        }
    }

    /// Works without Guard and under it.
    pub(crate) fn allowed(&self, who: Identity, action: impl Fn() -> std::io::Result<()>) -> Result<()> {
        self.works(who, "which policy permits", &action)
    }

    fn works(&self, who: Identity, when: &str, action: &impl Fn() -> std::io::Result<()>) -> Result<()> {
        let mark = self.daemon.map(|daemon| daemon.events.mark()).transpose()?;
        let outcome = attempt(who, action)?;
        if outcome == Outcome::Worked {
            return Ok(());
        }
        let denial = match (self.daemon, mark) {
            (Some(daemon), Some(mark)) => daemon.events.wait(mark, SAID, "", Event::is_denial).ok(),
            _ => None,
        };
        let denial = denial.map(|event| format!("; denied: {event}")).unwrap_or_default();
        bail!("the attempt by {}, {when}, should work: {outcome:?}{denial}", who.name)
    }

    /// Under Guard, nobody may have changed what only refused attempts reach for.
    pub(crate) fn canaries_are_untouched(&self) -> Result<()> {
        if self.daemon.is_some() { layout::check_canaries() } else { Ok(()) }
    }
}
