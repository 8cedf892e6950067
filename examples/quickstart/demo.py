#!/usr/bin/env python3
"""Guard at work: three service accounts, what they may do, what they may not, and a change of policy.

Needs root, guard-agent and guardctl on PATH, git, curl and nginx. `cargo xtask run` calls it in the
right place. Everything it makes is below /srv/guard-demo and in one temporary directory, and is
removed at the end. Every step states what must happen; if something else does, the exit status is 1.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile

# Nothing of this demo stays behind, byte code included.
sys.dont_write_bytecode = True

from guard import Failed, Guard
from world import AGENT, CI, DEMO, DOCKER, GATEWAY, GIT, GRANTED, PATH, World

POLICY = os.path.join(os.path.dirname(os.path.realpath(__file__)), "policy")
HOME = f"{DEMO}/agent"
KEY = f"{HOME}/.ssh/id_ed25519"
CLONE_URL = f"http://127.0.0.1:{GIT}/repo.git"

GRANT = f"""
@id("granted-live") @reason("added while the agent runs")
permit (principal == Guard::Subject::"ai-coder", action == Guard::Action::"net.connect",
        resource in Guard::Net::"127.0.0.1/32")
when {{ resource.port == {GRANTED} && resource.protocol == "tcp" }};
"""

COLOURS = {"allowed": "32", "works": "36", "DENIED": "31"}
IS_COLOURED = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def say(text=""):
    print(text, flush=True)


def title(text):
    say(f"\n{text}")


def step(verdict, who, action, what, event=None):
    """One line that says what happened."""
    word = f"{verdict:7}"
    if IS_COLOURED:
        word = f"\x1b[{COLOURS[verdict]}m{word}\x1b[0m"
    tail = f"  {event['errno']}  event {event['id']}" if event else ""
    say(f"  {word}  {who:8}  {action:12}  {what}{tail}")


class Demo:
    """The steps. `guard` is None as long as nothing enforces."""

    def __init__(self, world):
        self.world = world
        self.guard = None

    def allowed(self, who, action, what, attempt):
        """`attempt` returns what went wrong, or nothing."""
        wrong = attempt()
        if wrong:
            raise Failed(f"{who} must be able to {action} {what}, but: {wrong}")
        step("allowed" if self.guard else "works", who, action, what)

    def denied(self, who, action, what, attempt, place=None):
        """Without Guard the attempt must work; with it, it must fail, and an event must say so."""
        if self.guard is None:
            self.allowed(who, action, what, attempt)
            return
        if not attempt():
            raise Failed(f"{who} must not be able to {action} {what}, but it worked")
        step("DENIED", who, action, what, self.guard.event(who, action, place or what))

    def forbidden_things(self):
        """What works without Guard and must not work with it."""
        agent, world = self.world.agent, self.world
        secret = f"{HOME}/.env"
        link = f"{HOME}/notes-{'after' if self.guard else 'before'}.txt"
        agent.do("link", KEY, link)
        self.denied("ai-coder", "file.read", KEY, lambda: agent.refused("read", KEY))
        self.denied("ai-coder", "file.read", f"{link} (a link to it)", lambda: agent.refused("read", link), KEY)
        self.denied("ai-coder", "file.read", secret, lambda: agent.refused("read", secret))
        curl = "/usr/bin/curl"
        self.denied("ai-coder", "exec", curl, lambda: agent.refused("run", curl, "--version"))
        self.denied("ai-coder", "unix.connect", DOCKER, lambda: agent.refused("unix", DOCKER))
        self.try_granted_port()
        gateway = f"127.0.0.1:{GATEWAY}"
        self.denied("ci-job", "net.connect", f"{gateway} (curl)", lambda: world.curl(GATEWAY), gateway)
        private = f"{DEMO}/private/page"
        self.denied("nginx", "file.read", private, lambda: world.page("/private/page"))

    def try_granted_port(self):
        """The connection that the first policy denies and the second one permits."""
        agent = self.world.agent
        self.denied(
            "ai-coder",
            "net.connect",
            f"127.0.0.1:{GRANTED}",
            lambda: agent.refused("connect", "127.0.0.1", GRANTED),
        )

    def permitted_things(self):
        """What the service accounts are there for."""
        agent, world = self.world.agent, self.world
        script, tree = f"{HOME}/answer.py", f"{HOME}/project"
        self.allowed("ai-coder", "file.write", script, lambda: agent.failed("write", script, "print(6 * 7)\n"))
        self.allowed("ai-coder", "exec", "python3 answer.py", lambda: agent.failed("run", "/usr/bin/python3", script))
        self.allowed("ai-coder", "exec", "git init, add, commit", lambda: self.commit(tree, script))
        gateway = lambda: agent.failed("connect", "127.0.0.1", GATEWAY)
        self.allowed("ai-coder", "net.connect", f"127.0.0.1:{GATEWAY} (model gateway)", gateway)
        self.allowed("ci-job", "exec", f"git clone {CLONE_URL}", lambda: world.clone(CLONE_URL))
        self.allowed("ci-job", "net.connect", f"127.0.0.1:{GIT} (curl)", lambda: world.curl(GIT))
        self.allowed("nginx", "file.read", f"{DEMO}/www/page", lambda: world.page("/page"))

    def commit(self, tree, script):
        git = ["run", "/usr/bin/git", "-C", tree]
        return (
            self.world.agent.failed("run", "/usr/bin/git", "init", "-q", tree)
            or self.world.agent.failed("write", f"{tree}/answer.py", "print(6 * 7)\n")
            or self.world.agent.failed(*git, "add", ".")
            or self.world.agent.failed(*git, "commit", "-q", "-m", "first")
        )

    def change_policy(self, directory):
        """Permits one connection more, then takes it back; the same process asks each time."""
        agent = self.world.agent
        target = f"127.0.0.1:{GRANTED}"
        self.try_granted_port()
        say(f"  {self.guard.apply(directory)}")
        self.allowed("ai-coder", "net.connect", target, lambda: agent.failed("connect", "127.0.0.1", GRANTED))
        say(f"  {self.guard.apply(POLICY)}")
        self.try_granted_port()


def second_policy(directory):
    """A copy of the bundle with one permit more."""
    shutil.copytree(POLICY, directory)
    with open(f"{directory}/ai-coder.cedar", "a", encoding="utf-8") as file:
        file.write(GRANT)
    manifest = f"{directory}/guard.toml"
    with open(manifest, encoding="utf-8") as file:
        text = file.read()
    with open(manifest, "w", encoding="utf-8") as file:
        file.write(text.replace("version = 1\n", "version = 2\n", 1))


def shell(guard, directory):
    """A shell in which Guard goes on enforcing."""
    rc = f"{directory}/bashrc"
    with open(rc, "w", encoding="utf-8") as file:
        file.write(
            "PS1='guard demo # '\n"
            # From setpriv on it is the account's label, so everything else comes first.
            f"as() {{ (cd {DEMO}/$2 && HOME=$PWD PATH={PATH} exec setpriv --reuid $1 --regid $1 --clear-groups \"${{@:3}}\"); }}\n"
            f"ai-coder() {{ as {AGENT} agent \"$@\"; }}\n"
            f"ci-job() {{ as {CI} ci \"$@\"; }}\n"
        )
    title("Guard goes on enforcing until you leave this shell. Try:")
    hints = {
        "guardctl events -f &": "denials as they happen, from now on",
        "ai-coder python3 -c 'open(\".env\")'": "refused: secrets are never read",
        "ai-coder git -C project status": "permitted",
        f"ci-job curl 127.0.0.1:{GATEWAY}": "refused: the model gateway is for the agent",
        f"cp -r {POLICY} mine": "a policy of your own: edit mine/*.cedar, then",
        "guardctl policy apply mine": "it counts at the next system call",
    }
    width = max(map(len, hints))
    for command, meaning in hints.items():
        say(f"  {command:{width}}  {meaning}")
    say()
    environment = dict(os.environ, GUARD_SOCKET=guard.socket)
    subprocess.run(["bash", "--rcfile", rc, "-i"], env=environment, cwd=directory)


def play(world, guard, directory):
    demo = Demo(world)
    world.start()
    title("Without Guard, each of these works:")
    demo.forbidden_things()
    title("Starting guard-agent; the programs above keep running and get their labels.")
    guard.start(POLICY)
    say("  ready: the kernel was seen to deny")
    demo.guard = guard
    title("With Guard, the service accounts do their work:")
    demo.permitted_things()
    title("and nothing else:")
    demo.forbidden_things()
    title("The same denials, as `guardctl events -f` shows them:")
    for line in guard.compact_lines():
        say(f"  {line}")
    title(f"The policy changes while the agent's process {world.agent.pid} runs; its next system call sees it:")
    second_policy(f"{directory}/second-policy")
    demo.change_policy(f"{directory}/second-policy")
    title("guardctl status")
    say("\n".join(f"  {line}".rstrip() for line in guard.control("status").splitlines()))
    for event in guard.unclaimed():
        resource = event["resource"]
        what = resource["path"] or resource["fs_path"] or resource["address"] or resource["builtin"]
        say(f"  note: also denied: {event['subject']} {'+'.join(event['actions'])} {what} by {event['comm']}")
    if sys.stdin.isatty():
        shell(guard, directory)
    else:
        say("\nEverything happened as it must.")


def main():
    # An end from outside cleans up as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = tempfile.mkdtemp(prefix="guard-demo-")
    world, guard = World(), Guard(directory)
    try:
        world.check()
        play(world, guard, directory)
        return 0
    except Failed as failure:
        print(f"demo: {failure}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        guard.stop()
        world.remove()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
