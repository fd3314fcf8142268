"""
Rpcbind: the service that clients ask for the port of a program (RFC 1833).

This room owns what this machine's rpcbind is told, and when.  It must not know options.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import ECONNREFUSED, ECONNRESET
from typing import Any, NamedTuple, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from typing_extensions import override

from sockserve.core.handler_kinds import unwrap
from sockserve.core.logs import Topic, logger
from sockserve.core.messages import about
from sockserve.core.reactors import as_reactor
from sockserve.executors.threads import ThreadExecutor
from sockserve.interfaces import ConfigurationError, PeerError
from sockserve.sunrpc.handler import RPCRequestHandler
from sockserve.sunrpc.messages import make_call
from sockserve.sunrpc.programs import Program
from sockserve.sunrpc.records import MARK_BYTES, Record, fragments
from sockserve.sunrpc.xdr.codec import pack
from sockserve.sunrpc.xdr.declaring import Struct, UnsignedInt

__all__ = ["Listener", "Mapping", "RPCBind", "RPCBindService", "served_program"]

_log = logger(Topic.SERVICE)

#: Rpcbind's own program, and its versions: that of the port mapper, and the fourth.
_RPCBIND, _PMAP_VERSION, _VERSION = 100000, 2, 4
#: Its procedures, in both versions.
_SET, _UNSET = 1, 2

#: Where it listens, as libtirpc has it; over this socket it knows who asks.
SOCKET_PATHS = ("/run/rpcbind.sock", "/var/run/rpcbind.sock")
ADDRESS = ("127.0.0.1", 111)

#: How long it is waited for.  5: it is on this machine, and answers in less than a millisecond.
PATIENCE_SECONDS = 5.0

#: More than any answer of these procedures has.
_MOST_BYTES = 1024

_XID = itertools.count(os.getpid() << 8 & 0xFFFFFF00)

#: By family and type of a socket: what RFC 5665 calls it, and IP's number.
_NETIDS: dict[tuple[int, int], tuple[str, int]] = {
    (socket.AF_INET, socket.SOCK_STREAM): ("tcp", socket.IPPROTO_TCP),
    (socket.AF_INET, socket.SOCK_DGRAM): ("udp", socket.IPPROTO_UDP),
    (socket.AF_INET6, socket.SOCK_STREAM): ("tcp6", 0),
    (socket.AF_INET6, socket.SOCK_DGRAM): ("udp6", 0),
    (socket.AF_UNIX, socket.SOCK_STREAM): ("local", 0),
}


class _RPCB(Struct):
    """The argument of version 4's procedures."""

    program: UnsignedInt
    version: UnsignedInt
    netid: str
    address: str
    owner: str


class _PMap(Struct):
    """The argument of version 2's procedures."""

    program: UnsignedInt
    version: UnsignedInt
    protocol: UnsignedInt
    port: UnsignedInt


class Mapping(NamedTuple):
    """
    The place where a version of a program is found.

    @ivar netid: C{tcp}, C{udp6} and so on.
    @ivar protocol: IP's number of it; 0 where version 2 of rpcbind has none.
    @ivar address: a port's universal address (RFC 5665), or a UNIX socket's path.
    """

    program: int
    version: int
    netid: str
    protocol: int
    address: str
    port: int


