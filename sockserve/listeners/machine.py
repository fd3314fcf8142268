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

from sockserve.core.admission import Gate
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.streams import StreamFactory

__all__ = ["Core", "DatagramDoors", "Inputs", "Machine", "StreamDoors"]


class Inputs(Protocol):
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
class Core:
    """
    The listener's data.

    @ivar doors: opens, suspends, resumes and closes one kind of port.
    @ivar closing: what fires when all is gone; for whoever said stop to take.
    """

    doors: StreamDoors | DatagramDoors
    closing: Deferred[Any] | None = None
    stopped: list[Deferred[None]] = attrs.Factory(list)


def _make_machine() -> Callable[[Core], Inputs]:
    builder = TypeMachineBuilder(Inputs, Core)
    stopped = builder.state("stopped")
    listening = builder.state("listening")
    suspended = builder.state("suspended")
    draining = builder.state("draining")

    @stopped.upon(Inputs.opened).to(listening)
    def opened(inputs: Inputs, core: Core, port: Any) -> None:
        core.doors.opened(port)

    @listening.upon(Inputs.suspend).to(suspended)
    def suspend(inputs: Inputs, core: Core) -> None:
        core.doors.suspend()

    @suspended.upon(Inputs.resume).to(listening)
    def resume(inputs: Inputs, core: Core) -> None:
        core.doors.resume()

    listening.upon(Inputs.resume).loop().returns(None)
    suspended.upon(Inputs.suspend).loop().returns(None)
    for state in (stopped, draining):
        state.upon(Inputs.suspend).loop().returns(None)
        state.upon(Inputs.resume).loop().returns(None)

    @listening.upon(Inputs.stop).to(draining)
    @suspended.upon(Inputs.stop).to(draining)
    def stop(inputs: Inputs, core: Core) -> Deferred[None]:
        core.closing = core.doors.close()
        return wait(inputs, core)

    @draining.upon(Inputs.stop).loop()
    def wait(inputs: Inputs, core: Core) -> Deferred[None]:
        gone: Deferred[None] = Deferred()
        core.stopped.append(gone)
        return gone

    @stopped.upon(Inputs.stop).loop()
    def nothing(inputs: Inputs, core: Core) -> Deferred[None]:
        return succeed(None)

    @draining.upon(Inputs.gone).to(stopped)
    def gone(inputs: Inputs, core: Core) -> list[Deferred[None]]:
        waiting, core.stopped = core.stopped, []
        return waiting

    stopped.upon(Inputs.is_stopped).loop().returns(True)
    for state in (listening, suspended, draining):
        state.upon(Inputs.is_stopped).loop().returns(False)

    return builder.build()


Machine = _make_machine()


class StreamDoors:
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


class DatagramDoors:
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
