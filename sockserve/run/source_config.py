"""
The configuration of one source, checked, and the services it comes to.

This room owns the words of requests that come from a table, and how they go together.  It must not
know where the words came from, nor which databases there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime

from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import handler_name, unwrap
from sockserve.core.limits import LIMITS
from sockserve.core.messages import about
from sockserve.interfaces import ConfigurationError, Phase
from sockserve.run.handler_kinds import HANDLERS_OF_DATAGRAMS, HANDLERS_OF_STREAMS, derives
from sockserve.run.loading import handler_given
from sockserve.run.options.forms import KEEPALIVE, Form
from sockserve.run.options.words import SERVER_OPTIONS, SOURCE_OPTIONS
from sockserve.run.origins import Locate, leave_as_it_is
from sockserve.run.server_config import LoggedServices, make_logs
from sockserve.run.summary import deadlines_line, limits_line
from sockserve.run.unknown import hint_at_word
from sockserve.run.values import Check, check_value, each_text
from sockserve.run.workers import check_workers, make_workers, place_of

if TYPE_CHECKING:
    from sockserve.sql.store import Store

__all__ = ["SourceConfig", "source_config", "words_of_rows"]

#: The phases that a row has.
_PHASES = (Phase.HANDLE, Phase.LIFETIME, Phase.DRAIN)
#: Those that it has not.
_OF_CONNECTIONS = {*map(str, Phase), *KEEPALIVE} - {*map(str, _PHASES)}


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
    @ivar file: the configuration file; None where there is none.
    @ivar locate: prefixes an error's message with the place where its word was written.
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
    file: str | None = attrs.field(default=None, eq=False)
    locate: Locate = attrs.field(default=leave_as_it_is, eq=False, repr=False)

    def build(self, reactor: IReactorTime) -> MultiService:
        """
        Make the services of this source, not started: one for each table.  They share the workers.

        @raise ConfigurationError: a URL is none, or a log cannot be written.
        """
        try:
            return self._build(reactor)
        except ConfigurationError as error:
            self.locate(error)
            raise

    def _build(self, reactor: IReactorTime) -> MultiService:
        from sockserve.sql.service import SQLRequestService
        from sockserve.sql.source import SQLSource

        logs = make_logs(reactor, self.access_log, self.log_format, self.stats_log)
        parent = LoggedServices(logs, "source")
        concurrency = make_workers(reactor, self)
        for url in self.sources:
            source = SQLSource(reactor, url)
            with about("handler"):
                service = SQLRequestService(
                    source,
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
        stores = [_store(url) for url in self.sources]
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
        if word not in SOURCE_OPTIONS:
            if word in SERVER_OPTIONS:
                raise ConfigurationError(
                    f"{word}: does not go with a source, which has no clients", word
                )
            hint = hint_at_word(word, SOURCE_OPTIONS)
            raise ConfigurationError(f"unknown word {word!r}{hint}", word, is_name=True)
    settings: dict[str, Any] = {
        SOURCE_OPTIONS[word].setting: check_value(SOURCE_OPTIONS[word], value, _CHECKS)
        for word, value in words.items()
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
                f"timeout {phase}: a row has no such phase, but {', '.join(_PHASES)}",
                "timeout",
                phase,
            )
    config = SourceConfig(deadlines=Deadlines(**given), **settings)
    check_workers(config)
    from sockserve.sunrpc.handler import RPCRequestHandler

    cls = unwrap(config.handler)
    if derives(cls, *HANDLERS_OF_STREAMS, *HANDLERS_OF_DATAGRAMS, RPCRequestHandler):
        raise ConfigurationError(
            f"handler {handler_name(cls)}: it serves connections or datagrams, not rows; derive it"
            " from BaseRequestHandler or SQLRequestHandler",
            "handler",
        )
    return config


def _store(url: str) -> Store:
    """The store that has the table of a URL.  (What serves rows is imported with the first.)"""
    from sockserve.sql.url import store_and_settings

    return store_and_settings(url)[0]


def words_of_rows(words: Mapping[str, object]) -> dict[str, object]:
    """
    Those of some words for whatever is served that are for rows, too: the others are left out, and
    of C{timeout} the phases that are a connection's.
    """
    found = {word: value for word, value in words.items() if word in SOURCE_OPTIONS}
    given = found.get("timeout")
    if isinstance(given, Mapping):
        found["timeout"] = {
            phase: value for phase, value in given.items() if phase not in _OF_CONNECTIONS
        }
    elif isinstance(given, str | Sequence):
        pairs = [given] if isinstance(given, str) else given
        found["timeout"] = [
            pair for pair in pairs if str(pair).partition("=")[0] not in _OF_CONNECTIONS
        ]
    if "timeout" in found and not found["timeout"]:
        del found["timeout"]
    return found


def _urls(word: str, value: object) -> tuple[str, ...]:
    """The URL of a table, or a list of them."""

    def check(url: str) -> str:
        try:
            _store(url)
            return url
        except ConfigurationError as error:
            raise ConfigurationError(f"{word}: {error}") from None

    return each_text(word, value, check)


#: The checks of values that are a source's, as C{sockserve.run.values.CHECKS} has the others.
_CHECKS: Mapping[Form, Check] = {Form.URLS: _urls, Form.HANDLER: handler_given}
