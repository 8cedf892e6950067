//! `guardctl status`: one screen.

use super::client::Client;
use super::mode;
use super::quarantine;
use super::screen::{Screen, grouped, short};
use super::shadow;
use super::{CliError, Exit};
use crate::api::types::{PolicyStatus, Status, SubjectStatus, WindowStatus};
use crate::events::escape::line;
use crate::events::{time, wrapped};
use crate::store::StoreStatus;

/// Columns of the screen.
const WIDTH: usize = 100;

/// Asks the daemon and prints the answer.
pub(super) async fn run(client: &Client, screen: &Screen, json: bool) -> Result<Exit, CliError> {
    let body = client.get("/v1/status").await?;
    let status: Status = serde_json::from_slice(&body)
        .map_err(|error| CliError::internal(format!("the daemon's status is not understood: {error}")))?;
    if json {
        screen.answer(String::from_utf8_lossy(&body).trim_end())?;
    } else {
        screen.answer(&render(&status, *screen, time::now()))?;
    }
    Ok(if status.state == "enforcing" { Exit::Yes } else { Exit::Degraded })
}

/// The screen.
fn render(status: &Status, screen: Screen, now: i64) -> String {
    let colour = if status.state == "enforcing" { "32" } else { "33" };
    let since = match time::parse(&status.since) {
        Some(since) => format!("{} ({})", people_time(&status.since), time::ago(since, now)),
        None => line(&status.since),
    };
    let mut lines =
        vec![format!("{} since {since}", screen.paint(colour, &format!("● {}", line(&status.state))))];
    lines.extend(status.degraded.iter().map(|reason| format!("  degraded  {}", line(reason))));
    let (bundle, counters) = (&status.bundle, &status.counters);
    lines.push(format!("  kernel    {}", line(&status.kernel)));
    lines.push(format!("  agent     {} (pid {})", line(&status.version), status.pid));
    lines.push(format!(
        "  policy    {} version {} ({}…), generation {}",
        line(&bundle.name),
        bundle.version,
        line(&short(&bundle.digest)),
        status.generation
    ));
    lines.push(format!("  from      {}", line(&bundle.directory)));
    lines.extend(trust(&status.policy));
    lines.extend(beside(status, now));
    let attached = status.programs.iter().filter(|program| program.attached).count();
    let stay = match &status.pinned {
        Some(pins) => format!("pinned in {}: they stay when the agent ends", line(pins)),
        None => "they end with the agent".to_owned(),
    };
    lines.push(format!("  programs  {attached} attached, {stay}"));
    lines.extend(status.disarmed.as_ref().map(|disarm| {
        format!(
            "  disarmed  last at {} by {}: \"{}\"",
            people_time(&disarm.at),
            line(&disarm.by),
            line(&disarm.reason)
        )
    }));
    lines.push(format!(
        "  decided   {}, denied {}, would deny {}, would allow {}, denied for want of a decision {}",
        grouped(counters.decided),
        grouped(counters.denied),
        grouped(counters.would_deny),
        grouped(counters.would_allow),
        grouped(counters.internal_denied)
    ));
    lines.push(format!(
        "  events    {} sent, {} lost",
        grouped(counters.events_sent),
        grouped(counters.events_lost)
    ));
    lines.extend(memory(&status.store));
    lines.push(format!("  labelled  {} by selectors", grouped(counters.labelled)));
    if counters.file_systems_not_noted != 0 {
        lines.push(format!(
            "  not noted {} file systems of subjects, because they had too many at once: what lies on them is denied",
            grouped(counters.file_systems_not_noted)
        ));
    }
    lines.extend(modes(&status.subjects, now));
    lines.extend(windows(&status.windows));
    lines.extend(
        status
            .quarantines
            .iter()
            .map(|one| format!("quarantine  {}", quarantine::describe(one).trim_start())),
    );
    lines.push(String::new());
    lines.extend(subjects(&status.subjects));
    lines.join("\n")
}

/// When change windows open and close.
fn windows(windows: &[WindowStatus]) -> impl Iterator<Item = String> {
    windows.iter().map(|window| {
        let until = window.until.as_deref().map(people_time);
        let text = match (window.open, until) {
            (true, Some(until)) => format!("open until {until}"),
            (true, None) => "open".to_owned(),
            (false, Some(until)) => format!("closed until {until}"),
            (false, None) => "closed".to_owned(),
        };
        format!("  window    {} {text}", line(&window.name))
    })
}

/// What is remembered of events.
fn memory(store: &StoreStatus) -> Vec<String> {
    let mut text = format!(
        "  memory    {} kinds of events, {} KiB, {} events not stored",
        grouped(store.kinds),
        grouped(store.bytes.div_ceil(1024)),
        grouped(store.not_stored)
    );
    if store.forgotten != 0 {
        text.push_str(&format!(", {} kinds forgotten", grouped(store.forgotten)));
    }
    let mut lines = vec![text];
    lines.extend(store.broken.iter().map(|why| format!("  memory    nothing is stored: {}", line(why))));
    lines.extend(store.set_aside.iter().map(|what| format!("  memory    begun anew: {}", line(what))));
    lines
}

