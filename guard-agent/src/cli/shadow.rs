//! `guardctl policy apply --shadow` and `guardctl policy shadow`.

use super::apply::{request, tell};
use super::client::Client;
use super::policy::place;
use super::screen::{Screen, grouped, note, short};
use super::{CliError, Exit};
use crate::api::types::{ShadowDifference, ShadowReport, ShadowSet, ShadowStatus};
use crate::events::escape::{block, line};
use crate::events::time;
use clap::{Args, Subcommand, ValueEnum};
use std::path::Path;

#[derive(Debug, Subcommand)]
pub(super) enum Shadow {
    /// What would have been decided otherwise, had the shadow been live.
    Report(Report),
    /// Make the shadow the live policy, as an apply would, and end it.
    Promote(Json),
    /// End the shadow. Nothing that is decided changes.
    Stop(Json),
}

#[derive(Debug, Args)]
pub(super) struct Json {
    /// Answer with one JSON value.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Report {
    /// At most so many lines, the newest.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    /// How the report is written.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// The same as --output json.
    #[arg(long)]
    json: bool,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON value.
    Json,
}

impl Shadow {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Report(report) => report.json || report.output == Format::Json,
            Self::Promote(output) | Self::Stop(output) => output.json,
        }
    }

    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        let json = self.json();
        match self {
            Self::Report(report) => {
                let answer = client.get(&format!("/v1/policy/shadow?limit={}", report.limit)).await?;
                let report: ShadowReport = understood(&answer)?;
                if json {
                    screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
                } else {
                    screen.answer(&render(&report, screen, time::now()))?;
                }
                let same = report.shadow.paused.is_none() && report.newly_denied + report.newly_allowed == 0;
                Ok(if same { Exit::Yes } else { Exit::No })
            }
            Self::Promote(_) => {
                let answer = client.post("/v1/policy/shadow/promote", b"{}".to_vec()).await?;
                tell(screen, &answer, "promoted", json)
            }
            Self::Stop(_) => {
                let answer = client.post("/v1/policy/shadow/stop", b"{}".to_vec()).await?;
                let set: ShadowSet = understood(&answer)?;
                if json {
                    screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
                } else {
                    let live = format!("{} version {}", line(&set.bundle.name), set.bundle.version);
                    screen.answer(&format!("shadow ended  {}  {live} stays live", named(&set.shadow)))?;
                }
                Ok(Exit::Yes)
            }
        }
    }
}

/// Has the daemon put the bundle at `path` beside the live one.
pub(super) async fn begin(
    client: &Client,
    screen: &Screen,
    path: &Path,
    dry_run: bool,
    json: bool,
) -> Result<Exit, CliError> {
    let answer = client.post("/v1/policy/shadow", request(path, dry_run)?).await?;
    let set: ShadowSet = understood(&answer)?;
    if json {
        screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
        return Ok(Exit::Yes);
    }
    for text in &set.notes {
        note(&block(text.trim_end()));
    }
    screen.answer(&begun(&set))?;
    Ok(Exit::Yes)
}

fn understood<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T, CliError> {
    serde_json::from_slice(answer)
        .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))
}

fn begun(set: &ShadowSet) -> String {
    let shadow = named(&set.shadow);
    let beside = format!("beside generation {}", set.generation);
    match (set.dry_run, set.changed) {
        (true, _) => format!("would shadow  {shadow}  compiles {beside}; nothing was changed"),
        (false, false) => format!("unchanged shadow  {shadow}  {beside}"),
        (false, true) => format!(
            "shadow  {shadow}  {beside}, in {:.0} ms: {} version {} stays live",
            set.milliseconds,
            line(&set.bundle.name),
            set.bundle.version
        ),
    }
}

/// `nginx version 2 (2121a6b54ce6…)`
pub(super) fn named(shadow: &ShadowStatus) -> String {
    format!("{} version {} ({}…)", line(&shadow.name), shadow.version, line(&short(&shadow.digest)))
}

fn render(report: &ShadowReport, screen: &Screen, now: i64) -> String {
    let shadow = &report.shadow;
    let lasts =
        time::parse(&shadow.since).map_or_else(|| line(&shadow.since), |since| time::span(now - since));
    let mut lines =
        vec![format!("shadow  {}  beside generation {}, for {lasts}", named(shadow), report.generation)];
    if let Some(why) = &shadow.paused {
        lines.push(format!("paused         nothing is compared now: {}", block(why.trim_end())));
    }
    let decided = format!(
        "{} operations decided since {} UTC",
        grouped(report.decided),
        line(&time::people(&report.decided_since))
    );
    if report.differences.is_empty() {
        lines.push(format!("no difference  {decided}"));
    } else {
        lines.extend(table(&report.differences, screen, now));
        if report.more != 0 {
            lines.push(format!("and {} more: --limit shows them", grouped(report.more as u64)));
        }
        lines.push(format!(
            "in all         {} newly denied, {} newly allowed; {decided}",
            grouped(report.newly_denied),
            grouped(report.newly_allowed)
        ));
    }
    if report.forgotten != 0 {
        lines.push(format!(
            "forgotten      {} operations of kinds that found no room",
            grouped(report.forgotten)
        ));
    }
    if !report.missing.is_nothing() {
        lines.push(format!("not sure       {}", report.missing.compact(false)));
    }
    lines.extend(report.not_compared.iter().map(|text| format!("not compared   {}", line(text))));
    lines.join("\n")
}

