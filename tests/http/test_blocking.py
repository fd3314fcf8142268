"""The cycle of a blocking handler: queueing, what is sent when, and what is left of it."""

import errno
import mmap
import os
import socket
import threading
import weakref
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from sockserve.executors.fork import ForkExecutor
from sockserve.http.output import OutputQueue
from tests.http.blocking import (
    Echo,
    Serve,
    StockEcho,
    answer,
    assert_last,
    begin,
    both,
    each_kind,
    no_more_descriptors,
)
from tests.http.connections import GET, POST
from tests.transports import SteppedReactor

#: A request to speak another protocol.
UPGRADE = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
#: The head of one whose body ends with its connection.
UNFRAMED = b"POST / HTTP/1.0\r\n\r\n"

# Queued


@both
@each_kind
def test_a_request_whose_client_is_lost_is_withdrawn(serve: Serve, handler: type) -> None:
    client = serve(queued=True)
    client.send(POST % 1 + b"x" + GET)
    (job,) = client.executor.jobs
    client.lose()
    assert client.executor.jobs == []
    assert client.is_finished
    assert job.rfile.closed is (handler is StockEcho)  # a file in memory needs no closing
    assert client.server.records == []


@both
@each_kind
def test_a_client_that_only_ends_its_side_is_answered(serve: Serve) -> None:
    client = serve(queued=True)
    client.send(GET)
    client.end()
    client.executor.begin()
    client.executor.step()
    assert client.body == b"<>"
    assert client.ended


@both
@each_kind
def test_a_lifetime_takes_a_request_out_of_the_queue(serve: Serve) -> None:
    client = serve(queued=True, lifetime=10)
    client.send(GET)
    client.advance(9)
    assert client.said == b""
    client.advance(1)
    assert client.status() == (504, "close")
    assert_last(client)
    assert client.expiries == {"lifetime": 1}
    client.end()
    assert client.is_finished


@both
@each_kind
def test_a_service_that_stops_takes_a_request_out_of_the_queue(serve: Serve) -> None:
    client = serve(queued=True, drain=10)
    client.send(GET)
    drained = client.server.drain()
    client.advance(10)
    assert client.said == b""
    assert_last(client)
    assert client.expiries == {"drain": 1}
    client.end()
    assert client.is_finished
    assert drained.called


def test_how_long_a_request_has_queued_is_counted(serve: Serve) -> None:
    client = serve(queued=True)
    client.send(GET)
    client.advance(3)
    client.executor.begin()
    client.executor.step()
    assert client.server.statistics.histogram("queue").total == 3


@both
@each_kind
def test_without_a_thread_the_client_is_told(serve: Serve) -> None:
    client = serve(queued=True, handle=10)
    client.send(GET)
    error = OSError(errno.EAGAIN, "no thread")
    client.executor.refuse(error)
    assert client.status() == (503, "close")
    assert client.server.raised == [error]
    assert client.ended
    assert client.is_finished


@each_kind
def test_without_a_descriptor_too(serve: Serve) -> None:
    client = serve(plain=False)
    with no_more_descriptors() as logged:
        client.send(POST % 1 + b"x")
    assert client.status() == (503, "close")
    assert client.executor.jobs == []
    assert any("Too many open files" in line for line in logged)


# What the handler sends


@both
@each_kind
def test_an_answer_leaves_in_one_piece_when_the_handler_has_finished(
    serve: Serve, handler: Any
) -> None:
    seen = []

    def do_GET(self: Any) -> None:
        handler.do_GET(self)
        self.wfile.flush()
        seen.append(client.said)

    client = serve(do_GET)
    client.ask()
    assert seen == [b""]
    assert client.said.endswith(b"<>") or client.said.endswith(b"0\r\n\r\n")


@both
def test_what_there_is_leaves_when_the_handler_takes_its_time(serve: Serve) -> None:
    seen = []

    def do_GET(self: Any) -> None:
        begin(self, 6)
        self.wfile.write(b"an")
        self.request.buffered.runs_long()
        seen.append(client.body)
        self.wfile.write(b"sw")  # and this as it is written
        seen.append(client.body)
        self.wfile.write(b"er")

    client = serve(do_GET)
    client.ask()
    assert seen[:2] == [b"an", b"answ"]
    assert client.body == b"answer"
    client.ask()  # the connection is the reactor's again
    assert client.said.count(b"\r\n\r\nanswer") == 2


