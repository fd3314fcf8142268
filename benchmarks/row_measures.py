"""
What rows on PostgreSQL are like, besides how many there are a second: ``python -m
benchmarks.row_measures NAME URL [SECONDS]``.

``latency``: milliseconds from before an INSERT to ``handle``, on an idle source of another process:
median and the 99th percentile.  ``dead``: jobs a second while a transaction is open elsewhere, for
so many seconds: of a table with a million served rows that cannot be vacuumed, and, in turns with
it, of one that has none.
"""

import json
import os
import subprocess
import sys
import time

INSERTS = 400
BETWEEN_SECONDS = 0.01
MILLION = 1_000_000
MEASURED = 25_000
#: From the beginning of one turn of both tables to that of the next.
TURN_SECONDS = 10.0


def _table(url, *others):
    import psycopg

    from sockserve.sql import schema

    connection = psycopg.connect(url, autocommit=True)
    for name in ("jobs", *others):
        connection.execute(f"DROP TABLE IF EXISTS {name}")
        connection.execute(schema("postgresql", name))
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


def dead(url, seconds):
    import psycopg
    from twisted.internet import reactor

    from sockserve import BaseRequestHandler
    from sockserve.sql import SQLRequestService, SQLSource

    connection = _table(url, "fresh")
    served = 0

    class Handler(BaseRequestHandler):
        async def handle(self):
            nonlocal served
            served += 1

    services = {
        name: SQLRequestService(SQLSource(reactor, f"{url}&table={name}"), Handler)
        for name in ("jobs", "fresh")
    }

    def turn_reactor(until):
        while not until():
            reactor.iterate(0.001)

    def work_off(name, count):
        """Jobs a second, from when the source is told to claim: its first look is a sweep."""
        nonlocal served
        served = 0
        connection.execute(
            f"INSERT INTO {name} (payload) SELECT 'x' FROM generate_series(1, {count})"
        )
        began = time.perf_counter()
        services[name].resume()
        turn_reactor(lambda: served == count)
        took = time.perf_counter() - began
        services[name].suspend()
        return count / took

    reactor.startRunning()
    for service in services.values():
        service.startService()
        service.suspend()
    rates = {name: [] for name in services}
    with psycopg.connect(url) as elsewhere:
        elsewhere.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        elsewhere.execute("SELECT count(*) FROM jobs")
        work_off("jobs", MILLION)
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until:
            next_turn = time.monotonic() + TURN_SECONDS
            connection.execute("TRUNCATE fresh")
            for name in services:
                rates[name].append(work_off(name, MEASURED))
                print(f"{name}: {rates[name][-1]:,.0f}/s", file=sys.stderr)
            turn_reactor(lambda next_turn=next_turn: time.monotonic() >= next_turn)
    # Of all turns together: those with a look through all of the table are fewer than half.
    dead, fresh = (len(each) / sum(1 / rate for rate in each) for each in rates.values())
    return {"fresh": fresh, "dead": dead, "kept": dead / fresh}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
