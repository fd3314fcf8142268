"""
The configuration of one server, checked, and the services it comes to.

This room owns the words (option names and TOML keys are the same), their checks, and
the messages about mistakes in them.  It must not know where the words came from
(L{sockserve.run.config_file} is one such place).
"""

from __future__ import annotations

import functools
import os
import socket
import socketserver
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from typing_extensions import override

from sockserve.core.admission import Admission, Network, parse_network
from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import handler_kind, unwrap
from sockserve.core.messages import nearest
from sockserve.core.reactors import as_reactor
from sockserve.dropin.overriding import accepts_takeover
from sockserve.executors import make_executor
from sockserve.handlers import DatagramRequestHandler, StreamRequestHandler
from sockserve.http.files.handler import FileRequestHandler
from sockserve.http.handlers import HTTPRequestHandler
from sockserve.interfaces import ConfigurationError, Phase
from sockserve.listeners.endpoints import is_datagram_description
from sockserve.observe.access_log import LOG_FORMATS, AccessLog
from sockserve.run.loading import load_handler, load_server
from sockserve.service import (
    DatagramRequestService,
    RequestService,
    SocketServerService,
    service_from_description,
)

__all__ = [
    "DEFAULT_LISTEN",
    "WORDS",
    "ServerConfig",
    "server_config",
]

#: The description listened on when none is given.
DEFAULT_LISTEN = "tcp:8000:interface=127.0.0.1"

#: The words that go with a server object, which has a socket and a handler of its own.
_SERVER_WORDS = (
    "server", "threads", "timeout", "max-connections", "max-connections-per-peer", "allow",
    "deny", "access-log", "log-format",
)  # fmt: skip

#: The values of C{concurrency}, and how a summary says what blocking handlers run on.
_WORKERS = {"serial": "one thread", "threads": "threads", "fork": "child processes"}


@attrs.frozen(kw_only=True)
class ServerConfig:
    """
    The settings of one server.

    @ivar listen: descriptions of where to listen, at least one.
    @ivar handler: a handler class, or any callable that makes a handler.
    @ivar server: a server object of C{socketserver}'s kind, whose socket and handler are
        used instead; None when there is none.
    @ivar concurrency: C{serial}, C{threads} or C{fork}; None for the handler's default.
    @ivar threads: the most threads; None for the default.
    @ivar max_children: the most children at once; None for the default.
    @ivar deadlines: the seconds that each phase may last.
    @ivar max_connections: the most connections at once; None for no cap.
    @ivar max_connections_per_peer: the most from one address; None for no cap.
    @ivar allow: networks, as L{Admission}'s.
    @ivar deny: networks, as L{Admission}'s.
    @ivar proxy_from: the networks whose PROXY headers are believed; empty for all.
    @ivar access_log: the file's name, or C{-}; None for no log.
    @ivar log_format: a name in L{LOG_FORMATS}.
    @ivar add_location: prefixes a message with the place where the words were written.
    """

    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    handler: Callable[..., Any]
    server: socketserver.BaseServer | None = None
    concurrency: str | None = None
    threads: int | None = None
    max_children: int | None = None
    deadlines: Deadlines = attrs.Factory(Deadlines)
    max_connections: int | None = None
    max_connections_per_peer: int | None = None
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    proxy_from: tuple[Network, ...] = ()
    access_log: str | None = None
    log_format: str = "combined"
    add_location: Callable[[str], str] = attrs.field(default=str, eq=False, repr=False)

    def build(self, reactor: IReactorTime) -> MultiService:
        """
        Make the services of this server, not started: one for each description.  They
        share the workers and the caps.

        @raise ConfigurationError: a description is none, or the access log cannot be
            written.
        """
        try:
            return self._build(reactor)
        except ConfigurationError as error:
            raise ConfigurationError(self.add_location(str(error))) from error

    def _build(self, reactor: IReactorTime) -> MultiService:
        log = None
        if self.access_log is not None:
            log = AccessLog(as_reactor(reactor), self.access_log, self.log_format)
        parent = _Server(log)
        service: SocketServerService | RequestService | DatagramRequestService
        if self.server is not None:
            service = self._build_object(self.server, reactor)
            if log is not None:
                service.server.observers.append(log.observer(service.description))
            service.setServiceParent(parent)
            return parent
        concurrency = None
        if not handler_kind(self.handler).is_coroutine:
            concurrency = make_executor(
                reactor,
                self.concurrency or "threads",
                threads=self.threads,
                max_children=self.max_children,
            )
        admission = self._admission()
        for description in self.listen:
            options: dict[str, Any] = {
                "deadlines": self.deadlines,
                "concurrency": concurrency,
                "admission": admission,
            }
            if not is_datagram_description(description):
                options["proxy_from"] = self.proxy_from
            service = service_from_description(reactor, description, self.handler, **options)
            if log is not None:
                service.server.observers.append(log.observer(description))
            service.setServiceParent(parent)
        return parent

    def _build_object(
        self, server: socketserver.BaseServer, reactor: IReactorTime
    ) -> SocketServerService:
        options: dict[str, Any] = {"deadlines": self.deadlines, "admission": self._admission()}
        if self.threads is not None:
            options["threads"] = self.threads
        return SocketServerService(server, reactor, **options)

    def _admission(self) -> Admission:
        return Admission(
            max_connections=self.max_connections,
            max_connections_per_peer=self.max_connections_per_peer,
            allow=self.allow,
            deny=self.deny,
        )

    def summary(self) -> list[str]:
        """Describe in a few lines, for C{--check}, what would run."""
        name = getattr(unwrap(self.handler), "__qualname__", repr(self.handler))
        if self.server is not None:
            kind, where = type(self.server).__qualname__, self.server.server_address
            first = [f"server {kind}: {name} on {where}"]
        else:
            if handler_kind(self.handler).is_coroutine:
                place = "the reactor"
            else:
                place = _WORKERS[self.concurrency or "threads"]
            shown = [description.replace("\0", "@") for description in self.listen]
            first = [f"listen {description}: {name} on {place}" for description in shown]
        deadlines = []
        for phase in Phase:
            seconds = getattr(self.deadlines, phase)
            deadlines.append(f"{phase}=none" if seconds is None else f"{phase}={seconds:g}")
        return [*first, f"deadlines {' '.join(deadlines)}"]


