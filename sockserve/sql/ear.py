"""
The ear: a database's notifications, as the reactor hears them.

This room owns the connection that listens: when it is made, watched and made again.  It must not
know what is told, nor what is asked of the database meanwhile. (reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from twisted.internet.interfaces import IDelayedCall, IReactorTime, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.core.clock import clock_of
from sockserve.core.reactors import IReactor
from sockserve.executors.threads import ThreadExecutor
from sockserve.sql.backoff import Backoff
from sockserve.sql.store import Store, StoreAway, StoreError, Subscription

__all__ = ["Ear", "EarState"]


class EarState(Enum):
    """Whether a database's notifications are heard."""

    #: They are not yet; of a database that tells nobody, they never are.
    OPENING = auto()
    LISTENING = auto()
    #: The connection was lost, or could not be made, and the next is tried for.
    DEAF = auto()
    CLOSED = auto()


@implementer(IReadDescriptor)
class Ear:
    """
    A connection on which a database tells of new rows, and the next one when it is lost.

    @ivar state: whether they are heard.
    """

    def __init__(
        self,
        reactor: IReactor,
        thread: ThreadExecutor,
        store: Store,
        told: Callable[[list[str]], None],
        began: Callable[[], None],
        lost: Callable[[Failure], None],
    ) -> None:
        """
        @param thread: where the connection is made.
        @param told: called with the texts of notifications.
        @param began: called when there is a connection, which tells nothing of the time before.
        @param lost: called when there is none any more, or none to be had.
        """
        self._reactor = reactor
        self._clock: IReactorTime = clock_of(reactor)
        self._thread = thread
        self._store = store
        self._told = told
        self._began = began
        self._lost = lost
        self._backoff = Backoff()
        self._subscription: Subscription | None = None
        self._retry: IDelayedCall | None = None
        self.state = EarState.OPENING

    def open(self) -> None:
        """Listen."""
        self._retry = None
        self._thread.call(self._store.subscribe).addCallbacks(self._subscribed, self._failed)

    def close(self) -> None:
        """Listen no more."""
        self.state = EarState.CLOSED
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._drop()

    def _subscribed(self, subscription: Subscription | None) -> None:
        if subscription is None:
            return
        if self.state is EarState.CLOSED:
            subscription.close()
            return
        self._backoff.reset()
        self.state = EarState.LISTENING
        self._subscription = subscription
        self._reactor.addReader(self)
        self._began()

    def _failed(self, failure: Failure) -> None:
        if self.state is EarState.CLOSED:
            return
        self.state = EarState.DEAF
        self._retry = self._clock.callLater(self._backoff.next(), self.open)
        self._lost(failure)

    def _drop(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._reactor.removeReader(self)
            subscription.close()

    # What the reactor calls

    def fileno(self) -> int:
        """The connection's descriptor."""
        return -1 if self._subscription is None else self._subscription.fileno()

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
            self._drop()
            self._failed(failure)
            return
        if hints:
            self._told(hints)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, or has lost the descriptor."""
        self._drop()
        self._failed(Failure(StoreAway("the connection that listens was lost")))
