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
from sockserve.http.responses import BlockingResponse

__all__ = ["KEEP_ALIVE", "StockOutput", "final_head", "status_in"]

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


class StockOutput:
    """
    The output of one handler.

    @ivar is_mistaken: whether it was one that must not be sent, and is not.
    """

    def __init__(self, response: BlockingResponse) -> None:
        """
        @param response: told what is seen.
        """
        self._response = response
        self.is_mistaken = False

    def observe(
        self, data: bytes, refuse: Callable[[str], tuple[BlockingResponse, bytes]]
    ) -> bytes:
        """
        Learn of the response that C{data} is a part of what the log tells.

        @param refuse: given why the response must not be sent, makes another.
        @return: what is to leave for it: while the service stops, its head ends the connection.
            (any thread)
        """
        response = self._response
        if self.is_mistaken or not data:
            return b""
        found = None if response.sent else _STATUS.match(data)
        if found is None:
            response.sent += len(data)
            return data
        response.status = int(found[1])
        end = data.find(b"\r\n\r\n", found.end()) + 2
        fault = response_fault(data[:end])
        if fault is not None:
            instead, page = refuse(fault)
            self.is_mistaken = response.close = True
            response.status, response.sent = instead.status, instead.sent
            return page
        response.sent += len(data) - (end + 2)  # its head
        is_followed = response.is_followed
        if is_followed is None or response.switches or end < 2 or is_followed():
            return data
        response.close = True
        return KEEP_ALIVE.sub(b"\n", data[:end]) + b"Connection: close\r\n" + data[end:]
