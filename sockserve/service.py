"""
Services: listeners as parts of a Twisted application.

This room owns listening, suspending, draining and stopping: one machine for stream and
datagram listeners, and the descriptions that name them.  It must not know option
strings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import Protocol as TypingProtocol

import attrs
from automat import TypeMachineBuilder
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.admission import Gate
from sockserve.connections import StreamFactory, socket_address
from sockserve.datagrams import DatagramServer
from sockserve.descriptions import (
    datagram_port,
    is_datagram_description,
    one_line,
    stream_endpoint,
)
from sockserve.interfaces import ConfigurationError

__all__ = [
    "DEFAULT_REQUEST_QUEUE_SIZE",
    "DatagramRequestService",
    "ListenError",
    "RequestService",
    "service_from_description",
]

#: How many accepted connections the kernel keeps for us, where a description does not
#: say.  Twisted's 50 makes a burst of clients wait a second for their SYN's second try.
DEFAULT_REQUEST_QUEUE_SIZE = 1024


_log = Logger()


class ListenError(ConfigurationError):
    """What was to be listened on cannot be; the message names it and says why."""


# Descriptions


def service_from_description(
    reactor: Any, description: str, RequestHandlerClass: Callable[..., Any], **options: Any
) -> RequestService | DatagramRequestService:
    """
    The service that listens as C{description} says.

    @param options: as L{RequestService.from_description} or
        L{DatagramRequestService.from_description}, whichever the description is for.
    """
    if is_datagram_description(description):
        return DatagramRequestService.from_description(
            reactor, description, RequestHandlerClass, **options
        )
    return RequestService.from_description(reactor, description, RequestHandlerClass, **options)


# The machine


class _Inputs(TypingProtocol):
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
class _Core:
    """
    The listener's data.

    @ivar doors: opens, suspends, resumes and closes one kind of port.
    @ivar closing: what fires when all is gone; for whoever said stop to take.
    """

    doors: _StreamDoors | _DatagramDoors
    closing: Deferred[Any] | None = None
    stopped: list[Deferred[None]] = attrs.Factory(list)


def _make_machine() -> Callable[[_Core], _Inputs]:
    builder = TypeMachineBuilder(_Inputs, _Core)
    stopped = builder.state("stopped")
    listening = builder.state("listening")
    suspended = builder.state("suspended")
    draining = builder.state("draining")

    @stopped.upon(_Inputs.opened).to(listening)
    def opened(inputs: _Inputs, core: _Core, port: Any) -> None:
        core.doors.opened(port)

    @listening.upon(_Inputs.suspend).to(suspended)
    def suspend(inputs: _Inputs, core: _Core) -> None:
        core.doors.suspend()

    @suspended.upon(_Inputs.resume).to(listening)
    def resume(inputs: _Inputs, core: _Core) -> None:
        core.doors.resume()

    listening.upon(_Inputs.resume).loop().returns(None)
    suspended.upon(_Inputs.suspend).loop().returns(None)
    for state in (stopped, draining):
        state.upon(_Inputs.suspend).loop().returns(None)
        state.upon(_Inputs.resume).loop().returns(None)

    @listening.upon(_Inputs.stop).to(draining)
    @suspended.upon(_Inputs.stop).to(draining)
    def stop(inputs: _Inputs, core: _Core) -> Deferred[None]:
        core.closing = core.doors.close()
        return wait(inputs, core)

    @draining.upon(_Inputs.stop).loop()
    def wait(inputs: _Inputs, core: _Core) -> Deferred[None]:
        gone: Deferred[None] = Deferred()
        core.stopped.append(gone)
        return gone

    @stopped.upon(_Inputs.stop).loop()
    def nothing(inputs: _Inputs, core: _Core) -> Deferred[None]:
        return succeed(None)

    @draining.upon(_Inputs.gone).to(stopped)
    def gone(inputs: _Inputs, core: _Core) -> list[Deferred[None]]:
        waiting, core.stopped = core.stopped, []
        return waiting

    stopped.upon(_Inputs.is_stopped).loop().returns(True)
    for state in (listening, suspended, draining):
        state.upon(_Inputs.is_stopped).loop().returns(False)

    return builder.build()


_Machine = _make_machine()


class _StreamDoors:
    """Opens and closes a stream listener."""

    def __init__(self, server: StreamFactory) -> None:
        self.server = server
        self._port: Any = None
        self._gate: Gate | None = None

    def opened(self, port: Any) -> None:
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
        assert self._gate is not None
        self._gate.suspend()

    def resume(self) -> None:
        assert self._gate is not None
        self._gate.resume()

    def close(self) -> Deferred[Any]:
        assert self._gate is not None
        self._gate.close()
        self.server.ports.discard(self._port)
        closed = maybeDeferred(self._port.stopListening)
        return gatherResults([closed, self.server.drain()], consumeErrors=True)


class _DatagramDoors:
    """Opens and closes a datagram listener."""

    def __init__(self, server: DatagramServer) -> None:
        self.server = server
        self._port: Any = None

    def opened(self, port: Any) -> None:
        self._port = port
        self.server.server_address = port.socket.getsockname()
        self.server.address_family = port.socket.family

    def suspend(self) -> None:
        self.server.suspend()

    def resume(self) -> None:
        self.server.resume()

    def close(self) -> Deferred[Any]:
        # Answers leave through the socket that listens, so that goes last.
        self.server.suspend()
        return self.server.drain().addCallback(lambda _: self._port.stopListening())


class _ListenerService(Service):
    """What both kinds of service share."""

    server: StreamFactory | DatagramServer

    def __init__(self, doors: _StreamDoors | _DatagramDoors, description: str) -> None:
        self._core = _Core(doors)
        self._machine = _Machine(self._core)
        self._opening: Deferred[None] | None = None
        self.description = description

    @override
    def privilegedStartService(self) -> None:
        """
        Listen, while there are still the privileges for it.

        @raise ListenError: the address is taken, forbidden or not there.
        """
        self._open()

    @override
    def startService(self) -> None:
        """
        Listen, unless L{privilegedStartService} did.

        @raise ListenError: the address is taken, forbidden or not there.
        """
        super().startService()
        self._open()

    @override
    def stopService(self) -> Deferred[None]:
        """
        Stop listening, let requests come to their end within the C{drain} deadline,
        then abort them.  Fires when all is gone; a thread that does not end is counted
        as abandoned and not waited for.
        """
        super().stopService()
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        stopped = self._machine.stop().addCallback(lambda _: self.server.release_workers())
        closing, self._core.closing = self._core.closing, None
        if closing is not None:
            closing.addErrback(_log_failure).addCallback(lambda _: self._gone())
        return stopped

    def suspend(self) -> None:
        """Take no more requests, but keep listening: clients wait in the kernel's queue."""
        self._machine.suspend()

    def resume(self) -> None:
        """Undo L{suspend}."""
        self._machine.resume()

    def _open(self) -> None:
        if self._opening is not None:
            return
        if not self._machine.is_stopped():
            raise ListenError(
                f"listen {self.description!r}: it is stopping still; wait for what stopService"
                " returned"
            )
        opening: Deferred[None] = maybeDeferred(self._listen).addCallback(self._machine.opened)
        result = getattr(opening, "result", None)
        if isinstance(result, Failure):
            opening.addErrback(lambda _: None)
            raise ListenError(f"listen {self.description!r}: {_why_not(result)}")
        self._opening = opening
        # What fails later (no endpoint of Twisted's does) has nobody to tell but the log.
        opening.addErrback(lambda failure: failure.trap(CancelledError) and None)
        opening.addErrback(_log_failure)

    def _gone(self) -> None:
        for stopped in self._machine.gone():
            stopped.callback(None)

    def _listen(self) -> Any:
        raise NotImplementedError


