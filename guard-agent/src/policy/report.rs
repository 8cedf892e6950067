//! What `guardctl policy check` prints about a bundle that is fine.

use std::fmt::Write;

use guard_common::action::{self, GROUPS, expand};
use guard_common::tables::ALL_ACTIONS;

use super::bundle::Bundle;
use super::compile::Compiled;
use super::diagnostics::Severity;
use super::manifest::{Container, Engine, SelectorDefinition};
use super::subjects::{Mode, SubjectDefinition};
use super::successors::{Entrance, SuccessorDefinition};

/// Subjects, sizes, resolved links and notes, for people.
pub fn check_report(bundle: &Bundle, compiled: &Compiled) -> String {
    let mut out = String::new();
    let short = &bundle.digest[..bundle.digest.len().min(12)];
    let _ = writeln!(out, "{} version {} ({short}) is valid", bundle.name, bundle.version);
    let width = bundle.subjects().map(|subject| subject.name.len()).max().unwrap_or(0);
    for subject in bundle.subjects() {
        let mode = match subject.mode {
            Mode::Enforce => "enforce",
            Mode::Monitor => "monitor",
        };
        let selectors = selectors_text(&subject.selectors);
        let selectors = if selectors.is_empty() { "no selector".to_owned() } else { selectors.join(", ") };
        let _ = writeln!(
            out,
            "  {:width$}  {mode}  {selectors}  governs {}",
            subject.name,
            actions_text(subject.governs)
        );
    }
    let sizes = &compiled.sizes;
    let _ = writeln!(
        out,
        "tables: {} classes, {} trie nodes, {} + {} address ranges, {} cells, {} outcomes, {} of 64 features",
        sizes.classes, sizes.nodes, sizes.net4, sizes.net6, sizes.cells, sizes.outcomes, sizes.features
    );
    let notes: Vec<_> = bundle.notes.iter().chain(&compiled.notes).collect();
    for severity in [Severity::Warning, Severity::Note] {
        for note in notes.iter().filter(|note| note.severity == severity) {
            let place = note
                .place
                .as_ref()
                .map_or_else(String::new, |place| format!("{}:{}: ", place.file, place.line));
            let _ = writeln!(out, "{severity}: {place}{}", note.message);
        }
    }
    out
}

/// What a subject's processes can become, in words, one each.
pub fn successors_text(subject: &SubjectDefinition) -> Vec<String> {
    let text = |edge: &SuccessorDefinition| {
        let rights = if edge.narrowing { "no more rights" } else { "rights of its own" };
        match &edge.by {
            Entrance::Adopt => format!("becomes {} by asking, with {rights}", edge.name),
            Entrance::Exec { of, .. } => format!("becomes {} by executing {of}, with {rights}", edge.name),
        }
    };
    subject.successors.iter().map(text).collect()
}

/// Selectors in words, one each.
pub fn selectors_text(selectors: &[SelectorDefinition]) -> Vec<String> {
    selectors.iter().flat_map(describe).collect()
}

fn describe(selector: &SelectorDefinition) -> Vec<String> {
    let one = |key: &str, value: &Option<String>| value.as_ref().map(|value| format!("{key} {value}"));
    let many = |key: &'static str, values: &[String]| {
        values.iter().map(move |value| format!("{key} {value}")).collect::<Vec<_>>()
    };
    [
        one("user", &selector.user),
        one("group", &selector.group),
        one("unit", &selector.unit),
        one("cgroup", &selector.cgroup),
    ]
    .into_iter()
    .flatten()
    .chain(selector.container.as_ref().map(container))
    .chain(many("exe", &selector.exe))
    .chain(many("exe_in", &selector.exe_in))
    .collect()
}

/// The containers that a selector means.
fn container(container: &Container) -> String {
    let Container { name, image, engine } = container;
    let engine = engine.map(|engine| match engine {
        Engine::Nspawn => "of systemd-nspawn".to_owned(),
        Engine::Podman => "of podman".to_owned(),
    });
    let image = image.as_ref().map(|image| format!("with image {image}"));
    let words = [name.clone(), image, engine];
    std::iter::once("container".to_owned()).chain(words.into_iter().flatten()).collect::<Vec<_>>().join(" ")
}

/// The shortest list of groups and actions for a set of bits, in words.
pub fn actions_text(bits: u64) -> String {
    let names = action_names(bits);
    if names.is_empty() { "nothing".to_owned() } else { names.join(" ") }
}

/// The shortest list of groups and actions for a set of bits.
pub fn action_names(bits: u64) -> Vec<&'static str> {
    action_names_among(bits, ALL_ACTIONS)
}

/// The shortest list of groups and actions for a set of bits, where only some actions can be meant at
/// all: a group stands for what of it is among them.
pub fn action_names_among(bits: u64, among: u64) -> Vec<&'static str> {
    if bits == ALL_ACTIONS {
        return vec!["*"];
    }
    let (mut left, mut names) = (bits, Vec::new());
    let sizes = |name: &&(&'static str, &[&str])| std::cmp::Reverse(expand(name.0).unwrap_or(0).count_ones());
    let mut groups: Vec<_> = GROUPS.iter().collect();
    groups.sort_by_key(sizes);
    for (name, _) in groups.into_iter().filter(|(name, _)| *name != "*") {
        let group = expand(name).unwrap_or(0) & among;
        if group & bits == group && (group & left).count_ones() > 1 {
            names.push(*name);
            left &= !group;
        }
    }
    names.extend(action::names(left));
    names
}
