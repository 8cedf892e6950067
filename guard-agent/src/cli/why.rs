//! `guardctl why`: what denied this, and what would change it.

use super::client::{Client, quoted};
use super::lease::decode;
use super::policy::{place, signers};
use super::screen::Screen;
use super::{CliError, Exit};
use crate::analysis::can::Finding;
use crate::api::types::{OwnDenial, Why, WhyShadow};
use crate::events::escape::{line, word};
use crate::events::{Record, time};
use clap::ArgGroup;
use std::path::{Path, PathBuf};

/// The security modules that are active.
const MODULES: &str = "/sys/kernel/security/lsm";

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = ArgGroup::new("asked").args(["id", "last", "path"]).required(true).multiple(true))]
pub(super) struct Args {
    /// Id of an event, such as d-7K3F2Q.
    #[arg(conflicts_with_all = ["last", "path"])]
    id: Option<String>,
    /// The last denial, of this subject if one is named.
    #[arg(long, value_name = "SUBJECT", num_args = 0..=1, default_missing_value = "", conflicts_with = "path")]
    last: Option<String>,
    /// An operation on this path that failed: was it Guard?
    #[arg(long, value_name = "PATH", requires = "pid")]
    path: Option<PathBuf>,
    /// The process that it failed for.
    #[arg(long, value_name = "PID", requires = "path")]
    pid: Option<i32>,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

impl Args {
    /// Whether whoever asks means itself: it is a subject, or not root.
    pub(super) fn is_own(&self) -> bool {
        let is_subject = std::env::var_os("GUARD_SESSION").is_some();
        self.last.as_deref() == Some("") && (is_subject || !nix::unistd::geteuid().is_root())
    }

    /// Asks for the last denial of this very process's subject and session.
    pub(super) async fn run_own(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        let answer = client.get("/v1/denials/last").await?;
        let denial: OwnDenial = decode(&answer)?;
        if self.json {
            screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
        } else {
            screen.answer(&own(&denial))?;
        }
        Ok(if denial.id.is_some() { Exit::Yes } else { Exit::No })
    }

    /// Asks the daemon and prints what it says.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        let answer = client.get(&self.request()?).await?;
        let why: Why = serde_json::from_slice(&answer)
            .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))?;
        if self.json {
            screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
        } else if let Some(record) = &why.event {
            screen.answer(&render(record, &why, screen, time::now()))?;
        } else {
            screen.answer(&nothing(&why, self.path.as_deref()))?;
        }
        Ok(if why.event.is_some() { Exit::Yes } else { Exit::No })
    }

    fn request(&self) -> Result<String, CliError> {
        if let Some(id) = &self.id {
            return Ok(format!("/v1/why?id={}", quoted(id)));
        }
        if let (Some(path), Some(pid)) = (&self.path, self.pid) {
            // Guard sees where links lead; what is not there any more has only its name.
            let path = path.canonicalize().or_else(|_| std::path::absolute(path));
            let path =
                path.map_err(|error| CliError::invalid(format!("the path is not understood: {error}")))?;
            let path = path.to_str().ok_or_else(|| {
                CliError::invalid(
                    "a path that is not UTF-8 cannot be asked for: look for it in guardctl events",
                )
            })?;
            return Ok(format!("/v1/why?path={}&pid={pid}", quoted(path)));
        }
        Ok(match self.last.as_deref() {
            None | Some("") => "/v1/why?last=true".to_owned(),
            Some(subject) => format!("/v1/why?last=true&subject={}", quoted(subject)),
        })
    }
}

/// A subject's own denial.
fn own(denial: &OwnDenial) -> String {
    let Some(id) = &denial.id else {
        return "nothing of yours was denied, as far as is remembered".to_owned();
    };
    let mut lines = vec![format!(
        "DENIED {} {}  {} {}",
        line(denial.errno.as_deref().unwrap_or("")),
        line(id),
        line(&denial.actions.join("+")),
        line(denial.resource.as_deref().unwrap_or(""))
    )];
    lines.extend(denial.reasons.iter().map(|reason| format!("  reason     \"{}\"", line(reason))));
    lines.extend(denial.ask_for.iter().map(|lease| {
        format!("  ask for it  guardctl request create --name {} --reason TEXT --wait", word(lease))
    }));
    lines.extend(
        denial.windows.iter().map(|window| format!("  wait for   the change window {}", line(window))),
    );
    if denial.ask_for.is_empty() && denial.windows.is_empty() {
        lines.push("  nothing that can be asked for would allow it: do without".to_owned());
    }
    lines.push("  trying again changes nothing".to_owned());
    lines.join("\n")
}

