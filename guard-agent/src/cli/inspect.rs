//! `guardctl inspect`: a program of the responder's, in the namespaces of what is in quarantine.

use super::client::Client;
use super::lease::decode;
use super::{CliError, Exit};
use crate::api::types::Inspection;
use clap::Args;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// The number of a quarantine.
    id: i64,
    /// The process whose namespaces are meant. Without it, one that is covered.
    #[arg(long)]
    pid: Option<i32>,
    /// Its file systems as well: the program is found there, and is whatever lies there.
    #[arg(long)]
    mount: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Inspect {
    /// Becomes the program.
    pub(super) async fn run(self, client: &Client) -> Result<Exit, CliError> {
        let answer = client.post(&format!("/v1/quarantines/{}/inspect", self.id), b"{}".to_vec()).await?;
        let found: Inspection = decode(&answer)?;
        let pid = self.pid.unwrap_or(found.pid);
        if !found.processes.contains(&pid) {
            return Err(CliError::invalid(format!("quarantine {} does not cover process {pid}", self.id)));
        }
        // The cgroup is not entered: who is in it may be covered for that.
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &pid.to_string(), "--net", "--uts", "--ipc", "--pid"]);
        if self.mount {
            enter.args(["--mount", "--root", "--wd"]);
        }
        let error = enter.arg("--").args(&self.command).exec();
        Err(CliError::internal(format!("cannot run nsenter (util-linux): {error}")))
    }
}
