"""Calls in memory: each answer that RFC 5531 knows, over streams and datagrams."""

import socket
import struct
import types
from asyncio import IncompleteReadError
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from sockserve import ConfigurationError, PeerError, socketserver
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.sunrpc import (
    AuthError,
    AuthStat,
    AuthSys,
    Call,
    DecodeError,
    Int,
    Max,
    RPCRequestHandler,
    Struct,
    loads,
    pack,
    procedure,
)
from sockserve.sunrpc.messages import make_call
from sockserve.sunrpc.records import fragments
from sockserve.testing import StreamExchange, run_datagram, run_stream

PROGRAM, XID = 0x20000099, 7
WHO = AuthSys(1, "host", 1000, 100, [1, 2])


class Pair(Struct):
    left: Int
    right: Int


class Coroutines(RPCRequestHandler):
    program = PROGRAM
    waited: Deferred[None] | None = None

    @procedure(1, version=(2, 3))
    async def add(self, pair: Pair) -> Int:
        return pair.left + pair.right

    @procedure(2, version=2)
    async def say(self, times: Int, what: Annotated[str, Max(10)]) -> str:
        return what * times

    @procedure(3, version=2)
    async def fail(self) -> None:
        raise ValueError("broken")

    @procedure(4, version=2)
    async def wrong(self) -> Int:
        return "text"  # type: ignore[return-value]

    @procedure(5, version=2)
    async def who(self) -> str:
        return repr(self.call.credentials)

    @procedure(6, version=2)
    async def wait(self) -> None:
        Coroutines.waited = Deferred()
        await Coroutines.waited

    async def verify_request(  # type: ignore[override]
        self, call: Call, client_address: object
    ) -> bool:
        if call.procedure == 5 and call.credentials is not None and call.credentials.uid == 0:
            raise AuthError(AuthStat.REJECTEDCRED)
        if call.procedure == 5 and call.version == 2 and call.credentials == WHO._replace(uid=1):
            raise ZeroDivisionError
        return call.procedure != 5 or call.credentials is not None


class Blocking(RPCRequestHandler):
    program = PROGRAM

    @procedure(1, version=(2, 3))
    def add(self, pair: Pair) -> Int:
        return pair.left + pair.right

    @procedure(2, version=2)
    def say(self, times: Int, what: Annotated[str, Max(10)]) -> str:
        return what * times

    @procedure(3, version=2)
    def fail(self) -> None:
        raise ValueError("broken")

    @procedure(4, version=2)
    def wrong(self) -> Int:
        return "text"  # type: ignore[return-value]

    @procedure(5, version=2)
    def who(self) -> str:
        return repr(self.call.credentials)

    def verify_request(self, call: Call, client_address: object) -> bool:
        if call.procedure == 5 and call.credentials is not None and call.credentials.uid == 0:
            raise AuthError(AuthStat.REJECTEDCRED)
        if call.procedure == 5 and call.version == 2 and call.credentials == WHO._replace(uid=1):
            raise ZeroDivisionError
        return call.procedure != 5 or call.credentials is not None