/// Who vouches for the live bundle, and what else could become live.
fn trust(policy: &PolicyStatus) -> Vec<String> {
    let signed = match policy.signed_by.as_slice() {
        [] => "by nobody".to_owned(),
        by => format!("by {}", line(&by.join(", "))),
    };
    let accepts = if policy.accepts_unsigned {
        "unsigned bundles are accepted".to_owned()
    } else {
        format!("{} of {} keys must sign", policy.threshold, policy.keys)
    };
    let mut lines = vec![format!("  signed    {signed}; {accepts}")];
    lines.extend(policy.kept.iter().map(|why| format!("  kept      {}", line(why))));
    if let Some(hold) = &policy.hold {
        let why = hold.reason.as_ref().map(|reason| format!(": {}", line(reason))).unwrap_or_default();
        lines.push(format!("  held      until {} by {}{why}", line(&hold.until), line(&hold.by)));
    }
    lines
}

/// The shadow, and what became of one that is lost.
fn beside(status: &Status, now: i64) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(shadow) = &status.shadow {
        let since = time::parse(&shadow.since).map_or(String::new(), |since| time::ago(since, now));
        lines.push(format!("  shadow    {}, begun {since} by {}", shadow::named(shadow), line(&shadow.by)));
        lines.extend(
            shadow
                .paused
                .iter()
                .map(|why| format!("  shadow    paused: {}", line(why.lines().next().unwrap_or_default()))),
        );
    }
    lines.extend(status.shadow_lost.iter().map(|why| format!("  shadow    lost: {}", line(why))));
    lines
}

/// The modes that were set for a while.
fn modes(subjects: &[SubjectStatus], now: i64) -> Vec<String> {
    let of = |subject: &SubjectStatus| {
        let set = subject.mode_set.as_ref()?;
        let until = mode::until(&subject.name, &subject.mode, &set.until, &subject.bundle_mode, now);
        let reason = set.reason.as_ref().map_or(String::new(), |reason| format!("  \"{}\"", line(reason)));
        Some(format!("  mode      {until}  by {}{reason}", line(&set.by)))
    };
    subjects.iter().filter_map(of).collect()
}

/// The table of subjects.
fn subjects(subjects: &[SubjectStatus]) -> Vec<String> {
    if subjects.is_empty() {
        return vec!["  no subjects: nothing is governed".to_owned()];
    }
    let widest = |header: &str, cells: &mut dyn Iterator<Item = usize>| cells.fold(header.len(), usize::max);
    let name = widest("SUBJECT", &mut subjects.iter().map(|subject| line(&subject.name).chars().count()));
    let mode = widest("MODE", &mut subjects.iter().map(|subject| line(&subject.mode).chars().count()));
    let indent = name + mode + 6;
    let mut lines = vec![format!("  {:name$}  {:mode$}  NOT ENFORCED IN THIS VERSION", "SUBJECT", "MODE")];
    for subject in subjects {
        let missing: Vec<String> = subject.not_enforced.iter().map(|action| line(action)).collect();
        let missing = if missing.is_empty() { "—".to_owned() } else { wrapped(&missing, indent, WIDTH) };
        lines.push(format!("  {:name$}  {:mode$}  {missing}", line(&subject.name), line(&subject.mode)));
    }
    lines
}

