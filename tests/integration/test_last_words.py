"""What a handler writes last arrives, however much of it waits when the handler ends."""

import select
import socket
import socketserver
import time

import pytest

import sockserve
from sockserve import DeadlineExpired, Deadlines
from tests.integration.servers import (
    PATIENCE_SECONDS,
    PROXY_HEADER,
    counts,
    description,
    in_thread,
    read_all,
    secure,
    serving,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

#: More than the kernel takes at once from a server whose client does not read.
GOODBYE = b"goodbye " * 640_000


def connect_narrowly(address):
    """A client whose kernel takes little that it did not ask for."""
    client = socket.socket()
    client.settimeout(PATIENCE_SECONDS)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(address)
    return client


@pytest.mark.parametrize("phase", ["idle", "header", "handle", "lifetime"])
async def test_a_goodbye_after_a_deadline(phase):
    class Handler(sockserve.StreamRequestHandler):
        async def handle(self):
            try:
                await self.rfile.readline()
            except DeadlineExpired:
                self.wfile.write(GOODBYE)

    async with serving(Handler, deadlines=Deadlines(**{phase: 0.3})) as server:
        with connect_narrowly(server.server_address) as client:
            if phase == "header":
                client.sendall(b"half a li")
            await until(lambda: server.statistics.expiries)
            assert await in_thread(read_all, client) == GOODBYE
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1, "expiries": {phase: 1}}


#: What the handler leaves unread: within the socketpair, and more than it holds.
@pytest.mark.parametrize("unread", [1, 250_000, 270_000])
@pytest.mark.parametrize("kind", ["ssl", "haproxy:tcp"])
async def test_an_answer_that_does_not_wait_for_the_rest_of_the_question(kind, unread, tmp_path):
    answer = b"y" * 2_000_000

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            # Who ends before any of it has come does not know of it.
            select.select([self.request], [], [], PATIENCE_SECONDS)
            self.request.sendall(answer)

    def talk(address):
        client = connect_narrowly(address)
        if kind == "ssl":
            client = secure(client)
        else:
            client.sendall(PROXY_HEADER)
        with client:
            client.sendall(b"z" * unread)
            received = bytearray()
            # Slowly, so that the handler closes while the server does not read it.
            while data := client.recv(2**16):
                received += data
                if len(received) < 300_000:
                    time.sleep(0.002)
            return bytes(received)

    async with serving(Handler, description(kind, tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == answer
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1}