/// What to say when there is no denial of Guard's.
fn nothing(why: &Why, path: Option<&Path>) -> String {
    let mut lines = vec![line(why.message.as_deref().unwrap_or("no event of Guard's"))];
    if !why.missing.is_nothing() {
        lines.push(format!("  not sure         {}", why.missing.compact(false)));
    }
    if let Some(path) = path {
        let path = word(&path.to_string_lossy());
        lines.push(format!("  look at          namei -l {path} (modes, owners), getfacl {path}, lsattr {path}, findmnt -T {path}"));
        let modules = std::fs::read_to_string(MODULES).unwrap_or_default();
        let others: Vec<&str> =
            modules.trim().split(',').filter(|name| !["", "bpf", "capability"].contains(name)).collect();
        if !others.is_empty() {
            lines.push(format!(
                "  also deciding    {} (journalctl -k, ausearch -m avc)",
                line(&others.join(", "))
            ));
        }
        if let Some(subject) = &why.subject {
            lines.push(format!(
                "  Guard's own      guardctl can --as {} ACTION {path} says what policy makes of it",
                word(subject)
            ));
        }
    }
    lines.join("\n")
}

fn render(record: &Record, why: &Why, screen: &Screen, now: i64) -> String {
    let (word, colour) = match record.verdict.as_str() {
        "denied" => ("DENIED", "31"),
        "would_deny" => ("WOULD-DENY", "33"),
        "audited" => ("AUDITED", "36"),
        "shadow_deny" => ("SHADOW-DENY", "35"),
        _ => ("EVENT", "36"),
    };
    let mut lines = vec![format!(
        "{} {}  {}  {} {}  {}   {}",
        screen.paint(colour, word),
        line(&record.id),
        record.who(),
        line(&record.actions.join("+")),
        record.what(),
        by(record, &why.decisions),
        when(record, now)
    )];
    let mut row = |label: &str, text: String| lines.push(format!("  {label:<16} {text}"));
    if let Some(reason) = &why.reason {
        row("which means", line(reason));
    }
    let mut said = Vec::new();
    for finding in &why.decisions {
        said.extend(finding.signed_by.iter().map(|keys| ("signed by", signers(keys))));
        for policy in &finding.policies {
            if let Some(reason) = &policy.reason {
                said.push(("reason", format!("\"{}\"", line(reason))));
            }
        }
        if let Some(nearest) = &finding.nearest {
            said.push((
                "nearest permit",
                format!("{}  covers {}", place(&nearest.policy), line(&nearest.covers)),
            ));
        }
    }
    if why.decisions.len() > 1 {
        for finding in &why.decisions {
            said.push(("decided by", format!("{}  {}", line(&finding.action), deciders(finding))));
        }
    }
    said.extend(to_allow(record, &why.decisions).map(|text| ("to allow", text)));
    if record.verdict == "would_deny" {
        said.push(("monitor", "the operation went on; in enforce mode it would be denied".to_owned()));
    }
    said.extend(why.shadow.iter().flat_map(shadow));
    if let Some(bundle) = record.seen.as_ref().and_then(|seen| seen.bundle.as_ref()) {
        said.push(("bundle", format!("{} version {}", line(&bundle.name), bundle.version)));
    }
    let same = |other: &&Record| other.actions == record.actions && other.what() == record.what();
    let before = why.others.iter().filter(same).count();
    if before != 0 {
        said.push((
            "also",
            format!("under {before} other version{} of the policy", if before == 1 { "" } else { "s" }),
        ));
    }
    for other in why.others.iter().filter(|other| !same(other)) {
        said.push(("same id", other.compact(false)));
    }
    said.extend(why.note.iter().map(|note| ("note", line(note))));
    let mut shown = Vec::new();
    for (label, text) in said {
        if !shown.contains(&text) {
            row(label, text.clone());
            shown.push(text);
        }
    }
    lines.join("\n")
}

/// Who decided, for all actions if it is the same.
fn by(record: &Record, decisions: &[Finding]) -> String {
    if record.reason != "policy" {
        return format!("not by policy ({})", line(&record.reason));
    }
    let mut all: Vec<String> = decisions.iter().map(deciders).collect();
    all.dedup();
    match all.as_slice() {
        [] => "by policy".to_owned(),
        [one] => one.clone(),
        _ => "by several".to_owned(),
    }
}

fn deciders(finding: &Finding) -> String {
    if finding.policies.is_empty() && finding.allowed && !finding.would_deny {
        return "by monitor mode".to_owned();
    }
    if finding.policies.is_empty() {
        return "by default (no permit)".to_owned();
    }
    let names: Vec<String> = finding.policies.iter().map(place).collect();
    format!("by {}", names.join(", "))
}

