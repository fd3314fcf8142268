"""
The command C{sockserve} as it serves: in the foreground, until it is told to stop.

This room owns the reactor it runs on, its log, and its exit status.  It must not know how options
are written, nor how requests are served.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from twisted.logger import ILogObserver, globalLogBeginner

from sockserve.core.clock import keep_steady
from sockserve.core.environment import restore_environment
from sockserve.core.handler_kinds import unwrap
from sockserve.core.logs import Topic, logger
from sockserve.core.messages import nearest, one_line
from sockserve.core.places import canonical
from sockserve.core.tracebacks import format_error
from sockserve.interfaces import ConfigurationError
from sockserve.listeners.service import ListenerService, listeners_of
from sockserve.observe.standard_logging import join_logs
from sockserve.observe.terminal import Terminal
from sockserve.run.asked import servers_asked_for
from sockserve.run.commands import CommandService, print_summary, where_served
from sockserve.run.environment import environment_words
from sockserve.run.loading import meant_name, named_handlers, names_here
from sockserve.run.options.words import OPTIONS
from sockserve.run.server_config import ServerConfig
from sockserve.run.signals import Signals, leave_process, stop_reactor
from sockserve.run.source_config import SourceConfig

if TYPE_CHECKING:
    from sockserve.reload.child import Child

__all__ = ["serve"]

_log = logger(Topic.SERVICE)

#: The reactors by name, but for auto.  (Those of plugins are looked for only if none of these is
#: meant, as that writes a list of them into a file.)
_REACTORS = {
    "asyncio": "twisted.internet.asyncioreactor",
    "epoll": "twisted.internet.epollreactor",
    "kqueue": "twisted.internet.kqreactor",
    "poll": "twisted.internet.pollreactor",
    "select": "twisted.internet.selectreactor",
    "uvloop": "sockserve.reactors.uvloop",
}


def serve(found: Namespace) -> int:
    """
    Serve what the options say, until a signal or the end of all server objects.

    @param found: the values of the options, by attribute.
    @return: the exit status.
    @raise ConfigurationError: that cannot be; nothing is left listening.
    """
    child = _started_child() if found.reload and not found.check else None
    try:
        restore_environment()
        _install_reactor("auto" if found.reactor is None else found.reactor)
        servers = servers_asked_for(_words(vars(found)), environment_words(os.environ))
        from twisted.internet import reactor

        return _serve(reactor, servers, found, child)
    except ConfigurationError as error:
        if found.verbose:
            _tell_cause(error)
        if child is not None:
            child.failed()
        raise


def _started_child() -> Child:
    from sockserve.reload.child import Child

    return Child.started(os.environ)


def _tell_cause(error: ConfigurationError) -> None:
    """Print the traceback of what a user's own code has raised, if that is the reason."""
    cause: BaseException | None = error
    while isinstance(cause, ConfigurationError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        sys.stderr.write(format_error(cause))


def _serve(
    reactor: Any,
    servers: Sequence[ServerConfig | SourceConfig],
    found: Namespace,
    child: Child | None,
) -> int:
    """
    Serve on a reactor.

    @param child: this process, if it has a supervisor.
    @return: the exit status.
    @raise ConfigurationError: that cannot be.
    """
    terminal = Terminal(sys.stderr, os.environ)
    if not found.check:
        _begin_log(terminal, found.verbose)
    if child is not None:
        child.check(servers)
        child.join(reactor)
    # A program that reads the line finds the place alone.
    hint = _terminal_hint(reactor) if terminal.is_terminal else ""
    tell = functools.partial(_tell, terminal, child, hint)
    service = CommandService(reactor, servers, is_alone=True, tell=tell)
    if found.check:
        print_summary(servers, service)
        return 0
    if terminal.is_terminal:
        for server, services in zip(servers, service, strict=True):
            if server.access_log is None:
                for each in listeners_of(services):
                    if not _prints_requests(each.server.RequestHandlerClass):
                        each.server.observers.append(terminal.request_ended)
                        each.server.logs_requests = True
    return _run(reactor, service, child)


def _run(reactor: Any, service: CommandService, child: Child | None) -> int:
    """
    Run the reactor until the end.

    @return: the exit status.
    @raise ConfigurationError: a listener cannot listen.
    """

    def stop(number: int) -> None:
        if stop_reactor(reactor):  # else that was said, or another serves in this one's place
            _log.info("Received {name}, shutting down.", name=signal.Signals(number).name)

    keep_steady(reactor)
    signals = Signals(reactor, service, stop, leave_process)
    signals.install()
    if child is not None:
        child.loaded()
        reactor.callWhenRunning(child.ready)
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    if child is not None:
        reactor.addSystemEventTrigger("before", "shutdown", child.closing, service)
    reactor.run()
    return signals.exit_status or 0


def _words(found: Mapping[str, Any]) -> dict[str, object]:
    """
    The words that were given, by name: the handler or the folder among them.

    @raise ConfigurationError: it was given twice.
    """
    given = {
        option.word: found[option.attribute]
        for option in OPTIONS.values()
        if option.word != "check" and found[option.attribute] is not None
    }
    served = found["served"]
    if served is None:
        return given
    word = _kind_of_served(served)
    if word in given:
        raise ConfigurationError(f"{word}: does not go with {served!r}; give one of them")
    return {word: served, **given}


def _kind_of_served(served: str) -> str:
    """
    Whether what is served is named as a handler or as a folder.

    @raise ConfigurationError: it is neither.
    """
    if os.path.isdir(served):
        return "path"
    if os.path.isfile(served):
        raise ConfigurationError(_file_fault(served))
    if _is_place(served):
        way = "--port" if served.isdecimal() else "--listen"
        raise ConfigurationError(
            f"{served!r} is no folder, nor a class MODULE:CLASS; to listen there write"
            f" {way} {served}"
        )
    is_program = served.endswith(".py")
    if ":" not in served and (is_program or "/" in served or "." not in served.strip(".")):
        raise ConfigurationError(_nothing_fault(served))
    return "handler"


def _file_fault(served: str) -> str:
    """The message about a file, which is not served as such."""
    if served.endswith(".toml"):
        return f"{served!r} is a file; write --config {served}"
    if not served.endswith(".py"):
        return (
            f"{served!r} is a file; name its folder, or a class MODULE:CLASS; a program is run by"
            f" sockserve run {served}"
        )
    example = next(iter(named_handlers(served)), "MODULE:CLASS")
    return (
        f"{served!r} is a program, which takes options of its own: write sockserve {served}"
        f" [ITS OPTIONS]; the options of sockserve are for a handler, as in sockserve {example}"
        " --port 8080"
    )


def _nothing_fault(served: str) -> str:
    """The message about what is neither a folder nor the name of a handler."""
    if served.endswith(".py"):
        return f"{served!r}: there is no such file"
    message, module = f"{served!r}: there is no such folder", f"{served}.py"
    if named := named_handlers(module):
        return f"{message}; did you mean {' or '.join(map(repr, named))}?"
    if os.path.exists(module):
        return f"{message}, and no handler in {module}; to run that write sockserve {module}"
    hint = meant_name(served)
    if not hint and os.path.dirname(served) == "":
        there = filter(_may_be_served, names_here())
        hint = nearest(served, [each.removesuffix(".py") for each in there])
    return f"{message}; a class is MODULE:CLASS{hint}"


def _may_be_served(name: str) -> bool:
    """Whether a file or folder here is a folder, or a module that has handlers."""
    if name.startswith("."):
        return False
    return os.path.isdir(name) or (name.endswith(".py") and bool(named_handlers(name)))


def _is_place(served: str) -> bool:
    """Whether a text says where to listen, and not what is served."""
    try:
        return canonical(served) != served
    except ValueError:  # a URL that is none
        return True


def _prints_requests(handler: object) -> bool:
    """Whether a handler prints a line for each request by itself, as C{http.server}'s do."""
    cls = unwrap(handler)
    return (
        isinstance(cls, type)
        and issubclass(cls, BaseHTTPRequestHandler)
        and cls.log_request is BaseHTTPRequestHandler.log_request
        and cls.log_message is BaseHTTPRequestHandler.log_message
    )


def _install_reactor(name: str) -> None:
    """
    Install a reactor.

    @param name: C{auto} for uvloop's, if that is installed, or else Twisted's default.
    @raise ConfigurationError: there is none of this name, or not on this machine.
    """
    try:
        if name == "auto":
            _install_fastest()
        elif name in _REACTORS:
            importlib.import_module(_REACTORS[name]).install()
        else:
            _install_plugin(name)
    except ConfigurationError:
        raise
    except Exception as error:  # a plugin's may raise what it likes
        raise ConfigurationError(f"reactor {name!r}: {one_line(error)}") from error


def _install_fastest() -> None:
    """Install the reactor that C{auto} stands for; one that a program has installed stays."""
    if "twisted.internet.reactor" in sys.modules:
        return
    try:
        uvloop = importlib.import_module(_REACTORS["uvloop"])
    except ImportError:
        return  # which reactor it is then, Twisted decides
    uvloop.install()


def _install_plugin(name: str) -> None:
    """
    Install the reactor of a plugin.

    @raise ConfigurationError: there is none of this name.
    """
    from twisted.application import reactors

    try:
        reactors.installReactor(name)
    except reactors.NoSuchReactor:
        known = ["auto", *_REACTORS]
        none = f"it is none of {', '.join(known)}, nor a plugin's{nearest(name, known)}"
        raise ConfigurationError(f"reactor {name!r}: {none}") from None


def _begin_log(terminal: Terminal, verbosity: int) -> None:
    """Show the log on the terminal, or have it in Python's C{logging} if the program has set up
    that."""
    others: list[ILogObserver] = []
    join_logs(others.append)
    observers = others or [terminal.log_observer(verbosity)]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False)


def _terminal_hint(reactor: object) -> str:
    """What a person at a terminal is told beside where a listener listens."""
    is_uvloop = type(reactor).__module__ == _REACTORS["uvloop"]
    return "  (on uvloop; Ctrl-C to stop)" if is_uvloop else "  (Ctrl-C to stop)"


def _tell(terminal: Terminal, child: Child | None, hint: str, listener: ListenerService) -> None:
    """Say that a listener listens, and where, unless it did before."""
    if child is not None and not child.is_told:
        return
    terminal.tell(f"{listener.server.handler_name}: {where_served(listener)}{hint}")
