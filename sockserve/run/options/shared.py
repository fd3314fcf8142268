"""
The part of the table of options that servers and sources share.

This room owns these words, what each is for, and how its value is written.  It must not know how a
value is checked.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Struct, UnsetType

from sockserve.run.options.forms import Count, Deadlines, Form, Group, Text, word

__all__ = ["SERVED", "SharedWords"]

#: The words that say what is served: one of them counts.
SERVED = ("handler", "path", "server")


class SharedWords(Struct, rename="kebab", forbid_unknown_fields=True, kw_only=True):
    """The words of servers and sources alike."""

    handler: Annotated[
        Text | UnsetType,
        word(
            "the handler class, sockserve's or the standard library's, or any callable that makes"
            " a handler",
            Group.SERVED,
            Form.HANDLER,
            "MODULE:CLASS",
            short="H",
            rivals=SERVED,
            page="`MODULE.CLASS` is accepted; the current folder is looked in",
        ),
    ] = UNSET
    concurrency: Annotated[
        Literal["serial", "threads", "fork"] | UnsetType,
        word(
            "where blocking handlers run",
            Group.WORKERS,
            Form.CHOICE,
            "PLACE",
            default="threads",
            page="`threads`, `serial` (one thread for all) or `fork` (a child process for each"
            " request; Linux 5.3 or newer). An error with an `async def` handler, which runs on the"
            " reactor; an HTTP handler is one when all its methods are",
        ),
    ] = UNSET
    threads: Annotated[
        Count | UnsetType,
        word(
            "the most threads, and so blocking requests served at once",
            Group.WORKERS,
            Form.NUMBER,
            "N",
            default="256",
            goes_with_object=True,
            page="Further ones wait (HTTP: those that have arrived). Goes with `--concurrency"
            " threads`, and with a `--server` that has `ThreadingMixIn`",
        ),
    ] = UNSET
    max_children: Annotated[
        Count | UnsetType,
        word(
            "the most children; goes with --concurrency fork",
            Group.WORKERS,
            Form.NUMBER,
            "N",
            default="40",
        ),
    ] = UNSET
    timeout: Annotated[
        Deadlines | UnsetType,
        word(
            "a deadline of a phase (handshake, idle, header, body, handle, write, lifetime,"
            " drain), or TCP's keepalive or user-timeout; none for never",
            Group.TIMES,
            Form.DEADLINES,
            "PHASE=TIME",
            setting="deadlines",
            is_list=True,
            goes_with_object=True,
            page="See [Deadlines](#deadlines) for the defaults, and [Times](#times)",
        ),
    ] = UNSET
    access_log: Annotated[
        Text | UnsetType,
        word(
            "append a line for each request to this file, or - for standard output; none for no"
            " such line",
            Group.LOGS,
            Form.TEXT,
            "FILE",
            goes_with_object=True,
            page="[Reopened on SIGUSR1](../howto/logs-and-counters.md). Without it, `sockserve`"
            " has [a line for each request on a terminal](#the-own-command)",
        ),
    ] = UNSET
    log_format: Annotated[
        Literal["combined", "json"] | UnsetType,
        word(
            "the form of the access log's lines",
            Group.LOGS,
            Form.CHOICE,
            "FORMAT",
            default="combined",
            goes_with_object=True,
            page="`combined` or `json`",
        ),
    ] = UNSET
    stats_log: Annotated[
        Text | UnsetType,
        word(
            "append a JSON object for each request to this file, beside the access log",
            Group.LOGS,
            Form.TEXT,
            "FILE",
            goes_with_object=True,
            page="As `--log-format json` has it;"
            " [reopened on SIGUSR1](../howto/logs-and-counters.md)",
        ),
    ] = UNSET
