//! A bundle: the files of one directory, parsed and validated.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cedar_policy_core::validator::{Validator, ValidatorSchema};
use sha2::{Digest, Sha256};

use super::approvals::{self, ApprovalRules};
use super::diagnostics::{Diagnostic, Diagnostics, Source};
use super::manifest::{self, Manifest, duration};
use super::network::{self, Range};
use super::policies::{self, Policy};
use super::signers::{self, Signer};
use super::subjects::{self, Mode, SubjectDefinition};
use super::successors;
use super::validation::validate;
use super::windows::{self, Schedules};
use super::world::FactValue;
use super::{includes, schema, unknown};
use crate::bundle::{self, Files, MANIFEST, Opened, PublicKey, Release};

/// Policies and templates of one bundle, at most.
const MAX_POLICIES: usize = 20_000;
/// The policies that are part of every generation.
const BUILTIN: &str = include_str!("builtin.cedar");
/// The policies about Guard's own API that are part of every effective set; no table is about them.
pub(super) const ROLES: &str = include_str!("roles.cedar");

/// A parsed and validated bundle.
#[derive(Debug)]
pub struct Bundle {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// The action set and schema it was written for.
    pub profile: u32,
    /// SHA-256 over its files, in hexadecimal.
    pub digest: String,
    /// Where it may run.
    pub release: Release,
    /// What was noticed while loading; holds no errors.
    pub notes: Vec<Diagnostic>,
    pub(super) toml: Source,
    /// What its policies are validated against.
    pub(super) schema: Arc<ValidatorSchema>,
    pub(super) subjects: Vec<SubjectDefinition>,
    /// Policies of the bundle and the built-in ones.
    pub(super) policies: Vec<Policy>,
    /// What Guard ships about its own API.
    pub(super) api: Vec<Policy>,
    /// Included templates and the subject each is linked for.
    pub(super) linked: Vec<(Policy, String)>,
    pub(super) approvals: Vec<String>,
    pub(super) approval_rules: ApprovalRules,
    pub(super) windows: Vec<String>,
    pub(super) schedules: Schedules,
    /// Declared facts with some value of their type.
    pub(super) facts: BTreeMap<String, FactValue>,
    /// How long they last.
    lifetimes: BTreeMap<String, Duration>,
    /// Where they come from.
    sources: BTreeMap<String, String>,
    /// Declared names with their fixed addresses.
    pub(super) names: BTreeMap<String, Vec<Range>>,
    /// Declared keys that sign artifacts, by name.
    pub(super) signers: BTreeMap<String, Signer>,
}

impl Bundle {
    /// The subjects, by name.
    pub fn subjects(&self) -> impl Iterator<Item = &SubjectDefinition> {
        self.subjects.iter()
    }

    /// Gives a subject another mode than the bundle does, as an agent can for a while. A subject that the
    /// bundle does not have has none.
    pub fn set_mode(&mut self, subject: &str, mode: Mode) {
        for known in self.subjects.iter_mut().filter(|known| known.name == subject) {
            known.mode = mode;
        }
    }

    /// What the names of its files begin with in diagnostics and places: where it was read from.
    pub fn origin(&self) -> &str {
        self.toml.name.strip_suffix("guard.toml").unwrap_or_default()
    }

    /// The approvals that are declared, each the name of a lease.
    pub fn approvals(&self) -> &[String] {
        &self.approvals
    }

    /// Who may grant them.
    pub fn approval_rules(&self) -> &ApprovalRules {
        &self.approval_rules
    }

    /// How long a declared fact lasts if nobody says otherwise, and at most.
    pub fn lifetime(&self, fact: &str) -> Option<Duration> {
        self.lifetimes.get(fact).copied()
    }

    /// Where a declared fact is to come from, if the bundle says so.
    pub fn source(&self, fact: &str) -> Option<&str> {
        self.sources.get(fact).map(String::as_str)
    }

    /// The change windows that are declared.
    pub fn windows(&self) -> &[String] {
        &self.windows
    }

    /// When they are open.
    pub fn schedules(&self) -> &Schedules {
        &self.schedules
    }

    /// The posture facts that are declared, each with some value of its type.
    pub fn facts(&self) -> &BTreeMap<String, FactValue> {
        &self.facts
    }

    /// The keys that sign artifacts, by name.
    pub fn signers(&self) -> impl Iterator<Item = (&str, &PublicKey)> {
        self.signers.iter().map(|(name, signer)| (name.as_str(), &signer.key))
    }

