"""
Measure sockserve beside its peers and print one table.

The servers of one work take turns (A, B, C, A, B, C, ...) and a ratio is the median of the
ratios within a round: machines are noisy, and only ratios mean something on another one.
"""

import argparse
import importlib.util
import platform
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from functools import partial
from importlib.metadata import version
from statistics import median
from typing import NamedTuple

from benchmarks import harness, http_loads, row_loads, servers


class Row(NamedTuple):
    work: str
    name: str  # of the function in servers or timers
    title: str
    against: str = ""
    at_least: float | None = None  # of the peer's figure
    at_most: float | None = None  # of the peer's figure
    limit: float | None = None  # of its own
    least: float | None = None  # of its own, too
    figure: str = ""  # where it is not the work's


CLOSE = ["-H", "Connection: close"]
FIGURES = {  # what is measured, and its format
    "round_trips_per_s": "{:,.0f}/s",
    "requests_per_s": "{:,.0f}/s",
    "p99_us": "p99 {:.0f} µs",
    "silent": "{:.2f} KiB",
    "used": "{:.2f} KiB",
    "threads": "{:.0f} threads",
    "us": "{:.2f} µs",
    "jobs_per_s": "{:,.0f}/s",
    "ms": "{:.2f} ms",
    "import_ms": "{:.0f} ms",
    "kept": "{:.2f}",
    "grown_mib": "{:.1f} MiB",
}
LATENCY = "p50 {p50_us:.0f} µs, p99 {p99_us:.0f} µs"
DROPIN = "p99 {p99_us:.0f} µs, {threads:.0f} threads"
XDR_SHAPES = {
    "wide": "19 fields",
    "mixed": "6 fields",
    "array": "20 pairs",
    "pair": "2 numbers",
}
WORKS = {  # title, the figure compared, what stands beside it
    "tcp": ("TCP echo by line", "round_trips_per_s", LATENCY),
    "udp": ("UDP echo", "round_trips_per_s", LATENCY),
    "http": ("HTTP GET", "requests_per_s", LATENCY + ", CPU {cpu_us:.0f} µs"),
    "dropin": ("unchanged program", "requests_per_s", DROPIN),
    "dropin-1000": ("unchanged program, 1,000 connections", "requests_per_s", DROPIN),
    "dropin-close": ("unchanged program, connection a request", "requests_per_s", DROPIN),
    "dropin-close-1000": ("the same, 1,000 at once", "requests_per_s", DROPIN),
    "dropin-idle": ("1,000 idle keep-alive connections", "threads", ""),
    "memory": ("idle connection", "silent", "{used:.2f} KiB after a line"),
    "memory-http": ("idle keep-alive connection", "used", "{silent:.2f} KiB before a request"),
    "transfer-upload": ("upload, memory grown by", "grown_mib", "in {seconds:.1f} s"),
    "transfer-download": ("download, memory grown by", "grown_mib", "in {seconds:.1f} s"),
    "rows": ("rows of PostgreSQL, empty jobs", "jobs_per_s", ""),
    "rows-sqlite": ("rows of SQLite, empty jobs", "jobs_per_s", ""),
    "rows-latency": ("from INSERT to handle, PostgreSQL", "ms", "p99 {p99_ms:.2f} ms"),
    "rows-dead": ("rate with 1,000,000 dead rows", "kept", "{dead:,.0f}/s; without {fresh:,.0f}/s"),
    "timers": ("re-arm a deadline", "us", ""),
    "rpc-tcp": ("Sun RPC over TCP, calls", "round_trips_per_s", LATENCY),
    "rpc-udp": ("Sun RPC over UDP, calls", "round_trips_per_s", LATENCY),
    **{
        f"xdr-{shape}-{way}": (f"XDR: {title}, {way}ed", "us", "")
        for shape, title in XDR_SHAPES.items()
        for way in ("pack", "unpack")
    },
    "import": ("import of a module", "import_ms", ""),
}
STDLIB = "ThreadingHTTPServer"
STDLIB_AT_ONCE = "ThreadingHTTPServer, no Nagle"
DROPIN_SERVER = "sockserve ThreadingHTTPServer"
DROPIN_MODULE = "sockserve.http.server"
COROUTINE = "sockserve coroutine"
THREADS = "sockserve threads"
UNMODIFIED = "sockserve, http.server handler"
ROWS = [
    Row("tcp", "tcp-asyncio", "asyncio streams"),
    Row("tcp", "tcp-uvloop", "asyncio streams, uvloop", "tcp-asyncio"),
    Row("tcp", "tcp-gevent", "gevent StreamServer", "tcp-asyncio"),
    Row("tcp", "tcp-linereceiver", "Twisted LineReceiver", "tcp-asyncio"),
    Row("tcp", "tcp-sockserve", COROUTINE, "tcp-asyncio", at_least=0.9),
    Row("tcp", "tcp-threading", "ThreadingTCPServer"),
    Row("tcp", "tcp-sockserve-threads", THREADS, "tcp-threading", at_least=0.9),
    Row("tcp", "tcp-dropin", "sockserve ThreadingTCPServer", "tcp-threading", at_least=0.9),
    Row("udp", "udp-udpserver", "UDPServer"),
    Row("udp", "udp-dropin", "sockserve UDPServer", "udp-udpserver", at_least=0.8),
    Row("udp", "udp-twisted", "Twisted DatagramProtocol", "udp-udpserver"),
    Row("udp", "udp-asyncio", "asyncio DatagramProtocol", "udp-udpserver"),
    Row("udp", "udp-sockserve", COROUTINE, "udp-udpserver", at_least=0.7),
    Row("udp", "udp-sockserve-files", "sockserve rfile/wfile", "udp-udpserver"),
    Row("http", "http-uvicorn", "uvicorn"),
    Row("http", "http-twistedweb", "twisted.web Site", "http-uvicorn"),
    Row("http", "http-twistedprotocol", "Twisted Protocol, a constant", "http-twistedweb"),
    Row("http", "http-sockserve", COROUTINE, "http-uvicorn", at_least=1.3),
    Row("http", "http-sockserve", COROUTINE, "http-twistedweb", at_least=3),
    Row("http", "http-sockserve", COROUTINE, "http-uvicorn", at_most=1, figure="p99_us"),
    Row("http", "http-waitress", "waitress"),
    Row("http", "http-sockserve-threads", THREADS, "http-waitress", at_least=2),
    Row("http", "http-threading", STDLIB),
    Row("http", "http-threading-nodelay", STDLIB_AT_ONCE, "http-threading"),
    Row("http", "http-sockserve-stdlib", UNMODIFIED, "http-threading", at_least=15),
    Row("http", "http-sockserve-stdlib", UNMODIFIED, "http-threading-nodelay", at_least=1),
    Row("dropin", "http-threading", STDLIB),
    Row("dropin", "http-threading-nodelay", STDLIB_AT_ONCE, "http-threading"),
    Row("dropin", "http-dropin", DROPIN_SERVER, "http-threading", at_least=15),
    Row("dropin", "http-dropin", DROPIN_SERVER, "http-threading-nodelay", at_least=1),
    Row("dropin-1000", "http-threading", STDLIB),
    Row("dropin-1000", "http-threading-nodelay", STDLIB_AT_ONCE, "http-threading"),
    Row("dropin-1000", "http-dropin", DROPIN_SERVER, "http-threading-nodelay", at_least=1),
    Row("dropin-close", "http-threading", STDLIB),
    Row("dropin-close", "http-dropin", DROPIN_SERVER, "http-threading", at_least=1),
    Row("dropin-close-1000", "http-threading", STDLIB),
    Row("dropin-close-1000", "http-dropin", DROPIN_SERVER, "http-threading", at_least=1),
    Row("dropin-idle", "http-threading", STDLIB),
    Row("dropin-idle", "http-dropin", DROPIN_SERVER, "http-threading", limit=1000),
    Row("memory", "tcp-asyncio", "asyncio streams"),
    Row("memory", "tcp-gevent", "gevent StreamServer", "tcp-asyncio"),
    Row("memory", "tcp-linereceiver", "Twisted LineReceiver", "tcp-asyncio"),
    Row("memory", "tcp-sockserve", COROUTINE, "tcp-asyncio", limit=6.0),
    Row("memory-http", "http-uvicorn", "uvicorn"),
    Row("memory-http", "http-twistedweb", "twisted.web Site", "http-uvicorn"),
    Row("memory-http", "http-sockserve", COROUTINE, "http-uvicorn", limit=4.0),
    Row("memory-http", "http-sockserve-stdlib", UNMODIFIED, "http-uvicorn"),
    Row("transfer-upload", "transfer-sockserve", COROUTINE, limit=16.0),
    Row("transfer-upload", "transfer-sockserve-threads", THREADS, limit=16.0),
    Row("transfer-download", "transfer-sockserve", COROUTINE, limit=16.0),
    Row("transfer-download", "transfer-sockserve-threads", THREADS, limit=16.0),
    Row("rows", "rows-procrastinate", "procrastinate"),
    Row("rows", "rows-pgqueuer", "pgqueuer, psycopg", "rows-procrastinate"),
    Row("rows", "rows-sockserve", COROUTINE, "rows-pgqueuer", at_least=3.0),
    Row("rows", "rows-sockserve-threads", THREADS, "rows-pgqueuer"),
    Row("rows", "rows-sockserve-transaction", "sockserve, a transaction each"),
    Row("rows-sqlite", "rows-sqlite", COROUTINE, least=50_000.0),
    Row("rows-latency", "latency", COROUTINE, limit=5.0),
    Row("rows-dead", "dead", COROUTINE, least=0.9),
    Row("rpc-tcp", "rpc-tcp-rpcgen", "rpcgen's, in C"),
    Row("rpc-tcp", "rpc-tcp-sockserve", COROUTINE, "rpc-tcp-rpcgen"),
    Row("rpc-tcp", "rpc-tcp-sockserve-threads", THREADS, "rpc-tcp-rpcgen"),
    Row("rpc-udp", "rpc-udp-rpcgen", "rpcgen's, in C"),
    Row("rpc-udp", "rpc-udp-sockserve", COROUTINE, "rpc-udp-rpcgen"),
    Row("rpc-udp", "rpc-udp-sockserve-threads", THREADS, "rpc-udp-rpcgen"),
    *[
        row
        for work in WORKS
        if work.startswith("xdr-")
        for name in [work.removeprefix("xdr-")]
        for row in (
            Row(work, f"{name}-xdrlib", "xdrlib"),
            Row(work, f"{name}-sockserve", "sockserve.sunrpc", f"{name}-xdrlib", at_most=0.2),
        )
    ],
    Row("timers", "timers-twisted", "Twisted DelayedCall.reset"),
    Row("timers", "timers-sockserve", "sockserve DeadlineTimer.arm", "timers-twisted", limit=2.0),
    Row("import", "import-http", "http.server"),
    Row("import", "import-sockserve-http", DROPIN_MODULE, "import-http", at_most=4),
    Row("import", "import-socketserver", "socketserver"),
    Row(
        "import",
        "import-sockserve-socketserver",
        "sockserve.socketserver",
        "import-socketserver",
    ),
    Row("import", "import-sockserve-serving", "what serves, with the first server"),
]
TITLES = {(row.work, row.name): row.title for row in ROWS}
OPTIONAL = {  # a word of a name, and the modules it takes
    "gevent": ["gevent"],
    "latency": ["sockserve", "psycopg"],
    "pgqueuer": ["pgqueuer", "psycopg"],
    "procrastinate": ["procrastinate", "psycopg"],
    "dropin": ["sockserve"],
    "sockserve": ["sockserve"],
    "uvicorn": ["uvicorn", "uvloop", "httptools"],
    "uvloop": ["uvloop"],
    "waitress": ["waitress"],
    "xdrlib": ["xdrlib"],
}
PEERS = sorted(
    {module for modules in OPTIONAL.values() for module in modules} - {"sockserve", "xdrlib"}
)


