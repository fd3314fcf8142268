"""
HTTP connections of coroutine handlers in memory, on a clock that the tests turn: which
deadline ends what, with which answer.
"""

from http.client import HTTPResponse
from io import BytesIO
from random import Random

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from sockserve import DeadlineExpired, Deadlines
from sockserve.http import HTTPRequestHandler
from sockserve.listeners.stream_factory import StreamFactory

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"

#: None but the one a test is about.
NEVER = dict.fromkeys(["handshake", "idle", "header", "body", "body_rate", "write"])


class MemoryTransport(StringTransport):
    """
    Ends as TCP does: in the next turn.

    @ivar ended: C{closed} or C{aborted}, once it has.
    """

    ended = None

    def __init__(self, clock):
        super().__init__()
        self._clock = clock

    def setTcpNoDelay(self, enabled):
        """Memory does not delay."""

    def loseWriteConnection(self):
        """Nothing is written after it."""

    def loseConnection(self):
        self._end("closed", ConnectionDone())

    def abortConnection(self):
        self._end("aborted", ConnectionAborted())

    def _end(self, how, reason):
        if self.ended is None:
            self.ended = how
            self._clock.callLater(0, self.protocol.connectionLost, Failure(reason))


class Client:
    """
    A client of a coroutine handler.

    @ivar ended: how the server has ended the connection, or None.
    """

    def __init__(self, handler, **deadlines):
        self.clock = Clock()
        self.server = StreamFactory(handler, reactor=self.clock, deadlines=Deadlines(**deadlines))
        self.transport = MemoryTransport(self.clock)
        self.transport.protocol = self.server.buildProtocol(None)
        self.transport.protocol.makeConnection(self.transport)

    def send(self, data):
        self.transport.protocol.dataReceived(data)
        self.clock.pump([0, 0])

    def advance(self, seconds):
        """Second by second, so that what follows from an expiry has its time."""
        self.clock.pump([1] * seconds + [0, 0])

    def trickle(self, data, seconds):
        """A byte each C{seconds}, until the server ends the connection; when that was."""
        for at in range(len(data)):
            self.send(data[at : at + 1])
            self.advance(seconds)
            if self.ended:
                break
        return self.clock.seconds()

    @property
    def ended(self):
        return self.transport.ended

    @property
    def said(self):
        return self.transport.value()

    @property
    def expiries(self):
        return self.server.statistics.snapshot()["expiries"]

    def answer(self):
        """The only response: status, C{Connection}, and how many bytes of a body."""
        file = BytesIO(self.said)
        file.makefile = lambda mode: file
        response = HTTPResponse(file)
        response.begin()
        return response.status, response.headers["Connection"], len(response.read())

    def status(self):
        return self.answer()[:2]


@pytest.fixture(autouse=True)
def logged():
    """What is logged, each event as text."""
    texts = []

    def observe(event):
        texts.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield texts
    globalLogPublisher.removeObserver(observe)


class Hello(HTTPRequestHandler):
    async def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"Hello, world!")

    async def do_POST(self):
        await self.rfile.read()
        await self.do_GET()


class Stuck(Hello):
    """Waits for what does not come, before its response or, when asked so, within it."""

    async def do_GET(self):
        if self.path == "/begun":
            await super().do_GET()
        await Deferred()


def only(**deadlines):
    return NEVER | deadlines


# Requests of all kinds, one after another


class Various(HTTPRequestHandler):
    """Does, letter by letter, what its path says; then tells the path and what it has read."""

    async def do_POST(self):
        read = 0
        for step in self.path[1:]:
            if step == "w":
                await deferLater(self.server.reactor, 1)
            elif step == "r":
                read += len(await self.rfile.read(1000))
            elif step == "a":
                read += len(await self.rfile.read())
            elif step == "s":
                self.send_response(200)
                self.end_headers()
            elif step == "f":
                self.wfile.flush()
        self.wfile.write(f"{self.path} {read}".encode())


