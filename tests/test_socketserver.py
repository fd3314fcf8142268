"""The drop-in C{socketserver} by itself: servers on one end of a socketpair, or on nothing."""

import errno
import http.server
import os
import socket
import socketserver as stdlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.threads import deferToThread

import sockserve
import sockserve.http
from sockserve import ConfigurationError, Deadlines, socketserver

pytestmark = pytest.mark.usefixtures("no_leaks")

#: Nowhere: these servers do not bind.
ADDRESS = ("127.0.0.1", 0)


class Upper(socketserver.BaseRequestHandler):
    """Answers a byte in capitals."""

    def handle(self) -> None:
        self.server.said.append(self.request.upper())  # type: ignore[attr-defined]


class Bytes(socketserver.BaseServer):
    """
    A server that listens on one end of a socketpair, and takes a byte for a request.

    @ivar said: what its handlers have answered.
    @ivar actions: how often C{service_actions} was called.
    @ivar act: called by that.
    """

    act: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, requests: bytes = b"", handler: Any = Upper) -> None:
        super().__init__("memory", handler)
        self.near, self.far = socket.socketpair()
        self.far.send(requests)
        self.said: list[bytes] = []
        self.actions = 0

    def fileno(self) -> int:
        return self.near.fileno()

    def get_request(self) -> Any:
        return self.near.recv(1), "client"

    def service_actions(self) -> None:
        self.actions += 1
        self.act()

    def server_close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def serving() -> Iterator[Callable[..., Any]]:
    """Makes servers, and closes them."""
    made: list[Bytes] = []

    def make(*arguments: Any, **options: Any) -> Bytes:
        made.append(Bytes(*arguments, **options))
        return made[-1]

    yield make
    for server in made:
        server.server_close()


# Serving


def test_requests_are_served_on_the_calling_thread_until_shutdown(serving: Any) -> None:
    """Which is heard at once: nothing comes, and a poll would last a minute."""
    server = serving(b"abc")
    server.act = lambda: server.shutdown() if len(server.said) == 3 else None
    server.serve_forever(60)
    assert server.said == [b"A", b"B", b"C"]
    assert server.actions == 3


