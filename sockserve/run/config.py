"""
The configuration of one server, checked, and the services it comes to.

This room owns the words (option names and TOML keys are the same), how they go together, and
the messages about mistakes in that.  It must not know where the words came from
(L{sockserve.run.config_file} is one such place).
"""

from __future__ import annotations

import functools
import os
import socket
import socketserver
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from twisted.application.service import MultiService, Service
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from typing_extensions import override

from sockserve.auth.checkers import make_portal
from sockserve.core.admission import Admission, Network
from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import handler_kind, unwrap
from sockserve.core.limits import LIMITS, LimitKind
from sockserve.core.messages import nearest
from sockserve.core.reactors import as_reactor
from sockserve.dropin.overriding import accepts_takeover
from sockserve.dropin.settings import own_deadlines
from sockserve.executors import make_executor
from sockserve.handlers import DatagramRequestHandler, StreamRequestHandler
from sockserve.http.files.handler import FileRequestHandler
from sockserve.http.handlers import HTTPRequestHandler
from sockserve.interfaces import ConfigurationError, Phase
from sockserve.listeners.endpoints import is_datagram_description
from sockserve.observe.access_log import LOG_FORMATS, AccessLog
from sockserve.run.loading import load_handler, load_server
from sockserve.run.values import (
    KEEPALIVE,
    choice,
    deadline_setting,
    deadlines,
    limit,
    networks,
    number,
    text,
    texts,
)
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
    "server", "threads", "timeout", "body-rate", "body-grace", "write-rate", "max-connections",
    "max-connections-per-peer", "allow", "deny", "max-body-bytes", "max-request-line-bytes",
    "max-header-bytes", "max-header-fields", "max-spool-bytes", "max-datagrams", "access-log",
    "log-format", "stats-log",
)  # fmt: skip