def installed(module):
    return importlib.util.find_spec(module) is not None


def complete(name):
    words = name.split("-")
    return all(installed(module) for word in words for module in OPTIONAL.get(word, []))


def words(row):
    """What selects it: its work, the kind of its work, its server."""
    return {row.work, row.work.split("-")[0], row.name}


def measure(rows, rounds, measures):
    """The results of each contestant of a work, one a round, and why the others have none."""
    results = defaultdict(list)
    contestants = list(dict.fromkeys((row.work, row.name) for row in rows))
    failures = {each: "not installed" for each in contestants if not complete(each[1])}
    for work, function in measures.items():
        for turn in range(rounds):
            for each in [each for each in contestants if each[0] == work]:
                if each in failures:
                    continue
                print(f"{work} {turn + 1}/{rounds}: {each[1]}", file=sys.stderr)
                try:
                    results[each].append(function(each[1]))
                except harness.Failed as error:
                    failures[each] = "failed"
                    print(f"{each[1]} failed: {error}", file=sys.stderr)
    return results, failures


def target_of(row, form):
    if row.limit is not None:
        return f"≤ {form.format(row.limit)}"
    if row.least is not None:
        return f"≥ {form.format(row.least)}"
    if row.at_least is not None:
        return f"≥ {row.at_least} ×"
    return "" if row.at_most is None else f"≤ {row.at_most} ×"


