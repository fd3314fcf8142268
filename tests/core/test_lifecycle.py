"""The lifecycle: what is called, in which order, and what runs when something raises."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from zope.interface import implementer

from sockserve import BaseRequestHandler
from sockserve.core.handler_kinds import handler_kind
from sockserve.core.lifecycle import (
    run_handler,
    run_handler_coroutine,
    serve,
    serve_coroutine,
    verify_and_process,
)
from sockserve.interfaces import IRequestServer, Outcome
from tests.transports import Call

REQUEST = object()
CLIENT = ("192.0.2.1", 50000)


class Trace(list[str]):
    """
    What was called, in order.

    @ivar raising: what to raise, by the name of the call.
    """

    def __init__(self, raising: dict[str, BaseException] | None = None) -> None:
        self.raising = raising or {}

    def call(self, name: str) -> None:
        self.append(name)
        if name in self.raising:
            raise self.raising[name]


class Traced(BaseRequestHandler):
    """The server a handler is given is its trace here."""

    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        super().__init__(request, client_address, server)
        server.trace.call("constructor")

    def setup(self) -> None:
        self.server.trace.call("setup")

    def handle(self) -> Any:
        self.server.trace.call("handle")

    def finish(self) -> None:
        self.server.trace.call("finish")


class Coroutine(Traced):
    async def handle(self) -> None:
        self.server.trace.call("handle")


class AllCoroutines(Coroutine):
    async def setup(self) -> None:
        self.server.trace.call("setup")

    async def finish(self) -> None:
        self.server.trace.call("finish")


@implementer(IRequestServer)
class Server:
    """Every override point, traced."""

    server_address = ("192.0.2.2", 7000)

    def __init__(self, handler: Any, trace: Trace, verified: bool = True) -> None:
        self.RequestHandlerClass = handler
        self.trace = trace
        self.verified = verified

    def _called(self, name: str, request: Any, client_address: Any = CLIENT) -> None:
        assert request is REQUEST
        assert client_address is CLIENT
        self.trace.call(name)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        self._called("verify_request", request, client_address)
        return self.verified

    def process_request(self, request: Any, client_address: Any) -> None:
        self._called("process_request", request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> Any:
        self._called("finish_request", request, client_address)
        handler = self.RequestHandlerClass(request, client_address, self)
        if handler_kind(self.RequestHandlerClass).is_coroutine:
            return run_handler_coroutine(handler)
        run_handler(handler)
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        self._called("handle_error", request, client_address)

    def outcome_of(self, request: Any, error: BaseException) -> Outcome:
        return Outcome.LOST if isinstance(error, ConnectionError) else Outcome.ERROR

    def handle_timeout(self) -> None:
        raise NotImplementedError

    def shutdown_request(self, request: Any) -> None:
        self._called("shutdown_request", request)
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        self._called("close_request", request)


def _served(server: Server) -> Outcome:
    if handler_kind(server.RequestHandlerClass).is_coroutine:
        return Call(serve_coroutine(server, REQUEST, CLIENT)).result()
    return serve(server, REQUEST, CLIENT)


END = ["shutdown_request", "close_request"]
WHOLE = ["finish_request", "constructor", "setup", "handle", "finish"]
every_kind = pytest.mark.parametrize("handler", [Traced, Coroutine, AllCoroutines])


# The order


@every_kind
@pytest.mark.parametrize(
    ("raising", "called", "outcome"),
    [
        ((), [*WHOLE, *END], Outcome.OK),
        (("finish_request",), ["finish_request", "handle_error", *END], Outcome.ERROR),
        (("constructor",), [*WHOLE[:2], "handle_error", *END], Outcome.ERROR),
        (("setup",), [*WHOLE[:3], "handle_error", *END], Outcome.ERROR),
        (("handle",), [*WHOLE, "handle_error", *END], Outcome.ERROR),
        (("finish",), [*WHOLE, "handle_error", *END], Outcome.ERROR),
        (("handle", "finish"), [*WHOLE, "handle_error", *END], Outcome.ERROR),
    ],
)
def test_what_is_called_when_something_raises(
    handler: type[Traced], raising: tuple[str, ...], called: list[str], outcome: Outcome
) -> None:
    trace = Trace({name: ValueError(name) for name in raising})
    assert _served(Server(handler, trace)) is outcome
    assert trace == called


@every_kind
def test_what_an_error_amounts_to_is_the_servers_to_say(handler: type[Traced]) -> None:
    trace = Trace({"handle": ConnectionResetError()})
    assert _served(Server(handler, trace)) is Outcome.LOST
    assert trace == [*WHOLE, "handle_error", *END]


@every_kind
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_what_is_no_exception_passes_but_the_request_is_closed(
    handler: type[Traced], error: BaseException
) -> None:
    trace = Trace({"handle": error})
    with pytest.raises(type(error)) as raised:
        _served(Server(handler, trace))
    assert raised.value is error
    assert trace == [*WHOLE, *END]


@every_kind
def test_handle_error_runs_where_the_exception_can_be_seen(handler: type[Traced]) -> None:
    import sys

    seen = []

    class Looks(Server):
        def handle_error(self, request: Any, client_address: Any) -> None:
            seen.append(sys.exc_info()[1])

    error = ValueError()
    _served(Looks(handler, Trace({"handle": error})))
    assert seen == [error]


@every_kind
def test_a_handle_error_that_raises_does_not_keep_the_request_open(handler: type[Traced]) -> None:
    trace = Trace({"handle": ValueError(), "handle_error": LookupError("handle_error")})
    with pytest.raises(LookupError, match="handle_error"):
        _served(Server(handler, trace))
    assert trace == [*WHOLE, "handle_error", *END]


def test_each_method_of_a_coroutine_handler_may_wait() -> None:
    waits: dict[str, Deferred[None]] = {}

    class Waits(AllCoroutines):
        async def setup(self) -> None:
            await super().setup()
            await waits.setdefault("setup", Deferred())

        async def handle(self) -> None:
            await super().handle()
            await waits.setdefault("handle", Deferred())

        async def finish(self) -> None:
            await super().finish()
            await waits.setdefault("finish", Deferred())

    trace = Trace()
    call = Call(serve_coroutine(Server(Waits, trace), REQUEST, CLIENT))
    for number, name in enumerate(("setup", "handle", "finish"), 3):
        assert trace == WHOLE[:number]
        waits[name].callback(None)
    assert trace == [*WHOLE, *END]
    assert call.result() is Outcome.OK


def test_a_server_may_serve_a_request_without_a_coroutine() -> None:
    """C{finish_request} overridden by a plain method."""

    class Refuses(Server):
        def finish_request(self, request: Any, client_address: Any) -> None:
            self.trace.call("refused")

    trace = Trace()
    assert Call(serve_coroutine(Refuses(Coroutine, trace), REQUEST, CLIENT)).result() is Outcome.OK
    assert trace == ["refused", *END]


# The offer


@pytest.mark.parametrize(
    ("verified", "raising", "called", "passed"),
    [
        (True, None, ["verify_request", "process_request"], True),
        (False, None, ["verify_request", *END], False),
        (True, "verify_request", ["verify_request", "handle_error", *END], None),
        (
            True,
            "process_request",
            ["verify_request", "process_request", "handle_error", *END],
            True,
        ),
    ],
)
def test_offer(verified: bool, raising: str | None, called: list[str], passed: bool | None) -> None:
    trace = Trace({raising: ValueError()} if raising else {})
    assert verify_and_process(Server(Traced, trace, verified), REQUEST, CLIENT) is passed
    assert trace == called


@pytest.mark.parametrize("answer", [1, "yes", object()])
def test_verify_request_may_give_anything_true(answer: Any) -> None:
    assert verify_and_process(Server(Traced, Trace(), answer), REQUEST, CLIENT) is True


@pytest.mark.parametrize("answer", [0, "", None])
def test_verify_request_may_give_anything_false(answer: Any) -> None:
    assert verify_and_process(Server(Traced, Trace(), answer), REQUEST, CLIENT) is False


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_an_offer_that_is_no_exceptions_end_closes_the_request(error: BaseException) -> None:
    """As in C{BaseServer._handle_request_noblock}."""
    trace = Trace({"process_request": error})
    with pytest.raises(type(error)):
        verify_and_process(Server(Traced, trace), REQUEST, CLIENT)
    assert trace == ["verify_request", "process_request", *END]


# What was taken for a blocking handler


@pytest.mark.parametrize("method", ["setup", "handle", "finish"])
def test_a_coroutine_that_was_not_announced_is_a_clear_type_error(method: str) -> None:
    """A function made the handler, so nobody could know; it must not pass unserved."""

    async def coroutine(self: Any) -> None:
        raise AssertionError("not reached")

    cls: Any = type("Hidden", (Traced,), {method: coroutine})
    trace = Trace()
    with pytest.raises(TypeError, match="is a coroutine, but"):
        run_handler(cls(REQUEST, CLIENT, Server(cls, trace)))
    assert ("finish" in trace) is (method == "handle")
