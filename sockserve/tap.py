"""
The command line of C{twistd sockserve}.

This room owns the options, and how errors reach the user: one line on standard error
and exit status 1.  It must not know how requests are served.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from twisted.application.service import IService, MultiService
from twisted.internet.defer import DeferredList
from twisted.logger import LoggingFile, LogLevel
from twisted.python import usage
from typing_extensions import override

from sockserve.core.clock import keep_steady
from sockserve.core.environment import restore_environment
from sockserve.core.handler_kinds import speaks_http
from sockserve.core.logs import Topic, logger
from sockserve.core.messages import nearest, printable
from sockserve.interfaces import ConfigurationError
from sockserve.listeners.service import ListenerService, listeners_of
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.run.config import check_together, server_config
from sockserve.run.config_file import read_toml
from sockserve.run.server_config import ServerConfig
from sockserve.run.signals import Signals, leave_process, stop_reactor
from sockserve.run.source_config import SourceConfig, source_config
from sockserve.service import SocketServerService

__all__ = ["Options", "makeService"]

_log = logger(Topic.SERVICE)


class Options(usage.Options):
    """
    The options of C{twistd sockserve}.

    @ivar servers: the settings of each server or source asked for; set by L{postOptions}.
    """

    synopsis = "[options]"
    longdesc = (
        "Serve requests with a request handler class over TCP, TLS, UNIX sockets, UDP or"
        " UNIX datagrams. Without options: the files of the current folder over HTTP on"
        " 127.0.0.1:8000."
    )

    optFlags = [
        ["check", None, "check the options, say what would run, and exit"],
        ["rpcbind", None, "tell this machine's rpcbind of the Sun RPC program that is served"],
    ]

    optParameters = [
        ["handler", "H", None, "the handler class, MODULE:CLASS, sockserve's or the stdlib's"],
        ["path", "p", None, "serve the files of this folder instead of a handler"],
        ["server", None, None, "serve this server object, MODULE:OBJECT, or what that returns"],
        ["concurrency", None, None, "where blocking handlers run: serial, threads or fork"],
        ["threads", None, None, "the most threads [default: 256]"],
        ["max-children", None, None, "the most children with --concurrency fork [default: 40]"],
        ["max-connections", None, None, "the most connections at once"],
        ["max-connections-per-peer", None, None, "the most connections at once from one address"],
        ["body-rate", None, None, "the least bytes a second of a body, or none [default: 240]"],
        ["write-rate", None, None, "the least bytes a second taken, or none [default: 240]"],
        ["body-grace", None, None, "seconds before --body-rate is asked for, or none [default: 5]"],
        [
            "max-body-bytes",
            None,
            None,
            "the largest HTTP body for a blocking handler, or none [default: 1g]",
        ],
        ["max-request-line-bytes", None, None, "the longest HTTP request line [default: 64k]"],
        ["max-header-bytes", None, None, "the longest HTTP header section [default: 64k]"],
        ["max-header-fields", None, None, "the most HTTP header fields [default: 100]"],
        [
            "max-spool-bytes",
            None,
            None,
            "disk for responses that wait for clients [default: 1g]",
        ],
        ["max-packet-size", None, None, "the longest datagram in bytes [default: 8k]"],
        ["max-datagrams", None, None, "the most datagrams at once, or none [default: 1000]"],
        ["max-rows", None, None, "the most rows of a table at once, or none [default: 100]"],
        [
            "request-queue-size",
            None,
            None,
            "the backlog: connections not yet accepted [default: 1024]",
        ],
        ["access-log", None, None, "write a line for each request to this file, or - for stdout"],
        ["log-format", None, None, "combined or json"],
        ["stats-log", None, None, "write a JSON object for each request to this file"],
        [
            "config",
            "c",
            None,
            "read [[server]] and [[source]] tables with these same words from a TOML file",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self._lists: dict[str, list[str]] = {}
        self.servers: list[ServerConfig | SourceConfig] = []

    def opt_listen(self, description: str) -> None:
        """
        listen here: a Twisted server endpoint description, fd:NUMBER, udp:PORT,
        udp6:PORT or unixgram:PATH; repeatable [default: tcp:8000:interface=127.0.0.1]
        """
        self._add("listen", description)

    opt_l = opt_listen

    def opt_source(self, url: str) -> None:
        """
        serve the rows of a table instead of listening: sqlite:///PATH?table=NAME or
        postgresql://HOST/DATABASE?table=NAME; repeatable
        """
        self._add("source", url)

    def opt_header(self, field: str) -> None:
        """add this header field, 'Name: value', to files; repeatable"""
        self._add("header", field)

    def opt_timeout(self, deadline: str) -> None:
        """
        PHASE=SECONDS, or none for never; repeatable. Phases: handshake, idle, header,
        body, handle, write, lifetime, drain; and TCP's keepalive, user-timeout
        """
        self._add("timeout", deadline)

    def opt_allow(self, network: str) -> None:
        """serve clients from this network only; repeatable"""
        self._add("allow", network)

    def opt_deny(self, network: str) -> None:
        """do not serve clients from this network; repeatable"""
        self._add("deny", network)

    def opt_proxy_from(self, network: str) -> None:
        """believe a PROXY header (haproxy: endpoints) from this network only; repeatable"""
        self._add("proxy-from", network)

    def opt_auth(self, description: str) -> None:
        """
        check the passwords of clients by this: file:PATH, memory:NAME:PASSWORD, unix or
        what a plugin has; repeatable
        """
        self._add("auth", description)

    def _add(self, word: str, value: str) -> None:
        self._lists.setdefault(word, []).append(value)

    @override
    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r} belongs to no option; see --help")

    @override
    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the options; on a mistake print one line about it and exit."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            _die(self._explain(str(error)))
        except ConfigurationError as error:
            _die(str(error))

    @override
    def postOptions(self) -> None:
        """
        Check the options, and make L{servers} from them.

        @raise ConfigurationError: an option is wrong, or two do not go together.
        """
        if self.parent is not None:  # the process is ours, and what is loaded now may look there
            restore_environment()
        words: dict[str, object] = {
            name: value
            for name, value in self.items()
            if name not in ("config", "check", "rpcbind") and value is not None
        }
        if self["rpcbind"]:
            words["rpcbind"] = True
        words.update(self._lists)
        if self["config"] is not None:
            if words:
                raise ConfigurationError(
                    f"config: {next(iter(words))} goes into the file when there is one"
                )
            self.servers = read_toml(self["config"])
        else:
            self.servers = [source_config(words) if "source" in words else server_config(words)]
        if self["check"]:
            self._check()

    def _check(self) -> NoReturn:
        makeService(self)
        for server in self.servers:
            if isinstance(sys.stdout, io.TextIOWrapper):  # whatever it can encode
                sys.stdout.reconfigure(errors="backslashreplace")
            for line in server.summary():
                print(printable(line))  # noqa: T201 (--check is asked to)
            if isinstance(server, ServerConfig) and server.server is not None:
                server.server.server_close()
        sys.exit(0)

    def _explain(self, message: str) -> str:
        """Add the nearest valid option to a message of C{getopt}'s."""
        for word in message.split():
            if word.startswith("--"):
                known = [f"--{name}" for name in self.known_options()]
                given = word.partition("=")[0]
                return message if given in known else message + nearest(given, known)
        return message

    def known_options(self) -> list[str]:
        """The names of all long options, without dashes."""
        return [name.rstrip("=") for name in self.longOpt]


