//! `guardctl report --unused`: rights that were granted and never used.

use super::client::{Client, quoted};
use super::screen::Screen;
use super::{CliError, Exit};
use crate::api::types::{Report, SubjectReport, UnusedPermit};
use crate::events::escape::line;
use crate::events::time;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Permits of the live policy of which nothing was used.
    #[arg(long, required = true)]
    unused: bool,
    /// Only of this subject.
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

impl Args {
    /// Asks the daemon and prints what it says.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        let query = self.subject.as_ref().map_or(String::new(), |name| format!("?subject={}", quoted(name)));
        let answer = client.get(&format!("/v1/report/unused{query}")).await?;
        let report: Report = serde_json::from_slice(&answer)
            .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))?;
        if self.json {
            screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
        } else {
            screen.answer(&render(&report, time::now()))?;
        }
        Ok(Exit::Yes)
    }
}

fn render(report: &Report, now: i64) -> String {
    let bundle = &report.bundle;
    let mut lines = Vec::new();
    for subject in &report.subjects {
        lines.extend(of(subject, &format!("{} version {}", line(&bundle.name), bundle.version), now));
    }
    if lines.is_empty() {
        return "no subjects: nothing is granted".to_owned();
    }
    lines.push(String::new());
    lines.push(
        "not seen   what only start, stop, reload, rotation, renewal or boot do, if none was since then;"
            .to_owned(),
    );
    lines.push("           what was used before the agent was last killed; where two permits give the same, both count as used".to_owned());
    lines.join("\n")
}

fn of(subject: &SubjectReport, bundle: &str, now: i64) -> Vec<String> {
    let since = match subject.since.as_deref() {
        None => "not watched yet".to_owned(),
        Some(since) => {
            let age =
                time::parse(since).map_or(String::new(), |then| format!(" ({})", time::span(now - then)));
            format!("watched since {} UTC{age}", line(&time::people(since)))
        }
    };
    let mut lines = vec![
        format!("{}  {bundle}, {since}", line(&subject.subject)),
        format!("  never used   {} of {} permits", subject.unused.len(), subject.permits),
    ];
    lines.extend(subject.unused.iter().map(|permit| format!("    {}", described(permit))));
    if !subject.untold.is_empty() {
        lines.push(format!("  cannot tell  {}", subject.untold.len()));
        lines.extend(subject.untold.iter().map(|permit| format!("    {}", described(permit))));
    }
    lines
}

fn described(permit: &UnusedPermit) -> String {
    let mut on: Vec<String> = permit.on.iter().map(|class| line(class)).collect();
    if permit.more != 0 {
        on.push(format!("and {} more", permit.more));
    }
    let on = if on.is_empty() { String::new() } else { format!("  on {}", on.join(", ")) };
    let why = permit.why.as_ref().map_or(String::new(), |why| format!("  ({})", line(why)));
    format!(
        "{}  {}:{}  {}{on}{why}",
        line(&permit.policy),
        line(&permit.file),
        permit.line,
        line(&permit.actions.join(" "))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::BundleStatus;

    #[test]
    fn unused_permits_have_their_place_and_what_is_not_seen_is_said() {
        let permit = |policy: &str, why: Option<&str>| UnusedPermit {
            policy: policy.to_owned(),
            file: "web.cedar".to_owned(),
            line: 5,
            actions: vec!["file.read".to_owned(), "dir.list".to_owned()],
            on: vec!["/srv/www/**".to_owned(), "/srv/\x1b".to_owned()],
            more: 2,
            why: why.map(str::to_owned),
        };
        let report = Report {
            schema: Report::SCHEMA.to_owned(),
            bundle: BundleStatus {
                name: "web".to_owned(),
                version: 4,
                digest: String::new(),
                directory: String::new(),
                copy: String::new(),
            },
            subjects: vec![SubjectReport {
                subject: "nginx".to_owned(),
                since: Some("2026-05-04T03:00:00.000000Z".to_owned()),
                permits: 14,
                unused: vec![permit("web/site", None)],
                untold: vec![permit("web/rm", Some("nothing decides it"))],
            }],
        };
        let text = render(&report, time::parse("2026-05-04T06:00:00Z").unwrap());
        assert!(
            text.starts_with(
                "\
nginx  web version 4, watched since 2026-05-04 03:00:00 UTC (3 h)
  never used   1 of 14 permits
    web/site  web.cedar:5  file.read dir.list  on /srv/www/**, /srv/\\x1b, and 2 more
  cannot tell  1
    web/rm  web.cedar:5  file.read dir.list  on /srv/www/**, /srv/\\x1b, and 2 more  (nothing decides it)

not seen   what only start"
            ),
            "{text}"
        );
    }
}
