"""
The listener machine: the life of a listener, from its first request to its last.

This room owns one machine for listeners of all kinds (stopped, listening, suspended, draining),
and what those of streams and of datagrams do when they open and close; that of server objects
is in L{sockserve.dropin.listener}.  It must not know services or descriptions. (reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import attrs
from automat import TypeMachineBuilder
from twisted.internet import tcp
from twisted.internet.defer import Deferred, maybeDeferred, succeed

from sockserve.listeners.datagram_ports import UDPPort, UNIXDatagramPort
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.gate import Gate
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.sockets.keepalive import keep_alive

__all__ = [
    "DatagramListener",
    "Listener",
    "ListenerData",
    "ListenerInputs",
    "ListenerMachine",
    "StreamListener",
]


class Listener(Protocol):
    """One kind of listener: what it does when its machine changes state."""

    def opened(self, port: Any) -> None:
        """Begin to take requests from C{port}, which listens."""

    def suspend(self) -> None:
        """Take no more requests; keep the port, where new ones wait."""

    def resume(self) -> None:
        """Take requests again."""

    def close(self) -> Deferred[Any]:
        """
        Close the port, and have requests finish within the C{drain} deadline.

        @return: a Deferred that fires when all requests are over and the port is closed.
        """


class ListenerInputs(Protocol):
    """The inputs of a listener's machine."""

    def opened(self, port: Any) -> None:
        """The listener has a port: begin to take requests.  Only when L{is_stopped}."""

    def suspend(self) -> None:
        """Take no more requests, if any are taken, but keep the port."""

    def resume(self) -> None:
        """Undo L{suspend}."""

    def stop(self) -> Deferred[None]:
        """
        Close the port, and drain.

        @return: a Deferred that fires when that is done; at once, when there is nothing to do.
        """

    def port_closed(self) -> None:
        """The port has closed by itself, without L{stop}: drain."""

    def drained(self) -> list[Deferred[None]]:
        """
        The Deferred of L{Listener.close} has fired: the listener is stopped.

        @return: what L{stop} has returned meanwhile, to be fired outside of the machine.
        """

    def is_stopped(self) -> bool:
        """Whether the listener has no port and no request, so that it may open."""


@attrs.define
class ListenerData:
    """
    The data of a listener's machine.

    @ivar listener: opens, suspends, resumes and closes one kind of port.
    @ivar draining: what L{Listener.close} has returned, for the machine's owner to take.
    @ivar stopping: what L{ListenerInputs.stop} has returned and has not fired yet.
    """

    listener: Listener
    draining: Deferred[Any] | None = None
    stopping: list[Deferred[None]] = attrs.Factory(list)


def _make_machine() -> Callable[[ListenerData], ListenerInputs]:
    builder = TypeMachineBuilder(ListenerInputs, ListenerData)
    stopped = builder.state("stopped")
    listening = builder.state("listening")
    suspended = builder.state("suspended")
    draining = builder.state("draining")

    @stopped.upon(ListenerInputs.opened).to(listening)
    def opened(inputs: ListenerInputs, data: ListenerData, port: Any) -> None:
        data.listener.opened(port)

    @listening.upon(ListenerInputs.suspend).to(suspended)
    def suspend(inputs: ListenerInputs, data: ListenerData) -> None:
        data.listener.suspend()

    @suspended.upon(ListenerInputs.resume).to(listening)
    def resume(inputs: ListenerInputs, data: ListenerData) -> None:
        data.listener.resume()

    listening.upon(ListenerInputs.resume).loop().returns(None)
    suspended.upon(ListenerInputs.suspend).loop().returns(None)
    for state in (stopped, draining):
        state.upon(ListenerInputs.suspend).loop().returns(None)
        state.upon(ListenerInputs.resume).loop().returns(None)

    @listening.upon(ListenerInputs.stop).to(draining)
    @suspended.upon(ListenerInputs.stop).to(draining)
    def stop(inputs: ListenerInputs, data: ListenerData) -> Deferred[None]:
        data.draining = data.listener.close()
        return wait(inputs, data)

    @draining.upon(ListenerInputs.stop).loop()
    def wait(inputs: ListenerInputs, data: ListenerData) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        data.stopping.append(waiting)
        return waiting

    @stopped.upon(ListenerInputs.stop).loop()
    def nothing(inputs: ListenerInputs, data: ListenerData) -> Deferred[None]:
        return succeed(None)

    @listening.upon(ListenerInputs.port_closed).to(draining)
    @suspended.upon(ListenerInputs.port_closed).to(draining)
    def port_closed(inputs: ListenerInputs, data: ListenerData) -> None:
        data.draining = data.listener.close()

    for state in (stopped, draining):
        state.upon(ListenerInputs.port_closed).loop().returns(None)

    @draining.upon(ListenerInputs.drained).to(stopped)
    def drained(inputs: ListenerInputs, data: ListenerData) -> list[Deferred[None]]:
        waiting, data.stopping = data.stopping, []
        return waiting

    stopped.upon(ListenerInputs.is_stopped).loop().returns(True)
    for state in (listening, suspended, draining):
        state.upon(ListenerInputs.is_stopped).loop().returns(False)

    return builder.build()


