"""
Error pages: what a client is shown of an error, in the form that the handler's class gives it.

This room owns the page that there is otherwise, and when it is JSON instead.  It must not know
what has gone wrong, or who tells of it: the handler or the server. (any thread)
"""

from __future__ import annotations

import html
import json
from importlib.resources import files
from typing import Any

from sockserve.http.accept import asks_for_json
from sockserve.http.h1.head import RequestHead

__all__ = ["ERROR_CONTENT_TYPE", "ERROR_FORMAT", "accept_of", "error_fields"]

#: The page for sockserve's own handlers, by C{%} with C{code}, C{message} and C{explain}.
ERROR_FORMAT = files("sockserve.http").joinpath("templates/error.html").read_text("utf-8")
ERROR_CONTENT_TYPE = "text/html;charset=utf-8"

_PROBLEM = "application/problem+json"


def accept_of(head: RequestHead) -> str:
    """The values of a request's C{Accept} fields, with commas between."""
    values = [value for name, value in head.fields if name.lower() == b"accept"]
    return b",".join(values).decode("latin-1")


def error_fields(
    handler: Any, status: int, message: str, explain: str, accept: str
) -> tuple[list[tuple[str, str]], bytes]:
    """
    Make the body of an error's response, and the fields of its head that tell of it.

    It is made by C{error_message_format} and C{error_content_type}; but for a client that asks for
    JSON it is a problem (RFC 9457).

    @param handler: the class of the handler, or that itself.
    @param accept: as L{asks_for_json}'s.
    """
    kind: str = handler.error_content_type
    if asks_for_json(accept, kind):
        kind = _PROBLEM
        problem = {"type": "about:blank", "title": message, "status": status, "detail": explain}
        page = json.dumps(problem, ensure_ascii=False) + "\n"
    else:
        page = handler.error_message_format % {
            "code": status,
            "message": html.escape(message, quote=False),
            "explain": html.escape(explain, quote=False),
        }
    body = page.encode("utf-8", "replace")
    fields = [("Content-Type", kind), ("Vary", "Accept"), ("Content-Length", str(len(body)))]
    return fields, body
