//! The programs whose behaviour is compared, as shell scripts that leave and say the same every time.

use guard_tests::users::Identity;

/// What is run.
pub(crate) struct Workload {
    /// Its name.
    pub(crate) name: &'static str,
    /// For `sh -euc`, as root in an empty [`DIRECTORY`].
    pub(crate) script: &'static str,
}

/// Where workloads run: on a file system that an overlay can be made of.
pub(crate) const DIRECTORY: &str = "/scratch/ext4/interference/work";

/// The user of what does not run as root.
pub(crate) const WORKER: Identity = Identity::new("worker", 2500);

/// All of them.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload { name: "git", script: GIT },
    Workload { name: "cargo build", script: CARGO },
    Workload { name: "nginx under load", script: NGINX },
    Workload { name: "pgbench", script: PGBENCH },
    Workload { name: "stress-ng file", script: STRESS_FILE },
    Workload { name: "stress-ng network", script: STRESS_NETWORK },
    Workload { name: "stress-ng scheduler", script: STRESS_SCHEDULER },
    Workload { name: "overlay container", script: CONTAINER },
];

const GIT: &str = r#"
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
export GIT_AUTHOR_DATE="2024-01-02T03:04:05Z" GIT_COMMITTER_DATE="2024-01-02T03:04:05Z" GIT_CONFIG_GLOBAL=/dev/null
git init -q -b main repository
cd repository
git config pack.threads 1
for d in 1 2 3 4 5 6; do
    mkdir -p d$d/e
    for f in 1 2 3 4 5 6 7 8; do seq $d$f $d${f}00 > d$d/e/f$f; done
done
git add .
git commit -q -m first
git checkout -q -b side
for d in 1 2 3; do echo side >> d$d/e/f1; git mv d$d/e/f2 d$d/moved; done
git commit -q -a -m side
git checkout -q main
rm -r d6
chmod +x d5/e/f1
ln -s d1 link
git add -A
git commit -q -m second
git merge -q -m merged side
git gc -q
git fsck --strict
git clone -q --no-hardlinks . ../clone
git -C ../clone status --short
git log --format=%H
git -C ../clone rev-parse HEAD^{tree}
cd ..
# Times and numbers of inodes are in the index; packs depend on the order in which objects were found.
rm -r repository/.git clone/.git
"#;

const CARGO: &str = r#"
export CARGO_HOME="$PWD/home" RUSTC="${CARGO%/*}/rustc" CARGO_INCREMENTAL=0
mkdir -p crate/src
cat > crate/Cargo.toml <<END
[package]
name = "small"
version = "0.1.0"
edition = "2021"
[profile.dev]
debug = false
END
cat > crate/src/lib.rs <<END
pub fn double(number: u64) -> u64 { number * 2 }
END
cat > crate/src/main.rs <<END
fn main() { println!("{}", small::double(21)); }
END
cd crate
"$CARGO" build --quiet --offline
./target/debug/small
cp target/debug/small ..
rm -r target ../home
"#;

const NGINX: &str = r#"
mkdir www logs
for page in $(seq 50); do seq $page $((page * 40)) > www/page$page; done
cat > nginx.conf <<END
user root;
worker_processes 2;
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
nginx -p "$PWD" -c nginx.conf -e "$PWD/logs/error"
pid=$(cat nginx.pid)
for round in 1 2 3 4; do
    curl --silent --show-error --no-progress-meter --parallel --parallel-max 8 --output "got-$round-#1" "http://127.0.0.1:8090/page[1-50]"
done
curl --silent --output missing --write-out '%{http_code}\n' http://127.0.0.1:8090/missing
cat got-* | cksum
for page in $(seq 50); do cmp www/page$page got-4-$page; done
nginx -p "$PWD" -c nginx.conf -e "$PWD/logs/error" -s quit
tail --pid="$pid" -f /dev/null
grep -o 'open() .* failed' logs/error
rm logs/error
"#;

const PGBENCH: &str = r#"
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
mkdir data
chown worker:worker data
as() { setpriv --reuid worker --regid worker --clear-groups env HOME="$PWD/data" "$@"; }
as "$bin/initdb" --no-sync --auth=trust --username=worker data/cluster > initdb.log
# Where the socket is, and a log whose lines have no times.
as "$bin/pg_ctl" --wait --silent --log=data/server.log --pgdata=data/cluster \
    --options="-c listen_addresses= -c unix_socket_directories=$PWD/data -c fsync=off" start
export PGHOST="$PWD/data" PGUSER=worker PGDATABASE=postgres
as "$bin/pgbench" --initialize --quiet --scale=1 2> init.log
as "$bin/pgbench" --no-vacuum --client=2 --transactions=100 --random-seed=7 > bench.log 2>&1
grep 'number of transactions actually processed' bench.log
as "$bin/psql" --no-psqlrc --tuples-only --no-align \
    --command='select count(*), sum(delta) from pgbench_history' \
    --command='select sum(abalance) from pgbench_accounts' \
    --command='select sum(bbalance) from pgbench_branches'