    /// The names of all policies that are in force for some subject, includes with the subject.
    pub fn policy_ids(&self) -> impl Iterator<Item = String> {
        let linked = self.linked.iter().map(|(policy, subject)| link_id(policy, subject));
        self.policies.iter().map(|policy| policy.id.clone()).chain(linked)
    }

    /// The templates that Guard ships and a subject includes, each once: the shipped file's name and
    /// the template's text.
    pub fn shipped_templates(&self) -> Vec<(&str, &str)> {
        let mut used: Vec<(&str, std::ops::Range<usize>, &str)> = Vec::new();
        for (policy, _) in &self.linked {
            let Some(file) = policy.source.name.strip_prefix(includes::SHIPPED_IN) else { continue };
            let span = policy.span();
            if used.iter().all(|(known, at, _)| *known != file || *at != span) {
                let text = policy.source.text.get(span.clone()).unwrap_or_default();
                used.push((file, span, text));
            }
        }
        used.sort_by_key(|(file, span, _)| (*file, span.start));
        used.into_iter().map(|(file, _, text)| (file, text)).collect()
    }
}

fn link_id(policy: &Policy, subject: &str) -> String {
    format!("{}@{subject}", policy.id)
}

/// Reads, parses and validates the bundle at `path`, a directory or an archive.
pub fn load(path: &Path) -> Result<Bundle, Diagnostics> {
    parse(&bundle::open(path)?)
}

/// Parses and validates a bundle whose files were read.
pub fn parse(opened: &Opened) -> Result<Bundle, Diagnostics> {
    let files = &opened.files;
    let toml = files.source("guard.toml")?;
    let manifest = manifest::parse(&toml)?;
    let mut found = Vec::new();
    let schema_files = schema_files(files, &manifest, &toml, &mut found);
    let cedar_files = cedar_files(files, &mut found);
    let seal = opened.seal.as_ref().and_then(|_| files.source(MANIFEST).ok());
    let (signers, lists) = signers::read(&manifest.signers, files, &toml, &mut found);
    let sources = std::iter::once(&toml).chain(&schema_files).chain(&cedar_files).chain(&lists).chain(&seal);
    let digest = digest(sources, files);
    manifest.check(&toml, &mut found);
    if let (Some(sealed), Some(source)) = (&opened.seal, &seal) {
        let head = &manifest.bundle;
        let agrees = sealed.manifest.agrees(
            head.name.get_ref(),
            head.version,
            *head.profile.get_ref(),
            &manifest.release,
        );
        if !agrees {
            found.push(bundle::disagreement(source));
        }
    }
    let subjects = subjects::read(&manifest, &toml, &mut found);
    successors::modes(&subjects, &toml, &mut found);
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
    let apart = successors::apart(&subjects);
    for source in std::iter::once(&builtin).chain(&apart).chain(&cedar_files) {
        let stem = Path::new(&*source.name)
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        let mut parsed = policies::parse(source, &stem, &mut found);
        if let Some(error) = limit(policies.len() + templates.len(), &parsed) {
            return Err(error.into());
        }
        validate(validator.as_ref(), source, parsed.policies.iter().chain(&parsed.templates), &mut found);
        if std::ptr::eq(source, &builtin) {
            lift(&mut parsed.policies, &manifest, &toml, &mut found);
        }
        policies.extend(parsed.policies);
        templates.extend(parsed.templates);
    }
    let roles = Source::new("<guard>/roles.cedar", ROLES);
    let api = policies::parse(&roles, "roles", &mut found).policies;
    validate(validator.as_ref(), &roles, api.iter(), &mut found);
    unique(api.iter().chain(&policies).chain(&templates), &mut found);
    // A sealed bundle has copies of the includes it uses: what the agent ships must not change it.
    let shipped = if opened.seal.is_some() { Vec::new() } else { includes::shipped(&mut found) };
    unknown::check(policies.iter().chain(&templates), &subjects, &mut found);
    let linked = includes::link(&templates, &shipped, &subjects, &toml, &mut found);
    let names = names(&manifest, &toml, &mut found);
    let approval_rules = approvals::read(&manifest.approvals, &toml, &mut found);
    let schedules = windows::read(&manifest.windows, &toml, &mut found);
    let keys = |table: &mut dyn Iterator<Item = &toml::Spanned<String>>| {
        table.map(|key| key.get_ref().clone()).collect()
    };
    let bundle = Bundle {
        name: manifest.bundle.name.get_ref().clone(),
        version: manifest.bundle.version,
        profile: *manifest.bundle.profile.get_ref(),
        digest,
        release: manifest.release,
        notes: Vec::new(),
        toml,
        schema: Arc::new(schema.unwrap_or_else(ValidatorSchema::empty)),
        subjects,
        policies,
        api,
        linked,
        approvals: keys(&mut manifest.approvals.keys()),
        approval_rules,
        windows: keys(&mut manifest.windows.keys()),
        schedules,
        facts: manifest
            .facts
            .iter()
            .map(|(name, fact)| (name.get_ref().clone(), schema::example(fact.kind)))
            .collect(),
        lifetimes: manifest
            .facts
            .iter()
            .filter_map(|(name, fact)| {
                Some((name.get_ref().clone(), duration(fact.ttl.as_ref()?.get_ref())?))
            })
            .collect(),
        sources: manifest
            .facts
            .iter()
            .filter_map(|(name, fact)| Some((name.get_ref().clone(), fact.source.clone()?)))
            .collect(),
        names,
        signers,
    };
    let notes = Diagnostics::refuse_if_errors(found)?;
    Ok(Bundle { notes, ..bundle })
}

