//! Modes that differ from the bundle's for a while: a file in the state directory.
//!
//! The kernel holds the instant at which a mode ends, so it ends with the agent stopped or dead as
//! well. The file is for the next generation and the next start.

use crate::bundle::{replace, set_aside};
use crate::events::time::{self, rfc3339};
use crate::policy::{Instant, Mode, Posture, Until};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The one format of the file.
const FORMAT: u32 = 1;
/// Changes that are kept.
const MAX_CHANGES: usize = 100;
/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the clocks say at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Now {
    /// Nanoseconds since 1970.
    pub(super) wall: i64,
    /// By CLOCK_BOOTTIME.
    pub(super) boot: Instant,
    /// Which boot that counts from.
    pub(super) boot_id: String,
}

impl Now {
    /// This instant. A boot that cannot be told is another one each time.
    pub(super) fn read() -> Self {
        let boot_id = std::fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned());
        // The two clocks cannot be read at once; of a few tries the one that was interrupted least counts.
        let both = || {
            let (before, wall, after) = (time::boot(), time::now(), time::boot());
            (after - before, wall, before + (after - before) / 2)
        };
        let tries = [both(), both(), both(), both()];
        let (_, wall, boot) = tries.into_iter().min().unwrap_or_default();
        Self { wall, boot: boot.unsigned_abs(), boot_id: boot_id.unwrap_or_default() }
    }
}

/// A mode that counts instead of the bundle's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "ModeSetting"))]
pub struct Setting {
    /// The mode.
    pub mode: Mode,
    /// When it was set, RFC 3339 UTC.
    pub at: String,
    /// When it ends by itself, RFC 3339 UTC.
    pub until: String,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// The end on the clock that never steps, and the boot that it counts from.
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "ModeEnd"))]
struct End {
    boot_ns: Instant,
    boot_id: String,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "ModeChange"))]
pub struct Change {
    /// When, RFC 3339 UTC.
    pub at: String,
    /// Of which subject.
    pub subject: String,
    /// To which mode; null: back to the bundle's.
    pub mode: Option<Mode>,
    /// When that ends by itself, RFC 3339 UTC.
    pub until: Option<String>,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Contents {
    format: u32,
    modes: BTreeMap<String, Setting>,
    changes: Vec<Change>,
}

impl Default for Contents {
    fn default() -> Self {
        Self { format: FORMAT, modes: BTreeMap::new(), changes: Vec::new() }
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) subject: String,
    /// A mode and for how long; nothing: the bundle's.
    pub(super) mode: Option<(Mode, Duration)>,
    pub(super) by: String,
    pub(super) reason: Option<String>,
}

/// The modes that were set.
#[derive(Debug)]
pub(super) struct Modes {
    file: PathBuf,
    contents: Contents,
    /// Why the file could not be used.
    pub(super) lost: Option<String>,
}

impl Modes {
    /// Reads what was set. A file that cannot be used is renamed and said: every subject is in its
    /// bundle's mode then.
    pub(super) fn read(state_dir: &Path) -> Self {
        let file = state_dir.join("modes.json");
        let (contents, lost) = match parse(&file) {
            Ok(contents) => (contents, None),
            Err(why) => {
                let lost = set_aside(&file, &why, "modes that were set for a while do not count any more");
                (Contents::default(), Some(lost))
            }
        };
        Self { file, contents, lost }
    }

    /// The setting of a subject that is in force.
    pub(super) fn get(&self, subject: &str, now: &Now) -> Option<&Setting> {
        self.contents.modes.get(subject).filter(|setting| setting.end(now).is_some())
    }

    /// The changes, oldest first.
    pub(super) fn changes(&self) -> &[Change] {
        &self.contents.changes
    }

    /// What of a subject's posture follows from its setting.
    pub(super) fn posture(&self, subject: &str, now: &Now) -> Option<Posture> {
        let setting = self.contents.modes.get(subject)?;
        let end = setting.end(now)?;
        Some(Posture { mode: Some(Until { value: setting.mode, end: Some(end) }), ..Posture::default() })
    }

    /// Whether there is an instant at which less would be denied than as things are now, where the
    /// bundle says `bundle`.
    pub(super) fn widens(&self, wanted: &Wanted, bundle: Mode, now: &Now) -> bool {
        // Until when something is enforced or monitored that the bundle monitors or enforces.
        let differs = |mode: Mode, end: Instant| if mode == bundle { now.boot } else { end };
        let before = self
            .get(&wanted.subject, now)
            .map_or(now.boot, |set| differs(set.mode, set.end(now).unwrap_or(now.boot)));
        let after = wanted.mode.map_or(now.boot, |(mode, lasts)| differs(mode, later(now.boot, lasts)));
        match bundle {
            Mode::Enforce => after > before,
            Mode::Monitor => after < before,
        }
    }

