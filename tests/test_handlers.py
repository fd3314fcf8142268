"""The base classes of handlers: what they have of their request, in memory."""

import io
import socket
import socketserver
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from sockserve.core.lifecycle import run_handler, run_handler_coroutine
from sockserve.core.tasks import Task
from sockserve.handlers import BaseRequestHandler, DatagramRequestHandler, StreamRequestHandler
from sockserve.interfaces import IRequestHandler

pytestmark = pytest.mark.usefixtures("no_leaks")

PEER = ("192.0.2.7", 5300)

EACH = [BaseRequestHandler, StreamRequestHandler, DatagramRequestHandler]


class NotedSocket(socket.socket):
    """
    A socket that notes its options.

    @ivar options: those that were set.
    """

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        self.options: list[Any] = []

    def setsockopt(self, *option: Any) -> None:  # type: ignore[override]
        self.options.append(option)


class Connection:
    """
    A stream connection, as a coroutine handler has it.

    @ivar calls: what was called, with what.
    """

    def __init__(self) -> None:
        self.rfile, self.wfile = object(), object()
        self.calls: list[Any] = []

    def settimeout(self, seconds: float) -> None:
        self.calls.append(("settimeout", seconds))

    async def start_tls(self, context: object) -> None:
        self.calls.append(("start_tls", context))


class Answering:
    """
    The socket of a datagram.

    @ivar sent: its answers.
    """

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def sendto(self, data: bytes, address: Any) -> None:
        self.sent.append((data, address))


@pytest.fixture
def pair() -> Iterator[tuple[NotedSocket, socket.socket]]:
    """The request of a blocking handler, and its client."""
    ours, theirs = socket.socketpair()
    request = NotedSocket(fileno=ours.detach())
    theirs.settimeout(15)
    with request, theirs:
        yield request, theirs


def run_coroutine(handler: Any) -> None:
    """Serve to the end, for which nothing is waited."""
    ends: list[Any] = []
    Task(run_handler_coroutine(handler), lambda *end: ends.append(end)).start()
    assert len(ends) == 1


def open_for(handler: Callable[..., Any], request: Any) -> Any:
    """A handler that has set up."""
    made = handler(request, PEER, None)
    made.setup()
    return made


# All


@pytest.mark.parametrize("base", EACH)
def test_the_constructor_only_stores(base: Any) -> None:
    """The standard library's serves."""

    class Handler(base):  # type: ignore[misc]
        def setup(self) -> None:
            raise AssertionError("called")

        handle = finish = setup

    request, server = object(), object()
    handler = Handler(request, PEER, server)
    assert vars(handler) == {"request": request, "client_address": PEER, "server": server}


@pytest.mark.parametrize("base", EACH)
def test_its_methods_are_called_by_the_lifecycle(base: Any) -> None:
    assert verifyObject(IRequestHandler, base(None, PEER, None))
    assert not IRequestHandler.implementedBy(getattr(socketserver, base.__name__))


def test_by_default_a_request_is_served_by_doing_nothing() -> None:
    request = object()
    handler = BaseRequestHandler(request, PEER, None)
    run_handler(handler)
    run_coroutine(handler)
    assert vars(handler) == {"request": request, "client_address": PEER, "server": None}


# Streams, blocking


class Shout(StreamRequestHandler):
    """Answers a line in capitals."""

    def handle(self) -> None:
        self.wfile.write(self.rfile.readline().upper())


def test_a_blocking_handler_has_files_over_its_socket(
    pair: tuple[NotedSocket, socket.socket],
) -> None:
    request, client = pair
    client.sendall(b"line\nmore")
    handler = Shout(request, PEER, None)
    run_handler(handler)
    assert client.recv(100) == b"LINE\n"
    assert handler.connection is request
    assert handler.rfile.closed
    assert handler.wfile.closed
    assert request.fileno() >= 0  # the server closes it
    assert request.gettimeout() is None
    assert request.options == []


@pytest.mark.parametrize("base", [StreamRequestHandler, socketserver.StreamRequestHandler])
def test_its_files_are_those_of_the_standard_library(
    pair: tuple[NotedSocket, socket.socket], base: type[Any]
) -> None:
    handler = base.__new__(base)
    handler.request = pair[0]
    for wbufsize, kind in ((0, "_SocketWriter"), (-1, "BufferedWriter"), (100, "BufferedWriter")):
        handler.wbufsize = wbufsize
        handler.setup()
        assert type(handler.rfile) is io.BufferedReader
        assert type(handler.wfile).__name__ == kind
        handler.finish()
    handler.rbufsize = 0
    handler.setup()
    assert type(handler.rfile) is socket.SocketIO
    handler.finish()


def test_what_is_left_in_the_buffer_is_sent_at_the_end(
    pair: tuple[NotedSocket, socket.socket],
) -> None:
    class Buffering(StreamRequestHandler):
        wbufsize = -1

    request, client = pair
    handler = open_for(Buffering, request)
    handler.wfile.write(b"last words")
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(100)
    handler.finish()
    assert client.recv(100) == b"last words"


