"""
The base class of commands of Django's that serve requests.

This room owns what such a command does from its first check to its last message, and which thread
waits meanwhile.  It must not know what is served, or how.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

from django.core.management.base import BaseCommand, CommandError, SystemCheckError
from django.db.utils import Error as DatabaseError
from django.utils import autoreload
from twisted.internet.threads import blockingCallFromThread
from typing_extensions import override

from sockserve.core.clock import keep_steady
from sockserve.core.logs import Topic, logger
from sockserve.core.messages import one_line, printable
from sockserve.core.reactors import IReactor
from sockserve.django.connections import close_idle_connections
from sockserve.django.options import SERVED, add_options, given_options, make_options
from sockserve.django.output import log_shown
from sockserve.django.reactor_thread import global_reactor, running_global_reactor
from sockserve.django.serving import Serving
from sockserve.django.tasks.backend import database_of
from sockserve.django.tasks.handler import TaskHandler
from sockserve.django.tasks.table import check_table, table_url
from sockserve.interfaces import ConfigurationError
from sockserve.run.commands import print_summary
from sockserve.run.options.words import OPTIONS
from sockserve.run.signals import Signals, leave_process, stop_reactor
from sockserve.run.unknown import hint_at_option
from sockserve.tap import Options, makeService

__all__ = ["SockserveCommand"]

_log = logger(Topic.SERVICE)


class SockserveCommand(BaseCommand):
    """
    A command that serves requests until SIGINT or SIGTERM, which let those under way end.

    A project's own command derives from it, and has L{handler_class}; C{manage.py sockserve} has
    what it serves from its options.  They are those of C{twistd sockserve}, with C{--reload} to
    start anew when code has changed; what neither they nor the class say, C{settings.SOCKSERVE}
    does.

    C{call_command} returns when the serving has ended.  Its C{ready}, a function, is called with
    the L{Serving} when all listen: that has the addresses, and a C{stop} to be called on any
    thread.

    @cvar handler_class: the handler of each request, a class or C{MODULE:CLASS}; None where an
        option is to say what is served.
    @cvar listen: where to listen, a description or several; None for the default.
    """

    handler_class: ClassVar[Callable[..., Any] | str | None] = None
    listen: ClassVar[str | Sequence[str] | None] = None

    stealth_options = ("ready",)

    # The options

    @override
    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        """Make the parser of this command's options."""
        parser = super().create_parser(prog_name, subcommand, **{"allow_abbrev": False, **kwargs})
        if self._called_from_command_line:
            parser.error = lambda message: self._refuse(parser, message)
        return parser

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options; a command that adds some of its own calls this, too."""
        add_options(parser, () if self.handler_class is None else SERVED)
        parser.add_argument(
            "--reload",
            action="store_true",
            help="start anew when a file of the project's code changes, for development",
        )
        if self.handler_class is None:
            parser.add_argument(
                "--tasks",
                nargs="?",
                const="default",
                metavar="BACKEND",
                help="do the tasks that this backend of settings.TASKS has put into its table",
            )

    def _refuse(self, parser: ArgumentParser, message: str) -> NoReturn:
        """End the program with one line about an option that is wrong."""
        for word in message.split():
            if word.startswith("--"):
                # Django's own are among them, and argparse has no public way to ask for all.
                known = [name for action in parser._actions for name in action.option_strings]
                given = word.partition("=")[0].rstrip(":")
                if given not in known and given.removeprefix("--") not in OPTIONS:
                    message += hint_at_option(given, known)
                break
        self.stderr.write(f"CommandError: {printable(message)}")
        sys.exit(1)

    # The checks

    @override
    def get_check_kwargs(self, options: Any) -> dict[str, Any]:
        """Have no checks made yet: with C{--reload} they are, each time anew."""
        return {"tags": set()}

    def _check_project(self, skip_checks: bool) -> None:
        """Make Django's system checks, and warn of migrations that have not been applied."""
        try:
            if not skip_checks:
                self.check()
            self.check_migrations()
        except DatabaseError as error:
            raise CommandError(f"database: {one_line(error)}") from error
        finally:
            close_idle_connections()

    # The run

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        """Serve, until the end."""
        if options["reload"]:
            autoreload.run_with_reloader(self._serve_reloaded, options)
        else:
            self._serve(options)

    def _serve_reloaded(self, options: dict[str, Any]) -> None:
        """Serve on the thread that Django's reloader has for it."""
        autoreload.raise_last_exception()
        try:
            self._serve(options)
        except SystemCheckError as error:
            self.stderr.write(str(error), lambda text: text)
        except CommandError as error:  # the reloader waits for that to be mended
            self.stderr.write(f"CommandError: {error}")
        else:
            os.kill(os.getpid(), signal.SIGINT)  # nothing is served any more

    def _serve(self, found: dict[str, Any]) -> None:
        """
        Check all that can be checked, and serve until the end.

        @raise CommandError: something is wrong, in one line.
        """
        from django.conf import settings  # whoever looks at it needs a project

        self._check_project(found["skip_checks"])
        try:
            given = given_options(found)
            if found.get("tasks") is not None:
                given = _with_tasks(given, found["tasks"])
                if not found["check"]:
                    _check_table(found["tasks"])
            options = make_options(given, self._class_options(), getattr(settings, "SOCKSERVE", {}))
            if found["check"]:
                self._tell_check(options)
                return
            is_main = threading.current_thread() is threading.main_thread()
            is_alone = self._called_from_command_line
            ready = found.get("ready") or _ignore
            with log_shown(self.stdout, self.stderr, found["verbosity"]):
                if is_alone and is_main:
                    _serve_here(options, ready)
                else:
                    _serve_elsewhere(options, ready)
        except (ConfigurationError, OSError) as error:
            raise CommandError(printable(one_line(error))) from error

    def _class_options(self) -> dict[str, object]:
        """The options that the class has."""
        cls = type(self)  # of an instance, a function would become a method
        options = {"handler": cls.handler_class, "listen": cls.listen}
        return {word: value for word, value in options.items() if value is not None}

    def _tell_check(self, options: Options) -> None:
        """Say what would run."""
        print_summary(options.servers, makeService(options), self.stdout.write)


