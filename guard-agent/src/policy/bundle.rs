//! A bundle: the files of one directory, parsed and validated.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cedar_policy_core::ast::{PolicySet, Template};
use cedar_policy_core::validator::{ValidationMode, Validator, ValidatorSchema};
use sha2::{Digest, Sha256};

use super::diagnostics::{Diagnostic, Diagnostics, Source};
use super::manifest::{self, Manifest};
use super::network::{self, Range};
use super::policies::{self, Policy, from_miette};
use super::subjects::{self, SubjectDefinition};
use super::world::FactValue;
use super::{includes, schema};

/// The policies that are part of every generation.
const BUILTIN: &str = include_str!("builtin.cedar");

/// A parsed and validated bundle.
#[derive(Debug)]
pub struct Bundle {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 over its files, in hexadecimal.
    pub digest: String,
    /// What was noticed while loading; holds no errors.
    pub notes: Vec<Diagnostic>,
    pub(super) toml: Source,
    /// What its policies are validated against.
    pub(super) schema: Arc<ValidatorSchema>,
    pub(super) subjects: Vec<SubjectDefinition>,
    /// Policies of the bundle and the built-in ones.
    pub(super) policies: Vec<Policy>,
    /// Included templates and the subject each is linked for.
    pub(super) linked: Vec<(Policy, String)>,
    pub(super) approvals: Vec<String>,
    pub(super) windows: Vec<String>,
    /// Declared facts with some value of their type.
    pub(super) facts: BTreeMap<String, FactValue>,
    /// Declared names with their fixed addresses.
    pub(super) names: BTreeMap<String, Vec<Range>>,
}

impl Bundle {
    /// The subjects, by name.
    pub fn subjects(&self) -> impl Iterator<Item = &SubjectDefinition> {
        self.subjects.iter()
    }

    /// The names of all policies that are in force for some subject, includes with the subject.
    pub fn policy_ids(&self) -> impl Iterator<Item = String> {
        let linked = self.linked.iter().map(|(policy, subject)| link_id(policy, subject));
        self.policies.iter().map(|policy| policy.id.clone()).chain(linked)
    }
}

fn link_id(policy: &Policy, subject: &str) -> String {
    format!("{}@{subject}", policy.id)
}

/// Reads, parses and validates the bundle in `dir`.
pub fn load(dir: &Path) -> Result<Bundle, Diagnostics> {
    let toml = read(&dir.join("guard.toml"))
        .map_err(|error| error.help("a bundle is a directory with a guard.toml and *.cedar files"))?;
    let manifest = manifest::parse(&toml)?;
    let mut found = Vec::new();
    let schema_files = schema_files(dir, &manifest, &toml, &mut found);
    let cedar_files = cedar_files(dir, &mut found);
    let digest = digest(std::iter::once(&toml).chain(&schema_files).chain(&cedar_files), dir);
    manifest.check(&toml, &mut found);
    let subjects = subjects::read(&manifest, &toml, &mut found);
    let schema = match schema::build(&manifest, &toml, &schema_files) {
        Ok(schema) => Some(schema),
        Err(errors) => {
            found.extend(errors);
            None
        }
    };

    let validator = schema.clone().map(Validator::new);
    let mut policies = Vec::new();
    let mut templates = Vec::new();
    let builtin = Source::new("<guard>/builtin.cedar", BUILTIN);
    for source in std::iter::once(&builtin).chain(&cedar_files) {
        let stem = Path::new(&*source.name)
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        let parsed = policies::parse(source, &stem, &mut found);
        validate(validator.as_ref(), source, parsed.policies.iter().chain(&parsed.templates), &mut found);
        policies.extend(parsed.policies);
        templates.extend(parsed.templates);
    }
    unique(policies.iter().chain(&templates), &mut found);
    let shipped = includes::shipped(&mut found);
    let linked = includes::link(&templates, &shipped, &subjects, &toml, &mut found);
    let names = names(&manifest, &toml, &mut found);
    let keys = |table: &mut dyn Iterator<Item = &toml::Spanned<String>>| {
        table.map(|key| key.get_ref().clone()).collect()
    };
    let bundle = Bundle {
        name: manifest.bundle.name.get_ref().clone(),
        version: manifest.bundle.version,
        digest,
        notes: Vec::new(),
        toml,
        schema: Arc::new(schema.unwrap_or_else(ValidatorSchema::empty)),
        subjects,
        policies,
        linked,
        approvals: keys(&mut manifest.approvals.keys()),
        windows: keys(&mut manifest.windows.keys()),
        facts: manifest
            .facts
            .iter()
            .map(|(name, fact)| (name.get_ref().clone(), schema::example(fact.kind)))
            .collect(),
        names,
    };
    let notes = Diagnostics::refuse_if_errors(found)?;
    Ok(Bundle { notes, ..bundle })
}