def words(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def accepted(stat: int, results: bytes = b"") -> bytes:
    return words(XID, 1, 0, 0, 0, stat) + results


def call(
    number: int, arguments: bytes = b"", version: int = 2, who: AuthSys | None = None
) -> bytes:
    return make_call(XID, PROGRAM, version, number, arguments, who)


def changed(data: bytes, index: int, *numbers: int) -> bytes:
    """Other words in the place of some of a message's."""
    return data[: index * 4] + words(*numbers) + data[(index + len(numbers)) * 4 :]


DENIED = words(XID, 1, 1, 1)

EXCHANGES = {
    "null": (call(0), accepted(0)),
    "a structure": (call(1, pack(Pair, Pair(40, 2))), accepted(0, words(42))),
    "of another version": (call(1, pack(Pair, Pair(1, 1)), 3), accepted(0, words(2))),
    "two arguments": (call(2, words(2) + pack(str, "ab")), accepted(0, pack(str, "abab"))),
    "PROG_UNAVAIL": (make_call(XID, 1, 2, 0), accepted(1)),
    "PROG_MISMATCH": (call(0, version=4), accepted(2, words(2, 3))),
    "PROC_UNAVAIL": (call(9), accepted(3)),
    "PROC_UNAVAIL of a version": (call(2, version=3), accepted(3)),
    "GARBAGE_ARGS, none": (call(1), accepted(4)),
    "GARBAGE_ARGS, more": (call(1, words(1, 2, 3)), accepted(4)),
    "GARBAGE_ARGS, of null": (call(0, words(1)), accepted(4)),
    "GARBAGE_ARGS, too long": (call(2, words(1) + pack(str, "x" * 11)), accepted(4)),
    "SYSTEM_ERR": (call(3), accepted(5)),
    "SYSTEM_ERR, not the type": (call(4), accepted(5)),
    "SYSTEM_ERR, verify_request": (call(5, who=WHO._replace(uid=1)), accepted(5)),
    "AUTH_SYS": (call(5, who=WHO), accepted(0, pack(str, repr(WHO)))),
    "AUTH_TOOWEAK": (call(5), DENIED + words(5)),
    "AUTH_REJECTEDCRED": (call(5, who=WHO._replace(uid=0)), DENIED + words(2)),
    "AUTH_BADCRED, no AUTH_SYS": (changed(call(1), 6, 1), DENIED + words(1)),
    "AUTH_BADCRED, too long": (changed(call(1), 7, 401) + bytes(500), DENIED + words(1)),
    "AUTH_BADCRED, cut off": (changed(call(1), 7, 300), DENIED + words(1)),
    "AUTH_REJECTEDCRED, unknown": (changed(call(1), 6, 6), DENIED + words(2)),
    "AUTH_BADVERF, cut off": (call(1)[:32], DENIED + words(3)),
    "AUTH_BADVERF, too long": (changed(call(1), 9, 404) + bytes(404), DENIED + words(3)),
    "RPC_MISMATCH": (changed(call(1), 2, 3), words(XID, 1, 1, 0, 2, 2)),
    "RPC_MISMATCH, short": (words(XID, 0, 3), words(XID, 1, 1, 0, 2, 2)),
}
each_exchange = pytest.mark.parametrize(("data", "reply"), EXCHANGES.values(), ids=list(EXCHANGES))
each_handler = pytest.mark.parametrize("handler", [Coroutines, Blocking])
no_calls = pytest.mark.parametrize(
    "data", [b"", b"garbage", bytes(11), changed(call(0), 1, 1), call(0)[:20]]
)


def record(*calls: bytes) -> bytes:
    return b"".join(piece for data in calls for piece in fragments(data))


@each_handler
@each_exchange
def test_a_call_on_a_stream_is_answered(handler: Any, data: bytes, reply: bytes) -> None:
    exchange = run_stream(handler, record(data, call(0)))
    assert exchange.sent == record(reply, accepted(0))


@each_handler
@each_exchange
def test_a_call_in_a_datagram_is_answered(handler: Any, data: bytes, reply: bytes) -> None:
    exchange = run_datagram(handler, data)
    assert [answer for answer, _ in exchange.datagrams] == [reply]


@each_handler
@no_calls
def test_a_datagram_that_is_no_call_is_dropped(handler: Any, data: bytes) -> None:
    exchange = run_datagram(handler, data)
    assert exchange.datagrams == []
    assert isinstance(exchange.error, PeerError)


@each_handler
@no_calls
def test_a_stream_with_what_is_no_call_is_ended(handler: Any, data: bytes) -> None:
    exchange = run_stream(handler, record(call(0), data, call(0)))
    assert exchange.sent == record(accepted(0))
    assert isinstance(exchange.error, PeerError)


@each_handler
def test_a_call_may_come_in_fragments(handler: Any) -> None:
    data = call(1, pack(Pair, Pair(1, 2)))
    pieces = b"".join(words(1) + data[n : n + 1] for n in range(len(data)))
    exchange = run_stream(handler, pieces + words(1 << 31))
    assert exchange.sent == record(accepted(0, words(3)))


@each_handler
@pytest.mark.parametrize("mark", [words(0x7FFFFFFF), words(2**20 + 1), bytes(4) * 20_000])
def test_a_record_that_is_too_long_ends_its_stream(handler: Any, mark: bytes) -> None:
    exchange = run_stream(handler, mark)
    assert exchange.sent == b""
    assert isinstance(exchange.error, PeerError)


@each_handler
@pytest.mark.parametrize("size", [1, 4, 10, 43])
def test_a_stream_that_ends_within_a_call_is_the_clients_fault(handler: Any, size: int) -> None:
    exchange = run_stream(handler, record(call(1, words(1, 2)))[:size])
    assert exchange.sent == b""
    assert isinstance(exchange.error, EOFError)


@each_handler
@pytest.mark.parametrize("mark", [b"", b"\0\0"])
def test_a_stream_that_ends_between_fragments_is_the_clients_fault(
    handler: Any, mark: bytes
) -> None:
    exchange = run_stream(handler, words(3) + b"abc" + mark)
    assert exchange.sent == b""
    assert isinstance(exchange.error, IncompleteReadError)


def test_calls_wait_for_the_one_before_them() -> None:
    exchange = StreamExchange(Coroutines)
    exchange.receive(record(call(6), call(0)))
    assert exchange.sent == b""
    assert Coroutines.waited is not None
    Coroutines.waited.callback(None)
    exchange.end()
    assert exchange.done
    assert exchange.sent == record(accepted(0), accepted(0))


@given(st.binary(max_size=120), st.booleans())
def test_any_bytes_are_answered_or_dropped(data: bytes, as_call: bool) -> None:
    """What a client sends raises nothing but its own fault."""
    sent = call(1)[:24] + data if as_call else data
    for handler in (Coroutines, Blocking):
        error = run_datagram(handler, sent).error
        assert error is None or isinstance(error, PeerError)
        for stream in (data, words(len(sent)) + sent, record(sent) + data):
            error = run_stream(handler, stream).error
            assert error is None or isinstance(error, PeerError | EOFError)


# What cannot be read is kept


@each_handler
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"garbage", "a message of 7 bytes is no call"),
        (changed(call(0), 1, 1), "a message that is no call"),
        (call(1), "program 536871065, procedure 1: "),
        (call(1, words(1, 2, 3)), "4 bytes more than they have"),
        (call(0, words(1)), "procedure 0: 4 bytes"),
        (changed(call(1), 6, 1), "AUTH_BADCRED"),
        (call(1)[:32], "AUTH_BADVERF"),
    ],
)
def test_a_malformed_call_is_kept(handler: Any, data: bytes, reason: str) -> None:
    handler.malformed.clear()
    run_datagram(handler, data, client_address=("192.0.2.1", 9))
    run_stream(handler, record(data))
    of_datagram, of_stream = handler.malformed.as_list()
    assert of_datagram.peer == ("192.0.2.1", 9)
    for kept in (of_datagram, of_stream):
        assert (kept.data, kept.size) == (data, len(data))
        assert reason in kept.reason


