//! `guardctl policy diff`.

use super::answer::Assume;
use super::source::{host, invalid, live, load, modes, refused};
use crate::analysis::diff::{Change, Diff, Sign, diff};
use crate::cli::client::Client;
use crate::cli::screen::{Screen, short};
use crate::cli::{CliError, Exit};
use crate::events::escape::line;
use crate::policy::survey::State;
use crate::policy::{Bundle, Facts, Mode, action_names_among};
use guard_common::action::{Resource, TABLE, expand};
use std::collections::BTreeMap;
use std::path::Path;

/// What stands for the live policy.
const RUNNING: &str = "running";

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A bundle, or `running`.
    #[arg(value_name = "A")]
    first: String,
    /// Another bundle, or `running`, which is also meant if it is left out. What is running always
    /// counts as what was before; otherwise that is A.
    #[arg(value_name = "B", default_value = RUNNING)]
    second: String,
    #[command(flatten)]
    assume: Assume,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

/// One side of the comparison.
struct Side {
    name: String,
    bundle: Bundle,
}

/// Prints what changes from one bundle to the other.
pub(super) async fn run(client: &Client, screen: &Screen, args: &Args) -> Result<Exit, CliError> {
    let (first, second) = match (args.first.as_str(), args.second.as_str()) {
        (RUNNING, RUNNING) => return Err(CliError::invalid("name a bundle to compare what is running with")),
        (bundle, RUNNING) => (RUNNING, bundle),
        both => both,
    };
    let mut before = side(client, first).await?;
    let mut after = side(client, second).await?;
    // A mode that was set stays when another bundle becomes live.
    let modes = if first == RUNNING { modes(client).await? } else { BTreeMap::new() };
    for (subject, mode) in &modes {
        before.bundle.set_mode(subject, *mode);
        after.bundle.set_mode(subject, *mode);
    }
    let facts = facts(&args.assume, [&before.bundle, &after.bundle])?;
    let found = diff(&before.bundle, &after.bundle, &host()?, &facts).map_err(invalid)?;
    let [allowed, denied, reported, silent] =
        [Sign::NewlyAllowed, Sign::NewlyDenied, Sign::NewlyReported, Sign::NoLongerReported]
            .map(|sign| found.count(sign));
    if args.json {
        let bundle = |side: &Side| {
            serde_json::json!({
                "from": side.name, "name": side.bundle.name, "version": side.bundle.version,
                "digest": side.bundle.digest,
            })
        };
        let mut body = serde_json::json!({
            "schema": "guard.diff/1", "same": found.is_empty(),
            "before": bundle(&before), "after": bundle(&after),
            "newly_allowed": allowed, "newly_denied": denied,
            "newly_reported": reported, "no_longer_reported": silent, "modes": modes,
        });
        super::merge(&mut body, &found)?;
        screen.answer(&body.to_string())?;
    } else {
        let mut text = render(&found, screen);
        text.extend(modes.iter().map(|(subject, mode)| as_set(subject, *mode)));
        text.push(format!("{}   from {} to {}", counts(&found), head(&before), head(&after)));
        screen.answer(&text.join("\n"))?;
    }
    Ok(if found.is_empty() { Exit::Yes } else { Exit::No })
}

async fn side(client: &Client, name: &str) -> Result<Side, CliError> {
    let bundle = if name == RUNNING { live(client).await? } else { load(Path::new(name))? };
    Ok(Side { name: name.to_owned(), bundle })
}

/// What is assumed, of leases and facts that either bundle declares.
fn facts(assume: &Assume, bundles: [&Bundle; 2]) -> Result<Facts, CliError> {
    let words = assume.words("", "", None);
    let [first, second] = bundles.map(|bundle| words.facts(bundle));
    second.or(first).map_err(refused)
}

/// `nginx counts as enforced, as it is set for a while`
fn as_set(subject: &str, mode: Mode) -> String {
    let mode = match mode {
        Mode::Enforce => "enforced",
        Mode::Monitor => "monitored",
    };
    format!("{} counts as {mode}, as it is set for a while", line(subject))
}

fn head(side: &Side) -> String {
    let digest = short(&side.bundle.digest);
    format!("{} (version {}, {}…)", line(&side.name), side.bundle.version, line(&digest))
}

