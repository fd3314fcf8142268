"""
Measure sockserve beside its peers and print one table.

The servers of one work take turns (A, B, C, A, B, C, ...) and a ratio is the median of the
ratios within a round: machines are noisy, and only ratios mean something on another one.
"""

import argparse
import importlib.util
import platform
import signal
import sys
import tempfile
from collections import defaultdict
from functools import partial
from importlib.metadata import version
from statistics import median
from typing import NamedTuple

from benchmarks import harness


class Row(NamedTuple):
    work: str
    name: str  # of the function in servers or timers
    title: str
    against: str = ""
    at_least: float | None = None  # of the peer's figure
    at_most: float | None = None


LATENCY = "p50 {p50_us:.0f} µs, p99 {p99_us:.0f} µs"
WORKS = {  # title, the figure compared, its format, what stands beside it
    "tcp": ("TCP echo by line", "round_trips_per_s", "{:,.0f}/s", LATENCY),
    "udp": ("UDP echo", "round_trips_per_s", "{:,.0f}/s", LATENCY),
    "memory": ("idle connection", "silent", "{:.2f} KiB", "{used:.2f} KiB after a line"),
    "timers": ("re-arm a deadline", "us", "{:.2f} µs", ""),
}
ROWS = [
    Row("tcp", "tcp-asyncio", "asyncio streams"),
    Row("tcp", "tcp-uvloop", "asyncio streams, uvloop", "tcp-asyncio"),
    Row("tcp", "tcp-gevent", "gevent StreamServer", "tcp-asyncio"),
    Row("tcp", "tcp-linereceiver", "Twisted LineReceiver", "tcp-asyncio"),
    Row("tcp", "tcp-sockserve", "sockserve coroutine", "tcp-asyncio", at_least=0.9),
    Row("tcp", "tcp-threading", "ThreadingTCPServer"),
    Row("tcp", "tcp-sockserve-threads", "sockserve threads", "tcp-threading", at_least=0.9),
    Row("udp", "udp-udpserver", "UDPServer"),
    Row("udp", "udp-twisted", "Twisted DatagramProtocol", "udp-udpserver"),
    Row("udp", "udp-asyncio", "asyncio DatagramProtocol", "udp-udpserver"),
    Row("udp", "udp-sockserve", "sockserve coroutine", "udp-udpserver", at_least=0.7),
    Row("udp", "udp-sockserve-files", "sockserve rfile/wfile", "udp-udpserver", at_least=0.7),
    Row("memory", "tcp-asyncio", "asyncio streams"),
    Row("memory", "tcp-gevent", "gevent StreamServer", "tcp-asyncio"),
    Row("memory", "tcp-linereceiver", "Twisted LineReceiver", "tcp-asyncio"),
    Row("memory", "tcp-sockserve", "sockserve coroutine", "tcp-asyncio", at_most=6.0),
    Row("timers", "timers-twisted", "Twisted DelayedCall.reset"),
    Row("timers", "timers-sockserve", "sockserve DeadlineTimer.arm", "timers-twisted", at_most=2.0),
]


def installed(row):
    optional = [word for word in ("sockserve", "uvloop", "gevent") if word in row.name]
    return all(importlib.util.find_spec(module) for module in optional)


def measure(rows, rounds, measures):
    """The results of each row, one a round, and why the others have none."""
    results = defaultdict(list)
    failures = {row: "not installed" for row in rows if not installed(row)}
    for work, function in measures.items():
        for turn in range(rounds):
            for row in [row for row in rows if row.work == work and row not in failures]:
                print(f"{work} {turn + 1}/{rounds}: {row.name}", file=sys.stderr)
                try:
                    results[row].append(function(row.name))
                except harness.Failed as error:
                    failures[row] = "failed"
                    print(f"{row.name} failed: {error}", file=sys.stderr)
    return results, failures


def report(row, results, failures):
    """The cells of a row; the last says whether its target is met."""
    title, key, form, beside = WORKS[row.work]
    if row in failures:
        return [title, row.title, failures[row], "", "", "", ""]
    values = {key: median(result[key] for result in results[row]) for key in results[row][0]}
    figure, versus, target, met = form.format(values[key]), "", "", None
    for peer in [peer for peer in results if (peer.work, peer.name) == (row.work, row.against)]:
        ratios = [a[key] / b[key] for a, b in zip(results[row], results[peer], strict=False)]
        versus = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) × {peer.title}"
        if row.at_least:
            target, met = f"≥ {row.at_least} ×", median(ratios) >= row.at_least
    if row.at_most:
        target, met = f"≤ {form.format(row.at_most)}", values[key] <= row.at_most
    verdict = {None: "", True: "met", False: "missed"}[met]
    return [title, row.title, figure, beside.format(**values), versus, target, verdict]


def show(table, markdown):
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    edge, between = ("| ", " | ") if markdown else ("", "  ")
    for cells in [table[0], ["-" * width for width in widths], *table[1:]]:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        print((edge + between.join(padded) + edge[::-1]).rstrip())


def main():
    names = [*WORKS, *dict.fromkeys(row.name for row in ROWS)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(names) + " (default: all)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of an echo run (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    options = parser.parse_args()
    if unknown := set(options.rows).difference(names):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be above 0")
    wanted = [row for row in ROWS if not options.rows or {row.work, row.name} & {*options.rows}]
    peers = {(row.work, row.against) for row in wanted}
    rows = [row for row in ROWS if row in wanted or (row.work, row.name) in peers]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every finally
    with tempfile.TemporaryDirectory() as directory:
        pingpong = harness.build_pingpong(directory)
        measures = {
            "tcp": partial(harness.echo, pingpong, "tcp", options.seconds),
            "udp": partial(harness.echo, pingpong, "udp", options.seconds),
            "memory": harness.memory,
            "timers": harness.timers,
        }
        results, failures = measure(rows, options.rounds, measures)
    table = [report(row, results, failures) for row in rows]
    show([["work", "server", "median", "", "ratio", "target", ""], *table], options.markdown)
    print(
        f"\n{harness.CONNECTIONS} connections, {harness.MESSAGE_BYTES} bytes; "
        f"{harness.IDLE_CONNECTIONS:,} idle connections; 100,000 deadlines. Server on core "
        f"{harness.SERVER_CORE}, load on core {harness.LOAD_CORE}; {options.rounds} rounds of "
        f"{options.seconds:g} s. Python {platform.python_version()}, Twisted {version('twisted')}."
    )
    sys.exit(any(cells[-1] == "missed" or cells[2] == "failed" for cells in table))


if __name__ == "__main__":
    main()
