"""
The report of an error that a handler has raised: what a drop-in server prints of it.

This room owns its words, which are C{socketserver}'s with what was asked for.  It must not know
servers. (handler's thread)
"""

from __future__ import annotations

import sys

from sockserve.core.tracebacks import format_error, request_in

__all__ = ["print_report"]

_LINE = "-" * 40


def print_report(client_address: object, server_address: object) -> None:
    """
    Print the exception being handled to standard error, in one piece, as that of other threads
    may come at the same time.
    """
    error = sys.exception()
    told, asked = "NoneType: None\n", None
    if error is not None:
        told, asked = format_error(error), request_in(error)
    where = f" on {server_address}" if asked is None else f": {asked}"
    print(  # noqa: T201 (as socketserver does)
        f"{_LINE}\n"
        f"Exception occurred during processing of request from {client_address}{where}\n"
        f"{told}{_LINE}\n",
        end="",
        file=sys.stderr,
    )
