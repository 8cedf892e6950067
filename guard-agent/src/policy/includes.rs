//! Includes: templates that a subject names, shipped with Guard or part of the bundle.

use super::diagnostics::{Diagnostic, Source};
use super::policies::{self, Policy};
use super::subjects::SubjectDefinition;

/// The templates that Guard ships.
pub(super) const SHIPPED: &[(&str, &str)] = &[
    ("base.cedar", include_str!("../../includes/base.cedar")),
    ("shell.cedar", include_str!("../../includes/shell.cedar")),
    ("lang.cedar", include_str!("../../includes/lang.cedar")),
    ("tool.cedar", include_str!("../../includes/tool.cedar")),
    ("service.cedar", include_str!("../../includes/service.cedar")),
    ("sandbox.cedar", include_str!("../../includes/sandbox.cedar")),
    ("container.cedar", include_str!("../../includes/container.cedar")),
    ("guard.cedar", include_str!("../../includes/guard.cedar")),
];

/// What the names of their sources begin with.
pub(super) const SHIPPED_IN: &str = "<guard>/includes/";

/// Whether a source of this name is part of Guard and not of a bundle.
pub fn is_guards_own(name: &str) -> bool {
    name.starts_with("<guard>/")
}

/// Parses the shipped templates.
pub(super) fn shipped(found: &mut Vec<Diagnostic>) -> Vec<Policy> {
    SHIPPED
        .iter()
        .flat_map(|(name, text)| {
            let source = Source::new(format!("{SHIPPED_IN}{name}"), *text);
            policies::parse(&source, "include", found).templates
        })
        .collect()
}

/// The names of the includes that Guard ships.
pub fn shipped_includes() -> Vec<String> {
    let mut names: Vec<String> =
        shipped(&mut Vec::new()).iter().map(|policy| name(&policy.id).to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The name a subject includes a template by: its id up to the colon.
pub(super) fn name(id: &str) -> &str {
    id.split_once(':').map_or(id, |(name, _)| name)
}

/// The templates that subjects include, with the subject each is linked for. A bundle's own
/// templates replace the shipped ones of the same name.
pub(super) fn link(
    own: &[Policy],
    shipped: &[Policy],
    subjects: &[SubjectDefinition],
    toml: &Source,
    found: &mut Vec<Diagnostic>,
) -> Vec<(Policy, String)> {
    let mut linked = Vec::new();
    for subject in subjects {
        for (include, span) in subject.include.iter().zip(&subject.include_spans) {
            let named = |templates: &[Policy]| -> Vec<Policy> {
                templates.iter().filter(|template| name(&template.id) == include).cloned().collect()
            };
            let mut templates = named(own);
            if templates.is_empty() {
                templates = named(shipped);
            }
            if templates.is_empty() {
                let mut known: Vec<_> =
                    own.iter().chain(shipped).map(|template| name(&template.id)).collect();
                known.sort_unstable();
                known.dedup();
                found.push(
                    toml.error("unknown-include", span.clone(), format!("there is no include \"{include}\""))
                        .help(format!("known: {}", known.join(" "))),
                );
            }
            linked.extend(templates.into_iter().map(|template| (template, subject.name.clone())));
        }
    }
    linked
}
