"""What a coroutine handler sees of HTTP: its connection, and the stream of the request's body."""

import socket
from typing import Any

import pytest

from sockserve import DeadlineExpired
from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.http.requests import BodyReader, RequestConnection
from sockserve.interfaces import Phase
from sockserve.streams.departure import Departure
from sockserve.streams.reader import StreamReader
from tests.transports import Call, Connection

CLIENT = ("192.0.2.1", 50000)
SERVER = ("192.0.2.2", 7000)

#: No deadline but the one a test is about.
NEVER = dict.fromkeys(["idle", "header", "body", "body_rate"])


class Request(Connection):
    """
    The stream of a body, and a clock to turn.

    @ivar asked: how many times the client was asked for the body.
    """

    reader: BodyReader

    def __init__(self, **deadlines: Any) -> None:
        super().__init__(**(NEVER | deadlines))
        self.asked = 0
        given = Deadlines(**(NEVER | deadlines))
        self.reader = BodyReader(self.transport, given, self.timer, self._ask)

    def _ask(self) -> None:
        self.asked += 1

    def _passed(self, phase: Phase) -> None:
        if self.reader.deadline_applies(phase):
            self.expired.append((self.clock.seconds(), phase))
            self.reader.fail(DeadlineExpired(phase))

    def read(self, size: int) -> Call:
        return Call(self.reader.readexactly(size))


# The body


def test_a_client_is_asked_for_the_body_by_the_first_read_that_waits() -> None:
    request = Request()
    assert request.asked == 0
    first = request.read(2)
    assert request.asked == 1
    request.reader.feed(b"ab")
    assert first.result() == b"ab"
    request.read(2)
    assert request.asked == 1


def test_a_client_that_has_sent_the_body_is_not_asked_for_it() -> None:
    request = Request()
    request.reader.feed(b"body")
    assert request.read(4).result() == b"body"
    assert request.asked == 0


def test_nobody_need_be_asked() -> None:
    timer = DeadlineTimer(Request().clock, lambda phase: None)
    reader = BodyReader(Request().transport, Deadlines(**NEVER), timer)
    read = Call(reader.read(10))
    reader.feed(b"body")
    assert read.result() == b"body"
    timer.stop()


def test_the_body_deadline_counts_what_reads_wait_and_not_what_the_handler_takes() -> None:
    """4 s of 10 are waited; the handler takes 100; 6 are left for the next reads together."""
    request = Request(body=10)
    first = request.read(1)
    request.advance(4)
    request.reader.feed(b"1")
    assert first.result() == b"1"
    request.advance(100)
    second = request.read(2)
    request.advance(3)
    request.reader.feed(b"2")  # a part only: the read goes on
    request.advance(2)
    assert second.waiting
    request.advance(1)
    assert request.expired == [(110, Phase.BODY)]
    with pytest.raises(DeadlineExpired) as expiry:
        second.result()
    assert expiry.value.phase is Phase.BODY


def test_bytes_that_come_between_two_reads_cost_no_time() -> None:
    """3 s of 10 are waited, and later 7."""
    request = Request(body=10)
    first = request.read(1)
    request.advance(3)
    request.reader.feed(b"1")
    first.result()
    request.advance(50)
    request.reader.feed(b"2")
    assert request.read(1).result() == b"2"
    last = request.read(1)
    request.advance(6)
    assert last.waiting
    request.advance(1)
    assert request.expired == [(60, Phase.BODY)]


def test_bytes_earn_time() -> None:
    """At 1 byte a second 100 bytes are worth 100 s, of which 4 were waited: until 100."""
    request = Request(body_rate=1)
    read = request.read(200)
    request.advance(4)
    request.reader.feed(b"x" * 100)
    request.advance(95)
    assert read.waiting
    request.advance(1)
    assert request.expired == [(100, Phase.BODY)]


def test_silence_lasts_no_longer_than_idle_whatever_was_earned() -> None:
    """As above, but 10 s after the last byte: 4 + 10 = 14."""
    request = Request(body_rate=1, idle=10)
    request.read(200)
    request.advance(4)
    request.reader.feed(b"x" * 100)
    request.advance(10)
    assert request.expired == [(14, Phase.BODY)]


