"""
Clients whose network is switched off under them: C{python -m tests.integration.half_open}, in a
network namespace of its own.  It prints, in order, what each kind of handler came to.
"""

import socketserver
import subprocess
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater, react

from sockserve import Deadlines, StreamRequestHandler
from sockserve.http import HTTPRequestHandler
from tests.integration.servers import connect_as, description, in_thread, serving, until
from tests.integration.web import get


class Beats(StreamRequestHandler):
    """Writes now and then."""

    async def handle(self):
        while True:
            self.wfile.write(b"beat\n")
            await deferLater(self.server.reactor, 0.2)


class SecureBeats(Beats):
    """The same, over TLS."""


class Waits(StreamRequestHandler):
    """Writes once, and waits."""

    async def handle(self):
        self.wfile.write(b"hello\n")
        await Deferred()


class Page(HTTPRequestHandler):
    """Writes now and then in a response."""

    async def do_GET(self):
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b"beat\n")
            await deferLater(self.server.reactor, 0.2)


class Blocks(socketserver.StreamRequestHandler):
    """The same on a thread."""

    def handle(self):
        while True:
            self.wfile.write(b"beat\n")
            time.sleep(0.2)


def network(state):
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


async def main():
    network("up")
    ended, clients = [], []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for handler in (Beats, SecureBeats, Waits, Page, Blocks):
            kind = "tls" if handler is SecureBeats else "tcp"
            deadlines = Deadlines(write=60 if handler is Waits else 1, keepalive=1, drain=0.5)
            if handler is not Waits:
                deadlines = Deadlines(write=1, drain=0.5)
            where = description(kind, folder)
            server = await stack.enter_async_context(serving(handler, where, deadlines=deadlines))
            server.observers.append(ended.append)
            client = await in_thread(connect_as, kind, server.server_address)
            clients.append(client)
            client.sendall(get())
            await in_thread(client.recv, 1)
        network("down")
        await until(lambda: len(ended) == len(clients), 30)
        for record in sorted(ended, key=lambda record: record.handler):
            print(f"{record.handler}:{record.outcome.replace(': ', ':')}")  # noqa: T201
        for client in clients:
            client.close()
        network("up")


if __name__ == "__main__":
    react(lambda reactor: ensureDeferred(main()))
