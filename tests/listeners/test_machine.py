"""The life of a listener of whatever kind, input by input."""

import socket

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from sockserve import DatagramRequestHandler, StreamRequestHandler
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.machine import (
    DatagramListener,
    ListenerData,
    ListenerMachine,
    StreamListener,
)
from sockserve.listeners.stream_factory import StreamFactory

pytestmark = pytest.mark.usefixtures("no_leaks")


class MemoryListener:
    """A listener that notes what it is told, and is closed when a test says so."""

    def __init__(self):
        self.told = []
        self.closing = Deferred()

    def opened(self, port):
        self.told.append(f"opened {port}")

    def suspend(self):
        self.told.append("suspend")

    def resume(self):
        self.told.append("resume")

    def close(self):
        self.told.append("close")
        return self.closing


@pytest.fixture
def data():
    return ListenerData(MemoryListener())


@pytest.fixture
def machine(data):
    return ListenerMachine(data)


def test_a_listener_is_stopped_at_first(machine):
    assert machine.is_stopped()


def test_what_is_stopped_has_nothing_to_stop(machine, data):
    assert machine.stop().called
    machine.suspend()
    machine.resume()
    machine.port_closed()
    assert machine.is_stopped()
    assert data.listener.told == []


def test_suspend_and_resume_are_told_when_they_change_something(machine, data):
    machine.opened("port")
    machine.resume()
    machine.suspend()
    machine.suspend()
    machine.resume()
    assert data.listener.told == ["opened port", "suspend", "resume"]


@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("by_itself", [False, True])
def test_it_drains_and_is_stopped_when_told_so(machine, data, suspended, by_itself):
    machine.opened("port")
    if suspended:
        machine.suspend()
    waiting = [] if by_itself else [machine.stop()]
    if by_itself:
        machine.port_closed()
    assert data.draining is data.listener.closing
    assert not machine.is_stopped()
    waiting.append(machine.stop())
    machine.port_closed()  # it is closed already
    machine.suspend()
    machine.resume()
    assert data.listener.told[-1] == "close"
    assert data.listener.told.count("close") == 1
    assert machine.drained() == waiting
    assert not any(each.called for each in waiting)  # that is the owner's to do
    assert machine.is_stopped()


def test_it_opens_again(machine, data):
    for _ in range(2):
        machine.opened("port")
        machine.stop()
        machine.drained()
    assert data.listener.told == ["opened port", "close"] * 2
    assert data.stopping == []


# The kinds of listeners


class Stream(StreamRequestHandler):
    async def handle(self):
        """Nothing is asked of it."""


class Datagram(DatagramRequestHandler):
    async def handle(self):
        """Nothing is asked of it."""


class Port:
    """A port that is only told things, and has stopped when a test says so."""

    connected, disconnecting = True, False

    def __init__(self, kind):
        self.socket = socket.socket(socket.AF_INET, kind)
        self.socket.bind(("127.0.0.1", 0))
        self.told, self.stopped = [], Deferred()

    def fileno(self):
        return self.socket.fileno()

    def stopListening(self):
        self.told.append("stop")
        return self.stopped

    def startReading(self):
        self.told.append("read")

    def stopReading(self):
        self.told.append("do not read")


@pytest.fixture
def port_of():
    """Makes ports, whose sockets are closed after the test."""
    ports = []

    def port_of(kind):
        ports.append(Port(kind))
        return ports[-1]

    yield port_of
    for port in ports:
        port.socket.close()


@pytest.fixture
def reactor():
    return MemoryReactorClock()


def test_a_stream_listener_has_a_port_while_it_is_open(reactor, port_of):
    factory = StreamFactory(Stream, reactor=reactor)
    factory.request_queue_size = 7
    listener, port = StreamListener(factory), port_of(socket.SOCK_STREAM)
    address = port.socket.getsockname()
    listener.opened(port)
    assert factory.server_address == address
    assert factory.address_family == socket.AF_INET
    assert factory.ports == {port}
    assert port.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    closed = listener.close()
    assert not factory.ports
    assert port.told[-1] == "stop"
    assert not closed.called
    port.stopped.callback(None)
    assert closed.called


def test_a_stream_listener_takes_part_in_the_caps_while_it_is_open(reactor, port_of):
    factory = StreamFactory(Stream, reactor=reactor)
    listener = StreamListener(factory)
    listener.opened(port_of(socket.SOCK_STREAM))
    assert len(factory.admission.gates) == 1
    listener.close()
    assert not factory.admission.gates


def test_a_datagram_listeners_port_closes_after_the_last_answer(reactor, port_of):
    server = DatagramServer(Datagram, reactor=reactor)
    listener, port = DatagramListener(server), port_of(socket.SOCK_DGRAM)
    server.transport = port
    listener.opened(port)
    assert server.server_address == port.socket.getsockname()
    server.statistics.active += 1
    closed = []
    listener.close().addCallback(closed.append)
    assert port.told == ["do not read"]
    server.statistics.active -= 1
    server._check_drained()
    assert port.told[-1] == "stop"
    assert not closed
    port.stopped.callback(None)
    assert closed
