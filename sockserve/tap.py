"""
The command line of C{twistd sockserve}.

This room owns how C{twistd} gets the options, and how errors reach the user: one line on standard
error and exit status 1.  It must not know what there are for options (L{sockserve.run.options}),
nor how requests are served.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from twisted.python import usage
from typing_extensions import override

from sockserve.core.clock import keep_steady
from sockserve.core.environment import restore_environment
from sockserve.core.logs import Topic, logger
from sockserve.interfaces import ConfigurationError
from sockserve.observe.standard_logging import join_logs
from sockserve.run.asked import servers_asked_for
from sockserve.run.commands import CommandService, print_summary
from sockserve.run.environment import environment_words
from sockserve.run.options.words import OPTIONS, OWN_OPTIONS, Option
from sockserve.run.server_config import ServerConfig
from sockserve.run.signals import Signals, leave_process, stop_reactor
from sockserve.run.source_config import SourceConfig
from sockserve.run.twistd_process import TwistdProcess, end_with
from sockserve.run.unknown import hint_at_option

__all__ = ["Options", "makeService"]

_log = logger(Topic.SERVICE)

#: Options of C{twistd} itself that are looked for behind C{sockserve}.
_TWISTDS = (
    "-n", "-r", "-d", "-b", "--nodaemon", "--pidfile", "--logfile", "--reactor", "--umask", "--uid",
    "--gid", "--rundir", "--chroot", "--syslog", "--profile", "--debug",
)  # fmt: skip


class Options(usage.Options):
    """
    The options of C{twistd sockserve}: those of L{sockserve.run.options.words}.

    @ivar servers: the settings of each server or source asked for; set by L{postOptions}.
    """

    synopsis = "[options]"
    longdesc = (
        "Serve requests with a request handler class over TCP, TLS, UNIX sockets, UDP or"
        " UNIX datagrams. Without options: the files of the current folder over HTTP on"
        " 127.0.0.1:8000."
    )

    optFlags = [
        [each.word, each.notes.short, each.told] for each in OPTIONS.values() if each.is_flag
    ]

    #: Those that count once.  The others have a method each, below.
    optParameters = [
        [each.word, each.notes.short, None, each.told]
        for each in OPTIONS.values()
        if not each.is_flag and not each.notes.is_list
    ]

    def __init__(self) -> None:
        super().__init__()
        self.servers: list[ServerConfig | SourceConfig] = []

    @override
    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            first = arguments[0]
            # A handler has no word before it with the command sockserve alone.
            hint = f"write --handler {first}" if ":" in first else "see --help"
            if first.isdecimal():  # a habit of those who know http.server
                hint = f"a port is --port {first}"
            raise usage.UsageError(f"{first!r} belongs to no option; {hint}")

    @override
    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the options; on a mistake print one line about it and exit."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            end_with(self._explain(str(error)))
        except ConfigurationError as error:
            end_with(str(error))

    @override
    def postOptions(self) -> None:
        """
        Check the options, and make L{servers} from them.

        @raise ConfigurationError: an option is wrong, or two do not go together.
        """
        variables: dict[str, object] = {}
        if self.parent is not None:  # the process is ours, and what is loaded now may look there
            restore_environment()
            variables = environment_words(os.environ)
        self.servers = servers_asked_for(self.words(), variables)
        if self["check"]:
            self._check()

    def words(self) -> dict[str, object]:
        """The values that were given, by option; C{check} is none."""
        flags = {option.word for option in OPTIONS.values() if option.is_flag}
        given = {
            word: bool(value) if word in flags else value
            for word, value in self.items()
            if value is not None and (value or word not in flags)
        }
        given.pop("check", None)
        return given

    def _check(self) -> NoReturn:
        print_summary(self.servers, makeService(self))
        sys.exit(0)

    def _explain(self, message: str) -> str:
        """Add the right option to a message of C{getopt}'s."""
        for word in message.split():
            if word.startswith("-"):
                known = [f"--{name}" for name in self.known_options()]
                given = word.partition("=")[0]
                if given in known or "not recognized" not in message:
                    return message
                if given in _TWISTDS:
                    return f"{message}; it is an option of twistd itself, and goes before sockserve"
                if given.removeprefix("--") in OWN_OPTIONS:
                    return f"{message}; it is one of the command sockserve, without twistd"
                return message + hint_at_option(given, known)
        return message

    def known_options(self) -> list[str]:
        """The names of all long options, without dashes."""
        return [name.rstrip("=") for name in self.longOpt]


def _repeatable(option: Option) -> Callable[[Options, str], None]:
    """The method, of the kind that C{usage.Options} calls, of an option that may come again."""

    def add(self: Options, value: str) -> None:
        self.setdefault(option.word, []).append(value)

    add.__doc__ = option.told
    return add


for _option in OPTIONS.values():
    if _option.notes.is_list:
        _method = _repeatable(_option)
        for _name in filter(None, (_option.attribute, _option.notes.short)):
            setattr(Options, f"opt_{_name}", _method)


class _TwistdService(CommandService):
    """
    The service of C{twistd sockserve}.

    It ends the program with one line when a listener cannot listen, and by signals.
    """

    def __init__(self, reactor: Any, options: Options) -> None:
        self._process = TwistdProcess(options.parent or {})
        super().__init__(
            reactor,
            options.servers,
            is_alone=options.parent is not None,
            own_files=self._process.named_files,
            withheld=self._process.usual_files,
        )
        self._process.check_files()
        if options.parent is not None:
            self._process.keep_foreground()

    @override
    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except ConfigurationError as error:
            self._cannot_start(error)

    @override
    def startService(self) -> None:
        if self._is_alone:
            # Under twistd the log is its own, whatever the program has set up.
            join_logs(lambda _: None)
            Signals(self._reactor, self, self._stop_asked, self._leave).install()
        try:
            super().startService()
        except ConfigurationError as error:  # a database has gone since it was looked at
            self._cannot_start(error)
        self._process.started()

    def _cannot_start(self, error: ConfigurationError) -> NoReturn:
        if not self._is_alone:  # whose process it is tells it
            raise error
        self._process.remove_pidfile()
        self._process.fail(str(error))

    def _stop_asked(self, number: int) -> None:
        """A signal has asked for the end: C{twistd} ends by it, too, when all is stopped."""
        self._reactor._exitSignal = number
        if stop_reactor(self._reactor):
            _log.info("Received {name}, shutting down.", name=signal.Signals(number).name)

    def _leave(self, status: int) -> None:
        """End the process in the middle, in place of C{twistd}. (any thread)"""
        self._process.remove_pidfile()
        leave_process(status)


def makeService(options: Options) -> CommandService:
    """
    Make the service that runs what the options say.

    It is called by C{twistd}; call it with options of your own to make the service part of
    an application.

    @raise ConfigurationError: a server cannot be made.  (Under C{twistd} that ends the
        program instead.)
    """
    from twisted.internet import reactor

    if options.parent:
        keep_steady(reactor)
    try:
        return _TwistdService(reactor, options)
    except ConfigurationError as error:
        if options.parent is None:
            raise
        end_with(str(error))
