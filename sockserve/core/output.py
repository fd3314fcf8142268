"""
Standard output of a command that only tells something.

This room owns what becomes of a reader that has gone.  It must not know what is told.
"""

from __future__ import annotations

import os
import sys

__all__ = ["write_out"]


def write_out(text: str) -> None:
    """Write a text, whatever the encoding of standard output has; whoever reads it may have read
    enough of it before its end."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:  # nor is there more to flush at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
