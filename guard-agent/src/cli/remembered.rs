//! What the daemon remembers of operations.

use super::CliError;
use super::client::Client;
use super::events::take_lines;
use crate::events::{Record, time};
use crate::onboard::{Seen, Thing};
use http_body_util::BodyExt;
use std::collections::BTreeMap;

/// Longest line that is taken for an event.
const LINE_MAX: usize = 1 << 20;

/// One kind of event: its last record, and how often it was.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    /// The last one.
    pub(super) record: Record,
    /// How often.
    pub(super) count: u64,
    /// The first time, in nanoseconds since 1970.
    pub(super) first: i64,
    /// The last time.
    pub(super) last: i64,
}

impl Remembered {
    fn of(line: &[u8]) -> Option<Self> {
        let record = Record::from_json_line(&String::from_utf8_lossy(line)).ok()?;
        let last = time::parse(&record.time).unwrap_or(0);
        let seen = record.seen.as_ref();
        let first = seen.and_then(|seen| time::parse(&seen.first)).unwrap_or(last);
        Some(Self { count: seen.map_or(1, |seen| seen.count), first, last, record })
    }

    /// The operations that the event is about.
    pub(super) fn operations(&self) -> impl Iterator<Item = Seen> {
        self.record.actions.iter().map(|action| Seen {
            action: action.clone(),
            thing: Thing::of(action, &self.record.resource),
            count: self.count,
            first: self.first,
            last: self.last,
        })
    }
}

/// What the daemon remembers and passes `query` (`subject=…&verdict=…`), oldest first.
pub(super) async fn remembered(client: &Client, query: &str) -> Result<Vec<Remembered>, CliError> {
    let mut body = client.stream(&format!("/v1/events?{query}")).await?;
    let (mut found, mut pending) = (Vec::new(), Vec::<u8>::new());
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| CliError::unreachable(format!("the daemon's answer broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        for line in take_lines(&mut pending) {
            found.extend(Remembered::of(&line));
        }
        if pending.len() > LINE_MAX {
            return Err(CliError::internal("the daemon sent a line without an end"));
        }
    }
    Ok(found)
}

/// The operations of several kinds of events, the same ones added up: under two bundles, or by two
/// sessions, they are two kinds.
pub(super) fn added_up(all: &[Remembered]) -> Vec<Seen> {
    let mut sums: BTreeMap<(String, Thing), Seen> = BTreeMap::new();
    for seen in all.iter().flat_map(Remembered::operations) {
        sums.entry((seen.action.clone(), seen.thing.clone()))
            .and_modify(|sum| {
                sum.count = sum.count.saturating_add(seen.count);
                sum.first = sum.first.min(seen.first);
                sum.last = sum.last.max(seen.last);
            })
            .or_insert(seen);
    }
    sums.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"schema":"guard.event/1","id":"d-7K3F2Q","time":"2026-05-04T03:02:01.000000Z","boot_ns":1,"verdict":"would_deny","subject":"nginx","subject_id":16,"session":null,"actions":["file.read","file.write"],"resource":{"type":"file","path":"/x","fs_path":"/x","device":"8:1","path_truncated":false,"abstract_name":null,"address":null,"port":null,"protocol":null},"reason":"policy","errno":null,"pid":1,"tid":1,"uid":33,"comm":"nginx","cgroup":9,"generation":2,"sequence":4,"cpu":0,"seen":{"count":7,"first":"2026-05-04T03:00:00.000000Z","exe":null,"bundle":null}}"#;

    #[test]
    fn repeats_under_another_bundle_are_added_up() {
        let one = Remembered::of(LINE.as_bytes()).unwrap();
        assert_eq!((one.count, one.last - one.first), (7, 121_000_000_000));
        let later = Remembered { count: 3, last: one.last + 5, ..one.clone() };
        let sums = added_up(&[one.clone(), later]);
        assert_eq!(sums.len(), 2, "one for each action");
        assert_eq!((sums[0].count, sums[0].first, sums[0].last), (10, one.first, one.last + 5));
        assert!(Remembered::of(br#"{"schema":"guard.lost/1","cpu":2,"lost":14}"#).is_none());
    }
}
