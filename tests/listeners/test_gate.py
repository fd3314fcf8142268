"""The gate: a listening socket that keeps to what is admitted."""

import errno
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from sockserve.core.admission import Admission
from sockserve.listeners.gate import ACCEPT_RETRY_SECONDS, CALM_SECONDS, Gate

pytestmark = pytest.mark.usefixtures("no_leaks")


# The gate, on a real listening socket that the test itself reads


class Port:
    """What the gate sees of Twisted's C{tcp.Port}, and what that does when readable."""

    connected = True
    disconnecting = False
    reading = True

    def __init__(self, admission: Admission) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.admission = admission
        self.accepted: list[socket.socket] = []
        self.clients: list[socket.socket] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True

    def connect(self, count: int = 1) -> None:
        """Clients, which the kernel accepts whether or not anybody else does."""
        for _ in range(count):
            self.clients.append(socket.create_connection(self.socket.getsockname()))

    def turn(self) -> int:
        """One turn of the reactor; gives how many are being served then."""
        while self.reading:
            try:
                connection, _ = self.socket.accept()
            except BlockingIOError:
                break
            self.accepted.append(connection)
            self.admission.opened()
        return len(self.accepted)

    def end_one(self) -> None:
        self.accepted.pop().close()
        self.admission.closed()

    def close(self) -> None:
        for one in (self.socket, *self.accepted, *self.clients):
            one.close()


class Gated:
    """A gate before a port."""

    def __init__(self, admission: Admission | None = None) -> None:
        self.admission = Admission() if admission is None else admission
        self.clock = Clock()
        self.refused: list[str] = []
        self.port = Port(self.admission)
        self.gate = Gate(self.port, self.admission, self.clock, self.refused.append)

    def close(self) -> None:
        self.gate.close()
        self.port.close()
        assert self.clock.getDelayedCalls() == []


@pytest.fixture
def gated() -> Iterator[Gated]:
    gated = Gated(Admission(max_connections=2))
    yield gated
    gated.close()


def test_the_gate_keeps_the_ports_socket(no_leaks: None) -> None:
    gated = Gated()
    gated.port.connect()
    assert gated.port.turn() == 1
    assert gated.port.fileno() == gated.port.socket.fileno() >= 0
    assert gated.port.socket.gettimeout() == 0
    gated.close()


def test_at_the_cap_accepting_stops_and_goes_on_when_one_ends(gated: Gated) -> None:
    gated.port.connect(4)
    assert gated.port.turn() == 2
    assert not gated.port.reading
    assert gated.port.turn() == 2
    for _ in range(2):
        gated.port.end_one()
        assert gated.port.turn() == 2
    gated.port.end_one()
    assert gated.port.turn() == 1
    assert gated.refused == []


def test_a_client_that_waited_loses_nothing(gated: Gated) -> None:
    gated.port.connect(3)
    gated.port.clients[2].sendall(b"said while it waited")
    gated.port.turn()
    gated.port.end_one()
    gated.port.turn()
    assert gated.port.accepted[-1].recv(100) == b"said while it waited"


def test_two_ports_share_a_cap(gated: Gated) -> None:
    other = Gated(gated.admission)
    gated.port.connect(2)
    other.port.connect(1)
    assert gated.port.turn() == 2
    assert other.port.turn() == 0
    gated.port.end_one()
    assert other.port.turn() == 1
    other.close()


def test_a_suspended_gate_takes_nobody_until_it_is_resumed(gated: Gated) -> None:
    gated.port.connect()
    gated.gate.suspend()
    assert gated.port.turn() == 0
    gated.admission.opened()
    gated.admission.closed()  # room, but not for this one
    assert gated.port.turn() == 0
    gated.gate.resume()
    assert gated.port.turn() == 1


def test_a_gate_that_is_resumed_when_full_waits_for_room(gated: Gated) -> None:
    gated.port.connect(3)
    gated.port.turn()
    gated.gate.suspend()
    gated.gate.resume()
    assert gated.port.turn() == 2
    gated.port.end_one()
    assert gated.port.turn() == 2


@pytest.mark.parametrize("ended", [{"disconnecting": True}, {"connected": False}])
def test_a_port_that_has_stopped_is_not_read_again(gated: Gated, ended: dict[str, bool]) -> None:
    gated.port.connect(2)
    gated.port.turn()
    gated.port.stopReading()
    vars(gated.port).update(ended)
    gated.port.end_one()
    assert not gated.port.reading


# Without descriptors


