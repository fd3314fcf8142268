"""
What rows on PostgreSQL are like, besides how many there are a second: ``python -m
benchmarks.row_measures NAME URL``.

``latency``: milliseconds from before an INSERT to ``handle``, on an idle source of another process:
median and the 99th percentile.  ``dead``: jobs a second while a transaction is open elsewhere, with
none, and with a million served rows that cannot be vacuumed.
"""

import json
import os
import subprocess
import sys
import time

INSERTS = 400
BETWEEN_SECONDS = 0.01
MILLION = 1_000_000
MEASURED = 100_000


def _table(url):
    import psycopg

    from sockserve.sql import schema

    connection = psycopg.connect(url, autocommit=True)
    connection.execute("DROP TABLE IF EXISTS jobs")
    connection.execute(schema("postgresql"))
    return connection


def latency(url):
    connection = _table(url)
    command = [sys.executable, "-m", "benchmarks.row_measures", "serve", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        time.sleep(1.0)
        for _ in range(INSERTS):
            now = str(time.monotonic_ns())
            connection.execute("INSERT INTO jobs (payload) VALUES (%s)", (now,))
            time.sleep(BETWEEN_SECONDS)
        taken = sorted(float(server.stdout.readline()) for _ in range(INSERTS))
        server.kill()
    return {"ms": taken[INSERTS // 2], "p99_ms": taken[INSERTS * 99 // 100]}


def serve(url):
    from twisted.internet import reactor

    from sockserve import BaseRequestHandler
    from sockserve.sql import SQLRequestService, SQLSource

    class Handler(BaseRequestHandler):
        async def handle(self):
            taken = (time.monotonic_ns() - int(self.request.payload)) / 1e6
            os.write(1, b"%f\n" % taken)

    SQLRequestService(SQLSource(reactor, f"{url}&table=jobs"), Handler).startService()
    reactor.run()


def dead(url):
    import psycopg
    from twisted.internet import reactor

    from sockserve import BaseRequestHandler
    from sockserve.sql import SQLRequestService, SQLSource

    connection = _table(url)
    served = 0

    class Handler(BaseRequestHandler):
        async def handle(self):
            nonlocal served
            served += 1

    def work_off(count):
        """Jobs a second: rows that come in while the source runs."""
        nonlocal served
        served = 0
        connection.execute(
            f"INSERT INTO jobs (payload) SELECT 'x' FROM generate_series(1, {count})"
        )
        while not served:
            reactor.iterate(0.001)
        began = time.perf_counter()
        while served < count:
            reactor.iterate(0.001)
        return count / (time.perf_counter() - began)

    service = SQLRequestService(SQLSource(reactor, f"{url}&table=jobs"), Handler)
    reactor.startRunning()
    service.startService()
    work_off(MEASURED)
    with psycopg.connect(url) as elsewhere:
        elsewhere.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        elsewhere.execute("SELECT count(*) FROM jobs")
        first = sorted(work_off(MEASURED) for _ in range(3))[1]
        for _ in range(MILLION // MEASURED):
            work_off(MEASURED)
        last = sorted(work_off(MEASURED) for _ in range(3))[1]
    return {"first": first, "last": last, "kept": last / first}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](sys.argv[2])))