/// What the shadow would have decided, and by which of its policies.
fn shadow(shadow: &WhyShadow) -> Vec<(&'static str, String)> {
    let would = if shadow.verdict == "allowed" { "would allow" } else { "would deny" };
    let of = shadow.bundle.as_ref().map_or_else(
        || "the shadow".to_owned(),
        |bundle| format!("{} version {}", line(&bundle.name), bundle.version),
    );
    let mut deciders: Vec<String> = shadow.decisions.iter().map(deciders).collect();
    deciders.dedup();
    let by = if deciders.is_empty() { String::new() } else { format!("  {}", deciders.join(", ")) };
    let mut said = vec![("shadow", format!("{of} {would} it{by}"))];
    said.extend(shadow.note.iter().map(|note| ("", line(note))));
    said
}

/// `12 s ago, gen 2, ×3`
fn when(record: &Record, now: i64) -> String {
    let ago = time::parse(&record.time).map_or_else(|| line(&record.time), |then| time::ago(then, now));
    let count = record.seen.as_ref().map_or(1, |seen| seen.count);
    let repeats = if count > 1 { format!(", ×{count}") } else { String::new() };
    format!("{ago}, gen {}{repeats}", record.generation)
}

/// What would turn the denial into permission.
fn to_allow(record: &Record, decisions: &[Finding]) -> Option<String> {
    if matches!(record.verdict.as_str(), "audited" | "shadow_deny") || decisions.is_empty() {
        return None;
    }
    let forbidden = decisions.iter().any(|finding| !finding.policies.is_empty());
    let lifts: Vec<String> =
        decisions.iter().flat_map(|finding| &finding.lifts).map(super::policy::lifted).collect();
    // Every action has to be lifted, or none of it helps.
    let lifted = decisions.iter().all(|finding| !finding.lifts.is_empty());
    Some(match (forbidden, lifted) {
        (true, true) => format!("{} lifts it; no permit can, a forbid decides", lifts.join(", or ")),
        (true, false) => "never by a permit: a forbid decides, and no approval would lift it".to_owned(),
        (false, true) => {
            format!("{} lifts it, or guardctl policy suggest {}", lifts.join(", or "), line(&record.id))
        }
        (false, false) => {
            format!("guardctl policy suggest {}  (no approval would lift it)", line(&record.id))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::can::{Named, Nearest};
    use crate::events::{BundleRecord, Missing, ResourceRecord, Seen};
    use crate::policy::Lift;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(text: &str) -> Result<Args, clap::Error> {
        Line::try_parse_from(format!("why {text}").split_whitespace()).map(|line| line.args)
    }

    fn record() -> Record {
        let seen = Seen {
            count: 3,
            first: "2026-05-04T03:00:00.000000Z".to_owned(),
            exe: None,
            bundle: Some(BundleRecord { name: "web".to_owned(), version: 4, digest: "ab".to_owned() }),
            shadow: None,
        };
        Record {
            schema: Record::SCHEMA.to_owned(),
            id: "d-7K3F2Q".to_owned(),
            time: "2026-05-04T03:02:01.000000Z".to_owned(),
            boot_ns: 1,
            verdict: "denied".to_owned(),
            would_allow: false,
            subject: Some("nginx".to_owned()),
            subject_id: 16,
            session: None,
            actions: vec!["file.read".to_owned()],
            resource: ResourceRecord {
                kind: "file".to_owned(),
                path: Some("/srv/private/x".to_owned()),
                ..ResourceRecord::default()
            },
            reason: "policy".to_owned(),
            errno: Some("EACCES".to_owned()),
            pid: 812,
            tid: 812,
            uid: 33,
            comm: "nginx".to_owned(),
            cgroup: 9,
            generation: 2,
            sequence: 1,
            cpu: 0,
            ask_for: Vec::new(),
            class: 20,
            features: 0,
            shadow: None,
            seen: Some(seen),
        }
    }

    fn named(id: &str, at: usize) -> Named {
        Named { id: id.to_owned(), file: Some("nginx.cedar".to_owned()), line: Some(at), reason: None }
    }

    fn finding() -> Finding {
        Finding {
            subject: "nginx".to_owned(),
            action: "file.read".to_owned(),
            resource: "File /srv/private/x".to_owned(),
            resolved: None,
            allowed: false,
            errno: None,
            would_deny: false,
            policies: Vec::new(),
            lifts: Vec::new(),
            nearest: Some(Nearest { policy: named("nginx/site", 5), covers: "/srv/www".to_owned() }),
            signed_by: None,
            not_enforced: None,
        }
    }

    fn screen(record: &Record, why: &Why) -> String {
        render(record, why, &Screen { colour: false }, time::parse("2026-05-04T03:02:13Z").unwrap())
    }

    #[test]
    fn a_denial_by_default_names_the_nearest_permit_and_the_way_out() {
        let why = Why { decisions: vec![finding()], ..Why::new() };
        assert_eq!(
            screen(&record(), &why),
            "\
DENIED d-7K3F2Q  nginx  file.read /srv/private/x  by default (no permit)   12 s ago, gen 2, ×3
  nearest permit   nginx/site  nginx.cedar:5  covers /srv/www
  to allow         guardctl policy suggest d-7K3F2Q  (no approval would lift it)
  bundle           web version 4"
        );
    }

    #[test]
    fn a_forbid_is_named_with_its_reason_and_what_lifts_it() {
        let policy = Named { reason: Some("keys\x1b stay".to_owned()), ..named("nginx/secrets", 9) };
        let mut finding = Finding { policies: vec![policy], nearest: None, ..finding() };
        let why = Why { decisions: vec![finding.clone()], ..Why::new() };
        let text = screen(&record(), &why);
        assert!(text.contains("  by nginx/secrets  nginx.cedar:9   12 s ago"), "{text}");
        assert!(text.contains("\n  reason           \"keys\\x1b stay\"\n"), "{text}");
        assert!(text.contains("never by a permit"), "{text}");
        finding.lifts = vec![Lift { lease: Some("prod".to_owned()), window: None }];
        let text = screen(&record(), &Why { decisions: vec![finding], ..Why::new() });
        assert!(text.contains("the lease prod lifts it; no permit can"), "{text}");
    }

    #[test]
    fn what_policy_did_not_decide_is_said_in_words() {
        let record = Record { reason: "path-too-deep".to_owned(), ..record() };
        let why = Why { reason: Some("too deep".to_owned()), note: Some("a note".to_owned()), ..Why::new() };
        let text = screen(&record, &why);
        assert!(text.contains("not by policy (path-too-deep)"), "{text}");
        assert!(
            text.contains("  which means      too deep\n") && text.ends_with("  note             a note"),
            "{text}"
        );
        assert!(!text.contains("suggest"), "{text}");
    }

    #[test]
    fn two_actions_with_two_deciders_are_told_apart() {
        let write = Finding {
            action: "file.write".to_owned(),
            policies: vec![named("nginx/secrets", 9)],
            nearest: None,
            ..finding()
        };
        let record = Record { actions: vec!["file.read".to_owned(), "file.write".to_owned()], ..record() };
        let text = screen(&record, &Why { decisions: vec![finding(), write], ..Why::new() });
        assert!(text.contains("file.read+file.write /srv/private/x  by several"), "{text}");
        assert!(
            text.contains("\n  decided by       file.write  by nginx/secrets  nginx.cedar:9\n"),
            "{text}"
        );
    }

    #[test]
    fn what_the_shadow_would_do_is_said_with_its_policies() {
        let allowed =
            Finding { allowed: true, policies: vec![named("nginx/site", 5)], nearest: None, ..finding() };
        let record = Record { verdict: "shadow_deny".to_owned(), errno: None, ..record() };
        let shadow = WhyShadow {
            bundle: Some(BundleRecord { name: "web".to_owned(), version: 5, digest: "cd".to_owned() }),
            verdict: "denied".to_owned(),
            decisions: vec![finding()],
            note: None,
        };
        let text = screen(&record, &Why { decisions: vec![allowed], shadow: Some(shadow), ..Why::new() });
        assert_eq!(
            text,
            "\
SHADOW-DENY d-7K3F2Q  nginx  file.read /srv/private/x  by nginx/site  nginx.cedar:5   12 s ago, gen 2, ×3
  shadow           web version 5 would deny it  by default (no permit)
  bundle           web version 4"
        );
    }

    #[test]
    fn not_us_says_where_to_look() {
        let why = Why {
            message: Some("not us: process 9 carries no label".to_owned()),
            missing: Missing::new(0, 2),
            ..Why::new()
        };
        let text = nothing(&why, Some(Path::new("/srv/x y")));
        assert!(text.starts_with("not us: process 9 carries no label\n"), "{text}");
        assert!(text.contains("2 events not stored") && text.contains("namei -l \"/srv/x y\""), "{text}");
        assert_eq!(nothing(&Why { message: Some("no".to_owned()), ..Why::new() }, None), "no");
    }

    #[test]
    fn one_thing_is_asked_at_a_time() {
        let request = |text: &str| parse(text).unwrap().request().unwrap();
        assert_eq!(request("d-7K3F2Q"), "/v1/why?id=d%2D7K3F2Q");
        assert_eq!(request("--last"), "/v1/why?last=true");
        assert_eq!(request("--last nginx --json"), "/v1/why?last=true&subject=nginx");
        assert_eq!(request("--path /no/such --pid 9"), "/v1/why?path=%2Fno%2Fsuch&pid=9");
        for wrong in ["", "--json", "d-7K3F2Q --last", "--path /x", "--pid 9", "d-1 --path /x --pid 9"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
