"""
Refusals: what the server itself answers, where there is no handler to do it.

This room owns which status a failure comes to, and how little is said of it.  It must not know
when a request is refused.
"""

from __future__ import annotations

import html
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from sockserve.http.h1.framing import RemoteProtocolError
from sockserve.http.h1.head import HeaderSection, RequestHead
from sockserve.http.responses import CoroutineResponse, Response
from sockserve.interfaces import DeadlineExpired, Phase
from sockserve.streams.writer import Outbox, StreamWriter

__all__ = [
    "absent_response",
    "answer_error",
    "body_too_large",
    "error_page",
    "make_refusal",
    "status_for",
]


def answer_error(response: Response, status: int, explain: str | None = None) -> None:
    """
    Start a response that says no more than its status, where there is no handler to do it.

    @param explain: what the client should know; by default the status' own description.
    """
    head, body = error_page(status, explain)
    response.start(status, head, len(body), None)
    response.add(body)


def error_page(status: int, explain: str | None = None) -> tuple[str, bytes]:
    """
    An error's response: the lines of its head, without the empty one, and its body.

    @param explain: as L{answer_error}'s.
    """
    known = HTTPStatus(status)
    page = BaseHTTPRequestHandler.error_message_format % {
        "code": status,
        "message": known.phrase,
        "explain": html.escape(explain or known.description, quote=False),
    }
    body = page.encode()
    head = (
        f"HTTP/1.1 {status} {known.phrase}\r\n"
        f"Date: {formatdate(usegmt=True)}\r\n"
        f"Content-Type: {BaseHTTPRequestHandler.error_content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
    )
    return head, body


def body_too_large(limit: int | None) -> RemoteProtocolError:
    """The error of a body that is larger than C{limit}."""
    return RemoteProtocolError(413, f"the body is larger than {limit} bytes", "max_body_bytes")


def make_refusal(
    error: RemoteProtocolError, head: RequestHead | None, writer: StreamWriter, outbox: Outbox
) -> CoroutineResponse:
    """
    The answer to a client that has broken the protocol or asked for too much, sent already.

    @param head: the head of its request; None if that is no good.
    """
    if head is None:
        head = RequestHead("", "", (1, 1), b"-", HeaderSection())
    response = CoroutineResponse(head, writer, outbox)
    response.close = True
    # A status does not tell what has broken the protocol, and that need not be in the request line.
    response.reason = error.limit or str(error)
    answer_error(response, error.status, str(error))
    response.finish()
    return response


def status_for(error: Exception) -> int:
    """The status that tells a client of the failure of its request."""
    if isinstance(error, DeadlineExpired):
        return 408 if error.phase in (Phase.BODY, Phase.HEADER, Phase.IDLE) else 504
    if isinstance(error, RemoteProtocolError):
        return error.status
    return 500


def absent_response(response: Response) -> str:
    """The reason, for the log, that a handler has sent no response."""
    reason = ": end_headers was not called" if response.has_open_head else ""
    return f"no response was sent{reason}"
