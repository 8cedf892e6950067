//! The product's schema, with the posture facts of the bundle.

use std::collections::BTreeMap;

use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::validator::json_schema::Fragment;
use cedar_policy_core::validator::{RawName, ValidatorSchema, ValidatorSchemaFragment};

use super::diagnostics::{Diagnostic, Source};
use super::manifest::{FactType, Manifest};
use super::nesting;
use super::policies::from_miette;
use super::world::FactValue;

/// The schema that Guard ships.
pub const PRODUCT_SCHEMA: &str = include_str!("guard.cedarschema");

/// Builds the schema that policies are validated against. `files` are the schema files of the
/// bundle; without any, the posture type follows `[facts]`.
pub(super) fn build(
    manifest: &Manifest,
    toml: &Source,
    files: &[Source],
) -> Result<ValidatorSchema, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let mut fragments =
        vec![fragment(&Source::new("guard.cedarschema", PRODUCT_SCHEMA)).map_err(|error| vec![error])?];
    let mut declared = BTreeMap::new();
    for file in files {
        match fragment(file).and_then(|fragment| posture_of(file, &fragment).map(|facts| (fragment, facts))) {
            Ok((fragment, facts)) => {
                declared.extend(facts);
                fragments.push(fragment);
            }
            Err(error) => errors.push(error),
        }
    }
    if files.is_empty() {
        // The names become part of the text below.
        let wrong = manifest.facts.iter().find(|(name, _)| !is_identifier(name.get_ref()));
        if let Some((name, _)) = wrong {
            let error = toml.error("schema", name.span(), "the name of a fact is an identifier");
            return Err(vec![error.help("use letters, digits and _, and no digit first")]);
        }
        let facts: Vec<_> = manifest
            .facts
            .iter()
            .map(|(name, fact)| format!("{}?: {}", name.get_ref(), cedar_type(fact.kind)))
            .collect();
        let text = format!("namespace Guard {{ type Posture = {{ {} }}; }}", facts.join(", "));
        match fragment(&Source::new("[facts]", text)) {
            Ok(fragment) => fragments.push(fragment),
            Err(_) => errors.push(
                Diagnostic::error("schema", format!("{}: a name in [facts] is not an identifier", toml.name))
                    .help("use letters, digits and _"),
            ),
        }
    } else {
        agree(manifest, toml, &declared, &mut errors);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let place = files.first().unwrap_or(toml);
    let refuse = |error| vec![from_miette(place, "schema", &error)];
    let lowered = fragments.into_iter().map(ValidatorSchemaFragment::from_schema_fragment);
    let lowered = lowered.collect::<Result<Vec<_>, _>>().map_err(refuse)?;
    ValidatorSchema::from_schema_fragments(lowered, Extensions::all_available()).map_err(refuse)
}

fn is_identifier(name: &str) -> bool {
    name.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn fragment(source: &Source) -> Result<Fragment<RawName>, Diagnostic> {
    nesting::check(source)?;
    Fragment::from_cedarschema_str(&source.text, Extensions::all_available())
        .map(|(fragment, _)| fragment)
        .map_err(|error| from_miette(source, "schema", &error))
}

/// The facts that a schema file of a bundle declares; it may declare nothing else.
fn posture_of(
    source: &Source,
    fragment: &Fragment<RawName>,
) -> Result<BTreeMap<String, FactType>, Diagnostic> {
    let wrong = |message: &str| {
        source
            .error("schema", 0..source.text.find('\n').unwrap_or(source.text.len()), message.to_owned())
            .help("write `namespace Guard { type Posture = { name?: Long, … }; }` with Long, String and Bool")
    };
    let value = serde_json::to_value(fragment).map_err(|_| wrong("this schema cannot be read"))?;
    let guard = &value["Guard"];
    let empty = |key: &str| guard[key].as_object().is_none_or(serde_json::Map::is_empty);
    let types = guard["commonTypes"].as_object();
    let only = value.as_object().is_some_and(|spaces| spaces.len() == 1)
        && empty("entityTypes")
        && empty("actions")
        && types.is_some_and(|types| types.len() == 1 && types.contains_key("Posture"));
    if !only {
        return Err(wrong("a bundle's schema declares the type Guard::Posture and nothing else"));
    }
    let attributes = guard["commonTypes"]["Posture"]["attributes"].as_object().cloned().unwrap_or_default();
    attributes
        .into_iter()
        .map(|(name, kind)| {
            if kind["required"] != serde_json::Value::Bool(false) {
                return Err(wrong(&format!(
                    "the fact {name} is not optional, but facts can always be absent"
                )));
            }
            let named = kind["name"].as_str().or(kind["type"].as_str()).unwrap_or_default();
            match named.trim_start_matches("__cedar::") {
                "Long" => Ok((name, FactType::Long)),
                "String" => Ok((name, FactType::String)),
                "Bool" | "Boolean" => Ok((name, FactType::Bool)),
                other => Err(wrong(&format!("the fact {name} has the type {other}"))),
            }
        })
        .collect()
}

/// `[facts]` and the schema files must declare the same.
fn agree(
    manifest: &Manifest,
    toml: &Source,
    declared: &BTreeMap<String, FactType>,
    errors: &mut Vec<Diagnostic>,
) {
    for (name, fact) in &manifest.facts {
        match declared.get(name.get_ref()) {
            Some(kind) if *kind == fact.kind => {}
            Some(kind) => errors.push(
                toml.error(
                    "facts",
                    name.span(),
                    format!("the schema gives {} the type {}", name.get_ref(), cedar_type(*kind)),
                )
                .help("make both the same"),
            ),
            None => errors.push(
                toml.error(
                    "facts",
                    name.span(),
                    format!("the schema does not declare the fact {}", name.get_ref()),
                )
                .help(format!(
                    "add `{}?: {}` to type Posture",
                    name.get_ref(),
                    cedar_type(fact.kind)
                )),
            ),
        }
    }
    let missing =
        declared.iter().filter(|(name, _)| !manifest.facts.keys().any(|key| key.get_ref() == *name));
    for (name, kind) in missing {
        errors.push(
            Diagnostic::error(
                "facts",
                format!("{}: [facts] does not declare {name}, which the schema does", toml.name),
            )
            .help(format!("add `{name} = {{ type = \"{}\" }}`", cedar_type(*kind).to_lowercase())),
        );
    }
}

/// The name of a fact's type in a schema.
pub(super) fn cedar_type(kind: FactType) -> &'static str {
    match kind {
        FactType::Long => "Long",
        FactType::String => "String",
        FactType::Bool => "Bool",
    }
}

/// Some value of a fact's type.
pub(super) fn example(kind: FactType) -> FactValue {
    match kind {
        FactType::Long => FactValue::Long(0),
        FactType::String => FactValue::String(String::new()),
        FactType::Bool => FactValue::Bool(false),
    }
}