/// One line for each difference, in columns.
fn table(differences: &[ShadowDifference], screen: &Screen, now: i64) -> Vec<String> {
    let rows: Vec<[String; 5]> = differences.iter().map(|difference| cells(difference, now)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3), width(4)];
    rows.iter()
        .zip(differences)
        .map(|(row, difference)| {
            let (word, colour) = if difference.change == "newly_denied" {
                ("newly denied ", "31")
            } else {
                ("newly allowed", "32")
            };
            let cells: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            format!("{}  {}  {}", screen.paint(colour, word), cells.join("  "), line(&difference.id))
        })
        .collect()
}

/// Subject, actions, resource, how often, and by which policies.
fn cells(difference: &ShadowDifference, now: i64) -> [String; 5] {
    let last =
        time::parse(&difference.last).map_or_else(|| line(&difference.last), |last| time::ago(last, now));
    let times = if difference.count == 1 { "time" } else { "times" };
    [
        line(&difference.subject),
        line(&difference.actions.join("+")),
        line(&difference.resource),
        format!("{} {times}, last {last}", grouped(difference.count)),
        by(difference),
    ]
}

fn by(difference: &ShadowDifference) -> String {
    let denied = difference.change == "newly_denied";
    match difference.policies.as_deref() {
        None => "by what cannot be told".to_owned(),
        Some([]) if denied => "by default (no permit)".to_owned(),
        Some([]) => "by monitor mode".to_owned(),
        Some(policies) => format!("by {}", policies.iter().map(place).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::can::Named;
    use crate::api::types::BundleStatus;
    use crate::events::Missing;

    fn report() -> ShadowReport {
        let shadow = ShadowStatus {
            name: "nginx".to_owned(),
            version: 2,
            digest: "2121a6b54ce6ffff".to_owned(),
            since: "2026-05-04T00:49:13Z".to_owned(),
            ..ShadowStatus::default()
        };
        let difference = |change: &str, action: &str, resource: &str, count, last: &str| ShadowDifference {
            change: change.to_owned(),
            subject: "nginx".to_owned(),
            actions: vec![action.to_owned()],
            resource: resource.to_owned(),
            count,
            first: "2026-05-04T02:00:00.000000Z".to_owned(),
            last: last.to_owned(),
            id: "d-7K3F2Q".to_owned(),
            policies: Some(Vec::new()),
        };
        let by = Named {
            id: "nginx/id".to_owned(),
            file: Some("nginx.cedar".to_owned()),
            line: Some(7),
            reason: None,
        };
        ShadowReport {
            schema: ShadowReport::SCHEMA.to_owned(),
            shadow,
            bundle: BundleStatus {
                name: "nginx".to_owned(),
                version: 1,
                digest: String::new(),
                directory: String::new(),
                copy: String::new(),
            },
            generation: 5,
            decided: 12_345,
            decided_since: "2026-05-04T00:49:13.000000Z".to_owned(),
            newly_denied: 12,
            newly_allowed: 1,
            differences: vec![
                difference("newly_denied", "file.read", "/srv/x/\x1by", 12, "2026-05-04T03:02:10.000000Z"),
                ShadowDifference {
                    policies: Some(vec![by]),
                    ..difference("newly_allowed", "exec", "/usr/bin/id", 1, "2026-05-04T02:57:13.000000Z")
                },
            ],
            more: 0,
            forgotten: 0,
            not_compared: vec![
                "subject ci is only in the shadow: nothing is labelled with it yet".to_owned(),
            ],
            missing: Missing::new(0, 0),
        }
    }

    fn screen(report: &ShadowReport) -> String {
        render(report, &Screen { colour: false }, time::parse("2026-05-04T03:02:13Z").unwrap())
    }

    #[test]
    fn what_would_be_otherwise_is_a_line_each() {
        assert_eq!(
            screen(&report()),
            "\
shadow  nginx version 2 (2121a6b54ce6…)  beside generation 5, for 2 h
newly denied   nginx  file.read  /srv/x/\\x1by  12 times, last 3 s ago  by default (no permit)      d-7K3F2Q
newly allowed  nginx  exec       /usr/bin/id   1 time, last 5 min ago  by nginx/id  nginx.cedar:7  d-7K3F2Q
in all         12 newly denied, 1 newly allowed; 12 345 operations decided since 2026-05-04 00:49:13 UTC
not compared   subject ci is only in the shadow: nothing is labelled with it yet"
        );
    }

    #[test]
    fn nothing_and_what_is_missing_are_said() {
        let mut report = report();
        (report.differences, report.not_compared) = (Vec::new(), Vec::new());
        assert!(
            screen(&report)
                .ends_with("\nno difference  12 345 operations decided since 2026-05-04 00:49:13 UTC"),
            "{}",
            screen(&report)
        );
        report.shadow.paused = Some("it does not fit".to_owned());
        (report.forgotten, report.missing) = (3, Missing::new(0, 2));
        let text = screen(&report);
        assert!(text.contains("\npaused         nothing is compared now: it does not fit\n"), "{text}");
        assert!(text.contains("\nforgotten      3 operations of kinds"), "{text}");
        assert!(text.contains("\nnot sure       LOST  2 events not stored"), "{text}");
    }
}