@both
@each_kind
def test_what_is_too_much_to_hold_leaves_while_the_handler_goes_on(serve: Serve) -> None:
    """64 KiB are held."""
    seen = threading.Event()

    def do_GET(self: Any) -> None:
        answer(self, b"x" * 100_000)
        assert seen.wait(10)

    client = serve(do_GET)
    for count in (1, 2):
        client.send(GET)
        with client.executor.stepping():
            while client.said.count(b"x") < count * 100_000:
                client.turn()
            seen.set()
        seen.clear()
    assert not client.ended
    assert len(client.server.records) == 2


@both
@each_kind
def test_a_client_that_reads_nothing_does_not_hold_the_thread(serve: Serve) -> None:
    """Nor is it, or what comes after its answer, served wrong when it reads at last."""
    size = 4_000_000

    def do_GET(self: Any) -> None:
        answer(self, b"x" * size)

    client = serve(do_GET)
    client.send(GET)
    with client.executor.stepping():
        """Its end does not wait for the reactor, nor that for the client."""
    client.send(GET)
    while client.said.count(b"x") < size:
        client.turn()
    client.turn()
    with client.executor.stepping():
        """Nor does the next."""
    while client.said.count(b"x") < 2 * size:
        client.turn()
    assert [record.sent for record in client.server.records] == [size, size]
    assert not client.ended


@both
@each_kind
@pytest.mark.parametrize("when", ["running", "being sent", "finished"])
def test_a_client_that_goes_before_it_has_taken_its_answer_leaves_nothing(
    serve: Serve, when: str, no_collector: None
) -> None:
    raised: list[BaseException] = []
    written, gone = threading.Event(), threading.Event()

    def do_GET(self: Any) -> None:
        answer(self, b"x" * 4_000_000)
        written.set()
        if when != "finished":
            assert gone.wait(10)
            try:
                self.connection.sendall(b"more")
            except OSError as error:
                raised.append(error)

    client = serve(do_GET)
    client.send(GET)
    (channel,) = client.server.channels.values()
    allowance = channel.settings.spool_allowance
    with client.executor.stepping():
        assert written.wait(10)
        assert not allowance.take(2**30), "some is in a file"
        if when == "being sent":
            client.turn()
        if when != "finished":
            client.lose()
            gone.set()
    if when == "finished":
        client.lose()
    assert [type(error) for error in raised] == [BrokenPipeError] * (when != "finished")
    raised.clear()
    assert client.is_finished
    assert allowance.take(2**30)


