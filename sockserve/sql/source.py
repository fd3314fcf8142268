"""
The source of rows: a table of a database as the reactor has it.

This room owns when the database is asked for rows, told of those served and waited for, on a thread
of its own.  It must not know handlers, nor which database it is. (reactor thread, but where a
method says otherwise)
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from sockserve.core.clock import clock_of
from sockserve.core.logs import Topic, logger
from sockserve.core.reactors import as_reactor
from sockserve.executors.threads import ThreadExecutor
from sockserve.interfaces import ConfigurationError
from sockserve.sql.backoff import Backoff
from sockserve.sql.ear import Ear, EarState
from sockserve.sql.ledger import Ledger
from sockserve.sql.named_calls import NamedCalls
from sockserve.sql.rows import Row
from sockserve.sql.settings import SourceSettings
from sockserve.sql.store import Claimed, Store, StoreAway, StoreBusy, StoreError, Turn
from sockserve.sql.url import store_and_settings

__all__ = ["Reach", "RowReceiver", "SQLSource", "SourceState"]

_log = logger(Topic.SERVICE)

#: How much longer than a sweep the time between two is, where they take long, as over a million
#: rows that an open transaction keeps: they have a hundredth of the time.
SWEEP_PAUSE = 100.0

#: The most seconds between two sweeps that take no time, while the database tells of new rows, or
#: there is nothing that a sweep alone finds.
SWEEP_SECONDS = 5.0

#: The least time between two lines of the log about a database that comes and goes.
SECONDS_BETWEEN_LINES = 60.0

#: How many notifications are kept for the next claim; more are as good as none, and lead to a look
#: through all of the table.
MOST_HINTS = 1000

#: How soon after this process has added rows the database is looked at, while nothing is there yet:
#: they come with a commit that nobody tells of.
COMMIT_SECONDS = 0.001


class RowReceiver(Protocol):
    """What serves a source's rows."""

    def wanted(self) -> int:
        """How many more rows can be taken now."""

    def rows_claimed(self, rows: list[Row]) -> None:
        """These rows are to be served."""


class SourceState(Enum):
    """What a source does."""

    CLOSED = auto()
    #: It claims rows.
    CLAIMING = auto()
    #: It claims none, but still tells the database of those that were.
    SUSPENDED = auto()
    #: It tells of the last ones, and closes.
    CLOSING = auto()


class Reach(Enum):
    """Whether a source's database is there."""

    THERE = auto()
    #: It was not, when last it was asked.
    AWAY = auto()
    #: It is being connected to anew.
    SOUGHT = auto()


