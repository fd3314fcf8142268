"""
Malformed calls, kept for people to look at.

This room owns how many are kept, and how much of each.  It must not know how calls come.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

__all__ = ["KEPT_BYTES", "KEPT_CALLS", "KeptCall", "MalformedCalls"]

#: How many are kept, the last ones.  16: they are looked at by a person, who has the log besides.
KEPT_CALLS = 16

#: How much of each.  4 KiB: all of a usual call, and at most 64 KiB of memory in all.
KEPT_BYTES = 4096


class KeptCall(NamedTuple):
    """
    A malformed call.

    @ivar time: when it came: seconds since the epoch, by the system's clock.
    @ivar peer: the client's address.
    @ivar reason: what is wrong with it.
    @ivar size: how many bytes of it had come.
    @ivar data: the first L{KEPT_BYTES} of them.
    """

    time: float
    peer: object
    reason: str
    size: int
    data: bytes


class MalformedCalls:
    """The last malformed calls of a handler's class: the newest is the last. (any thread)"""

    def __init__(self) -> None:
        self._kept: deque[KeptCall] = deque(maxlen=KEPT_CALLS)

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, peer: object, reason: str, data: bytes) -> None:
        """Keep a malformed call. (any thread)"""
        self._kept.append(KeptCall(time.time(), peer, reason, len(data), data[:KEPT_BYTES]))

    def as_list(self) -> list[KeptCall]:
        """The kept calls as of now. (any thread)"""
        return list(self._kept)

    def clear(self) -> None:
        """Forget them. (any thread)"""
        self._kept.clear()
