//! `guardctl`: what it understands and what it answers.
//!
//! Standard output is the answer and standard error the rest. Every command ends with a code of
//! [`Exit`], whose table is the same for all of them.
#![forbid(unsafe_code)]

mod apply;
mod artifact;
mod bundle;
mod check;
mod client;
mod coverage;
mod disarm;
mod doctor;
mod events;
mod exit;
mod failure;
mod history;
mod init;
mod keys;
mod learn;
mod lease;
mod mode;
mod policy;
mod posture;
mod quarantine;
mod remembered;
mod report;
mod request;
mod run;
mod screen;
mod selftest;
mod sessions;
mod shadow;
mod status;
mod why;

pub use exit::Exit;
pub use failure::CliError;

use artifact::ArtifactCommand;
use bundle::BundleCommand;
use clap::{Args, Parser, Subcommand};
use client::Client;
use events::{Events, Format};
use history::Rollback;
use keys::Keys;
use lease::LeaseCommand;
use posture::Posture;
use quarantine::{QuarantineArgs, Release};
use request::RequestCommand;
use screen::Screen;
use std::path::PathBuf;

/// Where the daemon listens to administrators.
const SOCKET: &str = "/run/guard/admin.sock";
/// Where it listens to everybody.
const OWN_SOCKET: &str = "/run/guard/self.sock";

/// The command line of `guardctl`.
#[derive(Debug, Parser)]
#[command(
    name = "guardctl",
    version,
    about = "Ask and steer the Guard agent of this host",
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 yes, 1 a clean no, 2 usage, 3 daemon unreachable, 4 degraded, \
                  5 not permitted, 6 invalid input, 7 internal."
)]
pub struct Cli {
    /// The daemon's admin socket, /run/guard/admin.sock; for `run` its self-service socket,
    /// /run/guard/self.sock.
    #[arg(long, global = true, env = "GUARD_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Is this host enforcing, what, and since when?
    Status(Json),
    /// What is decided on this kernel, action by action?
    Coverage(Json),
    /// Policy bundles.
    #[command(subcommand)]
    Policy(Policy),
    /// Seal, sign and examine bundles. Needs no daemon.
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Sign files, and see who signed one. Needs no daemon.
    #[command(subcommand)]
    Artifact(ArtifactCommand),
    /// Keys that sign bundles and artifacts. Needs no daemon.
    #[command(subcommand)]
    Keys(Keys),
    #[command(flatten)]
    Ask(policy::Ask),
    /// What was denied, or would have been.
    Events(Events),
    /// Which policy denied this, and what would change it? Or was it not Guard?
    Why(why::Args),
    /// Leases: rights that a subject has for a while.
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// Requests of subjects for leases, and what people say to them.
    #[command(subcommand)]
    Request(RequestCommand),
    /// Facts that policy asks for.
    #[command(subcommand)]
    Posture(Posture),
    /// Deny a subject, or one of its sessions, the network, writing, executing or everything, at once and until
    /// it is released.
    Quarantine(QuarantineArgs),
    /// Release a quarantine, or take it down to a lower level.
    Release(Release),
    /// End enforcement on this host: the agent detaches everything and ends. Nothing else does once the agent's
    /// programs are pinned, not even stopping or killing it.
    Disarm(disarm::Disarming),
    /// Enforce or only monitor a subject for a while; then the bundle's mode counts again, by itself.
    Mode(mode::SetMode),
    /// What was granted and never used.
    Report(report::Args),
    /// Run a command as a subject, in a session of its own. Needs no root: the subject's definition says
    /// who may.
    Run(run::Args),
    /// Who runs what as which subject.
    Sessions(sessions::Args),
    /// Does this host's kernel refuse what policy refuses? Tried by a process of its own, which changes
    /// nothing.
    Selftest(selftest::Args),
    /// Can this host enforce, and if not, what has to be done? Needs no daemon.
    Doctor(DoctorArgs),
    /// Write a first bundle for a service, in monitor mode. Needs no daemon.
    Init(init::Args),
    /// Propose what a subject's policy lacks, from what monitor mode recorded of it.
    Learn(learn::Args),
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Read, validate and compile a bundle for this host. Changes nothing, needs no daemon and no root.
    Check(Bundle),
    /// Make a bundle the live policy, without a gap. An invalid one leaves the live policy untouched.
    Apply(Apply),
    /// Make the bundle live again that was live before this one. Once more goes further back.
    Rollback(Rollback),
    /// What was live on this host, since when, and who asked for it.
    History(Json),
    /// End the hold that refuses other bundles.
    ReleaseHold(Json),
    /// A bundle beside the live one, whose verdicts are compared and not enforced.
    #[command(subcommand)]
    Shadow(shadow::Shadow),
    #[command(flatten)]
    Tool(policy::Tool),
}

