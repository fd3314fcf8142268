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
from sockserve.sql.ear import Ear
from sockserve.sql.named_calls import NamedCalls
from sockserve.sql.rows import FailedRow, RetryPolicy, Row, RowState
from sockserve.sql.store import Claimed, Store, StoreError, Turn
from sockserve.sql.url import SourceSettings, store_and_settings

__all__ = ["Reach", "RowReceiver", "SQLSource", "SourceState"]

_log = logger(Topic.SERVICE)

#: The share of the time that sweeps may take of the database, where they take long: a fiftieth.
SWEEP_PAUSE = 50.0

#: The most seconds between two sweeps that take no time.
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

    @ivar description: the table and its database, without a password.
    @ivar held: the rows that are claimed, and of which the database has not been told more, by id.
    """

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
        self.held: dict[int, Row] = {}
        self._receiver: RowReceiver | None = None
        self._thread = ThreadExecutor(self.reactor, 1)
        self._policy: RetryPolicy = self.settings.policy
        self._state = SourceState.CLOSED

        # For the next turn
        self._served: list[int] = []
        self._failed: list[FailedRow] = []
        self._released: list[Row] = []
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
        #: Whether its going, or a loss of the connection that listens, has had its line in the log.
        self._is_told_away = False
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
            raise ConfigurationError(f"source {self.description!r}: {error}") from error

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
            self.reactor, self._thread, self.store, self._told, self._listening, self._deaf
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

    # For the server

    def served(self, row: Row) -> None:
        """A row has been served: remove it, if its own transaction has not."""
        if self._settle(row) and not row.is_removed:
            self._served.append(row.id)

    def failed(self, row: Row, failure: str, is_final: bool = False) -> None:
        """
        A row has failed: have it tried again, or set it aside.

        @param is_final: whether it is set aside at once.
        """
        if self._settle(row):
            delay = None if is_final else self._policy.delay(row.attempts)
            # A name of a file, say, may have what is no text to a database.
            failure = failure.encode(errors="backslashreplace").decode()
            self._failed.append(FailedRow(row.id, row.attempts, delay, failure))
            self._may_have_rows = True  # to hear when it is due

    def release(self, row: Row) -> None:
        """A row will not be served here: give it back."""
        if self._settle(row):
            self._released.append(row)

    def _settle(self, row: Row) -> bool:
        """Note that a row's request has ended; whether it had not before."""
        if row.state is RowState.SETTLED:
            return False
        row.state = RowState.SETTLED
        self.held.pop(row.id, None)
        return True

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
        want = 0
        if self._state is SourceState.CLAIMING and self._may_have_rows:
            assert self._receiver is not None
            want = min(settings.batch, self._receiver.wanted())
        since = now - settings.lease / 3.0
        held = [row for row in self.held.values() if row.leased_at <= since]
        if not (want or self._served or self._failed or self._released or held):
            return None
        turn = Turn(settings.lease, want, max_attempts=self._policy.attempts)
        turn.served, self._served = self._served, []
        turn.failed, self._failed = self._failed, []
        turn.released, self._released = self._released, []
        turn.held = held
        if want:
            turn.hints, self._hints = self._hints, []
            turn.is_sweep = now >= self._sweep_at
            self._may_have_rows = False
        return turn

    def _turned(self, claimed: Claimed) -> None:
        """The database has done what it was asked for."""
        turn, self._turn = self._turn, None
        assert turn is not None
        assert self._receiver is not None
        self._reopening.reset()
        if self._ear is None or not self._ear.is_deaf:
            self._is_told_away = False
        began, now = self._turn_began, self.clock.seconds()
        for row in (*claimed.rows, *turn.held):
            row.leased_at = began
        self.held.update((row.id, row) for row in claimed.rows)
        if turn.is_sweep:
            self._sweep_at = now + max(SWEEP_SECONDS, SWEEP_PAUSE * (now - began))
        if turn.want:
            if len(claimed.rows) == turn.want:
                self._may_have_rows = True
            elif not self._may_have_rows:
                self._wait_for_rows(claimed.due_in)
        if self._state is SourceState.CLAIMING:
            self._receiver.rows_claimed(claimed.rows)
        else:
            for row in claimed.rows:
                self.release(row)
        self.pump()

    def _turn_failed(self, failure: Failure) -> None:
        """The database has not done it, or has gone before it could say so."""
        turn, self._turn = self._turn, None
        assert turn is not None
        # What was done is done again: nothing of it changes a row twice.
        self._served[:0] = turn.served
        self._failed[:0] = turn.failed
        self._released[:0] = turn.released
        self._may_have_rows = True
        self._sweep_at = 0.0
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
        return self._ear is not None and self._ear.is_listening

    def _listening(self) -> None:
        """It does from now on: look for what was added before."""
        self._sweep_at = 0.0
        self._look()

    def _deaf(self, failure: Failure) -> None:
        """It does not, so that new rows are looked for now and then."""
        self._note(failure)
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
        """Log that the database, or the connection that listens, has gone: once for each time."""
        reason = failure.value
        if not isinstance(reason, StoreError):
            _log.failure("{source}: its database raised", failure, source=self.description)
        elif not self._is_told_away and self.clock.seconds() >= self._quiet_until:
            self._is_told_away = True
            self._quiet_until = self.clock.seconds() + SECONDS_BETWEEN_LINES
            _log.warn(
                "{source}: the database is away: {reason}; trying again",
                source=self.description,
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
        left = len(self._served)
        if left:
            _log.warn(
                "{source}: {count} rows were served and could not be removed; they will be served"
                " again",
                source=self.description,
                count=left,
            )
        self._served, self._failed, self._released = [], [], []
        self.held.clear()
        closed = self._thread.call(self.store.close)
        closed.addErrback(lambda _: None)
        closed.addCallback(lambda _: self._thread.stop())
        closed.addCallback(lambda _: self._tell_finished())

    def _tell_finished(self) -> None:
        finished, self._finished = self._finished, None
        if finished is not None:
            finished.callback(None)
