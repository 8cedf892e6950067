//! How one decision reads on a terminal, and what a question assumes.

use super::source::pair;
use crate::analysis::can::{Finding, Named};
use crate::analysis::question::Words;
use crate::cli::screen::Screen;
use crate::events::escape::line;
use crate::policy::Lift;

/// What a question assumes besides the request.
#[derive(Debug, clap::Args)]
pub(super) struct Assume {
    /// An attribute of the resource: owner, kind, set_id, fileless, protocol, signed_by, listener, subject.
    #[arg(long, value_name = "ATTRIBUTE=VALUE", value_parser = pair)]
    with: Vec<(String, String)>,
    /// A name whose addresses hold the resource's.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// A lease that lives.
    #[arg(long, value_name = "LEASE")]
    lease: Vec<String>,
    /// A change window that is open.
    #[arg(long, value_name = "WINDOW")]
    window: Vec<String>,
    /// A posture fact.
    #[arg(long, value_name = "FACT=VALUE", value_parser = pair)]
    fact: Vec<(String, String)>,
    /// The value of a session variable.
    #[arg(long, value_name = "VARIABLE=VALUE", value_parser = pair)]
    session: Vec<(String, String)>,
}

impl Assume {
    /// The words of a question.
    pub(super) fn words(&self, subject: &str, action: &str, resource: Option<&str>) -> Words {
        Words {
            subject: subject.to_owned(),
            action: action.to_owned(),
            resource: resource.map(str::to_owned),
            with: self.with.clone(),
            within: self.name.iter().map(|name| ("DnsName".to_owned(), name.clone())).collect(),
            leases: self.lease.clone(),
            windows: self.window.clone(),
            facts: self.fact.clone(),
            session: self.session.clone(),
        }
    }
}

/// The answer to one decision, in a few lines.
pub(super) fn render(finding: &Finding, screen: &Screen) -> String {
    let word = match (finding.allowed, finding.would_deny) {
        (true, true) => screen.paint("33", "ALLOWED"),
        (true, false) => screen.paint("32", "ALLOWED"),
        (false, _) => screen.paint("31", "DENIED"),
    };
    let mut lines = vec![format!(
        "{word}  {}  {}  {}",
        line(&finding.subject),
        line(&finding.action),
        line(&finding.resource)
    )];
    let mut row = |label: &str, text: String| lines.push(format!("  {label:<11}{text}"));
    if let Some(path) = &finding.resolved {
        row("leads to", line(path));
    }
    if let Some(keys) = &finding.signed_by {
        row("signed by", signers(keys));
    }
    if finding.would_deny {
        row("monitor", "it goes through and is reported; enforced, it would be denied".to_owned());
    }
    let denies = !finding.allowed || finding.would_deny;
    if finding.policies.is_empty() {
        row(
            "by",
            if denies { "default: no policy permits it".to_owned() } else { "monitor mode".to_owned() },
        );
    }
    for policy in &finding.policies {
        row("by", place(policy));
        if let (true, Some(reason)) = (denies, &policy.reason) {
            row("", format!("\"{}\"", line(reason)));
        }
    }
    if let Some(errno) = &finding.errno {
        row("answers", format!("{}, as if it were not there", line(errno)));
    }
    if let Some(nearest) = &finding.nearest {
        row("nearest", format!("{}  covers {}", place(&nearest.policy), line(&nearest.covers)));
    }
    if denies {
        if finding.lifts.is_empty() {
            row("lease", "none would lift it".to_owned());
        }
        for lift in &finding.lifts {
            row("lifted by", lifted(lift));
        }
    }
    if let Some(text) = &finding.not_enforced {
        row("note", format!("{}: {text}", line(&finding.action)));
    }
    lines.join("\n")
}

/// Names of keys, or that there is none.
pub(in crate::cli) fn signers(keys: &[String]) -> String {
    if keys.is_empty() { "no key of the bundle".to_owned() } else { line(&keys.join(", ")) }
}

/// A policy and where it is written.
pub(in crate::cli) fn place(policy: &Named) -> String {
    match (&policy.file, policy.line) {
        (Some(file), Some(number)) => format!("{}  {}:{number}", line(&policy.id), line(file)),
        _ => line(&policy.id),
    }
}

/// What would lift a denial, in words.
pub(in crate::cli) fn lifted(lift: &Lift) -> String {
    let lease = lift.lease.as_ref().map(|name| format!("the lease {}", line(name)));
    let window = lift.window.as_ref().map(|name| format!("the change window {}", line(name)));
    match (lease, window) {
        (Some(lease), Some(window)) => format!("{lease} while {window} is open"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "nothing more".to_owned(),
    }
}
