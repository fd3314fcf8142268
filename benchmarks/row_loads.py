"""The loads of rows: a PostgreSQL server, and the processes that work its tables off."""

import json
import sys
from contextlib import contextmanager

from benchmarks import harness

#: Jobs of one run: seconds of work each.
JOBS = {
    "rows-procrastinate": 2_000,
    "rows-pgqueuer": 20_000,
    "rows-sockserve": 100_000,
    "rows-sockserve-threads": 40_000,
    "rows-sockserve-transaction": 5_000,
    "rows-sqlite": 200_000,
}
GRACE_SECONDS = 300.0


@contextmanager
def database(works):
    """The URL of a server for those of the works that take one."""
    if not {"rows", "rows-latency", "rows-dead"} & works:
        yield ""
        return
    from tests.postgresql import running_cluster

    with running_cluster({"fsync": "on", "shared_buffers": "256MB"}) as cluster:
        yield cluster.url


def rows(url, name):
    command = [sys.executable, "-m", "benchmarks.row_servers", name, url, str(JOBS[name])]
    return {"jobs_per_s": float(harness.output(harness.SERVER_CORE, GRACE_SECONDS, *command))}


def measures(url, name, seconds=None):
    """
    What L{benchmarks.row_measures} finds out.

    @param seconds: how long it is to go on, if it takes that.
    """
    command = [sys.executable, "-m", "benchmarks.row_measures", name, url]
    if seconds is not None:
        command.append(str(seconds))
    limit = GRACE_SECONDS + (seconds or 0.0)
    return json.loads(harness.output(harness.SERVER_CORE, limit, *command))
