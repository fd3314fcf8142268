"""
The same handlers under the stdlib's servers and under ours: the same calls in the same
order, the same bytes to the client.
"""

from __future__ import annotations

import functools
import os
import socket
import socketserver
import struct
import sys
import threading
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from twisted.internet.threads import deferToThread

from sockserve import BaseRequestHandler, DatagramRequestHandler, StreamRequestHandler
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.service import DatagramRequestService, RequestService
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.usefixtures("no_leaks")


# Recording


class Traced:
    """Records what is called on a server.  Appending to a list needs no lock."""

    trace: list[str]
    verdict = True
    closed: threading.Event

    def verify_request(self, request, client_address):
        self.trace.append("verify_request")
        return self.verdict

    def process_request(self, request, client_address):
        self.trace.append("process_request")
        return super().process_request(request, client_address)

    def finish_request(self, request, client_address):
        self.trace.append("finish_request")
        return super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        self.trace.append(f"handle_error {sys.exc_info()[0].__name__}")

    def shutdown_request(self, request):
        self.trace.append("shutdown_request")
        super().shutdown_request(request)

    def close_request(self, request):
        self.trace.append("close_request")
        super().close_request(request)
        self.closed.set()


class StdlibTCPServer(Traced, socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


class StdlibUDPServer(Traced, socketserver.ThreadingUDPServer):
    daemon_threads = True
    block_on_close = False


class OurStreams(Traced, StreamFactory):
    pass


class OurDatagrams(Traced, DatagramServer):
    pass


class Observed(NamedTuple):
    trace: list[str]
    received: bytes


# The handlers.  `trace` is the server's; `Stdlib` and the three of ours are filled in below.


class Steps:
    """Records the handler's three methods; `act` is what a case does in `handle`."""

    fails_in = ""

    def setup(self):
        self.server.trace.append("setup")
        super().setup()
        self.fail("setup")

    def finish(self):
        self.server.trace.append("finish")
        super().finish()
        self.fail("finish")

    def fail(self, where):
        if self.fails_in == where:
            raise ZeroDivisionError(where)


def echo_line(handler):
    handler.wfile.write(handler.rfile.readline())


def write_nothing(handler):
    pass


def read_to_the_end(handler):
    handler.wfile.write(b"%d" % len(handler.rfile.read()))


def write_to_a_client_that_is_gone(handler):
    handler.rfile.read(1)  # raises where the client reset
    for _ in range(1000):
        handler.wfile.write(b"x" * 65536)


def close_the_socket(handler):
    echo_line(handler)
    handler.request.shutdown(socket.SHUT_WR)
    handler.request.close()


def detach_the_socket(handler):
    echo_line(handler)
    os.close(handler.request.detach())


def shut_down_both_ways(handler):
    echo_line(handler)
    handler.request.shutdown(socket.SHUT_RDWR)


def wait_in_vain(handler):
    handler.rfile.readline()
    handler.rfile.readline()


def read_after_half_close(handler):
    for line in handler.rfile:
        handler.wfile.write(line)


# The clients: plain sockets, in a thread


def say(data, end=True):
    def client(sock):
        sock.sendall(data)
        if end:
            sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))

    return client


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return b""


def reset_after_a_line(sock):
    sock.sendall(b"hello\n")
    return reset(sock)


def leave(sock):
    return b""


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "a line": (echo_line, say(b"hello\n"), {}),
    "nothing written": (write_nothing, say(b""), {}),
    "nothing read": (write_nothing, say(b"", end=False), {}),
    "setup raises": (echo_line, say(b""), {"fails_in": "setup"}),
    "handle raises": (echo_line, say(b""), {"fails_in": "handle"}),
    "finish raises": (echo_line, say(b"hello\n"), {"fails_in": "finish"}),
    "the constructor raises": (echo_line, say(b""), {"fails_in": "constructor"}),
    "not verified": (echo_line, say(b"", end=False), {"verdict": False}),
    "a megabyte in": (read_to_the_end, say(b"x" * 2**20), {}),
    "the client leaves at once": (read_after_half_close, leave, {}),
    "the client half-closes": (read_after_half_close, say(b"a\nb\nc"), {}),
    "the client resets while it is read from": (
        write_to_a_client_that_is_gone,
        reset_after_a_line,
        {},
    ),
    "the handler's timeout": (wait_in_vain, say(b"hello\n", end=False), {"timeout": 0.2}),
}

