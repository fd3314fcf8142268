"""
The settings of one server, and the services they come to.

This room owns what a server is made of, in which order, and how that is told in a few lines.  It
must not know the words that users write.
"""

from __future__ import annotations

import socketserver
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from typing_extensions import override

from sockserve.core.admission import Admission, Network
from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import handler_name
from sockserve.core.limits import LIMITS, LimitKind
from sockserve.core.messages import about
from sockserve.core.reactors import as_reactor
from sockserve.interfaces import ConfigurationError, Phase
from sockserve.listeners.endpoints import is_datagram_description
from sockserve.listeners.kept_sockets import keeper_of
from sockserve.listeners.service import ListenerService
from sockserve.observe.access_log import AccessLog
from sockserve.run.options.forms import KEEPALIVE
from sockserve.run.origins import Locate, leave_as_it_is
from sockserve.run.summary import deadlines_line, limits_line
from sockserve.run.workers import make_workers, place_of
from sockserve.service import (
    DatagramRequestService,
    RequestService,
    SocketServerService,
    service_from_description,
)

if TYPE_CHECKING:
    from twisted.cred.portal import Portal

__all__ = [
    "DEFAULT_LISTEN",
    "NO_LOG",
    "RATES",
    "LoggedServices",
    "ServerConfig",
    "listener_kind",
    "make_logs",
]

#: The description listened on when none is given.
DEFAULT_LISTEN = "tcp:8000:interface=127.0.0.1"

#: What is written in the place of a log's file where there is to be no log.
NO_LOG = "none"

#: The settings of L{Deadlines} that are no phases, and have words of their own.
RATES = ("body_rate", "body_grace", "write_rate")


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
    @ivar rpcbind: whether rpcbind is told of the handler's program.
    @ivar stats_log: the name of a file for the same in JSON, or C{-}; None for no such log.
    @ivar portal: where handlers find out who a client is; None for nowhere.
    @ivar checkers: the checkers of the portal, as they were asked for.
    @ivar files_of_tls: those that were named by words of their own, by word.
    @ivar file: the configuration file; None where there is none.
    @ivar locate: prefixes an error's message with the place where its word was written.
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
    rpcbind: bool = False
    stats_log: str | None = None
    portal: Portal | None = attrs.field(default=None, eq=False, repr=False)
    checkers: tuple[str, ...] = attrs.field(default=(), repr=False)
    files_of_tls: Mapping[str, str] = attrs.Factory(dict)
    file: str | None = attrs.field(default=None, eq=False)
    locate: Locate = attrs.field(default=leave_as_it_is, eq=False, repr=False)

    def build(self, reactor: IReactorTime) -> MultiService:
        """
        Make the services of this server, not started: one for each description.  They
        share the workers and the caps.

        @raise ConfigurationError: a description is none, or a log cannot be written.
        """
        try:
            return self._build(reactor)
        except ConfigurationError as error:
            self.locate(error)
            raise

    def _build(self, reactor: IReactorTime) -> MultiService:
        logs = make_logs(reactor, self.access_log, self.log_format, self.stats_log)
        parent = LoggedServices(logs, "listen")
        service: SocketServerService | RequestService | DatagramRequestService
        if self.server is not None:
            service = self._build_object(self.server, reactor)
            self._log_requests(service, logs)
            service.setServiceParent(parent)
            return parent
        concurrency = make_workers(reactor, self)
        admission = self._admission()
        for item, description in enumerate(self.listen):
            options: dict[str, Any] = {
                "deadlines": self.deadlines,
                "concurrency": concurrency,
                "admission": admission,
                "portal": self.portal,
            }
            kind = listener_kind(description)
            if kind is LimitKind.STREAMS:
                options["proxy_from"] = self.proxy_from
            options["limits"] = {
                name: value for name, value in self.limits.items() if LIMITS[name].kind is kind
            }
            if "backlog=" in description:  # it says so of this one
                options["limits"].pop("request_queue_size", None)
            with about("listen", item), about("handler"):
                service = service_from_description(reactor, description, self.handler, **options)
            self._log_requests(service, logs)
            service.setServiceParent(parent)
        if self.rpcbind:
            from sockserve.sunrpc.rpcbind import RPCBindService

            listeners = [each for each in parent if isinstance(each, ListenerService)]
            with about("rpcbind"):
                RPCBindService(
                    reactor, self.handler, listeners, keeper=keeper_of(reactor)
                ).setServiceParent(parent)
        return parent

    def _log_requests(self, service: ListenerService, logs: Sequence[AccessLog]) -> None:
        service.server.logs_requests = self.access_log is not None
        service.server.observers += [log.observer(service.description) for log in logs]

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
        with about("server"):
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
        name = handler_name(self.handler)
        if self.server is not None:
            kind, where = type(self.server).__qualname__, self.server.server_address
            lines = [f"server {kind}: {name} on {where}"]
        else:
            place = place_of(self)
            shown = [description.replace("\0", "@") for description in self.listen]
            lines = [f"listen {description}: {name} on {place}" for description in shown]
        usual = Deadlines()
        rates = [rate for rate in RATES if getattr(self.deadlines, rate) != getattr(usual, rate)]
        lines.append(deadlines_line(self.deadlines, [*Phase, *KEEPALIVE, *rates]))
        if self.limits:
            lines.append(limits_line(self.limits))
        return lines


def listener_kind(description: str) -> LimitKind:
    """The kind of limits that hold for what a description listens for."""
    return LimitKind.DATAGRAMS if is_datagram_description(description) else LimitKind.STREAMS


def make_logs(
    reactor: IReactorTime, access_log: str | None, log_format: str, stats_log: str | None
) -> list[AccessLog]:
    """
    Make the logs of requests that are asked for.

    @raise ConfigurationError: one cannot be written.
    """
    return [
        AccessLog(as_reactor(reactor), path, form, word)
        for word, path, form in (
            ("access-log", access_log, log_format),
            ("stats-log", stats_log, "json"),
        )
        if path not in (None, NO_LOG)
    ]


class LoggedServices(MultiService):
    """
    The service of one server's listeners, or one source's tables, and their logs of requests.

    The logs are stopped after them: requests that end while they drain are still logged.
    """

    def __init__(self, logs: Sequence[AccessLog], word: str) -> None:
        """
        @param word: the word that says what the services are that are added, in its order.
        """
        super().__init__()
        self._logs = logs
        self._word = word
        for log in logs:
            log.setServiceParent(self)

    @override
    def privilegedStartService(self) -> None:
        Service.privilegedStartService(self)
        for place, service in enumerate(self.services, -len(self._logs)):
            with about(self._word, place):
                service.privilegedStartService()

    @override
    def stopService(self) -> Deferred[Any]:
        Service.stopService(self)
        stopped = [maybeDeferred(child.stopService) for child in self if child not in self._logs]
        return DeferredList(stopped, consumeErrors=True).addCallback(self._stop_logs)

    def _stop_logs(self, stopped: object) -> object:
        for log in self._logs:
            log.stopService()
        return stopped
