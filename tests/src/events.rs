//! The daemon's standard output: events as JSON Lines in a file, waited for without polling.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::Value;

/// One event.
#[derive(Clone, Debug)]
pub struct Event(Value);

impl Event {
    fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    fn resource(&self, field: &str) -> &str {
        self.0
            .get("resource")
            .and_then(|resource| resource.get(field))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The subject.
    pub fn subject(&self) -> &str {
        self.text("subject")
    }

    /// The subject of the process that it is about.
    pub fn other(&self) -> &str {
        self.resource("subject")
    }

    /// Why it was decided so.
    pub fn reason(&self) -> &str {
        self.text("reason")
    }

    /// Whether it reports a denial.
    pub fn is_denial(&self) -> bool {
        self.text("verdict") == "denied"
    }

    /// Name of the error number that the caller got.
    pub fn errno(&self) -> &str {
        self.text("errno")
    }

    /// Whether it is about this action.
    pub fn is_about(&self, action: &str) -> bool {
        let actions = self.0.get("actions").and_then(Value::as_array);
        actions.is_some_and(|actions| actions.iter().any(|found| found.as_str() == Some(action)))
    }

    /// Whether the resource is the one that `name` describes: the end of its path, of the path on
    /// its file system or of its abstract name, escaped; `ADDRESS:PORT`; the id of a process; or the name
    /// of a capability.
    pub fn is_at(&self, name: &str) -> bool {
        let port = self.0.pointer("/resource/port").and_then(Value::as_u64).unwrap_or_default();
        ["path", "fs_path", "abstract_name"].iter().any(|field| self.resource(field).ends_with(name))
            || self.address(port).is_some_and(|address| address.to_string() == name)
            || self.0.pointer("/resource/pid").and_then(|pid| pid.as_u64()).map(Ok) == Some(name.parse())
            || self.resource("capability") == name
    }
}

impl Event {
    fn address(&self, port: u64) -> Option<std::net::SocketAddr> {
        let address: std::net::IpAddr = self.resource("address").parse().ok()?;
        Some((address, u16::try_from(port).ok()?).into())
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (subject, reason) = (self.subject(), self.reason());
        let actions = self.0.get("actions").map(Value::to_string).unwrap_or_default();
        let resource = self.0.get("resource").and_then(Value::as_object);
        let known = resource.into_iter().flatten().filter(|(_, value)| !value.is_null());
        let known: Vec<String> = known.map(|(field, value)| format!("{field}={value}")).collect();
        write!(formatter, "{subject} {actions} {reason} [{}]", known.join(" "))
    }
}

/// What the file holds from `mark` on, and where that begins. The agent writes many events at once, so a mark
/// can lie inside of one, which then belongs to what was before.
fn from(path: &Path, mark: u64) -> Result<(String, u64)> {
    let mut file = File::open(path).context("open the events")?;
    let mut begin = mark.saturating_sub(1);
    file.seek(SeekFrom::Start(begin)).context("seek in the events")?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).context("read the events")?;
    if mark > 0 {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            return Ok((String::new(), mark));
        };
        begin += end as u64 + 1;
        bytes.drain(..=end);
    }
    Ok((String::from_utf8(bytes).context("events are not UTF-8")?, begin))
}

/// Counts denials from some event on, those that were reported and those that the daemon knows were lost.
pub struct Accounted {
    path: PathBuf,
    offset: u64,
    /// Denials with an event.
    pub reported: u64,
    /// Events that found no room.
    pub lost: u64,
}

impl Accounted {
    /// Waits until both together are as many as expected; false if they are not in time.
    pub fn reaches(&mut self, expected: u64, wait: Duration) -> Result<bool> {
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context("inotify")?;
        watch.add_watch(&self.path, AddWatchFlags::IN_MODIFY).context("watch the events")?;
        let deadline = Instant::now() + wait;
        loop {
            self.read()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if self.reported + self.lost >= expected || left.is_zero() {
                return Ok(self.reported + self.lost >= expected);
            }
            let timeout = PollTimeout::try_from(left).context("time-out")?;
            poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], timeout).context("poll")?;
            let _ = watch.read_events();
        }
    }

    /// Counts what there is so far.
    pub fn read(&mut self) -> Result<()> {
        let (text, begin) = from(&self.path, self.offset)?;
        let complete = text.rfind('\n').map_or("", |end| &text[..=end]);
        self.offset = begin + complete.len() as u64;
        for line in complete.lines() {
            let value: Value =
                serde_json::from_str(line).with_context(|| format!("an event is not JSON: {line}"))?;
            match value.get("lost").and_then(Value::as_u64) {
                Some(lost) => self.lost += lost,
                None => self.reported += u64::from(Event(value).is_denial()),
            }
        }
        Ok(())
    }
}

/// The file that holds the events.
pub struct Events {
    path: PathBuf,
    watch: Inotify,
}

impl Events {
    /// Watches a file that exists.
    pub fn watch(path: &Path) -> Result<Self> {
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context("inotify")?;
        watch.add_watch(path, AddWatchFlags::IN_MODIFY).context("watch the events")?;
        Ok(Self { path: path.to_owned(), watch })
    }

    /// Where the next event will begin.
    pub fn mark(&self) -> Result<u64> {
        Ok(self.path.metadata().context("look at the events")?.len())
    }

    /// A count of denials from now on.
    pub fn accounted(&self) -> Result<Accounted> {
        Ok(Accounted { path: self.path.clone(), offset: self.mark()?, reported: 0, lost: 0 })
    }

    /// Complete events from `mark` on.
    pub fn since(&self, mark: u64) -> Result<Vec<Event>> {
        let (text, _) = from(&self.path, mark)?;
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete
            .lines()
            .map(|line| {
                let value =
                    serde_json::from_str(line).with_context(|| format!("an event is not JSON: {line}"))?;
                Ok(Event(value))
            })
            .collect()
    }

    /// Waits for an event after `mark`.
    pub fn wait(
        &self,
        mark: u64,
        wait: Duration,
        what: &str,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Event> {
        let deadline = Instant::now() + wait;
        loop {
            let found = self.since(mark)?;
            if let Some(event) = found.iter().find(|event| wanted(event)) {
                return Ok(event.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last: Vec<String> = found.iter().rev().take(3).map(|event| event.0.to_string()).collect();
                bail!("no event for {what}; {} others, last: {}", found.len(), last.join("; "));
            }
            let timeout = PollTimeout::try_from(left).context("time-out")?;
            poll(&mut [PollFd::new(self.watch.as_fd(), PollFlags::POLLIN)], timeout).context("poll")?;
            // Only that something happened matters.
            let _ = self.watch.read_events();
        }
    }
}
