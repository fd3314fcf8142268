"""The server object of streams: which channel serves a connection, and what may be overridden."""

import functools
import http.server
import socket
import socketserver
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from zope.interface.verify import verifyObject

from sockserve import ConfigurationError, StreamRequestHandler
from sockserve.core import handler_kinds
from sockserve.core.handler_kinds import HandlerKind, speaks_http
from sockserve.core.incidents import SECONDS_BETWEEN_LINES
from sockserve.core.tasks import Task
from sockserve.http import HTTPRequestHandler
from sockserve.http.channel import HTTPChannel
from sockserve.interfaces import Outcome
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.listeners.stream_protocol import StreamProtocol
from sockserve.streams.blocking import LentSocketChannel
from sockserve.streams.coroutine import CoroutineChannel
from sockserve.streams.urgent import UrgentChannel
from tests.streams.owner import CLIENT, SERVER, Owner, SteppedExecutor, owners

pytestmark = pytest.mark.usefixtures("no_leaks")

PEER = ("192.0.2.7", 5300)


class Noting(StreamRequestHandler):
    """Notes the three methods in its server's C{calls}; C{raises} when it is asked to."""

    raises: Exception | None = None

    def setup(self) -> None:
        self.server.calls.append("setup")

    def handle(self) -> None:
        self.server.calls.append("handle")
        if self.raises is not None:
            raise self.raises

    def finish(self) -> None:
        self.server.calls.append("finish")


class Coroutine(Noting):
    async def handle(self) -> None:  # type: ignore[override]
        super().handle()


class Stdlib(socketserver.BaseRequestHandler):
    """Serves while it is made."""

    def handle(self) -> None:
        self.server.calls.append("stdlib")  # type: ignore[attr-defined]


class Mixed(HTTPRequestHandler):
    def do_GET(self) -> None:
        pass


class HTTPCoroutine(HTTPRequestHandler):
    async def do_GET(self) -> None:
        pass


class Stock(http.server.BaseHTTPRequestHandler):
    """Notes whether it is made as one whose head is not parsed again."""

    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        handle = vars(self).get("handle")
        stood_in_for = handle is not None and handle.func.__module__ == "sockserve.http.stock"
        server.calls.append((request, client_address, "stock" if stood_in_for else "plain"))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


own = pytest.fixture(owners)


def is_coroutine(handler: Any) -> bool:
    return handler_kinds.handler_kind(handler).is_coroutine


class Factory(StreamFactory):
    """
    One on a clock, whose blocking handlers run when a test says so.

    @ivar calls: what handlers have noted.
    """

    def __init__(self, handler: Any, **options: Any) -> None:
        if "concurrency" not in options and not is_coroutine(handler):
            options["concurrency"] = SteppedExecutor()
        self.clock = Clock()
        self.calls: list[Any] = []
        super().__init__(handler, reactor=self.clock, **options)


class Protocol:
    """A connection, as far as its server asks."""

    def __init__(self, gone: bool) -> None:
        self.gone = gone

    def is_gone(self) -> bool:
        return self.gone


class Channel:
    """
    A channel that is not finished.

    @ivar told: what it has been told.
    """

    def __init__(self, gone: bool = False) -> None:
        self.protocol = Protocol(gone)
        self.told: list[str] = []

    def start(self) -> None:
        self.told.append("start")

    def request_closing(self) -> None:
        self.told.append("request_closing")


# The channel


KINDS: list[Any] = [
    (Coroutine, HandlerKind.COROUTINE, CoroutineChannel),
    (
        type("Urgent", (Coroutine,), {"urgent_received": lambda self, data: None}),
        HandlerKind.URGENT,
        UrgentChannel,
    ),
    (Noting, HandlerKind.BLOCKING, LentSocketChannel),
    (Stdlib, HandlerKind.BLOCKING, LentSocketChannel),
    (functools.partial(Noting), HandlerKind.BLOCKING, LentSocketChannel),
    (HTTPCoroutine, HandlerKind.HTTP_COROUTINE, HTTPChannel),
    (Mixed, HandlerKind.HTTP_MIXED, HTTPChannel),
    (Stock, HandlerKind.HTTP_STOCK, HTTPChannel),
]