@pytest.mark.parametrize("seed", range(40))
def test_each_request_has_its_answer_however_it_is_sent_read_and_answered(seed):
    """Every read of a body to its end finds all of it, and nothing of what follows."""
    random = Random(seed)
    client = Client(Various)
    data, expected = b"", []
    for _ in range(40):
        steps = [random.choice("wraf") for _ in range(random.randrange(5))]
        steps.insert(random.randrange(len(steps) + 1), "s")
        # Nothing to flush before there is a head.
        path = "/" + "".join(steps[: steps.index("s")]).replace("f", "")
        path += "".join(steps[steps.index("s") :])
        size = random.choice([0, 1, 999, 5000, 100_000])
        if random.random() < 0.5:
            data += b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (
                path.encode(),
                size,
            )
            data += b"x" * size
        else:
            data += (
                b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path.encode()
            )
            data += (b"%x\r\n%b\r\n" % (size, b"x" * size) if size else b"") + b"0\r\n\r\n"
        expected.append((path, size))
    while data:
        if client.transport.producerState == "paused":
            client.advance(1)
            continue
        size = random.choice([1, 10, 1000, 65536])
        client.send(data[:size])
        data = data[size:]
        if random.random() < 0.01:
            client.advance(1)
    client.advance(200)  # each waits 4 s at most, and has begun when all was sent
    file = BytesIO(client.said)
    file.close = lambda: None
    file.makefile = lambda mode: file
    for path, size in expected:
        response = HTTPResponse(file)
        response.begin()
        shown, _, read = response.read().decode().partition(" ")
        assert shown == path
        assert int(read) == size if "a" in path else int(read) <= size
    assert file.read() == b""
    assert client.expiries == {}


# Header


def test_header_is_for_the_whole_head(logged):
    client = Client(Hello, **only(header=30))
    # A byte each 10 s: the head has begun at 0 s, and is not whole at 30 s.
    assert client.trickle(GET, 10) == 30
    assert client.status() == (408, "close")
    assert client.ended == "closed"
    assert client.expiries == {"header": 1}
    assert any("the header deadline expired" in text for text in logged)


def test_header_begins_with_each_head():
    client = Client(Hello, **only(header=30))
    for _ in range(3):
        # 2 * 20 s between, no more than 20 s for a head.
        client.send(GET[:20])
        client.advance(20)
        client.send(GET[20:])
        client.advance(20)
    assert client.said.count(b"Hello, world!") == 3
    client.send(GET + GET[:20])
    client.advance(29)
    assert not client.ended
    client.advance(1)
    assert client.expiries == {"header": 1}


# Idle


def test_an_idle_connection_ends_without_a_word(logged):
    silent, once = Client(Hello, **only(idle=60)), Client(Hello, **only(idle=60))
    once.advance(50)
    once.send(GET)
    said = once.said
    # From accept: 60 s.  From the answer at 50 s: 110 s.
    for client, more, before in [(silent, 60, b""), (once, 60, said)]:
        client.advance(more - 1)
        assert not client.ended
        client.advance(1)
        assert (client.ended, client.said) == ("closed", before)
        assert client.expiries == {"idle": 1}
    assert logged == []


def test_an_idle_connection_has_no_dictionary_of_its_own():
    client = Client(Hello)
    client.send(GET)
    (channel,) = client.server.channels.values()
    # Thousands are idle at once: beyond 29 attributes each had 1.5 KiB of names.
    assert not hasattr(channel, "__dict__")


def test_empty_lines_are_no_request():
    client = Client(Hello, **only(idle=60))
    # An empty line each 10 s is ignored, also by the deadline: 60 s.
    assert client.trickle(b"\r\n" * 20, 5) == 60
    assert (client.expiries, client.said) == ({"idle": 1}, b"")


def test_idle_is_not_for_a_request_in_service():
    client = Client(Stuck, **only(idle=60))
    client.send(GET)
    client.advance(600)
    assert not client.ended


# Body


def test_body_is_total_of_what_is_waited(logged):
    client = Client(Hello, **only(body=30))
    client.send(POST % 100)
    # A byte each 10 s: 30 s after the first wait.
    assert client.trickle(b"x" * 100, 10) == 30
    assert client.status() == (408, "close")
    assert client.expiries == {"body": 1}
    assert client.server.statistics.errors == 0
    assert any("the body deadline expired" in text for text in logged)


@pytest.mark.parametrize(
    ("rate", "ends"),
    [
        (50, 5),  # 5 s are free; by then 250 bytes of the 500 asked for have come
        (110, 0),
        (1000, 0),
    ],
)
def test_body_has_a_least_rate(rate, ends):
    client = Client(Hello, **only(body_rate=100))
    client.send(POST % (rate * 20))
    for _ in range(20):
        client.send(b"x" * rate)
        client.advance(1)
        if client.ended:
            break
    if ends:
        assert client.clock.seconds() == pytest.approx(ends, abs=1)
        assert client.status() == (408, "close")
        assert client.expiries == {"body": 1}
    else:
        assert client.status() == (200, None)


def test_body_does_not_count_what_the_handler_takes():
    class Slow(Hello):
        async def do_POST(self):
            await deferLater(self.server.reactor, 100)
            await super().do_POST()

    client = Client(Slow, **only(body=30))
    client.send(POST % 2 + b"x")
    client.advance(120)  # the handler's 100 s, and 20 s of waiting
    client.send(b"x")
    assert client.status() == (200, None)