ListenerMachine = _make_machine()


class StreamListener:
    """A L{Listener} of connections."""

    def __init__(self, server: StreamFactory) -> None:
        self.server = server
        self._port: tcp.Port | None = None
        self._gate: Gate | None = None

    def opened(self, port: tcp.Port) -> None:
        """Begin to take requests from C{port}, which listens."""
        server = self.server
        self._port = port
        self._gate = Gate(port, server.admission, server.reactor, server.count_refusal)
        server.ports.add(port)
        server.begin_watch()
        sock = port.socket
        keep_alive(sock, server.deadlines)
        server.inherits_keepalive = True
        server.server_address = sock.getsockname()
        if sock.family != server.address_family:  # else it stays the class' own
            server.address_family = sock.family
        if server.request_queue_size is not None:
            sock.listen(server.request_queue_size)

    def suspend(self) -> None:
        """Take no more requests."""
        assert self._gate is not None
        self._gate.suspend()

    def resume(self) -> None:
        """Take requests again."""
        assert self._gate is not None
        self._gate.resume()

    def close(self) -> Deferred[Any]:
        """
        Close the port, and have requests finish within the C{drain} deadline.

        @return: a Deferred that fires when both is done.
        """
        assert self._gate is not None
        assert self._port is not None
        server, gate = self.server, self._gate
        gate.accept_waiting()
        gate.close()
        server.ports.discard(self._port)
        server.drain()
        # Who comes in the rest of this turn: it closes in the next, with nothing done in between.
        server.reactor.callLater(0, gate.accept_waiting)
        closed = maybeDeferred(self._port.stopListening)
        closed.addBoth(lambda result: server.drain().addCallback(lambda _: result))
        return closed


class DatagramListener:
    """A L{Listener} of datagrams."""

    def __init__(self, server: DatagramServer) -> None:
        self.server = server
        self._port: UDPPort | UNIXDatagramPort | None = None

    def opened(self, port: UDPPort | UNIXDatagramPort) -> None:
        """Begin to take requests from C{port}, which listens."""
        self._port = port
        self.server.server_address = port.socket.getsockname()
        self.server.address_family = port.socket.family

    def suspend(self) -> None:
        """Take no more requests."""
        self.server.suspend()

    def resume(self) -> None:
        """Take requests again."""
        self.server.resume()

    def close(self) -> Deferred[Any]:
        """
        Close the port, and have requests finish within the C{drain} deadline.

        @return: a Deferred that fires when both is done.
        """
        assert self._port is not None
        stop = self._port.stopListening
        # Answers leave through the socket that listens, so that goes last.
        self.server.suspend()
        return self.server.drain().addCallback(lambda _: stop())
