"""
Named calls: delayed calls of which there is one by each name.

This room owns their coming and going.  It must not know what they are for. (reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["NamedCalls"]


class NamedCalls:
    """
    Delayed calls by name.

    @param clock: makes the calls.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: dict[str, IDelayedCall] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._calls

    def later(self, name: str, seconds: float, call: Callable[[], object]) -> None:
        """Have C{call} called, in place of the one of this name that is to come."""

        def due() -> None:
            del self._calls[name]
            call()

        before = self._calls.pop(name, None)
        if before is not None:
            before.cancel()
        self._calls[name] = self._clock.callLater(seconds, due)

    def cancel(self) -> None:
        """Have none called."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.cancel()
