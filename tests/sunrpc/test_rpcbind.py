"""What rpcbind is told, by a small one of the tests' own; the real one is in tests/integration."""

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred

from sockserve import ConfigurationError, StreamRequestHandler
from sockserve.sunrpc import Int, RPCBind, RPCBindService, RPCRequestHandler, procedure
from sockserve.sunrpc.messages import parse_call
from sockserve.sunrpc.records import fragments


class Adder(RPCRequestHandler):
    program = 0x20000099

    @procedure(1, version=(1, 2))
    async def add(self, a: Int, b: Int) -> Int:
        return a + b


class SmallRPCBind:
    """
    An rpcbind that answers what it is told to.

    @ivar calls: version, procedure, program, version of that.
    @ivar answers: what it answers; yes when there is none.
    """

    def __init__(self, listening: socket.socket) -> None:
        self.calls: list[tuple[int, ...]] = []
        self.answers: list[bytes] = []
        self._listening = listening
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            connection = self._listening.accept()[0]
            with connection, connection.makefile("rb") as file:
                while mark := file.read(4):
                    call = parse_call(file.read(struct.unpack(">I", mark)[0] & 0x7FFFFFFF))
                    if call.program == 0:
                        return
                    named = struct.unpack_from(">II", call.data, call.start)
                    self.calls.append((call.version, call.procedure, *named))
                    results = self.answers.pop(0) if self.answers else b"\0\0\0\1"
                    reply = struct.pack(">6I", call.xid, 1, 0, 0, 0, 0) + results
                    connection.sendall(b"".join(fragments(reply)))

    def end(self) -> None:
        from sockserve.sunrpc.messages import make_call

        with socket.socket(self._listening.family) as sock:
            sock.connect(self._listening.getsockname())
            sock.sendall(b"".join(fragments(make_call(1, 0, 0, 0))))
        self._thread.join()
        self._listening.close()


@pytest.fixture(params=["unix", "tcp"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """An rpcbind, what asks it, and the version that is asked for."""
    path = str(tmp_path / "rpcbind.sock")
    listening = socket.socket(socket.AF_UNIX if request.param == "unix" else socket.AF_INET)
    listening.bind(path if request.param == "unix" else ("127.0.0.1", 0))
    listening.listen()
    rpcbind = SmallRPCBind(listening)
    address = listening.getsockname() if request.param == "tcp" else ("127.0.0.1", 1)
    yield rpcbind, RPCBind([path], address), 4 if request.param == "unix" else 2
    rpcbind.end()


class Listening:
    """A listener, as far as a registration looks at it."""

    address_family, socket_type = socket.AF_INET, socket.SOCK_STREAM

    def __init__(self, description: str = "tcp:0", **attributes: object) -> None:
        self.description = description
        self.server: Any = self
        self.server_address: Any = ("0.0.0.0", 1025)
        vars(self).update(attributes)


def service(
    rpcbind: RPCBind, *listeners: Any, handler: object = Adder, keeper: Any = None
) -> RPCBindService:
    from twisted.internet import reactor

    return RPCBindService(reactor, handler, listeners or [Listening()], rpcbind, keeper)


async def test_a_program_is_registered_and_taken_back(small: Any) -> None:
    rpcbind, asking, version = small
    registration = service(asking)
    registration.privilegedStartService()
    registration.startService()
    told = [(version, kind, 0x20000099, number) for number in (1, 2) for kind in (2, 1)]
    assert rpcbind.calls == told
    rpcbind.calls.clear()
    await ensureDeferred(registration.stopService())
    assert rpcbind.calls == [(version, 2, 0x20000099, 1), (version, 2, 0x20000099, 2)]
    await ensureDeferred(registration.stopService())
    assert len(rpcbind.calls) == 2


def test_what_a_service_has_registered_that_never_ran_is_taken_back(small: Any) -> None:
    rpcbind, asking, _ = small
    registration = service(asking)
    registration.privilegedStartService()
    registration.stopService()
    assert len(rpcbind.calls) == 6


def test_a_program_that_another_has_is_told_in_one_line(small: Any) -> None:
    rpcbind, asking, version = small
    rpcbind.answers = [b"\0\0\0\1"] * 3 + [bytes(4)]
    with pytest.raises(ConfigurationError, match="program 536871065, version 2, on tcp: another"):
        service(asking).startService()
    assert rpcbind.calls[-1] == (version, 2, 0x20000099, 1)


def test_an_rpcbind_that_does_not_serve_the_call_is_told_in_one_line(small: Any) -> None:
    rpcbind, asking, _ = small
    rpcbind.answers = [b""]
    with pytest.raises(ConfigurationError, match="it did not serve the call"):
        service(asking).startService()


def test_an_rpcbind_that_is_missing_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        asking = RPCBind([str(tmp_path / "none.sock")], taken.getsockname())
        with pytest.raises(
            ConfigurationError, match=r"none answers at .*none\.sock or 127"
        ) as told:
            service(asking).startService()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("listener", "words"),
    [
        (Listening("tls:0"), "cannot be sent to 'tls:0'"),
        (Listening("unixgram:x"), "cannot be sent to 'unixgram:x'"),
        (
            Listening("fd:3", address_family=socket.AF_UNIX, socket_type=socket.SOCK_DGRAM),
            "knows no listener",
        ),
        (
            Listening("unix:x", address_family=socket.AF_UNIX, server_address="x"),
            "takes a whole path",
        ),
    ],
)
def test_a_listener_that_rpcbind_does_not_know_is_told(listener: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        service(RPCBind([]), listener).startService()


def test_a_handler_without_a_program_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"StreamRequestHandler is no sockserve\.sunrpc"):
        service(RPCBind([]), handler=StreamRequestHandler)


def test_the_port_mapper_knows_ipv4_only(small: Any) -> None:
    rpcbind, asking, version = small
    listener = Listening(address_family=socket.AF_INET6, server_address=("::", 1, 0, 0))
    if version == 4:
        service(asking, listener).startService()
        assert len(rpcbind.calls) == 4
    else:
        with pytest.raises(ConfigurationError, match="tcp6 needs its socket"):
            service(asking, listener).startService()


class Names:
    """The names that this process has, beside another that goes on."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, ...]] = []
        self.handed_over: list[tuple[str, ...]] = []

    def keep_name(self, place: tuple[str, ...]) -> None:
        self.kept.append(place)

    def owns_name(self, place: tuple[str, ...]) -> bool:
        return place not in self.handed_over


async def test_what_another_process_has_registered_meanwhile_is_left_to_it(small: Any) -> None:
    rpcbind, asking, version = small
    names = Names()
    registration = service(asking, keeper=names)
    registration.privilegedStartService()
    registration.startService()
    first, second = names.kept
    names.handed_over = [second]
    rpcbind.calls.clear()
    await ensureDeferred(registration.stopService())
    assert rpcbind.calls == [(version, 2, 0x20000099, int(first[2]))]