def meets(row, value, ratio):
    if row.limit is not None:
        return value <= row.limit
    if row.least is not None:
        return value >= row.least
    return ratio >= row.at_least if row.at_least is not None else ratio <= row.at_most


def report(row, results, failures):
    """The cells of a row; the last says what became of its target."""
    title, figure, beside = WORKS[row.work]
    figure = row.figure or figure
    form = FIGURES[figure]
    target = target_of(row, form)
    this, peer = (row.work, row.name), (row.work, row.against)
    if this in failures:
        return [title, row.title, failures[this], "", "", target, target and failures[this]]
    values = {key: median(result[key] for result in results[this]) for key in results[this][0]}
    cells = [title, row.title, form.format(values[figure]), beside.format(**values)]
    ratio, versus = None, ""
    if row.against and peer in failures:
        versus = f"{TITLES[peer]} {failures[peer]}"
    elif row.against:
        pairs = zip(results[this], results[peer], strict=True)
        ratios = [ours[figure] / theirs[figure] for ours, theirs in pairs]
        ratio = median(ratios)
        versus = f"{ratio:.2f} ({min(ratios):.2f}–{max(ratios):.2f}) × {TITLES[peer]}"
    verdict = ""
    if target and ratio is None and row.limit is None and row.least is None:
        verdict = failures[peer]
    elif target:
        verdict = "met" if meets(row, values[figure], ratio) else "missed"
    return [*cells, versus, target, verdict]


