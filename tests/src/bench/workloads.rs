//! Whole programs: without an agent, beside Guard, and as a subject under a policy of many literals.
//!
//! Each is a script that prepares, does the same several times over, and tidies up; the script says when each
//! time began and ended. Programs take turns, so that whatever changes with time changes for all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use guard_tests::bundle::{Bundle, forbid};
use guard_tests::daemon::Daemon;
use guard_tests::users::Identity;

use crate::record;

/// The user of what does not run as root.
pub(crate) const WORKER: Identity = Identity::new("worker", 2500);

/// Where they run.
const DIRECTORY: &str = "/scratch/tmpfs/workloads";
/// The cgroup that selects the subject, and one that selects nothing.
const SELECTED: &str = "guard-bench";
const BESIDE: &str = "guard-bench-beside";
/// Literals that are not about what the programs use.
const LITERALS: usize = 1000;
/// Turns of each configuration.
const TURNS: usize = 2;

/// What is run.
struct Script {
    name: &'static str,
    /// Before everything else, by nobody's subject.
    once: &'static str,
    /// For bash, as root; `timed` does its arguments several times over.
    script: &'static str,
}

const SCRIPTS: &[Script] = &[
    Script { name: "git status, 3 000 files", once: GIT_ONCE, script: GIT },
    Script { name: "cargo build, 2 crates", once: CARGO_ONCE, script: CARGO },
    Script { name: "nginx, 200 requests", once: NGINX_ONCE, script: NGINX },
    Script { name: "pgbench, 300 selects", once: PGBENCH_ONCE, script: PGBENCH },
];

/// What is before every script.
const TIMED: &str = r#"
set -euo pipefail
timed() {
    for number in 1 2 3; do
        local begin=$EPOCHREALTIME
        "$@" > log 2>&1 || { cat log >&2; exit 1; }
        echo "took $begin $EPOCHREALTIME"
    done
}
"#;

const GIT_ONCE: &str = r#"
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
git init -q -b main repository
cd repository
for d in $(seq 60); do
    mkdir -p d$d/e
    for f in $(seq 50); do echo $d $f > d$d/e/f$f; done
done
git add .
git commit -q -m first
"#;
const GIT: &str = r#"
export GIT_CONFIG_GLOBAL=/dev/null GIT_OPTIONAL_LOCKS=0
cd repository
timed git status --short
"#;

const CARGO_ONCE: &str = r#"
mkdir -p crate/src
cat > crate/Cargo.toml <<END
[package]
name = "small"
version = "0.1.0"
edition = "2021"
[profile.dev]
debug = false
END
echo 'pub fn double(number: u64) -> u64 { number * 2 }' > crate/src/lib.rs
echo 'fn main() { println!("{}", small::double(21)); }' > crate/src/main.rs
"#;
const CARGO: &str = r#"
export CARGO_HOME="$PWD/home" RUSTC="${CARGO%/*}/rustc" CARGO_INCREMENTAL=0
cd crate
build() { rm -rf target; "$CARGO" build --quiet --offline; }
timed build
"#;

const NGINX_ONCE: &str = r#"
mkdir -p nginx/www nginx/logs
cd nginx
for page in $(seq 50); do seq $page $((page * 40)) > www/page$page; done
cat > nginx.conf <<END
user root;
worker_processes 1;
error_log $PWD/logs/error;
pid $PWD/nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path $PWD/logs/body;
    proxy_temp_path $PWD/logs/proxy;
    fastcgi_temp_path $PWD/logs/fastcgi;
    uwsgi_temp_path $PWD/logs/uwsgi;
    scgi_temp_path $PWD/logs/scgi;
    server { listen 127.0.0.1:8090; root $PWD/www; }
}
END
"#;
const NGINX: &str = r#"
cd nginx
nginx -p "$PWD" -c nginx.conf -e "$PWD/logs/error"
pid=$(cat nginx.pid)
get() { curl --silent --show-error --no-keepalive --output /dev/null "http://127.0.0.1:8090/page[1-50]?"{1,2,3,4}; }
timed get
nginx -p "$PWD" -c nginx.conf -e "$PWD/logs/error" -s quit
tail --pid="$pid" -f /dev/null
"#;

const PGBENCH_ONCE: &str = r#"
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
mkdir data
chown worker:worker data
as() { setpriv --reuid worker --regid worker --clear-groups env HOME="$PWD/data" "$@"; }
as "$bin/initdb" --no-sync --auth=trust --username=worker data/cluster > initdb.log
as "$bin/pg_ctl" --wait --silent --log=data/server.log --pgdata=data/cluster \
    --options="-c listen_addresses= -c unix_socket_directories=$PWD/data -c fsync=off" start
