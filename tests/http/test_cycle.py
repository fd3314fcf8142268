"""
The cycle's seam: the cycles there are answer requests of another protocol than HTTP/1 as well,
which has many under way at once on one connection.

Each frame is a line C{stream kind size} and that many bytes: C{head} (of a request, as HTTP/1 has
it, or of a response), C{data}, C{end}, C{ask} (for the body), C{reset}.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.core.statistics import RequestRecord
from sockserve.http import HTTPRequestHandler
from sockserve.http.cycle import RequestCycle
from sockserve.http.cycles import cycle_maker
from sockserve.http.h1.framing import RemoteProtocolError, State
from sockserve.http.h1.head import RequestHead, parse_head
from sockserve.http.lease import ConnectionLease, PumpedLease
from sockserve.http.refusals import answer_error
from sockserve.http.requests import RequestConnection
from sockserve.http.responses import BlockingResponse, CoroutineResponse, Response
from sockserve.http.settings import HTTPSettings
from sockserve.interfaces import Outcome, Phase
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.streams.channel import Pending
from sockserve.streams.departure import Departure
from sockserve.streams.writer import StreamWriter
from tests.http.connections import CLIENT, NEVER, SERVER
from tests.streams.owner import SteppedExecutor
from tests.transports import SteppedReactor


def frame(stream: int, kind: str, data: bytes = b"") -> bytes:
    return b"%d %s %d\n%b" % (stream, kind.encode(), len(data), data)


class FramedResponse(Response):
    """A response in frames."""

    stream = 0

    def _compose(self, final: bool) -> bytes:
        head, body = self._take_held()
        leaving = b""
        if head is not None:
            self.state = State.CHUNKED
            leaving += frame(self.stream, "head", head.partition("\r\n")[0].encode())
        if body:
            self.sent += len(body)
            leaving += frame(self.stream, "data", body)
        return leaving

    def finish(self) -> None:
        leaving = self._compose(True)
        self.state = State.SENT
        self._emit(leaving + frame(self.stream, "end"))


class FramedCoroutineResponse(FramedResponse, CoroutineResponse):
    """A coroutine's."""


class FramedBlockingResponse(FramedResponse, BlockingResponse):
    """A blocking handler's."""


