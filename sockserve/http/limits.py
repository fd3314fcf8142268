"""
HTTP limits: how much a server takes of what its clients send over HTTP, and keeps of answers.

This room owns the attributes by which server objects have them, with their defaults.  It must not
know where a limit is met, nor what else a server object has.
"""

from __future__ import annotations

from sockserve.http.h1.sizes import MAX_HEADER_BYTES, MAX_HEADER_FIELDS, MAX_LINE_BYTES

__all__ = ["DropInHTTPLimits", "HTTPLimits"]


class HTTPLimits:
    """
    The limits of a server of HTTP, as class attributes of its server object.

    @cvar max_body_bytes: the largest body of an HTTP request that is kept for a blocking
        handler, in bytes; a larger one is answered with 413.  None: any.  1 GiB: waitress'
        C{max_request_body_size}.
    @cvar max_request_line_bytes: the longest line that an HTTP request may begin with; a longer
        one is answered with 414.
    @cvar max_header_bytes: the longest header section of one; longer: 431.
    @cvar max_header_fields: the most fields of that; more: 431.
    @cvar max_spool_bytes: how many bytes of the responses of blocking HTTP handlers are kept in
        temporary files for clients that take them slowly, all together; a sixteenth of it for
        one.  1 GiB: nginx's C{proxy_max_temp_file_size}.  0: a thread waits for its client.
    """

    max_body_bytes: int | None = 2**30
    max_request_line_bytes: int = MAX_LINE_BYTES
    max_header_bytes: int = MAX_HEADER_BYTES
    max_header_fields: int = MAX_HEADER_FIELDS
    max_spool_bytes: int = 2**30


class DropInHTTPLimits(HTTPLimits):
    """
    The limits of a server that refuses nothing which C{http.server} takes.

    @cvar max_body_bytes: the largest body that is kept for a handler of HTTP; a larger one is
        answered with 413.  By default, any.
    @cvar max_request_line_bytes: the longest line that a request of HTTP may begin with; a longer
        one is answered with 414.  64 KiB, as C{http.server} has it.
    @cvar max_header_bytes: the longest header section; longer: 431.  As much as C{http.client}
        takes: 100 fields, each a line of 64 KiB.
    @cvar max_header_fields: the most fields of that; more: 431.  100, as C{http.client} has it.
    @cvar max_spool_bytes: how much of responses is kept in temporary files, all together.
    """

    max_body_bytes = None
    max_header_bytes = MAX_HEADER_FIELDS * MAX_HEADER_BYTES
