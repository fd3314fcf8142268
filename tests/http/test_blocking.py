"""The cycle of a blocking handler: buffering, queueing, what is sent when, and all ends."""

import asyncio
import errno
import gc
import os
import socket
import weakref
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from sockserve.executors.fork import ForkExecutor
from sockserve.http import HTTPRequestHandler
from tests.http.connections import CHUNKED, GET, POST, Connection
from tests.streams.owner import SteppedExecutor
from tests.transports import SteppedReactor

Connect = Callable[..., Connection]


class Echo(HTTPRequestHandler):
    """Answers with the body it has read."""

    def do_POST(self) -> None:
        body = self.rfile.read()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<" + body + b">")

    do_GET = do_POST


class StockEcho(BaseHTTPRequestHandler):
    """The same, as one of the standard library's."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + 2))
        self.end_headers()
        self.wfile.write(b"<" + body + b">")

    do_GET = do_POST

    def log_message(self, *arguments: Any) -> None:
        pass


def handling(function: Callable[[Any], object]) -> type[HTTPRequestHandler]:
    """A handler whose GET is C{function}."""
    return type("Handler", (HTTPRequestHandler,), {"do_GET": function})


def answer(handler: Any, body: bytes = b"answer") -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", len(body))
    handler.end_headers()
    handler.wfile.write(body)


class Executor(SteppedExecutor):
    """
    One in which a test finds what waits.

    @ivar limit: with 0 all jobs wait.
    """

    def begin(self) -> None:
        """There is a place for what waits."""
        self.limit = 1
        for job in self.jobs:
            job.started()

    def refuse(self, error: OSError) -> None:
        """There is a place, but no thread."""
        self.begin()
        self.jobs.pop().failed(error)


both = pytest.mark.parametrize("plain", [True, False], ids=["lent", "pumped"])
each_kind = pytest.mark.parametrize("handler", [Echo, StockEcho])


def connected(connect: Connect, handler: Any, limit: int = 1, **options: Any) -> Connection:
    return connect(handler, executor=Executor(limit), **options)


# Gathering the request


@both
@each_kind
def test_a_body_is_buffered_before_the_request_is_queued(
    connect: Connect, handler: Any, plain: bool
) -> None:
    client = connected(connect, handler, plain=plain)
    for piece in (POST % 5, b"he", b"ll"):
        client.send(piece)
        assert client.executor.jobs == []
    client.send(b"o")
    client.executor.step()
    assert client.status() == (200, None)
    assert client.body == b"<hello>"


@both
def test_chunks_are_buffered_likewise(connect: Connect, plain: bool) -> None:
    client = connected(connect, Echo, plain=plain)
    for piece in (CHUNKED, b"2\r\nhe\r\n", b"3\r\nllo\r\n"):
        client.send(piece)
        assert client.executor.jobs == []
    client.send(b"0\r\n\r\n")
    client.executor.step()
    assert client.body == b"<hello>"


def test_a_stock_handler_takes_chunks_apart_by_itself(connect: Connect) -> None:
    read = []

    class Handler(StockEcho):
        def do_POST(self) -> None:
            read.append(self.rfile.read(100))
            answer(self)

    client = connected(connect, Handler)
    client.send(CHUNKED + b"2\r\nhe\r\n")
    client.send(b"3\r\nllo\r\n0\r\n\r\n")
    client.executor.step()
    assert read == [b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"]
    assert client.body == b"answer"


@each_kind
def test_a_request_without_a_body_is_queued_at_once(connect: Connect, handler: Any) -> None:
    client = connected(connect, handler)
    client.send(GET)
    client.executor.step()
    assert client.body == b"<>"


@each_kind
def test_requests_are_queued_one_after_another(connect: Connect, handler: Any) -> None:
    client = connected(connect, handler)
    client.send(POST % 1 + b"1" + POST % 1 + b"2" + POST % 1 + b"3")
    for number in (b"1", b"2", b"3"):
        client.executor.step()  # there is just one job
        assert client.said.endswith(b"<" + number + b">")
    assert client.executor.jobs == []
    assert not client.ended


@both
@each_kind
def test_a_client_that_asks_is_told_to_go_on_once(
    connect: Connect, handler: Any, plain: bool
) -> None:
    client = connected(connect, handler, plain=plain)
    client.send(POST[:-2] % 5 + b"Expect: 100-continue\r\n\r\n")
    assert client.said == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    client.executor.step()
    assert client.said.count(b"HTTP/1.1 ") == 2
    assert client.said.endswith(b"<hello>")
    assert not client.ended


def test_a_request_waits_until_the_answers_before_it_are_on_their_way(connect: Connect) -> None:
    """Else what its handler sends by the socket would overtake them."""

    class Mixed(Echo):
        async def do_GET(self) -> None:  # type: ignore[override]
            answer(self, b"x" * 50_000)

    client = connected(connect, Mixed, plain=False)
    client.transport.producer.pauseProducing()  # the client takes nothing
    client.send(GET + POST % 5 + b"hello")
    assert client.executor.jobs == []
    client.transport.producer.resumeProducing()
    client.executor.step()
    assert client.said.endswith(b"<hello>")
    assert client.said.index(b"x" * 50_000) < client.said.index(b"<hello>")


# A body that is too large


@both
@each_kind
@pytest.mark.parametrize("expects", [False, True])
def test_a_body_is_too_large_by_its_length(
    connect: Connect, handler: Any, plain: bool, expects: bool
) -> None:
    """11 bytes of the 10 that are kept; nobody is asked to send them."""
    client = connected(connect, handler, plain=plain, max_body_bytes=10)
    expectation = b"Expect: 100-continue\r\n" if expects else b""
    client.send(POST[:-2] % 11 + expectation + b"\r\n")
    assert client.status() == (413, "close")
    assert b"larger than 10 bytes" in client.body
    assert client.executor.jobs == []
    client.end()
    assert client.ended


@both
def test_a_body_is_too_large_by_its_bytes(connect: Connect, plain: bool) -> None:
    """6 + 5 bytes of the 10 that are kept."""
    client = connected(connect, Echo, plain=plain, max_body_bytes=10)
    client.send(CHUNKED + b"6\r\n123456\r\n")
    assert client.said == b""
    client.send(b"5\r\n12345\r\n0\r\n\r\n")
    assert client.status() == (413, "close")
    assert client.executor.jobs == []
    client.end()
    assert client.ended
    assert [(record.status, record.request_line) for record in client.server.records] == [
        (413, "POST / HTTP/1.1")
    ]


@pytest.mark.parametrize(
    ("handler", "request_"),
    [
        (Echo, POST % 10 + b"x" * 10),
        (Echo, CHUNKED + b"a\r\nxxxxxxxxxx\r\n0\r\n\r\n"),
        (StockEcho, POST % 10 + b"x" * 10),  # its head is kept besides
    ],
)
def test_a_body_that_just_fits_is_served(connect: Connect, handler: Any, request_: bytes) -> None:
    client = connected(connect, handler, max_body_bytes=10)
    client.send(request_)
    client.executor.step()
    assert client.body == b"<xxxxxxxxxx>"


# A body that is kept on the disk: more than 512 KiB


@both
@each_kind
@pytest.mark.parametrize("lost", [False, True])
def test_a_large_body_leaves_no_file_behind(
    connect: Connect, handler: Any, plain: bool, lost: bool
) -> None:
    class Counts(handler):  # type: ignore[misc]
        def do_POST(self) -> None:
            answer(self, b"%d" % len(self.rfile.read(600_000)))

    client = connected(connect, Counts, plain=plain)
    client.send(POST % 600_000)
    for _ in range(11):
        client.send(b"x" * 50_000)
    if lost:
        client.lose()
        assert client.is_finished
    else:
        client.send(b"x" * 50_000)
        client.executor.step()
        assert client.body == b"600000"


@each_kind
def test_a_body_that_there_is_no_room_for_is_refused(connect: Connect, handler: Any) -> None:
    resource = pytest.importorskip("resource")
    client = connected(connect, handler, plain=False)
    client.send(POST % 600_000 + b"x" * 500_000)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(2)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with capturedLogs() as logged:
            client.send(b"x" * 50_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert client.status() == (503, "close")
    assert any("a request's body cannot be kept" in formatEvent(event) for event in logged)
    assert client.executor.jobs == []


def test_a_body_behind_a_request_in_service_is_read_when_it_is_its_turn(connect: Connect) -> None:
    """A client is held back at 64 KiB that nobody has asked for."""
    client = connected(connect, Echo, plain=False)
    client.send(GET)
    client.send(POST % 150_000 + b"x" * 100_000)
    assert client.transport.producerState == "paused"
    client.executor.step()
    assert client.transport.producerState == "producing"
    client.send(b"x" * 50_000)
    client.executor.step()
    assert client.said.count(b"x") == 150_000


# A body that does not come


@both
@each_kind
def test_a_body_that_is_late_is_not_waited_for(connect: Connect, handler: Any, plain: bool) -> None:
    """A byte each 9 s: 30 s after the head."""
    client = connected(connect, handler, plain=plain, body=30)
    client.send(POST % 10)
    for _ in range(3):
        client.advance(9)
        client.send(b"x")
    client.advance(2)
    assert client.said == b""
    client.advance(1)
    assert client.status() == (408, "close")
    assert client.expiries == {"body": 1}
    assert client.executor.jobs == []
    client.end()
    assert client.ended


def test_a_body_that_has_come_in_time_is_not_late(connect: Connect) -> None:
    client = connected(connect, Echo, body=30)
    client.send(POST % 2 + b"o")
    client.advance(29)
    client.send(b"k")
    client.advance(30)  # the handler's own time
    client.executor.step()
    assert client.status() == (200, None)
    assert client.expiries == {}


def test_a_silent_body_has_as_long_as_an_idle_connection(connect: Connect) -> None:
    """Idle is 10 s from the last byte: 8 + 10 = 18."""
    client = connected(connect, Echo, idle=10)
    client.send(POST % 3 + b"x")
    client.advance(8)
    client.send(b"x")
    client.advance(9)
    assert client.said == b""
    client.advance(1)
    assert client.status() == (408, "close")
    assert client.expiries == {"body": 1}


@both
@each_kind
def test_a_client_that_ends_its_side_within_a_body_is_told(
    connect: Connect, handler: Any, plain: bool
) -> None:
    client = connected(connect, handler, plain=plain)
    client.send(POST % 3 + b"x")
    client.end()
    assert client.status() == (400, "close")
    assert client.ended
    assert client.executor.jobs == []


@both
@each_kind
def test_a_client_that_is_lost_within_a_body_leaves_nothing(
    connect: Connect, handler: Any, plain: bool
) -> None:
    client = connected(connect, handler, plain=plain)
    client.send(POST % 3_000_000 + b"x" * 100_000)
    client.lose()
    assert client.is_finished
    assert client.executor.jobs == []
    assert client.server.raised == []


# Queued


@both
@each_kind
def test_a_request_whose_client_is_lost_is_withdrawn(
    connect: Connect, handler: Any, plain: bool
) -> None:
    client = connected(connect, handler, 0, plain=plain)
    client.send(POST % 1 + b"x" + GET)
    (job,) = client.executor.jobs
    client.lose()
    assert client.executor.jobs == []
    assert client.is_finished
    assert job.rfile.closed is (handler is StockEcho)  # a file in memory needs no closing
    assert client.server.records == []


@both
@each_kind
def test_a_client_that_only_ends_its_side_is_answered(
    connect: Connect, handler: Any, plain: bool
) -> None:
    client = connected(connect, handler, 0, plain=plain)
    client.send(GET)
    client.end()
    client.executor.begin()
    client.executor.step()
    assert client.body == b"<>"
    assert client.ended


@both
@each_kind
@pytest.mark.parametrize(("phase", "status"), [("lifetime", 504), ("drain", None)])
def test_a_deadline_takes_a_request_out_of_the_queue(
    connect: Connect, handler: Any, plain: bool, phase: str, status: int | None
) -> None:
    client = connected(connect, handler, 0, plain=plain, **{phase: 10})
    client.send(GET)
    drained = client.server.drain() if phase == "drain" else None
    client.advance(9)
    assert client.said == b""
    client.advance(1)
    assert client.executor.jobs == []
    assert client.ended
    assert client.expiries == {phase: 1}
    if status is None:
        assert client.said == b""
    else:
        assert client.status() == (status, "close")
    client.end()
    assert client.is_finished
    assert drained is None or drained.called


def test_how_long_a_request_has_queued_is_counted(connect: Connect) -> None:
    client = connected(connect, Echo, 0)
    client.send(GET)
    client.advance(3)
    client.executor.begin()
    client.executor.step()
    assert client.server.statistics.histogram("queue").total == 3


@both
@each_kind
def test_without_a_thread_the_client_is_told(connect: Connect, handler: Any, plain: bool) -> None:
    client = connected(connect, handler, 0, plain=plain, handle=10)
    client.send(GET)
    error = OSError(errno.EAGAIN, "no thread")
    client.executor.refuse(error)
    assert client.status() == (503, "close")
    assert client.server.raised == [error]
    assert client.ended
    assert client.is_finished


@each_kind
def test_without_a_descriptor_too(connect: Connect, handler: Any) -> None:
    resource = pytest.importorskip("resource")
    client = connected(connect, handler, plain=False)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(2)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with capturedLogs() as logged:
            client.send(POST % 1 + b"x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert client.status() == (503, "close")
    assert client.executor.jobs == []
    assert any("Too many open files" in formatEvent(event) for event in logged)


# What the handler sends


@both
@each_kind
def test_an_answer_leaves_in_one_piece_when_the_handler_has_finished(
    connect: Connect, handler: Any, plain: bool
) -> None:
    seen = []

    class Flushes(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            super().do_GET()
            self.wfile.flush()
            seen.append(self.server.connection.said)

    client = connected(connect, Flushes, plain=plain)
    client.send(GET)
    client.executor.step()
    assert seen == [b""]
    assert client.said.endswith(b"<>") or client.said.endswith(b"0\r\n\r\n")


@both
def test_what_there_is_leaves_when_the_handler_takes_its_time(
    connect: Connect, plain: bool
) -> None:
    seen = []

    def do_GET(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", 6)
        handler.end_headers()
        handler.wfile.write(b"an")
        handler.request.buffered.runs_long()
        seen.append(handler.server.connection.body)
        handler.wfile.write(b"sw")  # and this as it is written
        seen.append(handler.server.connection.body)
        handler.wfile.write(b"er")

    client = connected(connect, handling(do_GET), plain=plain)
    client.send(GET)
    client.executor.step()
    assert seen[:2] == [b"an", b"answ"]
    assert client.body == b"answer"
    client.send(GET)  # the connection is the reactor's again
    client.executor.step()
    assert client.said.count(b"\r\n\r\nanswer") == 2


@both
@each_kind
def test_what_is_too_much_to_hold_is_sent_by_the_handler(
    connect: Connect, handler: Any, plain: bool
) -> None:
    """64 KiB are held; of 100,000 bytes in one piece none are."""
    seen = []

    class Large(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            answer(self, b"x" * 100_000)
            seen.append(len(self.server.connection.body))

    client = connected(connect, Large, plain=plain)
    for count in (1, 2):
        client.send(GET)
        client.executor.step()
        assert client.said.count(b"x") == count * 100_000
    assert seen[0] == 100_000
    assert not client.ended


@both
@each_kind
def test_what_was_held_leaves_before_what_goes_by_the_descriptor(
    connect: Connect, handler: Any, plain: bool
) -> None:
    class Mixed(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"an")
            os.write(self.connection.fileno(), b"sw")
            self.connection.sendall(b"er")
            if isinstance(self, HTTPRequestHandler):  # its length is what it has written
                self.wfile.write(b"1234")

    client = connected(connect, Mixed, plain=plain)
    client.send(GET)
    client.executor.step()
    assert client.body == (b"answer" if handler is StockEcho else b"answer1234")
    assert not client.ended


@both
@each_kind
def test_a_request_that_came_meanwhile_is_the_next(
    connect: Connect, handler: Any, plain: bool
) -> None:
    """Also while the handler has the connection itself."""

    class Owns(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            self.connection.fileno()
            self.server.connection.send(POST % 4 + b"next")
            answer(self)

    client = connected(connect, Owns, plain=plain)
    client.send(GET)
    client.executor.step()
    assert client.body == b"answer"
    client.executor.step()
    assert b"<next>" in client.said


@both
def test_what_follows_a_switch_is_the_handlers(connect: Connect, plain: bool) -> None:
    read = []

    def do_GET(handler: Any) -> None:
        connection = handler.server.connection
        handler.send_response(101)
        handler.send_header("Upgrade", "echo")
        handler.send_header("Connection", "Upgrade")
        handler.end_headers()
        read.append(handler.rfile.read(5))
        assert connection.said.startswith(b"HTTP/1.1 101 ")  # before the client says more
        connection.send(b"later")
        read.append(handler.rfile.read(5))
        handler.connection.sendall(b"bye")
        connection.end()
        read.append(handler.rfile.read(5))

    client = connected(connect, handling(do_GET), plain=plain)
    client.send(GET[:-2] + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst")
    client.executor.step()
    assert read == [b"first", b"later", b""]
    assert client.body == b"bye"
    assert client.ended
    assert client.is_finished


@both
def test_the_clients_end_may_be_all_that_follows(connect: Connect, plain: bool) -> None:
    read = []

    def do_GET(handler: Any) -> None:
        handler.send_response(101)
        handler.end_headers()
        read.append(handler.rfile.read(5))
        handler.server.connection.turn()
        read.append(handler.rfile.read())
        handler.connection.sendall(b"bye")

    client = connected(connect, handling(do_GET), plain=plain)
    client.send(GET[:-2] + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst")
    client.end()
    client.executor.step()
    assert read == [b"first", b""]
    assert client.body == b"bye"


def test_a_handler_may_read_what_follows_by_its_socket(connect: Connect) -> None:
    """So the reactor must not have read it."""
    read = []

    def do_GET(handler: Any) -> None:
        handler.send_response(101)
        handler.end_headers()
        handler.wfile.flush()
        handler.connection.settimeout(10)
        read.append(handler.connection.recv(100))

    client = connected(connect, handling(do_GET), 0)
    client.send(GET[:-2] + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n")
    client.send(b"first")
    client.executor.begin()
    client.executor.step()
    assert read == [b"first"]


@both
def test_a_body_that_ends_with_its_connection_is_read_to_that_end(
    connect: Connect, plain: bool
) -> None:
    read = []

    class Reads(StockEcho):
        protocol_version = "HTTP/1.0"

        def do_POST(self) -> None:
            client = self.server.connection  # type: ignore[attr-defined]
            read.append(self.rfile.read(4))
            self.connection.fileno()
            client.send(b" and more")
            client.end()
            read.append(self.rfile.read())
            answer(self)

    client = connected(connect, Reads, plain=plain)
    client.send(b"POST / HTTP/1.0\r\n\r\nsome")
    client.executor.step()
    assert read == [b"some", b" and more"]
    assert client.body == b"answer"


def test_a_client_that_is_cut_off_has_not_ended_its_body(connect: Connect) -> None:
    """Of a lent connection the kernel says so."""

    class Reads(StockEcho):
        protocol_version = "HTTP/1.0"

        def do_POST(self) -> None:
            self.connection.fileno()
            self.server.connection.lose()  # type: ignore[attr-defined]
            self.rfile.read()

    client = connected(connect, Reads, plain=False)
    client.send(b"POST / HTTP/1.0\r\n\r\nsome")
    client.executor.step()
    assert [type(error) for error in client.server.raised] == [ConnectionResetError]
    assert client.server.statistics.errors == 0


@both
def test_what_follows_a_switch_that_is_not_made_is_the_next_request(
    connect: Connect, plain: bool
) -> None:
    client = connected(connect, handling(answer), plain=plain)
    for _ in range(2):
        client.send(GET[:-2] + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        client.executor.step()
    client.send(GET)
    client.executor.step()
    assert client.said.count(b"answer") == 3


# In a child


class Children(ForkExecutor):
    """Whose handlers run where they are, when a test says so."""

    def __init__(self) -> None:
        super().__init__(SteppedReactor())
        self.jobs: list[Any] = []

    def run(self, job: Any) -> None:
        self.jobs.append(job)
        job.started()
        job.forked()

    def step(self) -> None:
        job = self.jobs.pop()
        job.ended(job.serve())


@both
def test_a_child_has_the_connection_from_the_start_and_its_answer_is_the_last(
    connect: Connect, plain: bool
) -> None:
    seen = []

    def do_GET(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", 6)
        handler.end_headers()
        handler.wfile.write(b"answer")
        seen.append(handler.server.connection.body)

    client = connect(handling(do_GET), executor=Children(), plain=plain)
    client.send(GET + GET)
    (job,) = client.executor.jobs
    assert job.descriptors == (socket.socket.fileno(job.request),)
    client.executor.step()
    assert seen == [b"answer"]  # nobody has to take it from the child
    assert client.status() == (200, "close")
    assert client.ended
    assert client.executor.jobs == []


# Failures


@both
@pytest.mark.parametrize("begins", [False, True])
def test_a_handler_that_raises_before_anything_has_left_is_answered_for(
    connect: Connect, plain: bool, begins: bool
) -> None:
    def do_GET(handler: Any) -> None:
        if begins:
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(b"held back")
        raise ZeroDivisionError

    client = connected(connect, handling(do_GET), plain=plain)
    client.send(GET)
    client.executor.step()
    assert client.status() == (500, None)
    assert b"held back" not in client.said
    assert [type(error) for error in client.server.raised] == [ZeroDivisionError]
    assert client.server.statistics.errors == 1
    assert not client.ended


@both
def test_a_handler_that_raises_within_its_answer_ends_the_connection(
    connect: Connect, plain: bool
) -> None:
    def do_GET(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", 9)
        handler.end_headers()
        handler.wfile.write(b"not all")
        raise ZeroDivisionError

    client = connected(connect, handling(do_GET), plain=plain)
    client.send(GET + GET)
    client.executor.step()
    assert client.body == b"not all"
    assert client.ended
    assert client.executor.jobs == []


@both
def test_a_stock_handler_that_raises_is_not_answered_for(connect: Connect, plain: bool) -> None:
    """As in the standard library, whose server closes the connection."""

    class Raises(StockEcho):
        def do_GET(self) -> None:
            raise ZeroDivisionError

    client = connected(connect, Raises, plain=plain)
    client.send(GET + GET)
    client.executor.step()
    assert client.said == b""
    assert client.ended
    assert client.server.statistics.errors == 1


@both
@each_kind
def test_a_handler_that_leaves_by_exit_leaves_its_connection(
    connect: Connect, handler: Any, plain: bool
) -> None:
    """As a thread, which may end itself silently."""

    class Exits(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            answer(self)
            raise SystemExit

    client = connected(connect, Exits, plain=plain)
    client.send(GET + GET)
    client.executor.step()
    assert client.body == b"answer"
    assert client.ended
    assert client.executor.jobs == []
    assert client.server.statistics.errors == 0


#: What no C{handle_error} hears of.
LEAVING = [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]


@both
@each_kind
@pytest.mark.parametrize("where", ["__init__", "setup", "do_GET", "finish"])
@pytest.mark.parametrize("error", LEAVING)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_handler_that_leaves_by_exit_is_answered_for(
    connect: Connect, handler: Any, plain: bool, where: str, error: Any, method: str
) -> None:
    """Unless it has sent something."""

    def leave(self: Any, *arguments: Any) -> None:
        raise error

    words = {"do_GET": lambda self: None, "do_HEAD": lambda self: None, where: leave}
    if where == "do_GET":
        words["do_HEAD"] = leave
    client = connected(connect, type("Leaves", (handler,), words), plain=plain)
    client.send(GET.replace(b"GET", method.encode()) + GET)
    client.executor.step()
    assert client.status() == (500, "close")
    assert (b"</html>" in client.said) == (method == "GET")
    assert client.said.count(b"HTTP/1.1 ") == 1
    assert client.ended
    assert client.executor.jobs == []
    assert client.server.statistics.responses[5] == 1


# An answer that must not be sent

FAULTY = [
    [("Content-Length", "2"), ("Transfer-Encoding", "chunked")],
    [("transfer-encoding", "gzip"), ("CONTENT-LENGTH", "2")],
    [("Content-Length", "2"), ("X", "y"), ("content-length", "3")],
    [("Content-Length", "-2")],
    [("Content-Length", "2, 2")],
    [("Content-Length", "0x2")],
    [("Content-Length", "")],
]


@both
@each_kind
@pytest.mark.parametrize("fields", FAULTY)
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("size", [2, 100_000])
def test_an_answer_with_two_ends_is_not_sent(
    connect: Connect, handler: Any, plain: bool, fields: Any, direct: bool, size: int
) -> None:
    """It is the handler's mistake, which the log tells, and a 500 to the client."""

    class Faulty(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            if direct:
                self.connection.fileno()
            self.send_response(200)
            for name, value in fields:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"<" * size)

    client = connected(connect, Faulty, plain=plain)
    client.send(GET)
    with capturedLogs() as logged:
        client.executor.step()
    assert client.status()[0] == 500
    assert client.said.count(b"HTTP/1.1 ") == 1
    assert b"<<" not in client.said
    if handler is StockEcho:
        assert any("Content-Length" in formatEvent(event) for event in logged)
        assert client.ended
    else:
        assert [type(error) for error in client.server.raised] == [ValueError]
    assert client.server.statistics.errors == 1
    assert client.server.statistics.responses[5] == 1


