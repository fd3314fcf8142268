"""
Stock output: the bytes that one of C{http.server}'s handlers sends, as far as the server sees a
response in them.

This room owns what is learned of such a response, and what is changed of it before it leaves.  It
must not know how it leaves.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sockserve.http.h1.framing import response_fault
from sockserve.http.h1.head import REMEMBERED_BYTES
from sockserve.http.responses import BlockingResponse

__all__ = ["KEEP_ALIVE", "StockResponse", "final_head", "status_in"]

#: Interim responses, if there are any.
_INTERIM = re.compile(
    rb"(?:HTTP/1\.[01] 1(?!01)[0-9]{2}[^\n]*\n(?:[^\r\n]+\r?\n)*\r?\n)*",
)
#: The same, and behind them the status of a final response.
_STATUS = re.compile(_INTERIM.pattern + rb"HTTP/1\.[01] (101|[2-9][0-9]{2})")

#: What a response begins with.
_BEGINNING = b"HTTP/1."

#: What a handler says of a connection that is about to end even so.
KEEP_ALIVE = re.compile(rb"(?i)\nconnection:[ \t]*keep-alive[ \t]*\r\n")


#: Where the status is in a head without interim ones before it.
_STATUS_AT = len("HTTP/1.1 ")

#: By heads without a fault, their status: as handlers repeat them, but for a second's C{Date}.
_known_heads: dict[bytes, int] = {}
_known_status = _known_heads.get
_KNOWN_HEADS_LIMIT = 256


def _learn(head: bytes, status: int) -> None:
    if len(_known_heads) >= _KNOWN_HEADS_LIMIT:
        _known_heads.clear()
    if len(head) <= REMEMBERED_BYTES:
        _known_heads[head] = status


def status_in(data: bytes) -> int | None:
    """The status of the final response that C{data} begins with."""
    found = _STATUS.match(data)
    return None if found is None else int(found[1])


def final_head(data: bytes) -> bytes | None:
    """
    The head of the final response that C{data} begins with, behind interim ones and with them, as
    far as it has come.

    @return: empty while there are only interim responses; None if it is no response.
    """
    interim = _INTERIM.match(data)
    assert interim is not None
    begun = data[interim.end() :]
    if not begun:
        return b""
    if not _BEGINNING.startswith(begun[: len(_BEGINNING)]):
        return None
    head, end, _ = begun.partition(b"\r\n\r\n")
    return interim[0] + head + end


class StockResponse(BlockingResponse):
    """The response that one handler makes by itself, as far as it is seen in what that sends."""

    def observe(
        self, data: bytes, refuse: Callable[[str], tuple[BlockingResponse, bytes]]
    ) -> bytes:
        """
        Learn of the response, of which C{data} is a part, what the log tells.

        @param refuse: given why the response must not be sent, makes another.
        @return: what is to leave for it: while the service stops, its head ends the connection.
            (any thread)
        """
        if self.is_mistaken or not data:
            return b""
        if self.sent == 0 and self.is_followed is None:
            size = data.find(b"\r\n\r\n") + 4
            status = _known_status(data[:size])
            if status is not None:
                self.status = status
                self.sent = len(data) - size
                return data
        found = None if self.sent else _STATUS.match(data)
        if found is None:
            self.sent += len(data)
            return data
        self.status = int(found[1])
        end = data.find(b"\r\n\r\n", found.end()) + 2
        fault = response_fault(data[:end])
        if fault is not None:
            instead, page = refuse(fault)
            self.is_mistaken = self.close = True
            self.status, self.sent = instead.status, instead.sent
            return page
        self.sent += len(data) - (end + 2)  # its head
        if found.start(1) == _STATUS_AT and end > 1:
            _learn(data[: end + 2], self.status)
        is_followed = self.is_followed
        if is_followed is None or self.switches or end < 2 or is_followed():
            return data
        self.close = True
        return KEEP_ALIVE.sub(b"\n", data[:end]) + b"Connection: close\r\n" + data[end:]