@both
@each_kind
@pytest.mark.parametrize("when", ["running", "finished", "takes the connection"])
def test_a_response_whose_file_cannot_be_read_is_cut_off(
    serve: Serve, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client sees that, and it is this side's error."""
    raised: list[BaseException] = []
    written, failed = threading.Event(), threading.Event()

    def no_descriptor(*arguments: Any, **options: Any) -> Any:
        failed.set()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def do_GET(self: Any) -> None:
        answer(self, b"x" * 4_000_000)
        written.set()
        if when == "finished":
            return
        try:
            if when == "running":
                assert failed.wait(10)
                self.connection.sendall(b"more")
            else:
                self.connection.fileno()
        except OSError as error:
            raised.append(error)

    monkeypatch.setattr(mmap, "mmap", no_descriptor)
    client = serve(do_GET)
    client.send(GET)
    (channel,) = client.server.channels.values()
    allowance = channel.settings.spool_allowance
    with capturedLogs() as logged, client.executor.stepping():
        assert written.wait(10)
        if when != "finished":
            while not failed.is_set():
                client.turn()
    client.turn()
    assert sum("open files" in str(formatEvent(event)) for event in logged) == 1
    assert [isinstance(error, OSError) for error in raised] == [True] * (when != "finished")
    assert client.ended
    assert len(client.body) < 4_000_000
    assert client.is_finished
    assert client.server.statistics.active == 0
    assert [record.outcome for record in client.server.records] == ["error"]
    assert allowance.take(2**30)


@both
@each_kind
def test_no_file_is_read_for_a_client_that_is_lost(
    serve: Serve, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def do_GET(self: Any) -> None:
        answer(self, b"x" * 4_000_000)
        written.set()
        assert gone.wait(10)

    written, gone = threading.Event(), threading.Event()
    monkeypatch.setattr(mmap, "mmap", no_descriptor)
    client = serve(do_GET)
    client.send(GET)
    (channel,) = client.server.channels.values()
    with capturedLogs() as logged, client.executor.stepping():
        assert written.wait(10)
        # Before the reactor has come for it.
        connection = client.transport if plain else client.protocol
        connection.connectionLost(Failure(ConnectionLost()))
        gone.set()
    assert logged == []
    assert [record.outcome for record in client.server.records] == ["ok"]
    assert channel.settings.spool_allowance.take(2**30)


@both
@each_kind
def test_what_sending_a_response_raises_cuts_it_off(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of this side's that nobody has foreseen holds neither client nor handler."""

    def fails(queue: Any) -> Any:
        failed.set()
        raise MemoryError("none left")

    def do_GET(self: Any) -> None:
        answer(self, b"x" * 100_000)
        assert failed.wait(10)

    failed = threading.Event()
    monkeypatch.setattr(OutputQueue, "take", fails)
    client = serve(do_GET)
    client.send(GET)
    with capturedLogs() as logged, client.executor.stepping():
        while not failed.is_set():
            client.turn()
    client.turn()
    (event,) = logged
    assert event["log_failure"].type is MemoryError
    assert client.ended
    assert client.is_finished
    assert [record.outcome for record in client.server.records] == ["error"]


@both
@each_kind
def test_what_was_held_leaves_before_what_goes_by_the_descriptor(
    serve: Serve, handler: type
) -> None:
    def do_GET(self: Any) -> None:
        begin(self, 6)
        self.wfile.write(b"an")
        os.write(self.connection.fileno(), b"sw")
        self.connection.sendall(b"er")
        if handler is Echo:  # its length is what it has written
            self.wfile.write(b"1234")

    client = serve(do_GET)
    client.ask()
    assert client.body == (b"answer" if handler is StockEcho else b"answer1234")
    assert not client.ended


@both
@each_kind
def test_a_request_that_came_meanwhile_is_the_next(serve: Serve) -> None:
    """Also while the handler has the connection itself."""

    def do_GET(self: Any) -> None:
        self.connection.fileno()
        client.send(POST % 4 + b"next")
        answer(self)

    client = serve(do_GET)
    client.ask()
    assert client.body == b"answer"
    client.executor.step()
    assert b"<next>" in client.said


def switch(handler: Any) -> None:
    """Answer that another protocol follows."""
    handler.send_response(101)
    handler.send_header("Upgrade", "echo")
    handler.send_header("Connection", "Upgrade")
    handler.end_headers()


@both
def test_what_follows_a_switch_is_the_handlers(serve: Serve) -> None:
    read = []

    def do_GET(self: Any) -> None:
        switch(self)
        read.append(self.rfile.read(5))
        assert client.said.startswith(b"HTTP/1.1 101 ")  # before the client says more
        client.send(b"later")
        read.append(self.rfile.read(5))
        self.connection.sendall(b"bye")
        client.end()
        read.append(self.rfile.read(5))

    client = serve(do_GET)
    client.ask(UPGRADE + b"first")
    assert read == [b"first", b"later", b""]
    assert client.body == b"bye"
    assert client.ended
    assert client.is_finished


@both
def test_the_clients_end_may_be_all_that_follows(serve: Serve) -> None:
    read = []

    def do_GET(self: Any) -> None:
        switch(self)
        read.append(self.rfile.read(5))
        client.turn()
        read.append(self.rfile.read())
        self.connection.sendall(b"bye")

    client = serve(do_GET)
    client.send(UPGRADE + b"first")
    client.end()
    client.executor.step()
    assert read == [b"first", b""]
    assert client.body == b"bye"


def test_a_handler_may_read_what_follows_by_its_socket(serve: Serve) -> None:
    """So the reactor must not have read it."""
    read = []

    def do_GET(self: Any) -> None:
        switch(self)
        self.wfile.flush()
        self.connection.settimeout(10)
        read.append(self.connection.recv(100))

    client = serve(do_GET, queued=True)
    client.send(UPGRADE)
    client.send(b"first")
    client.executor.begin()
    client.executor.step()
    assert read == [b"first"]


class UnframedEcho(StockEcho):
    """One whose requests end with their connections."""

    protocol_version = "HTTP/1.0"


@both
@pytest.mark.parametrize("handler", [UnframedEcho])
def test_a_body_that_ends_with_its_connection_is_read_to_that_end(serve: Serve) -> None:
    read = []

    def do_POST(self: Any) -> None:
        read.append(self.rfile.read(4))
        self.connection.fileno()
        client.send(b" and more")
        client.end()
        read.append(self.rfile.read())
        answer(self)

    client = serve(do_POST=do_POST)
    client.ask(UNFRAMED + b"some")
    assert read == [b"some", b" and more"]
    assert client.body == b"answer"


@pytest.mark.parametrize("handler", [UnframedEcho])
def test_a_client_that_is_cut_off_has_not_ended_its_body(serve: Serve) -> None:
    """Of a lent connection the kernel says so."""

    def do_POST(self: Any) -> None:
        self.connection.fileno()
        client.lose()
        self.rfile.read()

    client = serve(do_POST=do_POST, plain=False)
    client.ask(UNFRAMED + b"some")
    assert client.raised == [ConnectionResetError]
    assert client.server.statistics.errors == 0


@both
def test_what_follows_a_switch_that_is_not_made_is_the_next_request(serve: Serve) -> None:
    client = serve(answer)
    for request in (UPGRADE, UPGRADE, GET):
        client.ask(request)
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
    serve: Serve,
) -> None:
    seen = []

    def do_GET(self: Any) -> None:
        answer(self)
        seen.append(client.body)

    client = serve(do_GET, executor=Children())
    client.send(GET + GET)
    (job,) = client.executor.jobs
    assert job.descriptors == (socket.socket.fileno(job.request),)
    client.executor.step()
    assert seen == [b"answer"]  # nobody has to take it from the child
    assert client.status() == (200, "close")
    assert_last(client)


# What is counted


@both
@each_kind
def test_bytes_are_counted_whoever_has_sent_them(serve: Serve) -> None:
    def do_GET(self: Any) -> None:
        if self.path == "/direct":
            self.connection.fileno()
        answer(self)

    client = serve(do_GET)
    sent = GET, GET.replace(b"/ ", b"/direct ")
    for request in sent:
        client.ask(request)
    said = client.said
    assert said.count(b"answer") == 2
    client.lose()
    statistics = client.server.statistics
    assert (statistics.received, statistics.sent) == (sum(map(len, sent)), len(said))
    assert [record.sent for record in client.server.records] == [6, 6]  # bodies


@both
@pytest.mark.parametrize("handler", [StockEcho])
def test_bytes_that_were_held_and_then_others_are_each_counted_once(serve: Serve) -> None:
    """100 held, and what is too much to hold: the reactor sends the first, the handler the rest."""

    def do_GET(self: Any) -> None:
        begin(self, 70_100)
        self.wfile.write(b"x" * 100)
        self.wfile.write(b"y" * 70_000)

    client = serve(do_GET)
    client.ask()
    said = client.said
    assert said.endswith(b"x" * 100 + b"y" * 70_000)
    client.lose()
    assert client.server.statistics.sent == len(said)


# Memory


@both
@each_kind
@pytest.mark.parametrize("request_", [GET, POST % 4 + b"body"], ids=["bodiless", "body"])
@pytest.mark.parametrize("way", ["held", "direct", "raises"])
def test_nothing_of_a_request_is_left_to_the_garbage_collector(
    serve: Serve, handler: Any, request_: bytes, way: str, no_collector: None
) -> None:
    kept: list[weakref.ref[Any]] = []

    def method(self: Any) -> None:
        buffered = self.request.buffered
        for each in (self, buffered, buffered.response, buffered.rfile):
            kept.append(weakref.ref(each))
        handler.do_POST(self)
        if way == "direct":
            self.connection.fileno()
        elif way == "raises":
            raise ZeroDivisionError

    client = serve(method, method)
    client.ask(request_)
    client.turn()
    client.server.raised.clear()
    assert [each() for each in kept] == [None] * 4