    /// Remembers a change. Once this returns it is on the disk; if it fails, nothing changed. Returns
    /// what was before, for [`Modes::restore`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn set(&mut self, wanted: &Wanted, now: &Now) -> io::Result<Before> {
        let before = Before(self.contents.clone());
        let mut contents = self.contents.clone();
        contents.modes.retain(|_, setting| setting.end(now).is_some());
        let at = rfc3339(now.wall);
        let (subject, by, reason) = (wanted.subject.clone(), wanted.by.clone(), wanted.reason.clone());
        let setting = wanted.mode.map(|(mode, lasts)| Setting {
            mode,
            at: at.clone(),
            until: rfc3339(now.wall.saturating_add(i64::try_from(lasts.as_nanos()).unwrap_or(i64::MAX))),
            by: by.clone(),
            reason: reason.clone(),
            end: End { boot_ns: later(now.boot, lasts), boot_id: now.boot_id.clone() },
        });
        let (mode, until) =
            (wanted.mode.map(|(mode, _)| mode), setting.as_ref().map(|setting| setting.until.clone()));
        match setting {
            Some(setting) => contents.modes.insert(subject.clone(), setting),
            None => contents.modes.remove(&subject),
        };
        contents.changes.push(Change { at, subject, mode, until, by, reason });
        let excess = contents.changes.len().saturating_sub(MAX_CHANGES);
        contents.changes.drain(..excess);
        self.write(contents)?;
        Ok(before)
    }

    /// Takes a change back.
    ///
    /// # Errors
    /// If the file cannot be written; the change stays then.
    pub(super) fn restore(&mut self, before: Before) -> io::Result<()> {
        self.write(before.0)
    }

    fn write(&mut self, contents: Contents) -> io::Result<()> {
        replace(&self.file, &serde_json::to_vec_pretty(&contents)?, 0o600)?;
        self.contents = contents;
        Ok(())
    }
}

/// What was before a change.
pub(super) struct Before(Contents);

impl Setting {
    /// The end on this boot's clock; nothing if it is over.
    ///
    /// Within one boot the clock that never steps counts. After a reboot the wall clock is all there
    /// is; a mode does not last longer than it was to last in all.
    fn end(&self, now: &Now) -> Option<Instant> {
        if !self.end.boot_id.is_empty() && self.end.boot_id == now.boot_id {
            return Some(self.end.boot_ns).filter(|end| *end > now.boot);
        }
        let (until, at) = (time::parse(&self.until)?, time::parse(&self.at)?);
        let left = until.saturating_sub(now.wall).min(until.saturating_sub(at));
        (left > 0).then(|| now.boot.saturating_add(left.unsigned_abs()))
    }
}

fn later(now: Instant, lasts: Duration) -> Instant {
    now.saturating_add(u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX))
}