#: What only a handler with a real socket can do.
SOCKET_CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "the handler closes": (close_the_socket, say(b"hello\n"), {}),
    "the handler detaches": (detach_the_socket, say(b"hello\n"), {}),
    "the handler shuts both ways": (shut_down_both_ways, say(b"hello\n"), {}),
}


def handler_class(base, act, options):
    """A handler of C{base}'s kind that does C{act}."""

    class Handler(Steps, base):
        fails_in = options.get("fails_in", "")
        timeout = options.get("timeout")

        def __init__(self, request, client_address, server):
            if options.get("fails_in") == "constructor":
                raise ZeroDivisionError("constructor")
            super().__init__(request, client_address, server)

        def handle(self):
            self.server.trace.append("handle")
            self.fail("handle")
            act(self)

    return Handler


def coroutine_class(act, options):
    """The coroutine that does as C{act} does, with C{await} where that blocks."""
    awaited = COROUTINES[act]

    class Handler(Steps, StreamRequestHandler):
        fails_in = options.get("fails_in", "")
        timeout = options.get("timeout")

        def __init__(self, request, client_address, server):
            if options.get("fails_in") == "constructor":
                raise ZeroDivisionError("constructor")
            super().__init__(request, client_address, server)

        async def handle(self):
            self.server.trace.append("handle")
            self.fail("handle")
            await awaited(self)

    return Handler


async def a_echo_line(handler):
    handler.wfile.write(await handler.rfile.readline())


async def a_write_nothing(handler):
    pass


async def a_read_to_the_end(handler):
    handler.wfile.write(b"%d" % len(await handler.rfile.read()))


async def a_write_to_a_client_that_is_gone(handler):
    await handler.rfile.read(1)
    for _ in range(1000):
        handler.wfile.write(b"x" * 65536)
        await handler.wfile.drain()


async def a_wait_in_vain(handler):
    await handler.rfile.readline()
    await handler.rfile.readline()


async def a_read_after_half_close(handler):
    async for line in handler.rfile:
        handler.wfile.write(line)


COROUTINES = {
    echo_line: a_echo_line,
    write_nothing: a_write_nothing,
    read_to_the_end: a_read_to_the_end,
    write_to_a_client_that_is_gone: a_write_to_a_client_that_is_gone,
    wait_in_vain: a_wait_in_vain,
    read_after_half_close: a_read_after_half_close,
}


# Running


def talk(server, client):
    """Runs in a thread."""
    with socket.create_connection(server.server_address, PATIENCE_SECONDS) as sock:
        try:
            return client(sock)
        except ConnectionResetError:
            return b""


@contextmanager
def stdlib_server(server_class, handler, verdict):
    server = server_class(("127.0.0.1", 0), handler)
    server.trace, server.verdict, server.closed = [], verdict, threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def observed(server, client, *arguments):
    """Have C{client}, called with the server and C{arguments}, served.  Runs in a thread."""
    received = client(server, *arguments)
    assert server.closed.wait(PATIENCE_SECONDS)
    return Observed(server.trace, received)


def under_the_stdlib(server_class, handler, options, *client):
    """Runs in a thread."""
    with stdlib_server(server_class, handler, options.get("verdict", True)) as server:
        return observed(server, *client)


async def under_ours(service, options, *client):
    server = service.server
    server.trace, server.closed = [], threading.Event()
    server.verdict = options.get("verdict", True)
    service.startService()
    try:
        return await deferToThread(observed, server, *client)
    finally:
        await service.stopService()