def test_a_timeout_of_the_handlers_own_ends_its_read_and_nothing_else() -> None:
    """2 s each, and the deadline of the body does not count meanwhile."""
    request = Request(body=5)
    request.reader.settimeout(2)
    for _ in range(4):
        read = request.read(1)
        request.advance(2)
        with pytest.raises(TimeoutError):
            read.result()
    assert request.expired == []
    read = request.read(1)
    request.reader.feed(b"x")
    assert read.result() == b"x"


def test_idle_of_the_connection_says_nothing_of_a_body() -> None:
    """It was armed before the request came, and passes now that its body is waited for."""
    request = Request(idle=10)
    request.timer.arm(Phase.IDLE, 3)
    read = request.read(1)
    request.advance(9)
    assert request.expired == []
    assert read.waiting
    request.advance(1)
    assert request.expired == [(10, Phase.BODY)]


def test_a_read_that_has_ended_in_time_is_not_late_afterwards() -> None:
    request = Request(body=10)
    read = request.read(1)
    request.advance(9)
    request.reader.feed(b"x")
    read.result()
    request.advance(60)
    assert request.expired == []


@pytest.mark.parametrize("phase", [Phase.HANDLE, Phase.LIFETIME, Phase.DRAIN])
def test_the_deadlines_of_others_apply(phase: Phase) -> None:
    assert Request().reader.deadline_applies(phase)


# The connection


class Response:
    """
    A response that holds something back.

    @ivar connection: where it goes.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def flush(self) -> None:
        self.connection.writer.write(b"held back")


class Cycle:
    """
    A cycle under way.

    @ivar body: of the request, once somebody has asked for it.
    """

    body: StreamReader | None = None

    def open_body(self) -> StreamReader:
        self.body = Request().reader
        return self.body


class Served:
    """
    A connection with all that is below it.

    @ivar closings: how often it was closed, with what had been written by then.
    """

    def __init__(self) -> None:
        self.below = Connection()
        self.closings: list[bytes] = []
        departure = Departure(self.below.timer, Deadlines(), cancels=True)
        self.request = RequestConnection(
            self.below.transport, self.below.writer, (CLIENT, SERVER), self._close, departure, None
        )

    def _close(self) -> None:
        self.closings.append(self.sent)

    def respond(self) -> None:
        """A request is being answered."""
        self.request.response = Response(self.below)  # type: ignore[assignment]

    @property
    def sent(self) -> bytes:
        self.below.transport.make_room(0)
        return self.below.transport.sent


def test_it_says_whose_it_is() -> None:
    request = Served().request
    assert (request.getpeername(), request.getsockname()) == (CLIENT, SERVER)
    assert repr(request) == "<RequestConnection peer=('192.0.2.1', 50000)>"


def test_the_body_is_opened_when_somebody_asks_for_it() -> None:
    request = Served().request
    request.cycle = cycle = Cycle()
    assert cycle.body is None
    assert request.rfile is cycle.body


def test_tls_is_not_started_over_http() -> None:
    with pytest.raises(RuntimeError, match="listened for with tls: or ssl:"):
        Call(Served().request.start_tls(None)).result()


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_the_output_ends_behind_what_was_held_back(how: int) -> None:
    served = Served()
    served.respond()
    served.request.shutdown(how)
    assert served.sent == b"held back"
    assert served.below.transport.write_ended


def test_the_end_of_the_input_is_none_of_the_output() -> None:
    served = Served()
    served.respond()
    served.request.shutdown(socket.SHUT_RD)
    assert served.sent == b""
    assert not served.below.transport.write_ended


def test_what_was_held_back_leaves_before_the_connection_is_closed() -> None:
    served = Served()
    served.respond()
    served.request.close()
    assert served.closings == [b"held back"]


def test_it_can_be_closed_before_there_is_a_response() -> None:
    """An override of C{verify_request} may."""
    served = Served()
    served.request.close()
    assert served.closings == [b""]
