"""
Forked rows: those whose handler runs in a child.

This room owns the way of a traceback from there to the parent.  It must not know what becomes of
it, nor databases. (reactor thread, but where a method says otherwise)
"""

from __future__ import annotations

import tempfile
from typing import IO

from typing_extensions import override

from sockserve.interfaces import Outcome
from sockserve.listeners.single import BlockingRequest

__all__ = ["ForkedRow"]


class ForkedRow(BlockingRequest):
    """A row whose handler runs in a child, which leaves its traceback in a file."""

    _trace: IO[bytes] | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file's, which the child keeps."""
        return () if self._trace is None else (self._trace.fileno(),)

    @override
    def started(self) -> None:
        self._trace = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (closed when the child ends)
        super().started()

    @override
    def serve(self) -> Outcome:
        """Serve the row from start to end, in the child. (worker thread)"""
        try:
            return super().serve()
        finally:
            if self._trace is not None and self.request.failure is not None:
                self._trace.write(self.request.failure.encode(errors="backslashreplace"))

    @override
    def ended(self, outcome: Outcome) -> None:
        self._take_trace()
        super().ended(outcome)

    @override
    def failed(self, error: OSError) -> None:
        self._take_trace()
        super().failed(error)

    def _take_trace(self) -> None:
        if self._trace is not None:
            self._trace.seek(0)
            self.request.failure = self._trace.read().decode() or None
            self._trace.close()
            self._trace = None
