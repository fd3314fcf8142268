"""The rows of a table, served: by coroutines and on threads, with all that may come in between."""

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher

import sockserve.sql.sqlite
from sockserve import BaseRequestHandler, ConfigurationError, Deadlines
from sockserve.server import make_executor
from sockserve.sql import (
    RetryPolicy,
    SQLRequestHandler,
    SQLRequestService,
    SQLServer,
    SQLSource,
    StoreBusy,
    StoreError,
    dead_rows,
    enqueue,
    schema,
)
from sockserve.sql.backoff import Backoff
from sockserve.sql.sqlite import SQLiteStore
from tests.patience import PATIENCE_SECONDS
from tests.postgresql import Cluster, running_cluster
from tests.sql.conftest import Table

pytestmark = pytest.mark.usefixtures("no_leaks")


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        await deferLater(reactor, 0.005)


@asynccontextmanager
async def serving(
    table: Table, handler: Any, settings: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[SQLRequestService]:
    source = SQLSource(reactor, table.url, **(settings or {}))
    service = SQLRequestService(source, handler, **options)
    service.startService()
    try:
        yield service
    finally:
        await service.stopService()


class Noted(BaseRequestHandler):
    """Notes what it is given; a subclass has a list of its own."""

    seen: ClassVar[list[Any]]

    def __init_subclass__(cls) -> None:
        cls.seen = []


class Coroutine(Noted):
    async def handle(self) -> None:
        self.seen.append(self.request.payload)


class Blocking(Noted):
    def handle(self) -> None:
        self.seen.append(self.request.payload)


@pytest.fixture(params=[Coroutine, Blocking])
def handler(request: pytest.FixtureRequest) -> Any:
    return type("Handler", (request.param,), {})


async def test_rows_are_served_and_gone(table: Table, handler: Any) -> None:
    for number in range(250):
        table.execute("INSERT INTO jobs (payload) VALUES (?)", str(number))
    async with serving(table, handler) as service:
        await until(lambda: len(handler.seen) == 250)
    assert sorted(handler.seen, key=int) == [str(number) for number in range(250)]
    assert table.count() == 0
    assert service.server.statistics.requests == 250
    assert service.server.statistics.active == 0


@pytest.fixture
def seldom_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is served within a test has not waited for a sweep."""
    monkeypatch.setattr(SQLSource, "sweep_seconds", 2 * PATIENCE_SECONDS)


@pytest.mark.usefixtures("seldom_swept")
async def test_a_row_that_is_added_is_served_at_once(table: Table, handler: Any) -> None:
    async with serving(table, handler):
        for number in range(5):
            await deferLater(reactor, 0.02)
            enqueue(table.connection, str(number), table=table.name)
            await until(lambda number=number: len(handler.seen) > number)


@pytest.mark.usefixtures("seldom_swept")
async def test_a_row_of_an_open_transaction_is_served_when_that_is_committed(
    table: Table, handler: Any
) -> None:
    async with serving(table, handler):
        connection = table.connect()
        enqueue(connection, "early", table=table.name)
        if not table.is_sqlite:  # where there is one transaction at a time
            enqueue(table.connection, "late", table=table.name)
            await until(lambda: handler.seen == ["late"])
        await deferLater(reactor, 0.05)
        assert "early" not in handler.seen
        connection.commit()
        await until(lambda: "early" in handler.seen)
        connection.close()


@pytest.mark.usefixtures("seldom_swept")
async def test_a_delayed_row_is_served_when_it_is_due(table: Table, handler: Any) -> None:
    async with serving(table, handler):
        began = time.monotonic()
        enqueue(table.connection, "later", table=table.name, delay=0.3)
        await until(lambda: handler.seen)
        assert time.monotonic() - began > 0.2


@pytest.mark.parametrize("concurrency", [None, "threads", "fork"])
async def test_a_failure_is_tried_again_and_then_set_aside_with_its_traceback(
    table: Table, concurrency: str | None
) -> None:
    if concurrency is None:

        class Handler(BaseRequestHandler):
            async def handle(self) -> None:
                raise ZeroDivisionError(f"attempt {self.request.attempts}")

        options = {}
    else:

        class Handler(BaseRequestHandler):  # type: ignore[no-redef]
            def handle(self) -> None:
                raise ZeroDivisionError(f"attempt {self.request.attempts}")

        options = {"concurrency": make_executor(reactor, concurrency)}
    enqueue(table.connection, "x", table=table.name)
    policy = RetryPolicy(attempts=3, first=0.02)
    async with serving(table, Handler, {"policy": policy}, **options) as service:
        await until(lambda: dead_rows(table.connection, table=table.name))
    (dead,) = dead_rows(table.connection, table=table.name)
    assert dead.attempts == 3
    assert "ZeroDivisionError: attempt 3" in dead.failure
    first, place, *_ = dead.failure.splitlines()
    assert first == "Traceback (most recent call last):"
    assert __file__ in place  # and not what is sockserve's
    assert service.server.statistics.errors == 3


async def test_a_failure_that_is_no_text_is_set_aside_and_the_others_are_served(
    table: Table,
) -> None:
    class Handler(BaseRequestHandler):
        async def handle(self) -> None:
            if self.request.payload == "bad":
                raise FileNotFoundError("a name of a file: \udcff, \0")

    for payload in ("bad", "good"):
        enqueue(table.connection, payload, table=table.name)
    async with serving(table, Handler, {"policy": RetryPolicy(attempts=1)}):
        await until(lambda: dead_rows(table.connection, table=table.name))
        await until(lambda: table.count() == 1)
    (dead,) = dead_rows(table.connection, table=table.name)
    assert r"a name of a file: \udcff, " in dead.failure


async def test_a_thread_that_ends_itself_has_not_served_its_row(table: Table) -> None:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            raise SystemExit

    enqueue(table.connection, "x", table=table.name)
    async with serving(table, Handler, {"policy": RetryPolicy(attempts=1)}):
        await until(lambda: dead_rows(table.connection, table=table.name))


async def test_verify_request_refuses_a_row_for_good(table: Table, handler: Any) -> None:
    class Server(SQLServer):
        def verify_request(self, request: Any, client_address: Any) -> bool:
            return bool(request.payload != "bad")

    for payload in ("bad", "good"):
        enqueue(table.connection, payload, table=table.name)
    async with serving(table, handler, factory=Server) as service:
        await until(lambda: table.count() == 1)
    assert handler.seen == ["good"]
    (dead,) = dead_rows(table.connection, table=table.name)
    assert dead.payload == "bad"
    assert service.server.statistics.refused["verify"] == 1


async def test_process_request_that_raises_has_the_row_tried_again(table: Table) -> None:
    class Server(SQLServer):
        def process_request(self, request: Any, client_address: Any) -> None:
            if request.attempts == 1:
                raise ZeroDivisionError
            super().process_request(request, client_address)

    class Handler(Coroutine):
        pass

    enqueue(table.connection, "x", table=table.name)
    policy = RetryPolicy(first=0.01)
    async with serving(table, Handler, {"policy": policy}, factory=Server):
        await until(lambda: Handler.seen == ["x"])


async def test_no_more_rows_are_under_way_than_max_rows(table: Table) -> None:
    class Handler(BaseRequestHandler):
        waiting: ClassVar[list[Deferred[None]]] = []
        most = 0

        async def handle(self) -> None:
            until_told: Deferred[None] = Deferred()
            self.waiting.append(until_told)
            type(self).most = max(self.most, len(self.waiting))
            await until_told

    for _ in range(30):
        enqueue(table.connection, "x", table=table.name)
    async with serving(table, Handler, limits={"max_rows": 7}):
        while table.count():
            await until(lambda: Handler.waiting or not table.count())
            await deferLater(reactor, 0.01)
            for each in Handler.waiting[:2]:
                Handler.waiting.remove(each)
                each.callback(None)
        assert Handler.most == 7


async def test_suspended_it_takes_no_rows_and_keeps_none_from_others(
    table: Table, handler: Any
) -> None:
    async with serving(table, handler) as service:
        service.suspend()
        enqueue(table.connection, "x", table=table.name)
        await deferLater(reactor, 0.2)
        assert handler.seen == []
        service.resume()
        await until(lambda: handler.seen == ["x"])


async def test_a_stop_waits_for_handlers_and_gives_back_the_other_rows(table: Table) -> None:
    class Handler(BaseRequestHandler):
        go: Deferred[None] = Deferred()
        begun: ClassVar[list[Any]] = []

        async def handle(self) -> None:
            self.begun.append(self.request.payload)
            await self.go

    for payload in "abcdefgh":
        enqueue(table.connection, payload, table=table.name)
    async with serving(table, Handler, limits={"max_rows": 1}) as service:
        await until(lambda: Handler.begun)
        stopped = service.stopService()
        await deferLater(reactor, 0.1)
        assert not stopped.called
        Handler.go.callback(None)
        await stopped
    assert Handler.begun == ["a"]
    left = table.execute("SELECT payload, attempts, leased_until FROM jobs ORDER BY id")
    assert left == [(payload, 0, None) for payload in "bcdefgh"]


@pytest.mark.parametrize("concurrency", ["threads", "fork"])
async def test_a_stop_gives_back_rows_that_wait_for_a_worker(
    table: Table, concurrency: str, tmp_path: Path
) -> None:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            while not may_end.exists():
                time.sleep(0.01)

    may_end = tmp_path / "may end"
    for payload in "abcde":
        enqueue(table.connection, payload, table=table.name)
    executor = make_executor(reactor, concurrency, threads=1, max_children=1)
    settings = {"policy": RetryPolicy(attempts=1)}
    async with serving(table, Handler, settings, concurrency=executor) as service:
        await until(lambda: len(service.requests()) == 5)
        stages = [request.stage for request in service.requests()]
        assert sorted(stages) == ["handle", *["queue"] * 4]
        stopped = service.stopService()
        may_end.touch()
        await stopped
        assert service.server.statistics.active == 0
    left = table.execute("SELECT payload, attempts, leased_until, dead_at FROM jobs ORDER BY id")
    assert left == [(payload, 0, None, None) for payload in "bcde"]


async def test_what_does_not_end_in_time_is_tried_again(table: Table) -> None:
    class Handler(BaseRequestHandler):
        async def handle(self) -> None:
            await Deferred()

    enqueue(table.connection, "x", table=table.name)
    deadlines = Deadlines(handle=0.05)
    policy = RetryPolicy(attempts=1)
    async with serving(table, Handler, {"policy": policy}, deadlines=deadlines):
        await until(lambda: dead_rows(table.connection, table=table.name))
    (dead,) = dead_rows(table.connection, table=table.name)
    assert "handle deadline" in dead.failure


async def test_the_lease_of_a_long_handler_is_extended(table: Table) -> None:
    """A second source looks for expired leases all the while, and is never given the row."""

    class Handler(BaseRequestHandler):
        begun: ClassVar[list[Any]] = []

        async def handle(self) -> None:
            self.begun.append(self.request.attempts)
            await may_end

    may_end: Deferred[None] = Deferred()
    settings = {"lease": 3.0}
    enqueue(table.connection, "x", table=table.name)
    async with serving(table, Handler, settings):
        await until(lambda: Handler.begun)
        expires = time.monotonic() + 3.0
        async with serving(table, Handler, settings) as other:
            while time.monotonic() < expires + 0.5:
                other.source._sweep_at = 0.0
                other.source._look()
                await deferLater(reactor, 0.05)
            may_end.callback(None)
            await until(lambda: not table.count())
    assert Handler.begun == [1]


@pytest.mark.parametrize("kind", ["coroutine", "blocking"])
async def test_a_handlers_work_and_the_rows_removal_are_one_transaction(
    table: Table, kind: str
) -> None:
    done = f"done{table.name.removeprefix('jobs')}"
    table.execute(f"CREATE TABLE {done} (payload text)")

    if kind == "coroutine":

        class Handler(SQLRequestHandler):
            transaction = True

            async def handle(self) -> None:
                await self.connection.execute(f"INSERT INTO {done} SELECT '{self.request.payload}'")
                if self.request.payload == "bad":
                    raise ZeroDivisionError
    else:

        class Handler(SQLRequestHandler):  # type: ignore[no-redef]
            transaction = True

            def handle(self) -> None:
                self.connection.execute(f"INSERT INTO {done} SELECT '{self.request.payload}'")
                if self.request.payload == "bad":
                    raise ZeroDivisionError

    for payload in ("good", "bad", "fine"):
        enqueue(table.connection, payload, table=table.name)
    async with serving(table, Handler, {"policy": RetryPolicy(attempts=2, first=0.01)}):
        await until(lambda: dead_rows(table.connection, table=table.name))
        await until(lambda: table.count() == 1)
    effects = table.execute(f"SELECT payload FROM {done} ORDER BY payload")
    assert effects == [("fine",), ("good",)]


@pytest.mark.parametrize("kind", ["coroutine", "blocking"])
async def test_a_statement_whose_failure_is_passed_over_undoes_the_transaction(
    postgresql_table: Table, kind: str
) -> None:
    table = postgresql_table

    if kind == "coroutine":

        class Handler(SQLRequestHandler):
            transaction = True

            async def handle(self) -> None:
                with suppress(Exception):
                    await self.connection.execute("SELECT nothing")
    else:

        class Handler(SQLRequestHandler):  # type: ignore[no-redef]
            transaction = True

            def handle(self) -> None:
                with suppress(Exception):
                    self.connection.execute("SELECT nothing")

    enqueue(table.connection, "x", table=table.name)
    async with serving(table, Handler, {"policy": RetryPolicy(attempts=1)}) as service:
        await until(lambda: dead_rows(table.connection, table=table.name))
    (dead,) = dead_rows(table.connection, table=table.name)
    assert "a statement of its transaction failed" in dead.failure
    assert service.server.statistics.errors == 1


def test_a_transaction_does_not_go_to_a_child(sqlite_table: Table) -> None:
    class Handler(SQLRequestHandler):
        transaction = True

        def handle(self) -> None:
            pass

    source = SQLSource(reactor, sqlite_table.url)
    with pytest.raises(ConfigurationError, match="fork"):
        SQLRequestService(source, Handler, concurrency=make_executor(reactor, "fork"))


async def test_text_that_is_none_is_set_aside_and_the_others_are_served(
    sqlite_table: Table, handler: Any
) -> None:
    sqlite_table.execute("INSERT INTO jobs (payload) VALUES ('a'), (CAST(x'ff' AS text)), ('b')")
    async with serving(sqlite_table, handler) as service:
        await until(lambda: sqlite_table.count() == 1)
    assert sorted(handler.seen) == ["a", "b"]
    assert service.server.statistics.refused["malformed"] == 1
    failures = sqlite_table.execute("SELECT failure FROM jobs WHERE dead_at IS NOT NULL")
    assert failures == [("its text is not UTF-8",)]
    (dead,) = dead_rows(sqlite_table.connection)
    assert dead.payload == r"\xff"


@pytest.mark.usefixtures("seldom_swept")
async def test_rows_of_another_process_in_sqlite_are_noticed(
    sqlite_table: Table, handler: Any
) -> None:
    """A connection that no C{enqueue} is called with stands for another process."""
    async with serving(sqlite_table, handler):
        await deferLater(reactor, 0.1)
        sqlite_table.execute("INSERT INTO jobs (payload) VALUES ('x')")
        await until(lambda: handler.seen == ["x"])


async def test_the_reactor_turns_while_the_database_is_locked(
    sqlite_table: Table, handler: Any
) -> None:
    async with serving(sqlite_table, handler):
        connection = sqlite_table.connect()
        connection.execute("INSERT INTO jobs (payload) VALUES ('x')")
        longest, before = 0.0, time.monotonic()
        for _ in range(40):
            await deferLater(reactor, 0.005)
            longest = max(longest, time.monotonic() - before)
            before = time.monotonic()
        connection.commit()
        connection.close()
        await until(lambda: handler.seen == ["x"])
    assert longest < SQLiteStore.busy_seconds / 3


def test_a_missing_table_is_told_at_the_start(table: Table) -> None:
    url = table.url.replace(f"table={table.name}", "table=nothing")
    service = SQLRequestService(SQLSource(reactor, url), Blocking)
    with pytest.raises(ConfigurationError, match=r"source .*nothing") as caught:
        service.privilegedStartService()
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    url = f"postgresql://me:secret@/db?host={tmp_path}&table=jobs"
    service = SQLRequestService(SQLSource(reactor, url), Blocking)
    with pytest.raises(ConfigurationError) as caught:
        service.privilegedStartService()
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    logged: list[str] = []

    def observe(event: Any) -> None:
        text = formatEvent(event)
        # (A machine may keep the reactor from its turns.)
        if event.get("log_namespace") == "sockserve" and "has not turned" not in text:
            logged.append(text)

    globalLogPublisher.addObserver(observe)
    yield logged
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


async def test_a_database_that_goes_away_and_comes_back_loses_nothing(
    own_cluster: Cluster, lines: list[str]
) -> None:
    import psycopg

    with psycopg.connect(own_cluster.url, autocommit=True) as connection:
        connection.execute(schema("postgresql"))
        connection.execute("INSERT INTO jobs (payload) SELECT i FROM generate_series(1, 300) i")

    class Handler(BaseRequestHandler):
        seen: ClassVar[list[str]] = []

        async def handle(self) -> None:
            self.seen.append(self.request.payload)
            await deferLater(reactor, 0.1)

    table = Table(f"{own_cluster.url}&table=jobs", "jobs", None)
    async with serving(table, Handler, {"lease": 2.0}, limits={"max_rows": 20}):
        await until(lambda: len(Handler.seen) >= 40)
        await deferToThread(own_cluster.stop)
        await deferLater(reactor, 1.0)
        await deferToThread(own_cluster.start)
        await until(lambda: len(set(Handler.seen)) == 300)
        with psycopg.connect(own_cluster.url, autocommit=True) as connection:
            connection.execute("INSERT INTO jobs (payload) VALUES ('after')")
        await until(lambda: "after" in Handler.seen)
    with psycopg.connect(own_cluster.url, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    assert len(lines) == 1
    assert "the database is away: " in lines[0]


async def test_a_stop_while_the_database_is_away_has_an_end(own_cluster: Cluster) -> None:
    """What was served and could not be told is served again."""
    import psycopg

    with psycopg.connect(own_cluster.url, autocommit=True) as connection:
        connection.execute(schema("postgresql"))
        connection.execute("INSERT INTO jobs (payload) VALUES ('x')")

    class Handler(BaseRequestHandler):
        go: Deferred[None] = Deferred()
        seen: ClassVar[list[int]] = []

        async def handle(self) -> None:
            self.seen.append(self.request.attempts)
            await self.go

    table = Table(f"{own_cluster.url}&table=jobs", "jobs", None)
    settings = {"lease": 0.5}
    async with serving(table, Handler, settings):
        await until(lambda: Handler.seen)
        await deferToThread(own_cluster.stop)
        Handler.go.callback(None)
        await deferLater(reactor, 0.5)
    await deferToThread(own_cluster.start)
    Handler.go = succeed(None)
    async with serving(table, Handler, settings):
        await until(lambda: len(Handler.seen) == 2)


async def test_a_lost_connection_that_listens_is_made_again(
    postgresql_table: Table, handler: Any
) -> None:
    """What comes meanwhile is found by looking, and what comes after is heard of."""
    table = postgresql_table
    async with serving(table, handler, {"poll": 0.02}) as service:
        await until(service.source._is_told)
        _end_listeners(table)
        await until(lambda: not service.source._is_told())
        enqueue(table.connection, "meanwhile", table=table.name)
        await until(lambda: "meanwhile" in handler.seen)
        await until(service.source._is_told)
        enqueue(table.connection, "after", table=table.name)
        await until(lambda: "after" in handler.seen)


@pytest.fixture
def without_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sweep comes by itself within a test."""
    monkeypatch.setattr(SQLSource, "sweep_seconds", 3600.0)


@pytest.mark.usefixtures("without_sweeps")
@pytest.mark.parametrize("when", ["meanwhile", "after"])
async def test_a_row_older_than_the_loss_of_the_connection_that_listens_is_not_forgotten(
    postgresql_table: Table, handler: Any, when: str
) -> None:
    """Its transaction began before, and is committed when it is lost, or when there is another."""
    table = postgresql_table
    async with serving(table, handler) as service:
        await until(service.source._is_told)
        connection = table.connect()
        enqueue(connection, "early", table=table.name)
        enqueue(table.connection, "late", table=table.name)
        await until(lambda: handler.seen == ["late"])
        if when == "meanwhile":
            subscribe, service.source.store.subscribe = service.source.store.subscribe, _no_listener
        _end_listeners(table)
        await until(lambda: not service.source._is_told())
        if when == "meanwhile":
            connection.commit()
            service.source.store.subscribe = subscribe
            await until(service.source._is_told)
        else:
            await until(service.source._is_told)
            connection.commit()
        await until(lambda: "early" in handler.seen)
        connection.close()


@pytest.mark.usefixtures("without_sweeps")
async def test_all_kinds_of_rows_are_found_while_no_connection_listens(
    postgresql_table: Table, handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of an older transaction, the first of its priority, one that is due since long ago."""
    monkeypatch.setattr(Backoff, "next", lambda _: 3600.0)
    table = postgresql_table
    async with serving(table, handler) as service:
        await until(service.source._is_told)
        connection = table.connect()
        enqueue(connection, "early", table=table.name)
        enqueue(table.connection, "late", table=table.name)
        await until(lambda: handler.seen == ["late"])
        _end_listeners(table)
        await until(service.source._is_deaf)
        connection.commit()
        connection.close()
        await until(lambda: "early" in handler.seen)
        enqueue(table.connection, "urgent", table=table.name, priority=7)
        await until(lambda: "urgent" in handler.seen)
        table.execute("INSERT INTO jobs (payload, due_at) VALUES ('old', now() - interval '1 day')")
        await until(lambda: "old" in handler.seen)


def _no_listener() -> None:
    raise StoreError("no connection is to be had")


def _end_listeners(table: Table) -> None:
    table.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^LISTEN'")


async def test_a_database_that_is_locked_is_waited_for(
    sqlite_table: Table, handler: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is away: it has a line of its own, and no connection is made anew."""
    monkeypatch.setattr(SQLiteStore, "busy_seconds", 0.01)
    async with serving(sqlite_table, handler) as service:
        await until(lambda: service.source._turn is None)
        connection = sqlite_table.connect()
        connection.execute("BEGIN IMMEDIATE")
        opened: list[None] = []
        monkeypatch.setattr(service.source.store, "open", lambda: opened.append(None))
        service.source._look()
        await until(lambda: lines)
        service.source._look()
        await until(lambda: service.source._turn is None)
        connection.execute("INSERT INTO jobs (payload) VALUES ('x')")
        connection.commit()
        connection.close()
        await until(lambda: handler.seen == ["x"])
    assert opened == []
    (line,) = lines
    assert line.endswith(": another transaction keeps the database locked; trying again")
    assert "away" not in line


async def test_a_table_that_is_locked_is_waited_for(
    postgresql_table: Table, handler: Any, lines: list[str]
) -> None:
    table = postgresql_table
    connection = table.connect()
    impatient = Table(f"{table.url}&options=-c%20lock_timeout%3D20ms", table.name, None)
    async with serving(impatient, handler) as service:
        await until(service.source._is_told)
        connection.execute(f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE")
        connection.execute(f"INSERT INTO {table.name} (payload) VALUES ('x')")
        service.source._look()
        await until(lambda: lines)
        connection.commit()
        connection.close()
        await until(lambda: handler.seen == ["x"])
    (line,) = lines
    assert line.endswith(": canceling statement due to lock timeout; trying again")


@pytest.mark.parametrize("kind", ["coroutine", "blocking"])
async def test_a_transaction_that_has_to_wait_for_another_is_no_failure(
    sqlite_table: Table, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SQLiteStore, "busy_seconds", 0.01)
    tries: list[object] = []

    class Noted(StoreBusy):
        def __init__(self, *words: object) -> None:
            super().__init__(*words)
            tries.append(words)

    monkeypatch.setattr(sockserve.sql.sqlite, "StoreBusy", Noted)
    other = sqlite_table.connect()

    class Server(SQLServer):
        def verify_request(self, request: Any, client_address: Any) -> bool:
            other.execute("BEGIN IMMEDIATE")
            return True

    if kind == "coroutine":

        class Handler(SQLRequestHandler):
            transaction = True
            seen: ClassVar[list[int]] = []

            async def handle(self) -> None:
                self.seen.append(self.request.attempts)
    else:

        class Handler(SQLRequestHandler):  # type: ignore[no-redef]
            transaction = True
            seen: ClassVar[list[int]] = []

            def handle(self) -> None:
                self.seen.append(self.request.attempts)

    enqueue(sqlite_table.connection, "x")
    async with serving(sqlite_table, Handler, factory=Server) as service:
        await until(lambda: len(tries) > 2)
        assert Handler.seen == []
        other.rollback()
        await until(lambda: sqlite_table.count() == 0)
        await until(lambda: service.server.statistics.requests)
    other.close()
    assert Handler.seen == [1]
    assert service.server.statistics.errors == 0


async def test_verify_request_that_raises_has_the_row_tried_again(table: Table) -> None:
    class Server(SQLServer):
        def verify_request(self, request: Any, client_address: Any) -> bool:
            if request.attempts == 1:
                raise ZeroDivisionError
            return True

    class Handler(Coroutine):
        pass

    enqueue(table.connection, "x", table=table.name)
    policy = RetryPolicy(first=0.01)
    async with serving(table, Handler, {"policy": policy}, factory=Server):
        await until(lambda: Handler.seen == ["x"])


async def test_a_service_that_was_stopped_can_be_started_again(table: Table, handler: Any) -> None:
    source = SQLSource(reactor, table.url)
    service = SQLRequestService(source, handler)
    for payload in "ab":
        service.privilegedStartService()
        service.startService()
        enqueue(table.connection, payload, table=table.name)
        await until(lambda payload=payload: payload in handler.seen)
        await service.stopService()
    assert table.count() == 0


async def test_a_deadline_over_a_transaction_keeps_no_other_row_waiting(
    postgresql_table: Table,
) -> None:
    """The thread, and its transaction with it, goes on for longer than its deadline."""
    table = postgresql_table
    go_on = threading.Event()

    class Handler(SQLRequestHandler):
        transaction = True

        def handle(self) -> None:
            if self.request.payload == "slow":
                go_on.wait(PATIENCE_SECONDS)

    enqueue(table.connection, "slow", table=table.name)
    deadlines = Deadlines(handle=0.05, abandon=0.05)
    async with serving(table, Handler, deadlines=deadlines) as service:
        await until(lambda: service.server.statistics.abandoned)
        enqueue(table.connection, "quick", table=table.name)
        await until(lambda: service.server.statistics.requests == 2)
        go_on.set()
        await until(lambda: table.count() == 0)


async def test_django_connections_are_known(sqlite_table: Table, handler: Any) -> None:
    """It has cursors whose statements have C{%s}, whatever the database."""

    class Cursor:
        def __init__(self, cursor: Any) -> None:
            self._cursor = cursor
            self.fetchall = cursor.fetchall

        def __enter__(self) -> "Cursor":
            return self

        def __exit__(self, *raised: object) -> None:
            self._cursor.close()

        def execute(self, statement: str, values: Any) -> None:
            self._cursor.execute(statement.replace("%s", "?"), values)

    class Connection:
        connection = sqlite_table.connection

        def cursor(self) -> Cursor:
            return Cursor(self.connection.cursor())

    async with serving(sqlite_table, handler):
        enqueue(Connection(), "x", delay=0.0)
        await until(lambda: handler.seen == ["x"])


async def test_rows_in_progress_are_listed_and_can_be_aborted(table: Table) -> None:
    class Handler(BaseRequestHandler):
        async def handle(self) -> None:
            await Deferred()

    number = enqueue(table.connection, "abc", table=table.name)
    async with serving(table, Handler, {"policy": RetryPolicy(attempts=1)}) as service:
        await until(lambda: service.requests())
        (status,) = service.requests()
        assert (status.peer, status.stage, status.received) == (
            f"{table.name}/{number}",
            "handle",
            3,
        )
        service.abort(status.id)
        await until(lambda: dead_rows(table.connection, table=table.name))
        assert service.requests() == []
    [row] = dead_rows(table.connection, table=table.name)
    assert row.failure.rstrip().endswith("RequestAborted: the request was aborted")
