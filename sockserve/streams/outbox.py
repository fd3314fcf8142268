"""
The outbox: the output of many connections, gathered.

This room owns when answers leave that could wait for those of other connections.  It must not know
what is sent, or how. (reactor thread)
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

from twisted.internet.interfaces import IReactorTime

from sockserve.core.logs import Topic, logger
from sockserve.core.reactors import turn_end_of

__all__ = ["Outbox", "Sender"]

_log = logger(Topic.CONNECTIONS)

#: After so many turns in a row with one answer each, answers are taken to come alone.
ALONE_TURNS = 8

#: One in so many of these is gathered even so, to see whether it still comes alone.  16: the look
#: costs a tenth of a small request.
LOOK_EACH = 16


class Sender(Protocol):
    """A connection's output that is held back."""

    def send_held(self) -> None:
        """Send what was held back."""

    def forget_held(self) -> None:
        """Forget what was held back, in a child: its parent sends it."""


class Outbox:
    """
    The output of all connections of one server, sent in one go when the reactor has heard all
    that can be heard in this turn.

    Sending wakes the program that waits at the other end, which costs many times what putting bytes
    into its queue does.  A client, or a proxy, with many connections is woken once for the
    answers to all it has asked.  (uvloop does the same.)

    Where only one connection has had an answer in each of the last turns, there is nothing to
    gather, and its next answers do not wait for the end of theirs.

    @param reactor: where turns end.
    """

    __slots__ = ("__weakref__", "_alone", "_call_at_turn_end", "_left", "_writers")

    def __init__(self, reactor: IReactorTime) -> None:
        self._call_at_turn_end = turn_end_of(reactor)
        self._writers: list[Sender] = []
        #: How many turns in a row have had one answer each, as far as was looked.
        self._alone = 0
        #: How many more may leave at once before the next look.
        self._left = 0
        _outboxes.add(self)

    def add(self, writer: Sender) -> None:
        """Flush C{writer} at the end of the turn."""
        if not self._writers:
            self._call_at_turn_end(self._flush)
        self._writers.append(writer)

    def send(self, writer: Sender) -> None:
        """Flush C{writer}, which has all that an event has led to, now or at the turn's end."""
        if self._left:
            self._left -= 1
            writer.send_held()
        else:  # as add, without another call
            if not self._writers:
                self._call_at_turn_end(self._flush)
            self._writers.append(writer)

    def _flush(self) -> None:
        writers, self._writers = self._writers, []
        self._alone = self._alone + 1 if len(writers) == 1 else 0
        if self._alone >= ALONE_TURNS:
            self._left = LOOK_EACH - 1
        for writer in writers:
            try:
                writer.send_held()
            except Exception:  # of whoever heard that the connection is gone
                _log.failure("sending an answer raised")

    def forget(self) -> None:
        """Forget what is gathered, in a child."""
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.forget_held()


_outboxes: WeakSet[Outbox] = WeakSet()


def _after_in_child() -> None:
    for outbox in list(_outboxes):
        outbox.forget()


os.register_at_fork(after_in_child=_after_in_child)
