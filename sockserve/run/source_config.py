"""
The configuration of one source, checked, and the services it comes to.

This room owns the words of requests that come from a table, and how they go together.  It must not
know where the words came from, nor which databases there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime

from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import handler_name, unwrap
from sockserve.core.limits import LIMITS, LimitKind
from sockserve.core.messages import nearest
from sockserve.interfaces import ConfigurationError, Phase
from sockserve.run.config import (
    HANDLERS_OF_DATAGRAMS,
    HANDLERS_OF_STREAMS,
    WORDS,
    derives,
)
from sockserve.run.loading import load_handler
from sockserve.run.server_config import LoggedServices, make_logs
from sockserve.run.summary import deadlines_line, limits_line
from sockserve.run.values import deadlines, text, texts
from sockserve.run.workers import check_workers, make_workers, place_of
from sockserve.sql.service import SQLRequestService
from sockserve.sql.source import SQLSource
from sockserve.sql.url import store_and_settings
from sockserve.sunrpc.handler import RPCRequestHandler

__all__ = ["SOURCE_WORDS", "SourceConfig", "row_deadlines", "source_config"]

#: The phases that a row has.
_PHASES = (Phase.HANDLE, Phase.LIFETIME, Phase.DRAIN)


@attrs.frozen(kw_only=True)
class SourceConfig:
    """
    The settings of one source.

    @ivar sources: URLs of tables, at least one.
    @ivar handler: a handler class, or any callable that makes a handler.
    @ivar concurrency: C{serial}, C{threads} or C{fork}; None for the handler's default.
    @ivar threads: the most threads; None for the default.
    @ivar max_children: the most children at once; None for the default.
    @ivar deadlines: the seconds that each phase may last.
    @ivar limits: those given of L{LIMITS}, by name.
    @ivar access_log: the file's name, or C{-}; None for no log.
    @ivar log_format: a name in L{LOG_FORMATS<sockserve.observe.access_log.LOG_FORMATS>}.
    @ivar stats_log: the name of a file for the same in JSON, or C{-}; None for no such log.
    @ivar add_location: prefixes a message with the place where the words were written.
    """

    sources: tuple[str, ...]
    handler: Callable[..., Any]
    concurrency: str | None = None
    threads: int | None = None
    max_children: int | None = None
    deadlines: Deadlines = attrs.Factory(Deadlines)
    limits: Mapping[str, int | None] = attrs.Factory(dict)
    access_log: str | None = None
    log_format: str = "combined"
    stats_log: str | None = None
    add_location: Callable[[str], str] = attrs.field(default=str, eq=False, repr=False)

    def build(self, reactor: IReactorTime) -> MultiService:
        """
        Make the services of this source, not started: one for each table.  They share the workers.

        @raise ConfigurationError: a URL is none, or a log cannot be written.
        """
        try:
            return self._build(reactor)
        except ConfigurationError as error:
            raise ConfigurationError(self.add_location(str(error))) from error

    def _build(self, reactor: IReactorTime) -> MultiService:
        logs = make_logs(reactor, self.access_log, self.log_format, self.stats_log)
        parent = LoggedServices(logs)
        concurrency = make_workers(reactor, self)
        for url in self.sources:
            service = SQLRequestService(
                SQLSource(reactor, url),
                self.handler,
                deadlines=self.deadlines,
                concurrency=concurrency,
                limits=self.limits,
            )
            service.server.observers += [log.observer(service.description) for log in logs]
            service.setServiceParent(parent)
        return parent

    def summary(self) -> list[str]:
        """Describe in a few lines, for C{--check}, what would run."""
        where = f"{handler_name(self.handler)} on {place_of(self)}"
        stores = [store_and_settings(url)[0] for url in self.sources]
        lines = [f"source {store.description}: {where}" for store in stores]
        lines.append(deadlines_line(self.deadlines, _PHASES))
        if self.limits:
            lines.append(limits_line(self.limits))
        return lines


def source_config(words: Mapping[str, object]) -> SourceConfig:
    """
    Make the settings of one source from a user's words, and check them.

    @param words: the values by option name; those of C{source} also as C{url}.
    @raise ConfigurationError: a word is unknown or no source's, its value is wrong, or it
        contradicts another; or the handler is none of rows.
    """
    for word in words:
        if word not in SOURCE_WORDS:
            if word in WORDS:
                raise ConfigurationError(f"{word}: does not go with a source, which has no clients")
            raise ConfigurationError(f"unknown word {word!r}{nearest(word, SOURCE_WORDS)}")
    settings = {
        SOURCE_WORDS[word][0]: SOURCE_WORDS[word][1](word, value) for word, value in words.items()
    }
    if "sources" not in settings:
        raise ConfigurationError("url: name the table, as in sqlite:///jobs.db?table=jobs")
    if "handler" not in settings:
        raise ConfigurationError("handler: name the class that serves the rows, MODULE:CLASS")
    settings["limits"] = {name: settings.pop(name) for name in list(settings) if name in LIMITS}
    given: dict[str, float | None] = settings.pop("deadlines", {})
    for phase in given:
        if phase not in _PHASES:
            raise ConfigurationError(
                f"timeout {phase}: a row has no such phase, but {', '.join(_PHASES)}"
            )
    config = SourceConfig(deadlines=Deadlines(**given), **settings)
    check_workers(config)
    cls = unwrap(config.handler)
    if derives(cls, *HANDLERS_OF_STREAMS, *HANDLERS_OF_DATAGRAMS, RPCRequestHandler):
        raise ConfigurationError(
            f"handler {handler_name(cls)}: it serves connections or datagrams, not rows; derive it"
            " from BaseRequestHandler or SQLRequestHandler"
        )
    return config


def row_deadlines(word: str, value: object) -> dict[str, float | str]:
    """
    Those deadlines that a row has, of a user's for connections as well; as C{timeout} takes them.

    @raise ConfigurationError: one is unknown, or its value is wrong.
    """
    found = deadlines(word, value)
    return {
        name: "none" if seconds is None else seconds
        for name, seconds in found.items()
        if name in _PHASES
    }


def _urls(word: str, value: object) -> tuple[str, ...]:
    """The URL of a table, or a list of them."""
    found = texts(word, value)
    for url in found:
        try:
            store_and_settings(url)
        except ConfigurationError as error:
            raise ConfigurationError(f"{word}: {error}") from None
    return found


def _handler(word: str, value: object) -> Callable[..., Any]:
    return value if callable(value) else load_handler(text(word, value))


#: By word: the setting of L{SourceConfig} it is for, and the function that checks its value.
SOURCE_WORDS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "source": ("sources", _urls),
    "url": ("sources", _urls),
    "handler": ("handler", _handler),
    **{
        word: WORDS[word]
        for word in (
            "concurrency",
            "threads",
            "max-children",
            "timeout",
            *(
                name.replace("_", "-")
                for name, limit in LIMITS.items()
                if limit.kind is LimitKind.ROWS
            ),
            "access-log",
            "log-format",
            "stats-log",
        )
    },
}
