"""The socket of a blocking HTTP handler: what it holds back, and when it is one in truth."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest

from sockserve.http.h1.head import parse_head
from sockserve.http.handler_socket import ConnectionBody, OutputMode, RequestSocket
from sockserve.http.responses import BlockingResponse
from sockserve.http.spool import stock_file

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Request:
    """
    A request in memory, on its way to the handler of a socket.

    @ivar held: what the reactor is to send.
    @ivar acquired: how often the handler has asked for the connection.
    @ivar limit: how many bytes are held.
    """

    def __init__(self, request: RequestSocket) -> None:
        self._request = request
        self.mode = OutputMode.BUFFERED
        self.head = parse_head(HEAD, lenient=False)
        request.response = BlockingResponse(self.head, request.sendall)
        self.rfile: Any = BytesIO(b"body")
        self.held: list[bytes] = []
        self.acquired = 0
        self.limit = 100
        self.is_gone = False

    def buffer(self, data: Any) -> bool:
        if self.mode is OutputMode.BUFFERED and len(data) <= self.limit:
            self.held.append(bytes(data))
            return True
        self.acquire_connection()
        return False

    def acquire_connection(self) -> None:
        self.acquired += 1
        if self.mode is OutputMode.CLOSED:
            raise BrokenPipeError("the connection has ended")
        self.mode = OutputMode.DIRECT
        self._request.become_blocking()

    def client_is_gone(self) -> bool:
        return self.is_gone


class Ends:
    """A handler's socket, the request it is for, and its client."""

    def __init__(self) -> None:
        inner, self.client = socket.socketpair()
        self.client.setblocking(False)
        inner.setblocking(False)
        self.socket = RequestSocket(fileno=inner.detach())
        self.request = Request(self.socket)
        self.socket.buffered = self.request

    def is_blocking(self) -> bool:
        return os.get_blocking(socket.socket.fileno(self.socket))

    def received(self) -> bytes:
        try:
            return self.client.recv(100_000)
        except BlockingIOError:
            return b""


@pytest.fixture
def ends(no_leaks: None) -> Iterator[Ends]:
    made = Ends()
    yield made
    made.socket.buffered = None
    made.socket.close()
    made.client.close()


# What is sent


def test_what_is_sent_is_held_back(ends: Ends) -> None:
    ends.socket.sendall(b"an")
    assert ends.socket.send(memoryview(b"swer")) == 4
    assert ends.request.held == [b"an", b"swer"]
    assert ends.received() == b""
    assert ends.request.acquired == 0


def test_what_is_held_back_is_what_it_was(ends: Ends) -> None:
    data = bytearray(b"answer")
    ends.socket.sendall(data)
    data[:] = b"______"
    assert ends.request.held == [b"answer"]


def test_what_is_not_held_back_goes_to_the_client(ends: Ends) -> None:
    ends.socket.sendall(b"x" * 101)
    assert ends.socket.send(b"more") == 4
    assert ends.request.held == []
    assert ends.received() == b"x" * 101 + b"more"


def test_a_socket_of_no_request_is_only_a_socket(ends: Ends) -> None:
    ends.socket.buffered = None
    ends.socket.sendall(b"answer")
    assert ends.received() == b"answer"
    ends.client.send(b"?")
    assert ends.socket.recv(1) == b"?"
    assert ends.socket.client_is_gone() is None  # it tells by itself


def test_nothing_is_sent_on_a_connection_that_has_ended(ends: Ends) -> None:
    ends.request.mode = OutputMode.CLOSED
    with pytest.raises(BrokenPipeError):
        ends.socket.sendall(b"answer")
    with pytest.raises(BrokenPipeError):
        ends.socket.send(b"answer")
    assert ends.received() == b""


# What needs the connection


@pytest.mark.parametrize(
    "use",
    [
        lambda sock: sock.fileno(),
        lambda sock: sock.recv(1),
        lambda sock: sock.recv_into(bytearray(1)),
        lambda sock: sock.recvfrom(1),
        lambda sock: sock.recvfrom_into(bytearray(1)),
        lambda sock: sock.recvmsg(1),
        lambda sock: sock.recvmsg_into([bytearray(1)]),
        lambda sock: sock.sendmsg([b"x"]),
        lambda sock: sock.send(b"!", socket.MSG_OOB),
        lambda sock: sock.sendall(b"!", socket.MSG_OOB),
        lambda sock: sock.shutdown(socket.SHUT_WR),
        lambda sock: os.close(sock.detach()),
        lambda sock: sock.close(),
        lambda sock: sock.makefile("rwb", buffering=0).read(1),
    ],
    ids=[
        "fileno",
        "recv",
        "recv_into",
        "recvfrom",
        "recvfrom_into",
        "recvmsg",
        "recvmsg_into",
        "sendmsg",
        "send urgent data",
        "sendall urgent data",
        "shutdown",
        "detach",
        "close",
        "a file",
    ],
)
def test_any_other_use_needs_the_connection(ends: Ends, use: Callable[[Any], object]) -> None:
    ends.client.send(b"!")
    use(ends.socket)
    assert ends.request.acquired == 1
    assert ends.request.mode is OutputMode.DIRECT


