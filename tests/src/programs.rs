//! Real programs doing real work: git, Python, curl, nginx.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::bundle::{Bundle, one_of, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout::{self, path, which};
use crate::nginx;
use crate::users::{AGENT, CI, ROOT};

pub(crate) const PART: Part = Part {
    name: "programs",
    bundle,
    prepare,
    tests: tests!(
        others: [
            git_clones_over_http_where_it_may,
            git_clones_by_the_smart_protocol_where_it_may,
            curl_is_refused_to_the_ci_job,
            an_agent_runs_git_and_python_in_its_work_tree,
            an_agent_is_refused_keys_and_accounts,
            an_agent_is_refused_keys_through_links_and_children,
            an_agent_is_refused_keys_through_mounts_renames_and_set_user_id,
            an_agent_is_refused_other_programs_sockets_and_addresses,
            nginx_serves_one_tree_and_not_another,
        ],
    ),
};

/// Port of the git server.
const GIT: u16 = 7010;
const WORK: &str = "/srv/gt/work";
const KEY: &str = "/home/agent/.ssh/id_ed25519";

fn prepare() -> Result<()> {
    layout::create()?;
    layout::empty_directory(Path::new(WORK))?;
    layout::directory(Path::new("/srv/gt/ci"))?;
    layout::file(Path::new(KEY), b"a key\n")?;
    layout::mode(Path::new("/etc/shadow"), 0o644)?;
    make_repository()?;
    nginx::prepare()
}

/// A repository that a plain HTTP server can serve.
fn make_repository() -> Result<()> {
    let repository = path("git/project.git");
    if repository.exists() {
        return Ok(());
    }
    let source = path("git/source");
    layout::file(&source.join("README"), b"a project\n")?;
    let (source, bare) = (source.display().to_string(), repository.display().to_string());
    let author = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
    layout::run("git", &["init", "-q", &source])?;
    layout::run("git", &["-C", &source, "add", "."])?;
    layout::run("git", &[&["-C", &source][..], &author, &["commit", "-q", "-m", "first"]].concat())?;
    layout::run("git", &["clone", "-q", "--bare", &source, &bare])?;
    layout::run("git", &["-C", &bare, "update-server-info"])?;
    // What only speaks the smart protocol hands out no files.
    let smart = path("smart/project.git").display().to_string();
    layout::directory(&path("smart"))?;
    layout::run("git", &["clone", "-q", "--bare", &source, &smart])?;
    layout::run("git", &["-C", &smart, "config", "http.getanyfile", "false"])
}

/// Where git keeps its parts.
fn git_core() -> Result<PathBuf> {
    let output = Command::new("git").arg("--exec-path").output().context("start git")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Path::new(&text).canonicalize().with_context(|| format!("resolve {text}"))
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let git = [which("git")?];
    let sh = [which("sh")?];
    let python = [which("python3")?];
    let core = within(&[git_core()?]);
    let system = within(&["/usr"]);
    let accounts =
        one_of(&["/etc/passwd", "/etc/group", "/etc/gitconfig", "/etc/localtime", "/etc/mime.types"]);
    let mut policy = String::new();
    for (subject, tree) in [("coder", WORK), ("ci", "/srv/gt/ci")] {
        policy += &permit(&format!("{subject}-tree"), subject, &["file.*", "exec.*"], &within(&[tree]));
        policy += &permit(&format!("{subject}-system"), subject, &["read", "exec.map"], &system);
        policy += &permit(&format!("{subject}-accounts"), subject, &["file.read"], &accounts);
        policy +=
            &permit(&format!("{subject}-git"), subject, &["exec"], &format!("{} || {core}", one_of(&git)));
        policy += &permit(&format!("{subject}-sh"), subject, &["exec"], &one_of(&sh));
    }
    policy += &permit("coder-python", "coder", &["exec"], &one_of(&python));
    policy += &permit("coder-memory", "coder", &["exec.map"], "resource == Guard::Memory::\"anonymous\"");
    let server = format!("resource in Guard::Net::\"127.0.0.1/32\" && resource.port == {GIT}");
    policy += &permit("ci-server", "ci", &["net.connect"], &server);
    policy += &permit("coder-gateway", "coder", &["net.connect"], &server);
    // What is mounted, by whomever, changes nothing about the key: mounting itself is not what is refused.
    policy += &permit("coder-mounts", "coder", &["sys.mount", "sys.userns", "sys.cap"], "true");
    let bundle = bundle.subject("coder", "user = \"agent\"").subject("ci", "user = \"ci\"");
    Ok(nginx::add(bundle.policy("programs", policy), &format!("exe = \"{}\"", which("nginx")?.display())))
}