#[derive(Debug, Args)]
struct Json {
    /// Answer with one JSON value.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Bundle {
    /// The bundle: a directory with a guard.toml and *.cedar files, or an archive.
    #[arg(value_name = "BUNDLE")]
    directory: PathBuf,
    #[command(flatten)]
    output: Json,
}

#[derive(Debug, Args)]
struct Apply {
    #[command(flatten)]
    bundle: Bundle,
    /// Only verify and compile it on this host, and say what would happen.
    #[arg(long)]
    dry_run: bool,
    /// Put it beside the live policy: nothing that is decided changes, and what would be decided
    /// otherwise is reported. `policy shadow` shows, promotes and ends it.
    #[arg(long)]
    shadow: bool,
}

#[derive(Debug, Args)]
struct DoctorArgs {
    #[command(flatten)]
    output: Json,
    /// Examine the files below this directory instead of the host's; the programs are not tried.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// Runs `guardctl` with the arguments of this process.
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers. If nobody reads them, nothing is left to say.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Yes };
        }
    };
    let json = cli.json();
    cli.run().unwrap_or_else(|error| error.report(json))
}

impl Cli {
    /// Whether the answer is to be JSON.
    fn json(&self) -> bool {
        match &self.command {
            Command::Status(output) | Command::Coverage(output) => output.json,
            Command::Policy(Policy::Check(bundle) | Policy::Apply(Apply { bundle, .. })) => {
                bundle.output.json
            }
            Command::Policy(Policy::Rollback(rollback)) => rollback.json,
            Command::Policy(Policy::History(output) | Policy::ReleaseHold(output)) => output.json,
            Command::Policy(Policy::Shadow(shadow)) => shadow.json(),
            Command::Bundle(command) => command.json(),
            Command::Artifact(command) => command.json(),
            Command::Keys(Keys::Generate(generate)) => generate.json,
            Command::Policy(Policy::Tool(tool)) => tool.json(),
            Command::Ask(ask) => ask.json(),
            Command::Events(events) => events.output == Format::Json,
            Command::Why(args) => args.json,
            Command::Doctor(doctor) => doctor.output.json,
            Command::Init(args) => args.json,
            Command::Learn(args) => args.json,
            Command::Disarm(args) => args.json,
            Command::Lease(command) => command.json(),
            Command::Quarantine(args) => args.json(),
            Command::Release(args) => args.json,
            Command::Request(command) => command.json(),
            Command::Posture(command) => command.json(),
            Command::Mode(args) => args.json,
            Command::Report(args) => args.json,
            Command::Run(_) => false,
            Command::Sessions(args) => args.json,
            Command::Selftest(args) => args.json,
        }
    }

    fn run(self) -> Result<Exit, CliError> {
        let screen = Screen::stdout();
        if let Command::Run(args) = self.command {
            return wait(args.run(&self.socket.unwrap_or_else(|| OWN_SOCKET.into())));
        }
        if let Command::Why(args) = &self.command
            && args.is_own()
            && let Command::Why(args) = self.command
        {
            let own = Client::new(self.socket.unwrap_or_else(|| OWN_SOCKET.into()));
            return wait(args.run_own(&own, &screen));
        }
        if let Command::Request(command) = self.command {
            return wait(command.run(self.socket, &screen));
        }
        let client = Client::new(self.socket.unwrap_or_else(|| SOCKET.into()));
        match self.command {
            // Have sockets of their own, see above.
            Command::Run(_) | Command::Request(_) => Ok(Exit::Usage),
            Command::Status(output) => wait(status::run(&client, &screen, output.json)),
            Command::Coverage(output) => wait(coverage::run(&client, &screen, output.json)),
            Command::Policy(Policy::Check(bundle)) => {
                check::run(&bundle.directory, &screen, bundle.output.json)
            }
            Command::Policy(Policy::Apply(Apply { bundle, dry_run, shadow: true })) => {
                wait(shadow::begin(&client, &screen, &bundle.directory, dry_run, bundle.output.json))
            }
            Command::Policy(Policy::Shadow(shadow)) => wait(shadow.run(&client, &screen)),
            Command::Policy(Policy::Apply(Apply { bundle, dry_run, shadow: false })) => {
                wait(apply::run(&client, &screen, &bundle.directory, dry_run, bundle.output.json))
            }
            Command::Policy(Policy::Rollback(rollback)) => wait(rollback.run(&client, &screen)),
            Command::Policy(Policy::History(output)) => wait(history::run(&client, &screen, output.json)),
            Command::Policy(Policy::ReleaseHold(output)) => {
                wait(history::release_hold(&client, &screen, output.json))
            }
            Command::Bundle(command) => command.run(&screen),
            Command::Artifact(command) => command.run(&screen),
            Command::Keys(Keys::Generate(generate)) => generate.run(&screen),
            Command::Policy(Policy::Tool(tool)) => wait(tool.run(&client, &screen)),
            Command::Ask(ask) => wait(ask.run(&client, &screen)),
            Command::Events(events) => wait(events.run(&client, &screen)),
            Command::Why(args) => wait(args.run(&client, &screen)),
            Command::Doctor(args) => doctor::run(&screen, args.root.as_deref(), args.output.json),
            Command::Init(args) => init::run(&screen, &args),
            Command::Learn(args) => wait(learn::run(&client, &screen, &args)),
            Command::Disarm(args) => wait(args.run(&client, &screen)),
            Command::Lease(command) => wait(command.run(&client, &screen)),
            Command::Quarantine(args) => wait(args.run(&client, &screen)),
            Command::Release(args) => wait(args.run(&client, &screen)),
            Command::Posture(command) => wait(command.run(&client, &screen)),
            Command::Mode(args) => wait(args.run(&client, &screen)),
            Command::Report(args) => wait(args.run(&client, &screen)),
            Command::Sessions(args) => wait(args.run(&client, &screen)),
            Command::Selftest(args) => wait(args.run(&client, &screen)),
        }
    }
}