class RPCBind:
    """The rpcbind of this machine, as a client has it. (any thread)"""

    def __init__(
        self, paths: Sequence[str] = SOCKET_PATHS, address: tuple[str, int] = ADDRESS
    ) -> None:
        """
        @param paths: where its UNIX socket may be; without one, the port mapper's calls are used.
        @param address: where it listens else.
        """
        self._paths = paths
        self._address = address

    def register(self, mappings: Iterable[Mapping]) -> None:
        """
        Tell it of programs, in the place of what it had of them on the same transport: a server
        that was killed has left its own.

        @raise ConfigurationError: it does not answer, or does not take one; it has none of these
            then.
        """
        told: list[Mapping] = []
        with self._asking() as ask:
            for each in mappings:
                ask(_UNSET, each)
                if not ask(_SET, each):
                    for other in told:
                        ask(_UNSET, other)
                    raise ConfigurationError(
                        f"rpcbind: it does not take program {each.program}, version"
                        f" {each.version}, on {each.netid}: another user has that, or only the"
                        " superuser may"
                    )
                told.append(each)

    def unregister(self, mappings: Iterable[Mapping]) -> None:
        """
        Take programs back.

        @raise ConfigurationError: it does not answer.
        """
        with self._asking() as ask:
            for each in mappings:
                ask(_UNSET, each)

    @contextmanager
    def _asking(self) -> Iterator[Callable[[int, Mapping], bool]]:
        """A connection to it: a function of a procedure and a mapping."""
        try:
            with self._connect() as sock:
                is_local = sock.family == socket.AF_UNIX

                def ask(procedure: int, mapping: Mapping) -> bool:
                    if is_local:
                        return _ask(sock, _VERSION, procedure, pack(_RPCB, _RPCB(*_rpcb(mapping))))
                    if not mapping.protocol:
                        raise ConfigurationError(
                            f"rpcbind: {mapping.netid} needs its socket, {self._paths[0]}"
                        )
                    told = _PMap(mapping.program, mapping.version, mapping.protocol, mapping.port)
                    return _ask(sock, _PMAP_VERSION, procedure, pack(_PMap, told))

                yield ask
        except (OSError, PeerError) as error:
            host, port = self._address
            why = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"rpcbind: none answers at {self._paths[0]} or {host}:{port}: {why}"
            ) from error

    def _connect(self) -> socket.socket:
        for path in self._paths:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE_SECONDS)
            try:
                sock.connect(path)
            except OSError:
                sock.close()
            else:
                return sock
        return socket.create_connection(self._address, PATIENCE_SECONDS)


def _rpcb(mapping: Mapping) -> tuple[int, int, str, str, str]:
    program, version, netid, _, address, _ = mapping
    return program, version, netid, address, str(os.getuid())


def _ask(sock: socket.socket, version: int, procedure: int, arguments: bytes) -> bool:
    """Call a procedure that gives a truth value."""
    xid = next(_XID) & 0xFFFFFFFF
    for piece in fragments(make_call(xid, _RPCBIND, version, procedure, arguments)):
        sock.sendall(piece)
    record = Record(_MOST_BYTES)
    while not record.is_whole:
        record.add(_receive(sock, record.begin_fragment(_receive(sock, MARK_BYTES))))
    data = record.data()
    # The transaction, REPLY, MSG_ACCEPTED, the verifier, SUCCESS, and the value.
    if len(data) != 28 or data[:4] != xid.to_bytes(4, "big"):
        raise ConnectionRefusedError(ECONNREFUSED, "it did not serve the call")
    return any(data[24:])


def _receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionResetError(ECONNRESET, "it closed the connection")
        data += piece
    return data


class _Server(Protocol):
    """The server object of a listener."""

    server_address: Any
    address_family: int
    socket_type: int


class Listener(Protocol):
    """A listener's service, as L{sockserve.service} has them."""

    @property
    def server(self) -> _Server:
        """Its server object."""

    @property
    def description(self) -> str:
        """Where it listens, as a user has said it."""


def served_program(handler: object) -> Program:
    """
    The program that a handler serves.

    @raise ConfigurationError: it serves none.
    """
    cls = unwrap(handler)
    if isinstance(cls, type) and issubclass(cls, RPCRequestHandler) and hasattr(cls, "program"):
        return cls.table.program
    name = getattr(cls, "__qualname__", repr(cls))
    raise ConfigurationError(
        f"rpcbind: handler {name} is no sockserve.sunrpc.RPCRequestHandler with a program"
    )