class SQLSource:
    """
    A table that requests come from.  Give it to a L{sockserve.sql.SQLRequestService}.

    @cvar sweep_seconds: the most seconds between two sweeps that take no time.
    @ivar description: the table and its database, without a password.
    @ivar ledger: the rows that are claimed, and what has become of them.
    """

    sweep_seconds = SWEEP_SECONDS

    def __init__(self, reactor: IReactorTime, url: str, **settings: object) -> None:
        """
        @param url: C{sqlite:///PATH?table=NAME} or C{postgresql://...?table=NAME}.  What follows
            the table is as C{settings}.
        @param settings: as L{SourceSettings}.
        @raise ConfigurationError: the URL is none, or a setting cannot be.
        """
        self.store: Store
        self.settings: SourceSettings
        self.store, self.settings = store_and_settings(url, **settings)
        self.description = self.store.description
        self.reactor = as_reactor(reactor)
        self.clock: IReactorTime = clock_of(reactor)
        self.ledger = Ledger(self.settings.policy)
        self._receiver: RowReceiver | None = None
        self._thread = ThreadExecutor(self.reactor, 1)
        self._state = SourceState.CLOSED

        # For the next turn
        self._hints: list[str] = []
        #: Whether there may be rows that can be claimed now.
        self._may_have_rows = True
        #: When the table is to be swept, by the clock.
        self._sweep_at = 0.0

        # For the turn under way
        self._turn: Turn | None = None
        self._turn_began = 0.0

        # For the database
        self._reach = Reach.THERE
        #: Whether it has had a line in the log since it last did what it was asked for.
        self._has_line = False
        self._quiet_until = 0.0
        self._reopening = Backoff()
        self._ear: Ear | None = None
        self._calls = NamedCalls(self.clock)
        self._finished: Deferred[None] | None = None

    # For the service

    def open(self) -> None:
        """
        Connect.  It waits for the database, so call it before anything is served.

        @raise ConfigurationError: the database refuses, or has no such table.
        """
        try:
            self.store.open()
        except StoreError as error:
            raise ConfigurationError(f"source {self.description!r}: {error}", "source") from error

    def check(self) -> None:
        """L{open} it and close it again, to tell early what is wrong."""
        self.open()
        self.store.close()

    def start(self, receiver: RowReceiver) -> None:
        """Claim rows for C{receiver}, now that it is open."""
        self._receiver = receiver
        self._state = SourceState.CLAIMING
        self._reach = Reach.THERE
        self._finished = None
        self._may_have_rows = True
        self._sweep_at = 0.0
        self.store.watch(self._rows_added)
        self._ear = Ear(
            self.reactor,
            self._thread,
            self.store,
            self._told,
            began=self._hearing_began,
            lost=self._hearing_lost,
        )
        self._ear.open()
        self._calls.later("tend", self.settings.lease / 3.0, self._tend)
        self.pump()

    def suspend(self) -> None:
        """Claim no more rows."""
        if self._state is SourceState.CLAIMING:
            self._state = SourceState.SUSPENDED

    def resume(self) -> None:
        """Claim rows again."""
        if self._state is SourceState.SUSPENDED:
            self._state = SourceState.CLAIMING
            self._may_have_rows = True
            self.pump()

    def finish(self) -> Deferred[None]:
        """
        Tell the database of all that is left to tell, and close.

        @return: a Deferred that fires when that is done, or cannot be.
        """
        self._state = SourceState.CLOSING
        self._finished = Deferred()
        self._calls.cancel()
        if self._ear is not None:
            self._ear.close()
            self._ear = None
        finished = self._finished
        if self._reach is Reach.AWAY:  # a last try
            self._reopen()
        else:
            self.pump()
        return finished

    # For the server, too

    def pump(self) -> None:
        """Ask the database for what is wanted of it, unless it is busy with that or away."""
        if self._turn is not None or self._state is SourceState.CLOSED:
            return
        if self._reach is not Reach.THERE:
            return
        turn = self._next_turn()
        if turn is None:
            if self._state is SourceState.CLOSING:
                self._close()
            return
        self._turn = turn
        self._turn_began = self.clock.seconds()
        self._thread.call(self.store.turn, turn).addCallbacks(self._turned, self._turn_failed)

    def _next_turn(self) -> Turn | None:
        settings, now = self.settings, self.clock.seconds()
        if self.ledger.has_failed:
            self._may_have_rows = True  # to hear when they are due
        turn = Turn(settings.lease, max_attempts=settings.policy.attempts)
        if self._state is SourceState.CLAIMING and self._may_have_rows:
            assert self._receiver is not None
            turn.want = min(settings.batch, self._receiver.wanted())
        tells = self.ledger.take_into(turn, leased_before=now - settings.lease / 3.0)
        if turn.want:
            turn.hints, self._hints = self._hints, []
            turn.is_sweep = now >= self._sweep_at
            self._may_have_rows = False
        return turn if turn.want or tells else None

    def _turned(self, claimed: Claimed) -> None:
        """The database has done what it was asked for."""
        turn, self._turn = self._turn, None
        assert turn is not None
        assert self._receiver is not None
        self._reopening.reset()
        if not self._is_deaf():
            self._has_line = False
        began, now = self._turn_began, self.clock.seconds()
        self.ledger.turned(turn, claimed.rows, began)
        if turn.is_sweep:
            # Nothing else finds a row whose transaction is older than the last look, or which is
            # the first of its priority, while nobody tells of it.
            shortest = self.settings.poll if self._is_deaf() else self.sweep_seconds
            self._sweep_at = now + max(shortest, SWEEP_PAUSE * (now - began))
        if self._state is not SourceState.CLAIMING:
            for row in claimed.rows:
                self.ledger.released(row)
        else:
            if turn.want and len(claimed.rows) == turn.want:
                self._may_have_rows = True
            elif turn.want and not self._may_have_rows:
                self._wait_for_rows(claimed.due_in)
            self._receiver.rows_claimed(claimed.rows)
        self.pump()

    def _turn_failed(self, failure: Failure) -> None:
        """The database has not done it, or has gone before it could say so."""
        turn, self._turn = self._turn, None
        assert turn is not None
        self.ledger.turn_failed(turn)
        self._may_have_rows = True
        self._sweep_at = 0.0
        if failure.check(StoreBusy) and self._state is not SourceState.CLOSING:
            self._note(failure)
            self._calls.later("retry", self._reopening.next(), self.pump)
        else:
            self._gone(failure)

    # While there is no row

    def _wait_for_rows(self, due_in: float | None) -> None:
        """
        Wait until the database tells of rows, or until the next may be served.

        @param due_in: seconds until then; None: never.
        """
        seconds = max(0.0, self._sweep_at - self.clock.seconds())
        self._calls.later("look", seconds if due_in is None else min(seconds, due_in), self._look)
        if not self._is_told():
            self._calls.later("poll", self.settings.poll, self._poll)

    def _look(self) -> None:
        """Ask for rows: there may be new ones, or some may be due."""
        self._may_have_rows = True
        self.pump()

    def _poll(self) -> None:
        """Look whether there may be new rows, as nobody tells."""
        is_free = self._turn is None and self._reach is Reach.THERE
        if is_free and self._state is SourceState.CLAIMING:
            self._thread.call(self.store.has_changed).addCallbacks(self._polled, self._turned_away)

    def _polled(self, has_changed: bool) -> None:
        if self._state is not SourceState.CLAIMING:
            return
        if has_changed:
            self._look()
        elif self._turn is None and not self._is_told() and "poll" not in self._calls:
            self._calls.later("poll", self.settings.poll, self._poll)

    def _turned_away(self, failure: Failure) -> None:
        """The database could not be asked: a turn will show why."""
        self._look()

    def _rows_added(self) -> None:
        """This process has added rows, or is about to. (any thread)"""
        self.reactor.callFromThread(self._look_for_commit, COMMIT_SECONDS)

    def _look_for_commit(self, seconds: float) -> None:
        """Look soon, and less and less soon, for rows whose transaction is still open."""
        if self._state is not SourceState.CLAIMING or seconds > self.settings.poll:
            return
        self._poll()
        self._calls.later("commit", seconds, lambda: self._look_for_commit(2.0 * seconds))

    def _told(self, hints: list[str]) -> None:
        """The database has told of new rows."""
        self._hints += hints
        if len(self._hints) > MOST_HINTS:
            self._hints = [""]
        self._look()

    # The connection that listens

    def _is_told(self) -> bool:
        """Whether the database tells of new rows now."""
        return self._ear is not None and self._ear.state is EarState.LISTENING

    def _is_deaf(self) -> bool:
        """Whether it did, or was to, and does not."""
        return self._ear is not None and self._ear.state is EarState.DEAF

    def _hearing_began(self) -> None:
        """It tells from now on: look for what was added before."""
        self._sweep_at = 0.0
        self._look()

    def _hearing_lost(self, failure: Failure) -> None:
        """It does not, so that new rows are looked for now and then."""
        self._note(failure)
        self._sweep_at = 0.0
        self._look()

    # A database that has gone

    def _gone(self, failure: Failure) -> None:
        self._note(failure)
        if self._state is SourceState.CLOSING:
            self._close()
            return
        self._reach = Reach.AWAY
        self._calls.later("retry", self._reopening.next(), self._reopen)

    def _note(self, failure: Failure) -> None:
        """Log that the database does not do what it is asked: once for each time."""
        reason = failure.value
        if not isinstance(reason, StoreError):
            _log.failure("{source}: its database raised", failure, source=self.description)
        elif not self._has_line and self.clock.seconds() >= self._quiet_until:
            self._has_line = True
            self._quiet_until = self.clock.seconds() + SECONDS_BETWEEN_LINES
            _log.warn(
                "{source}: {away}{reason}; trying again",
                source=self.description,
                away="the database is away: " if isinstance(reason, StoreAway) else "",
                reason=reason,
            )

    def _reopen(self) -> None:
        def reopen() -> None:
            self.store.close()
            self.store.open()

        self._reach = Reach.SOUGHT
        self._thread.call(reopen).addCallbacks(self._reopened, self._gone)

    def _reopened(self, _: object) -> None:
        self._reach = Reach.THERE
        self.store.watch(self._rows_added)
        self.pump()

    # Time

    def _tend(self) -> None:
        """Extend the leases of rows that are held for long."""
        self._calls.later("tend", self.settings.lease / 3.0, self._tend)
        self.pump()

    # The end

    def _close(self) -> None:
        """Close: all is told, or cannot be."""
        if self._state is SourceState.CLOSED:
            return
        self._state = SourceState.CLOSED
        untold = self.ledger.close()
        if untold:
            _log.warn(
                "{source}: {count} rows were served and could not be removed; they will be served"
                " again",
                source=self.description,
                count=untold,
            )
        closed = self._thread.call(self.store.close)
        closed.addErrback(lambda _: None)
        closed.addCallback(lambda _: self._thread.stop())
        closed.addCallback(lambda _: self._tell_finished())

    def _tell_finished(self) -> None:
        finished, self._finished = self._finished, None
        if finished is not None:
            finished.callback(None)
