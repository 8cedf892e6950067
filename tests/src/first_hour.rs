//! The first hour, as `docs/first-hour.md` tells it: every command of the document is run, and what the
//! screen shows is compared with what the document shows.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::bundle::Bundle;
use crate::case::Case;
use crate::daemon::{BASE, Daemon};
use crate::family::{Part, tests};
use crate::layout;
use crate::transcript::{Names, steps};

pub(crate) const PART: Part = Part {
    name: "first-hour",
    bundle: Ok,
    prepare,
    tests: tests!(others: [the_first_hour_shows_what_the_document_shows]),
};

/// The document.
const DOCUMENT: &str = include_str!("../../docs/first-hour.md");
/// Where its commands are run.
const PLACE: &str = "/etc/guard";
/// How long an event may take from the kernel to the daemon's memory.
const EVENT: Duration = Duration::from_secs(60);

/// The site of the document: a page for everybody, and one that lies elsewhere.
const SITE: &str = "server {\n    listen 127.0.0.1:80;\n    root /srv/www;\n    access_log /var/log/nginx/access.log;\n\
    location /private/ { alias /srv/private/; }\n}\n";
/// Debian's configuration, as far as it matters.
const CONFIGURATION: &str = "user www-data;\nworker_processes 1;\npid /run/nginx.pid;\nerror_log /var/log/nginx/error.log;\n\
    events {}\nhttp {\n    include /etc/nginx/mime.types;\n    include /etc/nginx/conf.d/*.conf;\n}\n";

fn prepare() -> Result<()> {
    layout::which("nginx").context("the guest needs the package nginx")?;
    for (path, text) in [
        ("/etc/nginx/nginx.conf", CONFIGURATION),
        ("/etc/nginx/conf.d/site.conf", SITE),
        ("/srv/www/index.html", "a page\n"),
        ("/srv/private/x", "a private page\n"),
    ] {
        let path = Path::new(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    for directory in ["/var/log/nginx", "/var/lib/nginx", PLACE] {
        fs::create_dir_all(directory).with_context(|| format!("create {directory}"))?;
    }
    // The packaged unit as it is, without what other tests add to it.
    let _ = fs::remove_dir_all("/etc/systemd/system/nginx.service.d");
    for old in ["bundle", "learn"] {
        let _ = fs::remove_dir_all(Path::new(PLACE).join(old));
    }
    layout::run("systemctl", &["daemon-reload"])
}

fn the_first_hour_shows_what_the_document_shows(_: &Case<'_>) -> Result<()> {
    let name = "first-hour";
    let mut daemon = Daemon::start_apart(name, &Bundle::new("none"))?;
    let socket = Path::new(BASE).join(name).join("run/admin.sock");
    let mut names = Names::default();
    let steps = steps(DOCUMENT);

    let mut seen = String::new();
    for (index, step) in steps.iter().enumerate() {
        let command = names.translated(&step.command);
        let mark = daemon.events.mark()?;
        let screen = run(&command, &socket)?;
        seen.push_str(&format!("$ {command}\n{screen}\n"));
        let lines: Vec<String> = screen.trim_end().lines().map(|line| line.trim_end().to_owned()).collect();
        let place =
            || format!("docs/first-hour.md:{}: {command}\nthe screens of this run:\n{seen}", step.line);
        names.compare(&step.shown, &lines).with_context(place)?;
        // What a command shows soon depends on what this one made the daemon remember.
        let soon = &steps[index + 1..steps.len().min(index + 3)];
        let asks = soon
            .iter()
            .any(|next| ["guardctl learn", "guardctl why"].iter().any(|verb| next.command.contains(verb)));
        if let Some(page) = requested(&command).filter(|_| asks) {
            daemon.events.wait(mark, EVENT, &format!("an event about {page}"), |event| event.is_at(page))?;
        }
        if !daemon.is_alive() {
            bail!("the daemon died: {}\n{seen}", daemon.log());
        }
    }
    print!("{seen}");
    let status = daemon.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    Ok(())
}

/// The file that a request makes nginx open.
fn requested(command: &str) -> Option<&'static str> {
    match command.split_once("http://127.0.0.1/")?.1 {
        page if page.starts_with("private/x") => Some("/srv/private/x"),
        _ => Some("/srv/www/index.html"),
    }
}

/// What a shell shows of a command: both of its streams, as they come.
fn run(command: &str, socket: &Path) -> Result<String> {
    // Everything here is root's already.
    let command = command.replace("sudo ", "");
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("exec 2>&1\n{command}"))
        .current_dir(PLACE)
        .env("GUARD_SOCKET", socket)
        .env("NO_COLOR", "1")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {command}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_what_the_document_shows() {
        let document = steps(DOCUMENT);
        let readme = steps(include_str!("../../README.md"));
        assert!(!readme.is_empty());
        for step in readme {
            let mut same = document.iter().filter(|other| other.command == step.command);
            let shows = |shown: &[String]| step.shown.iter().all(|line| line == "…" || shown.contains(line));
            assert!(same.any(|other| shows(&other.shown)), "README.md:{}: {}", step.line, step.command);
        }
    }
}
