//! A proposal as a Cedar file for people to read: what each policy is for, and what is not in it.

use super::edit::policy;
use super::learn::{LeftOut, Proposal};
use super::phases::Phases;
use super::secrets::Secrets;
use crate::events::escape::line;

/// Lines of one list, at most.
const LINES: usize = 20;

/// What a proposal rests on.
#[derive(Clone, Debug)]
pub struct Basis<'a> {
    /// The subject.
    pub subject: &'a str,
    /// Kinds of operations that would have been denied.
    pub kinds: usize,
    /// Operations that would have been denied.
    pub operations: u64,
    /// When the first and the last of them were, RFC 3339.
    pub between: Option<(String, String)>,
    /// Parts of the service's life.
    pub phases: &'a Phases,
}

/// The file `learn/SUBJECT.cedar`.
pub fn proposal_file(proposal: &Proposal, basis: &Basis<'_>, secrets: &Secrets) -> String {
    let mut text = String::new();
    let mut say = |words: String| text.push_str(&format!("// {}\n", line(&words)));
    say(format!(
        "A proposal for {}, learned from what monitor mode recorded. Nothing is applied.",
        basis.subject
    ));
    let (kinds, operations) = (basis.kinds, basis.operations);
    say(match &basis.between {
        Some((first, last)) => format!("{operations} operations of {kinds} kinds, {first} to {last}."),
        None => format!("{operations} operations of {kinds} kinds."),
    });
    if !basis.phases.not_seen.is_empty() {
        say(format!("Not seen, so not in it: {}.", basis.phases.not_seen.join(", ")));
    }
    for (title, list) in [
        ("Never proposed, because it is secret; look at who asks for it:", &proposal.secrets),
        ("Forbidden by the bundle, so no permit would change it:", &proposal.forbidden),
        ("Left out:", &proposal.left_out),
    ] {
        if !list.is_empty() {
            say(title.to_owned());
            left_out(list).into_iter().for_each(|line| say(format!("  {line}")));
        }
    }
    if !proposal.includes.is_empty() {
        let names: Vec<String> = proposal.includes.iter().map(|one| format!("\"{}\"", one.include)).collect();
        say("To be added to `include` of the subject in guard.toml:".to_owned());
        say(format!("  {}", names.join(", ")));
        for one in &proposal.includes {
            let examples = one.examples.join(", ");
            say(format!(
                "  {}: {} operations of {} kinds, such as {examples}",
                one.include, one.count, one.kinds
            ));
        }
    }
    for permit in &proposal.permits {
        text.push('\n');
        text.push_str(&policy(basis.subject, permit, secrets));
    }
    text
}

/// Some lines about what is left out, the most frequent first.
pub fn left_out(list: &[LeftOut]) -> Vec<String> {
    let mut sorted: Vec<&LeftOut> = list.iter().collect();
    sorted.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.on.cmp(&b.on)));
    let mut lines: Vec<String> = sorted
        .iter()
        .take(LINES)
        .map(|one| {
            let times = if one.count == 1 { "once".to_owned() } else { format!("{} times", one.count) };
            format!("{} {}, {times}: {}", one.action, one.on, one.why)
        })
        .collect();
    if sorted.len() > LINES {
        lines.push(format!("and {} more", sorted.len() - LINES));
    }
    lines
}