fn counts(found: &Diff) -> String {
    let count = |sign, what: &str| format!("{what} {}", found.count(sign));
    let mut text = vec![count(Sign::NewlyAllowed, "newly allowed"), count(Sign::NewlyDenied, "newly denied")];
    for (sign, what) in
        [(Sign::NewlyReported, "newly reported"), (Sign::NoLongerReported, "no longer reported")]
    {
        if found.count(sign) > 0 {
            text.push(count(sign, what));
        }
    }
    text.join(", ")
}

/// The lines of the answer, without the last.
fn render(found: &Diff, screen: &Screen) -> Vec<String> {
    let mut lines = Vec::new();
    for name in &found.added {
        lines.push(format!(
            "{} {}  new: its processes were not governed",
            screen.paint("32", "+"),
            line(name)
        ));
    }
    for name in &found.removed {
        lines.push(format!(
            "{} {}  gone: its running processes are denied everything until they end",
            screen.paint("31", "-"),
            line(name)
        ));
    }
    for one in &found.processes {
        let list = |list: &[String]| match list {
            [] => "none".to_owned(),
            list => line(&list.join(", ")),
        };
        lines.push(format!(
            "! {}  other processes: {}, before {}",
            line(&one.subject),
            list(&one.after),
            list(&one.before)
        ));
    }
    let width = |of: &dyn Fn(&Change) -> String| {
        found.changes.iter().map(|change| of(change).chars().count()).max().unwrap_or_default()
    };
    let subject = width(&|change| line(&change.subject));
    let actions = width(&|change| actions(change)).min(32);
    for change in &found.changes {
        let (mark, colour) = match change.change {
            Sign::NewlyAllowed => ("+", "32"),
            Sign::NewlyDenied => ("-", "31"),
            Sign::NewlyReported => ("!", "33"),
            Sign::NoLongerReported => ("~", "36"),
        };
        let first = format!(
            "{} {:subject$}  {:actions$}  ",
            screen.paint(colour, mark),
            line(&change.subject),
            self::actions(change)
        );
        let indent = " ".repeat(subject + actions + 6);
        let condition = match change.condition.as_str() {
            "" => String::new(),
            text => format!("  {}", line(text)),
        };
        for (number, resource) in change.resources.iter().enumerate() {
            let why = if number == 0 { format!("   {}", why(change, screen)) } else { String::new() };
            let lead = if number == 0 { &first } else { &indent };
            lines.push(format!("{lead}{}{condition}{why}", line(resource)).trim_end().to_owned());
        }
    }
    for text in &found.undecided {
        lines.push(format!("? not decided: {}", line(text)));
    }
    lines
}

/// The actions of a change, in groups where all of a group that such resources can be asked for changed.
fn actions(change: &Change) -> String {
    let among = TABLE
        .iter()
        .filter(|row| types(row.resource).iter().any(|of| change.resource_types.contains(*of)))
        .fold(0, |all, row| all | row.action.bit());
    let bits = change.actions.iter().filter_map(|name| expand(name)).fold(0, |all, bits| all | bits) & among;
    let own = change.actions.iter().filter(|name| expand(name).is_none()).copied();
    action_names_among(bits, among).into_iter().chain(own).collect::<Vec<_>>().join(" ")
}

/// The types of the resources of an action.
fn types(of: Resource) -> &'static [&'static str] {
    match of {
        Resource::File => &["File"],
        Resource::Dir => &["Dir"],
        Resource::FileOrMemory => &["File", "Memory"],
        Resource::Endpoint => &["Endpoint"],
        Resource::Protocol => &["Protocol"],
        Resource::Unix => &["Unix"],
        Resource::Process => &["Process"],
        Resource::Capability => &["Capability"],
        Resource::Machine => &["Machine"],
    }
}

/// The policies that make the difference, on the side that names some.
fn why(change: &Change, screen: &Screen) -> String {
    let text = |policies: &[String], what: &str| match policies {
        [] => None,
        [one] => Some(format!("{what}{}", line(one))),
        [one, rest @ ..] => Some(format!("{what}{} and {} more", line(one), rest.len())),
    };
    let after = text(&change.policies_after, "by ");
    let before = text(&change.policies_before, "was by ");
    let mut reason = after.or(before).unwrap_or_default();
    if change.change == Sign::NewlyAllowed && change.after == State::Reported {
        reason = format!("reported {reason}");
    }
    if reason.is_empty() { reason } else { screen.paint("2", &format!("({})", reason.trim())) }
}
