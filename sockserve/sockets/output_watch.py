"""
The watch over the part of a connection's output that the kernel has: has the client taken it?

This room owns how C{write} is kept there, by looks at the kernel's account.  It must not know who
writes, or what is written.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.interfaces import Phase
from sockserve.sockets.lending import TransferCounts, UnsentBytes, tcp_traffic

__all__ = ["OutputWatch"]


class OutputWatch:
    """
    The watch over one connection's output in the kernel, for as long as that has the same writer.

    It holds no socket: a lent one ends with the last that knows of it.
    """

    __slots__ = ("_ask_kernel", "_deadlines", "_timer", "_unsent")

    def __init__(
        self,
        deadlines: Deadlines,
        timer: DeadlineTimer,
        ask_kernel: Callable[[socket.socket | None], TransferCounts | None] = tcp_traffic,
    ) -> None:
        """
        @param timer: C{write} is armed, and armed anew at each look that finds no fault.
        @param ask_kernel: tells what has moved on a socket, where that is known.
        """
        self._deadlines = deadlines
        self._timer = timer
        self._ask_kernel = ask_kernel
        self._unsent = UnsentBytes(deadlines.write_rate, timer.seconds())
        timer.arm(Phase.WRITE, deadlines.write)

    def seconds_left(self, sock: socket.socket | None) -> float | None:
        """How long until C{write} could pass; None for never, as far as can be told.
        (any thread)"""
        limit, counts = self._deadlines.write, self._ask_kernel(sock)
        if limit is None or counts is None:
            return None
        return self._unsent.seconds_left(counts, limit, self._timer.seconds())

    def takes_output(self, sock: socket.socket | None) -> bool:
        """
        Whether the client has taken something of what the kernel has for it, or has all, as far as
        can be told; then it is looked at again later. (reactor thread)

        @param sock: the client's; None for one that is closed, or not known.
        """
        left = self.seconds_left(sock)
        if left is None:
            return True
        if left > 0:
            self._timer.arm(Phase.WRITE, left)
        return left > 0
