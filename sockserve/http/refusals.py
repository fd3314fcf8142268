"""
Refusals: what the server itself answers, where there is no handler to do it.

This room owns which status a failure comes to, and the head of the answer; its body is as
L{sockserve.http.error_pages} has it.  It must not know when a request is refused.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from sockserve.core.logs import Topic, logger
from sockserve.http.error_pages import accept_of, error_fields
from sockserve.http.fields import check_text
from sockserve.http.h1.framing import RemoteProtocolError
from sockserve.http.h1.head import HeaderSection, RequestHead
from sockserve.http.handlers import HTTPRequestHandler
from sockserve.http.responses import CoroutineResponse, Response
from sockserve.http.settings import HTTPSettings
from sockserve.interfaces import DeadlineExpired, Phase
from sockserve.streams.writer import StreamWriter

__all__ = [
    "absent_response",
    "answer_error",
    "body_too_large",
    "error_page",
    "make_refusal",
    "reason_for",
    "status_for",
]

_log = logger(Topic.HTTP)

#: The field that says what an error may look like, in a head that is no good otherwise.
_ACCEPT = re.compile(rb"(?im)^accept:[ \t]*([^\r\n]*)")


def answer_error(response: Response, status: int, handler: Any, explain: str | None = None) -> None:
    """
    Start a response that says no more than its status, where there is no handler to do it.

    @param handler: as L{error_page}'s.
    @param explain: what the client should know; by default the status' own description.
    """
    head, body = error_page(status, handler, accept_of(response.request), explain)
    response.start(status, head, len(body), None)
    response.write(body)


def error_page(
    status: int, handler: Any, accept: str, explain: str | None = None
) -> tuple[str, bytes]:
    """
    An error's response: the lines of its head, without the empty one, and its body.

    @param handler: the handler, or its class, in whose form it is.  If it is of no use for that,
        this is logged, and the error is in the usual one.
    @param accept: what the client accepts, see L{accept_of}.
    @param explain: as L{answer_error}'s.
    """
    if hasattr(handler, "error_message_format"):
        try:
            return _made(status, handler, accept, explain)
        except Exception:  # whatever a class has instead of a text
            _log.failure("an error page cannot be made")
    return _made(status, HTTPRequestHandler, accept, explain)


def _made(status: int, handler: Any, accept: str, explain: str | None) -> tuple[str, bytes]:
    known = HTTPStatus(status)
    body_fields, body = error_fields(
        handler, status, known.phrase, explain or known.description, accept
    )
    fields = [*_server_field(handler), ("Date", formatdate(usegmt=True)), *body_fields]
    for name, value in fields:
        check_text(f"header field {name}:", value)
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {status} {known.phrase}\r\n{lines}", body


def _server_field(handler: Any) -> list[tuple[str, str]]:
    if not handler.server_version:
        return []
    # There may be no handler yet: its class has all that this looks at.
    arguments = (handler,) if isinstance(handler, type) else ()
    return [("Server", handler.version_string(*arguments).strip())]


def body_too_large(limit: int | None) -> RemoteProtocolError:
    """The error of a body that is larger than C{limit}."""
    return RemoteProtocolError(413, f"the body is larger than {limit} bytes", "max_body_bytes")


def make_refusal(
    error: RemoteProtocolError,
    head: RequestHead | None,
    writer: StreamWriter,
    settings: HTTPSettings,
) -> CoroutineResponse:
    """
    The answer to a client that has broken the protocol or asked for too much, sent already.

    @param head: the head of its request; None if that is no good.
    """
    if head is None:
        accepted = tuple((b"accept", value) for value in _ACCEPT.findall(error.received))
        head = RequestHead("", "", (1, 1), b"-", HeaderSection(accepted))
    response = CoroutineResponse(head, writer)
    response.close = True
    response.reason = reason_for(error)
    answer_error(response, error.status, settings.handler, str(error))
    response.finish()
    return response


def status_for(error: Exception) -> int:
    """The status that tells a client of the failure of its request."""
    if isinstance(error, ExceptionGroup):  # of a handler's tasks
        statuses = {status_for(each) for each in error.exceptions}
        return statuses.pop() if len(statuses) == 1 else 500
    if isinstance(error, DeadlineExpired):
        return 408 if error.phase in (Phase.BODY, Phase.HEADER, Phase.IDLE) else 504
    if isinstance(error, RemoteProtocolError):
        return error.status
    return 500


def reason_for(error: RemoteProtocolError) -> str:
    """The reason, for the access log: a status does not tell what has broken the protocol, and that
    need not be in the request line."""
    return error.limit or str(error)


def absent_response(response: Response) -> str:
    """The fact, for the log, that a handler has sent no response, and why if that is seen."""
    reason = ": end_headers was not called" if response.has_open_head else ""
    return f"{response.request}: no response was sent{reason}"
