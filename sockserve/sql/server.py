"""
The server object of requests from a table.

This room owns what is special about a row as a request: its transaction, its traceback, and what
its handler's end means for it.  It must not know databases, or when they are asked. (reactor
thread, but where a method says otherwise)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from typing_extensions import override

from sockserve.core.handler_kinds import unwrap
from sockserve.core.lifecycle import make_and_run, make_and_run_coroutine, verify_and_process
from sockserve.core.statistics import RequestRecord
from sockserve.core.tracebacks import HandlerFailure
from sockserve.executors.fork import ForkExecutor
from sockserve.executors.threads import ThreadExecutor
from sockserve.interfaces import ConfigurationError, Outcome
from sockserve.listeners.single import BlockingRequest, SingleRequestServer
from sockserve.sql.awaitable import AwaitableConnection
from sockserve.sql.forked import ForkedRow
from sockserve.sql.rows import Row, RowState
from sockserve.sql.source import SQLSource

__all__ = ["SQLServer"]

#: How long rows are served before the reactor turns.  5 ms: nobody notices, and it holds hundreds
#: of rows whose handlers do little.
SLICE_SECONDS = 0.005

#: How many transactions there are at once.  10: each has a connection to the database, of which
#: servers have few (PostgreSQL 100).
TRANSACTIONS = 10


class SQLServer(SingleRequestServer):
    """
    The server object of rows.

    @cvar max_rows: the most rows that are under way at once, being served or waiting for a worker;
        None: any number.  100: each may cost a handler's connection somewhere.  For handlers
        with a transaction, L{TRANSACTIONS} unless something else is said.
    @ivar source: the table.
    @ivar has_transactions: whether each row is removed in a transaction of its handler's.
    """

    max_rows: int | None = 100

    def __init__(
        self, RequestHandlerClass: Callable[..., Any], *, source: SQLSource, **options: Any
    ) -> None:
        """
        @param source: the table.
        @param options: as L{RequestServer.__init__}.
        @raise ConfigurationError: the handler wants transactions, and runs in children.
        """
        super().__init__(RequestHandlerClass, reactor=source.reactor, **options)
        self.source = source
        self.server_address = source.description
        self.has_transactions = bool(getattr(unwrap(RequestHandlerClass), "transaction", False))
        if self.has_transactions and isinstance(self.concurrency, ForkExecutor):
            raise ConfigurationError(
                f"handler {self.handler_name}: its transaction is this process' and cannot go to a"
                " child; leave concurrency fork out"
            )
        is_given = "max_rows" in (options.get("limits") or ())
        if self.has_transactions and not is_given and type(self).max_rows is SQLServer.max_rows:
            self.max_rows = TRANSACTIONS
        #: For coroutines' transactions, which are on a thread each while a statement runs.
        self._transactions = ThreadExecutor(self.reactor)
        self._make_and_run = self._run_coroutine if self.kind.is_coroutine else self._run
        #: Rows that have been claimed and have no handler yet.
        self._waiting: deque[Row] = deque()
        #: How many have ended since rows last came.
        self._ended = 0
        #: How many may be claimed besides those for which there is a place: twice as many as have
        #: found one since the last came, so that quick handlers need not wait for the database,
        #: and slow ones keep no row from other processes.
        self._ahead = 0
        self._is_serving = False
        self._serve_call: IDelayedCall | None = None

    # Override points that differ from those of other requests

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        """Start serving the row; return without waiting for its end. (reactor thread)"""
        request.state = RowState.STARTED
        super().process_request(request, client_address)

    @override
    def make_blocking(self, request: Any, client_address: Any) -> BlockingRequest:
        """The job of a row whose handler blocks."""
        if isinstance(self.concurrency, ForkExecutor):
            return ForkedRow(self, request, client_address, self._seconds())
        return super().make_blocking(request, client_address)

    @override
    def close_request(self, request: Any) -> None:
        """Note that the row is done with. (handler's thread)"""
        if request.state is RowState.WAITING:
            request.state = RowState.CLOSED

    # What the service calls

    def begin(self) -> None:
        """Serve the source's rows, now that it is open."""
        self._start_idle_timeout()
        self.begin_watch()
        self.source.start(self)

    def suspend(self) -> None:
        """Claim no rows until L{resume}, and give back those that have no handler yet."""
        self.source.suspend()
        self._give_back()

    def resume(self) -> None:
        """Claim rows again."""
        self.source.resume()

    def finish(self) -> Deferred[None]:
        """
        Claim no further rows, give those that are served until the C{drain} deadline, and close
        the source.

        @return: a Deferred that fires when that is done.
        """
        self.suspend()
        return self.drain().addCallback(self._drained_now)

    def _drained_now(self, _: object) -> Deferred[None]:
        self._stop_idle_timeout()
        self.end_watch()
        return self.source.finish()

    @override
    def release(self) -> Deferred[Any]:
        released = super().release()
        return self._transactions.stop().addCallback(lambda _: released)

    # What the source calls

    def wanted(self) -> int:
        """How many more rows can be taken now."""
        most = self._most()
        if most is None:
            return max(0, self.source.settings.batch - len(self._waiting))
        return max(0, most - self.statistics.active - len(self._waiting) + self._ahead)

    def rows_claimed(self, rows: list[Row]) -> None:
        """Serve these rows, as soon as there are places."""
        self._ahead, self._ended = min(2 * self._ended, self.source.settings.batch), 0
        self._waiting += rows
        if self._waiting and self._serve_call is None and not self._is_serving:
            self._serve_call = self.reactor.callLater(0, self._serve_slice)

    def _most(self) -> int | None:
        if self.has_transactions and self.source.store.is_exclusive:
            return 1
        return self.max_rows

    def _serve_slice(self) -> None:
        """Serve rows for as long as nobody notices."""
        self._serve_call = None
        self._is_serving = True
        until = self._seconds() + SLICE_SECONDS
        most, statistics = self._most(), self.statistics
        try:
            while self._waiting and (most is None or statistics.active < most):
                self._serve_row(self._waiting.popleft())
                if self._waiting and self._seconds() >= until:
                    self._serve_call = self.reactor.callLater(0, self._serve_slice)
                    break
        finally:
            self._is_serving = False
        self.source.pump()

    def _serve_row(self, row: Row) -> None:
        self.request_accepted()
        client_address = f"{self.source.store.table}/{row.id}"
        if row.fault is not None:
            self._refuse(row, client_address, "malformed", row.fault)
            return
        was_verified = verify_and_process(self, row, client_address)
        if row.state is not RowState.CLOSED:
            return
        if was_verified is False:
            self._refuse(row, client_address, "verify", "verify_request has refused it")
        else:
            method = "process_request" if was_verified else "verify_request"
            self.source.ledger.failed(row, f"{method} raised; the log has its traceback")

    def _refuse(self, row: Row, client_address: str, reason: str, why: str) -> None:
        """Set a row aside that has had no handler."""
        self.count_refusal(reason)
        self.source.ledger.refused(row, why)
        if self.observers:
            record = RequestRecord(client_address, self.handler_name, outcome=f"refused: {reason}")
            record.reason = why
            self.observe(record)

    def _give_back(self) -> None:
        while self._waiting:
            self.source.ledger.released(self._waiting.pop())
        if self.concurrency is not None:
            for each in tuple(self.pending):
                if isinstance(each, BlockingRequest) and self.concurrency.withdraw(each):
                    self.pending.discard(each)
                    self.statistics.active -= 1
                    self.source.ledger.released(each.request)
        if self._serve_call is not None:
            self._serve_call.cancel()
            self._serve_call = None
        self.source.pump()

    @override
    def amounts(self, request: Any) -> tuple[int, int]:
        payload = request.payload
        return len(payload) if isinstance(payload, (str, bytes)) else 0, 0

    # A row's end

    @override
    def account(
        self, request: Any, client_address: Any, began: float, ended: Outcome, outcome: str
    ) -> None:
        """Account for a row whose handler is finished or abandoned."""
        statistics = self.statistics
        statistics.active -= 1
        self._ended += 1
        # A thread that ends itself (SystemExit) has an outcome, and its row none.
        if request.failure is not None and ended is Outcome.OK:
            ended = outcome = Outcome.ERROR
        seconds = self._seconds() - began
        statistics.count_handled(ended is Outcome.ERROR, seconds)
        received, _ = self.amounts(request)
        statistics.received += received
        if ended is Outcome.OK:
            self.source.ledger.served(request)
        else:
            self.source.ledger.failed(request, request.failure or f"no traceback: {outcome}")
        if self.observers:
            self.observe(
                RequestRecord(
                    client_address, self.handler_name, {"handle": seconds}, received, 0, outcome
                )
            )
        if self._drained is not None:
            self._check_drained()
        if not self._is_serving:
            if self._waiting and self._serve_call is None:
                self._serve_call = self.reactor.callLater(0, self._serve_slice)
            elif not self._waiting:
                self.source.pump()

    # A row's handler

    def _run(
        self, make: Callable[..., Any], row: Any, client_address: object, server: object
    ) -> None:
        """L{make_and_run} for a row. (handler's thread)"""
        try:
            if self.has_transactions:
                with self.source.store.transaction(row) as connection:
                    row.connection = connection
                    make_and_run(make, row, client_address, server)
                row.is_removed = True
            else:
                make_and_run(make, row, client_address, server)
        except BaseException:
            row.failure = HandlerFailure().getTraceback()
            raise

    async def _run_coroutine(
        self, make: Callable[..., Any], row: Any, client_address: object, server: object
    ) -> None:
        """L{make_and_run_coroutine} for a row."""
        try:
            if self.has_transactions:
                await self._run_in_transaction(make, row, client_address, server)
            else:
                await make_and_run_coroutine(make, row, client_address, server)
        except BaseException:
            row.failure = HandlerFailure().getTraceback()
            raise

    async def _run_in_transaction(
        self, make: Callable[..., Any], row: Any, client_address: object, server: object
    ) -> None:
        call = self._transactions.call
        transaction = self.source.store.transaction(row)
        connection = await call(transaction.__enter__)
        row.connection = AwaitableConnection(self._transactions, connection)
        try:
            await make_and_run_coroutine(make, row, client_address, server)
        except BaseException as error:
            rolled_back = call(transaction.__exit__, type(error), error, error.__traceback__)
            rolled_back.addErrback(lambda _: None)
            if isinstance(error, Exception):  # a coroutine that is given up cannot wait
                await rolled_back
            raise
        await call(transaction.__exit__, None, None, None)
        row.is_removed = True