fn parse(file: &Path) -> Result<Contents, String> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::default()),
        Err(error) => return Err(error.to_string()),
    };
    let contents: Contents = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if contents.format == FORMAT {
        Ok(contents)
    } else {
        Err(format!("it has format {}, and this agent reads format {FORMAT}", contents.format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("guard-modes-{}-{number}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const SECOND: u64 = 1_000_000_000;

    fn at(wall_seconds: i64, boot_seconds: u64, boot_id: &str) -> Now {
        Now { wall: wall_seconds * 1_000_000_000, boot: boot_seconds * SECOND, boot_id: boot_id.to_owned() }
    }

    fn wanted(mode: Option<Mode>, seconds: u64) -> Wanted {
        Wanted {
            subject: "web".to_owned(),
            mode: mode.map(|mode| (mode, Duration::from_secs(seconds))),
            by: "uid 0".to_owned(),
            reason: Some("INC-1".to_owned()),
        }
    }

    fn end(modes: &Modes, now: &Now) -> Option<u64> {
        modes.posture("web", now).map(|posture| posture.mode.unwrap().end.unwrap() / SECOND)
    }

    #[test]
    fn a_mode_ends_on_the_clock_that_never_steps() {
        let directory = Directory::new();
        let mut modes = Modes::read(&directory.0);
        let start = at(1_000, 10, "a");
        modes.set(&wanted(Some(Mode::Monitor), 60), &start).unwrap();
        let modes = Modes::read(&directory.0);
        assert_eq!(end(&modes, &start), Some(70));
        // The wall clock was set back, or forward: nothing is longer or shorter for it.
        assert_eq!(end(&modes, &at(0, 69, "a")), Some(70));
        assert_eq!(end(&modes, &at(9_000, 69, "a")), Some(70));
        assert_eq!(end(&modes, &at(0, 70, "a")), None, "over at its own instant");
        assert_eq!(modes.get("web", &start).unwrap().reason.as_deref(), Some("INC-1"));
        assert!(modes.posture("other", &start).is_none());
    }

    #[test]
    fn after_a_reboot_the_wall_clock_counts_but_never_lengthens() {
        let directory = Directory::new();
        let mut modes = Modes::read(&directory.0);
        modes.set(&wanted(Some(Mode::Monitor), 60), &at(1_000, 10, "a")).unwrap();
        assert_eq!(end(&modes, &at(1_040, 5, "b")), Some(25));
        assert_eq!(end(&modes, &at(1_060, 5, "b")), None);
        assert_eq!(end(&modes, &at(0, 5, "b")), Some(65), "set back: at most its whole length");
        assert_eq!(end(&modes, &at(1_000, 10, "")), Some(70), "a boot that cannot be told");
    }

    #[test]
    fn a_change_that_is_taken_back_is_as_if_it_had_never_been() {
        let directory = Directory::new();
        let mut modes = Modes::read(&directory.0);
        let now = at(1_000, 10, "a");
        modes.set(&wanted(Some(Mode::Enforce), 60), &now).unwrap();
        let before = modes.set(&wanted(None, 0), &now).unwrap();
        assert!(Modes::read(&directory.0).posture("web", &now).is_none());
        modes.restore(before).unwrap();
        assert_eq!(end(&Modes::read(&directory.0), &now), Some(70));
        assert_eq!(modes.changes().len(), 1);
    }

    #[test]
    fn a_change_widens_if_less_is_denied_at_some_instant() {
        use Mode::{Enforce, Monitor};
        let directory = Directory::new();
        let now = at(1_000, 10, "a");
        let after = |before: Option<Mode>, change: Option<Mode>, seconds: u64, bundle: Mode| {
            let mut modes = Modes::read(&directory.0);
            modes.set(&wanted(before, 60), &now).unwrap();
            modes.widens(&wanted(change, seconds), bundle, &now)
        };
        for (before, change, seconds, bundle, widens) in [
            (None, Some(Monitor), 1, Enforce, true),
            (None, Some(Enforce), 1, Enforce, false),
            (None, None, 0, Enforce, false),
            (Some(Monitor), Some(Monitor), 61, Enforce, true),
            (Some(Monitor), Some(Monitor), 60, Enforce, false),
            (Some(Monitor), Some(Enforce), 60, Enforce, false),
            (Some(Monitor), None, 0, Enforce, false),
            (None, Some(Enforce), 60, Monitor, false),
            (None, Some(Monitor), 60, Monitor, false),
            (Some(Enforce), Some(Enforce), 59, Monitor, true),
            (Some(Enforce), Some(Enforce), 60, Monitor, false),
            (Some(Enforce), Some(Monitor), 60, Monitor, true),
            (Some(Enforce), None, 0, Monitor, true),
        ] {
            assert_eq!(after(before, change, seconds, bundle), widens, "{before:?} {change:?} {seconds}");
        }
        let mut modes = Modes::read(&directory.0);
        modes.set(&wanted(Some(Enforce), 60), &now).unwrap();
        assert!(!modes.widens(&wanted(None, 0), Monitor, &at(1_000, 70, "a")), "it is over anyway");
    }

    #[test]
    fn changes_are_kept_within_bounds_and_what_is_over_is_dropped() {
        let directory = Directory::new();
        let mut modes = Modes::read(&directory.0);
        for second in 0..150 {
            modes.set(&wanted(Some(Mode::Monitor), 1), &at(second * 10, 10, "a")).unwrap();
        }
        assert_eq!(modes.changes().len(), MAX_CHANGES);
        let other = Wanted { subject: "db".to_owned(), ..wanted(Some(Mode::Monitor), 60) };
        modes.set(&other, &at(9_000, 900, "a")).unwrap();
        assert_eq!(modes.contents.modes.keys().collect::<Vec<_>>(), ["db"]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_set_aside_and_said() {
        for text in ["", "{", "{\"format\":2,\"modes\":{},\"changes\":[]}"] {
            let directory = Directory::new();
            std::fs::write(directory.0.join("modes.json"), text).unwrap();
            let mut modes = Modes::read(&directory.0);
            assert!(
                modes.lost.as_ref().is_some_and(|lost| lost.contains("modes.json.unusable")),
                "{:?}",
                modes.lost
            );
            modes.set(&wanted(Some(Mode::Enforce), 60), &at(1, 1, "a")).unwrap();
            assert!(Modes::read(&directory.0).lost.is_none());
            assert!(directory.0.join("modes.json.unusable").exists());
        }
    }
}