def show(table, markdown):
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    edge, between = ("| ", " | ") if markdown else ("", "  ")
    for cells in [table[0], ["-" * width for width in widths], *table[1:]]:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        print((edge + between.join(padded) + edge[::-1]).rstrip())


def main():
    names = list(dict.fromkeys(word for row in ROWS for word in sorted(words(row), key=len)))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(names) + " (default: all)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a load (default: 2)")
    parser.add_argument("--mebibytes", type=int, default=1024, help="of a transfer (default: 1024)")
    parser.add_argument(
        "--open-seconds",
        type=float,
        default=60.0,
        help="of the transaction that keeps dead rows (default: 60)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    options = parser.parse_args()
    if unknown := set(options.rows).difference(names):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if min(options.rounds, options.seconds, options.mebibytes, options.open_seconds) <= 0:
        parser.error("--rounds, --seconds, --mebibytes and --open-seconds must be above 0")
    wanted = [row for row in ROWS if not options.rows or words(row) & {*options.rows}]
    peers = {(row.work, row.against) for row in wanted}
    rows = [row for row in ROWS if row in wanted or (row.work, row.name) in peers]
    works = {row.work for row in rows}
    if any(work.startswith(("http", "dropin")) for work in works) and shutil.which("wrk") is None:
        sys.exit("python -m benchmarks: the http rows take wrk, which is not installed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every finally
    with tempfile.TemporaryDirectory() as directory, row_loads.database(works) as url:
        pingpong = (
            harness.build_pingpong(directory)
            if {"tcp", "udp", "rpc-tcp", "rpc-udp"} & works
            else None
        )
        measures = {
            "tcp": partial(harness.echo, pingpong, "tcp", options.seconds),
            "udp": partial(harness.echo, pingpong, "udp", options.seconds),
            "rpc-tcp": partial(
                harness.echo,
                *(pingpong, "tcp", options.seconds),
                exchange=harness.rpc_exchange("tcp"),
            ),
            "rpc-udp": partial(
                harness.echo,
                *(pingpong, "udp", options.seconds),
                exchange=harness.rpc_exchange("udp"),
            ),
            "http": partial(http_loads.requests, options.seconds),
            "dropin": partial(http_loads.requests, options.seconds),
            "dropin-1000": partial(http_loads.requests, options.seconds, connections=1000),
            "dropin-close": partial(http_loads.requests, options.seconds, options=CLOSE),
            "dropin-close-1000": partial(
                http_loads.requests, options.seconds, connections=1000, options=CLOSE
            ),
            "dropin-idle": partial(http_loads.mostly_idle, 1000),
            "memory": partial(harness.memory, harness.echo_line),
            "memory-http": partial(harness.memory, http_loads.get),
            "transfer-upload": partial(http_loads.transfer, http_loads.upload, options.mebibytes),
            "transfer-download": partial(
                http_loads.transfer, http_loads.download, options.mebibytes
            ),
            "rows": partial(row_loads.rows, url),
            "rows-sqlite": partial(row_loads.rows, url),
            "rows-latency": partial(row_loads.measures, url),
            "rows-dead": partial(row_loads.measures, url, seconds=options.open_seconds),
            "timers": partial(harness.microseconds, "timers"),
            **{
                work: partial(harness.microseconds, "xdr")
                for work in WORKS
                if work.startswith("xdr-")
            },
            "import": harness.import_milliseconds,
        }
        results, failures = measure(rows, options.rounds, measures)
    table = [report(row, results, failures) for row in rows]
    show([["work", "server", "median", "", "ratio", "target", ""], *table], options.markdown)
    versions = [f"{name} {version(name)}" for name in PEERS if installed(name)]
    print(
        f"\n{harness.CONNECTIONS} connections, {harness.MESSAGE_BYTES} bytes (HTTP: "
        f"{len(servers.GREETING)}); {harness.IDLE_CONNECTIONS:,} idle connections; bodies of "
        f"{options.mebibytes:,} MiB; 100,000 deadlines. Server on core {harness.SERVER_CORE}, "
        f"load on core {harness.LOAD_CORE}; {options.rounds} rounds of {options.seconds:g} s. "
        f"Python {platform.python_version()}, Twisted {', '.join([version('twisted'), *versions])}."
    )
    sys.exit(any(cells[-1] in ("missed", "failed") for cells in table))


if __name__ == "__main__":
    main()
