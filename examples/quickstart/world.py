"""What the demo's service accounts live in: files, servers, and the accounts' programs."""

import grp
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time

from guard import Failed

DEMO = "/srv/guard-demo"
DOCKER = f"{DEMO}/docker.sock"
MARK = f"{DEMO}/.made-by-the-guard-demo"
# User ids of the accounts; the policy's selectors name them.
AGENT, CI = 60101, 60102
# Ports of the model gateway, the git server, nginx, and a service that policy first denies.
GATEWAY, GIT, NGINX, GRANTED = 8801, 8802, 8803, 8809
PERMISSION_DENIED = 13
PROGRAMS = ("git", "curl", "nginx", "setpriv", "guard-agent", "guardctl")
# Programs are taken from where the policy permits them.
PATH = "/usr/sbin:/usr/bin"


def environment(home):
    """Of a service account. It has no entry in /etc/passwd, so git is told its name."""
    name = {"NAME": "guard demo", "EMAIL": "demo@example.com"}
    identity = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in name.items()}
    return {"PATH": PATH, "HOME": home, "LANG": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0", **identity}


def as_user(user, *words):
    return ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", "--", *words]


class Agent:
    """The coding agent's process, see agent.py."""

    def __init__(self):
        self.process = subprocess.Popen(
            as_user(AGENT, "/usr/bin/python3", "-I", f"{DEMO}/agent/agent.py"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=f"{DEMO}/agent",
            env=environment(f"{DEMO}/agent"),
        )
        self.pid = self.process.pid

    def do(self, *request):
        """Error number and text of what it was told to do."""
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise Failed(f"the agent's process ended with {self.process.wait()} at {request}")
        return json.loads(answer)

    def failed(self, *request):
        """What went wrong, or nothing."""
        number, text = self.do(*request)
        return f"errno {number}, {text}" if number else None

    def refused(self, *request):
        """Like `failed`, but only a permission error counts."""
        number, text = self.do(*request)
        if number not in (0, PERMISSION_DENIED):
            raise Failed(f"{request}: expected success or a permission error, got errno {number}: {text}")
        return text if number else None


class World:
    """Files, servers and programs. Nothing here is labelled until Guard runs."""

    def __init__(self):
        self.agent = None
        self.servers = []
        self.processes = []
        self.clones = 0
        self.made = False

    def check(self):
        """Says what is missing before anything is made."""
        if os.geteuid() != 0:
            raise Failed("run this as root: loading BPF programs needs it")
        search = f"{os.environ.get('PATH', '')}:{PATH}"
        missing = [program for program in PROGRAMS if not shutil.which(program, path=search)]
        if missing:
            raise Failed(f"not found: {', '.join(missing)}; on Debian and Ubuntu: apt install git curl nginx util-linux")
        with socket.socket(socket.AF_UNIX) as admin:
            if admin.connect_ex("/run/guard/admin.sock") == 0:
                raise Failed("a Guard agent runs on this host already; stop it first, or use `cargo xtask run --guest`")
        if os.path.exists(DEMO) and not os.path.exists(MARK):
            raise Failed(f"{DEMO} exists and is not this demo's: move it away")

    def start(self):
        self.make_files()
        self.make_repository()
        self.serve()
        self.agent = Agent()
        self.processes.append(self.agent.process)
        self.start_nginx()

    def make_files(self):
        shutil.rmtree(DEMO, ignore_errors=True)
        os.makedirs(DEMO, 0o755)
        self.made = True
        here = os.path.dirname(os.path.realpath(__file__))
        with open(f"{here}/agent.py", encoding="utf-8") as file:
            agent = file.read()
        files = {
            MARK: "",
            f"{DEMO}/agent/agent.py": agent,
            f"{DEMO}/agent/.ssh/id_ed25519": "not a real key\n",
            f"{DEMO}/agent/.env": "TOKEN=not-a-real-token\n",
            f"{DEMO}/ci/README": "work space of the CI job\n",
            f"{DEMO}/www/page": "a page for everybody\n",
            f"{DEMO}/private/page": "a page for nobody\n",
            f"{DEMO}/nginx/nginx.conf": nginx_configuration(),
        }
        for path, text in files.items():
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        for directory, user in (("agent", AGENT), ("ci", CI)):
            for base, directories, names in os.walk(f"{DEMO}/{directory}"):
                for name in [".", *directories, *names]:
                    os.chown(os.path.join(base, name), user, user)

    def make_repository(self):
        """A bare repository that any web server can serve."""
        bare, source = f"{DEMO}/git/repo.git", f"{DEMO}/git/source"
        os.makedirs(source)
        shutil.copy(f"{DEMO}/www/page", source)
        for words in (
            ["init", "-q", source],
            ["-C", source, "add", "."],
            ["-C", source, "commit", "-q", "-m", "first"],
            ["clone", "-q", "--bare", source, bare],
            ["-C", bare, "update-server-info"],
        ):
            subprocess.run(["/usr/bin/git", *words], check=True, env=environment(f"{DEMO}/git"), stdin=subprocess.DEVNULL)

    def serve(self):
        """The servers, in this unlabelled process."""
        for port, directory in ((GIT, f"{DEMO}/git"), (GATEWAY, f"{DEMO}/www"), (GRANTED, f"{DEMO}/www")):
            self.background(http.server.ThreadingHTTPServer(("127.0.0.1", port), handler(directory)))
        self.background(UnixServer(DOCKER, None))
        os.chmod(DOCKER, 0o666)

    def background(self, server):
        self.servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def start_nginx(self):
        server = subprocess.Popen(
            ["/usr/sbin/nginx", "-e", "stderr", "-p", f"{DEMO}/nginx", "-c", f"{DEMO}/nginx/nginx.conf"],
            stdin=subprocess.DEVNULL,
            # It reports the file that it is refused; the demo says so itself.
            stderr=subprocess.DEVNULL,
            env=environment("/"),
        )
        self.processes.append(server)
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", NGINX)) == 0:
                    return
            if server.poll() is not None:
                raise Failed(f"nginx ended with {server.returncode}")
            time.sleep(0.01)

    def clone(self, url):
        """A CI job's git clone. Returns what went wrong, or nothing."""
        self.clones += 1
        target = f"{DEMO}/ci/clone-{self.clones}"
        return self.job("/usr/bin/git", "clone", "-q", url, target)

    def curl(self, port):
        """A CI job's curl. Returns what went wrong, or nothing."""
        return self.job("/usr/bin/curl", "-sS", f"http://127.0.0.1:{port}/")

    def job(self, *words):
        done = subprocess.run(
            as_user(CI, *words),
            cwd=f"{DEMO}/ci",
            env=environment(f"{DEMO}/ci"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return f"exit status {done.returncode}, {done.stderr.strip()}" if done.returncode else None

    def page(self, path):
        """Fetches a page from nginx, which answers 403 to EACCES. Returns what went wrong, or nothing."""
        with socket.create_connection(("127.0.0.1", NGINX)) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = connection.makefile(encoding="utf-8", errors="replace").readline().split()
        status = answer[1] if len(answer) > 1 else "nothing"
        if status not in ("200", "403"):
            raise Failed(f"nginx answered {status} to {path}")
        return "403" if status == "403" else None

    def remove(self):
        for process in self.processes:
            process.terminate()
            process.wait()
        for server in self.servers:
            server.shutdown()
            server.server_close()
        if self.made:
            shutil.rmtree(DEMO, ignore_errors=True)


class UnixServer(http.server.ThreadingHTTPServer):
    """Accepts connections to a unix socket and closes them: nobody talks to this docker."""

    address_family = socket.AF_UNIX

    def server_bind(self):
        self.socket.bind(self.server_address)

    def finish_request(self, request, client_address):
        pass


def handler(directory):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, directory=directory, **options)

        def log_message(self, *_):
            pass

    return Handler


def nginx_configuration():
    group = next((entry.gr_name for entry in grp.getgrall() if entry.gr_name in ("nogroup", "nobody")), "")
    temporary = "".join(
        f"    {kind}_temp_path {DEMO}/nginx/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""daemon off;
user nobody {group};
worker_processes 1;
pid {DEMO}/nginx/pid;
events {{}}
http {{
    access_log off;
{temporary}    server {{
        listen 127.0.0.1:{NGINX};
        root {DEMO}/www;
        location /private/ {{ alias {DEMO}/private/; }}
    }}
}}
"""
