"""
What HTTP clients put on a server: wrk, one GET, a long body either way.

Knows HTTP's client side; must not know which servers there are.
"""

import contextlib
import http.client
import re
import socket
import time
from pathlib import Path

from benchmarks import harness
from benchmarks.servers import BLOCK_BYTES, GREETING, LOOPBACK, PAUSE_EACH_BYTES, PAUSE_SECONDS

WARM_UP_SECONDS = 1  # wrk counts in whole seconds
LEAST_MIB_PER_S = 10  # of a transfer: what takes longer is given up
MICROSECONDS = {"us": 1, "ms": 1e3, "s": 1e6}  # wrk's units


def get(sock):
    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with http.client.HTTPResponse(sock) as answer:
        answer.begin()
        body = answer.read()
    if (answer.status, body) != (200, GREETING) or answer.will_close:
        raise harness.Failed(f"a wrong answer: {answer.status} {answer.headers.items()} {body!r}")


def requests(seconds, name, connections=harness.CONNECTIONS, options=()):
    """
    Requests a second, latencies and CPU time for each, of a server that is warm, and its
    threads.

    @param options: wrk's.
    """
    with harness.serving(name, seconds) as (pid, port):
        with socket.create_connection((LOOPBACK, port), harness.GRACE_SECONDS) as sock:
            get(sock)
            get(sock)
        for duration in (WARM_UP_SECONDS, max(1, round(seconds))):
            load = ["wrk", "-t1", f"-c{connections}", f"-d{duration}s", "--latency", *options]
            cpu_before = harness.cpu_seconds(pid)
            printed = harness.output(
                harness.LOAD_CORE, duration, *load, f"http://{LOOPBACK}:{port}/"
            )
        cpu = harness.cpu_seconds(pid) - cpu_before
        threads = harness.status_number(pid, "Threads")
    latencies = {
        f"p{percent}_us": float(figure) * MICROSECONDS[unit]
        for percent, figure, unit in re.findall(r"(50|99)% +([\d.]+)(us|ms|s)\s", printed)
    }
    count = re.search(r"([1-9]\d*) requests in", printed)
    rate = re.search(r"Requests/sec: +([\d.]+)", printed)
    # wrk takes the end of a connection for an error when it is not the client's doing.
    errors = re.search("Non-2xx|connect [1-9]|write [1-9]|timeout [1-9]", printed)
    errors = errors or (not options and re.search("Socket errors", printed))
    if not count or not rate or len(latencies) != 2 or errors:
        raise harness.Failed(printed)
    return {
        "requests_per_s": float(rate[1]),
        "cpu_us": cpu / int(count[1]) * 1e6,
        "threads": threads,
        **latencies,
    }


def mostly_idle(connections, name):
    """Threads of a server whose many clients have asked once and stay."""
    with (
        harness.serving(name, harness.GRACE_SECONDS) as (pid, port),
        contextlib.ExitStack() as kept,
    ):
        for _ in range(connections):
            sock = socket.create_connection((LOOPBACK, port), harness.GRACE_SECONDS)
            get(kept.enter_context(sock))
        return {"threads": harness.status_number(pid, "Threads")}


def upload(connection, size):
    """As fast as the server takes it."""
    block = bytes(BLOCK_BYTES)
    blocks = (block for _ in range(size // BLOCK_BYTES))
    connection.request("PUT", "/", blocks, {"Content-Length": str(size)})
    with connection.getresponse() as answer:
        if (answer.status, body := answer.read()) != (200, b"%d" % size):
            raise harness.Failed(f"a wrong answer: {answer.status} {body[:80]!r}")


def download(connection, size):
    """Slower than the server makes it."""
    connection.request("GET", f"/{size}")
    count = 0
    with connection.getresponse() as answer:
        while data := answer.read(BLOCK_BYTES):
            count += len(data)
            if not count % PAUSE_EACH_BYTES:
                time.sleep(PAUSE_SECONDS)
    if (answer.status, count) != (200, size):
        raise harness.Failed(f"a wrong answer: {answer.status}, {count} of {size} bytes")


def transfer(move, mebibytes, name):
    """MiB by which resident memory grew, at most, while one long body moved."""
    limit = mebibytes / LEAST_MIB_PER_S
    with contextlib.ExitStack() as stack:
        pid, port = stack.enter_context(harness.serving(name, limit))
        connection = http.client.HTTPConnection(LOOPBACK, port, harness.GRACE_SECONDS)
        stack.enter_context(contextlib.closing(connection))
        move(connection, BLOCK_BYTES)  # it paid for what is made only once
        before = harness.settled_kib(pid)
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM begins anew: proc(5)
        started = time.monotonic()
        move(connection, mebibytes * 2**20)
        seconds = time.monotonic() - started
        peak = harness.status_number(pid, "VmHWM")
    return {"grown_mib": (peak - before) / 1024, "seconds": seconds}
