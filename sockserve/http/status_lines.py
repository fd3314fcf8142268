"""
Status lines, and the date, with which the head of a response begins.

This room owns how both are written, and keeps what is written often.  It must not know handlers.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus

from sockserve.http.fields import check_text

__all__ = ["RESPONSES", "STATUS_LINES", "current_date", "status_line"]

#: The status lines with the reason phrases of the RFCs, by status.
STATUS_LINES = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n" for status in HTTPStatus}

#: By status, the reason phrase and a longer explanation.
RESPONSES = {int(status): (status.phrase, status.description) for status in HTTPStatus}


class _Date:
    """The value of the C{Date} field, made once a second."""

    #: Since 1970, when L{text} was made.
    second = 0
    text = ""


def status_line(code: int, message: str) -> str:
    """
    A status line with a reason phrase of one's own.

    @raise ValueError: the status is not within 100 and 999, or the phrase cannot be sent.
    """
    if not 100 <= code <= 999:
        raise ValueError(f"status {code!r}: it is not within 100 and 999")
    check_text("reason phrase", message)
    return f"HTTP/1.1 {int(code)} {message}\r\n"


def current_date() -> str:
    """The time now, as HTTP writes it (RFC 9110 section 5.6.7). (any thread)"""
    now = int(time.time())
    if now != _Date.second:
        # First the text: another thread that finds the second takes that for it.
        _Date.text = formatdate(now, usegmt=True)
        _Date.second = now
    return _Date.text
