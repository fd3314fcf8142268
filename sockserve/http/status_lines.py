"""
Status lines, and the date, with which the head of a response begins.

This room owns how both are written, and keeps what is written often.  It must not know handlers.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from time import time

from sockserve.http.fields import check_text

__all__ = ["RESPONSES", "current_date", "status_line", "usual_status_line"]

#: The status line with the reason phrase of the RFCs, given the status; None if it is not theirs.
usual_status_line = {
    int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n" for status in HTTPStatus
}.get

#: By status, the reason phrase and a longer explanation.
RESPONSES = {int(status): (status.phrase, status.description) for status in HTTPStatus}


#: The value of the C{Date} field, and the seconds since 1970 from and until which it is right.
_date = ("", 0.0, 0.0)


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
    global _date
    text, begins, ends = _date
    now = time()
    if not begins <= now < ends:
        begins = now // 1
        text = formatdate(begins, usegmt=True)
        _date = (text, begins, begins + 1)
    return text