def test_a_body_nobody_reads_does_not_hold_the_connection():
    client = Client(Hello, **only(header=30))
    client.send(POST.replace(b"POST", b"GET") % 1000)
    assert client.status() == (200, None)
    # What is left of it has as long as a head.
    assert client.trickle(b"x" * 1000, 10) == 30
    assert client.ended == "closed"
    assert client.expiries == {"body": 1}


# Handle


def test_handle_is_answered_when_no_response_has_begun(logged):
    client = Client(Stuck, **only(handle=20))
    client.send(GET)
    client.advance(19)
    assert client.said == b""
    client.advance(1)
    assert client.status() == (504, "close")
    assert client.ended == "closed"
    assert client.expiries == {"handle": 1}
    assert any("the handle deadline expired" in text for text in logged)


def test_handle_cuts_off_what_has_begun():
    client = Client(Stuck, **only(handle=20))
    client.send(GET.replace(b"/ ", b"/begun "))
    client.advance(20)
    assert client.ended == "aborted"
    # Chunked, and without the last chunk.
    assert client.said.endswith(b"\r\nd\r\nHello, world!\r\n")


def test_handle_begins_with_each_request():
    class Slow(Hello):
        async def do_GET(self):
            await deferLater(self.server.reactor, 15)
            await super().do_GET()

    client = Client(Slow, **only(handle=20))
    for number in (1, 2, 3):
        client.advance(10)
        client.send(GET)
        client.advance(15)
        assert client.said.count(b"Hello, world!") == number
    assert client.expiries == {}


def test_a_handler_may_have_an_answer_of_its_own_but_it_is_the_last():
    class Prepared(HTTPRequestHandler):
        async def do_GET(self):
            try:
                await Deferred()
            except DeadlineExpired as error:
                self.send_error(503, str(error))

    client = Client(Prepared, **only(handle=20))
    client.send(GET * 2)
    client.advance(20)
    assert client.status() == (503, "close")
    assert client.ended == "closed"
    assert client.expiries == {"handle": 1}


def test_a_handler_that_does_not_care_is_given_up():
    class Deaf(HTTPRequestHandler):
        async def do_GET(self):
            while True:
                try:
                    await Deferred()
                except DeadlineExpired:
                    pass

    client = Client(Deaf, **only(handle=20))
    client.send(GET)
    # Its deadline, and 5 s to come to its end.
    client.advance(24)
    assert not client.ended
    client.advance(1)
    assert client.ended == "aborted"
    assert client.server.statistics.active == 0
    assert client.expiries == {"handle": 1}


# Write


@pytest.mark.parametrize("drains", [True, False])
def test_write_ends_a_client_that_does_not_read(drains, logged):
    raised = []

    class Large(Hello):
        async def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * 2**20)
            if drains:
                try:
                    await self.wfile.drain()
                except DeadlineExpired as error:
                    raised.append(error.phase)
                    raise

    client = Client(Large, **only(write=60))
    client.transport.producer.pauseProducing()
    client.send(GET)
    client.advance(59)
    assert not client.ended
    client.advance(1)
    assert client.ended == "aborted"
    assert client.expiries == {"write": 1}
    assert raised == (["write"] if drains else [])
    assert any("the write deadline expired" in text for text in logged)


# Lifetime


@pytest.mark.parametrize(
    ("handler", "said", "status", "ended"),
    [
        (Hello, b"", None, "closed"),
        (Hello, GET[:20], (504, "close"), "closed"),
        (Stuck, GET, (504, "close"), "closed"),
        (Hello, POST % 9 + b"x", (504, "close"), "closed"),
        (Stuck, GET.replace(b"/ ", b"/begun "), None, "aborted"),
    ],
)
def test_lifetime_ends_whatever_happens(handler, said, status, ended, logged):
    client = Client(handler, **only(lifetime=13))
    client.send(said)
    client.advance(12)
    assert not client.ended
    client.advance(1)
    assert client.ended == ended
    assert client.expiries == {"lifetime": 1}
    assert any("the lifetime deadline expired" in text for text in logged)
    if status:
        assert client.status() == status


# Drain


class Later(Hello):
    """Answers after 5 s."""

    async def do_GET(self):
        await deferLater(self.server.reactor, 5)
        await super().do_GET()


@pytest.mark.parametrize("said", [b"", GET])
def test_when_the_service_stops_connections_that_are_quiet_end_at_once(said):
    """For 1 s (Deadlines.quiet), since they came or were answered."""
    client = Client(Hello)
    client.advance(5)
    client.send(said)
    client.advance(1)
    drained = client.server.drain()
    client.advance(0)
    assert client.ended == "closed"
    assert drained.called
    assert client.expiries == {}


