"""
Preambles: the lines that the head of nearly every response begins with, C{Server} and C{Date} among
them.

This room owns how they are put together, and for which handlers that can be done once a second.  It
must not know requests, or what else a response says. (handler's thread)
"""

from __future__ import annotations

import operator
from email.utils import formatdate
from time import time
from typing import Any

from sockserve.http.status_lines import usual_status_line

__all__ = ["Preamble", "make_preamble", "preamble_parts", "server_value"]

#: By what a handler class says what its responses begin with, but for the C{Server} field's value.
_PARTS = (
    "date_time_string", "log_request", "responses", "send_response_only", "version_string",
)  # fmt: skip


def server_value(server_version: str, sys_version: str) -> str:
    """The value of the C{Server} field; empty for no such field."""
    return f"{server_version} {sys_version}" if sys_version and server_version else server_version


def preamble_parts(handler_class: type) -> list[Any]:
    """The attributes by which a handler class says what its responses begin with."""
    return [getattr(handler_class, name) for name in _PARTS]


class Preamble:
    """
    The first lines of the responses of a handler class whose L{preamble_parts} are the usual ones:
    put together once a second for each status.
    """

    __slots__ = (
        "_handler_class", "_second", "_server", "_server_version", "_sys_version", "_usual_parts",
    )  # fmt: skip

    def __init__(self, handler_class: Any, usual_parts: list[Any]) -> None:
        self._handler_class = handler_class
        self._usual_parts = usual_parts
        self._server_version: str = handler_class.server_version
        self._sys_version: str = handler_class.sys_version
        value = server_value(self._server_version, self._sys_version)
        self._server = f"Server: {value}\r\n" if value else ""
        #: What has been put together, by status, and from and until when it is right: all in one,
        #: as several threads look at it, and any may put the next in its place.
        self._second: tuple[dict[int, str], float, float] = ({}, 0.0, 0.0)

    def lines(self, handler: Any, code: int) -> str | None:
        """
        Status line, C{Server} and C{Date}.

        @param code: the status.
        @return: None if these are for the handler to put together: it is of a subclass, or has
            something of its own to say, or the status has no reason phrase in the RFCs.
        """
        if (
            type(handler) is not self._handler_class
            or handler.server_version is not self._server_version
            or handler.sys_version is not self._sys_version
        ):
            return None
        known, begins, ends = self._second
        now = time()
        if not begins <= now < ends:
            if not _has(self._handler_class, self._usual_parts):  # a program has changed it
                return None
            begins, known = now // 1, {}
            self._second = known, begins, begins + 1
        lines = known.get(code)
        if lines is None and (status := usual_status_line(code)) is not None:
            date = formatdate(begins, usegmt=True)
            lines = known[code] = f"{status}{self._server}Date: {date}\r\n"
        return lines


def make_preamble(handler_class: type, usual_parts: list[Any]) -> Preamble | None:
    """The preamble of a handler class; None if one of its L{preamble_parts} is its own."""
    return Preamble(handler_class, usual_parts) if _has(handler_class, usual_parts) else None


def _has(handler_class: type, parts: list[Any]) -> bool:
    return all(map(operator.is_, preamble_parts(handler_class), parts))