def test_shutdown_on_the_serving_thread_does_not_wait_for_itself(serving: Any) -> None:
    class Ends(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.server.shutdown()
            self.server.said.append(self.request)  # type: ignore[attr-defined]

    server = serving(b"ab", Ends)
    server.serve_forever(60)
    assert server.said == [b"a"]


def test_shutdown_on_another_thread_returns_when_serve_forever_is_about_to(serving: Any) -> None:
    server, order = serving(b"a"), []

    def shut_down() -> None:
        server.shutdown()
        order.append("shutdown")

    other = threading.Thread(target=shut_down)
    began = threading.Event()

    def act() -> None:
        if not began.is_set():
            began.set()
            other.start()
            other.join(0.02)
            order.append("action")

    server.act = act
    server.serve_forever(60)
    other.join()
    assert order == ["action", "shutdown"]


def test_shutdown_is_heard_where_nothing_else_happens(serving: Any) -> None:
    """Not at the next poll, a minute later."""
    server = serving()
    other = threading.Timer(0.02, server.shutdown)
    other.start()
    began = time.monotonic()
    server.serve_forever(60)
    other.join()
    assert time.monotonic() - began < 30


def test_shutdown_before_serve_forever_returns_and_keeps_one_from_beginning(serving: Any) -> None:
    server = serving(b"a")
    server.shutdown()
    server.serve_forever(60)
    assert server.said == []
    server.act = server.shutdown
    server.serve_forever(60)
    assert server.said == [b"A"], "the next one serves"


def test_what_ends_serve_forever_otherwise_leaves_it_ready_for_another(serving: Any) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    server = serving(b"ab")
    server.act = fail
    with pytest.raises(KeyboardInterrupt):
        server.serve_forever(60)
    assert server.said == [b"A"]
    server.act = server.shutdown
    server.serve_forever(60)
    assert server.said == [b"A", b"B"]


@pytest.mark.parametrize("module", [stdlib, socketserver])
def test_what_verify_request_raises_of_a_packet_ends_serve_forever(module: Any) -> None:
    class Server(module.UDPServer):  # type: ignore[misc,name-defined]
        def verify_request(self, request: Any, client_address: Any) -> bool:
            raise LookupError("the program's own")

    with (
        Server(("127.0.0.1", 0), module.DatagramRequestHandler) as server,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        client.sendto(b"a packet", server.server_address)
        with pytest.raises(LookupError, match="the program's own"):
            server.serve_forever()


def test_handle_request_serves_one(serving: Any) -> None:
    server = serving(b"ab")
    server.socket = server.near
    server.handle_request()
    assert server.said == [b"A"]


# Handlers


def test_a_handler_of_sockserves_is_made_and_then_run(serving: Any) -> None:
    """One of the standard library's has run when it is made."""

    class Own(sockserve.BaseRequestHandler):
        def setup(self) -> None:
            self.server.said.append(b"setup")

        def handle(self) -> None:
            self.server.said.append(self.request)

        def finish(self) -> None:
            self.server.said.append(b"finish")

    server = serving(handler=Own)
    server.finish_request(b"a", "client")
    assert server.said == [b"setup", b"a", b"finish"]


def test_finish_of_such_a_handler_is_called_whatever_handle_raises(serving: Any) -> None:
    class Fails(sockserve.BaseRequestHandler):
        def handle(self) -> None:
            raise ValueError("no")

        def finish(self) -> None:
            self.server.said.append(b"finish")

    server = serving(handler=Fails)
    with pytest.raises(ValueError, match="no"):
        server.finish_request(b"a", "client")
    assert server.said == [b"finish"]


class Web(sockserve.http.HTTPRequestHandler):
    def do_GET(self) -> None:
        """Nothing to do."""


class Coroutine(sockserve.StreamRequestHandler):
    async def handle(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize("handler", [Web, Coroutine])
@pytest.mark.parametrize(
    ("server", "why"),
    [
        ("TCPServer", "TCPServer serves on the thread that calls serve_forever"),
        ("ForkingTCPServer", "add ThreadingMixIn"),
        ("UnixStreamServer", "add ThreadingMixIn"),
        ("UDPServer", "UDPServer serves datagrams, by plain methods"),
        ("ThreadingUDPServer", "use DatagramRequestService"),
    ],
)
def test_a_handler_that_a_server_cannot_serve_is_refused_when_it_is_made(
    server: str, handler: type, why: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        getattr(socketserver, server)(ADDRESS, handler, bind_and_activate=False)
    assert str(refusal.value).startswith(f"handler {handler.__qualname__}: ")
    assert why in str(refusal.value)


@pytest.mark.parametrize(
    ("server", "handler"),
    [
        ("ThreadingTCPServer", Web),
        ("ThreadingTCPServer", Coroutine),
        ("TCPServer", http.server.BaseHTTPRequestHandler),
        ("UDPServer", socketserver.DatagramRequestHandler),
        ("ThreadingUDPServer", socketserver.DatagramRequestHandler),
        ("TCPServer", None),  # it has a finish_request of its own, presumably
    ],
)
def test_all_others_are_not(server: str, handler: Any) -> None:
    with getattr(socketserver, server)(ADDRESS, handler, bind_and_activate=False) as made:
        assert made.RequestHandlerClass is handler


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"max_threads": -1}, "max_threads: -1"),
        ({"max_threads": "9"}, "max_threads: '9'"),
        ({"deadlines": 5}, "deadlines: 5"),
    ],
)
def test_a_variable_that_cannot_be_leaves_nothing_open(
    variables: dict[str, Any], word: str
) -> None:
    cls = type("Server", (socketserver.ThreadingTCPServer,), variables)
    with pytest.raises(ConfigurationError, match=f"^{word} is no"):
        cls(ADDRESS, Upper)


# Listening


@pytest.mark.parametrize("step", ["server_bind", "server_activate"])
@pytest.mark.parametrize("error", [OSError(errno.EADDRINUSE, "in use"), KeyboardInterrupt()])
def test_a_server_that_comes_to_nothing_is_closed(step: str, error: BaseException) -> None:
    closed = []

    class Server(socketserver.TCPServer):
        def server_bind(self) -> None:
            """Nowhere."""

        def server_activate(self) -> None:
            """For nobody."""

        def server_close(self) -> None:
            super().server_close()
            closed.append(self.socket.fileno())

    def fail(server: Any) -> None:
        raise error

    setattr(Server, step, fail)
    with pytest.raises(type(error)):
        Server(ADDRESS, Upper)
    assert closed == [-1]


class Refusing:
    """A listening socket that gives nobody."""

    def __init__(self, number: int) -> None:
        self.number = number

    def accept(self) -> Any:
        raise OSError(self.number, os.strerror(self.number))

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(("number", "pauses"), [(errno.EMFILE, True), (errno.ECONNABORTED, False)])
def test_where_there_is_no_room_for_a_connection_a_moment_passes(number: int, pauses: bool) -> None:
    """100 ms."""
    server = socketserver.TCPServer(ADDRESS, Upper, bind_and_activate=False)
    server.socket.close()
    server.socket = Refusing(number)
    began = time.monotonic()
    with pytest.raises(OSError, match=os.strerror(number)):
        server.get_request()
    assert (time.monotonic() - began >= 0.1) is pauses