/// The agent of this family: another subject for the same user.
const CODER: crate::users::Identity = AGENT.becoming("coder");

/// A process that ends with the value.
pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // The whole group: a server's workers would go on without it.
        let group = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts a server and waits until something listens on its port.
    pub(crate) fn start(command: &mut Command, port: u16) -> Result<Self> {
        let mut server =
            Self(command.process_group(0).spawn().with_context(|| format!("start {command:?}"))?);
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.0.try_wait().context("look at the server")? {
                bail!("{command:?} ended with {status}");
            }
            ensure!(Instant::now() < deadline, "{command:?} does not listen on port {port}");
            std::thread::yield_now();
        }
        Ok(server)
    }
}

fn git_server() -> Result<Server> {
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", "0.0.0.0", &GIT.to_string(), "--directory"]);
    Server::start(command.arg(path("git")).stdout(Stdio::null()).stderr(Stdio::null()), GIT)
}

/// The same repository by the smart protocol only.
fn smart_git_server() -> Result<Server> {
    let mut command = Command::new("python3");
    command.args(["-c", include_str!("git_http.py")]).arg(path("smart")).arg(GIT.to_string());
    Server::start(command.stdout(Stdio::null()).stderr(Stdio::null()), GIT)
}

/// Runs a program as it would be run in a work tree; EACCES if it says that permission was denied.
fn run(program: &str, arguments: &[&str], directory: &str) -> io::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .output()?;
    let message = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // What git says of a connection that was refused by the kernel.
    let denied = ["permission denied", "couldn't connect to server"];
    if denied.iter().any(|words| message.to_lowercase().contains(words)) {
        return Err(nix::errno::Errno::EACCES.into());
    }
    Err(io::Error::other(format!("{program}: {}: {message}", output.status)))
}

fn clone(address: &str, directory: &str) -> io::Result<()> {
    let target = Path::new(directory).join(format!("clone-{}", std::process::id()));
    let url = format!("http://{address}:{GIT}/project.git");
    run("git", &["clone", "-q", &url, &target.display().to_string()], directory)?;
    fs::read(target.join("README"))?;
    run("git", &["-C", &target.display().to_string(), "status", "--short"], directory)?;
    fs::remove_dir_all(target)
}

fn git_clones_over_http_where_it_may(case: &Case<'_>) -> Result<()> {
    let _server = git_server()?;
    clones_where_it_may(case)
}

fn git_clones_by_the_smart_protocol_where_it_may(case: &Case<'_>) -> Result<()> {
    let _server = smart_git_server()?;
    let files = exchange(GIT, "GET /project.git/HEAD HTTP/1.0\r\n\r\n").context("ask for a file")?;
    ensure!(files.starts_with("HTTP/1.0 403"), "the server hands out files: {files}");
    clones_where_it_may(case)
}

fn clones_where_it_may(case: &Case<'_>) -> Result<()> {
    case.allowed(CI, || clone("127.0.0.1", "/srv/gt/ci"))?;
    let refused = refusal(CI, "net.connect").at(format!("127.0.0.2:{GIT}"));
    case.refused(refused, || clone("127.0.0.2", "/srv/gt/ci"))
}

fn curl_is_refused_to_the_ci_job(case: &Case<'_>) -> Result<()> {
    let _server = git_server()?;
    let url = format!("http://127.0.0.1:{GIT}/project.git/HEAD");
    let refused = refusal(CI, "exec").at("bin/curl");
    case.refused(refused, || run("curl", &["-sSf", &url], "/srv/gt/ci").map(drop))
}