class _NameKeeper(Protocol):
    """The keeper of names that may outlive this process, as another goes on with them."""

    def keep_name(self, place: tuple[str, ...]) -> None:
        """Have a name outlive this process."""

    def owns_name(self, place: tuple[str, ...]) -> bool:
        """Whether a name is to be removed at the end of this process."""


def _place(mapping: Mapping) -> tuple[str, ...]:
    """The name of an entry, for those who keep it."""
    return ("rpcbind", str(mapping.program), str(mapping.version), mapping.netid)


class RPCBindService(Service):
    """
    The registration of a program with this machine's rpcbind, as long as its listeners run.

    Give it the same parent as the listeners, after them.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        handler: object,
        listeners: Sequence[Listener],
        rpcbind: RPCBind | None = None,
        keeper: _NameKeeper | None = None,
    ) -> None:
        """
        @param handler: an L{RPCRequestHandler} with a program.
        @param listeners: the services of what serves it.
        @param rpcbind: by default that of this machine.
        @param keeper: tells which entries are another process' at the end; None where there is no
            other.
        @raise ConfigurationError: it has no program, or rpcbind knows no such listener.
        """
        self._reactor = as_reactor(reactor)
        self._program = served_program(handler)
        self._listeners = listeners
        self._rpcbind = RPCBind() if rpcbind is None else rpcbind
        self._registered: list[Mapping] = []
        self._keeper = keeper
        for each in listeners:
            if each.description.startswith(("tls:", "ssl:", "haproxy:", "unixgram:")):
                raise ConfigurationError(
                    f"rpcbind: clients cannot be sent to {each.description!r}; tcp:, tcp6:, udp:,"
                    " udp6: and unix: are what it knows"
                )

    @override
    def privilegedStartService(self) -> None:
        """
        Register the program.

        @raise ConfigurationError: rpcbind does not take it.
        """
        self._register()

    @override
    def startService(self) -> None:
        """
        Register the program, unless L{privilegedStartService} did.

        @raise ConfigurationError: rpcbind does not take it.
        """
        super().startService()
        self._register()

    @override
    def stopService(self) -> Deferred[None]:
        """
        Take the registration back, before the listeners' requests have ended.

        @return: a Deferred that fires when that is done.
        """
        is_running = bool(self.running)
        super().stopService()
        registered, self._registered = self._registered, []
        if self._keeper is not None:  # another process may have registered it
            registered = [each for each in registered if self._keeper.owns_name(_place(each))]
        if not registered:
            return succeed(None)
        if not is_running:  # the reactor may not run either
            self._unregister(registered)
            return succeed(None)
        threads = ThreadExecutor(self._reactor, 1)
        done: Deferred[Any] = threads.call(self._unregister, registered)
        return done.addBoth(lambda _: threads.stop())

    def _register(self) -> None:
        if self._registered:
            return
        with about("rpcbind"):
            mappings = [mapping for each in self._listeners for mapping in self._mappings(each)]
            self._rpcbind.register(mappings)
        self._registered = mappings
        if self._keeper is not None:
            for each in mappings:
                self._keeper.keep_name(_place(each))

    def _unregister(self, mappings: list[Mapping]) -> None:
        """Take the registration back; that rpcbind has gone is only logged. (any thread)"""
        try:
            self._rpcbind.unregister(mappings)
        except ConfigurationError as error:
            _log.error("{error}", error=error)

    def _mappings(self, listener: Listener) -> Iterator[Mapping]:
        server = listener.server
        kind = _NETIDS.get((server.address_family, server.socket_type))
        if kind is None:
            raise ConfigurationError(f"rpcbind: it knows no listener as {listener.description!r}")
        netid, protocol = kind
        address, port = server.server_address, 0
        if netid != "local":
            host, port = address[:2]
            address = f"{host}.{port >> 8}.{port & 255}"
        elif not isinstance(address, str) or not address.startswith("/"):
            raise ConfigurationError(
                f"rpcbind: clients cannot find {listener.description!r}; it takes a whole path"
            )
        for version in self._program.versions:
            yield Mapping(self._program.number, version, netid, protocol, address, port)