@pytest.mark.parametrize("use", [socket.socket.fileno, socket.socket.close])
def test_what_needs_it_says_that_it_has_ended(ends: Ends, use: Callable[[Any], object]) -> None:
    ends.request.mode = OutputMode.CLOSED
    with pytest.raises(BrokenPipeError):
        getattr(ends.socket, use.__name__)()


@pytest.mark.parametrize(
    "use",
    [
        lambda sock: sock.getpeername(),
        lambda sock: sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE),
        lambda sock: sock.settimeout(3),
        lambda sock: sock.makefile("rb").read(),
        lambda sock: sock.client_is_gone(),
        lambda sock: sock.is_closed(),
        lambda sock: repr(sock.head),
    ],
)
def test_what_asks_for_nothing_of_it_leaves_it_to_the_reactor(
    ends: Ends, use: Callable[[Any], object]
) -> None:
    use(ends.socket)
    assert ends.request.acquired == 0


# Timeouts


@pytest.mark.parametrize("seconds", [None, 0.0, 3.0])
def test_a_timeout_is_kept_until_the_handler_has_the_connection(
    ends: Ends, seconds: float | None
) -> None:
    ends.socket.settimeout(seconds)
    assert ends.socket.gettimeout() == seconds
    assert ends.socket.getblocking() is (seconds != 0)
    assert not ends.is_blocking()  # the reactor has it
    ends.socket.fileno()
    assert ends.is_blocking() is (seconds is None)
    assert ends.socket.gettimeout() == seconds


def test_a_timeout_applies_at_once_when_the_handler_has_it(ends: Ends) -> None:
    ends.socket.fileno()
    ends.socket.settimeout(0.001)
    with pytest.raises(TimeoutError):
        ends.socket.recv(1)
    ends.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        ends.socket.recv(1)
    ends.socket.setblocking(True)
    assert ends.socket.gettimeout() is None
    assert ends.is_blocking()


