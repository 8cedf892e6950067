//! `guardctl bundle`: sealing, signing and looking at bundles. No daemon is asked, no root needed.

use super::screen::{Screen, short};
use super::{CliError, Exit};
use crate::bundle::{self, Opened, PrivateKey, SIGNATURES, Signatures, Standing, Trust, TrustConfig};
use crate::events::escape::line;
use crate::policy::{self, Bundle, Diagnostic, Diagnostics};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Seal a directory: copy the includes it uses into it, list every digest, write one archive.
    Build(Build),
    /// Add signatures to an archive.
    Sign(Sign),
    /// Would a host with these trusted keys accept it?
    Verify(Verify),
    /// What is in it, and who signed it?
    Inspect(Inspect),
}

#[derive(Debug, Args)]
pub(super) struct Build {
    /// The directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The archive; without it NAME-VERSION.tar.zst in the working directory.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Sign it with this private key; may be given several times.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Answer with one JSON value.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The archive; it is replaced by the signed one.
    #[arg(value_name = "FILE")]
    archive: PathBuf,
    /// A private key; may be given several times.
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// Answer with one JSON value.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The bundle: an archive or a directory.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Directory of trusted public keys.
    #[arg(long, value_name = "DIR", default_value = "/etc/guard/trust.d")]
    trust: PathBuf,
    /// How many of them must have signed.
    #[arg(long, value_name = "K")]
    threshold: Option<usize>,
    /// Answer with one JSON value.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// The bundle: an archive or a directory.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Answer with one JSON value.
    #[arg(long)]
    json: bool,
}

impl BundleCommand {
    /// Whether the answer is to be JSON.
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Build(args) => args.json,
            Self::Sign(args) => args.json,
            Self::Verify(args) => args.json,
            Self::Inspect(args) => args.json,
        }
    }

    /// Does it.
    pub(super) fn run(&self, screen: &Screen) -> Result<Exit, CliError> {
        match self {
            Self::Build(args) => build(args, screen),
            Self::Sign(args) => sign(args, screen),
            Self::Verify(args) => verify(args, screen),
            Self::Inspect(args) => inspect(args, screen),
        }
    }
}

fn build(args: &Build, screen: &Screen) -> Result<Exit, CliError> {
    let opened = bundle::build(&args.directory)?;
    let bundle = policy::parse(&opened)?;
    let path = args.output.clone().unwrap_or_else(|| {
        // A name can hold a slash; it must not lead elsewhere.
        PathBuf::from(format!("{}-{}.tar.zst", bundle.name.replace('/', "-"), bundle.version))
    });
    write(opened, &args.keys, &path, "built", &bundle, screen, args.json)
}

fn sign(args: &Sign, screen: &Screen) -> Result<Exit, CliError> {
    if args.archive.is_dir() {
        let message = format!("{} is a directory: build it first", args.archive.display());
        return Err(CliError::invalid(message));
    }
    let opened = bundle::open(&args.archive)?;
    // Whoever signs vouches for the contents, so what is not valid is not signed.
    let bundle = policy::parse(&opened)?;
    write(opened, &args.keys, &args.archive, "signed", &bundle, screen, args.json)
}

/// Signs with all keys, writes the archive and says so.
fn write(
    mut opened: Opened,
    keys: &[PathBuf],
    path: &Path,
    done: &str,
    bundle: &Bundle,
    screen: &Screen,
    as_json: bool,
) -> Result<Exit, CliError> {
    let mut signatures = opened.seal.take().map(|seal| seal.signatures).unwrap_or_default();
    for path in keys {
        signatures.sign(&opened.files, &PrivateKey::read(path)?).map_err(Diagnostics::from)?;
    }
    if signatures != Signatures::default() {
        opened.files.replace(SIGNATURES, signatures.to_text().into_bytes()).map_err(Diagnostics::from)?;
    }
    bundle::write_archive(&opened.files, path).map_err(|error| CliError::invalid(error.to_string()))?;
    let signers: Vec<String> = signatures.keys().map(|key| key.fingerprint()).collect();
    if as_json {
        let body = json!({
            "schema": "guard.bundle/1",
            "name": bundle.name,
            "version": bundle.version,
            "digest": bundle.digest,
            "path": path,
            "signers": signers,
        });
        screen.answer(&body.to_string())?;
    } else {
        let who = if signers.is_empty() { "nobody yet".to_owned() } else { signers.join(", ") };
        screen.answer(&format!(
            "{done} {}  {} version {} ({}…)  signed by {who}",
            line(&path.display().to_string()),
            line(&bundle.name),
            bundle.version,
            short(&bundle.digest),
        ))?;
    }
    Ok(Exit::Yes)
}