@each_handler
def test_a_call_that_is_only_refused_is_not_kept(handler: Any) -> None:
    handler.malformed.clear()
    for data in (call(0), call(3), call(5), call(9), changed(call(1), 6, 6)):
        run_datagram(handler, data)
    run_datagram(handler, changed(call(1), 2, 3))
    assert handler.malformed.as_list() == []


@each_handler
def test_a_record_that_is_too_long_is_kept_as_far_as_it_came(handler: Any) -> None:
    handler.malformed.clear()
    run_stream(handler, words(3) + b"abc" + b"GET ")
    (kept,) = handler.malformed.as_list()
    assert (kept.data, "max_record_bytes" in kept.reason) == (b"abcGET ", True)


def test_the_last_malformed_calls_are_kept_and_no_more_than_4_kib_of_each() -> None:
    Coroutines.malformed.clear()
    for number in range(20):
        run_datagram(Coroutines, bytes([number]) * 3)
    assert [kept.data[0] for kept in Coroutines.malformed.as_list()] == list(range(4, 20))
    run_stream(Coroutines, record(call(1, bytes(100_000))))
    kept = Coroutines.malformed.as_list()[-1]
    assert (len(Coroutines.malformed), len(kept.data), kept.size) == (16, 4096, 100_040)


def test_programs_keep_their_own() -> None:
    assert Coroutines.malformed is not Blocking.malformed


# Once for each call


class Counting(RPCRequestHandler):
    program = PROGRAM
    calls: list[int] = []

    @procedure(1)
    async def count(self, number: Int) -> Int:
        self.calls.append(number)
        return len(self.calls)

    @procedure(2, idempotent=True)
    async def look(self) -> Int:
        self.calls.append(-1)
        return len(self.calls)

    @procedure(3)
    async def wait(self) -> None:
        self.calls.append(-2)
        await self.server.waited

    @procedure(4)
    async def flood(self) -> bytes:
        return bytes(70_000)


@pytest.fixture
def datagrams() -> "Datagrams":
    Counting.calls.clear()
    return Datagrams()


