"""
The configuration of one server, from a user's words, checked.

This room owns how the words of the table of options (L{sockserve.run.options.words}) go together,
and the messages about mistakes in that.  It must not know where the words came from
(L{sockserve.run.config_file} is one such place).
"""

from __future__ import annotations

import functools
import os
import socket
import socketserver
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from sockserve.core.deadlines import Deadlines
from sockserve.core.handler_kinds import handler_name, unwrap
from sockserve.core.limits import LIMITS, LimitKind
from sockserve.core.messages import about
from sockserve.dropin.overriding import accepts_takeover
from sockserve.dropin.server_check import own_deadlines
from sockserve.http.files.handler import FileRequestHandler
from sockserve.interfaces import ConfigurationError, Phase
from sockserve.listeners.endpoints import is_datagram_description
from sockserve.run.handler_kinds import HANDLERS_OF_DATAGRAMS, HANDLERS_OF_STREAMS, derives
from sockserve.run.loading import handler_given, load_server
from sockserve.run.options.forms import Form
from sockserve.run.options.words import SERVER_OPTIONS, SOURCE_OPTIONS
from sockserve.run.served_files import check_readable
from sockserve.run.server_config import RATES, ServerConfig, listener_kind
from sockserve.run.unknown import hint_at_word
from sockserve.run.values import Check, check_value, each_text, text
from sockserve.run.where import PLACES, TLS_FILES, description_of_place
from sockserve.run.workers import check_workers
from sockserve.sql.handlers import SQLRequestHandler

if TYPE_CHECKING:
    from twisted.cred.portal import Portal

__all__ = ["server_config"]


def server_config(words: Mapping[str, object]) -> ServerConfig:
    """
    Make the settings of one server from a user's words, and check them.

    @param words: the values by option name, as C{max-connections}: strings or, from TOML,
        of types of their own.
    @raise ConfigurationError: a word is unknown, its value is wrong, or it contradicts
        another.
    """
    for word in words:
        if word not in SERVER_OPTIONS:
            if word in SOURCE_OPTIONS:
                raise ConfigurationError(
                    f"{word}: it is for rows, and this is no source of them", word
                )
            hint = hint_at_word(word, SERVER_OPTIONS)
            raise ConfigurationError(f"unknown word {word!r}{hint}", word, is_name=True)
        if "server" in words and not SERVER_OPTIONS[word].notes.goes_with_object:
            raise ConfigurationError(f"{word}: does not go with server, which has its own", word)
    settings: dict[str, Any] = {
        SERVER_OPTIONS[word].setting: check_value(SERVER_OPTIONS[word], value, _CHECKS)
        for word, value in words.items()
        if word not in ("handler", "path", "header")
    }
    settings["limits"] = {name: settings.pop(name) for name in list(settings) if name in LIMITS}
    given: dict[str, float | None] = settings.pop("deadlines", {})
    given |= {name: settings.pop(name) for name in RATES if name in settings}
    own = own_deadlines(settings.get("server"))
    settings["deadlines"] = attrs.evolve(own, **given) if own else Deadlines(**given)
    if "auth" in words:
        settings["checkers"] = each_text("auth", words["auth"], str)
    if "server" in words:
        config = ServerConfig(handler=settings["server"].RequestHandlerClass, **settings)
        _check_server_object(config, given)
        return config
    handler = _handler(words)
    places = {word: SERVER_OPTIONS[word].setting for word in PLACES if word in words}
    if places:
        said = {word: settings.pop(setting) for word, setting in places.items()}
        is_for_datagrams = derives(unwrap(handler), *HANDLERS_OF_DATAGRAMS)
        settings["files_of_tls"] = {word: said[word] for word in TLS_FILES if word in said}
        settings["listen"] = (
            description_of_place(said, "listen" in settings, datagrams=is_for_datagrams),
        )
    config = ServerConfig(handler=handler, **settings)
    _check(config)
    return config


def _handler(words: Mapping[str, object]) -> Callable[..., Any]:
    """
    The handler that C{handler} or C{path} names, with C{header}; without either, files from here.
    In the place of a name, a program may give the handler's class.
    """
    handler = _named_handler(words)
    if "header" not in words:
        return handler
    fields = check_value(SERVER_OPTIONS["header"], words["header"], _CHECKS)
    if not derives(unwrap(handler), FileRequestHandler):
        raise ConfigurationError("header: it is for files; other handlers send their own", "header")
    return functools.partial(handler, extra_response_headers=fields)