as "$bin/pgbench" --host="$PWD/data" --username=worker --initialize --quiet --scale=1 postgres 2> init.log
as "$bin/pg_ctl" --wait --silent --pgdata=data/cluster --mode=fast stop
"#;
const PGBENCH: &str = r#"
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
as() { setpriv --reuid worker --regid worker --clear-groups env HOME="$PWD/data" "$@"; }
as "$bin/pg_ctl" --wait --silent --log=data/server.log --pgdata=data/cluster \
    --options="-c listen_addresses= -c unix_socket_directories=$PWD/data -c fsync=off -c autovacuum=off" start
timed as "$bin/pgbench" --host="$PWD/data" --username=worker --select-only --no-vacuum --client=1 \
    --transactions=300 --random-seed=7 postgres
as "$bin/pg_ctl" --wait --silent --pgdata=data/cluster --mode=fast stop
"#;

/// Runs all of them in all configurations.
pub(crate) fn measure(cargo: &Path) -> Result<Vec<record::Workload>> {
    let [selected, beside] = [SELECTED, BESIDE].map(|name| Path::new("/sys/fs/cgroup").join(name));
    for cgroup in [&selected, &beside] {
        fs::create_dir_all(cgroup).context("make a cgroup")?;
    }
    let _ = fs::remove_dir_all(DIRECTORY);
    fs::create_dir_all(DIRECTORY).context("make a directory")?;
    for script in SCRIPTS {
        say(&format!("prepare {}", script.name));
        bash(&beside, &format!("set -eu\n{}", script.once), cargo)
            .with_context(|| format!("prepare {}", script.name))?;
    }
    let mut results: Vec<record::Workload> = SCRIPTS
        .iter()
        .map(|script| record::Workload {
            name: script.name.to_owned(),
            seconds: ["no agent", "unlabelled", "labelled"]
                .map(|name| (name.to_owned(), Vec::new()))
                .to_vec(),
        })
        .collect();
    let mut turn = |configuration: usize, cgroup: &PathBuf| -> Result<()> {
        for (script, result) in SCRIPTS.iter().zip(&mut results) {
            let (name, seconds) = &mut result.seconds[configuration];
            say(&format!("{}, {name}", script.name));
            let output = bash(cgroup, &format!("{TIMED}{}", script.script), cargo)
                .with_context(|| format!("{}, {name}", script.name))?;
            seconds.extend(times(&output));
        }
        Ok(())
    };
    // Without an agent before and after, the others in turns between.
    turn(0, &beside)?;
    let daemon = Daemon::start_apart("workloads", &bundle())?;
    for _ in 0..TURNS {
        turn(1, &beside)?;
        turn(2, &selected)?;
    }
    daemon.stop()?;
    turn(0, &beside)?;
    Ok(results)
}

/// A subject that is permitted everything but to change what is in many directories that are not there.
fn bundle() -> Bundle {
    let others: Vec<String> = (0..LITERALS)
        .map(|number| format!("resource in Guard::Dir::\"/srv/other/{}/{}/data\"", number / 64, number % 64))
        .collect();
    let forbids = others
        .chunks(50)
        .enumerate()
        .map(|(number, terms)| forbid(&format!("other-{number}"), "all", &["mutate"], &terms.join(" || ")));
    let everything =
        "@id(\"everything\")\npermit (principal == Guard::Subject::\"all\", action, resource);\n".to_owned();
    Bundle::new("workloads")
        .toml(&format!("[subjects.all]\nselector = {{ cgroup = \"/{SELECTED}\" }}\ngoverns = [\"*\"]\n"))
        .policy("all", everything + &forbids.collect::<String>())
}

/// Runs a script in a cgroup; its output.
fn bash(cgroup: &Path, script: &str, cargo: &Path) -> Result<String> {
    // The shell that enters the cgroup becomes the one that runs the script, so that there is an exec after it.
    let output = Command::new("/bin/bash")
        .args(["-ec", "echo 0 > \"$0/cgroup.procs\"; exec /bin/bash -c \"$1\""])
        .arg(cgroup)
        .arg(script)
        .current_dir(DIRECTORY)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", DIRECTORY)
        .env("CARGO", cargo)
        .stdin(Stdio::null())
        .output()
        .context("start a shell")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let last: Vec<&str> = said.lines().rev().take(4).collect();
    ensure!(output.status.success(), "{}: {}", output.status, last.join(" | "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The times that a script says it took.
fn times(output: &str) -> impl Iterator<Item = f64> + '_ {
    output.lines().filter_map(|line| {
        let (begin, end) = line.strip_prefix("took ")?.split_once(' ')?;
        Some(end.parse::<f64>().ok()? - begin.parse::<f64>().ok()?)
    })
}

fn say(what: &str) {
    eprintln!("guard-bench: {what}");
}