as "$bin/pg_ctl" --wait --silent --pgdata=data/cluster --mode=fast stop
grep -c -E 'ERROR|FATAL|PANIC' data/server.log || true
rm -r data initdb.log init.log bench.log
"#;

/// What stress-ng finds wrong makes it fail; what it says has times in it. Some of its stressors wait for
/// ever now and then, whoever watches, so it ends after two minutes at the latest.
const STRESS_FILE: &str = r#"
mkdir place
stress-ng --no-rand-seed --temp-path place --verify --oomable --timeout 120 \
    --access 1 --access-ops 10 --chmod 1 --chmod-ops 30 --copy-file 1 --copy-file-ops 4 --copy-file-bytes 128m \
    --dentry 1 --dentry-ops 64 --dentries 32 --fallocate 1 --fallocate-ops 5 --fallocate-bytes 1m \
    --flock 1 --flock-ops 50 --fstat 1 --fstat-ops 20 --lease 1 --lease-ops 20 \
    --locka 1 --locka-ops 50 --rename 1 --rename-ops 50 --seek 1 --seek-ops 20 --seek-size 1m \
    --touch 1 --touch-ops 50 --utime 1 --utime-ops 50 \
    > log 2>&1 || { cat log; exit 1; }
grep -c 'successful run completed' log
rm log
"#;

const STRESS_NETWORK: &str = r#"
mkdir place
stress-ng --no-rand-seed --temp-path place --verify --oomable --timeout 120 \
    --epoll 1 --epoll-ops 50 --netlink-proc 1 --netlink-proc-ops 20 --sock 1 --sock-ops 50 --sockabuse 1 --sockabuse-ops 10 \
    --sockdiag 1 --sockdiag-ops 50 --sockfd 1 --sockfd-ops 50 --sockpair 1 --sockpair-ops 50 \
    --udp 1 --udp-ops 50 --udp-flood 1 --udp-flood-ops 200 \
    > log 2>&1 || { cat log; exit 1; }
grep -c 'successful run completed' log
rm log
"#;

/// Without `sem` and `yield`: both can wait for ever for children that have ended, whoever watches. Without `mutex`, which
/// mostly finds no room for its threads beside the others.
const STRESS_SCHEDULER: &str = r#"
mkdir place
stress-ng --no-rand-seed --temp-path place --verify --oomable --timeout 120 \
    --affinity 1 --affinity-ops 50 --clone 1 --clone-ops 100 --exec 1 --exec-ops 20 --fork 1 --fork-ops 200 \
    --futex 1 --futex-ops 200 --mq 1 --mq-ops 200 --pipe 1 --pipe-ops 200 --poll 1 --poll-ops 20 \
    --pthread 1 --pthread-ops 100 --schedpolicy 1 --schedpolicy-ops 50 --sem-sysv 1 --sem-sysv-ops 200 \
    --sleep 1 --sleep-ops 20 --switch 1 --switch-ops 200 --vfork 1 --vfork-ops 200 --wait 1 --wait-ops 20 \
    --zombie 1 --zombie-ops 50 \
    > log 2>&1 || { cat log; exit 1; }
grep -c 'successful run completed' log
rm log
"#;

const CONTAINER: &str = r#"
mkdir -p lower/bin lower/etc lower/proc lower/dev lower/tmp upper work merged bundle
cp "$(readlink -f "$(command -v busybox)")" lower/bin/busybox
for file in 1 2 3 4 5; do seq $file $file$file > lower/etc/file$file; done
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
trap 'umount merged' EXIT
cat > bundle/config.json <<END
{
  "ociVersion": "1.0.0",
  "process": {
    "terminal": false, "user": { "uid": 0, "gid": 0 }, "cwd": "/", "env": ["PATH=/bin"],
    "args": ["/bin/busybox", "sh", "-euc",
      "busybox mv /etc/file1 /etc/moved; busybox rm /etc/file2; echo more >> /etc/file3; busybox chmod 600 /etc/file4; busybox ln /etc/file5 /etc/linked; busybox mkdir /etc/new; busybox ln -s /etc/new /etc/link; busybox mkdir /etc/bin; busybox cp /bin/busybox /etc/bin/busybox; /etc/bin/busybox true; busybox ls -R /etc; echo x > /tmp/x; busybox cat /tmp/x; busybox test \$\$ = 1"]
  },
  "root": { "path": "$PWD/merged", "readonly": false },
  "hostname": "box",
  "mounts": [
    { "destination": "/proc", "type": "proc", "source": "proc" },
    { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
    { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"] }
  ],
  "linux": { "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" }] }
}
END
crun --root "$PWD/state" --cgroup-manager=disabled run --bundle bundle box
trap - EXIT
umount merged
rm -r work state
"#;
