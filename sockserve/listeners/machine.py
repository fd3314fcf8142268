"""
Listening: what becomes of a listener, from its first connection to its last.

This room owns one machine for stream and datagram listeners (stopped, listening, suspended,
draining), and what each kind does when it opens and closes.  It must not know services or
descriptions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import attrs
from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed

from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.gate import Gate
from sockserve.listeners.stream_factory import StreamFactory

__all__ = [
    "DatagramListener",
    "ListenerData",
    "ListenerInputs",
    "ListenerMachine",
    "StreamListener",
]


class ListenerInputs(Protocol):
    """What happens to a listener."""

    def opened(self, port: Any) -> None:
        """It listens."""

    def suspend(self) -> None:
        """Take no more requests; keep the socket, where new ones wait."""

    def resume(self) -> None:
        """Take requests again."""

    def stop(self) -> Deferred[None]:
        """Close the socket, let requests finish; fires when all is gone."""

    def gone(self) -> list[Deferred[None]]:
        """All is gone; gives those to be told, outside of the machine."""

    def is_stopped(self) -> bool:
        """Whether it can begin to listen."""


@attrs.define
class ListenerData:
    """
    The listener's data.

    @ivar doors: opens, suspends, resumes and closes one kind of port.
    @ivar closing: what fires when all is gone; for whoever said stop to take.
    """

    doors: StreamListener | DatagramListener
    closing: Deferred[Any] | None = None
    stopped: list[Deferred[None]] = attrs.Factory(list)


def _make_machine() -> Callable[[ListenerData], ListenerInputs]:
    builder = TypeMachineBuilder(ListenerInputs, ListenerData)
    stopped = builder.state("stopped")
    listening = builder.state("listening")
    suspended = builder.state("suspended")
    draining = builder.state("draining")

    @stopped.upon(ListenerInputs.opened).to(listening)
    def opened(inputs: ListenerInputs, core: ListenerData, port: Any) -> None:
        core.doors.opened(port)

    @listening.upon(ListenerInputs.suspend).to(suspended)
    def suspend(inputs: ListenerInputs, core: ListenerData) -> None:
        core.doors.suspend()

    @suspended.upon(ListenerInputs.resume).to(listening)
    def resume(inputs: ListenerInputs, core: ListenerData) -> None:
        core.doors.resume()

    listening.upon(ListenerInputs.resume).loop().returns(None)
    suspended.upon(ListenerInputs.suspend).loop().returns(None)
    for state in (stopped, draining):
        state.upon(ListenerInputs.suspend).loop().returns(None)
        state.upon(ListenerInputs.resume).loop().returns(None)

    @listening.upon(ListenerInputs.stop).to(draining)
    @suspended.upon(ListenerInputs.stop).to(draining)
    def stop(inputs: ListenerInputs, core: ListenerData) -> Deferred[None]:
        core.closing = core.doors.close()
        return wait(inputs, core)

    @draining.upon(ListenerInputs.stop).loop()
    def wait(inputs: ListenerInputs, core: ListenerData) -> Deferred[None]:
        gone: Deferred[None] = Deferred()
        core.stopped.append(gone)
        return gone

    @stopped.upon(ListenerInputs.stop).loop()
    def nothing(inputs: ListenerInputs, core: ListenerData) -> Deferred[None]:
        return succeed(None)

    @draining.upon(ListenerInputs.gone).to(stopped)
    def gone(inputs: ListenerInputs, core: ListenerData) -> list[Deferred[None]]:
        waiting, core.stopped = core.stopped, []
        return waiting

    stopped.upon(ListenerInputs.is_stopped).loop().returns(True)
    for state in (listening, suspended, draining):
        state.upon(ListenerInputs.is_stopped).loop().returns(False)

    return builder.build()


ListenerMachine = _make_machine()


class StreamListener:
    """Opens and closes a stream listener."""

    def __init__(self, server: StreamFactory) -> None:
        self.server = server
        self._port: Any = None
        self._gate: Gate | None = None

    def opened(self, port: Any) -> None:
        """The listener has a port."""
        server = self.server
        self._port = port
        self._gate = Gate(port, server.admission, server.reactor, server.count_refusal)
        server.ports.add(port)
        sock = port.socket
        server.server_address = sock.getsockname()
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
        """Close the port; fires when all requests are gone."""
        assert self._gate is not None
        self._gate.close()
        self.server.ports.discard(self._port)
        closed = maybeDeferred(self._port.stopListening)
        return gatherResults([closed, self.server.drain()], consumeErrors=True)


class DatagramListener:
    """Opens and closes a datagram listener."""

    def __init__(self, server: DatagramServer) -> None:
        self.server = server
        self._port: Any = None

    def opened(self, port: Any) -> None:
        """The listener has a port."""
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
        """Close the port; fires when all requests are gone."""
        # Answers leave through the socket that listens, so that goes last.
        self.server.suspend()
        return self.server.drain().addCallback(lambda _: self._port.stopListening())