/// Runs a conversation with the daemon on this thread.
fn wait(conversation: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| CliError::internal(format!("cannot start: {error}")))?.block_on(conversation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_commands_are_understood() {
        for line in [
            "guardctl status --json",
            "guardctl coverage --json",
            "guardctl policy check examples/quickstart/policy",
            "guardctl policy apply . --json --socket /tmp/x.sock",
            "guardctl policy apply x.tar.zst --dry-run",
            "guardctl policy apply --shadow x.tar.zst",
            "guardctl policy shadow report --output json --limit 5",
            "guardctl policy shadow promote --json",
            "guardctl policy shadow stop",
            "guardctl policy rollback --hold 2h --reason INC-4412 --json",
            "guardctl policy history --json",
            "guardctl policy release-hold",
            "guardctl events -f -o json",
            "guardctl events --follow --output compact",
            "guardctl events -o long --subject nginx --action net.out --verdict would-deny --since 2h --limit 5",
            "guardctl why d-7K3F2Q --json",
            "guardctl why --last nginx",
            "guardctl why --path /srv/x --pid 812",
            "guardctl doctor --root /tmp",
            "guardctl init nginx --unit nginx.service",
            "guardctl learn nginx --bundle . --dir /tmp/learn",
            "guardctl policy suggest d-7K3F2Q --only 1",
            "guardctl mode enforce nginx --for 1h",
            "guardctl mode monitor nginx --for 10m --reason INC-4412 --json",
            "guardctl mode bundle nginx -y",
            "guardctl disarm --reason INC-4412 --yes --json",
            "guardctl lease grant prod-change --subject ai-coder --for 10m --reason INC-1 --json",
            "guardctl lease list --all",
            "guardctl quarantine ai-coder/12 --level network --reason INC-1 --for 2h --dry-run --json",
            "guardctl quarantine --pid 812 --level full --reason INC-1 --yes --no-evidence",
            "guardctl quarantine list --all --json",
            "guardctl release 3 --to network --reason INC-1 --json",
            "guardctl lease renew 3 --for 5m",
            "guardctl lease revoke 3 --json",
            "guardctl request create --name prod-change --reason x --for 10m --wait",
            "guardctl request list --all --json",
            "guardctl request show 3",
            "guardctl request approve 3 --yes",
            "guardctl request deny 3 --note later",
            "guardctl posture set trust=3 --subject nginx --for 5m --source edr",
            "guardctl posture get trust --json",
            "guardctl posture unset trust --subject nginx",
            "guardctl posture watch --json",
            "guardctl disarm --offline --reason x --config /etc/guard/agent.toml",
            "guardctl run --as coder --set worktree=PWD --reason INC-1 -- make test",
            "guardctl sessions --all --subject coder --json",
            "guardctl selftest --json",
            "guardctl report --unused --subject nginx --json",
            "guardctl init ci --user ci --dir /tmp/ci --json",
            "guardctl keys generate release --dir /tmp",
            "guardctl bundle build . -o x.tar.zst --key a.key --key b.key",
            "guardctl bundle sign x.tar.zst --key a.key",
            "guardctl bundle verify x.tar.zst --trust trust.d --threshold 2",
            "guardctl bundle inspect x.tar.zst --json",
            "guardctl can --as nginx file.read /srv/www --bundle . --lease l --fact trust=3",
            "guardctl can --as nginx sys.mount",
            "guardctl list --as nginx --json",
            "guardctl policy show --effective --subject nginx",
            "guardctl policy test . --json",
            "guardctl policy fmt --check .",
            "guardctl policy explain --as nginx rename /a /b --bundle .",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        assert!(Cli::try_parse_from(["guardctl", "policy"]).is_err());
    }

    #[test]
    fn the_help_names_every_exit_code() {
        let help = Cli::command().render_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        for (exit, meaning) in Exit::TABLE {
            let summary = meaning.split([':', ',', ';']).next().unwrap_or_default();
            assert!(help.contains(&format!("{} {summary}", exit.code())), "{help}");
        }
    }
}