@pytest.mark.parametrize("base", [StreamRequestHandler, socketserver.StreamRequestHandler])
def test_last_words_that_nobody_hears_are_an_error_as_in_the_standard_library(
    pair: tuple[NotedSocket, socket.socket], base: Any
) -> None:
    """The flush is forgiven; but a close tries it once more."""
    request, client = pair
    handler = base.__new__(base)
    handler.request, handler.wbufsize = request, -1
    handler.setup()
    handler.wfile.write(b"last words")
    client.close()
    with pytest.raises(BrokenPipeError):
        handler.finish()
    handler.rfile.close()


def test_a_handler_may_close_its_files_by_itself(
    pair: tuple[NotedSocket, socket.socket],
) -> None:
    handler = open_for(StreamRequestHandler, pair[0])
    handler.wfile.close()
    handler.rfile.close()
    handler.finish()
    assert pair[0].fileno() >= 0


def test_its_timeout_is_the_sockets(pair: tuple[NotedSocket, socket.socket]) -> None:
    class Impatient(StreamRequestHandler):
        timeout = 0.01

    handler = open_for(Impatient, pair[0])
    assert pair[0].gettimeout() == 0.01
    with pytest.raises(TimeoutError):
        handler.rfile.readline()
    handler.finish()


def test_it_may_have_what_it_writes_sent_at_once(pair: tuple[NotedSocket, socket.socket]) -> None:
    class Hasty(StreamRequestHandler):
        disable_nagle_algorithm = True

    open_for(Hasty, pair[0]).finish()
    assert pair[0].options == [(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)]


# Streams, coroutines


def test_a_coroutine_handler_has_its_connections_streams() -> None:
    seen = []

    class Handler(StreamRequestHandler):
        async def handle(self) -> None:
            seen.append((self.connection, self.rfile, self.wfile))

    connection = Connection()
    run_coroutine(Handler(connection, PEER, None))
    assert seen == [(connection, connection.rfile, connection.wfile)]
    assert connection.calls == []  # its server ends it


@pytest.mark.parametrize("seconds", [5, 0.5])
def test_a_coroutines_timeout_is_its_connections(seconds: float) -> None:
    class Impatient(StreamRequestHandler):
        timeout = seconds

    connection = Connection()
    open_for(Impatient, connection)
    assert connection.calls == [("settimeout", seconds)]


def test_a_coroutine_starts_tls_on_its_connection() -> None:
    context = object()

    class Handler(StreamRequestHandler):
        async def handle(self) -> None:
            await self.start_tls(context)

    connection = Connection()
    run_coroutine(Handler(connection, PEER, None))
    assert connection.calls == [("start_tls", context)]


# Datagrams


class Reply(DatagramRequestHandler):
    """Answers in capitals, in pieces."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class CoroutineReply(DatagramRequestHandler):
    async def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


@pytest.mark.parametrize(
    ("handler", "run"), [(Reply, run_handler), (CoroutineReply, run_coroutine)]
)
def test_a_datagram_is_a_file_and_its_answer_one_datagram(
    handler: Any, run: Callable[[Any], None]
) -> None:
    answering = Answering()
    made = handler((b"a\nb", answering), PEER, None)
    run(made)
    assert made.packet == b"a\nb"
    assert made.socket is answering
    assert answering.sent == [(b"A\nB", PEER)]


@pytest.mark.parametrize("base", [DatagramRequestHandler, socketserver.DatagramRequestHandler])
def test_an_empty_answer_is_sent_as_the_standard_library_does(base: Any) -> None:
    handler = base.__new__(base)
    answering = Answering()
    handler.request, handler.client_address = (b"packet", answering), PEER
    handler.setup()
    handler.finish()
    assert answering.sent == [(b"", PEER)]


def test_an_empty_answer_may_be_left_out() -> None:
    class Quiet(DatagramRequestHandler):
        answer_empty = False

    answering = Answering()
    handler = open_for(Quiet, (b"packet", answering))
    handler.finish()
    assert answering.sent == []
    handler.wfile.write(b"an answer")
    handler.finish()
    assert answering.sent == [(b"an answer", PEER)]


@pytest.mark.parametrize("nobody", [None, ""])
def test_nothing_is_answered_to_nobody(nobody: str | None) -> None:
    """A UNIX client without a name, whatever server it is that the handler is on."""
    answering = Answering()
    run_handler(Reply((b"packet", answering), nobody, None))
    assert answering.sent == []


def test_further_answers_leave_by_the_datagrams_socket() -> None:
    class Several(DatagramRequestHandler):
        def handle(self) -> None:
            self.socket.sendto(b"first", self.client_address)
            self.wfile.write(b"last")

    answering = Answering()
    run_handler(Several((b"packet", answering), PEER, None))
    assert answering.sent == [(b"first", PEER), (b"last", PEER)]


def test_an_answer_that_the_system_refuses_is_the_handlers_error() -> None:
    class Refusing(Answering):
        def sendto(self, data: bytes, address: Any) -> None:
            raise OSError(90, "Message too long")

    handler = open_for(DatagramRequestHandler, (b"packet", Refusing()))
    with pytest.raises(OSError, match="Message too long"):
        handler.finish()
