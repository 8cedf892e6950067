//! Records with everything that is known, for people.

use super::escape::{line, word};
use super::record::Record;
use super::time;

impl Record {
    /// The record on several lines. `now` is in nanoseconds since 1970.
    ///
    /// Nothing in it can reach a terminal as a control character.
    pub fn long(&self, colour: bool, now: i64) -> String {
        let mut lines = vec![self.headline(colour)];
        let mut row = |label: &str, text: String| lines.push(format!("  {label:<9} {text}"));
        let mut when = stamp(&self.time, now);
        if let Some(seen) = self.seen.as_ref().filter(|seen| seen.count > 1) {
            when.push_str(&format!(", ×{} since {}", seen.count, stamp(&seen.first, now)));
        }
        row("last", when);
        let exe = self.seen.as_ref().and_then(|seen| seen.exe.as_ref());
        let exe = exe.map_or(String::new(), |exe| format!("  {}", word(exe)));
        row(
            "process",
            format!(
                "{}[{}] thread {} uid {} cgroup {}{exe}",
                word(&self.comm),
                self.pid,
                self.tid,
                self.uid,
                self.cgroup
            ),
        );
        let bundle =
            self.seen.as_ref().and_then(|seen| seen.bundle.as_ref()).map_or(String::new(), |bundle| {
                let digest: String = bundle.digest.chars().take(12).collect();
                format!(", {} version {} ({}…)", line(&bundle.name), bundle.version, line(&digest))
            });
        row("decided", format!("{}, generation {}{bundle}", line(&self.reason), self.generation));
        if let Some(shadow) = &self.shadow {
            let would = if shadow.allows() { "would allow" } else { "would deny" };
            let of =
                self.seen.as_ref().and_then(|seen| seen.shadow.as_ref()).map_or(String::new(), |bundle| {
                    format!(", by {} version {}", line(&bundle.name), bundle.version)
                });
            row("shadow", format!("{would} {}{of}", word(&shadow.actions.join("+"))));
        }
        let resource = &self.resource;
        if let (Some(device), Some(path)) = (&resource.device, &resource.fs_path) {
            let cut = if resource.path_truncated { " (cut)" } else { "" };
            row("place", format!("{} on device {}{cut}", word(path), line(device)));
        }
        for (label, bytes) in [
            ("bytes", &resource.path_bytes),
            ("fs bytes", &resource.fs_path_bytes),
            ("bytes", &resource.abstract_name_bytes),
        ] {
            if let Some(bytes) = bytes {
                row(label, line(bytes));
            }
        }
        lines.join("\n")
    }
}

/// `2026-01-02 03:04:05 UTC (2 min ago)` of an RFC 3339 time in UTC.
fn stamp(text: &str, now: i64) -> String {
    let ago = time::parse(text).map_or(String::new(), |then| format!(" ({})", time::ago(then, now)));
    format!("{} UTC{ago}", line(&time::people(text)))
}
