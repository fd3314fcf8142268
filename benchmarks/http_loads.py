"""
What HTTP clients put on a server: many connections, a connection for each request, one GET, a long
body either way.

Knows HTTP's client side; must not know which servers there are.
"""

import contextlib
import http.client
import io
import re
import socket
import time
from pathlib import Path

from benchmarks import harness
from benchmarks.servers.answers import FILE_BYTES, GREETING, JSON
from benchmarks.servers.start import LOOPBACK
from benchmarks.servers.transfers import BLOCK_BYTES, PAUSE_EACH_BYTES, PAUSE_SECONDS

LEAST_MIB_PER_S = 10  # of a transfer: what takes longer is given up
MICROSECONDS = {"us": 1, "ms": 1e3, "s": 1e6}  # wrk's units
GROWTH = (64, 1_000, 10_000)  # connections
SERVED_PER_S = 5_000  # at the least, so that each is measured some times: a second more for as many
CASES = {  # the path, and the body of the answer
    "http-get": ("/", GREETING),
    "http-headers": ("/", GREETING),
    "http-json": ("/json", JSON),
    "http-file": ("/file", b"x" * FILE_BYTES),
}
BROWSER_FIELDS = """\
Connection: keep-alive
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8
Accept-Language: en-GB,en;q=0.8,de;q=0.5,fr;q=0.3
Accept-Encoding: gzip, deflate, br, zstd
Referer: http://localhost/another/page?with=a&query
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes
Upgrade-Insecure-Requests: 1
Cache-Control: max-age=0
"""  # ten with Host


class Received(io.RawIOBase):
    """What is read from a socket, and how much that was."""

    def __init__(self, sock):
        self.sock = sock
        self.count = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        count = self.sock.recv_into(buffer)
        self.count += count
        return count

    def makefile(self, mode):
        return io.BufferedReader(self)


def request(case):
    fields = BROWSER_FIELDS if case == "http-headers" else ""
    ask = f"GET {CASES[case][0]} HTTP/1.1\nHost: localhost\n{fields}\n"
    return ask.replace("\n", "\r\n").encode()


def get(sock, case="http-get"):
    """
    Ask once, and check the answer.

    @return: how long the answer is, with its head.
    """
    received = Received(sock)
    sock.sendall(request(case))
    with http.client.HTTPResponse(received) as answer:
        answer.begin()
        body = answer.read()
    if (answer.status, body) != (200, CASES[case][1]) or answer.will_close:
        raise harness.Failed(
            f"a wrong answer: {answer.status} {answer.headers.items()} {body[:80]!r}"
        )
    return received.count


def exchange(server, case):
    """What a server is asked, and how long its answer is."""
    with socket.create_connection((LOOPBACK, server[1]), harness.GRACE_SECONDS) as sock:
        get(sock, case)
        return get(sock, case), request(case).hex()


def requests(pingpong, seconds, name, case="http-get", connections=harness.CONNECTIONS):
    """What L{harness.put_load} finds out, and how many threads the server has then."""
    with harness.serving(name, seconds) as server:
        asked = exchange(server, case)
        result = harness.put_load(pingpong, server, "http", connections, seconds, asked)
        return result | {"threads": harness.status_number(server[0], "Threads")}


def growth(pingpong, seconds, name):
    """The same with more and more connections, and what is left of the rate of the fewest."""
    results = {}
    with harness.serving(name, seconds * len(GROWTH)) as server:
        asked = exchange(server, "http-get")
        for connections in GROWTH:
            longer = seconds + connections / SERVED_PER_S
            results[connections] = harness.put_load(
                *(pingpong, server, "http", connections, longer, asked)
            )
    measured = {
        f"{key}_{connections}": value
        for connections, result in results.items()
        for key, value in result.items()
    }
    few, many = (results[connections]["per_s"] for connections in (GROWTH[0], GROWTH[-1]))
    return measured | {"kept": many / few}


def closing(seconds, name, connections=harness.CONNECTIONS):
    """The same when each request has a connection of its own: that, wrk can do."""
    with harness.serving(name, seconds) as (pid, port):
        with socket.create_connection((LOOPBACK, port), harness.GRACE_SECONDS) as sock:
            get(sock)
        for duration in (1, max(1, round(seconds))):  # wrk counts in whole seconds
            load = ["wrk", "-t1", f"-c{connections}", f"-d{duration}s", "--latency"]
            load += ["-H", "Connection: close", f"http://{LOOPBACK}:{port}/"]
            before = harness.cpu_seconds(pid)
            printed = harness.output(harness.LOAD_CORE, duration, *load)
        cpu = sum(harness.cpu_seconds(pid)) - sum(before)
        threads = harness.status_number(pid, "Threads")
    latencies = {
        f"p{percent}_us": float(figure) * MICROSECONDS[unit]
        for percent, figure, unit in re.findall(r"(50|99)% +([\d.]+)(us|ms|s)\s", printed)
    }
    count = re.search(r"([1-9]\d*) requests in", printed)
    rate = re.search(r"Requests/sec: +([\d.]+)", printed)
    # That a connection ends is an error to wrk, too: one of reading.
    errors = re.search("Non-2xx|connect [1-9]|write [1-9]|timeout [1-9]", printed)
    if not count or not rate or len(latencies) != 2 or errors:
        raise harness.Failed(printed)
    return {
        "per_s": float(rate[1]),
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