fn schema_files(
    files: &Files,
    manifest: &Manifest,
    toml: &Source,
    found: &mut Vec<Diagnostic>,
) -> Vec<Source> {
    let mut sources = Vec::new();
    for name in &manifest.bundle.schema {
        if name.get_ref().contains('/') || name.get_ref().starts_with('.') {
            found.push(
                toml.error("schema", name.span(), format!("{} is not a file of the bundle", name.get_ref()))
                    .help("name a file in the same directory"),
            );
            continue;
        }
        match files.source(name.get_ref()) {
            Ok(source) => sources.push(source),
            Err(error) => found.push(toml.error("schema", name.span(), error.message)),
        }
    }
    sources
}

/// The `*.cedar` files of the bundle and of its `includes`, by name.
fn cedar_files(files: &Files, found: &mut Vec<Diagnostic>) -> Vec<Source> {
    files
        .names()
        .filter(|name| name.ends_with(".cedar") && (!name.contains('/') || name.starts_with("includes/")))
        .filter_map(|name| files.source(name).map_err(|error| found.push(error)).ok())
        .collect()
}

/// Names, lengths and bytes of the files, so that no two bundles have the same input.
fn digest<'a>(sources: impl Iterator<Item = &'a Source>, files: &Files) -> String {
    let mut hash = Sha256::new();
    let prefix = files.display("");
    for file in sources {
        let name = file.name.strip_prefix(&prefix).unwrap_or(&file.name);
        for part in [name.as_bytes(), file.text.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    bundle::hexadecimal(&hash.finalize())
}

/// Refuses the policy that is one too many. Parsing is bounded by the size of the files, and what
/// comes after it, validation above all, by this.
fn limit(before: usize, parsed: &policies::Parsed) -> Option<Diagnostic> {
    let mut all: Vec<&Policy> = parsed.policies.iter().chain(&parsed.templates).collect();
    if before + all.len() <= MAX_POLICIES {
        return None;
    }
    all.sort_by_key(|policy| policy.span().start);
    let message = format!("a bundle holds at most {MAX_POLICIES} policies, and this is one more");
    let error = all.get(MAX_POLICIES.saturating_sub(before))?.error("limit", None, message);
    Some(error.help("name several resources in one policy instead of writing a policy for each"))
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

/// Policies of `builtin.cedar` that a bundle may take away.
const LIFTABLE: [&str; 3] = ["kernel-code", "kernel-helpers", "held"];

/// `[builtin]`: takes away what the bundle does not want.
fn lift(builtin: &mut Vec<Policy>, manifest: &Manifest, toml: &Source, found: &mut Vec<Diagnostic>) {
    for name in &manifest.builtin.lift {
        if LIFTABLE.contains(&name.get_ref().as_str()) {
            builtin.retain(|policy| policy.id != format!("builtin/{}", name.get_ref()));
        } else {
            found.push(
                toml.error("builtin", name.span(), format!("{} cannot be lifted", name.get_ref()))
                    .help(format!("can be: {}", LIFTABLE.join(" "))),
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
