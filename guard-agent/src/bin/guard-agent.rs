//! The daemon.

use clap::{Parser, Subcommand};
use guard_agent::cli::Exit;
use guard_agent::config::Config;
use guard_agent::{daemon, kernel};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Decides every sensitive action of a service account at the moment it is taken.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Enforce a bundle until told to stop
    Run {
        /// The configuration file
        #[arg(long, default_value = "/etc/guard/agent.toml")]
        config: PathBuf,
    },
    /// Say whether this host can enforce, by loading the programs and taking them out again; prints
    /// each program with the number of instructions that the verifier walked through
    Probe,
    /// The child of the start-up check
    #[command(hide = true)]
    Canary {
        /// Socket to connect to, or `noop`
        socket: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("GUARD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let ansi =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    match arguments.command {
        Command::Run { config } => run(&config),
        Command::Probe => match kernel::Kernel::load(None) {
            Ok(kernel) => {
                for program in kernel.programs() {
                    println!("{} {}", program.name, program.instructions_verified);
                }
                ExitCode::SUCCESS
            }
            Err(error) => failed(Exit::Degraded, &error),
        },
        Command::Canary { socket } if socket == Path::new("noop") => ExitCode::SUCCESS,
        Command::Canary { socket } => match daemon::canary_child(&socket) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(Exit::Degraded, &error),
        },
    }
}

fn run(path: &Path) -> ExitCode {
    let config = match Config::read(path) {
        Ok(config) => config,
        Err(error) => return failed(Exit::Invalid, &error),
    };
    match daemon::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_invalid_input() => failed(Exit::Invalid, &error),
        Err(error) if error.is_second() => failed(Exit::No, &error),
        Err(error @ daemon::StartError::NotRoot) => failed(Exit::NotPermitted, &error),
        Err(error) => {
            let code = failed(Exit::Degraded, &error);
            match config.pins.filter(|pins| kernel::is_armed(pins)) {
                None => eprintln!("guard-agent: not enforcing"),
                Some(pins) => eprintln!(
                    "guard-agent: what an agent before this one pinned in {} goes on enforcing",
                    pins.display()
                ),
            }
            code
        }
    }
}

fn failed(exit: Exit, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("guard-agent: {error}");
    ExitCode::from(exit.code())
}