@pytest.mark.parametrize("said", [b"", GET, GET + b"\r\n"])
def test_when_the_service_stops_others_end_as_soon_as_they_are_quiet(said):
    """1 s after 0.75 s, in which the drain begins."""
    client = Client(Hello)
    client.send(said)
    client.clock.advance(0.75)
    drained = client.server.drain()
    client.clock.advance(0.125)
    assert not client.ended
    client.clock.advance(0.125)
    assert client.ended == "closed"
    assert drained.called
    assert client.expiries == {}


@pytest.mark.parametrize("said", [b"", GET, GET + b"\r\n"])
def test_when_the_service_stops_a_request_on_its_way_is_answered(said):
    client = Client(Hello)
    client.send(said)
    drained = client.server.drain()
    client.clock.advance(0.5)
    client.send(b"\r\n")
    client.clock.advance(0.25)
    client.send(GET)
    client.advance(0)
    assert client.said.count(b"HTTP/1.1 200 ") == 1 + bool(said)
    assert client.said.count(b"Connection: close") == 1
    assert client.ended == "closed"
    assert drained.called
    assert client.expiries == {}


@pytest.mark.parametrize("before", [GET, GET[:20]])
def test_when_the_service_stops_a_request_is_answered_and_is_the_last(before):
    client = Client(Later, drain=10)
    client.send(before)
    drained = client.server.drain()
    client.send(GET[20:] if before != GET else b"")
    client.advance(4)
    assert not client.ended
    client.advance(1)
    assert client.status() == (200, "close")
    client.send(GET)
    client.advance(5)
    assert client.said.count(b"HTTP/1.1 200 ") == 1
    assert client.ended == "closed"
    assert drained.called
    assert client.expiries == {}


@pytest.mark.parametrize("body", [b"", b"hello"])
@pytest.mark.parametrize("when", ["before", "while it is answered"])
def test_when_the_service_stops_the_last_that_has_arrived_is_the_last(when, body):
    """The first takes 5 s, and so does each of those behind it."""
    request = (POST % len(body) + body) if body else GET
    client = Client(Later, drain=60)
    client.send(request * 3 if when == "before" else request)
    drained = client.server.drain()
    client.advance(4)
    if when != "before":
        client.send(request * 2)
    for _ in range(11):
        client.advance(1)
    assert client.said.count(b"HTTP/1.1 200 ") == 3
    assert client.said.rindex(b"HTTP/1.1 200 ") < client.said.index(b"Connection: close")
    assert client.ended == "closed"
    assert drained.called
    assert client.expiries == {}


def test_when_the_service_stops_a_client_still_gets_what_waits_for_it():
    class Large(HTTPRequestHandler):
        async def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * 2**20)

    client = Client(Large, drain=10)
    full = client.transport.producer
    full.pauseProducing()
    client.send(GET)
    drained = client.server.drain()
    client.advance(5)
    assert not client.ended
    full.resumeProducing()
    client.advance(0)
    assert client.said.endswith(b"x\r\n0\r\n\r\n")
    client.advance(1)  # its head has left before, and did not say that it was the last
    assert client.ended == "closed"
    assert drained.called
    assert client.expiries == {}


def test_drain_ends_what_does_not_end_by_itself(logged):
    client = Client(Stuck, drain=10)
    client.send(GET)
    drained = client.server.drain()
    client.advance(9)
    assert not drained.called
    client.advance(1)
    assert client.ended
    assert drained.called
    assert client.expiries == {"drain": 1}
    assert any("the drain deadline expired" in text for text in logged)


# The defaults


@pytest.mark.parametrize(
    ("first", "then", "every", "by"),
    [
        (b"", GET[:-2] + b"X: y\r\n" * 1000, 5, 30),  # slowloris: header
        (POST % 10**6, b"x" * 1000, 1, 5),  # R.U.D.Y.: body, by its least rate
        (b"", b"\r\n" * 1000, 1, 300),  # idle
        (GET, b"\r\n" * 1000, 1, 300),
        (POST.replace(b"POST", b"GET") % 1000, b"x" * 1000, 5, 30),  # a body nobody reads
    ],
)
def test_with_no_options_a_slow_client_does_not_hold_a_connection(first, then, every, by):
    client = Client(Hello)
    client.send(first)
    assert client.trickle(then, every) <= by
    assert client.ended == "closed"
    assert client.server.statistics.active == 0


def test_requests_that_come_together_are_answered_together_also_when_answers_come_alone():
    """However many turns before had one answer each, which then leaves at once."""

    class Handler(HTTPRequestHandler):
        async def do_GET(self):
            self.send_response(200)
            self.end_headers()

    client, pieces = Client(Handler), []
    write = client.transport.write
    client.transport.write = lambda data: pieces.append(data) or write(data)
    for _ in range(50):
        client.send(GET)
    pieces.clear()
    client.send(3 * GET)
    assert [piece.count(b"HTTP/1.1 200") for piece in pieces] == [3]