/// `2026-01-02 03:04:05 UTC` of an RFC 3339 time in UTC.
fn people_time(text: &str) -> String {
    format!("{} UTC", line(&time::people(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{BundleStatus, Counters, ProgramStatus};

    fn status() -> Status {
        let subject = |name: &str, not_enforced: &[&str]| SubjectStatus {
            name: name.to_owned(),
            id: 16,
            mode: "enforce".to_owned(),
            bundle_mode: "enforce".to_owned(),
            mode_set: None,
            not_enforced: not_enforced.iter().map(|action| (*action).to_owned()).collect(),
            unenforceable: Vec::new(),
            when_unenforceable: crate::policy::Unenforceable::default(),
        };
        Status {
            schema: "guard.status/1".to_owned(),
            state: "enforcing".to_owned(),
            degraded: Vec::new(),
            since: "2026-01-02T03:04:05.123456Z".to_owned(),
            version: "0.1.0".to_owned(),
            pid: 412,
            kernel: "6.12.48".to_owned(),
            generation: 2,
            bundle: BundleStatus {
                name: "quickstart".to_owned(),
                version: 1,
                digest: "0123456789abcdef".to_owned(),
                directory: "/etc/guard/policy".to_owned(),
                copy: String::new(),
            },
            policy: PolicyStatus { accepts_unsigned: true, ..PolicyStatus::default() },
            shadow: None,
            shadow_lost: None,
            pinned: Some("/sys/fs/bpf/guard".to_owned()),
            disarmed: None,
            windows: Vec::new(),
            quarantines: Vec::new(),
            subjects: vec![subject("ai-coder", &["file.create", "sys.bpf"]), subject("nginx", &[])],
            programs: vec![ProgramStatus {
                name: "file_open".to_owned(),
                hook: "file_open".to_owned(),
                instructions_verified: 9,
                attached: true,
            }],
            counters: Counters { decided: 12_345, denied: 12, ..Counters::default() },
            store: StoreStatus { kinds: 3, bytes: 40_960, ..StoreStatus::default() },
        }
    }

    #[test]
    fn one_screen_says_it_all() {
        let now = time::parse("2026-01-02T03:06:10Z").unwrap();
        let text = render(&status(), Screen { colour: false }, now);
        let wanted = "\
● enforcing since 2026-01-02 03:04:05 UTC (2 min ago)
  kernel    6.12.48
  agent     0.1.0 (pid 412)
  policy    quickstart version 1 (0123456789ab…), generation 2
  from      /etc/guard/policy
  signed    by nobody; unsigned bundles are accepted
  programs  1 attached, pinned in /sys/fs/bpf/guard: they stay when the agent ends
  decided   12 345, denied 12, would deny 0, would allow 0, denied for want of a decision 0
  events    0 sent, 0 lost
  memory    3 kinds of events, 40 KiB, 0 events not stored
  labelled  0 by selectors

  SUBJECT   MODE     NOT ENFORCED IN THIS VERSION
  ai-coder  enforce  file.create sys.bpf
  nginx     enforce  —";
        assert_eq!(text, wanted);
    }

    #[test]
    fn who_signed_and_what_holds_is_said() {
        let mut status = status();
        let hold = crate::bundle::Hold {
            until: "2026-01-02T05:04:05Z".to_owned(),
            by: "uid 0".to_owned(),
            reason: Some("INC-1".to_owned()),
        };
        status.policy = PolicyStatus {
            signed_by: vec!["release".to_owned(), "ops".to_owned()],
            keys: 3,
            threshold: 2,
            hold: Some(hold),
            ..PolicyStatus::default()
        };
        let text = render(&status, Screen { colour: false }, 0);
        assert!(text.contains("\n  signed    by release, ops; 2 of 3 keys must sign\n"), "{text}");
        assert!(text.contains("\n  held      until 2026-01-02T05:04:05Z by uid 0: INC-1\n"), "{text}");
    }

    #[test]
    fn what_ended_enforcement_last_is_said() {
        let mut status = status();
        status.pinned = None;
        status.disarmed = Some(crate::daemon::Disarm {
            at: "2026-01-02T03:04:05Z".to_owned(),
            by: "uid 0".to_owned(),
            reason: "INC-1\x1b".to_owned(),
            offline: true,
        });
        let text = render(&status, Screen { colour: false }, 0);
        let wanted = "
  programs  1 attached, they end with the agent
  disarmed  last at 2026-01-02 03:04:05 UTC by uid 0: \"INC-1\\x1b\"
";
        assert!(text.contains(wanted), "{text}");
    }

    #[test]
    fn a_shadow_is_said() {
        let mut status = status();
        status.shadow = Some(crate::api::types::ShadowStatus {
            name: "web".to_owned(),
            version: 2,
            digest: "2121a6b54ce6ffff".to_owned(),
            since: "2026-01-02T03:04:10Z".to_owned(),
            by: "uid 0".to_owned(),
            paused: Some("too large\nfor this".to_owned()),
            ..crate::api::types::ShadowStatus::default()
        });
        status.shadow_lost = Some("the copy\x1b is gone".to_owned());
        let text = render(&status, Screen { colour: false }, time::parse("2026-01-02T03:06:10Z").unwrap());
        let wanted = "
  shadow    web version 2 (2121a6b54ce6…), begun 2 min ago by uid 0
  shadow    paused: too large
  shadow    lost: the copy\\x1b is gone
";
        assert!(text.contains(wanted), "{text}");
    }

    #[test]
    fn what_is_degraded_is_said_and_hostile_names_are_harmless() {
        let mut status = status();
        status.state = "degraded".to_owned();
        status.degraded = vec!["hook\x1b[2J gone".to_owned()];
        status.bundle.directory = "/a\nb".to_owned();
        status.since = "soon".to_owned();
        status.subjects.clear();
        status.store.broken = Some("disk\x1b full".to_owned());
        status.store.forgotten = 1_000;
        let text = render(&status, Screen { colour: false }, 0);
        assert!(text.starts_with("● degraded since soon\n  degraded  hook\\x1b[2J gone\n"), "{text}");
        assert!(text.contains("/a\\x0ab") && text.contains("no subjects"), "{text}");
        assert!(text.contains("\n  memory    nothing is stored: disk\\x1b full\n"), "{text}");
        assert!(text.contains("1 000 kinds forgotten"), "{text}");
    }
}
