//! `guardctl policy check`: compile a bundle for this host, without the daemon.

use super::screen::{Screen, short};
use super::{CliError, Exit};
use crate::events::escape::{block, line};
use crate::host::Host;
use crate::policy::{self, Bundle, Compiled, Diagnostic, Diagnostics, Mode, SubjectIds};
use guard_common::action::{self, Coverage};
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// Checks the bundle in `directory` and prints what it would enforce here.
pub(super) fn run(directory: &Path, screen: &Screen, as_json: bool) -> Result<Exit, CliError> {
    match compile(directory)? {
        Ok((bundle, compiled)) => {
            let notes = || bundle.notes.iter().chain(&compiled.notes);
            if as_json {
                screen.answer(&report(&bundle, &compiled).to_string())?;
            } else {
                tell(notes());
                screen.answer(&render(&bundle, &compiled, notes().count()))?;
            }
            Ok(Exit::Yes)
        }
        Err(diagnostics) => {
            if as_json {
                let found: Vec<_> = diagnostics.iter().collect();
                let body = json!({ "schema": "guard.check/1", "valid": false, "diagnostics": found });
                screen.answer(&body.to_string())?;
            }
            tell(diagnostics.iter());
            Ok(Exit::Invalid)
        }
    }
}

fn compile(directory: &Path) -> Result<Result<(Bundle, Compiled), Diagnostics>, CliError> {
    let bundle = match policy::load(directory) {
        Ok(bundle) => bundle,
        Err(diagnostics) => return Ok(Err(diagnostics)),
    };
    let host = Host::read().map_err(|error| CliError::internal(error.to_string()))?;
    Ok(policy::compile(&bundle, &host, &mut SubjectIds::default()).map(|compiled| (bundle, compiled)))
}

/// Diagnostics are not the answer: they go to standard error, and a reader who has gone is no error.
fn tell<'a>(found: impl Iterator<Item = &'a Diagnostic>) {
    let mut out = std::io::stderr().lock();
    for diagnostic in found {
        let _ = write!(out, "{}", block(&diagnostic.to_string()));
    }
}

/// Names of the governed actions with this coverage.
fn governed(governs: u64, wanted: impl Fn(&Coverage) -> bool) -> Vec<&'static str> {
    let rows = action::named().filter(|row| governs & row.action.bit() != 0 && wanted(&row.coverage));
    rows.map(|row| row.name).collect()
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
}

fn report(bundle: &Bundle, compiled: &Compiled) -> serde_json::Value {
    let subjects: Vec<_> = bundle
        .subjects()
        .map(|subject| {
            json!({
                "name": subject.name,
                "mode": mode_name(subject.mode),
                "governs": governed(subject.governs, |_| true),
                "not_enforced": governed(subject.governs, |coverage| matches!(coverage, Coverage::NotYet)),
            })
        })
        .collect();
    let notes: Vec<_> = bundle.notes.iter().chain(&compiled.notes).collect();
    json!({
        "schema": "guard.check/1",
        "valid": true,
        "bundle": { "name": bundle.name, "version": bundle.version, "digest": bundle.digest },
        "subjects": subjects,
        "sizes": compiled.sizes,
        "diagnostics": notes,
    })
}

fn render(bundle: &Bundle, compiled: &Compiled, notes: usize) -> String {
    let mut lines = vec![format!(
        "valid  {} version {} ({}…)",
        line(&bundle.name),
        bundle.version,
        line(&short(&bundle.digest))
    )];
    let width =
        bundle.subjects().map(|subject| line(&subject.name).chars().count()).max().unwrap_or_default();
    for subject in bundle.subjects() {
        let all = governed(subject.governs, |_| true).len();
        let missing = governed(subject.governs, |coverage| matches!(coverage, Coverage::NotYet)).len();
        lines.push(format!(
            "  {:width$}  {}  governs {all} actions, {missing} of them not enforced in this version",
            line(&subject.name),
            mode_name(subject.mode)
        ));
    }
    let sizes = &compiled.sizes;
    lines.push(format!(
        "  tables  {} classes, {} outcomes, {} path nodes, {} address ranges",
        sizes.classes,
        sizes.outcomes,
        sizes.nodes,
        sizes.net4 + sizes.net6
    ));
    if notes > 0 {
        let plural = if notes == 1 { "note" } else { "notes" };
        lines.push(format!("  {notes} {plural} on standard error"));
    }
    lines.join("\n")
}