class _Server(MultiService):
    """
    The service of one server's listeners and their access log.

    The log is stopped after them: requests that end while they drain are still logged.
    """

    def __init__(self, log: AccessLog | None) -> None:
        super().__init__()
        self._log = log
        if log is not None:
            log.setServiceParent(self)

    @override
    def stopService(self) -> Deferred[Any]:
        Service.stopService(self)
        stopped = [maybeDeferred(child.stopService) for child in self if child is not self._log]
        return DeferredList(stopped, consumeErrors=True).addCallback(self._stop_log)

    def _stop_log(self, stopped: object) -> object:
        if self._log is not None:
            self._log.stopService()
        return stopped


def server_config(words: Mapping[str, object]) -> ServerConfig:
    """
    Make the settings of one server from a user's words, and check them.

    @param words: the values by option name, as C{max-connections}: strings or, from TOML,
        of types of their own.
    @raise ConfigurationError: a word is unknown, its value is wrong, or it contradicts
        another.
    """
    for word in words:
        if word not in WORDS:
            raise ConfigurationError(f"unknown word {word!r}{nearest(word, WORDS)}")
        if "server" in words and word not in _SERVER_WORDS:
            raise ConfigurationError(f"{word}: does not go with server, which has its own")
    settings = {
        WORDS[word][0]: WORDS[word][1](word, value)
        for word, value in words.items()
        if word not in ("handler", "path")
    }
    if "server" in words:
        config = ServerConfig(handler=settings["server"].RequestHandlerClass, **settings)
        _check_server_object(config)
        return config
    config = ServerConfig(handler=_handler(words), **settings)
    _check(config)
    return config


def _handler(words: Mapping[str, object]) -> Callable[..., Any]:
    """The handler that C{handler} or C{path} names; without either, files from here."""
    if "handler" in words and "path" in words:
        raise ConfigurationError("handler and path: give one of them")
    if "handler" in words:
        return load_handler(_text("handler", words["handler"]))
    directory = os.path.abspath(_text("path", words.get("path", ".")))
    if not os.path.isdir(directory):
        raise ConfigurationError(f"path {directory!r}: not a directory")
    return functools.partial(FileRequestHandler, directory=directory)


def _check_server_object(config: ServerConfig) -> None:
    """
    Check that each setting given has an effect on the server object.

    @raise ConfigurationError: one has none.
    """
    server: Any = config.server
    usual = Deadlines()
    kind = type(server).__qualname__
    # Reasons why a setting may have none; None where a reason does not hold.
    alone = None if accepts_takeover(server) else f"{kind} processes requests by itself"
    serial = unconnected = None
    if not isinstance(server, socketserver.ThreadingMixIn):
        serial = f"{kind} is no socketserver.ThreadingMixIn and serves one request at a time"
    if getattr(server, "socket_type", None) == socket.SOCK_DGRAM:
        unconnected = f"{kind} has no connections"
    faults = [
        ("threads", config.threads, alone or serial),
        ("access-log", config.access_log, alone),
        ("max-connections", config.max_connections, alone or unconnected),
        ("max-connections-per-peer", config.max_connections_per_peer, alone or unconnected),
    ]
    for phase in Phase:
        fault = unconnected or (None if phase is Phase.HANDSHAKE else alone)
        seconds = getattr(config.deadlines, phase)
        if phase is not Phase.DRAIN and seconds != getattr(usual, phase):
            faults.append((f"timeout {phase}", phase, fault))
    for word, value, fault in faults:
        if value is not None and fault is not None:
            raise ConfigurationError(f"{word}: does not go with this server: {fault}")


