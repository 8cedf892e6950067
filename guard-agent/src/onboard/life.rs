//! Reading what the host knows about a service's life.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use super::phases::{Life, last_rotation, read_show};

/// State of logrotate, by distribution.
const ROTATIONS: [&str; 2] = ["/var/lib/logrotate/status", "/var/lib/logrotate/logrotate.status"];
/// Directories of jobs, by what they are called.
const JOBS: [(&str, &str); 5] = [
    ("cron", "/etc/cron.d"),
    ("cron.hourly", "/etc/cron.hourly"),
    ("cron.daily", "/etc/cron.daily"),
    ("cron.weekly", "/etc/cron.weekly"),
    ("cron.monthly", "/etc/cron.monthly"),
];
/// Certificates that renew themselves.
const CERTIFICATES: &str = "/etc/letsencrypt/live";

/// What this host says about the life of a subject, since `since`. `unit` is the unit it is, `paths`
/// what it used.
pub fn life(
    subject: &str,
    unit: Option<&str>,
    paths: &[&str],
    since: i64,
    last_operation: Option<i64>,
) -> Life {
    let mut life = Life { since, last_operation, booted: booted(), ..Life::default() };
    if let Some(unit) = unit
        && let Some(text) = show(unit)
    {
        read_show(&text, &mut life);
    }
    let logs: Vec<&str> = paths.iter().copied().filter(|path| path.starts_with("/var/log/")).collect();
    let own = |path: &str| {
        logs.iter().any(|log| {
            path == *log || log.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '-']))
        })
    };
    let rotates = files(Path::new("/etc/logrotate.d"))
        .iter()
        .any(|path| file_name(path) == subject || logs.iter().any(|log| mentions(path, Path::new(log))));
    if rotates {
        let state = ROTATIONS.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        life.rotated = Some(last_rotation(&state, &own));
    }
    if paths.iter().any(|path| path.starts_with("/etc/letsencrypt/")) {
        life.renewed = Some(files(Path::new(CERTIFICATES)).iter().filter_map(|path| changed(path)).max());
    }
    for (name, directory) in JOBS {
        let jobs = files(Path::new(directory));
        let own = jobs.iter().filter(|path| file_name(path) == subject);
        life.jobs.extend(own.map(|path| format!("{name}/{}", file_name(path))));
    }
    life
}

/// Properties of a unit, if a service manager runs.
fn show(unit: &str) -> Option<String> {
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let properties = "ActiveEnterTimestamp,InactiveEnterTimestamp,CanReload,ExecReload";
    let ask = |options: &[&str]| {
        let output = Command::new("systemctl")
            .arg("show")
            .args(options)
            .args(["--property", properties, "--", unit])
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .output()
            .ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // Without the option, which systemd knows since version 248 (systemctl(1)), whole seconds are
    // printed, rounded down: what happened in the second in which recording began looks earlier.
    ask(&["--timestamp=us+utc"]).or_else(|| ask(&[]))
}

/// When the host was booted, in nanoseconds since 1970.
fn booted() -> Option<i64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let seconds: i64 = text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    seconds.checked_mul(1_000_000_000)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a configuration names the log, or the directory it is in.
fn mentions(configuration: &Path, log: &Path) -> bool {
    let text = fs::read_to_string(configuration).unwrap_or_default();
    let directory = log.parent().filter(|directory| *directory != Path::new("/var/log"));
    let names = std::iter::once(log).chain(directory);
    names.map(|path| path.to_string_lossy()).any(|path| text.contains(&*path))
}

fn changed(path: &Path) -> Option<i64> {
    let files = files(path);
    let times = files.iter().filter_map(|file| {
        let at = fs::metadata(file).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(at.as_nanos()).ok()
    });
    times.max()
}