class Datagrams:
    """A datagram server in memory, which lasts."""

    def __init__(self) -> None:
        self.server: Any = DatagramServer(Counting, reactor=Clock())
        self.server.waited = Deferred()
        self.sent: list[bytes] = []

    def send(self, data: bytes, port: int = 1) -> None:
        self.server.process_request((data, _Reply(self.sent)), ("192.0.2.1", port))


class _Reply:
    sent_bytes = sent = 0

    def __init__(self, sent: list[bytes]) -> None:
        self._sent = sent

    def sendto(self, data: bytes, address: object) -> None:
        self._sent.append(data)


def numbered(procedure_number: int, *arguments: int, xid: int = XID) -> bytes:
    return make_call(xid, PROGRAM, 1, procedure_number, words(*arguments))


def test_a_call_that_is_sent_again_is_served_once(datagrams: "Datagrams") -> None:
    datagrams.send(numbered(1, 5))
    datagrams.send(numbered(1, 5))
    assert datagrams.sent == [accepted(0, words(1))] * 2
    assert Counting.calls == [5]


def test_calls_that_are_refused_are_counted(datagrams: "Datagrams") -> None:
    datagrams.send(numbered(1))
    datagrams.send(numbered(1, 2, 3))
    datagrams.send(changed(numbered(1, 2), 6, 9))
    assert datagrams.server.statistics.refused == {"arguments": 2, "credentials": 1}


def test_other_calls_are_served(datagrams: "Datagrams") -> None:
    """Another client's, another transaction, other arguments under the same number."""
    datagrams.send(numbered(1, 5))
    datagrams.send(numbered(1, 5), port=2)
    datagrams.send(numbered(1, 5, xid=8))
    datagrams.send(numbered(1, 6))
    assert Counting.calls == [5, 5, 5, 6]


def test_what_may_be_served_twice_is(datagrams: "Datagrams") -> None:
    datagrams.send(numbered(2))
    datagrams.send(numbered(2))
    assert datagrams.sent == [accepted(0, words(1)), accepted(0, words(2))]


def test_a_call_that_is_being_served_is_not_served_again(datagrams: "Datagrams") -> None:
    datagrams.send(numbered(3))
    datagrams.send(numbered(3))
    assert Counting.calls == [-2]
    assert datagrams.sent == []
    datagrams.server.waited.callback(None)
    assert datagrams.sent == [accepted(0)]
    datagrams.send(numbered(3))
    assert datagrams.sent == [accepted(0)] * 2


def test_a_call_that_was_abandoned_is_served_again(datagrams: "Datagrams") -> None:
    datagrams.send(numbered(3))
    datagrams.server.abort()
    datagrams.server.waited = Deferred()
    datagrams.send(numbered(3))
    assert Counting.calls == [-2, -2]
    datagrams.server.abort()


def test_a_reply_with_no_place_in_a_datagram_is_an_error() -> None:
    exchange = run_datagram(Counting, numbered(4))
    assert [answer for answer, _ in exchange.datagrams] == [accepted(5)]
    assert "no place in a datagram" in str(exchange.error)


def test_a_client_without_an_address_gets_no_answer() -> None:
    exchange = run_datagram(Counting, numbered(0), client_address=None)
    assert (exchange.datagrams, exchange.error) == ([], None)


# What makes no program

X = loads(
    "program ADDER { version ONE { int ADD(int, int) = 1; void NOTHING(void) = 0; } = 1;"
    " version TWO { int ADD(int, int) = 1; } = 2; } = 0x20000099;"
)


def test_the_procedures_of_a_file_are_methods_of_their_names() -> None:
    class Adder(RPCRequestHandler):
        program = X.ADDER

        async def add(self, left: int, right: int) -> int:
            return left + right

        async def add_2(self, left: int, right: int) -> int:
            return -left - right

    sent = record(call(1, words(1, 2), 1), call(1, words(1, 2), 2), call(0, version=1))
    minus = struct.pack(">i", -3)
    replies = [accepted(0, words(3)), accepted(0, minus), accepted(0)]
    assert run_stream(Adder, sent).sent == record(*replies)


def _define(**members: Any) -> None:
    type("Bad", (RPCRequestHandler,), {"program": PROGRAM, **members})


async def _coroutine(self: object) -> None: ...


def _plain(self: object) -> None: ...


def _untyped(self: object, argument) -> None: ...  # type: ignore[no-untyped-def]


def _unknown(self: object, argument: dict) -> None: ...  # type: ignore[type-arg]