fn verify(args: &Verify, screen: &Screen) -> Result<Exit, CliError> {
    let opened = bundle::open(&args.bundle)?;
    let bundle = policy::parse(&opened)?;
    let config = TrustConfig { dir: args.trust.clone(), threshold: args.threshold, allow_local: false };
    let trust = Trust::read(&config, false).map_err(|error| CliError::invalid(error.to_string()))?;
    let refusal = match trust.judge(&opened) {
        _ if trust.numbers().0 == 0 => Err(format!("there is no key in {}", args.trust.display())),
        Err(refusal) => Err(refusal.to_string()),
        Ok(standing) => match bundle.release.expired(jiff::Timestamp::now()) {
            Some(expired) => Err(expired),
            None => Ok(standing),
        },
    };
    let named = json!({ "name": bundle.name, "version": bundle.version, "digest": bundle.digest });
    let what = format!("{} version {} ({}…)", line(&bundle.name), bundle.version, short(&bundle.digest));
    let (exit, text, body) = match refusal {
        Ok(standing) => {
            let by = if let Standing::Signed(by) = standing { by } else { Vec::new() };
            let text = format!("accepted  {what}  signed by {}", line(&by.join(", ")));
            (Exit::Yes, text, json!({ "accepted": true, "signed_by": by }))
        }
        Err(why) => {
            let text = format!("refused  {what}: {}", line(&why));
            (Exit::No, text, json!({ "accepted": false, "reason": why }))
        }
    };
    if args.json {
        let mut all = json!({ "schema": "guard.verify/1", "bundle": named });
        if let (Value::Object(all), Value::Object(body)) = (&mut all, body) {
            all.extend(body);
        }
        screen.answer(&all.to_string())?;
    } else {
        screen.answer(&text)?;
    }
    Ok(exit)
}

fn inspect(args: &Inspect, screen: &Screen) -> Result<Exit, CliError> {
    let opened = bundle::open(&args.bundle)?;
    let bundle = policy::parse(&opened)?;
    let signers: Vec<String> =
        opened.seal.iter().flat_map(|seal| seal.signatures.keys()).map(|key| key.fingerprint()).collect();
    let files: Vec<(&str, usize)> = opened.files.iter().map(|(name, bytes)| (name, bytes.len())).collect();
    let release = bundle.release.plain();
    if args.json {
        let files: Vec<Value> =
            files.iter().map(|(name, bytes)| json!({ "name": name, "bytes": bytes })).collect();
        let body = json!({
            "schema": "guard.bundle/1",
            "name": bundle.name,
            "version": bundle.version,
            "profile": bundle.profile,
            "digest": bundle.digest,
            "sealed": opened.seal.is_some(),
            "signers": signers,
            "release": release,
            "subjects": bundle.subjects().map(|subject| &subject.name).collect::<Vec<_>>(),
            "policies": bundle.policy_ids().count(),
            "files": files,
        });
        screen.answer(&body.to_string())?;
        return Ok(Exit::Yes);
    }
    let or = |list: Vec<String>, nothing: &str| {
        if list.is_empty() { nothing.to_owned() } else { list.join(", ") }
    };
    let subjects = bundle.subjects().map(|subject| line(&subject.name)).collect();
    let form = if opened.seal.is_some() { "sealed" } else { "plain directory" };
    let mut lines = vec![
        format!("{} version {}, profile {}, {form}", line(&bundle.name), bundle.version, bundle.profile),
        format!("  digest    {}", bundle.digest),
        format!("  signed by {}", or(signers, "nobody")),
        format!("  subjects  {}", or(subjects, "none")),
        format!("  policies  {}", bundle.policy_ids().count()),
    ];
    lines.extend(release.iter().map(|(key, value)| line(&format!("  {key:9} {value}"))));
    lines.extend(files.iter().map(|(name, bytes)| format!("  {bytes:9} bytes  {}", line(name))));
    screen.answer(&lines.join("\n"))?;
    Ok(Exit::Yes)
}

impl From<Diagnostics> for CliError {
    fn from(found: Diagnostics) -> Self {
        let text: Vec<String> = found.iter().map(Diagnostic::to_string).collect();
        Self::invalid_policy(text.join(""))
    }
}
