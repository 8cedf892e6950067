"""The agent as a child of the demo: started, waited for, listened to, stopped."""

import json
import os
import select
import socket
import subprocess
import threading

# Only what is shown when something is broken depends on these.
START_SECONDS = 300
EVENT_SECONDS = 60


class Failed(Exception):
    """Something did not happen as it must."""


class Guard:
    """guard-agent with its own directories, and the events that it prints."""

    def __init__(self, directory):
        self.directory = directory
        self.socket = f"{directory}/run/admin.sock"
        self.process = None
        self.follower = None
        self.arrived = threading.Condition()
        self.events = []
        self.claimed = set()
        self.lines = []

    def start(self, bundle):
        """Starts it and returns when it says READY=1."""
        config = f"{self.directory}/agent.toml"
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'bundle = {json.dumps(bundle)}\nrun_dir = "run"\nstate_dir = "state"\npins = "none"\n')
        path = f"{self.directory}/notify.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, open(self.log, "wb") as log:
            notify.bind(path)
            self.process = subprocess.Popen(
                ["guard-agent", "run", "--config", config],
                env=dict(os.environ, NOTIFY_SOCKET=path, NO_COLOR="1"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            self.wait_ready(notify)
        threading.Thread(target=self.read_events, daemon=True).start()
        self.follower = subprocess.Popen(
            ["guardctl", "--socket", self.socket, "events", "-f", "-o", "compact"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self.read_lines, daemon=True).start()

    @property
    def log(self):
        return f"{self.directory}/log"

    def wait_ready(self, notify):
        ended = os.pidfd_open(self.process.pid)
        try:
            while True:
                ready, _, _ = select.select([notify, ended], [], [], START_SECONDS)
                if notify in ready:
                    if b"READY=1" in notify.recv(4096).split(b"\n"):
                        return
                elif ended in ready:
                    raise Failed(f"guard-agent ended with {self.process.wait()}:\n{self.log_text()}")
                else:
                    raise Failed(f"guard-agent is not ready after {START_SECONDS} s:\n{self.log_text()}")
        finally:
            os.close(ended)

    def log_text(self):
        """The end of the log: what went wrong is said last."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-10:]).rstrip()

    def read_events(self):
        for line in self.process.stdout:
            event = json.loads(line)
            # The start-up check's own denials have no subject of the policy.
            if event.get("schema") != "guard.event/1" or event["subject"] is None:
                continue
            with self.arrived:
                self.events.append(event)
                self.arrived.notify_all()

    def read_lines(self):
        for line in self.follower.stdout:
            with self.arrived:
                self.lines.append(line.rstrip("\n"))
                self.arrived.notify_all()

    def event(self, subject, action, place):
        """Waits for the denial of this action there, which no earlier step has claimed."""

        def found():
            for index, event in enumerate(self.events):
                if index not in self.claimed and matches(event, subject, action, place):
                    return index
            return None

        with self.arrived:
            if not self.arrived.wait_for(lambda: found() is not None, EVENT_SECONDS):
                seen = "\n".join(json.dumps(event) for event in self.events)
                raise Failed(f"no event says that {subject} was denied {action} {place}; there are:\n{seen}")
            index = found()
            self.claimed.add(index)
            return self.events[index]

    def unclaimed(self):
        """Denials that no step has expected."""
        with self.arrived:
            return [event for index, event in enumerate(self.events) if index not in self.claimed]

    def compact_lines(self):
        """The claimed events as `guardctl events -f` printed them."""
        with self.arrived:
            # Denials of one kind share an id.
            wanted = [self.events[index]["id"] for index in self.claimed]

            def shown():
                return [line for line in self.lines if set(wanted).intersection(line.split())]

            if not self.arrived.wait_for(lambda: len(shown()) == len(wanted), EVENT_SECONDS):
                raise Failed(f"guardctl events -f shows {shown()}, but the denials were {sorted(wanted)}")
            return shown()

    def control(self, *words):
        """Runs guardctl and returns its answer."""
        done = subprocess.run(
            ["guardctl", "--socket", self.socket, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise Failed(f"guardctl {' '.join(words)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout.rstrip()

    def apply(self, directory):
        return self.control("policy", "apply", directory)

    def stop(self):
        for process in (self.follower, self.process):
            if process is not None:
                process.terminate()
                process.wait()


def matches(event, subject, action, place):
    resource = event["resource"]
    address = f"{resource['address']}:{resource['port']}"
    return (
        event["verdict"] == "denied"
        and event["reason"] == "policy"
        and event["errno"] == "EACCES"
        and event["subject"] == subject
        and action in event["actions"]
        and place in (resource["path"], address)
    )
