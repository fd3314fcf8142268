"""
The command line of C{twistd sockserve}.

This room owns how C{twistd} gets the options, and how errors reach the user: one line on standard
error and exit status 1.  It must not know what there are for options (L{sockserve.run.options}),
nor how requests are served.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, NoReturn

from twisted.python import usage
from typing_extensions import override

from sockserve.core.clock import keep_steady
from sockserve.core.environment import restore_environment
from sockserve.core.logs import Topic, logger
from sockserve.core.messages import printable
from sockserve.interfaces import ConfigurationError
from sockserve.observe.standard_logging import join_logs
from sockserve.run.asked import servers_asked_for
from sockserve.run.commands import CommandService, print_summary
from sockserve.run.environment import environment_words
from sockserve.run.options.words import OPTIONS, OWN_OPTIONS, Option
from sockserve.run.served_files import OwnFile
from sockserve.run.server_config import ServerConfig
from sockserve.run.signals import Signals, leave_process, stop_reactor
from sockserve.run.source_config import SourceConfig
from sockserve.run.unknown import hint_at_option

__all__ = ["Options", "makeService"]

_log = logger(Topic.SERVICE)

#: Options of C{twistd} itself that are looked for behind C{sockserve}.
_TWISTDS = (
    "-n", "-r", "-d", "-b", "--nodaemon", "--pidfile", "--logfile", "--reactor", "--umask", "--uid",
    "--gid", "--rundir", "--chroot", "--syslog", "--profile", "--debug",
)  # fmt: skip

#: What a daemon hands to C{twistd} where it has said itself why it cannot start.
_TOLD = "(sockserve has said why)"

#: The names that C{twistd} gives its files where nobody does.
_LOGFILE = "twistd.log"
_PIDFILE = "twistd.pid"


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
            _die(self._explain(str(error)))
        except ConfigurationError as error:
            _die(str(error))

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
        twistd: dict[str, Any] = options.parent or {}
        self._nodaemon = bool(twistd.get("nodaemon"))
        self._status_pipe: Callable[[], Any] = functools.partial(twistd.get, "statusPipe")
        own_files, withheld = _files_of(twistd, self._nodaemon)
        super().__init__(
            reactor,
            options.servers,
            is_alone=bool(twistd),
            own_files=own_files,
            withheld=withheld,
        )
        for own in own_files:
            _check_writable(own)
        #: Where the daemon says why it cannot start: the standard error of the process that waits
        #: for it.
        self._foreground: IO[str] | None = None
        if twistd and not self._nodaemon:
            self._foreground = _foreground()
        #: The name of the file to remove where C{twistd} does not come to that.
        self._pidfile: str | None = twistd.get("pidfile")

    @override
    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except ConfigurationError as error:
            self._cannot_start(error)

    def _cannot_start(self, error: ConfigurationError) -> NoReturn:
        if not self._is_alone:  # whose process it is tells it
            raise error
        self._remove_pidfile()
        if not self._nodaemon:
            self._tell_foreground(str(error))
            sys.exit(1)
        _die(str(error))

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
        if self._foreground is not None:
            self._foreground.close()

    def _tell_foreground(self, message: str) -> None:
        """Say why the daemon cannot start: in the log, and where it was started."""
        _log.error("{message}", message=message)
        if self._foreground is not None:
            self._foreground.write(_line(message))
            self._foreground.close()
        if self._status_pipe() is not None:  # which whoever has started it waits for
            os.write(self._status_pipe(), f"1 {_TOLD}".encode())

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


class _WithoutTwistds:
    """
    The standard error of the process that waits for its daemon's start, without what C{twistd} says
    there, in two lines, of a mistake that the daemon has told itself.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, unless it is that."""
        if _TOLD in text:
            return len(text)
        return self._stream.write(text)


def _foreground() -> IO[str] | None:
    """A copy of standard error, for the daemon that this process will leave behind; None without
    any."""
    stream = sys.__stderr__
    if stream is None:
        return None
    try:
        copy = os.fdopen(os.dup(stream.fileno()), "w", buffering=1, errors="backslashreplace")
    except (OSError, ValueError):  # it is no file
        return None
    if not isinstance(stream, _WithoutTwistds):
        sys.__stderr__ = _WithoutTwistds(stream)  # type: ignore[misc, assignment]
    return copy


def _files_of(twistd: Mapping[str, Any], nodaemon: bool) -> tuple[list[OwnFile], list[str]]:
    """
    The files that C{twistd} writes: those that were named, and those that have its own names.

    The latter are in whatever is the current folder, and so often in a folder that is served, as
    this is by default: there they are not served, in place of being refused.
    """
    named: list[OwnFile] = []
    usual: list[str] = []
    log = twistd.get("logfile") or ("-" if nodaemon else _LOGFILE)
    for word, path, own in (
        ("logfile", log, _LOGFILE),
        ("pidfile", twistd.get("pidfile"), _PIDFILE),
    ):
        if not path or path == "-":
            continue
        if os.path.abspath(path) == os.path.abspath(own):
            usual.append(os.path.abspath(path))
        else:
            named.append(OwnFile(f"{word} {path!r}", path))
    return named if twistd else [], usual if twistd else []


def _check_writable(own: OwnFile) -> None:
    """
    Check that C{twistd} will be able to write a file.

    @raise ConfigurationError: it will not.
    """
    folder = os.path.dirname(os.path.abspath(own.path))
    if os.path.isdir(own.path):
        code = errno.EISDIR
    elif not os.path.isdir(folder):
        code = errno.ENOENT
    elif not os.access(own.path if os.path.exists(own.path) else folder, os.W_OK):
        code = errno.EACCES
    else:
        return
    raise ConfigurationError(f"{own.named}: {os.strerror(code)}")


def _line(message: str) -> str:
    return f"sockserve: {printable(message)}\n"


def _die(message: str) -> NoReturn:
    # twistd has made sys.stderr a part of its log by the time it listens.
    if sys.__stderr__ is not None:
        sys.__stderr__.write(_line(message))
    sys.exit(1)


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
        _die(str(error))
