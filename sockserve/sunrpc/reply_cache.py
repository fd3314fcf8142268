"""
The replies of a datagram server, kept for clients that ask again: at most once over UDP.

This room owns which replies are kept and for how long.  It must not know what is in one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum
from weakref import WeakKeyDictionary

__all__ = ["KEPT_BYTES", "KEPT_REPLIES", "KEPT_SECONDS", "Known", "ReplyCache", "cache_of"]

#: The most replies that are kept.  10,000: of 40,000 calls a second, a quarter of one; a client
#: asks again after some seconds, so of fewer calls all are.
KEPT_REPLIES = 10_000

#: The most bytes of them.
KEPT_BYTES = 16 * 2**20

#: How long one is kept.  120 s, as Linux's NFS server keeps them (RC_EXPIRE).
KEPT_SECONDS = 120.0


class Known(Enum):
    """The state of a call that has no reply yet."""

    #: It has not been seen before; it is being served from now on.
    NEW = "new"
    #: It is being served: this is a second copy of it.
    IN_PROGRESS = "in progress"


class ReplyCache:
    """
    The replies of one server, by what tells calls apart: the client's address, the transaction,
    the procedure, and the arguments.  (A client that begins anew may use a number again.)
    (any thread)
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """
        @param seconds: gives the time.
        """
        self._seconds = seconds
        self._lock = threading.Lock()
        self._in_progress: set[Hashable] = set()
        self._replies: OrderedDict[Hashable, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._replies)

    def begin(self, key: Hashable) -> bytes | Known:
        """
        Note that a call has come.

        @return: the reply that it has had; or else its state.  After L{Known.NEW},
            L{end} or L{forget} is to be called.
        """
        with self._lock:
            kept = self._replies.get(key)
            if kept is not None and self._seconds() - kept[0] < KEPT_SECONDS:
                return kept[1]
            if key in self._in_progress:
                return Known.IN_PROGRESS
            self._in_progress.add(key)
            return Known.NEW

    def end(self, key: Hashable, reply: bytes) -> None:
        """Keep the reply that a call has had."""
        now = self._seconds()
        with self._lock:
            self._in_progress.discard(key)
            replies = self._replies
            old = replies.pop(key, None)
            if old is not None:
                self._bytes -= len(old[1])
            replies[key] = now, reply
            self._bytes += len(reply)
            while self._is_full(now):
                _, (_, oldest) = replies.popitem(last=False)
                self._bytes -= len(oldest)

    def _is_full(self, now: float) -> bool:
        replies = self._replies
        if not replies:
            return False
        if len(replies) > KEPT_REPLIES or self._bytes > KEPT_BYTES:
            return True
        return now - next(iter(replies.values()))[0] >= KEPT_SECONDS

    def forget(self, key: Hashable) -> None:
        """Forget a call that will have no reply."""
        with self._lock:
            self._in_progress.discard(key)


#: Of each server object, as long as that lasts.
_caches: WeakKeyDictionary[object, ReplyCache] = WeakKeyDictionary()
_lock = threading.Lock()


def cache_of(server: object, seconds: Callable[[], float]) -> ReplyCache:
    """The replies of a server object: the same for all who ask. (any thread)"""
    cache = _caches.get(server)
    if cache is None:
        with _lock:
            cache = _caches.setdefault(server, ReplyCache(seconds))
    return cache