# Threads


class Dispatcher:
    """
    A dispatcher that serves nobody.

    @ivar taken: requests.
    @ivar closings: whether it was to wait, for each time it was closed.
    """

    def __init__(self, *, is_alive: bool = True) -> None:
        self.is_alive = lambda: is_alive
        self.taken: list[Any] = []
        self.closings: list[bool] = []

    def take(self, request: Any, client_address: Any) -> None:
        self.taken.append((request, client_address))

    def close(self, waits: bool) -> None:
        self.closings.append(waits)


class Threading(socketserver.ThreadingMixIn, Bytes):
    pass


@pytest.fixture
def threading_server() -> Iterator[Threading]:
    server = Threading()
    yield server
    server.server_close()


def test_requests_go_to_the_dispatcher_there_is(threading_server: Any) -> None:
    threading_server._ThreadingMixIn__dispatcher = dispatcher = Dispatcher()
    threading_server.process_request(b"a", "one")
    threading_server.process_request(b"b", "two")
    assert dispatcher.taken == [(b"a", "one"), (b"b", "two")]
    threading_server.server_close()
    assert dispatcher.closings == [False], "who has not served has nobody to wait for"


def test_a_server_that_has_served_nobody_has_nothing_more_to_close(threading_server: Any) -> None:
    threading_server.server_close()
    assert threading_server._ThreadingMixIn__dispatcher is None


@pytest.mark.parametrize("kept", [None, Dispatcher(is_alive=False)], ids=["first", "a parent's"])
async def test_the_first_request_makes_a_dispatcher(threading_server: Any, kept: Any) -> None:
    served = threading.Event()

    class Notes(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.server.said.append((self.request, threading.current_thread().name))  # type: ignore[attr-defined]
            served.set()

    threading_server.RequestHandlerClass = Notes
    threading_server._ThreadingMixIn__dispatcher = kept
    threading_server.process_request(b"a", "client")
    dispatcher = threading_server._ThreadingMixIn__dispatcher
    assert await deferToThread(served.wait, 15)
    ((request, thread),) = threading_server.said
    assert request == b"a"
    assert thread != threading.current_thread().name
    await deferToThread(threading_server.process_request, b"b", "client")
    assert threading_server._ThreadingMixIn__dispatcher is dispatcher
    await deferToThread(threading_server.server_close)
    assert sorted(each for each, _ in threading_server.said) == [b"a", b"b"]
    if kept is not None:
        assert kept.taken == []


@pytest.mark.parametrize("daemon_threads", [False, True])
@pytest.mark.parametrize("block_on_close", [False, True])
async def test_closing_waits_for_threads_that_are_no_daemons(
    threading_server: Any, daemon_threads: bool, block_on_close: bool
) -> None:
    threading_server.daemon_threads = daemon_threads
    threading_server.block_on_close = block_on_close
    begun, go_on = threading.Event(), threading.Event()

    class Waits(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            begun.set()
            go_on.wait(15)
            self.server.said.append(self.request)  # type: ignore[attr-defined]

    waits = block_on_close and not daemon_threads

    def close() -> list[bytes]:
        assert begun.wait(15)
        if waits:
            threading.Timer(0.02, go_on.set).start()
        threading_server.server_close()
        said = list(threading_server.said)
        go_on.set()
        return said

    threading_server.RequestHandlerClass = Waits
    threading_server.process_request(b"a", "client")
    assert await deferToThread(close) == ([b"a"] if waits else [])


async def test_deadlines_of_a_server_that_has_none_are_the_modules() -> None:
    """A mix-in of ours goes with a server of the standard library's."""
    import socketserver as stdlib

    class Mixed(socketserver.ThreadingMixIn, stdlib.BaseServer):
        pass

    server = Mixed("memory", Upper)
    server.said = []  # type: ignore[attr-defined]
    server.process_request(b"a", "client")
    assert server._ThreadingMixIn__dispatcher is not None
    assert server._ThreadingMixIn__dispatcher.factory.deadlines == Deadlines(
        handshake=10, idle=None, header=None, body_rate=None, write=None, drain=None
    )
    await deferToThread(server.server_close)
    assert server.said == [b"A"]  # type: ignore[attr-defined]
