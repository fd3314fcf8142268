"""
Empty jobs worked off, by one process: ``python -m benchmarks.row_servers NAME URL JOBS`` prints how
many there were a second, from the first to the last.
"""

import asyncio
import os
import sqlite3
import sys
import tempfile
import time


class Count:
    """Jobs done, and the time of the first and the last."""

    def __init__(self, jobs):
        self.jobs = jobs
        self.done = 0
        self.began = 0.0

    def add(self):
        """Whether this was the last."""
        if not self.done:
            self.began = time.perf_counter()
        self.done += 1
        return self.done == self.jobs

    def per_second(self):
        return self.jobs / (time.perf_counter() - self.began)


def _sockserve(url, jobs, blocks=False, transaction=False):
    from twisted.internet import reactor

    from sockserve.sql import SQLRequestHandler, SQLRequestService, SQLSource

    count = Count(jobs)
    found = []

    def add():
        if count.add():
            reactor.callFromThread(finish)

    if blocks:

        class Handler(SQLRequestHandler):
            def handle(self):
                add()
    else:

        class Handler(SQLRequestHandler):
            async def handle(self):
                add()

    Handler.transaction = transaction

    def finish():
        # Until the last is gone from the table, too.
        service.stopService().addCallback(lambda _: found.append(count.per_second()))
        reactor.callLater(0.5, reactor.stop)

    service = SQLRequestService(SQLSource(reactor, url), Handler)
    reactor.callWhenRunning(service.startService)
    reactor.run()
    return found[0]


def rows_sockserve(url, jobs):
    """In batches of 100, as the peers."""
    return _with_rows(f"{url}&table=jobs", url, jobs)


def rows_sockserve_500(url, jobs):
    return _with_rows(f"{url}&batch=500", url, jobs)


def rows_sockserve_threads(url, jobs):
    return _with_rows(f"{url}&batch=100", url, jobs, blocks=True)


def rows_sockserve_transaction(url, jobs):
    """A transaction for each."""
    return _with_rows(f"{url}&batch=100", url, jobs, blocks=True, transaction=True)


def _with_rows(source, url, jobs, **options):
    import psycopg

    from sockserve.sql import schema

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS jobs")
        connection.execute(schema("postgresql"))
        connection.execute(f"INSERT INTO jobs (payload) SELECT 'x' FROM generate_series(1, {jobs})")
    return _sockserve(source, jobs, **options)


def rows_procrastinate(url, jobs):
    import procrastinate
    from procrastinate import schema

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))
    count = Count(jobs)

    @app.task(name="nothing")
    async def nothing():
        if count.add():
            raise SystemExit

    async def work():
        async with app.open_async():
            try:
                await schema.SchemaManager(connector=app.connector).apply_schema_async()
            except Exception:
                pass  # it is there
            for _ in range(0, jobs, 1000):
                await nothing.batch_defer_async(*[{}] * min(1000, jobs))
            worker = asyncio.create_task(app.run_worker_async(wait=False, concurrency=100))
            await worker
            return count.per_second()

    return asyncio.run(work())


def rows_pgqueuer(url, jobs):
    import psycopg
    from pgqueuer import PgQueuer, Queries
    from pgqueuer.db import PsycopgDriver
    from pgqueuer.types import QueueExecutionMode

    count = Count(jobs)

    async def work():
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
        driver = PsycopgDriver(connection)
        queries = Queries(driver)
        try:
            await queries.install()
        except psycopg.Error:
            pass  # it is there
        names = ["nothing"] * jobs
        await queries.enqueue(names, [None] * jobs, [0] * jobs)
        queuer = PgQueuer(driver)

        @queuer.entrypoint("nothing")
        async def nothing(job):
            count.add()

        await queuer.run(batch_size=100, mode=QueueExecutionMode.drain)
        rate = count.per_second()
        await connection.close()
        return rate

    return asyncio.run(work())


def rows_sqlite(url, jobs):
    """In batches of 500."""
    from sockserve.sql import schema

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "jobs.db")
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(schema("sqlite"))
        connection.executemany("INSERT INTO jobs (payload) VALUES (?)", [("x",)] * jobs)
        connection.commit()
        connection.close()
        return _sockserve(f"sqlite:///{path}?batch=500", jobs)


if __name__ == "__main__":
    print(globals()[sys.argv[1].replace("-", "_")](sys.argv[2], int(sys.argv[3])))
