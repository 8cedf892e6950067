"""Stands for an AI coding agent: a Python process that does what it is told, one line of JSON at a time.

It answers every request with the error number and text of what happened; 0 is success.
"""

import json
import os
import socket
import subprocess
import sys


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def link(target, path):
    os.symlink(target, path)


def run(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise OSError(255, f"{words[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def connect(host, port):
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with connection.makefile(encoding="utf-8", errors="replace") as answer:
            return answer.read()


def unix(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


VERBS = {verb.__name__: verb for verb in (read, write, link, run, connect, unix)}

for line in sys.stdin:
    verb, *arguments = json.loads(line)
    try:
        answer = [0, VERBS[verb](*arguments) or ""]
    except OSError as error:
        answer = [error.errno or 255, error.strerror or str(error)]
    print(json.dumps(answer), flush=True)
