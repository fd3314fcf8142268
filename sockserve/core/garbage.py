"""
The garbage collector while a command imports what it consists of.

This room owns that nothing of that is looked through: not while it is imported, nor later, nor at
the end of the process.  It must not know what is imported.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["importing_for_good"]


@contextmanager
def importing_for_good() -> Iterator[None]:
    """
    Import within this what stays until the process ends, but nothing of a user's.

    It is for commands, whose process is their own: what is there at its end, whoever has made it,
    is not looked through any more.  (A fifth of the time that a command takes to start and end
    would be spent on that.)
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
