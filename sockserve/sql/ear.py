"""
The ear: a database's notifications, as the reactor hears them.

This room owns the watching of the connection that listens.  It must not know what is told, nor what
a loss of it leads to. (reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.sql.store import StoreError, Subscription

__all__ = ["Ear"]


@implementer(IReadDescriptor)
class Ear:
    """A connection that listens, watched by the reactor until it is lost or closed."""

    def __init__(
        self,
        reactor: IReactorFDSet,
        subscription: Subscription,
        told: Callable[[list[str]], None],
        lost: Callable[[Failure], None],
    ) -> None:
        """
        @param told: called with the texts of notifications.
        @param lost: called once, when there will be no further ones.
        """
        self._reactor = reactor
        self._subscription: Subscription | None = subscription
        self._descriptor = subscription.fileno()
        self._told = told
        self._lost = lost
        reactor.addReader(self)

    def fileno(self) -> int:
        """The connection's descriptor."""
        return self._descriptor

    def logPrefix(self) -> str:
        """The name under which the reactor logs what goes wrong here."""
        return "notifications"

    def doRead(self) -> None:
        """Read what has come."""
        assert self._subscription is not None
        try:
            hints = self._subscription.take()
        except StoreError:
            failure = Failure()
            self.close()
            self._lost(failure)
            return
        if hints:
            self._told(hints)

    def connectionLost(self, reason: Failure) -> None:
        """Close: the reactor ends, or the descriptor has."""
        if self._subscription is not None:
            self.close()
            self._lost(Failure(StoreError("the connection that listens was lost")))

    def close(self) -> None:
        """Watch it no more, and close it."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._reactor.removeReader(self)
            subscription.close()