def streams(handler):
    from twisted.internet import reactor

    return RequestService.from_description(
        reactor, "tcp:0:interface=127.0.0.1", handler, factory=OurStreams
    )


KINDS = {
    "stdlib": lambda act, options: handler_class(socketserver.StreamRequestHandler, act, options),
    "blocking": lambda act, options: handler_class(StreamRequestHandler, act, options),
    "coroutine": coroutine_class,
    "partial": lambda act, options: functools.partial(
        handler_class(socketserver.StreamRequestHandler, act, options)
    ),
}


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        *((case, kind) for case in CASES for kind in KINDS),
        *((case, kind) for case in SOCKET_CASES for kind in KINDS if kind != "coroutine"),
    ],
)
async def test_streams(case, kind):
    act, client, options = {**CASES, **SOCKET_CASES}[case]
    stdlibs = handler_class(socketserver.StreamRequestHandler, act, options)
    expected = await deferToThread(
        under_the_stdlib, StdlibTCPServer, stdlibs, options, talk, client
    )
    got = await under_ours(streams(KINDS[kind](act, options)), options, talk, client)
    if any(step.startswith("handle_error") for step in expected.trace):
        expected, got = without_error_names(expected), without_error_names(got)
    assert got == expected


def without_error_names(one):
    """
    A broken connection shows as one error or another (a reset, a broken pipe, a deadline),
    depending on which system call sees it first, under either server.
    """
    trace = [step.partition(" ")[0] for step in one.trace]
    return Observed(trace, one.received)


# Datagrams


def upper(handler):
    handler.wfile.write(handler.rfile.read().upper())


def datagram_class(base, options, coroutine=False):
    class Handler(Steps, base):
        fails_in = options.get("fails_in", "")

        def begin(self):
            self.server.trace.append("handle")
            self.fail("handle")
            if not options.get("silent"):
                upper(self)

        if coroutine:

            async def handle(self):
                self.begin()

        else:

            def handle(self):
                self.begin()

    return Handler


def ask(server, datagram):
    """What answers come are sent before the request is closed.  Runs in a thread."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(datagram, server.server_address)
        assert server.closed.wait(PATIENCE_SECONDS)
        sock.settimeout(0.5)
        try:
            return sock.recv(65536)
        except TimeoutError:
            return None


def datagrams(handler):
    from twisted.internet import reactor

    return DatagramRequestService.from_description(
        reactor, "udp:0:interface=127.0.0.1", handler, factory=OurDatagrams
    )


DATAGRAM_CASES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "a datagram": (b"hello", {}),
    "an empty datagram": (b"", {}),
    "an untouched wfile": (b"hello", {"silent": True}),
    "setup raises": (b"hello", {"fails_in": "setup"}),
    "handle raises": (b"hello", {"fails_in": "handle"}),
    "finish raises": (b"hello", {"fails_in": "finish"}),
    "not verified": (b"hello", {"verdict": False}),
}


@pytest.mark.parametrize("kind", ["stdlib", "blocking", "coroutine"])
@pytest.mark.parametrize("case", DATAGRAM_CASES)
async def test_datagrams(case, kind):
    datagram, options = DATAGRAM_CASES[case]
    stdlibs = datagram_class(socketserver.DatagramRequestHandler, options)
    expected = await deferToThread(
        under_the_stdlib, StdlibUDPServer, stdlibs, options, ask, datagram
    )
    base = socketserver.DatagramRequestHandler if kind == "stdlib" else DatagramRequestHandler
    handler = datagram_class(base, options, coroutine=kind == "coroutine")
    assert await under_ours(datagrams(handler), options, ask, datagram) == expected


class BareHandler(BaseRequestHandler):
    """Exists so that the base class is served, too."""

    def handle(self):
        data, sock = self.request
        sock.sendto(data[::-1], self.client_address)


async def test_a_datagram_handler_without_files():
    got = await under_ours(datagrams(BareHandler), {}, ask, b"abc")
    assert got.received == b"cba"