fn read(path: &Path) -> Result<Source, Diagnostic> {
    let cannot = |why: String| Diagnostic::error("read", format!("cannot read {}: {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| cannot(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| cannot("it is not UTF-8 text".into()))?;
    Ok(Source::new(path.display().to_string(), text))
}

fn schema_files(dir: &Path, manifest: &Manifest, toml: &Source, found: &mut Vec<Diagnostic>) -> Vec<Source> {
    let mut files = Vec::new();
    for name in &manifest.bundle.schema {
        if name.get_ref().contains('/') || name.get_ref().starts_with('.') {
            found.push(
                toml.error("schema", name.span(), format!("{} is not a file of the bundle", name.get_ref()))
                    .help("name a file in the same directory"),
            );
            continue;
        }
        match read(&dir.join(name.get_ref())) {
            Ok(source) => files.push(source),
            Err(error) => found.push(toml.error("schema", name.span(), error.message)),
        }
    }
    files
}

/// The `*.cedar` files of the directory, by name.
fn cedar_files(dir: &Path, found: &mut Vec<Diagnostic>) -> Vec<Source> {
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(dir) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "cedar"))
            .collect(),
        Err(error) => {
            found.push(Diagnostic::error("read", format!("cannot list {}: {error}", dir.display())));
            Vec::new()
        }
    };
    paths.sort();
    paths.iter().filter_map(|path| read(path).map_err(|error| found.push(error)).ok()).collect()
}

/// Names, lengths and bytes of the files, so that no two bundles have the same input.
fn digest<'a>(files: impl Iterator<Item = &'a Source>, dir: &Path) -> String {
    let mut hash = Sha256::new();
    for file in files {
        let name =
            Path::new(&*file.name).strip_prefix(dir).unwrap_or(Path::new(&*file.name)).to_string_lossy();
        for part in [name.as_bytes(), file.text.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    format!("{:x}", hash.finalize())
}

/// Strict validation of the policies of one file.
fn validate<'a>(
    validator: Option<&Validator>,
    source: &Source,
    policies: impl Iterator<Item = &'a Policy>,
    found: &mut Vec<Diagnostic>,
) {
    let Some(validator) = validator else { return };
    let mut set = PolicySet::new();
    for policy in policies {
        let added = match Template::try_as_policy(policy.template.clone()) {
            Ok(fixed) => set.add(fixed).is_ok(),
            Err(_) => set.add_template((*policy.template).clone()).is_ok(),
        };
        // A second policy of the same name is reported on its own.
        let _ = added;
    }
    let result = validator.validate(&set, ValidationMode::Strict);
    let errors = result.validation_errors().map(|error| from_miette(source, "validation", error));
    let warnings =
        result.validation_warnings().map(|warning| from_miette(source, "validation", warning).into_warning());
    let mut all: Vec<Diagnostic> = errors.chain(warnings).collect();
    // Cedar checks a policy once per type of resource, in no particular order, and repeats itself.
    let order = |one: &Diagnostic| {
        (one.severity, one.place.as_ref().map(|place| (place.line, place.column)), one.message.clone())
    };
    all.sort_by_key(order);
    all.dedup_by(|a, b| a.severity == b.severity && a.place.is_some() && a.place == b.place);
    found.append(&mut all);
}

/// Parses and validates policies against the schema of `bundle`, and returns their names.
///
/// # Errors
/// If the text is not valid.
pub(super) fn parse_again(bundle: &Bundle, source: &Source) -> Result<Vec<String>, Diagnostics> {
    let mut found = Vec::new();
    let parsed = policies::parse(source, "", &mut found);
    validate(Some(&Validator::new((*bundle.schema).clone())), source, parsed.policies.iter(), &mut found);
    Diagnostics::refuse_if_errors(found)?;
    // Without a file name, nothing is put before the slash.
    Ok(parsed.policies.iter().map(|policy| policy.id.trim_start_matches('/').to_owned()).collect())
}

fn unique<'a>(policies: impl Iterator<Item = &'a Policy>, found: &mut Vec<Diagnostic>) {
    let mut seen: HashMap<&str, &Policy> = HashMap::new();
    for policy in policies {
        if let Some(first) = seen.insert(&policy.id, policy) {
            let place = first.source.place(first.span());
            found.push(
                policy
                    .error("duplicate-id", None, format!("the policy id {} is used twice", policy.id))
                    .help(format!("the other one is at {}:{}; change one @id", place.file, place.line)),
            );
        }
    }
}

/// `[names]`: fixed addresses are ranges, other names have none in this version.
fn names(manifest: &Manifest, toml: &Source, found: &mut Vec<Diagnostic>) -> BTreeMap<String, Vec<Range>> {
    let mut names = BTreeMap::new();
    for (name, definition) in &manifest.names {
        let mut ranges = Vec::new();
        for address in definition.addresses.iter().flatten() {
            let parsed = match address.get_ref().parse() {
                Ok(single) => Ok(network::single(single)),
                Err(_) => network::parse(address.get_ref()),
            };
            match parsed {
                Ok(range) => ranges.push(range),
                Err((message, help)) => found.push(toml.error("names", address.span(), message).help(help)),
            }
        }
        match (&definition.via, &definition.addresses) {
            (Some(via), None) => found.push(toml.note(
                "not-in-this-version",
                via.span(),
                format!("not in this version: via; {} has no addresses, so nothing is in it", name.get_ref()),
            )),
            (None, Some(_)) => {}
            _ => found.push(
                toml.error("names", name.span(), format!("{} needs either via or addresses", name.get_ref()))
                    .help("write { addresses = [\"192.0.2.0/28\"] }"),
            ),
        }
        names.insert(name.get_ref().clone(), ranges);
    }
    names
}