@both
@each_kind
def test_an_answer_with_one_end_is_sent(connect: Connect, handler: Any, plain: bool) -> None:
    class Chunked(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"2\r\nok\r\n0\r\n\r\n")

    client = connected(connect, Chunked, plain=plain)
    client.send(GET)
    client.executor.step()
    assert client.status()[0] == 200
    assert client.body == b"2\r\nok\r\n0\r\n\r\n"


def test_a_handler_without_an_answer_is_answered_for(connect: Connect) -> None:
    client = connected(connect, handling(lambda handler: None))
    client.send(GET)
    with capturedLogs() as logged:
        client.executor.step()
    assert client.status() == (500, None)
    assert any("it has sent no response" in formatEvent(event) for event in logged)
    assert not client.ended


@both
def test_an_answer_shorter_than_its_length_is_the_last(connect: Connect, plain: bool) -> None:
    def do_GET(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", 9)
        handler.end_headers()
        handler.wfile.write(b"not all")

    client = connected(connect, handling(do_GET), plain=plain)
    client.send(GET + GET)
    with capturedLogs() as logged:
        client.executor.step()
    assert client.body == b"not all"
    assert client.ended
    assert client.server.statistics.errors == 1
    assert any("2 bytes too short" in formatEvent(event) for event in logged)


@both
@each_kind
def test_a_handler_that_closes_its_socket_has_closed_the_connection(
    connect: Connect, handler: Any, plain: bool
) -> None:
    class Closes(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            answer(self)
            self.connection.close()

    client = connected(connect, Closes, plain=plain)
    client.send(GET + GET)
    client.executor.step()
    assert client.body == b"answer"
    assert client.ended
    assert client.executor.jobs == []
    assert client.is_finished


# A deadline passes while the handler runs


@both
@each_kind
def test_a_handler_that_is_too_slow_is_answered_for(
    connect: Connect, handler: Any, plain: bool
) -> None:
    seen = []

    class Slow(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            connection = self.server.connection
            connection.advance(9)
            seen.append(connection.said)
            connection.advance(1)
            seen.append(connection.status())
            answer(self)
            self.wfile.flush()

    client = connected(connect, Slow, plain=plain, handle=10)
    client.send(GET)
    client.executor.step()
    assert seen == [b"", (504, "close")]
    assert client.said.count(b"HTTP/1.1") == 1
    assert client.ended
    assert [type(error) for error in client.server.raised] == [BrokenPipeError]
    assert client.expiries == {"handle": 1}
    (record,) = client.server.records
    assert (record.status, record.outcome) == (504, "expired: handle")
    assert client.server.statistics.errors == 0


@both
@each_kind
def test_one_that_has_the_connection_is_answered_for_likewise(
    connect: Connect, handler: Any, plain: bool
) -> None:
    class Slow(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            self.connection.fileno()
            self.server.connection.advance(10)
            answer(self)
            self.wfile.flush()

    client = connected(connect, Slow, plain=plain, handle=10)
    client.send(GET)
    client.executor.step()
    assert client.status() == (504, "close")
    assert client.said.count(b"HTTP/1.1") == 1
    assert client.ended
    assert [type(error) for error in client.server.raised] == [BrokenPipeError]


@both
@pytest.mark.parametrize("direct", [True, False])
def test_an_answer_that_has_begun_breaks_off(connect: Connect, plain: bool, direct: bool) -> None:
    def do_GET(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", 6)
        handler.end_headers()
        handler.wfile.write(b"ans")
        if direct:
            handler.connection.fileno()
        else:
            handler.request.buffered.runs_long()
        handler.server.connection.advance(10)
        handler.wfile.write(b"wer")

    client = connected(connect, handling(do_GET), plain=plain, handle=10)
    client.send(GET)
    client.executor.step()
    assert client.body == b"ans"
    assert client.ended
    assert [type(error) for error in client.server.raised] == [BrokenPipeError]
    assert client.is_finished


@each_kind
def test_what_can_be_killed_is_killed_instead(connect: Connect, handler: Any) -> None:
    client = connect(handler, executor=Executor(killable=True), handle=10)
    client.send(GET)
    (job,) = client.executor.jobs
    client.advance(10)
    assert client.executor.killed == [job]
    assert client.said == b""
    assert not client.ended


@both
@each_kind
def test_the_time_of_a_handler_is_its_own(connect: Connect, handler: Any, plain: bool) -> None:
    """10 s for each of two, and none for the queue."""

    class Slow(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            self.server.connection.advance(9)
            answer(self)

    client = connected(connect, Slow, 0, plain=plain, handle=10)
    client.send(GET)
    client.advance(60)
    client.executor.begin()
    client.executor.step()
    client.send(GET)
    client.executor.step()
    client.advance(60)
    assert client.said.count(b"answer") == 2
    assert client.expiries == {}


@both
@each_kind
@pytest.mark.parametrize("direct", [True, False])
def test_a_handler_that_does_not_end_is_abandoned(
    connect: Connect, handler: Any, plain: bool, direct: bool
) -> None:
    """10 s by its deadline, and 5 s to come to its end."""
    counts = []

    class Stuck(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            connection, statistics = self.server.connection, self.server.statistics
            if direct:
                self.connection.fileno()
            connection.advance(14)
            counts.append((statistics.active, statistics.abandoned))
            connection.advance(1)
            counts.append((statistics.active, statistics.abandoned))

    client = connected(connect, Stuck, plain=plain, handle=10, abandon=5)
    client.send(GET)
    client.executor.step()
    assert counts == [(1, 0), (0, 1)]
    assert client.server.statistics.abandoned == 0
    assert client.status() == (504, "close")
    assert client.ended
    assert len(client.server.records) == 1


# The client is lost while the handler runs


@both
@each_kind
def test_a_handler_hears_that_its_client_is_lost_when_it_sends(
    connect: Connect, handler: Any, plain: bool
) -> None:
    gone = []

    class Late(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            gone.append(self.request.client_is_gone())
            self.server.connection.lose()
            gone.append(self.request.client_is_gone())
            answer(self)
            self.wfile.flush()

    client = connected(connect, Late, plain=plain)
    client.send(GET)
    assert not client.is_finished
    client.executor.step()
    assert gone == [False, True]
    assert [type(error) for error in client.server.raised] == [BrokenPipeError]
    assert client.server.statistics.errors == 0
    assert client.server.records[0].outcome == "lost"
    assert client.is_finished


@each_kind
def test_one_that_has_the_connection_hears_of_it_likewise(connect: Connect, handler: Any) -> None:
    class Late(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            self.connection.fileno()
            self.server.connection.lose()
            answer(self)
            self.wfile.flush()

    client = connected(connect, Late, plain=False)
    client.send(GET)
    client.executor.step()
    assert [type(error) for error in client.server.raised] == [BrokenPipeError]
    assert client.is_finished


# What is counted


@both
@each_kind
def test_bytes_are_counted_whoever_has_sent_them(
    connect: Connect, handler: Any, plain: bool
) -> None:
    class Both(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            if self.path == "/direct":
                self.connection.fileno()
            answer(self)

    client = connected(connect, Both, plain=plain)
    sent = GET, GET.replace(b"/ ", b"/direct ")
    for request in sent:
        client.send(request)
        client.executor.step()
    said = client.said
    assert said.count(b"answer") == 2
    client.lose()
    statistics = client.server.statistics
    assert (statistics.received, statistics.sent) == (sum(map(len, sent)), len(said))
    assert [record.sent for record in client.server.records] == [6, 6]  # bodies


@both
def test_bytes_that_were_held_and_then_others_are_each_counted_once(
    connect: Connect, plain: bool
) -> None:
    """100 held, and what is too much to hold: the reactor sends the first, the handler the rest."""

    class Much(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "70100")
            self.end_headers()
            self.wfile.write(b"x" * 100)
            self.wfile.write(b"y" * 70_000)

        def log_message(self, format: str, *args: Any) -> None:
            """Not here."""

    client = connected(connect, Much, plain=plain)
    client.send(GET)
    client.executor.step()
    said = client.said
    assert said.endswith(b"x" * 100 + b"y" * 70_000)
    client.lose()
    assert client.server.statistics.sent == len(said)


# The service stops


@both
@each_kind
def test_a_request_that_has_begun_when_the_service_stops_is_the_last(
    connect: Connect, handler: Any, plain: bool
) -> None:
    client = connected(connect, handler, plain=plain)
    client.send(GET[:20])
    drained = client.server.drain()
    client.send(GET[20:])
    client.executor.step()
    assert client.body == b"<>"
    assert client.ended
    assert drained.called
    assert client.status() == (200, "close")


@both
@each_kind
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("field", ["", "Connection: keep-alive", "connection:Keep-Alive "])
def test_an_answer_made_while_the_service_stops_says_that_it_is_the_last(
    connect: Connect, handler: Any, plain: bool, direct: bool, field: str
) -> None:
    class Stopped(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            if direct:
                self.connection.fileno()
            self.server.drain()
            self.send_response(200)
            if field:
                self.send_header(*field.split(":", 1))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"<>")

    client = connected(connect, Stopped, plain=plain)
    client.send(GET)
    client.executor.step()
    head, _, body = client.said.partition(b"\r\n\r\n")
    assert head.lower().count(b"connection:") == 1
    assert b"\r\nConnection: close" in head
    assert body == b"<>"
    client.end()
    assert client.ended


@both
@each_kind
def test_an_answer_that_has_not_said_so_is_not_the_last(
    connect: Connect, handler: Any, plain: bool
) -> None:
    class Begun(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            self.connection.fileno()
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"<")
            self.wfile.flush()
            self.server.drain()
            self.wfile.write(b">")

    client = connected(connect, Begun, plain=plain)
    client.send(GET)
    client.executor.step()
    assert b"Connection" not in client.said
    client.send(GET)
    client.executor.step()
    assert client.said.count(b"Connection: close") == 1
    assert client.said.count(b"<>") == 2
    client.end()
    assert client.ended


@each_kind
def test_a_switch_of_protocols_says_nothing_of_an_end(connect: Connect, handler: Any) -> None:
    class Switches(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            self.server.drain()
            self.send_response(101)
            self.send_header("Connection", "upgrade")
            self.send_header("Upgrade", "x")
            self.end_headers()
            self.close_connection = True

    client = connected(connect, Switches)
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"))
    client.executor.step()
    assert b"close" not in client.said
    assert b"onnection: upgrade\r\n" in client.said
    client.end()
    assert client.ended


@both
@each_kind
@pytest.mark.parametrize("direct", [True, False])
def test_an_abort_cuts_a_handler_off(
    connect: Connect, handler: Any, plain: bool, direct: bool
) -> None:
    class Aborted(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            if direct:
                self.connection.fileno()
            self.server.abort()
            answer(self)
            self.wfile.flush()

    client = connected(connect, Aborted, plain=plain)
    client.send(GET)
    client.executor.step()
    assert client.said == b""
    assert client.ended
    assert [type(error) for error in client.server.raised] == [BrokenPipeError]


@both
@each_kind
@pytest.mark.parametrize("limit", [0, 1])
def test_when_the_service_stops_a_request_is_answered_and_is_the_last(
    connect: Connect, handler: Any, plain: bool, limit: int
) -> None:
    client = connected(connect, handler, limit, plain=plain, drain=10)
    client.send(GET + GET)
    drained = client.server.drain()
    client.advance(9)
    assert not drained.called
    for _ in range(2):
        assert client.said.count(b"Connection: close") == 0
        if not limit:
            client.executor.begin()
        client.executor.step()
    assert client.said.count(b"<>") == 2
    assert client.said.count(b"Connection: close") == 1
    client.end()
    assert client.ended
    assert client.executor.jobs == []
    assert drained.called
    assert client.expiries == {}


@both
@each_kind
@pytest.mark.parametrize("direct", [True, False])
def test_drain_ends_what_does_not_end_by_itself(
    connect: Connect, handler: Any, plain: bool, direct: bool
) -> None:
    class Stuck(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            if direct:
                self.connection.fileno()
            self.server.drain()
            self.server.connection.advance(10)
            answer(self)
            self.wfile.flush()

    client = connected(connect, Stuck, plain=plain, drain=10)
    client.send(GET)
    client.executor.step()
    assert client.said == b""
    assert client.ended
    assert client.expiries == {"drain": 1}
    assert [type(error) for error in client.server.raised] == [BrokenPipeError]


# Memory


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is not freed by its last reference stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@both
@each_kind
@pytest.mark.parametrize("request_", [GET, POST % 4 + b"body"], ids=["bodiless", "body"])
@pytest.mark.parametrize("way", ["held", "direct", "raises"])
def test_nothing_of_a_request_is_left_to_the_garbage_collector(
    connect: Connect, handler: Any, plain: bool, request_: bytes, way: str, no_collector: None
) -> None:
    kept: list[weakref.ref[Any]] = []

    class Noting(handler):  # type: ignore[misc]
        def do_POST(self) -> None:
            buffered = self.request.buffered
            for each in (self, buffered, buffered.response, buffered.rfile):
                kept.append(weakref.ref(each))
            super().do_POST()
            if way == "direct":
                self.connection.fileno()
            elif way == "raises":
                raise ZeroDivisionError

        do_GET = do_POST

    client = connected(connect, Noting, plain=plain)
    client.send(request_)
    client.executor.step()
    client.turn()
    client.server.raised.clear()
    assert [each() for each in kept] == [None] * 4