@pytest.mark.parametrize(("handler", "kind", "channel"), KINDS)
def test_each_kind_of_handler_has_its_channel(
    own: Callable[..., Owner], handler: Any, kind: HandlerKind, channel: type
) -> None:
    factory = Factory(handler)
    assert factory.kind is kind
    executor = factory.concurrency
    owner = own(
        handler, lambda owner: factory.make_channel(owner, (CLIENT, SERVER)), executor=executor
    )
    assert type(owner.channel) is channel


def test_all_kinds_that_a_handler_may_have_are_served() -> None:
    """One request of a mixed one is blocking; no handler is."""
    assert {kind for _, kind, _ in KINDS} == {*HandlerKind} - {HandlerKind.HTTP_BLOCKING}


def test_a_handler_may_be_served_as_one_of_another_kind(
    own: Callable[..., Owner], pair: tuple[socket.socket, socket.socket]
) -> None:
    factory = Factory(Stock)
    factory.serve_as(HandlerKind.BLOCKING)
    assert factory.kind is HandlerKind.BLOCKING
    owner = own(
        Stock,
        lambda owner: factory.make_channel(owner, (CLIENT, SERVER)),
        executor=factory.concurrency,
    )
    assert type(owner.channel) is LentSocketChannel
    factory.finish_request(pair[0], PEER)
    factory.serve_as(HandlerKind.HTTP_STOCK)
    request = SimpleNamespace(head=SimpleNamespace(keep_alive=True))
    factory.finish_request(request, PEER)
    assert factory.calls == [(pair[0], PEER, "plain"), (request, PEER, "stock")]


@pytest.mark.parametrize("handler", [Noting, Stdlib])
def test_a_blocking_handler_stays_one_whatever_an_override_gives_it(handler: Any) -> None:
    """A connection wrapped in an object of the program's own, say, that is no socket."""
    factory = Factory(handler)
    assert factory.finish_request(object(), PEER) is None
    assert factory.calls


def test_each_connection_has_a_protocol_of_its_own() -> None:
    factory = Factory(Coroutine)
    protocols = [factory.buildProtocol(IPv4Address("TCP", *PEER)) for _ in range(2)]
    assert [type(each) for each in protocols] == [StreamProtocol, StreamProtocol]
    assert protocols[0] is not protocols[1]
    assert [each.factory for each in protocols] == [factory, factory]
    assert factory.connections == set()  # none is made yet


def test_processing_a_request_starts_its_channel() -> None:
    factory, request, channel = Factory(Coroutine), object(), Channel()
    factory.channels[request] = channel  # type: ignore[assignment]
    factory.process_request(request, PEER)
    assert channel.told == ["start"]


def test_a_coroutine_takes_no_executor() -> None:
    with pytest.raises(ConfigurationError, match=r"is async def .*, so it takes no concurrency"):
        Factory(Coroutine, concurrency=SteppedExecutor())


# The handler


ALL_THREE = ["setup", "handle", "finish"]


def test_a_coroutine_is_given_to_be_waited_for() -> None:
    factory = Factory(Coroutine)
    served = factory.finish_request(object(), PEER)
    assert factory.calls == []
    Task(served, lambda *_: None).start()
    assert factory.calls == ALL_THREE


