"""Whole programs on the uvloop reactor: others' servers, and processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.integration.servers import ROOT
from tests.reactors.tools import need_uvloop

TWISTD = [str(Path(sys.executable).with_name("twistd")), "--pidfile=", "--nodaemon"]

CHILDREN = """
from sockserve.reactors import uvloop
uvloop.install()
import asyncio
from twisted.internet import defer, reactor, task, utils

async def asyncios():
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec("sh", "-c", "sleep 0.1; echo b", stdout=pipe)
    return (await child.communicate())[0]

async def main(reactor):
    print(await utils.getProcessOutput("/bin/echo", ["a"]))
    slow = utils.getProcessOutput("/bin/sh", ["-c", "sleep 0.2; echo c"])
    print(await defer.Deferred.fromFuture(reactor._asyncioEventloop.create_task(asyncios())))
    print(await slow)
    print(await utils.getProcessOutput("/bin/echo", ["d"]))

task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""


LAST_ANSWER = """
import importlib, socket, sys, threading
importlib.import_module(sys.argv[1]).install()
from twisted.internet import reactor
from sockserve.http import HTTPRequestHandler
from sockserve.service import RequestService

class Last(HTTPRequestHandler):
    async def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the last")
        reactor.stop()

def ask():
    with socket.create_connection(service.server.server_address) as client:
        client.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        print(client.makefile().read().splitlines()[-1])

service = RequestService.from_description(reactor, "tcp:0:interface=127.0.0.1", Last)
service.privilegedStartService()
service.startService()
client = threading.Thread(target=ask)
client.start()
reactor.run()
client.join()
"""


#: A line comes in time while a handler keeps the reactor from its turns until that time is over.
IN_TIME = """
import importlib, socket, sys, threading, time
importlib.import_module(sys.argv[1]).install()
from twisted.internet import reactor
from sockserve import Deadlines, StreamRequestHandler
from sockserve.service import RequestService

keeps, goes_on = threading.Event(), threading.Event()

class Echo(StreamRequestHandler):
    async def handle(self):
        async for line in self.rfile:
            if line == b"keep\\n":
                keeps.set()
                goes_on.wait()
            self.wfile.write(line)

def connect():
    client = socket.create_connection(service.server.server_address, 60)
    assert ask(client, b"hello\\n") == b"hello\\n"
    return client

def ask(client, line):
    client.sendall(line)
    return client.recv(100)

def talk():
    try:
        silent, keeping, prompt = connect(), connect(), connect()
        keeping.sendall(b"keep\\n")
        keeps.wait()
        prompt.sendall(b"in time\\n")
        time.sleep(2.5)
        goes_on.set()
        print(prompt.recv(100), keeping.recv(100), silent.recv(100))
    finally:
        reactor.callFromThread(reactor.stop)

where, deadlines = "tcp:0:interface=127.0.0.1", Deadlines(idle=2)
service = RequestService.from_description(reactor, where, Echo, deadlines=deadlines)
service.privilegedStartService()
service.startService()
client = threading.Thread(target=talk)
client.start()
reactor.run()
client.join()
"""

REACTORS = pytest.mark.parametrize(
    "module",
    [
        "sockserve.reactors.uvloop",
        "twisted.internet.asyncioreactor",
        "twisted.internet.epollreactor",
    ],
)


@REACTORS
def test_what_came_in_time_counts_though_the_reactor_was_kept_from_its_turns(module: str) -> None:
    need_uvloop()
    command = [sys.executable, "-W", "ignore", "-c", IN_TIME, module]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == r"b'in time\n' b'keep\n' b''" + "\n", done.stderr


@REACTORS
def test_an_answer_leaves_though_its_handler_stops_the_reactor(module: str) -> None:
    need_uvloop()
    command = [sys.executable, "-c", LAST_ANSWER, module]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("the last\n", "")


def test_twistd_serves_twisted_web(tmp_path: Path) -> None:
    need_uvloop()
    (tmp_path / "page.txt").write_text("a page")
    command = [*TWISTD, "--reactor=uvloop", "web", "--listen=tcp:0:interface=127.0.0.1"]
    with subprocess.Popen(
        [*command, f"--path={tmp_path}"], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as twistd:
        try:
            assert twistd.stdout is not None
            log = ""
            while (starting := re.search(r"Site starting on (\d+)", log)) is None:
                log += (line := twistd.stdout.readline())
                assert line, log
            with urllib.request.urlopen(f"http://127.0.0.1:{starting[1]}/page.txt") as page:
                assert page.read() == b"a page"
        finally:
            twistd.send_signal(signal.SIGTERM)
        log += twistd.stdout.read()
    assert "reactor class: sockserve.reactors.uvloop.UVLoopReactor" in log
    assert "Main loop terminated" in log
    assert "Traceback" not in log


def test_without_uvloop_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError('not here')")
    done = subprocess.run(
        [*TWISTD, "--reactor=uvloop", "web"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "it needs uvloop: pip install 'sockserve[uvloop]'" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_twisteds_children_end_beside_asyncios() -> None:
    need_uvloop()
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == [repr(f"{letter}\n".encode()) for letter in "abcd"]
    assert done.stderr == ""