/// Runs Python code; the errno of an OSError that ends it is the result.
fn python(code: &str) -> io::Result<()> {
    let indented: Vec<String> = code.lines().map(|line| format!("    {line}")).collect();
    let wrapped = format!(
        "import os, socket, subprocess, sys\nos.environ.update(HOME='{WORK}', GIT_CONFIG_NOSYSTEM='1')\ntry:\n{}\n\
         except OSError as error:\n    sys.exit(error.errno)\nexcept Exception as error:\n    print(error, file=sys.stderr)\n    sys.exit(255)\n",
        indented.join("\n")
    );
    let status = Command::new("python3").args(["-ISc", &wrapped]).current_dir(WORK).status()?;
    crate::step::result(status)
}

fn an_agent_runs_git_and_python_in_its_work_tree(case: &Case<'_>) -> Result<()> {
    case.allowed(CODER, || {
        let tree = format!("{WORK}/tree-{}", std::process::id());
        python(&format!(
            "def run(*words): subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
run('git', 'init', '-q', '{tree}')
open('{tree}/main.py', 'w').write('print(6 * 7)')
run('git', '-C', '{tree}', 'add', '.')
run('git', '-C', '{tree}', '-c', 'user.name=a', '-c', 'user.email=a@example.com', 'commit', '-q', '-m', 'first')
output = subprocess.run([sys.executable, '{tree}/main.py'], check=True, capture_output=True).stdout
assert output == b'42\\n', output"
        ))
    })
}

fn an_agent_is_refused_keys_and_accounts(case: &Case<'_>) -> Result<()> {
    for file in [KEY, "/etc/shadow"] {
        let code = format!("open('{file}').read()");
        case.refused(refusal(CODER, "file.read").at(file), || python(&code)).context(file)?;
    }
    case.allowed(CODER, || python("open('/etc/passwd').read()"))
}

fn an_agent_is_refused_keys_through_links_and_children(case: &Case<'_>) -> Result<()> {
    let script = Path::new(WORK).join("script.py");
    let python3 = which("python3")?;
    let code = format!(
        "#!{} -IS\nimport sys\ntry: open('{KEY}')\nexcept OSError as e: sys.exit(e.errno)\n",
        python3.display()
    );
    layout::program(&script, code.as_bytes())?;
    let ways = [
        (
            "a symbolic link",
            format!("link = f'link-{{os.getpid()}}'\nos.symlink('{KEY}', link)\nopen(link).read()"),
        ),
        ("/proc/self/root", format!("open('/proc/self/root{KEY}').read()")),
        (
            "a child",
            format!(
                "sys.exit(subprocess.run([sys.executable, '-ISc', 'import sys\\ntry: open(\"{KEY}\")\\nexcept OSError as e: sys.exit(e.errno)']).returncode)"
            ),
        ),
        ("a script", format!("sys.exit(subprocess.run(['{}']).returncode)", script.display())),
        (
            "a new session",
            format!(
                "if os.fork() == 0:\n    os.setsid()\n    try: open('{KEY}')\n    except OSError as e: os._exit(e.errno)\n    os._exit(0)\nsys.exit(os.waitstatus_to_exitcode(os.wait()[1]))"
            ),
        ),
        (
            "git",
            format!(
                "done = subprocess.run(['git', 'hash-object', '{KEY}'], capture_output=True)\nsys.exit(13 if done.returncode and b'Permission denied' in done.stderr else done.returncode)"
            ),
        ),
    ];
    for (way, code) in ways {
        case.refused(refusal(CODER, "file.read").at(KEY), || python(&code)).context(way)?;
    }
    Ok(())
}

/// Python that makes an own user and mount namespace and then mounts something.
fn mounting(source: &str, target: &str, kind: &str, flags: u32, data: &str) -> String {
    format!(
        "import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
    if result: raise Exception(os.strerror(ctypes.get_errno()))
os.makedirs('{target}', exist_ok=True)
must(libc.unshare(0x10020000))
must(libc.mount(b'{source}', b'{target}', b'{kind}', {flags}, b'{data}'))\n"
    )
}