def _check(config: ServerConfig) -> None:
    """
    Check the settings against one another.

    @raise ConfigurationError: two of them do not go together.
    """
    cls = unwrap(config.handler)
    name = getattr(cls, "__qualname__", repr(cls))
    if handler_kind(config.handler).is_coroutine:
        for word, value in (
            ("concurrency", config.concurrency),
            ("threads", config.threads),
            ("max-children", config.max_children),
        ):
            if value is not None:
                raise ConfigurationError(
                    f"{word}: handler {name} is async def and runs on the reactor; leave"
                    f" {word} out, or write handle without async"
                )
    if not config.listen:
        raise ConfigurationError("listen: give at least one description")
    if config.threads is not None and config.concurrency not in (None, "threads"):
        raise ConfigurationError(
            f"threads: goes with concurrency threads, not {config.concurrency}"
        )
    if config.max_children is not None and config.concurrency != "fork":
        raise ConfigurationError("max-children: goes with concurrency fork")
    for description in config.listen:
        datagrams = is_datagram_description(description)
        if datagrams and _derives(
            cls, StreamRequestHandler, socketserver.StreamRequestHandler, HTTPRequestHandler
        ):
            raise ConfigurationError(
                f"listen {description!r}: handler {name} serves streams; listen on tcp:,"
                " tls: or unix:"
            )
        if not datagrams and _derives(
            cls, DatagramRequestHandler, socketserver.DatagramRequestHandler
        ):
            raise ConfigurationError(
                f"listen {description!r}: handler {name} serves datagrams; listen on udp:,"
                " udp6: or unixgram:"
            )


def _derives(cls: object, *bases: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, bases)


# Checks of one value: each takes the word, for messages, and the value, and returns it in the
# type that the setting has.


def _server_object(word: str, value: object) -> socketserver.BaseServer:
    return load_server(_text(word, value))


def _text(word: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{word}: {value!r} is not a text")
    if not value:
        raise ConfigurationError(f"{word}: it is empty")
    return value


def _texts(word: str, value: object) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(_text(word, item) for item in value)
    return (_text(word, value),)


def _number(word: str, value: object) -> int:
    try:
        if isinstance(value, (bool, float)):
            raise ValueError
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise ConfigurationError(f"{word}: {value!r} is not a whole number") from None
    if number < 1:
        raise ConfigurationError(f"{word}: {number} is less than 1")
    return int(number)


def _choice(*choices: str) -> Callable[[str, object], str]:
    def choose(word: str, value: object) -> str:
        if value not in choices:
            hint = nearest(str(value), choices)
            raise ConfigurationError(f"{word}: {value!r} is not one of {', '.join(choices)}{hint}")
        return str(value)

    return choose


def _networks(word: str, value: object) -> tuple[Network, ...]:
    try:
        return tuple(parse_network(text) for text in _texts(word, value))
    except ConfigurationError as error:
        raise ConfigurationError(f"{word}: {error}") from None


def _deadlines(word: str, value: object) -> Deadlines:
    """Deadlines, from C{["idle=60", …]} or, in TOML, C{{idle = 60, …}}."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        pairs = []
        for text in _texts(word, value):
            phase, equals, seconds = text.partition("=")
            if not equals:
                raise ConfigurationError(f"{word} {text!r}: write PHASE=SECONDS")
            pairs.append((phase, seconds))
    phases = [str(phase) for phase in Phase]
    settings: dict[str, float | None] = {}
    for phase, seconds in pairs:
        if phase not in phases:
            raise ConfigurationError(
                f"{word}: {phase!r} is not one of {', '.join(phases)}{nearest(phase, phases)}"
            )
        if seconds == "none":
            settings[phase] = None
            continue
        try:
            if isinstance(seconds, bool):
                raise ValueError
            settings[phase] = float(seconds)
            Deadlines(**{phase: settings[phase]})
        except (TypeError, ValueError, ConfigurationError):
            raise ConfigurationError(
                f"{word} {phase}: {seconds!r} is not a number of seconds above 0, nor none"
            ) from None
    return Deadlines(**settings)


#: By word: the setting of L{ServerConfig} it is for, and the function that checks its value.
WORDS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "listen": ("listen", _texts),
    "handler": ("handler", _text),
    "path": ("path", _text),
    "server": ("server", _server_object),
    "concurrency": ("concurrency", _choice(*_WORKERS)),
    "threads": ("threads", _number),
    "max-children": ("max_children", _number),
    "timeout": ("deadlines", _deadlines),
    "max-connections": ("max_connections", _number),
    "max-connections-per-peer": ("max_connections_per_peer", _number),
    "allow": ("allow", _networks),
    "deny": ("deny", _networks),
    "proxy-from": ("proxy_from", _networks),
    "access-log": ("access_log", _text),
    "log-format": ("log_format", _choice(*LOG_FORMATS)),
}
