"""
The ledger: the rows that a source has claimed, and what the database is to be told of them.

This room owns which rows are held, and what has become of the others.  It must not know when the
database is told, nor which one it is. (reactor thread)
"""

from __future__ import annotations

from sockserve.sql.rows import FailedRow, Row, RowState
from sockserve.sql.settings import RetryPolicy
from sockserve.sql.store import Turn

__all__ = ["Ledger"]


class Ledger:
    """The rows of one source."""

    def __init__(self, policy: RetryPolicy) -> None:
        """
        @param policy: when a row that has failed is tried again.
        """
        self._policy = policy
        #: Those that are claimed and not settled, by id.
        self._held: dict[int, Row] = {}
        # For the next turn
        self._served: list[int] = []
        self._failed: list[FailedRow] = []
        self._released: list[Row] = []

    @property
    def has_failed(self) -> bool:
        """Whether rows are to be told of that have failed, and so may be due again."""
        return bool(self._failed)

    # For the server

    def served(self, row: Row) -> None:
        """A row has been served: remove it, if its own transaction has not."""
        if self._settle(row) and not row.is_removed:
            self._served.append(row.id)

    def failed(self, row: Row, failure: str) -> None:
        """A row has failed: have it tried again, or set aside when that was often enough."""
        self._fail(row, failure, self._policy.delay(row.attempts))

    def refused(self, row: Row, why: str) -> None:
        """A row cannot be served: set it aside."""
        self._fail(row, why, None)

    def released(self, row: Row) -> None:
        """A row will not be served here: give it back."""
        if self._settle(row):
            self._released.append(row)

    def _fail(self, row: Row, failure: str, delay: float | None) -> None:
        if self._settle(row):
            # A name of a file, say, may have what is no text to a database.
            text = failure.encode(errors="backslashreplace").decode()
            self._failed.append(FailedRow(row.id, row.attempts, delay, text))

    def _settle(self, row: Row) -> bool:
        """
        Note that a row's request has ended.

        @return: false if it had ended before.
        """
        if row.state is RowState.SETTLED:
            return False
        row.state = RowState.SETTLED
        self._held.pop(row.id, None)
        return True

    # For the source

    def take_into(self, turn: Turn, leased_before: float) -> bool:
        """
        Have a turn tell all that there is to tell.

        @param leased_before: whose lease began until then is to have it extended.
        @return: false if there is nothing to tell.
        """
        turn.served, self._served = self._served, []
        turn.failed, self._failed = self._failed, []
        turn.released, self._released = self._released, []
        turn.held = [row for row in self._held.values() if row.leased_at <= leased_before]
        return bool(turn.served or turn.failed or turn.released or turn.held)

    def turned(self, turn: Turn, claimed: list[Row], began: float) -> None:
        """
        The database has been told, and has given rows.

        @param began: when the leases began that it gave or extended, by the source's clock.
        """
        for row in (*claimed, *turn.held):
            row.leased_at = began
        self._held.update((row.id, row) for row in claimed)

    def turn_failed(self, turn: Turn) -> None:
        """
        The database has not been told, or has gone before it could say so: tell it again.  Nothing
        of it changes a row twice.
        """
        self._served[:0] = turn.served
        self._failed[:0] = turn.failed
        self._released[:0] = turn.released

    def close(self) -> int:
        """
        Forget all.

        @return: how many rows were served of which the database has not been told.
        """
        untold = len(self._served)
        self._served, self._failed, self._released = [], [], []
        self._held.clear()
        return untold