def _silent(self: object): ...  # type: ignore[no-untyped-def]


def mark(function: Any, number: int = 1, **options: Any) -> Any:
    """A copy of a function, marked as a procedure."""
    copy = types.FunctionType(function.__code__, function.__globals__, function.__name__)
    copy.__annotations__ = dict(function.__annotations__)
    return procedure(number, **options)(copy)


@pytest.mark.parametrize(
    ("members", "words_"),
    [
        (dict, "it has no procedure"),
        (lambda: {"program": 2**32, "a": mark(_plain)}, "program: 4294967296 is out of range"),
        (lambda: {"program": -1, "a": mark(_plain)}, "program: -1 is out of range"),
        (lambda: {"program": "x", "a": mark(_plain)}, "program: 'x' is not a number"),
        (lambda: {"a": mark(_plain), "b": mark(_coroutine, 2)}, "make all procedures async def"),
        (lambda: {"a": mark(_plain), "b": mark(_plain)}, "a and b are both procedure 1"),
        (lambda: {"a": mark(_untyped)}, "argument has no annotation"),
        (lambda: {"a": mark(_unknown)}, "is no type of XDR"),
        (lambda: {"a": mark(_silent)}, "write -> None"),
        (lambda: {"a": mark(_plain, 0)}, "0 is the procedure that does nothing"),
        (lambda: {"a": mark(_plain, 2**32)}, "4294967296 is out of range"),
        (lambda: {"a": mark(_plain, version=-1)}, "version: -1 is out of range"),
        (lambda: {"program": X.ADDER, "ad": _plain}, "no method add .*did you mean 'ad'"),
    ],
)
def test_what_is_no_program_is_told_in_one_line(members: Any, words_: str) -> None:
    with pytest.raises(ConfigurationError, match=words_) as raised:
        _define(**members())
    assert "\n" not in str(raised.value)


def test_a_procedure_may_refuse_its_caller() -> None:
    class Refusing(RPCRequestHandler):
        program = PROGRAM

        @procedure(1, version=2)
        async def refuse(self) -> None:
            raise AuthError(AuthStat.FAILED)

    assert run_stream(Refusing, record(call(1))).sent == record(DENIED + words(7))


@pytest.mark.parametrize(
    ("error", "stat"), [(ValueError("not so many"), 5), (DecodeError("not so many"), 4)]
)
def test_a_structure_may_refuse_its_values(error: Exception, stat: int) -> None:
    class Count(Struct):
        number: Int

        def __post_init__(self) -> None:
            if self.number > 9:
                raise error

    class Counter(RPCRequestHandler):
        program = PROGRAM

        @procedure(1, version=2)
        async def count(self, count: Count) -> Int:
            return count.number

    exchange = run_stream(Counter, record(call(1, words(10)), call(1, words(9))))
    assert exchange.sent == record(accepted(stat), accepted(0, words(9)))


def test_a_base_for_other_handlers_needs_no_program() -> None:
    class Base(RPCRequestHandler):
        max_record_bytes = 10

    class Small(Base, Blocking):
        pass

    assert run_stream(Small, record(call(0))).sent == b""


def test_a_class_without_a_program_is_told_when_a_server_is_made() -> None:
    class Base(RPCRequestHandler):
        pass

    with pytest.raises(ConfigurationError, match="Base: it has no program; set program to its"):
        StreamFactory(Base, reactor=Clock())


def test_a_class_without_a_program_serves_nothing() -> None:
    with pytest.raises(NotImplementedError, match="has no program"):
        RPCRequestHandler(None, None, None).handle()


def test_a_blocking_handler_does_not_wait_in_verify_request() -> None:
    class Waiting(Blocking):
        async def verify_request(self, call: Call, client_address: object) -> bool:  # type: ignore[override]
            await Deferred()
            return True

    assert isinstance(run_datagram(Waiting, call(1, words(1, 2))).error, TypeError)


def test_a_program_may_have_a_handle_of_its_own() -> None:
    class Own(Coroutines):
        async def handle(self) -> None:
            self.wfile = self.request.wfile
            self.wfile.write(b"own")

    assert run_stream(Own).sent == b"own"


def test_a_server_object_has_it_serve_packets_too() -> None:
    data, reply = EXCHANGES["a structure"]
    with (
        socketserver.UDPServer(("127.0.0.1", 0), Blocking) as server,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(30)
        client.sendto(data, server.server_address)
        server.handle_request()
        assert client.recv(2000) == reply
