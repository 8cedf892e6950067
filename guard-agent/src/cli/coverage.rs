//! `guardctl coverage`: what is decided on this kernel.

use super::client::Client;
use super::screen::Screen;
use super::{CliError, Exit};
use crate::api::types::CoverageReport;
use crate::coverage::{ActionCoverage, Extent};
use crate::events::escape::line;
use crate::policy::Unenforceable;

/// Asks the daemon and prints what it says. A subject that governs what this kernel cannot enforce is
/// worth another exit code.
pub(super) async fn run(client: &Client, screen: &Screen, json: bool) -> Result<Exit, CliError> {
    let answer = client.get("/v1/coverage").await?;
    let report: CoverageReport = serde_json::from_slice(&answer)
        .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))?;
    if json {
        screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
    } else {
        screen.answer(&render(&report))?;
    }
    let lacking = report.subjects.iter().any(|subject| !subject.unenforceable.is_empty());
    Ok(if lacking { Exit::Degraded } else { Exit::Yes })
}

fn render(report: &CoverageReport) -> String {
    let mut lines = vec![format!("on kernel {}", line(&report.kernel)), String::new()];
    let width = report.actions.iter().map(|action| line(&action.action).len()).max().unwrap_or_default();
    lines.extend(report.actions.iter().flat_map(|action| of(action, width)));
    let lacking = report.subjects.iter().filter(|subject| !subject.unenforceable.is_empty());
    let mut lacking: Vec<String> = lacking
        .map(|subject| {
            let then = match subject.when_unenforceable {
                Unenforceable::Deny => "all that it governs is denied",
                Unenforceable::Accept | Unenforceable::Stop => "the rest of its policy is enforced",
            };
            let what: Vec<String> = subject.unenforceable.iter().map(|action| line(action)).collect();
            format!(
                "{}: {} cannot be enforced on this kernel; {then}",
                line(&subject.subject),
                what.join(" ")
            )
        })
        .collect();
    if !lacking.is_empty() {
        lines.push(String::new());
        lines.append(&mut lacking);
    }
    lines.join("\n")
}

fn of(action: &ActionCoverage, width: usize) -> Vec<String> {
    let extent = match action.coverage {
        Extent::Enforced => "enforced",
        Extent::Partly => "partly",
        Extent::NotOnThisKernel => "not on this kernel",
        Extent::NotInThisVersion => "not in this version",
    };
    let hooks = action.hooks.iter().map(|hook| line(hook)).collect::<Vec<_>>().join(" ");
    let mut lines =
        vec![format!("{:width$}  {extent:19}  {hooks}", line(&action.action)).trim_end().to_owned()];
    lines.extend(action.why.iter().map(|why| format!("{:width$}    {}", "", line(why))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::SubjectCoverage;

    #[test]
    fn every_action_has_its_extent_and_what_is_missing_is_said() {
        let action = |name: &str, coverage, why: &[&str], hooks: &[&str]| ActionCoverage {
            action: name.to_owned(),
            coverage,
            why: why.iter().map(|text| (*text).to_owned()).collect(),
            hooks: hooks.iter().map(|text| (*text).to_owned()).collect(),
        };
        let report = CoverageReport {
            schema: CoverageReport::SCHEMA.to_owned(),
            kernel: "6.1.0".to_owned(),
            actions: vec![
                action("exec", Extent::Enforced, &[], &["a", "b"]),
                action("unix.send", Extent::NotOnThisKernel, &["this kernel has no hook c"], &[]),
                action("sys.bpf", Extent::NotInThisVersion, &[], &[]),
            ],
            subjects: vec![SubjectCoverage {
                subject: "ci".to_owned(),
                unenforceable: vec!["unix.send".to_owned()],
                when_unenforceable: Unenforceable::Deny,
            }],
        };
        let wanted = "\
on kernel 6.1.0

exec       enforced             a b
unix.send  not on this kernel
             this kernel has no hook c
sys.bpf    not in this version

ci: unix.send cannot be enforced on this kernel; all that it governs is denied";
        assert_eq!(render(&report), wanted);
    }
}