def test_the_reactor_has_it_back_as_it_was_and_the_timeout_stays(ends: Ends) -> None:
    ends.socket.settimeout(3)
    ends.socket.fileno()
    ends.socket.become_nonblocking()
    assert not ends.is_blocking()
    assert ends.socket.gettimeout() == 3


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), ("soon", ValueError)])
def test_what_is_no_timeout_is_refused_as_by_any_socket(
    ends: Ends, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        ends.socket.settimeout(value)
    assert ends.socket.gettimeout() is None


# Files and ends


def test_its_file_to_read_is_the_request(ends: Ends) -> None:
    assert ends.socket.makefile("rb", -1) is ends.request.rfile
    assert ends.socket.rfile is ends.request.rfile
    assert ends.socket.head is ends.request.head


def test_other_files_are_of_the_connection(ends: Ends) -> None:
    with ends.socket.makefile("wb") as file:
        file.write(b"held")
    assert ends.request.held == [b"held"]


def test_a_file_of_a_stock_handler_holds_it_open(ends: Ends) -> None:
    file = ends.request.rfile = stock_file(HEAD)
    assert ends.socket.makefile("rb", -1) is file
    number = ends.socket.fileno()
    ends.socket.close()
    assert ends.socket.is_closed()
    os.fstat(number)
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_closing_it_twice_asks_nobody_again(ends: Ends) -> None:
    ends.socket.close()
    assert ends.request.acquired == 1
    ends.request.mode = OutputMode.CLOSED
    ends.socket.close()
    assert ends.request.acquired == 1
    assert ends.client.recv(1) == b""


def test_what_is_written_is_the_body_of_the_response(ends: Ends) -> None:
    ends.socket.response.start(200, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", 2, None)
    ends.socket.wfile.write(b"ok")
    assert b"".join(ends.request.held) == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_the_request_knows_whether_the_client_is_gone(ends: Ends) -> None:
    assert ends.socket.client_is_gone() is False
    ends.request.is_gone = True
    assert ends.socket.client_is_gone() is True


# A body that ends with its connection


class Late(TimeoutError):
    """The body has not come in time."""


class Body:
    """
    A body of which no byte but those of C{ends} comes.

    @ivar asked: how many bytes had come, each time that its patience was asked for.
    @ivar waited: how long they had been waited for by then.
    @ivar seconds: its patience.
    @ivar cut_off: why its connection has ended.
    """

    def __init__(self, ends: Ends, seconds: float | None, received: int = 0) -> None:
        ends.socket.fileno()  # the handler has it
        self.asked: list[int] = []
        self.waited: list[float] = []
        self.seconds = seconds
        self.cut_off: OSError | None = None
        self.file = ConnectionBody(
            ends.socket, received, self._patience, Late, lambda: self.cut_off
        )

    def _patience(self, received: int, waited: float) -> float | None:
        self.asked.append(received)
        self.waited.append(waited)
        return self.seconds

    def read(self, size: int = 100) -> bytes | None:
        return self.file.read(size)


@pytest.fixture
def body(ends: Ends) -> Iterator[Callable[..., Body]]:
    made: list[Body] = []

    def make(*arguments: Any) -> Body:
        made.append(Body(ends, *arguments))
        return made[-1]

    yield make
    for each in made:
        each.file.close()


def test_a_body_is_what_comes(ends: Ends, body: Callable[..., Body]) -> None:
    each = body(None, 10)
    ends.client.send(b"some")
    assert each.read(2) == b"so"
    assert each.read() == b"me"
    ends.client.send(b"more")
    assert each.read() == b"more"
    ends.client.shutdown(socket.SHUT_WR)
    assert each.read() == b""
    assert each.asked == [10, 12, 14, 18]


def test_a_body_that_is_late_is_an_error_of_its_own(ends: Ends, body: Callable[..., Body]) -> None:
    each = body(0.01)
    with pytest.raises(Late):
        each.read()
    assert ends.socket.gettimeout() is None  # the handler's own, as it was


def test_no_patience_at_all_is_no_leave_to_read_without_waiting(body: Callable[..., Body]) -> None:
    """Which would raise C{BlockingIOError}, or give None."""
    with pytest.raises(Late):
        body(0).read()


def test_a_timeout_of_the_handlers_that_is_shorter_is_the_handlers(
    ends: Ends, body: Callable[..., Body]
) -> None:
    each = body(1000)
    ends.socket.settimeout(0.001)
    with pytest.raises(TimeoutError) as raised:
        each.read()
    assert type(raised.value) is TimeoutError
    assert ends.socket.gettimeout() == 0.001


def test_one_that_is_longer_is_not(ends: Ends, body: Callable[..., Body]) -> None:
    each = body(0.001)
    ends.socket.settimeout(1000)
    with pytest.raises(Late):
        each.read()
    assert ends.socket.gettimeout() == 1000


def test_what_is_waited_for_counts(body: Callable[..., Body]) -> None:
    """20 ms for nothing; what asks again asks with those."""
    each = body(0.02)
    began = time.monotonic()
    with pytest.raises(Late):
        each.read()
    with pytest.raises(OSError, match="timed out"):
        each.read()
    assert each.waited[0] == 0
    assert 0.02 * 0.9 <= each.waited[1] <= time.monotonic() - began


def test_what_the_handler_takes_does_not(ends: Ends, body: Callable[..., Body]) -> None:
    each = body(1000)
    ends.client.send(b"some")
    began = time.monotonic()
    each.read()
    read = time.monotonic() - began
    ends.client.send(b"more")
    each.read()
    assert each.waited[1] <= read


def test_an_end_that_is_not_the_clients_is_an_error(ends: Ends, body: Callable[..., Body]) -> None:
    each = body(None)
    ends.client.send(b"some")
    ends.client.shutdown(socket.SHUT_WR)
    each.cut_off = ConnectionResetError("cut off")
    assert each.read() == b"some"
    with pytest.raises(ConnectionResetError, match="cut off"):
        each.read()


def test_its_file_holds_the_socket_open(ends: Ends, body: Callable[..., Body]) -> None:
    each = body(None)
    ends.socket.close()
    ends.client.send(b"some")
    assert each.read() == b"some"
    each.file.close()
    assert ends.client.recv(1) == b""
