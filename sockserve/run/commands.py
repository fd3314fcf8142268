"""
The service of a command: those of all its servers.

This room owns what they say when they listen, and when a command is at its end.  It must not know
what they serve, nor how the command was called.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import DeferredList
from twisted.logger import LoggingFile, LogLevel
from typing_extensions import override

from sockserve.core.handler_kinds import speaks_http
from sockserve.core.logs import Topic, logger
from sockserve.core.messages import printable
from sockserve.core.output import write_out
from sockserve.interfaces import ConfigurationError
from sockserve.listeners.service import ListenerService, listeners_of
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.run.served_files import OwnFile, files_to_withhold
from sockserve.run.server_config import ServerConfig
from sockserve.run.source_config import SourceConfig
from sockserve.run.together import check_together
from sockserve.service import SocketServerService

__all__ = ["CommandService", "print_summary", "where_served"]

_log = logger(Topic.SERVICE)


class CommandService(MultiService):
    """
    The service of a command, above those of its servers.

    It ends the program when all its listeners are server objects that have shut down.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[ServerConfig | SourceConfig],
        *,
        is_alone: bool,
        tell: Callable[[ListenerService], object] | None = None,
        own_files: Sequence[OwnFile] = (),
        withheld: Sequence[str] = (),
    ) -> None:
        """
        @param is_alone: whether the program is this command's, and ends with it; else this is part
            of another application, which goes on.
        @param tell: called with each listener that listens, in place of a line in the log.
        @param own_files: files of the process that somebody has named.
        @param withheld: files that are not served where they are in a folder that is, either,
            which is not worth a word.
        @raise ConfigurationError: a server cannot be made.
        """
        super().__init__()
        self._reactor = reactor
        self._is_alone = is_alone
        self._tell = tell or _log_listener
        check_together([each for each in servers if isinstance(each, ServerConfig)])
        found = files_to_withhold(servers, own_files)
        #: Lines about files that are not served, though they are in a folder that is.
        self.notices = tuple(found.values())
        #: Each server with its service.
        self._built = [(server, server.build(reactor)) for server in servers]
        for _, service in self._built:
            service.setServiceParent(self)
        files = {each.file for each in servers if each.file is not None}
        for listener in listeners_of(self):
            listener.server.withheld = (
                *found,
                *withheld,
                *map(os.path.abspath, sorted(files)),
            )

    @override
    def privilegedStartService(self) -> None:
        """
        Listen.

        @raise ConfigurationError: a listener cannot; then none does.
        """
        Service.privilegedStartService(self)
        try:
            for server, service in self._built:
                try:
                    service.privilegedStartService()
                except ConfigurationError as error:
                    server.locate(error)
                    raise
        except ConfigurationError:
            self._withdraw()
            raise

    def _withdraw(self) -> None:
        """Stop what has been started, as the rest cannot be."""
        for _, service in self._built:
            service.stopService()
        if self._is_alone:
            # Ports close, and sockets' names go, in the reactor's next turn, which will not
            # come.
            self._reactor.runUntilCurrent()

    @override
    def startService(self) -> None:
        """
        Serve, and say where.

        @raise ConfigurationError: a database has gone since it was looked at; then nothing is
            served.
        """
        try:
            super().startService()
        except ConfigurationError:
            self._withdraw()
            raise
        # Handlers print what is no error, such as http.server's log, to standard error.
        if isinstance(sys.stderr, LoggingFile):
            sys.stderr.level = LogLevel.info
        for notice in self.notices:
            _log.warn("{notice}", notice=notice)
        listeners = list(listeners_of(self))
        for service in listeners:
            self._tell(service)
        objects = [each for each in listeners if isinstance(each, SocketServerService)]
        if self._is_alone and len(objects) == len(listeners):
            shut_down = DeferredList([each.shut_down for each in objects])
            shut_down.addCallback(lambda _: self.running and self._reactor.stop())


def _log_listener(service: ListenerService) -> None:
    _log.info(
        "{handler}: serving {where}",
        handler=service.server.handler_name,
        where=where_served(service),
    )


def print_summary(
    servers: Sequence[ServerConfig | SourceConfig],
    service: CommandService,
    write: Callable[[str], object] = write_out,
) -> None:
    """Say what would run, and have done with the server objects that were made for that."""
    lines = [line for server in servers for line in server.summary()]
    write("".join(f"{printable(line)}\n" for line in [*lines, *service.notices]))
    for server in servers:
        if isinstance(server, ServerConfig) and server.server is not None:
            server.server.server_close()


def where_served(service: ListenerService) -> str:
    """The place where clients find a listener: a URL if a browser can open one, or its
    description."""
    server = service.server
    address = server.server_address
    kind = service.description.partition(":")[0]
    scheme = {"tcp": "http", "tcp6": "http", "tls": "https", "ssl": "https"}.get(kind)
    # A browser can open it if HTTP is spoken over a kind of listener that has a scheme and
    # a host.
    is_http = isinstance(server, StreamFactory) and speaks_http(server.RequestHandlerClass)
    if is_http and scheme is not None and isinstance(address, tuple):
        return f"{scheme}://{_url_host(address)}:{address[1]}/"
    if isinstance(address, tuple) and ":0" in service.description:
        return f"{service.description} (port {address[1]})"
    return service.description


def _url_host(address: tuple[Any, ...]) -> str:
    """The host of an address in a URL, a link-local one with its zone (RFC 6874)."""
    if len(address) == 2:
        return str(address[0])
    host, _, _, scope = address
    if not scope:
        return f"[{host}]"
    try:
        zone = socket.if_indextoname(scope)
    except OSError:  # it has just gone
        zone = str(scope)
    return f"[{host}%25{zone}]"