def _with_tasks(given: dict[str, object], backend: str) -> dict[str, object]:
    """
    The options of a command that does the tasks of a backend.

    @raise ConfigurationError: there are none to be done, or others are given that say what is
        served.
    """
    for word in (*SERVED, "source", "listen"):
        if word in given:
            raise ConfigurationError(f"{word}: does not go with --tasks")
    url = table_url(database_of(backend))
    return {**given, "source": [url], "handler": TaskHandler}


def _check_table(backend: str) -> None:
    """
    Check that a backend of tasks has its table.

    @raise ConfigurationError: it has not.
    @raise CommandError: its database does not answer.
    """
    try:
        check_table(database_of(backend))
    except DatabaseError as error:
        raise CommandError(f"database: {one_line(error)}") from error
    finally:
        close_idle_connections()


def _ignore(serving: Serving) -> None:
    """The C{ready} of a caller that does not wait for the beginning."""


def _serve_here(options: Options, ready: Callable[[Serving], object]) -> None:
    """
    Serve with the reactor on this thread, the main one of a program that is all ours.

    @raise ConfigurationError: that cannot be.
    """
    reactor = global_reactor()
    keep_steady(reactor)
    serving = Serving(reactor, options)
    Signals(reactor, serving.service, lambda _: stop_reactor(reactor), leave_process).install()
    serving.start()
    reactor.addSystemEventTrigger("before", "shutdown", serving.stopped)
    serving.ended().addCallback(lambda _: stop_reactor(reactor))
    reactor.callWhenRunning(ready, serving)
    reactor.run()


def _serve_elsewhere(options: Options, ready: Callable[[Serving], object]) -> None:
    """
    Serve with the reactor where it runs, and wait on this thread.

    @raise ConfigurationError: that cannot be.
    """
    reactor = running_global_reactor()
    ended = threading.Event()

    def start() -> Serving:
        """Start the services. (reactor thread)"""
        serving = Serving(reactor, options)
        serving.start()
        trigger = reactor.addSystemEventTrigger("before", "shutdown", serving.stopped)

        def all_ended(_: object) -> None:
            _remove_trigger(reactor, trigger)
            ended.set()

        serving.ended().addCallback(all_ended)
        return serving

    serving: Serving = blockingCallFromThread(reactor, start)
    signals = Signals(reactor, serving.service, lambda _: serving.stop())
    if threading.current_thread() is threading.main_thread():  # no other may say so
        signals.install()
    try:
        ready(serving)
        ended.wait()
    except BaseException:  # of a handler of signals that the program has, perhaps
        serving.stop()
        ended.wait()
        raise
    finally:
        signals.restore()
    if signals.exit_status is not None:
        sys.exit(signals.exit_status)


def _remove_trigger(reactor: IReactor, trigger: Any) -> None:
    """Undo C{addSystemEventTrigger}, unless it is too late for that. (reactor thread)"""
    try:
        reactor.removeSystemEventTrigger(trigger)
    except (KeyError, ValueError):  # the reactor is stopping, by that trigger
        pass