def _named_handler(words: Mapping[str, object]) -> Callable[..., Any]:
    if "handler" in words and "path" in words:
        raise ConfigurationError(
            f"handler and path: give one of them{_hint_at_port(words['path'])}", "handler"
        )
    if "handler" in words:
        with about("handler"):
            return handler_given("handler", words["handler"])
    with about("path"):
        directory = os.path.abspath(text("path", words.get("path", ".")))
    try:
        check_readable(directory)
    except PermissionError:
        raise ConfigurationError(
            f"path {directory!r}: Permission denied; who serves its files must be able to read it",
            "path",
        ) from None
    except (OSError, ValueError):
        hint = _hint_at_port(words.get("path"))
        raise ConfigurationError(f"path {directory!r}: not a directory{hint}", "path") from None
    return functools.partial(FileRequestHandler, directory=directory)


def _hint_at_port(path: object) -> str:
    """A hint for those who know http.server, where a number is a port; perhaps nothing."""
    return f"; a port is --port {path}" if isinstance(path, str) and path.isdecimal() else ""


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
    faults: dict[tuple[str, ...], str | None] = {}
    for word, value, fault in (
        ("threads", config.threads, alone or serial),
        ("access-log", config.access_log, alone),
        ("stats-log", config.stats_log, alone),
        ("max-connections", config.max_connections, alone or unconnected),
        ("max-connections-per-peer", config.max_connections_per_peer, alone or unconnected),
    ):
        if value is not None:
            faults[word,] = fault
    for phase, seconds in deadlines.items():
        fault = unconnected or (None if phase == Phase.HANDSHAKE else alone)
        word = phase.replace("_", "-")
        if phase in RATES:
            faults[word,] = fault
        elif phase != Phase.DRAIN and seconds != getattr(usual, phase):
            faults["timeout", word] = fault
    for name in config.limits:
        is_for_datagrams = LIMITS[name].kind is LimitKind.DATAGRAMS
        faults[name.replace("_", "-"),] = alone or (connected if is_for_datagrams else unconnected)
    for words, fault in faults.items():
        if fault is not None:
            message = f"{' '.join(words)}: does not go with this server: {fault}"
            raise ConfigurationError(message, *words)


def _check(config: ServerConfig) -> None:
    """
    Check the settings against one another.

    @raise ConfigurationError: two of them do not go together.
    """
    cls = unwrap(config.handler)
    handler = handler_name(cls)
    check_workers(config)
    if config.rpcbind:
        from sockserve.sunrpc.rpcbind import served_program

        with about("rpcbind"):
            served_program(cls)
    if not config.listen:
        raise ConfigurationError("listen: give at least one description", "listen")
    if derives(cls, SQLRequestHandler):
        raise ConfigurationError(
            f"handler {handler} serves the rows of a table; name that with source", "handler"
        )
    kinds = {listener_kind(description) for description in config.listen}
    for name in config.limits:
        kind = LIMITS[name].kind
        if kind not in kinds:
            word = name.replace("_", "-")
            raise ConfigurationError(
                f"{word}: it is for {kind.value}, and no listener here is one of these", word
            )
    for item, description in enumerate(config.listen):
        datagrams = is_datagram_description(description)
        if datagrams and derives(cls, *HANDLERS_OF_STREAMS):
            raise ConfigurationError(
                f"listen {description!r}: handler {handler} serves streams; listen on tcp:,"
                " tls: or unix:",
                "listen",
                item,
            )
        if not datagrams and derives(cls, *HANDLERS_OF_DATAGRAMS):
            raise ConfigurationError(
                f"listen {description!r}: handler {handler} serves datagrams; listen on udp:,"
                " udp6: or unixgram:",
                "listen",
                item,
            )


def _portal(word: str, value: object) -> Portal:
    from sockserve.auth.checkers import make_portal

    return make_portal(each_text(word, value, str), word=word)


def _server_object(word: str, value: object) -> socketserver.BaseServer:
    return load_server(text(word, value))


#: The checks of values that are loaded, as C{sockserve.run.values.CHECKS} has the others.
_CHECKS: Mapping[Form, Check] = {Form.CHECKERS: _portal, Form.SERVER_OBJECT: _server_object}