#: The settings of L{Deadlines} that have words of their own.
_RATES = ("body_rate", "body_grace", "write_rate")

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
    @ivar limits: those given of L{LIMITS}, by name.
    @ivar max_connections: the most connections at once; None for no cap.
    @ivar max_connections_per_peer: the most from one address; None for no cap.
    @ivar allow: networks, as L{Admission}'s.
    @ivar deny: networks, as L{Admission}'s.
    @ivar proxy_from: the networks whose PROXY headers are believed; empty for all.
    @ivar access_log: the file's name, or C{-}; None for no log.
    @ivar log_format: a name in L{LOG_FORMATS}.
    @ivar stats_log: the name of a file for the same in JSON, or C{-}; None for no such log.
    @ivar portal: where handlers find out who a client is; None for nowhere.
    @ivar add_location: prefixes a message with the place where the words were written.
    """

    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    handler: Callable[..., Any]
    server: socketserver.BaseServer | None = None
    concurrency: str | None = None
    threads: int | None = None
    max_children: int | None = None
    deadlines: Deadlines = attrs.Factory(Deadlines)
    limits: Mapping[str, int | None] = attrs.Factory(dict)
    max_connections: int | None = None
    max_connections_per_peer: int | None = None
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    proxy_from: tuple[Network, ...] = ()
    access_log: str | None = None
    log_format: str = "combined"
    stats_log: str | None = None
    portal: Portal | None = attrs.field(default=None, eq=False, repr=False)
    add_location: Callable[[str], str] = attrs.field(default=str, eq=False, repr=False)

    def build(self, reactor: IReactorTime) -> MultiService:
        """
        Make the services of this server, not started: one for each description.  They
        share the workers and the caps.

        @raise ConfigurationError: a description is none, or a log cannot be written.
        """
        try:
            return self._build(reactor)
        except ConfigurationError as error:
            raise ConfigurationError(self.add_location(str(error))) from error

    def _build(self, reactor: IReactorTime) -> MultiService:
        logs = [
            AccessLog(as_reactor(reactor), path, log_format, word)
            for word, path, log_format in (
                ("access-log", self.access_log, self.log_format),
                ("stats-log", self.stats_log, "json"),
            )
            if path is not None
        ]
        parent = _Server(logs)
        service: SocketServerService | RequestService | DatagramRequestService
        if self.server is not None:
            service = self._build_object(self.server, reactor)
            service.server.observers += [log.observer(service.description) for log in logs]
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
                "portal": self.portal,
            }
            kind = _listener_kind(description)
            if kind is LimitKind.STREAMS:
                options["proxy_from"] = self.proxy_from
            options["limits"] = {
                name: value for name, value in self.limits.items() if LIMITS[name].kind is kind
            }
            if "backlog=" in description:  # it says so of this one
                options["limits"].pop("request_queue_size", None)
            service = service_from_description(reactor, description, self.handler, **options)
            service.server.observers += [log.observer(description) for log in logs]
            service.setServiceParent(parent)
        return parent

    def _build_object(
        self, server: socketserver.BaseServer, reactor: IReactorTime
    ) -> SocketServerService:
        options: dict[str, Any] = {
            "deadlines": self.deadlines,
            "limits": self.limits,
            "admission": self._admission(),
        }
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
        for phase in (*Phase, *KEEPALIVE):
            seconds = getattr(self.deadlines, phase.replace("-", "_"))
            deadlines.append(f"{phase}=none" if seconds is None else f"{phase}={seconds:g}")
        for name in _RATES:
            setting = getattr(self.deadlines, name)
            if setting != getattr(Deadlines(), name):
                deadlines.append(f"{name}=none" if setting is None else f"{name}={setting:g}")
        lines = [*first, f"deadlines {' '.join(deadlines)}"]
        if self.limits:
            limits = [
                f"{name}=none" if value is None else f"{name}={value}"
                for name, value in self.limits.items()
            ]
            lines.append(f"limits {' '.join(limits)}")
        return lines


def _listener_kind(description: str) -> LimitKind:
    return LimitKind.DATAGRAMS if is_datagram_description(description) else LimitKind.STREAMS


class _Server(MultiService):
    """
    The service of one server's listeners and their logs of requests.

    The logs are stopped after them: requests that end while they drain are still logged.
    """

    def __init__(self, logs: Sequence[AccessLog]) -> None:
        super().__init__()
        self._logs = logs
        for log in logs:
            log.setServiceParent(self)

    @override
    def stopService(self) -> Deferred[Any]:
        Service.stopService(self)
        stopped = [maybeDeferred(child.stopService) for child in self if child not in self._logs]
        return DeferredList(stopped, consumeErrors=True).addCallback(self._stop_logs)

    def _stop_logs(self, stopped: object) -> object:
        for log in self._logs:
            log.stopService()
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
    settings["limits"] = {name: settings.pop(name) for name in list(settings) if name in LIMITS}
    given: dict[str, float | None] = settings.pop("deadlines", {})
    given |= {name: settings.pop(name) for name in _RATES if name in settings}
    own = own_deadlines(settings.get("server"))
    settings["deadlines"] = attrs.evolve(own, **given) if own else Deadlines(**given)
    if "server" in words:
        config = ServerConfig(handler=settings["server"].RequestHandlerClass, **settings)
        _check_server_object(config, given)
        return config
    config = ServerConfig(handler=_handler(words), **settings)
    _check(config)
    return config


def _handler(words: Mapping[str, object]) -> Callable[..., Any]:
    """The handler that C{handler} or C{path} names; without either, files from here."""
    if "handler" in words and "path" in words:
        raise ConfigurationError("handler and path: give one of them")
    if "handler" in words:
        return load_handler(text("handler", words["handler"]))
    directory = os.path.abspath(text("path", words.get("path", ".")))
    if not os.path.isdir(directory):
        raise ConfigurationError(f"path {directory!r}: not a directory")
    return functools.partial(FileRequestHandler, directory=directory)


def _check_server_object(config: ServerConfig, deadlines: Mapping[str, float | None]) -> None:
    """
    Check that each setting given has an effect on the server object.

    @param deadlines: those that are given.
    @raise ConfigurationError: one has none.
    """
    server: Any = config.server
    usual = Deadlines()
    kind = type(server).__qualname__
    # Reasons why a setting may have none; None where a reason does not hold.
    alone = None if accepts_takeover(server) else f"{kind} processes requests by itself"
    serial = unconnected = connected = None
    if not isinstance(server, socketserver.ThreadingMixIn):
        serial = f"{kind} is no socketserver.ThreadingMixIn and serves one request at a time"
    if getattr(server, "socket_type", None) == socket.SOCK_DGRAM:
        unconnected = f"{kind} has no connections"
    else:
        connected = f"{kind} serves no datagrams"
    faults = [
        ("threads", config.threads, alone or serial),
        ("access-log", config.access_log, alone),
        ("stats-log", config.stats_log, alone),
        ("max-connections", config.max_connections, alone or unconnected),
        ("max-connections-per-peer", config.max_connections_per_peer, alone or unconnected),
    ]
    for phase, seconds in deadlines.items():
        fault = unconnected or (None if phase == Phase.HANDSHAKE else alone)
        word = phase.replace("_", "-")
        if phase in _RATES:
            faults.append((word, phase, fault))
        elif phase != Phase.DRAIN and seconds != getattr(usual, phase):
            faults.append((f"timeout {word}", phase, fault))
    for name in config.limits:
        is_for_datagrams = LIMITS[name].kind is LimitKind.DATAGRAMS
        fault = alone or (connected if is_for_datagrams else unconnected)
        faults.append((name.replace("_", "-"), name, fault))
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
    kinds = {_listener_kind(description) for description in config.listen}
    for name in config.limits:
        kind = LIMITS[name].kind
        if kind not in kinds:
            raise ConfigurationError(
                f"{name.replace('_', '-')}: it is for {kind.value}, and no listener here is one"
                " of these"
            )
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


def _portal(word: str, value: object) -> Portal:
    return make_portal(texts(word, value), word=word)


def _server_object(word: str, value: object) -> socketserver.BaseServer:
    return load_server(text(word, value))


#: By word: the setting of L{ServerConfig} it is for, and the function that checks its value.
WORDS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "listen": ("listen", texts),
    "handler": ("handler", text),
    "path": ("path", text),
    "server": ("server", _server_object),
    "concurrency": ("concurrency", choice(*_WORKERS)),
    "threads": ("threads", number),
    "max-children": ("max_children", number),
    "timeout": ("deadlines", deadlines),
    "body-rate": ("body_rate", deadline_setting),
    "body-grace": ("body_grace", deadline_setting),
    "write-rate": ("write_rate", deadline_setting),
    **{name.replace("_", "-"): (name, limit) for name in LIMITS},
    "max-connections": ("max_connections", number),
    "max-connections-per-peer": ("max_connections_per_peer", number),
    "allow": ("allow", networks),
    "deny": ("deny", networks),
    "proxy-from": ("proxy_from", networks),
    "auth": ("portal", _portal),
    "access-log": ("access_log", text),
    "log-format": ("log_format", choice(*LOG_FORMATS)),
    "stats-log": ("stats_log", text),
}