class Exhaustion:
    """Makes every C{accept} fail for as long as it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: int | None = errno.EMFILE
        real = socket.socket.accept

        def accept(listening: socket.socket) -> Any:
            if self.error is not None:
                raise OSError(self.error, "no descriptors")
            return real(listening)

        monkeypatch.setattr(socket.socket, "accept", accept)


@pytest.fixture
def exhaustion(monkeypatch: pytest.MonkeyPatch) -> Exhaustion:
    return Exhaustion(monkeypatch)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_descriptors_clients_wait_and_accepting_is_tried_again(
    gated: Gated, exhaustion: Exhaustion, error: int
) -> None:
    exhaustion.error = error
    gated.port.connect()
    with capturedLogs() as logged:
        assert gated.port.turn() == 0
        assert not gated.port.reading
        for _ in range(3):
            gated.clock.advance(ACCEPT_RETRY_SECONDS * 0.9)
            assert not gated.port.reading
            gated.clock.advance(ACCEPT_RETRY_SECONDS * 0.2)  # 0.9 + 0.2 > 1
            assert gated.port.reading
            assert gated.port.turn() == 0
        exhaustion.error = None
        gated.clock.advance(ACCEPT_RETRY_SECONDS)
        assert gated.port.turn() == 1
    assert gated.refused == ["descriptors"] * 4
    (event,) = logged
    assert event["log_level"] is LogLevel.error
    assert event["error"] == errno.errorcode[error]


@pytest.fixture
def uncapped() -> Iterator[Gated]:
    gated = Gated()
    yield gated
    gated.close()


def test_it_is_logged_again_after_it_had_been_well(uncapped: Gated, exhaustion: Exhaustion) -> None:
    counts = []
    for error, seconds in (
        (errno.EMFILE, ACCEPT_RETRY_SECONDS),
        (None, ACCEPT_RETRY_SECONDS),  # all accepted, but not for long
        (errno.EMFILE, CALM_SECONDS + ACCEPT_RETRY_SECONDS),
        (None, ACCEPT_RETRY_SECONDS),  # all accepted, long after the last shortage
        (errno.EMFILE, ACCEPT_RETRY_SECONDS),
        (errno.EMFILE, ACCEPT_RETRY_SECONDS),
    ):
        exhaustion.error = error
        uncapped.port.connect()
        with capturedLogs() as logged:
            uncapped.port.turn()
        counts.append(len(logged))
        uncapped.clock.advance(seconds)
    assert counts == [1, 0, 0, 0, 1, 0]


def test_an_end_does_not_cut_short_the_wait(gated: Gated, exhaustion: Exhaustion) -> None:
    """Trying at each end would make a busy server spin."""
    exhaustion.error = None
    gated.port.connect(1)
    gated.port.turn()
    exhaustion.error = errno.EMFILE
    gated.port.connect(1)
    gated.port.turn()
    gated.port.end_one()
    assert not gated.port.reading
    gated.clock.advance(ACCEPT_RETRY_SECONDS)
    assert gated.port.reading


@pytest.mark.parametrize("end", ["suspend", "close"])
def test_a_gate_that_is_closed_does_not_try_again(
    gated: Gated, exhaustion: Exhaustion, end: str
) -> None:
    gated.port.connect()
    gated.port.turn()
    getattr(gated.gate, end)()
    assert gated.clock.getDelayedCalls() == []
    assert not gated.port.reading


def test_other_errors_of_accept_are_the_ports_to_handle(
    gated: Gated, exhaustion: Exhaustion
) -> None:
    exhaustion.error = errno.ECONNABORTED
    with pytest.raises(ConnectionAbortedError):
        gated.port.turn()
    assert gated.port.reading
    assert gated.refused == []


# The gate on a port of Twisted's


class Counted(Protocol):
    """Says hello once it is served."""

    def connectionMade(self) -> None:
        self.factory.admission.opened()
        self.transport.write(b"hello")

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.admission.closed()
        if not self.factory.admission.active:
            self.factory.empty.callback(None)


class Hears(Protocol):
    """Fires when it hears something, and when it is over."""

    def __init__(self) -> None:
        self.heard: Deferred[bytes] = Deferred()
        self.over: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.heard.callback(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.over.callback(None)


@pytest.mark.parametrize("starved", [False, True])
async def test_a_port_of_twisteds_serves_all_within_its_cap(
    starved: bool, exhaustion: Exhaustion
) -> None:
    """Six clients at a cap of 2, in a process that may begin without a descriptor."""
    from twisted.internet import reactor

    exhaustion.error = errno.EMFILE if starved else None
    factory: Any = Factory.forProtocol(Counted)
    factory.noisy = False
    factory.admission = Admission(max_connections=2)
    factory.empty = Deferred()
    refused: list[str] = []
    clock = Clock()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    gate = Gate(port, factory.admission, clock, refused.append)
    try:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        clients = [await connectProtocol(endpoint, Hears()) for _ in range(6)]
        if starved:
            port.doRead()  # or it may have done so by itself
            assert refused
            assert factory.admission.active == 0
            exhaustion.error = None
            clock.advance(ACCEPT_RETRY_SECONDS)
        for number, client in enumerate(clients):
            assert await client.heard == b"hello"
            assert factory.admission.active <= 2
            assert not any(later.heard.called for later in clients[number + 2 :])
            client.transport.loseConnection()
            await client.over
        await factory.empty
    finally:
        gate.close()
        await port.stopListening()


# Clients that leave while they wait


def leave(client: socket.socket) -> None:
    """By a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_a_client_that_has_left_while_it_waited_takes_no_place(gated: Gated) -> None:
    gated.port.connect(2)
    assert gated.port.turn() == 2
    gated.port.connect(4)
    assert gated.port.turn() == 2
    for client in gated.port.clients[2:5]:
        leave(client)
    gated.port.end_one()
    assert gated.port.turn() == 2
    assert gated.port.accepted[-1].getpeername() == gated.port.clients[5].getsockname()
    assert gated.refused == ["gone"] * 3


def test_one_that_has_only_ended_its_side_is_served(gated: Gated) -> None:
    gated.port.connect(3)
    assert gated.port.turn() == 2
    gated.port.clients[2].shutdown(socket.SHUT_WR)
    gated.port.end_one()
    assert gated.port.turn() == 2
    assert gated.refused == []


def test_nobody_is_asked_who_did_not_wait(gated: Gated) -> None:
    """The reactor hears of their end as of any other."""
    gated.port.connect(2)
    leave(gated.port.clients[0])
    assert gated.port.turn() == 2
    assert gated.refused == []
    gated.port.end_one()
    gated.port.end_one()
    gated.port.turn()  # nobody waits any more
    gated.port.connect(1)
    leave(gated.port.clients[-1])
    assert gated.port.turn() == 1
    assert gated.refused == []