class _Commands(MultiService):
    """
    The service of C{twistd sockserve}, above those of its servers.

    It ends the program with one line when a listener cannot listen, when all its listeners are
    server objects that have shut down, and by signals.
    """

    def __init__(self, reactor: Any, twistd: Mapping[str, Any]) -> None:
        """
        @param twistd: the options of C{twistd}; empty when this is part of another
            application, which goes on.
        """
        super().__init__()
        self._reactor = reactor
        self._is_alone = bool(twistd)
        self._nodaemon = bool(twistd.get("nodaemon"))
        #: The name of the file to remove where C{twistd} does not come to that.
        self._pidfile: str | None = twistd.get("pidfile")

    @override
    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except ConfigurationError as error:
            for service in self:
                service.stopService()
            if self._is_alone:
                # Ports close, and sockets' names go, in the reactor's next turn, which will
                # not come.
                self._reactor.runUntilCurrent()
            if not self._nodaemon:
                # twistd hands it to the process that waits in the foreground.
                raise
            self._remove_pidfile()
            _die(str(error))

    @override
    def startService(self) -> None:
        if self._is_alone:
            Signals(self._reactor, self, self._stop_asked, self._leave).install()
        super().startService()
        # Handlers print what is no error, such as http.server's log, to standard error.
        if isinstance(sys.stderr, LoggingFile):
            sys.stderr.level = LogLevel.info
        listeners = list(listeners_of(self))
        for service in listeners:
            _log.info(
                "{handler}: serving {where}",
                handler=service.server.handler_name,
                where=_where(service),
            )
        objects = [each for each in listeners if isinstance(each, SocketServerService)]
        if self._is_alone and len(objects) == len(listeners):
            shut_down = DeferredList([each.shut_down for each in objects])
            shut_down.addCallback(lambda _: self.running and self._reactor.stop())

    def _stop_asked(self, number: int) -> None:
        """A signal has asked for the end: C{twistd} ends by it, too, when all is stopped."""
        _log.info("Received {name}, shutting down.", name=signal.Signals(number).name)
        self._reactor._exitSignal = number
        stop_reactor(self._reactor)

    def _leave(self, status: int) -> None:
        """End the process in the middle, in place of C{twistd}. (any thread)"""
        self._remove_pidfile()
        leave_process(status)

    def _remove_pidfile(self) -> None:
        if self._pidfile:
            try:
                os.unlink(self._pidfile)
            except OSError:
                pass


def _where(service: ListenerService) -> str:
    """Where clients find a listener: a URL if a browser can open one, or its description."""
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


def _die(message: str) -> NoReturn:
    # twistd has made sys.stderr a part of its log by the time it listens.
    print(f"sockserve: {printable(message)}", file=sys.__stderr__)
    sys.exit(1)


def makeService(options: Options) -> IService:
    """
    Make the service that runs what the options say.

    It is called by C{twistd}; call it with options of your own to make the service part of
    an application.

    @raise ConfigurationError: a server cannot be made.  (Under C{twistd} that ends the
        program instead.)
    """
    from twisted.internet import reactor

    twistd: dict[str, Any] = options.parent or {}
    if twistd:
        keep_steady(reactor)
    parent = _Commands(reactor, twistd)
    try:
        check_together([each for each in options.servers if isinstance(each, ServerConfig)])
        for server in options.servers:
            server.build(reactor).setServiceParent(parent)
    except ConfigurationError as error:
        if options.parent is None:
            raise
        _die(str(error))
    return parent
