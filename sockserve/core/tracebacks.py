"""
Tracebacks: what a handler has raised, as the log tells it to the handler's author.

This room owns which lines of a traceback are left out: those of sockserve, and of the standard
library's modules that it calls handlers by.  It must not know what was served.
"""

from __future__ import annotations

import http.server
import os
import socketserver
from collections.abc import Iterator
from itertools import groupby
from traceback import FrameSummary, StackSummary, TracebackException
from typing import Any

from twisted.python.failure import Failure
from typing_extensions import override

__all__ = ["HandlerFailure"]

#: Where code lies whose frames say nothing to a handler's author.
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_CALLERS = frozenset({socketserver.__file__, http.server.__file__})


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
        told = TracebackException.from_exception(self.value)
        for each in _chain(told):
            each.stack = _folded(each.stack)
        for text in told.format():
            file.write(text)


def _chain(told: TracebackException) -> Iterator[TracebackException]:
    """An error, and all that it was raised from or has gathered."""
    waiting = [told]
    while waiting:
        each = waiting.pop()
        yield each
        others = (each.__cause__, each.__context__, *(getattr(each, "exceptions", None) or ()))
        waiting.extend(other for other in others if other is not None)


def _folded(stack: StackSummary) -> StackSummary:
    """A stack without what is ours, unless there is nothing else in it."""
    if all(map(_is_ours, stack)):
        return stack
    kept: list[FrameSummary] = []
    for is_ours, frames in groupby(stack, _is_ours):
        run = [*frames]
        if not is_ours:
            kept += run
        elif kept:  # what the handler calls: what has raised is left; what calls the handler goes
            kept.append(run[-1])
    return StackSummary.from_list(kept)


def _is_ours(frame: FrameSummary) -> bool:
    return frame.filename.startswith(_OURS) or frame.filename in _CALLERS
