"""
Buffers: what handlers write, as bytes.

This room owns what counts as such, and in which words anything else is refused.  It must not know
where it goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["bytes_of"]


def bytes_of(data: ReadableBuffer) -> bytes:
    """
    The bytes in C{data}, for one that is no C{bytes}; refused in the words of Python's own files
    and sockets. (any thread)

    @raise TypeError: it is no bytes-like object.
    """
    try:
        return bytes(memoryview(data))
    except TypeError:
        kind = type(data).__name__
        raise TypeError(f"a bytes-like object is required, not {kind!r}") from None
