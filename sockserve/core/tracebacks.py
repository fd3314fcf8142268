"""
Tracebacks: what a handler has raised, as the log tells it to the handler's author.

This room owns which lines of a traceback are left out, those of sockserve, and of the standard
library's modules that it calls and imports handlers by; and which request a handler of these is
seen to have served there.  It must not know servers.
"""

from __future__ import annotations

import http.server
import importlib
import os
import socketserver
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from traceback import StackSummary, TracebackException, walk_tb
from types import TracebackType
from typing import Any, TypeVar

from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.messages import printable

__all__ = ["HandlerFailure", "folded_traceback", "format_error", "request_in"]

_Frame = TypeVar("_Frame")

#: Where code lies whose frames say nothing to a handler's author.
_OURS = (os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep, "<frozen importlib")
_CALLERS = frozenset({socketserver.__file__, http.server.__file__, importlib.__file__})


class HandlerFailure(Failure):
    """
    The failure of a handler, whose traceback is as Python prints it, with all that the error was
    raised from, and begins with the handler's own code.  Of calls into sockserve the last is left.
    """

    @override
    def printTraceback(
        self, file: Any = None, elideFrameworkCode: bool = False, detail: str = "default"
    ) -> None:
        if detail != "default" or file is None or not isinstance(self.value, BaseException):
            super().printTraceback(file, elideFrameworkCode, detail)
            return
        file.write(format_error(self.value))


def format_error(error: BaseException) -> str:
    """An error's traceback, as that of a L{HandlerFailure}."""
    told = TracebackException.from_exception(error)
    for each in _chain(told):
        each.stack = StackSummary.from_list(_folded(each.stack, attrgetter("filename")))
    return "".join(told.format())


def folded_traceback(error: BaseException) -> TracebackType | None:
    """The traceback of an error without what is ours; the error keeps its own."""
    links = []
    link = error.__traceback__
    while link is not None:
        links.append(link)
        link = link.tb_next
    for each in reversed(_folded(links, attrgetter("tb_frame.f_code.co_filename"))):
        link = TracebackType(link, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return link


def request_in(error: BaseException) -> str | None:
    """
    The method and target of the request that one of C{http.server}'s handlers was answering when
    it raised; None if that is not seen.
    """
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_code.co_name.startswith("do_"):
            handler = frame.f_locals.get("self")
            if isinstance(handler, http.server.BaseHTTPRequestHandler):
                # One that calls its method by itself may have read no request line.
                asked = [vars(handler).get(name) for name in ("command", "path")]
                return None if None in asked else printable("{} {}".format(*asked))
    return None


def _chain(told: TracebackException) -> Iterator[TracebackException]:
    """An error, and all that it was raised from or has gathered."""
    waiting = [told]
    while waiting:
        each = waiting.pop()
        yield each
        others = (each.__cause__, each.__context__, *(getattr(each, "exceptions", None) or ()))
        waiting.extend(other for other in others if other is not None)


def _folded(frames: Sequence[_Frame], filename_of: Callable[[_Frame], str]) -> list[_Frame]:
    """Frames without those that are ours, unless there is nothing else."""

    def is_ours(frame: _Frame) -> bool:
        filename = filename_of(frame)
        return filename.startswith(_OURS) or filename in _CALLERS

    if all(map(is_ours, frames)):
        return [*frames]
    kept: list[_Frame] = []
    for are_ours, group in groupby(frames, is_ours):
        run = [*group]
        if not are_ours:
            kept += run
        elif kept:  # what the handler calls: what has raised is left; what calls the handler goes
            kept.append(run[-1])
    return kept
