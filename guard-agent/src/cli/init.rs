//! `guardctl init`: a first bundle for a service.

use super::screen::Screen;
use super::{CliError, Exit};
use crate::bundle::{Files, Opened};
use crate::events::escape::line;
use crate::host::Host;
use crate::onboard::{self, Plan, Program, Service, find, plan};
use crate::policy::{self, SubjectIds};
use guard_common::action::{Coverage, TABLE};
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the bundle is written without `--dir`.
const DIRECTORY: &str = "bundle";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The name that policy will have for it.
    subject: String,
    #[command(flatten)]
    what: What,
    /// The directory to write; it must not hold a bundle.
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    dir: PathBuf,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

/// What the subject is.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A systemd unit: nginx.service.
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
    /// Everything that this user runs.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// This executable and what it starts.
    #[arg(long, value_name = "PATH")]
    exe: Option<PathBuf>,
}

/// Reads the service, writes the bundle and says what to do next.
pub(super) fn run(screen: &Screen, args: &Args) -> Result<Exit, CliError> {
    let (service, programs) = args.what.read()?;
    let known = policy::shipped_includes();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let plan = plan(&args.subject, &service, &programs, &known, &|path| path.exists());
    let decided = TABLE.iter().filter(|row| row.coverage != Coverage::NotYet);
    let governs = policy::action_names(decided.fold(0, |bits, row| bits | row.action.bit()));
    let toml = onboard::toml_file(&args.subject, &service, &governs, &plan);
    let cedar = onboard::policy_file(&args.subject, &plan);
    let name = format!("{}.cedar", args.subject);
    check(&args.dir, &[("guard.toml", &toml), (&name, &cedar)])?;
    create(&args.dir, &[("guard.toml", &toml), (&name, &cedar)])?;
    if args.json {
        screen.answer(&report(args, &plan, &name).to_string())?;
    } else {
        screen.answer(&render(args, &plan, &name))?;
    }
    Ok(Exit::Yes)
}

impl What {
    fn read(&self) -> Result<(Service, Vec<(PathBuf, Program)>), CliError> {
        if let Some(name) = &self.unit {
            let name = if name.contains('.') { name.clone() } else { format!("{name}.service") };
            let unit = find::unit(&name).ok_or_else(|| {
                CliError::invalid(format!(
                    "there is no unit {name} on this host\n  list them: systemctl list-unit-files --type=service"
                ))
            })?;
            let programs = unit.programs.iter().map(|path| (path.clone(), find::program(path))).collect();
            return Ok((Service::Unit(unit), programs));
        }
        if let Some(user) = &self.user {
            return Ok((Service::User(user.clone()), Vec::new()));
        }
        let path = self.exe.clone().unwrap_or_default();
        let path = path.canonicalize().map_err(|error| {
            CliError::invalid(format!("cannot find the executable {}: {error}", path.display()))
        })?;
        let program = find::program(&path);
        Ok((Service::Executable(path.clone()), vec![(path, program)]))
    }
}

/// Compiles the bundle for this host before anything is written.
fn check(dir: &Path, contents: &[(&str, &str)]) -> Result<(), CliError> {
    let mut files = Files::new(dir);
    let invalid = |error: policy::Diagnostic| CliError::invalid_policy(error.to_string());
    for (name, text) in contents {
        files.insert(name, text.as_bytes().to_vec()).map_err(invalid)?;
    }
    let refused = |found: policy::Diagnostics| CliError::invalid_policy(found.to_string());
    let bundle = policy::parse(&Opened { files, seal: None }).map_err(refused)?;
    let host = Host::read().map_err(|error| CliError::internal(error.to_string()))?;
    policy::compile(&bundle, &host, &mut SubjectIds::default()).map(|_| ()).map_err(refused)
}

/// Writes the files; none of them may exist.
fn create(dir: &Path, contents: &[(&str, &str)]) -> Result<(), CliError> {
    if let Some((name, _)) = contents.iter().find(|(name, _)| dir.join(name).symlink_metadata().is_ok()) {
        return Err(CliError::invalid(format!(
            "{} is there already, and nothing is overwritten\n  choose another directory with --dir",
            dir.join(name).display()
        )));
    }
    let cannot = |path: &Path, error: std::io::Error| {
        CliError::invalid(format!("cannot write {}: {error}", path.display()))
    };
    fs::create_dir_all(dir).map_err(|error| cannot(dir, error))?;
    for (name, text) in contents {
        let path = dir.join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| cannot(&path, error))?;
    }
    Ok(())
}

fn report(args: &Args, plan: &Plan, name: &str) -> serde_json::Value {
    json!({
        "schema": "guard.init/1",
        "subject": args.subject,
        "directory": args.dir,
        "files": ["guard.toml", name],
        "includes": plan.includes.iter().map(|one| json!({ "name": one.include, "why": one.why })).collect::<Vec<_>>(),
        "policies": plan.rights.iter().map(|one| json!({ "id": one.id, "why": one.why })).collect::<Vec<_>>(),
        "notes": plan.notes,
    })
}

fn render(args: &Args, plan: &Plan, name: &str) -> String {
    let dir = line(&args.dir.display().to_string());
    let subject = line(&args.subject);
    let mut lines = vec![
        format!("wrote {dir}/guard.toml  {subject} in monitor mode: nothing is denied"),
        format!("wrote {dir}/{}  {}", line(name), count(plan.rights.len(), "permit")),
    ];
    let widest = plan.includes.iter().map(|one| one.include.len()).max().unwrap_or(0);
    lines.extend(
        plan.includes.iter().map(|one| format!("  include  {:widest$}  {}", one.include, line(&one.why))),
    );
    lines.extend(
        plan.rights.iter().map(|one| format!("  permit   {:widest$}  {}", line(&one.id), line(&one.why))),
    );
    lines.extend(plan.notes.iter().map(|note| format!("  note     {}", line(note))));
    let given = if args.dir.is_absolute() || dir.starts_with('.') { dir } else { format!("./{dir}") };
    let next = [
        (format!("sudo guardctl policy apply {given}"), "live, in monitor mode"),
        (format!("sudo guardctl learn {subject}"), "when it has worked for a while"),
        (format!("sudo guardctl policy apply {given}"), "again, enforced, with \"enforce\" in [modes]"),
    ];
    let widest = next.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    lines.push("next".to_owned());
    lines.extend(next.iter().map(|(command, what)| format!("  {command:widest$}  {what}")));
    lines.join("\n")
}

/// `1 permit`, `2 permits`.
fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