fn an_agent_is_refused_keys_through_mounts_renames_and_set_user_id(case: &Case<'_>) -> Result<()> {
    const BIND: u32 = 4096;
    let directory = Path::new(KEY).parent().context("the key's directory")?;
    let (ssh, home) = (directory.display(), "/home/agent");
    // Made by an administrator: another name of the key, where the agent has no rights either.
    let link = format!("{home}/key-backup");
    let _ = fs::remove_file(&link);
    fs::hard_link(KEY, &link).context("make a hard link")?;
    let helper = Path::new(WORK).join("helper");
    layout::program(&helper, &fs::read("/proc/self/exe").context("read this program")?)?;
    layout::mode(&helper, 0o4755)?;
    let (bound, merged) = (format!("{WORK}/bound"), format!("{WORK}/merged"));
    let bind = mounting(&ssh.to_string(), &bound, "none", BIND, "");
    let overlay = mounting("overlay", &merged, "overlay", 0, &format!("lowerdir={ssh}:{WORK}"));
    let tmpfs = mounting("none", &bound, "tmpfs", 0, "");
    let ways = [
        ("a hard link", link.as_str(), format!("open('{link}').read()")),
        ("a bind mount", KEY, format!("{bind}open('{bound}/id_ed25519').read()")),
        ("an overlay", "id_ed25519", format!("{overlay}open('{merged}/id_ed25519').read()")),
        ("a new mount", "", format!("{tmpfs}os.listdir('{bound}')")),
        (
            "a set-user-id helper",
            KEY,
            format!("sys.exit(subprocess.run(['{}', 'step', 'read', '{KEY}']).returncode)", helper.display()),
        ),
    ];
    for (way, place, code) in ways {
        let action = if way == "a new mount" { "dir.list" } else { "file.read" };
        case.refused(refusal(CODER, action).at(place), || python(&code)).context(way)?;
    }
    let renamed = format!("{home}/keys");
    fs::rename(directory, &renamed).context("rename the directory")?;
    let code = format!("open('{renamed}/id_ed25519').read()");
    let place = "agent/keys/id_ed25519";
    let result = case.refused(refusal(CODER, "file.read").at(place), || python(&code));
    fs::rename(&renamed, directory).context("rename it back")?;
    result.context("a renamed directory")
}

fn an_agent_is_refused_other_programs_sockets_and_addresses(case: &Case<'_>) -> Result<()> {
    let _server = git_server()?;
    case.refused(refusal(CODER, "exec").at("bin/curl"), || {
        python("subprocess.run(['curl', '--version'], stdout=subprocess.DEVNULL)")
    })?;
    let socket = "/run/guard-tests-docker.sock";
    let _ = fs::remove_file(socket);
    let listener = std::os::unix::net::UnixListener::bind(socket).context("listen")?;
    layout::mode(Path::new(socket), 0o666)?;
    let unix = format!("socket.socket(socket.AF_UNIX).connect('{socket}')");
    case.refused(refusal(CODER, "unix.connect").at("guard-tests-docker.sock"), || python(&unix))?;
    drop(listener);
    let connect = |address: &str| {
        format!("socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('{address}', {GIT}))")
    };
    let (good, bad) = (connect("127.0.0.1"), connect("127.9.9.9"));
    case.refused(refusal(CODER, "net.connect").at(format!("127.9.9.9:{GIT}")), || python(&bad))?;
    case.allowed(CODER, || python(&good))
}

fn nginx_serves_one_tree_and_not_another(case: &Case<'_>) -> Result<()> {
    let mut command = Command::new("nginx");
    command.args(["-g", "daemon off;", "-c"]).arg(nginx::configuration());
    let server = Server::start(command.stdin(Stdio::null()), nginx::PORT)?;
    let web = ROOT.becoming("web");
    case.allowed(web, || nginx::get("/good/page"))?;
    case.refused(refusal(web, "file.read").at("www/bad/page").only_labelled(), || nginx::get("/bad/page"))?;
    drop(server);
    Ok(())
}

/// Reads what a server sends until it closes the connection.
pub(crate) fn exchange(port: u16, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