class StreamTransport:
    """The way from a stream to its client."""

    def __init__(self, connection: "FrameConnection") -> None:
        self.write = connection.said.extend

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Memory takes all at once."""

    def unregisterProducer(self) -> None:
        """There is none."""

    def pauseProducing(self) -> None:
        """Memory does not stop."""

    def resumeProducing(self) -> None:
        """Memory does not stop."""


class Stream:
    """One request of a connection of frames: a L{CycleOwner}, and the input that this has."""

    cycle: RequestCycle | None

    def __init__(self, connection: "FrameConnection", number: int) -> None:
        self._connection = connection
        self._number = number
        self.factory = connection.factory
        self.makes_handlers = self.factory.makes_handlers()
        self.settings = connection.settings
        self.deadlines = self.settings.deadlines
        self.timer = DeadlineTimer(connection.reactor, self._deadline_passed)
        self.transport = StreamTransport(connection)
        self.input = self
        self.writer = StreamWriter(self.transport, False, self.deadlines, self.timer)
        self.writer.outbox = self.settings.outbox
        self.client_address = CLIENT
        self.departure = Departure(self.timer, self.deadlines, cancels=True)
        self.request = RequestConnection(
            self.transport, self.writer, (CLIENT, SERVER), self.shut_down, self.departure, None
        )
        self.parts = Pending.CONNECTION
        self.is_draining = self.is_paused = self.is_lendable = False
        self.addresses = (CLIENT, SERVER)
        # The body
        self._pieces: list[bytes] = []
        self._has_ended = self._is_whole = False

    # What comes

    def head_received(self, head: RequestHead) -> None:
        self._is_whole = head.length == 0
        make = self._connection.make_cycle
        self.cycle = make(self, head, self.timer.seconds())
        self.cycle.start()

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self.read_body()

    def end_received(self) -> None:
        self._has_ended = True
        self.read_body()

    # The cycle's owner

    @property
    def flow(self) -> StreamTransport:
        return self.transport

    @property
    def eof(self) -> bool:
        return self._has_ended

    def has_whole_body(self) -> bool:
        return self._is_whole

    def has_begun_body(self) -> bool:
        return bool(self._pieces)

    def has_next_request(self) -> bool:
        return False  # it is another stream's

    def can_skip_body(self) -> bool:
        return True  # nobody waits behind it

    def ask_for_body(self) -> None:
        self.transport.write(frame(self._number, "ask"))

    def read_body(self) -> None:
        cycle = self.cycle
        if cycle is None or not cycle.wants_body or self._is_whole:
            return
        try:
            while self._pieces:
                cycle.body_received(self._pieces.pop(0))
        except RemoteProtocolError as error:
            cycle.body_failed(error)
            return
        if self._has_ended:
            self._is_whole = True
            cycle.body_ended()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def switch(self, receive: Callable[[bytes], object]) -> bytes:
        raise NotImplementedError

    def make_response(self, head: RequestHead, writer: StreamWriter) -> CoroutineResponse:
        response = FramedCoroutineResponse(head, writer)
        response.stream = self._number
        return response

    def make_blocking_response(
        self, head: RequestHead, send: Callable[[bytes], object]
    ) -> BlockingResponse:
        response = FramedBlockingResponse(head, send)
        response.stream = self._number
        return response

    def lease_connection(self) -> ConnectionLease:
        return PumpedLease(self)

    def give_up_transport(self) -> None:
        raise NotImplementedError

    def refuse(self, error: RemoteProtocolError, head: RequestHead | None, began: float) -> None:
        assert head is not None
        response = self.make_response(head, self.writer)
        answer_error(response, error.status, HTTPRequestHandler)
        response.finish()
        self.request_finished(response, Outcome.LOST, began)

    def account(self, response: Response, outcome: Outcome, began: float) -> None:
        seconds = self.timer.seconds() - began
        self.settings.account(RequestRecord(CLIENT, "handler"), response, outcome, seconds)

    def request_finished(
        self, response: Response, outcome: Outcome, began: float, breaks: bool = False
    ) -> None:
        self.account(response, outcome, began)
        self.cycle = None
        if breaks:
            self.abort_transport()
        self.shut_down()

    def read_next(self) -> None:
        """There is one request on a stream."""

    def shut_down(self) -> None:
        self.timer.stop()

    def is_closing(self) -> bool:
        return self.cycle is None

    def abort_transport(self) -> None:
        self.transport.write(frame(self._number, "reset"))
        self.parts &= ~Pending.CONNECTION

    def _deadline_passed(self, phase: Phase) -> None:
        if self.cycle is not None and self.cycle.deadline_applies(phase) is not False:
            self.cycle.deadline_passed(phase)


class FrameConnection:
    """
    A connection of frames.

    @ivar said: what the client has got.
    """

    def __init__(
        self, handler: type[HTTPRequestHandler], *, blocks: bool = False, **deadlines: float
    ) -> None:
        self.reactor = SteppedReactor()
        self.executor = SteppedExecutor()
        self.factory = StreamFactory(
            handler,
            reactor=self.reactor,
            deadlines=Deadlines(**(NEVER | deadlines)),
            concurrency=self.executor if blocks else None,
        )
        self.records: list[Any] = []
        self.factory.observers.append(self.records.append)
        self.settings = HTTPSettings(self.factory)
        self.make_cycle = cycle_maker(self.settings)
        self.said = bytearray()
        self.streams: dict[int, Stream] = {}

    def send(self, number: int, kind: str, data: bytes = b"") -> None:
        """The client sends a frame."""
        if kind == "head":
            self.streams[number] = stream = Stream(self, number)
            stream.head_received(parse_head(data, False))
        elif kind == "data":
            self.streams[number].data_received(data)
        else:
            self.streams[number].end_received()
        self.reactor.turn()

    def frames(self) -> list[tuple[int, str, bytes]]:
        """What the client has got since the last time."""
        self.reactor.turn()
        found, said = [], bytes(self.said)
        self.said.clear()
        while said:
            line, _, said = said.partition(b"\n")
            number, kind, size = line.split()
            found.append((int(number), kind.decode(), said[: int(size)]))
            said = said[int(size) :]
        return found


@pytest.fixture
def connect(no_leaks: None) -> Iterator[Callable[..., FrameConnection]]:
    made: list[FrameConnection] = []

    def make(*arguments: Any, **options: Any) -> FrameConnection:
        made.append(FrameConnection(*arguments, **options))
        return made[-1]

    yield make
    for connection in made:
        assert connection.reactor.getDelayedCalls() == []
        assert all(stream.cycle is None for stream in connection.streams.values())


Connect = Callable[..., FrameConnection]

GET = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /%d HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK"


def begin(handler: Any) -> None:
    handler.send_response(200)
    handler.end_headers()


def test_coroutines_answer_requests_of_one_connection_side_by_side(connect: Connect) -> None:
    waiting: dict[str, Deferred[bytes]] = {}

    class Handler(HTTPRequestHandler):
        async def do_GET(self) -> None:
            begin(self)
            waiting[self.path] = Deferred()
            self.wfile.write(await waiting[self.path])

    client = connect(Handler)
    client.send(1, "head", GET % 1)
    client.send(3, "head", GET % 3)
    assert client.frames() == [(1, "head", OK), (3, "head", OK)]
    waiting["/3"].callback(b"three")
    assert client.frames() == [(3, "data", b"three"), (3, "end", b"")]
    waiting["/1"].callback(b"one")
    assert client.frames() == [(1, "data", b"one"), (1, "end", b"")]
    assert [record.request_line for record in client.records] == [
        "GET /3 HTTP/1.1",
        "GET /1 HTTP/1.1",
    ]
    assert client.factory.statistics.requests == 2


def test_each_coroutine_reads_the_body_of_its_own_request(connect: Connect) -> None:
    class Handler(HTTPRequestHandler):
        async def do_POST(self) -> None:
            body = await self.rfile.read()
            begin(self)
            self.wfile.write(body)

    client = connect(Handler)
    client.send(1, "head", POST % 1)
    client.send(3, "head", POST % 3)
    client.send(1, "data", b"o")
    client.send(3, "data", b"three")
    client.send(1, "data", b"ne")
    assert client.frames() == []
    client.send(3, "end")
    client.send(1, "end")
    assert [each for each in client.frames() if each[1] == "data"] == [
        (3, "data", b"three"),
        (1, "data", b"one"),
    ]


def test_a_client_that_waits_to_be_asked_is_asked_by_the_owner(connect: Connect) -> None:
    class Handler(HTTPRequestHandler):
        async def do_POST(self) -> None:
            body = await self.rfile.read()
            begin(self)
            self.wfile.write(body)

    client = connect(Handler)
    client.send(1, "head", (POST % 1).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert client.frames() == [(1, "ask", b"")]
    client.send(1, "data", b"body")
    client.send(1, "end")
    assert client.frames()[-2:] == [(1, "data", b"body"), (1, "end", b"")]


def test_a_blocking_handler_answers_in_frames_too(connect: Connect) -> None:
    class Handler(HTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read()
            begin(self)
            self.wfile.write(body.upper())

    client = connect(Handler, blocks=True)
    client.send(1, "head", POST % 1)
    client.send(1, "data", b"bo")
    client.send(1, "data", b"dy")
    assert client.executor.jobs == []
    client.send(1, "end")
    client.executor.step()
    assert client.frames() == [(1, "head", OK), (1, "data", b"BODY"), (1, "end", b"")]


def test_the_kind_is_chosen_for_each_request(connect: Connect) -> None:
    class Handler(HTTPRequestHandler):
        async def do_GET(self) -> None:
            begin(self)

        def do_POST(self) -> None:
            begin(self)

    client = connect(Handler, blocks=True)
    client.send(1, "head", POST % 1)
    client.send(3, "head", GET % 3)
    client.send(1, "end")
    assert client.frames() == [(3, "head", OK), (3, "end", b"")]
    client.executor.step()
    assert client.frames() == [(1, "head", OK), (1, "end", b"")]


def test_a_deadline_of_one_request_leaves_the_others_alone(connect: Connect) -> None:
    waiting: list[Deferred[None]] = []

    class Handler(HTTPRequestHandler):
        async def do_GET(self) -> None:
            waiting.append(Deferred())
            await waiting[-1]
            begin(self)

    client = connect(Handler, handle=2)
    client.send(1, "head", GET % 1)
    client.reactor.advance(1)
    client.send(3, "head", GET % 3)
    client.reactor.advance(1)
    assert [each[:2] for each in client.frames()] == [(1, "head"), (1, "data"), (1, "end")]
    waiting[1].callback(None)
    assert client.frames() == [(3, "head", OK), (3, "end", b"")]
    assert [record.status for record in client.records] == [504, 200]


def test_a_handler_that_fails_after_its_head_resets_its_stream_only(connect: Connect) -> None:
    waiting: list[Deferred[None]] = []

    class Handler(HTTPRequestHandler):
        async def do_GET(self) -> None:
            begin(self)
            waiting.append(Deferred())
            await waiting[-1]

    client = connect(Handler)
    client.send(1, "head", GET % 1)
    client.send(3, "head", GET % 3)
    client.frames()
    waiting[0].errback(ValueError("a handler's"))
    assert client.frames() == [(1, "reset", b"")]
    waiting[1].callback(None)
    assert client.frames() == [(3, "end", b"")]