class RequestService(_ListenerService):
    """
    A stream listener as a service of a Twisted application.

    @ivar server: the server object.
    """

    server: StreamFactory

    def __init__(self, endpoint: Any, server: StreamFactory, description: str = "") -> None:
        """
        @param endpoint: any C{IStreamServerEndpoint}.
        @param server: what serves its connections.
        @param description: names the listener in messages and statistics.
        """
        super().__init__(_StreamDoors(server), description or repr(endpoint))
        self.endpoint = endpoint
        self.server = server
        server.statistics.listener = self.description

    @classmethod
    def from_description(
        cls,
        reactor: Any,
        description: str,
        RequestHandlerClass: Callable[..., Any],
        *,
        factory: Callable[..., StreamFactory] = StreamFactory,
        **options: Any,
    ) -> RequestService:
        """
        @param description: a server endpoint description of Twisted's, or C{fd:NUMBER}.
        @param factory: the server object's class.
        @param options: as L{StreamFactory.__init__}.
        @raise ConfigurationError: one of these cannot be.
        """
        server = factory(RequestHandlerClass, reactor=reactor, **options)

        def trusted(address: IAddress) -> bool:
            return server.trusts_proxy(socket_address(address))

        endpoint = stream_endpoint(reactor, description, trusted)
        if server.request_queue_size is None and "backlog=" not in description:
            server.request_queue_size = DEFAULT_REQUEST_QUEUE_SIZE
        return cls(endpoint, server, description)

    def _listen(self) -> Any:
        return self.endpoint.listen(self.server)


class DatagramRequestService(_ListenerService):
    """
    A datagram listener as a service of a Twisted application.

    @ivar server: the server object.
    """

    server: DatagramServer

    def __init__(self, port: Any, server: DatagramServer, description: str) -> None:
        """Use L{from_description}."""
        super().__init__(_DatagramDoors(server), description)
        self._port = port
        self.server = server
        server.statistics.listener = description

    @classmethod
    def from_description(
        cls,
        reactor: Any,
        description: str,
        RequestHandlerClass: Callable[..., Any],
        *,
        factory: Callable[..., DatagramServer] = DatagramServer,
        **options: Any,
    ) -> DatagramRequestService:
        """
        @param description: C{udp:PORT[:interface=ADDRESS]}, C{udp6:} likewise, or
            C{unixgram:PATH[:mode=OCTAL]}, with Twisted's quoting rules.
        @param factory: the server object's class.
        @param options: as L{DatagramServer.__init__}.
        @raise ConfigurationError: one of these cannot be.
        """
        server = factory(RequestHandlerClass, reactor=reactor, **options)
        return cls(datagram_port(reactor, description, server), server, description)

    def _listen(self) -> Any:
        self._port.startListening()
        return self._port


def _why_not(failure: Failure) -> str:
    error = failure.value
    assert error is not None
    if isinstance(error, CannotListenError):
        cause = error.socketError
        return getattr(cause, "strerror", None) or str(cause)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return one_line(error)


def _log_failure(failure: Failure) -> None:
    _log.failure("a listener failed", failure)