def test_a_blocking_handler_has_served_by_the_end(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    factory = Factory(Noting)
    assert factory.finish_request(pair[0], PEER) is None
    assert factory.calls == ALL_THREE


def test_a_handler_of_the_standard_librarys_has_served_when_it_is_made(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    factory = Factory(Stdlib)
    assert factory.finish_request(pair[0], PEER) is None
    assert factory.calls == ["stdlib"]


def test_a_mixed_handler_is_waited_for_where_its_request_is_no_socket(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """It is of the same class, whichever of its methods the request is for."""

    class Either(Mixed):
        def setup(self) -> None:
            pass

        def handle(self) -> Any:
            self.server.calls.append(self.request)

        finish = setup

    factory = Factory(Either)
    assert factory.kind is HandlerKind.HTTP_MIXED
    request = object()
    served = factory.finish_request(request, PEER)
    assert factory.calls == []
    Task(served, lambda *_: None).start()
    assert factory.finish_request(pair[0], PEER) is None
    assert factory.calls == [request, pair[0]]


def test_a_coroutine_that_did_not_look_like_one_is_refused(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    factory = Factory(lambda *arguments: Coroutine(*arguments))
    with pytest.raises(TypeError, match="the callable that made the handler does not show it"):
        factory.finish_request(pair[0], PEER)


def test_what_a_handler_raises_is_for_the_caller(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    class Raising(Noting):
        raises = KeyError("culprit")

    factory = Factory(Raising)
    with pytest.raises(KeyError, match="culprit"):
        factory.finish_request(pair[0], PEER)
    assert factory.calls == ALL_THREE


def test_the_handler_has_the_request_the_address_and_the_server(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    made = []

    def make(*arguments: Any) -> None:
        made.append(arguments)

    factory = Factory(make)
    factory.finish_request(pair[0], PEER)
    assert made == [(pair[0], PEER, factory)]


# The end of a request


def test_shutting_a_request_down_ends_its_output_and_closes_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    factory, channel = Factory(Noting), Channel()
    factory.channels[pair[0]] = channel  # type: ignore[assignment]
    with pair[0].dup():  # as a child would have it
        factory.shutdown_request(pair[0])
        assert channel.told == ["request_closing"]
        assert pair[0].fileno() < 0
        assert pair[1].recv(1) == b""


def test_a_request_whose_client_has_gone_is_closed(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    factory = Factory(Noting)
    with socket.socket() as request:  # never connected: it has no output to end
        factory.shutdown_request(request)
        assert request.fileno() < 0


def test_a_request_that_is_finished_is_just_closed(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    factory = Factory(Noting)
    factory.close_request(pair[0])
    assert pair[0].fileno() < 0
    factory.close_request(pair[0])


@pytest.mark.parametrize("seconds", [None, 5])
def test_a_broken_connection_is_the_clients_when_the_connection_is_gone(
    pair: tuple[socket.socket, socket.socket], seconds: float | None
) -> None:
    """Its own socket, one of a pair say, may know nothing of that."""
    factory = Factory(Noting)
    pair[0].settimeout(seconds)
    error = ConnectionResetError()
    assert factory.outcome_of(pair[0], error) is Outcome.ERROR
    channel = Channel()
    factory.channels[pair[0]] = channel  # type: ignore[assignment]
    assert factory.outcome_of(pair[0], error) is Outcome.ERROR
    channel.protocol.gone = True
    assert factory.outcome_of(pair[0], error) is Outcome.LOST
    assert factory.outcome_of(pair[0], KeyError()) is Outcome.ERROR
    channel.protocol.gone = False
    pair[1].close()
    assert factory.outcome_of(pair[0], error) is Outcome.LOST  # its socket knows


# What is asked of the listener


def test_protocols_for_tls_are_https_when_the_handler_is_of_http() -> None:
    https = [b"http/1.1", b"http/1.0"]
    for handler, protocols in (
        (Coroutine, []),
        (Stdlib, []),
        (HTTPCoroutine, https),
        (Mixed, https),
        (Stock, https),
        (functools.partial(http.server.SimpleHTTPRequestHandler, directory="/"), https),
    ):
        factory = Factory(handler)
        assert verifyObject(IProtocolNegotiationFactory, factory)
        assert speaks_http(handler) is bool(protocols)
        assert factory.acceptableProtocols() == protocols
        factory.acceptable_protocols = (b"own",)
        assert factory.acceptableProtocols() == [b"own"]
        factory.acceptable_protocols = ()
        assert factory.acceptableProtocols() == []


def test_a_handler_of_http_that_reads_by_itself_speaks_it_all_the_same() -> None:
    factory = Factory(Stock)
    factory.serve_as(HandlerKind.BLOCKING)
    assert factory.acceptableProtocols() == [b"http/1.1", b"http/1.0"]


def test_a_proxy_that_is_not_trusted_is_counted() -> None:
    factory = Factory(Coroutine, proxy_from=[ip_network("192.0.2.0/24")])
    assert factory.trusts_proxy(PEER)
    assert factory.trusts_proxy(("::ffff:192.0.2.9", 1, 0, 0))
    assert factory.trusts_proxy("")  # of a UNIX socket
    assert factory.statistics.refused == {}
    assert not factory.trusts_proxy(("198.51.100.1", 1))
    assert not factory.trusts_proxy(("2001:db8::1", 1, 0, 0))
    assert factory.statistics.refused == {"proxy": 2}


def test_any_proxy_is_trusted_when_none_is_named() -> None:
    factory = Factory(Coroutine)
    assert factory.trusts_proxy(("198.51.100.1", 1))
    assert factory.statistics.refused == {}


def test_a_shortage_of_descriptors_is_logged_once_a_minute() -> None:
    """
    At 0, 59.5, 60, 119.5 and 120 s: the second and the fourth are within the minutes, and
    counted in the next line; the last has none until the end.
    """
    factory = Factory(Coroutine)
    error = OSError(24, "Too many open files")
    logged = []
    with capturedLogs() as events:
        for seconds in (0, SECONDS_BETWEEN_LINES - 0.5, 0.5, SECONDS_BETWEEN_LINES - 0.5, 0.5, 1):
            factory.clock.advance(seconds)
            factory.log_shortage(PEER, error)
            logged.append(len(events))
        factory.release()
    assert logged == [1, 1, 2, 2, 3, 3]
    assert {event["log_level"] for event in events} == {LogLevel.error}
    line = (
        f"cannot serve the client 192.0.2.7:5300: {error}; raise the limit of open files"
        " (ulimit -n)"
    )
    assert [formatEvent(event) for event in events] == [
        line,
        f"{line} (and 1 more like it before)",
        f"{line} (and 1 more like it before)",
        "clients that were not served: 1 more like it before",
    ]


def test_handle_timeout_is_called_each_time_that_no_request_came() -> None:
    """At 5 s, then, as one came at 8, at 13 and 18; not after listening ended."""
    calls = []

    class Waiting(Factory):
        timeout = 5

        def handle_timeout(self) -> None:
            calls.append(self.clock.seconds())

    factory = Waiting(Coroutine)
    factory.doStart()
    factory.clock.pump([1] * 8)
    factory.request_accepted()
    factory.clock.pump([1] * 11)
    factory.doStop()
    factory.clock.pump([1] * 10)
    assert calls == [5, 13, 18]
    assert not factory.clock.getDelayedCalls()


def test_without_a_timeout_there_is_nothing_to_wait_for() -> None:
    factory = Factory(Coroutine)
    factory.doStart()
    factory.request_accepted()
    assert not factory.clock.getDelayedCalls()
    factory.doStop()


def test_without_connections_all_have_drained() -> None:
    factory = Factory(Coroutine)
    assert factory.idle()
    assert factory.drain().called
    factory.abort()


def test_its_descriptors_are_those_of_its_ports_and_connections() -> None:
    class Holding:
        def __init__(self, *numbers: int) -> None:
            self._numbers = numbers

        def fileno(self) -> int:
            return self._numbers[0]

        def descriptors(self) -> Iterator[int]:
            return iter(self._numbers)

    factory = Factory(Coroutine)
    assert list(factory.descriptors()) == []
    factory.ports.add(Holding(3))
    factory.connections.update([Holding(4, 5), Holding(6)])  # type: ignore[list-item]
    assert sorted(factory.descriptors()) == [3, 4, 5, 6]
